"""Checks that more than one place makes."""

from __future__ import annotations

from numbers import Integral


def is_whole(value: object, *, least: int) -> bool:
    """Whether it is a whole number of at least that, which fits 64 bits; NumPy's count, bools do not."""
    return isinstance(value, Integral) and not isinstance(value, bool) and least <= int(value) < 2**63


def least_cells(n_dims: int) -> int:
    """Cells of a cloud without which there is no fit: for a covariance, and something to validate on."""
    return max(20, 2 * n_dims)
