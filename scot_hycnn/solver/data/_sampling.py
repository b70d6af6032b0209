"""Draw cells by their weights."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Largest chance of a cell to be drawn by its weight.
MAX_CHANCE = 0.9


def drawn_by_weight(
    weights: NDArray[np.float64], order: NDArray[np.intp], count: int, rng: np.random.Generator
) -> NDArray[np.intp]:
    """Draw at most ``count`` of the rows ``order``, each at most once, with chances in proportion to their weights."""
    # Systematic sampling, at even steps along the cumulative weights: cells that are drawn all count the same in every
    # score. No cell may be longer than a step.
    share = weights[order] / weights[order].sum()
    count = max(min(count, int(MAX_CHANCE / share.max())), min(count, 1))
    places = np.searchsorted(np.cumsum(share), (rng.random() + np.arange(count)) / max(count, 1))
    return np.unique(order[np.minimum(places, len(order) - 1)])
