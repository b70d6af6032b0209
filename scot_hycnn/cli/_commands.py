"""The commands by name."""

from __future__ import annotations

from collections.abc import Callable

from ._describe import info
from ._evaluate import evaluate
from ._fit import fit
from ._plot import plot
from ._report import report
from ._transport import transport

COMMANDS: dict[str, Callable[..., None]] = {
    "fit": fit,
    "transport": transport,
    "evaluate": evaluate,
    "plot": plot,
    "report": report,
    "info": info,
}
