"""Shrinkage of a predicted cloud."""

from __future__ import annotations

from numpy.typing import ArrayLike

from ._checks import check_samples
from ._moments import moments_of


def trace_ratio(predicted: ArrayLike, observed: ArrayLike) -> float:
    r"""Total variance of the predicted cells relative to the observed ones.

    .. math:: \operatorname{tr}\operatorname{Cov}(T(X)) \,/\, \operatorname{tr}\operatorname{Cov}(Y)

    with the divisor n - 1 in both covariances.

    Parameters
    ----------
    predicted, observed
        Cells T(x) and y, shape (n, d) and (m, d), at least 2 of each. Rows need not correspond.

    Returns
    -------
    The ratio, without units: 1 is right, below 1 is shrinkage, which gene means do not show.

    Raises
    ------
    TypeError, ValueError
        If an array is sparse, not numeric or not finite, if the numbers of columns differ, or if ``observed`` varies by
        rounding only (5e-7 of the size of values that are stored in float32, 1e-14 in float64).

    Examples
    --------
    >>> import numpy as np
    >>> from scot_hycnn.metrics import trace_ratio
    >>> y = np.random.default_rng(0).normal(size=(50, 3))
    >>> round(trace_ratio(0.9 * y, y), 6)
    0.81
    """
    cells = check_samples(predicted=predicted, observed=observed)
    of_predicted, of_observed = (float(moments_of(each).total_variance()) for each in cells)
    if of_observed == 0:
        raise ValueError(
            "observed has no variance: all its rows are equal up to rounding, so that no ratio is defined."
        )
    return of_predicted / of_observed
