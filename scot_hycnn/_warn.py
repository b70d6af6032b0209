"""Warnings that point at the user's line."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from types import FrameType

_PACKAGE = str(Path(__file__).parent)


def warn(message: str) -> None:
    """Give a UserWarning at the line from which the user called this package, however deep within it we are."""
    # A stack level that is counted by hand is wrong as soon as a function is called from a second place.
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - inspect.stack reads the source text of every frame
    level = outermost = 1
    while frame is not None:
        if frame.f_code.co_filename.startswith(_PACKAGE):
            outermost = level
        frame, level = frame.f_back, level + 1
    warnings.warn(message, UserWarning, stacklevel=outermost + 2)
