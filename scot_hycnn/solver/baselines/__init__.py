"""Solvers that the paper compares with: minimax, W2GN, ENOT."""

from __future__ import annotations
