"""The training loop, its optimiser and its losses."""

from __future__ import annotations
