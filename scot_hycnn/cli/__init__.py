"""Command line: flags become keyword arguments of tl and pl, files are read and written, and nothing else.

A command imports what it needs when it runs, so that ``--help`` and completion answer at once.
"""

from __future__ import annotations

from ._main import main

__all__ = ["main"]
