"""Distances between clouds of cells and errors of predicted cells: arrays in, a float out; evaluate scores a fit."""

from __future__ import annotations

from ._deg_overlap import deg_overlap
from ._energy_distance import energy_distance
from ._evaluate import evaluate
from ._l2_uvp import l2_uvp
from ._map_mse import map_mse
from ._mmd import mmd
from ._pearson_delta import pearson_delta
from ._r2_mean import r2_mean
from ._sinkhorn_divergence import sinkhorn_divergence
from ._trace_ratio import trace_ratio
from ._w2 import w2

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
