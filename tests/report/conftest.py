"""Fixtures of figures."""

from __future__ import annotations

from figures import adata, control, fitted, new_scores, scores

__all__ = ["adata", "control", "fitted", "new_scores", "scores"]
