"""Mean and variance of genes, Welch's t, and correlation over genes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ._samples import Samples

# A difference that is no larger than rounding is 0 in every statistic. Without this rule, genes that are constant but
# for the last digit of their values have infinite t, and correlations are those of noise.

# Relative error of a mean of values. A value stored in float32 is off by half a unit in the last place, a predicted
# one, x + V (T(x) - x), by another. All errors of a constant gene have one direction, so that no mean reduces them.
FLOAT32 = 4 * float(np.finfo(np.float32).eps)
# In float64 the rounding of sums and of matrix products of some hundred terms comes on top of it.
FLOAT64 = 64 * float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class Moments:
    """Mean and variance of the cells of one condition; genes are the last axis."""

    mean: Samples
    variance: Samples  # with the divisor n - 1
    n: Samples  # number of cells
    rounding: Samples  # how far rounding may have moved the mean, (genes,)

    def total_variance(self) -> Samples:
        """Sum of the variances over genes, without genes that vary by rounding only."""
        return np.asarray(np.where(self.variance > np.square(self.rounding), self.variance, 0).sum(axis=-1))


def moments_of(cells: Samples) -> Moments:
    """Return the moments of cells, shape (n, genes)."""
    mean = exact_mean(cells)
    variance = np.square(cells - mean).sum(axis=0) / (len(cells) - 1)
    return Moments(mean, variance, np.array(len(cells)), precision_of(cells) * np.abs(cells).mean(axis=0))


def precision_of(values: Samples) -> float:
    """Return the relative error of a mean: that of float32 if all values are float32 values, else that of float64."""
    # The values decide and not the dtype, because arrays go through float32 files and come back as float64.
    with np.errstate(over="ignore"):  # values beyond float32 become infinite, hence unequal
        is_float32 = (values == values.astype(np.float32)).all()
    # Integers are exact in both types.
    return FLOAT32 if is_float32 and not (values == np.trunc(values)).all() else FLOAT64


def exact_mean(cells: Samples) -> Samples:
    """Return the mean of the columns, which is exactly the value of a column that is constant."""
    first = cells.mean(axis=0)  # a sum of n equal values is rounded, and so is its n-th part
    mean: Samples = first + (cells - first).mean(axis=0)
    return mean


def difference(a: Samples, b: Samples, rounding: Samples | float) -> Samples:
    """Return a - b, and exactly 0 where it is no larger than rounding."""
    result: Samples = np.subtract(a, b)
    return np.where(np.abs(result) <= rounding, 0.0, result)


def welch_t(cells: Moments, observed: Moments, control: Moments) -> Samples:
    """Return the change of the mean of cells over the standard error of the observed change, shape (..., genes)."""
    rounding = observed.rounding + control.rounding
    change = difference(cells.mean, control.mean, np.maximum(rounding, cells.rounding + control.rounding))
    is_observed = difference(observed.mean, control.mean, rounding) != 0
    # For observed cells this is Welch's t. For predicted ones the error is the same, because the variance of a
    # prediction does not measure noise: a gene that no control cell expresses would lead its list for a tiny change.
    error = np.sqrt(observed.variance / observed.n + control.variance / control.n)
    # A gene whose observed mean stays where it is, in cells that vary by rounding only, has no error to divide by.
    has_error = (error > 0) & (is_observed | (error > rounding))
    # Where neither condition varies, t is infinite if the mean changes, and else 0.
    without = np.where((change != 0) & is_observed, np.inf, 0.0)
    t: Samples = np.divide(change, np.maximum(error, rounding), out=without, where=has_error)
    return t


def top_genes(t: Samples, n_top: int) -> NDArray[np.bool_]:
    """Return which genes, shape (..., genes), are the ``n_top`` of largest absolute t; genes with t = 0 never are."""
    size = np.abs(t)
    # A stable sort takes the first columns of equal ones at the end of the list, in every list the same.
    largest = np.argsort(-size, axis=-1, kind="stable")[..., :n_top]
    chosen = np.zeros(t.shape, dtype=bool)
    np.put_along_axis(chosen, largest, values=True, axis=-1)
    chosen &= size > 0
    return chosen


def pearson(a: Samples, b: Samples, a_rounding: Samples, b_rounding: Samples) -> Samples:
    """Return the Pearson correlation over the last axis; NaN, without a warning, where one of the two is constant."""
    if a.shape[-1] == 0:
        return np.full(a.shape[:-1], np.nan)
    varies = np.ones(a.shape[:-1], dtype=bool)
    scaled = []
    for rows, rounding in ((a, a_rounding), (b, b_rounding)):
        # Rows are constant if one number is within the rounding of all their values.
        varies &= (rows - rounding).max(axis=-1) > (rows + rounding).min(axis=-1)
        centred = rows - rows.mean(axis=-1, keepdims=True)
        largest = np.abs(centred).max(axis=-1, keepdims=True)  # squares of the quotients neither overflow nor vanish
        scaled.append(np.divide(centred, largest, out=np.zeros_like(centred), where=largest > 0))
    a, b = scaled
    scale = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    correlation = np.divide((a * b).sum(axis=-1), scale, out=np.full_like(scale, np.nan), where=varies & (scale > 0))
    return np.asarray(np.clip(correlation, -1, 1))
