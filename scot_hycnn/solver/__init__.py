"""Fit transport maps between arrays, without AnnData."""

from __future__ import annotations

from ._fit import fit, fit_many
from ._options import Settings, TrainingOptions
from .data._groups import check_groups
from .model._map import Outcome, TransportMap
from .runtime._device import resolve_device
from .screen._fit_screen import fit_screen
from .screen._screen import Screen

__all__ = [
    "Outcome",
    "Screen",
    "Settings",
    "TrainingOptions",
    "TransportMap",
    "check_groups",
    "fit",
    "fit_many",
    "fit_screen",
    "resolve_device",
]
