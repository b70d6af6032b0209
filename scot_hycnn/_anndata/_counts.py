"""Numbers that count something."""

from __future__ import annotations

import numpy as np


def check_counts(least: int = 1, /, **counts: object) -> None:
    """Check options that count something.

    Raises
    ------
    ValueError
        If one is not a whole number of at least ``least``.
    """
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
            raise ValueError(f"{name}={value!r} must be a whole number of {least} or more.")
