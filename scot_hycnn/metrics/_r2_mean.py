"""Agreement of mean expression."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ._checks import check_n_top, check_samples
from ._moments import moments_of, pearson, top_genes, welch_t


def r2_mean(
    predicted: ArrayLike, observed: ArrayLike, control: ArrayLike | None = None, *, n_top: int | None = None
) -> float:
    """R² of gene means: squared Pearson correlation, over genes, of mean predicted and observed expression.

    It is high for almost any prediction, since genes differ more than conditions do: report it beside the value of the
    identity, on the genes that change most (``n_top``), or use :func:`pearson_delta`.

    Parameters
    ----------
    predicted, observed, control
        Expression of predicted, observed and control cells, shape (cells, genes), at least 2 cells of each.
        ``control`` is needed for ``n_top`` only.
    n_top
        Use only this number of genes, those with the largest absolute Welch's t, as in :func:`deg_overlap`.

    Returns
    -------
    R² between 0 and 1. NaN if either mean is the same for all genes up to rounding, or no gene changes. The "r2" of
    CellOT is the correlation itself, unsquared.

    Raises
    ------
    TypeError, ValueError
        If an array is sparse, not numeric or not finite, if the numbers of columns differ, or if ``n_top`` is not from
        2 to the number of columns, or is passed without ``control``.

    References
    ----------
    Lotfollahi, Wolf & Theis (2019), scGen predicts single-cell perturbation responses, Nature Methods 16.

    Examples
    --------
    >>> from scot_hycnn.metrics import r2_mean
    >>> round(r2_mean([[0, 1, 2], [0, 3, 4]], [[1, 3, 4], [1, 3, 4]]), 6)
    1.0
    """
    if control is None and n_top is not None:
        raise ValueError(f"n_top={n_top} takes the genes that change against control; pass control as well.")
    with_control = {} if control is None else {"control": control}
    a, b, *others = map(moments_of, check_samples(paired=False, predicted=predicted, observed=observed, **with_control))
    chosen = np.ones(len(b.mean), dtype=bool)
    if n_top is not None:
        check_n_top(n_top, len(b.mean))
        chosen = top_genes(welch_t(b, b, *others), n_top)
    return float(pearson(a.mean[chosen], b.mean[chosen], a.rounding[chosen], b.rounding[chosen])) ** 2
