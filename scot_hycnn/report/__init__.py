"""The page that :func:`scot_hycnn.pl.report` writes: its content as plain values, and the template that shows them."""

from __future__ import annotations

from ._content import content, html, index_of
from ._verdict import verdict

__all__ = ["content", "html", "index_of", "verdict"]
