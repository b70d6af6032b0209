"""One whole number that a fit can be repeated with."""

from __future__ import annotations

import operator

import numpy as np


def seed_of(rng: int | np.random.Generator | None) -> int:
    """Seed from what numpy accepts as randomness: a generator gives its next number, None a fresh one."""
    if rng is None or isinstance(rng, np.random.Generator):
        return int(np.random.default_rng(rng).integers(2**31))
    try:
        return operator.index(rng)
    except TypeError:
        raise TypeError(
            f"rng={rng!r} is of type {type(rng).__name__}; it takes a whole number, a numpy Generator or None."
        ) from None
