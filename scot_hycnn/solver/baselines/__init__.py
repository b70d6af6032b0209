"""Training methods that the paper compares with: minimax, W2GN and ENOT."""

from __future__ import annotations
