"""Fit transport maps between arrays: no AnnData here."""

from __future__ import annotations

from ._cost import expected_seconds
from ._device import resolve_device
from ._fit import fit
from ._fit_many import fit_many
from ._groups import check_groups
from ._map import TransportMap
from ._outcome import Outcome
from ._regression import ConvexRegressor
from ._settings import Settings

__all__ = [
    "ConvexRegressor",
    "Outcome",
    "Settings",
    "TransportMap",
    "check_groups",
    "expected_seconds",
    "fit",
    "fit_many",
    "resolve_device",
]
