"""Sinkhorn divergence."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from scot_hycnn._warn import warn

from ._checks import Samples, check_samples
from ._moments import exact_mean, moments_of
from ._pairwise import draw_cells, squared_distances

# Share of the total variance of the observed cells: the scale on which clouds are compared, whatever the units are.
_RELATIVE_EPSILON = 0.1
# An iteration costs a hundredth of an exponential of all costs, with which a round begins.
_ITERATIONS, _ROUNDS = 20, 500
# Mean relative error of the marginals. It leaves the value off by at most a millionth of the clouds' variance.
_TOLERANCE = 1e-4
# Over-relaxation (Thibault et al. 2021, Algorithms 14, 143) saves two thirds of the iterations; 1.8 diverges.
_RELAXATION = 1.5


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
        f"{error:.1e} (relative). Take a larger epsilon than {epsilon:g}.",
    )
