"""Temperatures that follow a schedule."""

from __future__ import annotations

import math

N_CYCLES = 25


def cyclic(step: int, max_steps: int) -> float:
    """The paper's cycles: large temperatures train all gates, small ones sharpen.

    Within each of 25 cycles the temperature falls by a half cosine to a tenth, which it reaches at 70 % of the cycle
    and keeps; each cycle starts at 0.8 times the last one's start. (In the paper a cycle is 100 of 2,500 steps.)

    Source: arXiv:2604.26942, app. D.3 (d = 2).

    Parameters
    ----------
    step
        Steps done, below ``max_steps``.
    max_steps
        All steps.

    Returns
    -------
    Factor of the starting temperature, in (0, 1].
    """
    cycle, within = divmod(N_CYCLES * step / max_steps, 1)
    fallen = 0.5 * (1 - math.cos(math.pi * min(within / 0.7, 1.0)))
    return float(0.8**cycle * (1 - 0.9 * fallen))
