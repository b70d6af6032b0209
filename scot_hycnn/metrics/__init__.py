"""Distances between clouds of cells and errors of predicted cells: arrays in, a float out; evaluate scores a fit."""

from __future__ import annotations

from ._distances import energy_distance, mmd, sinkhorn_divergence, w2
from ._evaluate import evaluate
from ._predictions import deg_overlap, l2_uvp, map_mse, pearson_delta, r2_mean, trace_ratio

__all__ = [
    "deg_overlap",
    "energy_distance",
    "evaluate",
    "l2_uvp",
    "map_mse",
    "mmd",
    "pearson_delta",
    "r2_mean",
    "sinkhorn_divergence",
    "trace_ratio",
    "w2",
]
