"""Convex potentials: value and explicit gradient, batched over K maps."""

from __future__ import annotations

from ._gaussian import Gaussian
from ._hycnn import HyCNN

__all__ = ["Gaussian", "HyCNN"]
