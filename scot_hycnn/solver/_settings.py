"""Every option of a fit, checked."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Self

POTENTIALS = ("hycnn", "gaussian")
SOLVERS = ("amortized",)

# Beyond what a step in float32 can hold.
MOST = 1e38
# Steps of all members together: about 13 s on one core of 2024 in 50 dimensions.
MEMBER_STEPS = 1600
LEAST_STEPS = 400
# Members by measurement at equal time, 2 x 800 steps against 4 x 400. With 100 cells a dimension or more two are better
# (W2 benchmark with 5,000 and 20,000 cells, closed-form maps, Kang, Bodenmiller: by up to half of the error). With
# fewer cells networks overfit, and the average of four is better (W2 benchmark D = 32 with 2,000 cells, planted PBMCs).
MANY_CELLS_PER_DIMENSION = 100


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

    @classmethod
    def for_cells(
        cls, n_cells: int, n_dims: int, *, n_ensemble: int | None, max_steps: int | None, **options: Any
    ) -> Self:
        """Settings with members and steps that suit the data, where they are None.

        Parameters
        ----------
        n_cells
            Cells of the smaller cloud.
        n_dims
            Dimension d of the representation.
        n_ensemble, max_steps, options
            Options of the fit.

        Returns
        -------
        The settings, every option with its value.
        """
        if n_ensemble is None:
            n_ensemble = 2 if n_cells >= MANY_CELLS_PER_DIMENSION * n_dims else 4
        if max_steps is None:
            max_steps = max(MEMBER_STEPS // n_ensemble, LEAST_STEPS) if _is_whole(n_ensemble, least=1) else LEAST_STEPS
        return cls(n_ensemble=n_ensemble, max_steps=max_steps, **options)

    def __post_init__(self) -> None:
        for name, choices in (("potential", POTENTIALS), ("solver", SOLVERS)):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}={getattr(self, name)!r} is unknown; choose one of {list(choices)}.")
        for name, least in (("max_steps", 1), ("batch_size", 1), ("n_ensemble", 1), ("rng", 0)):
            if not _is_whole(getattr(self, name), least=least):
                seed = ", the seed" if name == "rng" else ""
                raise ValueError(f"{name}={getattr(self, name)!r} must be a whole number of {least} or more{seed}.")
            self._become_plain(name, int)
        widths = self.hidden if isinstance(self.hidden, Iterable) else ()
        if not (widths := tuple(widths)) or not all(_is_whole(width, least=1) for width in widths):
            raise ValueError(f"hidden={self.hidden!r} must be one or more widths, each a whole number of 1 or more.")
        object.__setattr__(self, "hidden", tuple(int(width) for width in widths))
        for name, low, allowed in (
            ("lr", math.nextafter(0, 1), "must be a positive number"),
            ("weight_decay", 0, "must be a number, not negative"),
        ):
            if not _is_real(getattr(self, name)) or not low <= getattr(self, name) < MOST:
                raise ValueError(f"{name}={getattr(self, name)!r} {allowed}.")
            self._become_plain(name, float)
        if not _is_real(self.validation_fraction) or not 0 < self.validation_fraction <= 0.5:
            raise ValueError(
                f"validation_fraction={self.validation_fraction!r} must lie in (0, 0.5]: the choice of the blend needs "
                "cells that training has not seen."
            )

    def _become_plain(self, name: str, kind: type) -> None:
        """NumPy's numbers would not survive as JSON."""
        object.__setattr__(self, name, kind(getattr(self, name)))


def _is_whole(value: object, *, least: int) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and least <= int(value) < 2**63


def _is_real(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
