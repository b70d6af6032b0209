"""Figures of a fit, from what is stored in AnnData: matplotlib, with scanpy's ``show``, ``ax`` and ``return_fig``."""

from __future__ import annotations

from ._embedding import embedding
from ._history import history
from ._transport import transport

__all__ = ["embedding", "history", "transport"]
