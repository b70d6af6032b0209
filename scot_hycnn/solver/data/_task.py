"""One map to fit: its cells, their groups, and its settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from scot_hycnn.solver._options import Settings

from ._checks import Rows
from ._groups import Labels
from ._unbalanced import CellWeights


@dataclass(frozen=True)
class Task:
    """One map to fit; maps from the same source cells share ``x``, ``labels_x`` and ``far_x``."""

    # Checked cells, shape (n, d) and (m, d): arrays, or rows of a file that become an array when the map is fitted.
    x: Any
    y: Any
    # Group of each cell, or None.
    labels_x: Labels | None
    labels_y: Labels | None
    settings: Settings
    # Groups with too few cells, whose cells take no part in the fit.
    groups_left_out: tuple[str, ...]
    # Rows of the source and of the target cells that lie far from all others, which take no part in the fit either.
    far_x: Rows
    far_y: Rows
    # Weights of the cells that take part in the fit, where they do not all count the same.
    weights: CellWeights | None = None
