"""Command line: flags become keyword arguments of tl and pl; a command imports what it needs when it runs."""

from __future__ import annotations

from ._main import main

__all__ = ["main"]
