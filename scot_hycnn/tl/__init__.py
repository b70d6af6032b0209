"""Tools that work on AnnData, as scanpy's do: in place, results in slots."""

from __future__ import annotations

from ._decode import decode
from ._evaluate import evaluate
from ._hycnn_ot import hycnn_ot
from ._hycnn_screen import hycnn_screen
from ._project import project
from ._transport import transport

__all__ = ["decode", "evaluate", "hycnn_ot", "hycnn_screen", "project", "transport"]
