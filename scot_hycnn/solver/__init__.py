"""Fit transport maps between arrays: no AnnData here."""

from __future__ import annotations

from ._fit import fit
from ._fit_many import fit_many
from ._options import Settings
from .data._groups import check_groups
from .model._map import TransportMap
from .model._outcomes import Outcome
from .runtime._cost import expected_seconds
from .runtime._device import resolve_device

__all__ = [
    "Outcome",
    "Settings",
    "TransportMap",
    "check_groups",
    "expected_seconds",
    "fit",
    "fit_many",
    "resolve_device",
]
