"""Agreement of differentially expressed genes."""

from __future__ import annotations

from numpy.typing import ArrayLike

from ._checks import check_samples
from ._welch import check_n_top, moments_of, top_genes, welch_t


def deg_overlap(predicted: ArrayLike, observed: ArrayLike, control: ArrayLike, *, n_top: int = 50) -> float:
    """Share of the top differentially expressed genes that a prediction finds.

    Genes are ranked by the absolute value of Welch's t of observed against control cells, and by the predicted change
    of means over the standard error of the observed change. (A prediction's own variance does not measure noise: with
    it, a gene that no control cell expresses would lead the list for the tiniest change.) A gene whose mean does not
    change at all is in no list, nor is one whose change is no larger than rounding of the values (see Notes). The
    direction of change does not count.

    Parameters
    ----------
    predicted
        Predicted expression, shape (n, genes), n >= 2.
    observed
        Observed expression of target cells, shape (m, genes), m >= 2.
    control
        Observed expression of control cells, shape (k, genes), k >= 2. The rows of the three arrays need not
        correspond.
    n_top
        Length of the lists.

    Returns
    -------
    Number of genes in both lists, divided by ``n_top``: 0 to 1, without units. By chance it is ``n_top / genes``.

    Raises
    ------
    TypeError
        If an array is sparse or not numeric.
    ValueError
        If the numbers of columns differ, a value is not finite, or ``n_top`` is not from 2 to the number of columns.

    Notes
    -----
    Means of float64 values differ by rounding if they differ by less than 1e-14 of the mean absolute value of the gene,
    in each of two conditions; of values that are stored in float32, by less than 5e-7 of it. Where standard errors are
    smaller than that, they are set to it. Equal t at the end of a list are taken in the order of columns.

    References
    ----------
    Welch (1947), Biometrika 34, 28-35 (t). Roohani, Huang & Leskovec (2024), Nature Biotechnology 42, and others report
    such overlaps.

    Examples
    --------
    >>> import numpy as np
    >>> from scot_hycnn.metrics import deg_overlap
    >>> control = np.random.default_rng(0).normal(size=(100, 6))
    >>> observed = np.random.default_rng(1).normal(size=(100, 6)) + [5, 5, 5, 0, 0, 0]
    >>> deg_overlap(control + [3, 3, 0, 0, 0, 9], observed, control, n_top=3)
    0.6666666666666666
    """
    predicted_cells, observed_cells, control_cells = check_samples(
        predicted=predicted, observed=observed, control=control
    )
    check_n_top(n_top, control_cells.shape[1])
    moments, observed_moments, control_moments = (
        moments_of(cells) for cells in (predicted_cells, observed_cells, control_cells)
    )
    found, true = (
        top_genes(welch_t(condition.mean, observed_moments, control_moments, condition.rounding), n_top)
        for condition in (moments, observed_moments)
    )
    return float((found & true).sum() / n_top)
