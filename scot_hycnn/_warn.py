"""Words that the messages of all layers share, and warnings that point at the user's line."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from types import FrameType
from typing import Any

_PACKAGE = str(Path(__file__).parent)
# Cells whose p value of no change is larger show no response.
SIGNIFICANT = 0.05
# A message with more names is hard to read.
MAX_NAMES = 20


def counted(number: int, noun: str) -> str:
    """Return '1 cell', '2 cells' ... for a message."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def joined(texts: Sequence[str], most: int = MAX_NAMES) -> str:
    """Return texts with commas between them for a message, which ends with the number of those not shown."""
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more


def did_you_mean(name: object, names: Iterable[Any]) -> str:
    """Return a question with the name that a user probably means, for the end of a message, or nothing."""
    # Whether letters are capital makes no difference: 'Control' is nearer to 'control' than to 'Monitor'.
    by_name = {str(other).casefold(): other for other in names}
    near = get_close_matches(str(name).casefold(), by_name, n=1, cutoff=0.5)
    return f" Did you mean {by_name[near[0]]!r}?" if near else ""


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
