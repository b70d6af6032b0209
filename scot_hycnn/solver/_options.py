"""Every option of a fit, checked."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from difflib import get_close_matches
from numbers import Real
from typing import Any, Self

from scot_hycnn.potentials import Potential

from .data._checks import is_integer
from .data._groups import WEIGHTINGS
from .model._families import POTENTIALS
from .training._methods import CONJUGATES, RECIPES

# Beyond what a step in float32 can hold.
MOST = 1e38
# What follows was chosen at equal time on one core; percent are errors on the W2 benchmark.
# Members: with 20,000 cells four of 2,000 steps beat two of 3,000 (D = 16: 1.55 against 1.95 %) and two wider ones
# (1.86 %), and with 2,000 cells four of 400 beat two of 800 (D = 32).
N_ENSEMBLE = 4
# Steps for n cells: STEPS_PER_ROOT sqrt(n). With more cells longer training goes on finding structure. In hundreds:
# maps with the same steps train as one batch.
STEPS_PER_ROOT, ROUND_STEPS = 14, 100
LEAST_STEPS, MOST_STEPS = 600, 1200
# Batches: with 20,000 cells 512 in half the steps are better (D = 16: 1.33 against 1.55 %), with 5,000 they are not.
BATCH_SIZE, MANY_CELLS, BATCH_SIZE_OF_MANY = 256, 10_000, 512
HIDDEN = (48, 48, 48, 48)
# Up to so many cells smaller networks and batches are as good in a third of the time: mean error in units of the
# Gaussian map's, with 500 cells .61 against .63, with 1,000 .26 against .27, with 2,000 .17 against .15
# (benchmarks/screen.py).
FEW_CELLS, HIDDEN_OF_FEW, BATCH_SIZE_OF_FEW = 1000, (32, 32, 32), 128
# Conjugates of so few target cells are remembered: in half the time, with 500 cells the mean error on six known maps is
# .499 against .508, with 1,000 .291 against .295. On Kang's real cells with 1,000 it is .04 higher.
PREDICTED, REMEMBERED = CONJUGATES
# What the choice between networks and Gaussian map is made on.
LEAVE_OUT = ("cells", "groups")
COMPILATIONS = ("auto", "always", "never")


@dataclass(frozen=True)
class Settings:
    """Options of :func:`scot_hycnn.solver.fit`, by the same names.

    Raises
    ------
    ValueError
        If a name is unknown or a number out of range; the message has the choices or the range.

    Examples
    --------
    >>> from scot_hycnn.solver import Settings
    >>> settings = Settings.for_cells(500, 30, device="cpu", rng=0)
    >>> settings.hidden, settings.n_ensemble, settings.max_steps
    ((32, 32, 32), 4, 600)
    >>> settings.options()["batch_size"], settings.report()["potential"]
    (128, 'hycnn')
    >>> settings.conjugates, Settings.for_cells(500, 30, n_targets=5000, device="cpu", rng=0).conjugates
    ('remembered', 'predicted')
    """

    potential: str | Potential
    solver: str
    hidden: tuple[int, ...]
    max_steps: int
    batch_size: int
    lr: float
    weight_decay: float
    n_ensemble: int
    device: str
    rng: int
    validation_fraction: float = 0.1
    group_weights: str = "sqrt"
    leave_out: str = "cells"
    conjugates: str = PREDICTED
    compilation: str = "auto"

    @classmethod
    def for_cells(
        cls,
        n_cells: int,
        n_dims: int,
        *,
        solver: str = "amortized",
        potential: str | Potential = "hycnn",
        hidden: Iterable[int] | None = None,
        n_ensemble: int | None = None,
        max_steps: int | None = None,
        batch_size: int | None = None,
        lr: float | None = None,
        weight_decay: float | None = None,
        conjugates: str | None = None,
        n_targets: int | None = None,
        most_cells: int | None = None,
        **options: Any,
    ) -> Self:
        """Settings with what suits the data and the training method, where they are None.

        Parameters
        ----------
        n_cells
            Cells of the smaller cloud.
        n_dims
            Dimension d of the representation.
        solver, potential, hidden, n_ensemble, max_steps, batch_size, lr, weight_decay, conjugates, options
            Options of the fit.
        n_targets
            Target cells; None: as many as the smaller cloud has.
        most_cells
            Cells of the larger cloud; None: as many as the smaller one and the targets have.

        Returns
        -------
        The settings, every option with its value.

        Raises
        ------
        TypeError
            If an option is unknown; the message has the nearest one.
        ValueError
            If an option is out of range, or a potential of one's own has other dimensions than the cells.
        """
        check_options(options)
        recipe = RECIPES[_choice("solver", solver, tuple(RECIPES))]
        if isinstance(potential, Potential):
            _check_own(potential, n_dims, hidden)
            hidden = potential.hidden
        few = n_cells <= FEW_CELLS
        suited_batch = BATCH_SIZE_OF_FEW if few else BATCH_SIZE_OF_MANY if n_cells >= MANY_CELLS else BATCH_SIZE
        suited_hidden = recipe.options.get("hidden", HIDDEN_OF_FEW if few else HIDDEN)
        remember = recipe.remembering is not None and (n_cells if n_targets is None else n_targets) <= FEW_CELLS
        suited_conjugates = REMEMBERED if remember else PREDICTED
        suited_steps = ROUND_STEPS * round(STEPS_PER_ROOT * math.sqrt(n_cells) / ROUND_STEPS)
        suited_steps = min(max(suited_steps, LEAST_STEPS), MOST_STEPS)
        if batch_size is not None and is_integer(batch_size, minimum=1):
            batch_size = min(int(batch_size), _largest_batch(max(n_cells, n_targets or 0, most_cells or 0)))
        return cls(
            potential=potential,
            solver=solver,
            hidden=suited_hidden if hidden is None else hidden,  # type: ignore[arg-type]  # checked below
            n_ensemble=recipe.options.get("n_ensemble", N_ENSEMBLE) if n_ensemble is None else n_ensemble,
            max_steps=recipe.options.get("max_steps", suited_steps) if max_steps is None else max_steps,
            batch_size=recipe.options.get("batch_size", suited_batch) if batch_size is None else batch_size,
            lr=recipe.method.lr if lr is None else lr,
            weight_decay=recipe.method.weight_decay if weight_decay is None else weight_decay,
            conjugates=suited_conjugates if conjugates is None else conjugates,
            **options,
        )

    def options(self) -> dict[str, Any]:
        """Every option by name.

        Returns
        -------
        Values as they are, a potential of one's own included.
        """
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def report(self) -> dict[str, Any]:
        """Every option by name, fit for a file.

        Returns
        -------
        Plain numbers and strings.
        """
        return self.options() | {"potential": str(self.potential)}

    def __post_init__(self) -> None:
        self._check_choices()
        for name, least in (("max_steps", 1), ("batch_size", 1), ("n_ensemble", 1), ("rng", 0)):
            if not is_integer(getattr(self, name), minimum=least):
                seed = ", the seed" if name == "rng" else ""
                raise ValueError(f"{name}={getattr(self, name)!r} must be a whole number of {least} or more{seed}.")
            self._become_plain(name, int)
        widths = self.hidden if isinstance(self.hidden, Iterable) else ()
        if not (widths := tuple(widths)) or not all(is_integer(width, minimum=1) for width in widths):
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

    def _check_choices(self) -> None:
        _choice("solver", self.solver, tuple(RECIPES))
        _choice("group_weights", self.group_weights, tuple(WEIGHTINGS))
        _choice("leave_out", self.leave_out, LEAVE_OUT)
        _choice("compilation", self.compilation, COMPILATIONS)
        _choice("conjugates", self.conjugates, CONJUGATES)
        if self.conjugates == REMEMBERED and RECIPES[self.solver].remembering is None:
            able = [name for name, recipe in RECIPES.items() if recipe.remembering is not None]
            raise ValueError(
                f"conjugates={REMEMBERED!r} goes with the solvers {able}, not with {self.solver!r}; leave it out."
            )
        if self.leave_out == "groups" and not RECIPES[self.solver].balanced:
            raise ValueError(
                f"leave_out='groups' chooses between network and Gaussian map, and solver={self.solver!r} keeps the "
                "network always; choose another solver, or leave_out='cells'."
            )
        if not isinstance(self.potential, Potential):
            _choice("potential", self.potential, POTENTIALS)

    def _become_plain(self, name: str, kind: type) -> None:
        """NumPy's numbers would not survive as JSON."""
        object.__setattr__(self, name, kind(getattr(self, name)))


def check_options(options: Iterable[str], others: Iterable[str] = ()) -> None:
    """Refuse options that no fit has, before anything is done.

    Parameters
    ----------
    options
        Names that were given.
    others
        What else the function takes.

    Raises
    ------
    TypeError
        If a name is unknown; the message has the nearest one, and all.
    """
    known = [field.name for field in fields(Settings)]
    for name in options:
        if name not in known:
            near = get_close_matches(name, [*known, *others], n=1, cutoff=0.5)
            meant = f"did you mean {near[0]!r}? " if near else ""
            raise TypeError(f"{name!r} is not an option of a fit; {meant}The options are {sorted({*known, *others})}.")


def _largest_batch(n_cells: int) -> int:
    """Cells of a batch beyond which it holds the same cells again and again, in clouds of at most so many cells.

    A power of two, so that maps of a screen with about as many cells have the same options and train together.
    """
    return max(BATCH_SIZE, 1 << (n_cells - 1).bit_length())


def _choice(name: str, value: object, choices: tuple[str, ...]) -> str:
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name}={value!r} is unknown; choose one of {list(choices)}.")
    return value


def _check_own(potential: Potential, n_dims: int, hidden: Iterable[int] | None) -> None:
    """A potential that the user made."""
    if potential.n_dims != n_dims:
        raise ValueError(f"potential has n_dims={potential.n_dims}, and the cells have {n_dims} dimensions.")
    if hidden is not None:
        raise ValueError(f"hidden={hidden!r} goes with a potential's name; {potential} has its own. Leave hidden out.")


def _is_real(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
