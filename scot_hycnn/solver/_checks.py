"""Checks of options that more than one class has."""

from __future__ import annotations

from numbers import Integral


def is_whole(value: object, *, least: int) -> bool:
    """Whether it is a whole number of at least that, which fits 64 bits; NumPy's count, bools do not."""
    return isinstance(value, Integral) and not isinstance(value, bool) and least <= int(value) < 2**63
