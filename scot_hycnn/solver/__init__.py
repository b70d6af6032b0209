"""Fit transport maps between arrays: no AnnData here."""

from __future__ import annotations

from ._fit import fit
from ._map import TransportMap

__all__ = ["TransportMap", "fit"]
