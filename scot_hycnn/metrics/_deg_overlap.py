"""Agreement of differentially expressed genes."""

from __future__ import annotations

from numpy.typing import ArrayLike

from ._checks import check_n_top, check_samples
from ._moments import moments_of, top_genes, welch_t


def deg_overlap(predicted: ArrayLike, observed: ArrayLike, control: ArrayLike, *, n_top: int = 50) -> float:
    """Share of the top differentially expressed genes that a prediction finds.

    Observed genes are ranked by absolute Welch's t against control cells, predicted genes by the predicted change of
    means over the standard error of the observed change. The direction of change does not count. A gene whose mean
    changes by rounding only (1e-14 of its mean absolute value, 5e-7 if values are stored in float32) is in no list.

    Parameters
    ----------
    predicted, observed, control
        Expression of predicted, observed and control cells, shape (cells, genes), at least 2 cells of each.
    n_top
        Length of the lists.

    Returns
    -------
    Number of genes in both lists, divided by ``n_top``: 0 to 1, without units. By chance it is ``n_top / genes``.

    Raises
    ------
    TypeError, ValueError
        If an array is sparse, not numeric or not finite, if the numbers of columns differ, or if ``n_top`` is not from
        2 to the number of columns.

    References
    ----------
    Welch (1947), Biometrika 34, 28-35 (t). Roohani, Huang & Leskovec (2024), Nature Biotechnology 42 (overlaps).

    Examples
    --------
    >>> import numpy as np
    >>> from scot_hycnn.metrics import deg_overlap
    >>> control = np.random.default_rng(0).normal(size=(100, 6))
    >>> observed = np.random.default_rng(1).normal(size=(100, 6)) + [5, 5, 5, 0, 0, 0]
    >>> deg_overlap(control + [3, 3, 0, 0, 0, 9], observed, control, n_top=3)
    0.6666666666666666
    """
    cells = check_samples(predicted=predicted, observed=observed, control=control)
    check_n_top(n_top, cells[0].shape[1])
    of_predicted, of_observed, of_control = (moments_of(each) for each in cells)
    found = top_genes(welch_t(of_predicted, of_observed, of_control), n_top)
    true = top_genes(welch_t(of_observed, of_observed, of_control), n_top)
    return float((found & true).sum() / n_top)
