"""Distances of two clouds: energy distance, maximum mean discrepancy, Wasserstein distance, Sinkhorn divergence."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial.distance import cdist

from scot_hycnn._warn import warn

from ._moments import exact_mean, moments_of
from ._samples import Samples, check_samples, draw_cells, mean_between, mean_within, row_blocks, squared_distances

# Mean kernels that are all below this number, or all as near to 1, do not distinguish clouds.
_MIN_KERNEL = 1e-4
_CELLOT_GAMMAS = np.logspace(1, -3, 50)  # of the evaluation of CellOT (Bunne et al. 2023)
# Rounds of refinement of W2, and the relative gap of primal and dual that ends them: the first one, unless cells are
# far off.
_REFINEMENTS, _GAP = 4, 1e-10
_MAX_PIVOTS = 10_000_000  # the default limit of POT, 100,000, stops a thousand cells before the optimum
# Share of the total variance of the observed cells: the scale on which clouds are compared, whatever the units are.
_RELATIVE_EPSILON = 0.1
# An iteration costs a hundredth of an exponential of all costs, with which a round begins.
_ITERATIONS, _ROUNDS = 20, 500
# Mean relative error of the marginals. It leaves the value off by at most a millionth of the clouds' variance.
_TOLERANCE = 1e-4
# Over-relaxation (Thibault et al. 2021, Algorithms 14, 143) saves two thirds of the iterations; 1.8 diverges.
_RELAXATION = 1.5


def energy_distance(x: ArrayLike, y: ArrayLike) -> float:
    r"""Energy distance between two clouds of cells, unbiased.

    .. math:: 2\,E|X-Y| - E|X-X'| - E|Y-Y'|

    with X, X' independent cells of one cloud and Y, Y' of the other. The means within a cloud leave out pairs of a cell
    with itself (U-statistic): the expected value is 0 for two samples of one distribution, and a single value may be
    slightly negative.

    Parameters
    ----------
    x, y
        Cells, shape (n, d) and (m, d), at least 2 of each. Rows need not correspond.

    Returns
    -------
    The distance, in the units of the coordinates. Some tools report its square root.

    Raises
    ------
    TypeError, ValueError
        If an array is sparse, not numeric or not finite, or if the numbers of columns differ.

    Notes
    -----
    Time grows with (n + m)² d, memory does not: 15,000 x 15,000 cells in 50 dimensions take 10 s on one core.

    References
    ----------
    Székely & Rizzo (2013), Energy statistics: a class of statistics based on distances, J. Stat. Plan. Inference 143.

    Examples
    --------
    >>> import numpy as np
    >>> from scot_hycnn.metrics import energy_distance
    >>> energy_distance(np.zeros((3, 2)), np.tile([3.0, 4.0], (4, 1)))  # no spread, 5 apart
    10.0
    """
    x_cells, y_cells = check_samples(x=x, y=y)
    between = mean_between(x_cells, y_cells, np.sqrt)
    return 2 * between - mean_within(x_cells, np.sqrt) - mean_within(y_cells, np.sqrt)


def mmd(x: ArrayLike, y: ArrayLike, *, gamma: ArrayLike | None = None, unbiased: bool = True) -> float:
    r"""Squared maximum mean discrepancy, mean over radial basis function kernels.

    .. math:: E\,k(X,X') + E\,k(Y,Y') - 2\,E\,k(X,Y), \qquad k(x,y) = \exp(-\gamma |x-y|^2)

    averaged over the values of :math:`\gamma`.

    Parameters
    ----------
    x, y
        Cells, shape (n, d) and (m, d), at least 2 of each. Rows need not correspond.
    gamma
        One value or several > 0, in units of 1 / squared coordinate. None takes ``np.logspace(1, -3, 50)`` of CellOT,
        which suits distances between cells of about 0.1 to 50. Report it: values under different gamma do not compare.
    unbiased
        True leaves out pairs of a cell with itself (U-statistic): the expected value is 0 for two samples of one
        distribution. False keeps them (V-statistic, as in the tables of CellOT): the value grows in smaller samples.

    Returns
    -------
    MMD², between 0 and 2 up to sampling noise, without units.

    Raises
    ------
    TypeError, ValueError
        If an array is sparse, not numeric or not finite, if the numbers of columns differ, if a gamma is not positive,
        or if ``gamma`` is None and all mean kernels are below 1e-4 or above 1 - 1e-4, so that MMD² would be about 0.

    Notes
    -----
    A kernel responds to differences of about its bandwidth, :math:`\gamma^{-1/2}`. :func:`evaluate` takes
    :math:`\gamma` = 4, 2, 1, ½ and ¼ over the median squared distance of the observed cells.

    References
    ----------
    Gretton et al. (2012), A kernel two-sample test, JMLR 13, eq. 3 (U-statistic) and eq. 5 (V-statistic). Bunne et al.
    (2023), Learning single-cell perturbation responses using neural optimal transport, Nature Methods 20 (CellOT).

    Examples
    --------
    >>> import numpy as np
    >>> from scot_hycnn.metrics import mmd
    >>> x, y = np.zeros((3, 1)), np.ones((3, 1))
    >>> round(mmd(x, y, gamma=1.0), 4)  # 1 + 1 - 2 / e
    1.2642
    """
    x_cells, y_cells = check_samples(x=x, y=y)
    gammas = _CELLOT_GAMMAS if gamma is None else np.atleast_1d(np.asarray(gamma, dtype=np.float64))
    if gammas.size == 0 or not np.all(np.isfinite(gammas) & (gammas > 0)):
        raise ValueError(f"gamma={gamma!r}; it needs one or several finite values > 0.")
    kernel = partial(mean_rbf, gammas=gammas)
    within = [mean_within(x_cells, kernel), mean_within(y_cells, kernel)]
    between = mean_between(x_cells, y_cells, kernel)
    if gamma is None:
        far = max(*within, between) < _MIN_KERNEL
        are_equal = (np.ptp(np.concatenate([x_cells, y_cells]), axis=0) == 0).all()
        if far or (min(*within, between) > 1 - _MIN_KERNEL and not are_equal):
            raise ValueError(
                "The default gamma, from 10 to 0.001, cannot tell these clouds apart: for it, cells are too "
                f"{'far apart: all kernels are about 0' if far else 'near to each other: all kernels are about 1'}. "
                "Pass gamma, in units of 1 / squared distance, and report it; for example "
                "gamma=1 / np.median(scipy.spatial.distance.pdist(y) ** 2)."
            )
    if not unbiased:  # the kernel of a cell with itself is 1
        within = [((len(c) - 1) * mean + 1) / len(c) for c, mean in zip((x_cells, y_cells), within, strict=True)]
    return sum(within) - 2 * between


def mean_rbf(squared: Samples, gammas: Samples) -> Samples:
    """Return the mean of the kernels of squared distances; NaN if there are no ``gammas``."""
    if not len(gammas):
        return np.full_like(squared, np.nan)
    total = np.zeros_like(squared)
    for rows in row_blocks(*squared.shape):  # in the cache of a core, exponentials take three quarters of the time
        for gamma in gammas:
            total[rows] += np.exp(-gamma * squared[rows])
    total /= len(gammas)
    return total


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
    for _ in range(_REFINEMENTS):
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
        S_\varepsilon(x, y)  &= OT_\varepsilon(x, y) - \tfrac12 OT_\varepsilon(x, x) - \tfrac12 OT_\varepsilon(y, y), \\
        OT_\varepsilon(x, y) &= \min_\pi \sum_{ij} \pi_{ij} |x_i - y_j|^2 + \varepsilon\,KL(\pi \| a \otimes b)

    over all couplings of the two uniform distributions a and b. It is 0 for equal clouds and positive for others, and
    lies between :math:`W_2^2` (small :math:`\varepsilon`) and the squared distance of the means (large).

    Parameters
    ----------
    x, y
        Cells, shape (n, d) and (m, d), at least 2 of each. Rows need not correspond.
    epsilon
        :math:`\varepsilon`, in squared units of the coordinates. None takes 0.1 times the total variance of ``y``.
        Report it: values under different epsilon do not compare.
    max_cells
        A cloud with more cells is replaced by a random draw of this many: time and memory grow with the square. 2000
        cells of each cloud take about a second.
    rng
        Seed or generator of that draw.

    Returns
    -------
    The divergence, in squared units of the coordinates. It is above 0 for finite samples of one distribution: compare
    values only at equal numbers of cells, and with that of two halves of the observed cells.

    Raises
    ------
    TypeError, ValueError
        If an array is sparse, not numeric or not finite, if the numbers of columns differ, if ``max_cells`` is below 2,
        or if ``epsilon`` is not positive (or None where ``y`` has no variance).

    Notes
    -----
    The iterations end where the value is off by a millionth of the clouds' variance. A warning says if an epsilon is so
    small that they do not converge.

    References
    ----------
    Feydy et al. (2019), Interpolating between optimal transport and MMD using Sinkhorn divergences, AISTATS
    (definition; with the cost ½|x - y|²).

    Examples
    --------
    >>> import numpy as np
    >>> from scot_hycnn.metrics import sinkhorn_divergence
    >>> x = np.random.default_rng(0).normal(size=(50, 2))
    >>> round(sinkhorn_divergence(x, x + [3, 4]), 4)  # every cell moves by (3, 4)
    25.0
    """
    x_cells, y_cells = check_samples(x=x, y=y)
    epsilon = default_epsilon(y_cells) if epsilon is None else epsilon
    if not (np.isfinite(epsilon) and epsilon > 0):
        raise ValueError(f"epsilon={epsilon!r}; it needs a finite value > 0 (y with some variance, if it is None).")
    x_cells, y_cells = draw_cells(x_cells, y_cells, max_cells, rng)
    origin = exact_mean(y_cells)
    x_cells, y_cells = x_cells - origin, y_cells - origin
    f, g = entropic_between(x_cells, y_cells, epsilon)
    within = (entropic_within(squared_distances(cells, cells), epsilon) for cells in (x_cells, y_cells))
    value = float(f.mean() + g.mean() - sum(potential.mean() for potential in within))
    return max(value, 0.0)  # it is never negative but for the tolerance of the iterations


def default_epsilon(y: Samples) -> float:
    """Return 0.1 times the total variance of the observed cells, or 0 if they vary by rounding only."""
    return _RELATIVE_EPSILON * float(moments_of(y).total_variance())


def entropic_between(x: Samples, y: Samples, epsilon: float) -> tuple[Samples, Samples]:
    """Return the entropic potentials f (n,) and g (m,) of two clouds; the minimum is mean(f) + mean(g)."""
    # Exponentials of large costs would lose the digits of small ones, hence the clouds are centred. With D the
    # difference of the means, |x - y|² is the squared distance of centred cells plus 2<D, x> - 2<D, y> + |D|²: terms of
    # x or y alone, which belong to the potentials and change no coupling.
    x_mean, y_mean = x.mean(axis=0), y.mean(axis=0)
    between = x_mean - y_mean
    x, y = x - x_mean, y - y_mean
    cost = squared_distances(x, y)
    # Sinkhorn's iterations absorb the potentials into the kernel once a round (Schmitzer 2019, SIAM J. Sci. Comput. 41,
    # alg. 2), so that no epsilon is too small for exponentials.
    f = cost.min(axis=1)
    g = (cost - f[:, None]).min(axis=0)  # every row and column of the first kernel has a 1
    for round_ in range(_ROUNDS):
        kernel = np.exp((f[:, None] + g - cost) / epsilon)
        u, v = np.ones(len(f)), np.ones(len(g))
        step = _RELAXATION if round_ else 1.0  # far from the solution it may overshoot
        for _ in range(_ITERATIONS):
            u = u ** (1 - step) * (len(g) / (kernel @ v)) ** step
            v = v ** (1 - step) * (len(f) / (u @ kernel)) ** step
        v = len(f) / (u @ kernel)  # one marginal is exact, so that the value is that of the dual
        error = float(np.abs(u * (kernel @ v) / len(g) - 1).mean())
        f, g = f + epsilon * np.log(u), g + epsilon * np.log(v)
        if error < _TOLERANCE:
            break
    else:
        _warn_not_converged(epsilon, error)
    return f + 2 * x @ between + between @ between, g - 2 * y @ between


def entropic_within(cost: Samples, epsilon: float) -> Samples:
    """Return the potential f = g (n,) of a cloud and itself, by Knight's symmetric iteration: it takes a few steps."""
    f = np.zeros(len(cost))
    for _ in range(_ROUNDS):
        kernel = np.exp((f[:, None] + f - cost) / epsilon)
        u = np.ones(len(f))
        for _ in range(_ITERATIONS):
            u = np.sqrt(u * len(f) / (kernel @ u))
        error = float(np.abs(u * (kernel @ u) / len(f) - 1).mean())
        f = f + epsilon * np.log(u)
        if error < _TOLERANCE:
            break
    else:
        _warn_not_converged(epsilon, error)
    return f


def _warn_not_converged(epsilon: float, error: float) -> None:
    warn(
        f"Sinkhorn's iterations have not converged in {_ROUNDS * _ITERATIONS} steps: the marginals are off by "
        f"{error:.1e} (relative). Take a larger epsilon than {epsilon:g}."
    )
