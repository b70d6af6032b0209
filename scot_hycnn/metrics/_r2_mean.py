"""Agreement of mean expression."""

from __future__ import annotations

from numpy.typing import ArrayLike

from ._checks import check_samples
from ._pearson import pearson
from ._welch import check_n_top, moments_of, top_genes, welch_t


def r2_mean(
    predicted: ArrayLike, observed: ArrayLike, control: ArrayLike | None = None, *, n_top: int | None = None
) -> float:
    """R² of gene means: squared Pearson correlation, over genes, of mean predicted and observed expression.

    High for almost any prediction, since genes differ far more from each other than conditions do: report it
    next to the identity's value, on the genes that change most (``n_top``), or use :func:`pearson_delta`.

    Parameters
    ----------
    predicted
        Predicted expression, shape (n, genes), n >= 2.
    observed
        Observed expression of target cells, shape (m, genes), m >= 2. They need not correspond to the rows of
        ``predicted``.
    control
        Observed expression of control cells, shape (k, genes), k >= 2; needed for ``n_top`` only.
    n_top
        Only the so many genes whose observed expression changes most against control, by the absolute value of
        Welch's t; not those that do not change at all, or by no more than rounding (as in :func:`deg_overlap`).

    Returns
    -------
    R² between 0 and 1, without units. NaN if the mean of either is the same for all genes (up to rounding), or none
    change.

    Raises
    ------
    TypeError
        If an array is sparse or not numeric.
    ValueError
        If the numbers of columns differ, a value is not finite, ``n_top`` is not from 2 to the number of columns, or
        is given without ``control``.

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
    optional = {} if control is None else {"control": control}
    predicted_cells, observed_cells, *others = check_samples(predicted=predicted, observed=observed, **optional)
    moments = moments_of(predicted_cells), moments_of(observed_cells)
    profiles = [condition.mean for condition in moments] + [condition.rounding for condition in moments]
    if n_top is not None:
        if not others:
            raise ValueError(f"n_top={n_top} takes the genes that change against control; pass control as well.")
        check_n_top(n_top, observed_cells.shape[1])
        top = top_genes(welch_t(moments[1].mean, moments[1], moments_of(*others)), n_top)
        profiles = [profile[top] for profile in profiles]
    return pearson(*profiles) ** 2
