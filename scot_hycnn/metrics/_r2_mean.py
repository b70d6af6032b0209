"""Agreement of mean expression."""

from __future__ import annotations

from numpy.typing import ArrayLike

from ._checks import check_samples
from ._pearson import pearson


def r2_mean(predicted: ArrayLike, observed: ArrayLike) -> float:
    """R² of gene means: squared Pearson correlation, over genes, of mean predicted and observed expression.

    High for almost any prediction, since genes differ far more from each other than conditions do: report it
    next to the identity's value, or use :func:`pearson_delta`. For the top differentially expressed genes,
    pass those columns only.

    Parameters
    ----------
    predicted
        Predicted expression, shape (n, genes), n >= 2.
    observed
        Observed expression of target cells, shape (m, genes), m >= 2. They need not correspond to the rows of
        ``predicted``.

    Returns
    -------
    R² between 0 and 1, without units. NaN if the mean of either is the same for all genes.

    Raises
    ------
    TypeError
        If an array is sparse or not numeric.
    ValueError
        If the numbers of columns differ or a value is not finite.

    Notes
    -----
    CellOT's "r2" is the correlation itself, unsquared.

    References
    ----------
    Lotfollahi, Wolf & Theis (2019), scGen predicts single-cell perturbation responses, Nature Methods 16.

    Examples
    --------
    >>> from scot_hycnn.metrics import r2_mean
    >>> round(r2_mean([[0, 1, 2], [0, 3, 4]], [[1, 3, 4], [1, 3, 4]]), 6)
    1.0
    """
    predicted_cells, observed_cells = check_samples(predicted=predicted, observed=observed)
    return pearson(predicted_cells.mean(axis=0), observed_cells.mean(axis=0)) ** 2
