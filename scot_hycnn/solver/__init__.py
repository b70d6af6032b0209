"""Fit transport maps between arrays: no AnnData here."""

from __future__ import annotations

from ._cost import expected_seconds
from ._fit import fit
from ._map import TransportMap

__all__ = ["TransportMap", "expected_seconds", "fit"]
