"""Agreement of mean change."""

from __future__ import annotations

from numpy.typing import ArrayLike

from ._checks import check_samples
from ._pearson import pearson
from ._rounding import difference
from ._welch import moments_of


def pearson_delta(predicted: ArrayLike, observed: ArrayLike, control: ArrayLike) -> float:
    """Pearson correlation, over genes, of the predicted and the observed change of mean expression.

    The changes are mean predicted - mean control and mean observed - mean control.

    Parameters
    ----------
    predicted
        Predicted expression, shape (n, genes), n >= 2.
    observed
        Observed expression of target cells, shape (m, genes), m >= 2.
    control
        Observed expression of control cells, shape (k, genes), k >= 2. The rows of the three arrays need not
        correspond.

    Returns
    -------
    Correlation between -1 and 1, without units. NaN if either change is the same for all genes, as that of
    the identity (``predicted`` equal to ``control``) is. Changes that are no larger than rounding of the values are 0
    (the rule is that of :func:`deg_overlap`).

    Raises
    ------
    TypeError
        If an array is sparse or not numeric.
    ValueError
        If the numbers of columns differ or a value is not finite.

    References
    ----------
    Roohani, Huang & Leskovec (2024), Predicting transcriptional outcomes of novel multigene perturbations
    with GEARS, Nature Biotechnology 42.

    Examples
    --------
    >>> from scot_hycnn.metrics import pearson_delta
    >>> control, observed = [[1, 1, 1], [1, 1, 1]], [[2, 1, 4], [2, 1, 4]]
    >>> round(pearson_delta([[3, 1, 7], [3, 1, 7]], observed, control), 6)
    1.0
    """
    predicted_cells, observed_cells, control_cells = check_samples(
        predicted=predicted, observed=observed, control=control
    )
    control_moments = moments_of(control_cells)
    moments = moments_of(predicted_cells), moments_of(observed_cells)
    rounding = [condition.rounding + control_moments.rounding for condition in moments]
    changes = [
        difference(condition.mean, control_moments.mean, bound)
        for condition, bound in zip(moments, rounding, strict=True)
    ]
    return pearson(*changes, *rounding)
