"""Exact squared Wasserstein-2 distance."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial.distance import cdist

from ._checks import Samples, check_samples
from ._pairwise import draw_cells

# Rounds of refinement, and the relative gap of primal and dual that ends them: the first one, unless cells are far off.
_ROUNDS, _GAP = 4, 1e-10
_MAX_PIVOTS = 10_000_000  # the default limit of POT, 100,000, stops a thousand cells before the optimum


def w2(x: ArrayLike, y: ArrayLike, *, max_cells: int = 2000, rng: int | np.random.Generator | None = 0) -> float:
    r"""Exact squared Wasserstein-2 distance between two clouds of cells.

    .. math:: W_2^2 = \min_\pi \sum_{ij} \pi_{ij} |x_i - y_j|^2

    over all couplings of the two uniform distributions, solved by the network simplex algorithm of POT.

    Parameters
    ----------
    x, y
        Cells, shape (n, d) and (m, d), at least 2 of each. Rows need not correspond.
    max_cells
        A cloud with more cells is replaced by a random draw of this many: time grows with about the cube of the number
        of cells, memory with the square. 2000 cells of each cloud take a few seconds.
    rng
        Seed or generator of that draw.

    Returns
    -------
    :math:`W_2^2`, in squared units of the coordinates. Finite samples raise it: compare values only at equal numbers of
    cells, and with that of two halves of the observed cells.

    Raises
    ------
    ImportError
        If POT is not installed.
    TypeError, ValueError
        If an array is sparse, not numeric or not finite, the numbers of columns differ, or ``max_cells`` is below 2.

    References
    ----------
    Flamary et al. (2021), POT: Python Optimal Transport, JMLR 22(78); ``ot.emd2``.

    Examples
    --------
    >>> import numpy as np
    >>> from scot_hycnn.metrics import w2
    >>> x = np.random.default_rng(0).normal(size=(10, 2))
    >>> round(w2(x, x + [3, 4]), 6)  # every cell moves by (3, 4), which costs 25
    25.0
    """
    x_cells, y_cells = check_samples(x=x, y=y)
    x_cells, y_cells = draw_cells(x_cells, y_cells, max_cells, rng)
    return exact_coupling(cdist(x_cells, y_cells, "sqeuclidean"))[0]


def exact_coupling(cost: Samples) -> tuple[float, Samples, Samples]:
    """Return the minimum cost of a coupling of uniform distributions, and Kantorovich potentials u (n,), v (m,)."""
    try:
        import ot  # noqa: PLC0415 - POT is an extra and takes half a second to import
    except ImportError as error:
        raise ImportError("w2 needs POT, which is not installed. Run: pip install 'scot-hycnn[ot]'") from error
    # The network simplex in floating point takes costs below 1e-15 of the largest one for 0. Where some cells are far
    # from the others, its result is far from the optimum. Then the reduced costs, cost - u - v >= 0, take the place of
    # the costs, which changes no optimal coupling, and those that no better coupling can use are cut. This is
    # iterative refinement of a linear program: Gleixner, Steffy & Wolter (2016), INFORMS J. Comput. 28, 449-464.
    u, v = np.zeros(len(cost)), np.zeros(cost.shape[1])
    n_masses = math.lcm(*cost.shape)  # the masses of a vertex are multiples of 1 / n_masses
    best, reduced = np.inf, cost
    for _ in range(_ROUNDS):
        unit = float(reduced.max()) or 1.0
        plan, report = ot.emd([], [], reduced / unit, numItermax=_MAX_PIVOTS, log=True)  # [] are uniform weights
        used = plan > 0
        best = min(best, float((plan[used] * cost[used]).sum()))
        reduced = reduced - unit * np.add.outer(report["u"], report["v"])
        lowest = min(float(reduced.min()), 0.0)  # the potentials are feasible once it is subtracted from them
        u, v, reduced = u + unit * report["u"], v + (unit * report["v"] + lowest), reduced - lowest
        gap = float((plan[used] * reduced[used]).sum())  # value of the coupling minus that of the potentials
        if gap <= _GAP * best:
            break
        np.minimum(reduced, n_masses * gap, out=reduced)
    return best, u, v
