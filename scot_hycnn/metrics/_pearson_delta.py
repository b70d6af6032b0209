"""Agreement of mean change."""

from __future__ import annotations

from numpy.typing import ArrayLike

from ._checks import check_samples
from ._pearson import pearson


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
    the identity (``predicted`` equal to ``control``) is.

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
    baseline = control_cells.mean(axis=0)
    return pearson(predicted_cells.mean(axis=0) - baseline, observed_cells.mean(axis=0) - baseline)
