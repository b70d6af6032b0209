"""Every option of a fit, checked."""

from __future__ import annotations

import math
from dataclasses import dataclass

POTENTIALS = ("hycnn", "gaussian")
SOLVERS = ("amortized",)


@dataclass(frozen=True)
class Settings:
    """Options of :func:`scot_hycnn.solver.fit`, by the same names.

    Raises
    ------
    ValueError
        If a name is unknown or a number out of range; the message has the choices or the range.
    """

    potential: str
    solver: str
    hidden: tuple[int, ...]
    max_steps: int
    batch_size: int
    lr: float
    weight_decay: float
    n_ensemble: int
    validation_fraction: float
    device: str
    rng: int

    def __post_init__(self) -> None:
        for name, choices in (("potential", POTENTIALS), ("solver", SOLVERS)):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}={getattr(self, name)!r} is unknown; choose one of {list(choices)}.")
        for name in ("max_steps", "batch_size", "n_ensemble"):
            if not _is_whole(getattr(self, name), least=1):
                raise ValueError(f"{name}={getattr(self, name)!r} must be a whole number of 1 or more.")
        if not self.hidden or not all(_is_whole(width, least=1) for width in self.hidden):
            raise ValueError(f"hidden={self.hidden!r} must be one or more widths, each a whole number of 1 or more.")
        if not (0 < self.lr < math.inf and 0 <= self.weight_decay < math.inf):
            raise ValueError(f"lr={self.lr!r} must be positive and weight_decay={self.weight_decay!r} not negative.")
        if not 0 < self.validation_fraction <= 0.5:
            raise ValueError(
                f"validation_fraction={self.validation_fraction!r} must lie in (0, 0.5]: the choice of the blend needs "
                "cells that training has not seen."
            )
        if not _is_whole(self.rng, least=0):
            raise ValueError(f"rng={self.rng!r} must be a whole number of 0 or more, the seed.")


def _is_whole(value: object, *, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
