"""Genes that change most, by Welch's t."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ._checks import Samples

# Mean, variance (divisor n - 1) and number of cells of one condition; genes are the last axis of each.
Moments: TypeAlias = tuple[Samples, Samples, Samples]


def moments_of(cells: Samples) -> Moments:
    """Moments of cells, shape (n, genes)."""
    return cells.mean(axis=0), cells.var(axis=0, ddof=1), np.array(len(cells))


def welch_t(mean: Samples, observed: Moments, control: Moments) -> Samples:
    """Change of mean expression against control, over the standard error of the observed change.

    For the observed mean this is Welch's t. For predicted ones the error is the same: a prediction's own variance does
    not measure noise. A gene that no control cell expresses would lead its list for the tiniest change.

    Parameters
    ----------
    mean
        Observed or predicted, shape (..., genes).
    observed, control
        Moments of observed target cells and of control cells.

    Returns
    -------
    Shape (..., genes). Where neither condition varies: 0 if the observed mean does not change, else infinite.
    """
    (observed_mean, variance, n), (control_mean, control_variance, control_n) = observed, control
    change = mean - control_mean
    error = np.sqrt(variance / n + control_variance / control_n)
    is_switched = (change != 0) & (observed_mean != control_mean)
    t: Samples = np.divide(change, error, out=np.where(is_switched, np.inf, 0.0), where=error > 0)
    return t


def top_genes(t: Samples, n_top: int) -> NDArray[np.bool_]:
    """Which genes, shape (..., genes), are the ``n_top`` of largest absolute t; never those with t = 0."""
    size = np.abs(t)
    chosen = np.argpartition(-size, n_top - 1, axis=-1)[..., :n_top]
    top = np.zeros(t.shape, dtype=bool)
    np.put_along_axis(top, chosen, values=True, axis=-1)
    return top & (size > 0)


def check_n_top(n_top: int, n_genes: int) -> None:
    """Refuse a number of top genes that is none.

    Raises
    ------
    ValueError
        If it is not from 2 to the number of genes.
    """
    if not 2 <= n_top <= n_genes:
        raise ValueError(f"n_top={n_top}; it takes a whole number from 2 to {n_genes}, the number of columns.")
