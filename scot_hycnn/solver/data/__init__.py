"""Cells as training sees them: checks, groups, coordinates, mini-batches."""

from __future__ import annotations
