"""What rounding alone does to values, and the rule that a difference no larger than that is no difference.

Every statistic that divides by a spread, ranks changes, or asks whether something varies uses this rule: without it,
genes that are constant but for the last digit of their values have infinite t and correlations of noise.
"""

from __future__ import annotations

import numpy as np

from ._checks import Samples

# Relative error of a mean of values. A value stored in float32 is off by half a unit in the last place, a predicted
# one, x + V (T(x) - x), by another. All errors of a constant gene have one direction, so that no mean reduces them.
FLOAT32 = 4 * float(np.finfo(np.float32).eps)
# In float64 rounding of sums and of matrix products of some hundred terms comes on top of it.
FLOAT64 = 64 * float(np.finfo(np.float64).eps)


def precision_of(values: Samples) -> float:
    """Relative error of the mean of float64 values: that of float32 if all of them are float32 values, else of float64.

    The values tell, not the dtype, because arrays go through float32 files and come back as float64. Integers are
    exact in both.
    """
    with np.errstate(over="ignore"):  # beyond float32 they become infinite, hence unequal
        is_float32 = (values == values.astype(np.float32)).all()
    return FLOAT32 if is_float32 and not (values == np.trunc(values)).all() else FLOAT64


def difference(a: Samples, b: Samples, rounding: Samples | float) -> Samples:
    """Return a - b, and exactly 0 where it is no larger than rounding."""
    result: Samples = np.subtract(a, b)
    return np.where(np.abs(result) <= rounding, 0.0, result)


def exact_mean(cells: Samples) -> Samples:
    """Mean of columns, exactly the value of a column that is constant; shape (features,)."""
    first = cells.mean(axis=0)  # a sum of n equal values is rounded, and so is its n-th part
    mean: Samples = first + (cells - first).mean(axis=0)
    return mean


def total_variance(cells: Samples) -> float:
    """Sum of the columns' variances (divisor n - 1), without columns that vary by rounding only."""
    rounding = precision_of(cells) * np.abs(cells).mean(axis=0)
    variance = cells.var(axis=0, ddof=1)
    return float(variance[variance > np.square(rounding)].sum())
