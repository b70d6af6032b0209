"""Convex regression."""

from __future__ import annotations

from ._regressor import ConvexRegressor

__all__ = ["ConvexRegressor"]
