"""Learning rate over a fit."""

from __future__ import annotations

import math


def cosine(step: int, max_steps: int, *, warm_up: int = 50, end: float = 0.01) -> float:
    """Fraction of the top learning rate: linear warm-up, then a half cosine down to ``end``.

    Source: Loshchilov & Hutter (2017), ICLR, eq. 5, without restarts.
    """
    annealed = end + (1 - end) * 0.5 * (1 + math.cos(math.pi * step / max_steps))
    return min(1.0, (step + 1) / warm_up) * annealed
