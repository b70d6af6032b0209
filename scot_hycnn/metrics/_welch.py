"""Genes that change most, by Welch's t."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ._checks import Samples
from ._rounding import difference, exact_mean, precision_of


@dataclass(frozen=True)
class Moments:
    """Mean and variance of cells of one condition; genes are the last axis.

    Parameters
    ----------
    mean, variance
        The variance has the divisor n - 1. Shape (..., genes).
    n
        Number of cells, broadcastable to them.
    rounding
        How far rounding may have moved the mean, shape (genes,); see :mod:`scot_hycnn.metrics._rounding`.
    """

    mean: Samples
    variance: Samples
    n: Samples
    rounding: Samples


def moments_of(cells: Samples) -> Moments:
    """Moments of cells, shape (n, genes)."""
    mean = exact_mean(cells)
    variance = np.square(cells - mean).sum(axis=0) / (len(cells) - 1)
    return Moments(mean, variance, np.array(len(cells)), precision_of(cells) * np.abs(cells).mean(axis=0))


def welch_t(mean: Samples, observed: Moments, control: Moments, mean_rounding: Samples | float = 0.0) -> Samples:
    """Change of mean expression against control, over the standard error of the observed change.

    For the observed mean this is Welch's t. For predicted ones the error is the same: a prediction's own variance does
    not measure noise. A gene that no control cell expresses would lead its list for the tiniest change.

    A change that is no larger than rounding is none, and no standard error is smaller than rounding.

    Parameters
    ----------
    mean
        Observed or predicted, shape (..., genes).
    observed, control
        Moments of observed target cells and of control cells.
    mean_rounding
        How far rounding may have moved ``mean``, where that is more than for the observed mean.

    Returns
    -------
    Shape (..., genes). Where neither condition varies: 0 if the observed mean does not change, else infinite.
    """
    rounding = observed.rounding + control.rounding
    change = difference(mean, control.mean, np.maximum(rounding, mean_rounding + control.rounding))
    is_observed = difference(observed.mean, control.mean, rounding) != 0
    error = np.sqrt(observed.variance / observed.n + control.variance / control.n)
    # Cells that vary by rounding only say nothing of a gene whose mean they leave where it was.
    has_error = (error > 0) & (is_observed | (error > rounding))
    without = np.where((change != 0) & is_observed, np.inf, 0.0)
    t: Samples = np.divide(change, np.maximum(error, rounding), out=without, where=has_error)
    return t


def top_genes(t: Samples, n_top: int) -> NDArray[np.bool_]:
    """Which genes, shape (..., genes), are the ``n_top`` of largest absolute t; never those with t = 0.

    Of equal ones at the end of the list the first columns are taken, so that two lists take the same ones.
    """
    size = np.abs(t)
    last = -np.partition(-size, n_top - 1, axis=-1)[..., n_top - 1, None]
    top = size >= last
    has_ties = top.sum(axis=-1) > n_top
    if has_ties.any():
        above, equal = size > last, size == last
        room = n_top - above.sum(axis=-1, keepdims=True)
        top = above | (equal & (equal.cumsum(axis=-1) <= room))
    chosen: NDArray[np.bool_] = top & (size > 0)
    return chosen


def check_n_top(n_top: int, n_genes: int) -> None:
    """Refuse a number of top genes that is none.

    Raises
    ------
    ValueError
        If it is not from 2 to the number of genes.
    """
    if not 2 <= n_top <= n_genes:
        raise ValueError(f"n_top={n_top}; it takes a whole number from 2 to {n_genes}, the number of columns.")
