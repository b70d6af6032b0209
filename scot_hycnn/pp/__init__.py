"""Evaluation without leaks starts here: training and test cells, and principal components of the training cells."""

from __future__ import annotations

from ._pca import pca
from ._split import split

__all__ = ["pca", "split"]
