"""Energy distance."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ._checks import check_samples
from ._pairwise import mean_between, mean_within


def energy_distance(x: ArrayLike, y: ArrayLike) -> float:
    r"""Energy distance between two clouds of cells, unbiased.

    .. math:: 2\,E|X-Y| - E|X-X'| - E|Y-Y'|

    with X, X' independent cells of one cloud and Y, Y' of the other. The means within a cloud leave out pairs of a cell
    with itself (U-statistic): the expected value is 0 for two samples of one distribution, and a single value may be
    slightly negative.

    Parameters
    ----------
    x, y
        Cells, shape (n, d) and (m, d), at least 2 of each. Rows need not correspond.

    Returns
    -------
    The distance, in the units of the coordinates. Some tools report its square root.

    Raises
    ------
    TypeError, ValueError
        If an array is sparse, not numeric or not finite, or if the numbers of columns differ.

    Notes
    -----
    Time grows with (n + m)² d, memory does not: 15,000 x 15,000 cells in 50 dimensions take 10 s on one core.

    References
    ----------
    Székely & Rizzo (2013), Energy statistics: a class of statistics based on distances, J. Stat. Plan. Inference 143.

    Examples
    --------
    >>> import numpy as np
    >>> from scot_hycnn.metrics import energy_distance
    >>> energy_distance(np.zeros((3, 2)), np.tile([3.0, 4.0], (4, 1)))  # no spread, 5 apart
    10.0
    """
    x_cells, y_cells = check_samples(x=x, y=y)
    between = mean_between(x_cells, y_cells, np.sqrt)
    return 2 * between - mean_within(x_cells, np.sqrt) - mean_within(y_cells, np.sqrt)
