"""Sinkhorn divergence."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ._checks import Samples, check_samples
from ._pairwise import squared_distances
from ._rounding import exact_mean, total_variance
from ._sinkhorn import entropic, entropic_within
from ._w2 import check_max_cells, draw

# Of the observed cloud's total variance: the scale on which clouds are told apart, whatever the units.
_RELATIVE_EPSILON = 0.1


def sinkhorn_divergence(
    x: ArrayLike,
    y: ArrayLike,
    *,
    epsilon: float | None = None,
    max_cells: int = 2000,
    rng: int | np.random.Generator | None = 0,
) -> float:
    r"""Sinkhorn divergence between two clouds of cells.

    .. math::
        S_\varepsilon(x, y) = OT_\varepsilon(x, y) - \tfrac12 OT_\varepsilon(x, x) - \tfrac12 OT_\varepsilon(y, y),
        \qquad OT_\varepsilon(x, y) = \min_\pi \sum_{ij} \pi_{ij} |x_i - y_j|^2 + \varepsilon\,KL(\pi \| a \otimes b)

    over all couplings of the two uniform distributions a and b (squared Euclidean cost, without the factor ½). It is
    zero for equal clouds and positive for others; between :math:`W_2^2` (small :math:`\varepsilon`) and the squared
    distance of the means (large).

    Parameters
    ----------
    x
        Cells, shape (n, d), n >= 2.
    y
        Cells, shape (m, d), m >= 2. They need not correspond to the rows of ``x``.
    epsilon
        :math:`\varepsilon`, in squared units of the coordinates. None: 0.1 times the total variance of ``y``
        (divisor m - 1), so that predictions ``x`` of the same observed cells ``y`` are compared under one epsilon.
        Always report it: values under different epsilon do not compare.
    max_cells
        A cloud with more cells than this is replaced by a random draw, without replacement, of this many: time and
        memory grow with its square. 2000 cells of each cloud take about a second.
    rng
        Seed or generator of that draw.

    Returns
    -------
    The divergence, in squared units of the coordinates. That of finite samples of one distribution is above zero:
    compare values only at equal numbers of cells, and against two halves of the observed cells.

    Raises
    ------
    TypeError
        If an array is sparse or not numeric.
    ValueError
        If the shapes do not fit, a value is not finite, ``max_cells`` is below 2, or ``epsilon`` is not positive
        (or None where ``y`` has no variance).

    Warns
    -----
    UserWarning
        If an epsilon is so small that the iterations do not converge.

    Notes
    -----
    The iterations end where the value is off by a millionth of the clouds' variance, which one cell far from the rest
    makes large; :func:`w2` and :func:`energy_distance` have no such limit.

    References
    ----------
    Genevay, Peyré & Cuturi (2018), AISTATS. Feydy et al. (2019), Interpolating between optimal transport and MMD
    using Sinkhorn divergences, AISTATS (definition; with the cost ½|x - y|²).

    Examples
    --------
    Moving every cell by (3, 4), which costs 25 for every epsilon:

    >>> import numpy as np
    >>> from scot_hycnn.metrics import sinkhorn_divergence
    >>> x = np.random.default_rng(0).normal(size=(50, 2))
    >>> round(sinkhorn_divergence(x, x + [3, 4]), 4)
    25.0
    """
    x_cells, y_cells = check_samples(x=x, y=y)
    check_max_cells(max_cells)
    epsilon = default_epsilon(y_cells) if epsilon is None else epsilon
    if not (np.isfinite(epsilon) and epsilon > 0):
        raise ValueError(f"epsilon={epsilon!r}; it needs a finite value > 0 (y with some variance, if it is None).")
    generator = np.random.default_rng(rng)
    x_cells, y_cells = draw(x_cells, max_cells, generator), draw(y_cells, max_cells, generator)
    origin = exact_mean(y_cells)
    x_cells, y_cells = x_cells - origin, y_cells - origin
    f, g = entropic_between(x_cells, y_cells, epsilon)
    within = (entropic_within(squared_distances(cells, cells), epsilon) for cells in (x_cells, y_cells))
    value = float(f.mean() + g.mean() - sum(potential.mean() for potential in within))
    return max(value, 0.0)  # it is never negative but for the iterations' tolerance


def entropic_between(x: Samples, y: Samples, epsilon: float) -> tuple[Samples, Samples]:
    """Entropic potentials of two clouds, shapes (n,) and (m,).

    The iterations see centred clouds, because exponentials of large costs would lose the digits of small ones. With D
    the difference of the means, |x - y|² is the squared distance of centred cells plus 2<D, x> - 2<D, y> + |D|²: terms
    of x or y alone, which belong to the potentials and change no coupling.
    """
    x_mean, y_mean = x.mean(axis=0), y.mean(axis=0)
    between = x_mean - y_mean
    x, y = x - x_mean, y - y_mean
    f, g = entropic(squared_distances(x, y), epsilon)
    return f + 2 * x @ between + between @ between, g - 2 * y @ between


def default_epsilon(y: Samples) -> float:
    """0.1 times the total variance of the observed cells; 0 if they vary by rounding only."""
    return _RELATIVE_EPSILON * total_variance(y)
