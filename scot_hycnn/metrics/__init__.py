"""Distances between clouds of cells and errors of predicted cells: arrays in, a float out."""

from __future__ import annotations

from ._energy_distance import energy_distance
from ._l2_uvp import l2_uvp
from ._map_mse import map_mse
from ._mmd import mmd
from ._pearson_delta import pearson_delta
from ._r2_mean import r2_mean
from ._trace_ratio import trace_ratio
from ._w2 import w2

__all__ = [
    "energy_distance",
    "l2_uvp",
    "map_mse",
    "mmd",
    "pearson_delta",
    "r2_mean",
    "trace_ratio",
    "w2",
]
