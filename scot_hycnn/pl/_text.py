"""Names from the data in figures, as they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend

# Of every text with a name from the data: matplotlib takes what is between two '$' for mathematics, and fails where it
# is none.
PLAIN: dict[str, Any] = {"parse_math": False}


def legend(
    owner: Axes | Figure, handles: Sequence[Artist], names: Sequence[str], title: str | None = None, **how: Any
) -> Legend:
    """Draw a legend with these names.

    Parameters
    ----------
    owner
        Whose legend it is.
    handles, names
        What is explained, and its name. They are written once the legend is there: matplotlib leaves entries out whose
        names begin with '_', and takes '$' for mathematics.
    title
        Above the names.
    how
        What else ``legend`` takes.
    """
    drawn = owner.legend(handles=list(handles), labels=[" "] * len(handles), title=title, **how)
    for text, name in zip(drawn.get_texts(), names, strict=True):
        text.set(text=name, **PLAIN)
    drawn.get_title().set(**PLAIN)
    return drawn
