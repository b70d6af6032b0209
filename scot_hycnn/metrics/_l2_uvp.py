"""Unexplained variance of a map."""

from __future__ import annotations

from numpy.typing import ArrayLike

from ._checks import check_samples
from ._map_mse import map_mse
from ._moments import moments_of


def l2_uvp(predicted: ArrayLike, truth: ArrayLike) -> float:
    r"""Unexplained variance of a map in percent of the target's variance, where the true map is known.

    .. math:: 100 \cdot \frac{E\,|\hat T(X) - T(X)|^2}{\operatorname{tr}\operatorname{Cov}(T(X))}

    The covariance of the true values is that of the target distribution; it has the divisor n - 1.

    Parameters
    ----------
    predicted, truth
        :math:`\hat T(x_i)` and :math:`T(x_i)` of the same cells in the same order, shape (n, d), n >= 2.

    Returns
    -------
    Percent: 0 is the true map, 100 is as bad as mapping every cell to the target's mean.

    Raises
    ------
    TypeError, ValueError
        If an array is sparse, not numeric or not finite, if the shapes differ, or if ``truth`` varies by rounding only.

    References
    ----------
    Korotin et al. (2021), Do neural optimal transport solvers work? A continuous Wasserstein-2 benchmark, NeurIPS.

    Examples
    --------
    >>> from scot_hycnn.metrics import l2_uvp
    >>> l2_uvp([[0.0], [1.0]], [[0.0], [2.0]])
    25.0
    """
    predicted_cells, true_cells = check_samples(paired=True, predicted=predicted, truth=truth)
    variance = float(moments_of(true_cells).total_variance())
    if variance == 0:
        raise ValueError(
            "truth has no variance: all its rows are equal up to rounding. Use map_mse, which does not divide."
        )
    return 100 * map_mse(predicted_cells, true_cells) / variance
