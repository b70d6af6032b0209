"""Command line: flags to keyword arguments of tl, pl and get, files in and out, nothing else.

Everything heavy is imported by the command that needs it, so that ``--help`` and completion answer at once.
"""

from __future__ import annotations

from ._main import main

__all__ = ["main"]
