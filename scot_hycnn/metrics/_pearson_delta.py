"""Agreement of mean change."""

from __future__ import annotations

from numpy.typing import ArrayLike

from ._checks import Samples, check_samples
from ._moments import Moments, difference, moments_of, pearson


def pearson_delta(predicted: ArrayLike, observed: ArrayLike, control: ArrayLike) -> float:
    """Pearson correlation, over genes, of the predicted and the observed change of mean expression.

    The changes are mean predicted - mean control and mean observed - mean control.

    Parameters
    ----------
    predicted, observed, control
        Expression of predicted, observed and control cells, shape (cells, genes), at least 2 cells of each.

    Returns
    -------
    Correlation between -1 and 1. NaN if either change is the same for all genes, as that of the identity (``predicted``
    equal to ``control``) is. Changes that are no larger than rounding are 0, as in :func:`deg_overlap`.

    Raises
    ------
    TypeError, ValueError
        If an array is sparse, not numeric or not finite, or if the numbers of columns differ.

    References
    ----------
    Roohani, Huang & Leskovec (2024), Nature Biotechnology 42 (GEARS).

    Examples
    --------
    >>> from scot_hycnn.metrics import pearson_delta
    >>> control, observed = [[1, 1, 1], [1, 1, 1]], [[2, 1, 4], [2, 1, 4]]
    >>> round(pearson_delta([[3, 1, 7], [3, 1, 7]], observed, control), 6)
    1.0
    """
    cells = check_samples(predicted=predicted, observed=observed, control=control)
    return float(correlation_of_changes(*map(moments_of, cells)))


def correlation_of_changes(
    predicted: Moments, observed: Moments, control: Moments, of_observed: Moments | None = None
) -> Samples:
    """Return the correlation over genes of two changes of the mean, (...,); the second may have its own control."""
    other = control if of_observed is None else of_observed
    rounding, other_rounding = predicted.rounding + control.rounding, observed.rounding + other.rounding
    change = difference(predicted.mean, control.mean, rounding)
    return pearson(change, difference(observed.mean, other.mean, other_rounding), rounding, other_rounding)
