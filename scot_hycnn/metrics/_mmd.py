"""Maximum mean discrepancy."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ._checks import Samples, check_samples
from ._pairwise import Distances, Elementwise, mean_between, mean_within

# Without a unit of their own: multiples of 1 / median squared distance of observed cells.
_FACTORS = np.array([4.0, 2.0, 1.0, 0.5, 0.25])
# Mean kernels all below, or all as near to 1, do not tell clouds apart.
_UNTOLD = 1e-4
# CellOT, Bunne et al. 2023, evaluation: the mean over this grid of bandwidths.
CELLOT_GAMMAS = np.logspace(1, -3, 50)


def mmd(x: ArrayLike, y: ArrayLike, *, gamma: ArrayLike | None = None, unbiased: bool = True) -> float:
    r"""Squared maximum mean discrepancy, mean over radial basis function kernels.

    .. math:: E\,k(X,X') + E\,k(Y,Y') - 2\,E\,k(X,Y), \qquad k(x,y) = \exp(-\gamma |x-y|^2)

    averaged over the values of :math:`\gamma`.

    Parameters
    ----------
    x
        Cells, shape (n, d), n >= 2.
    y
        Cells, shape (m, d), m >= 2. They need not correspond to the rows of ``x``.
    gamma
        One value or several, each > 0, in units of 1 / squared coordinate. None: the 50 values
        ``np.logspace(1, -3, 50)`` of CellOT, which suit distances between cells of about 0.1 to 50. Always report it:
        values under different gamma do not compare.
    unbiased
        True: pairs of a cell with itself are left out (U-statistic), the expected value is zero for two
        samples of one distribution, and a single value may be slightly negative. False: they are kept
        (V-statistic), which is never negative and grows as samples get smaller; CellOT's tables are of this
        kind.

    Returns
    -------
    MMD², between 0 and 2 up to sampling noise, without units.

    Raises
    ------
    TypeError
        If an array is sparse or not numeric.
    ValueError
        If the shapes do not fit, a value is not finite, or a gamma is not positive; and if ``gamma`` is None and the
        grid cannot tell the clouds apart, because the mean kernels within and between them are all below 1e-4 (cells
        too far apart, for instance raw counts), or all above 1 - 1e-4 (cells too near) though the cells differ.

    Notes
    -----
    A kernel sees differences of about its bandwidth, :math:`\gamma^{-1/2}`. With a ``gamma`` of your own that does not
    suit the distances the value is about 0 whatever the clouds are. :func:`evaluate` takes :math:`\gamma` = 4, 2, 1, ½
    and ¼ over the median squared distance of the observed cells.

    References
    ----------
    Gretton et al. (2012), A kernel two-sample test, JMLR 13, eq. 3 (U-statistic) and eq. 5 (V-statistic).
    Bunne et al. (2023), Learning single-cell perturbation responses using neural optimal transport, Nature
    Methods 20 (the grid of gamma).

    Examples
    --------
    >>> import numpy as np
    >>> from scot_hycnn.metrics import mmd
    >>> x, y = np.zeros((3, 1)), np.ones((3, 1))
    >>> round(mmd(x, y, gamma=1.0), 4)  # 1 + 1 - 2 / e
    1.2642
    """
    x_cells, y_cells = check_samples(x=x, y=y)
    gammas = CELLOT_GAMMAS if gamma is None else np.atleast_1d(np.asarray(gamma, dtype=np.float64))
    if gammas.size == 0 or not np.all(np.isfinite(gammas) & (gammas > 0)):
        raise ValueError(f"gamma={gamma!r}; it needs one or several finite values > 0.")
    kernel = mean_rbf(gammas)
    within_x, within_y = mean_within(x_cells, kernel), mean_within(y_cells, kernel)
    between = mean_between(x_cells, y_cells, kernel)
    if gamma is None:
        _check_told(x_cells, y_cells, within_x, within_y, between)
    if not unbiased:
        within_x, within_y = _with_diagonal(within_x, len(x_cells)), _with_diagonal(within_y, len(y_cells))
    return within_x + within_y - 2 * between


def mean_rbf(gammas: Samples) -> Elementwise:
    """Mean of the kernels as a function of squared distances; NaN if there are none."""

    def kernel(squared: Distances) -> Distances:
        total, term = np.zeros_like(squared), np.empty_like(squared)
        if not len(gammas):
            return np.full_like(squared, np.nan)
        for gamma in gammas:
            total += np.exp(np.multiply(squared, -gamma, out=term), out=term)
        total /= len(gammas)
        return total

    return kernel


def gammas_of(squared: Distances) -> Samples:
    """Values of gamma for these cells: 4, 2, 1, ½ and ¼ over the median of their squared distances.

    Pairs of equal cells have no distance to measure others by, and are left out. The median heuristic is that of
    Gretton et al. (2012), sec. 8; several bandwidths around it see differences that are finer and coarser than it.

    Parameters
    ----------
    squared
        Squared distances of observed cells, shape (n, n).

    Returns
    -------
    Shape (5,), decreasing; or (0,) if all cells are equal.
    """
    positive = squared[squared > 0]
    gammas: Samples = _FACTORS / np.median(positive) if len(positive) else np.empty(0)
    return gammas


def _check_told(x: Samples, y: Samples, *means: float) -> None:
    if max(means) < _UNTOLD:
        found = "far apart: all kernels are about 0"
    elif min(means) > 1 - _UNTOLD and not (np.ptp(np.concatenate([x, y]), axis=0) == 0).all():
        found = "near to each other: all kernels are about 1"
    else:
        return
    raise ValueError(
        f"The default gamma, from 10 to 0.001, cannot tell these clouds apart: for it, cells are too {found}. Pass "
        "gamma, in units of 1 / squared distance, and report it; for example "
        "gamma=1 / np.median(scipy.spatial.distance.pdist(y) ** 2)."
    )


def _with_diagonal(mean_off_diagonal: float, n_cells: int) -> float:
    """Mean over all n² pairs; the kernel of a cell with itself is 1."""
    return ((n_cells - 1) * mean_off_diagonal + 1) / n_cells
