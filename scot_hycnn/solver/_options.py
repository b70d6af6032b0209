"""Training options: the name, type, default, check and documentation of every option, in one place."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from numbers import Real
from typing import Annotated, Any, Self, TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray

from scot_hycnn._warn import counted, did_you_mean
from scot_hycnn.potentials._hycnn import GroupMax, HyCNN
from scot_hycnn.potentials._icnn import ICNN, MLP
from scot_hycnn.potentials._potential import Potential

from .data._checks import is_integer

# The closed-form map between two Gaussians: nothing is trained.
GAUSSIAN = "gaussian"
# Of the paper's temperatures .1, 1 and 10 the sharpest: in balanced coordinates smoother ones stay near the Gaussian
# map (ICNN on T = x + sign x, d = 10).
SHARP = {"temperature": 0.1}
# Name to class and options. Those beside 'hycnn' are the systems of arXiv:2604.26942, in our solver.
FAMILIES: dict[str, tuple[type[Potential], dict[str, Any]]] = {
    "hycnn": (HyCNN, {}),
    "hycnn-max": (HyCNN, {"gate": "max"}),
    "hycnn-fixed": (HyCNN, {"annealing": "fixed", **SHARP}),
    "hycnn-cyclic": (HyCNN, {"annealing": "cyclic"}),
    "groupmax": (GroupMax, {}),
    "icnn": (ICNN, SHARP),
    "icnn-relu": (ICNN, {"activation": "relu"}),
    "icnn-leaky-relu": (ICNN, {"activation": "leaky_relu"}),
    "icnn-soft": (ICNN, {"constraint": "soft", **SHARP}),
    # Its squares are large at first: a sixth of the others' output starts as near to the Gaussian map.
    "icnn-quadratic": (ICNN, {"quadratic_skip": True, "output_scale": 0.05, **SHARP}),
    "mlp": (MLP, SHARP),
}
POTENTIALS = (*FAMILIES, GAUSSIAN)
# The other solvers train in balanced coordinates, start at the Gaussian map and are blended with it at the end. These
# train in centred coordinates, and keep their network even if the Gaussian map is better.
UNBALANCED_SOLVERS = ("paper",)
# In balanced coordinates |x|^2/2 is the Gaussian map: training starts close to it.
NEAR_GAUSSIAN = {"strong_convexity": 0.9, "output_scale": 0.3}
AS_PUBLISHED = {"strong_convexity": 0.0, "output_scale": 1.0}
HYCNN_OF_THE_PAPER = {"annealing": "fixed", "quadratic_skip": False}
# A safe upper limit of what a step in float32 can hold.
MAX_FLOAT = 1e38
# The defaults were chosen at about equal time on one core, with one or two seeds; percentages are errors, with 5,000
# cells unless it is said. Members: three of 600 steps, W2 benchmark D = 16 and 32, 2.34 and 4.04 %; four of 450, 2.42
# and 3.63 %; planted PBMCs 1.19 and 1.12 %.
N_ENSEMBLE = 4
# Steps for n cells: STEPS_PER_ROOT sqrt(n), since longer training finds more structure where there are more cells. They
# are rounded to fifties, because maps with the same number of steps train as one batch. With 20,000 cells the error
# still falls at the limit. Few cells need more: with 500 a side 150 steps leave .60 of the Gaussian map's error in the
# mean of eight tasks, 300 leave .52, and 600 leave .50.
STEPS_PER_ROOT, STEPS_ROUNDED_TO = 6.4, 50
MIN_STEPS, MAX_STEPS = 250, 650
# Batches: with 20,000 cells 512 in fewer steps are better (W2 benchmark D = 16: 1.27 against 1.34 %), with 5,000 they
# are not (2.77 against 2.52 %).
BATCH_SIZE, MANY_CELLS, BATCH_SIZE_OF_MANY = 256, 10_000, 512
# Three layers of 48 take a tenth more time than two of 64. Errors of two and of three, one seed: log-sum-exp (d = 40,
# 2,000 cells) 8.9 and 4.6 %, T = 4x^3 (d = 50) 3.3 and 3.6, W2 benchmark D = 32 3.7 and 3.5, planted PBMCs 1.2 and 1.1.
# Four of 48 take more time still, and fail on T = 4x^3 in the same time (13 %).
HIDDEN = (48, 48, 48)
# For at most FEW_CELLS smaller networks and batches, as before SOAP; two layers of 48 are not clearly better.
FEW_CELLS, HIDDEN_OF_FEW, BATCH_SIZE_OF_FEW = 1000, (32, 32, 32), 128
# Conjugates of at most so many target cells, and of at most so many numbers (160 MB), are cached. This takes half the
# time: with 50,000 cells, x + sign x (d = 20) .47 in 31 s against .49 in 60 s, 4x^3 .089 in 36 s against .118 in 61 s.
# With 100,000 a cell is drawn once in two hundred steps, and its maximiser is too old: 4x^3 3.8 against .10.
MAX_CACHED_CELLS, MAX_CACHED_VALUES = 50_000, 4 * 10**7
# Weight decay pulls towards the Gaussian map, which pays where cells are few for their dimensions: up to this many
# cells for each dimension it is 1, and then it falls with their number. W2 benchmark, 20,000 cells, 900 steps: error
# 1.39 -> 1.02 % (D = 8), 1.12 -> .96 (D = 16), 1.88 -> 1.62 (D = 32); with 5,000 cells a decay of .3 is worse: 2.02 ->
# 2.10 on x + sign x (d = 20), 3.69 -> 4.02 on the W2 benchmark (D = 32). It is a power of two, because maps with the
# same decay train as one batch.
DECAY_CELLS = 300
AMORTIZED, CACHED = CONJUGATES = ("amortized", "cached")
# Proportion of a group from its share of the cells, the mean over both clouds; up to one factor for all groups.
WEIGHTINGS: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "sqrt": np.sqrt,
    "equal": np.ones_like,
    "observed": np.asarray,
}
LEAVE_OUT = ("cells", "groups")
CUDA_GRAPH = ("auto", "never")
UNBALANCED_SIDES = ("both", "source", "target")


@dataclass(frozen=True)
class Recipe:
    """The rates of a solver, and defaults that differ from those of the others."""

    lr: float = 4e-2
    weight_decay: float = 1.0
    can_cache: bool = False
    # Adam needs more steps than SOAP.
    times: float = 1.0
    defaults: dict[str, Any] = field(default_factory=dict)


RECIPES = {
    "amortized": Recipe(can_cache=True),
    "minimax": Recipe(),
    "w2gn": Recipe(),
    # With a higher rate the noise of the regulariser wins: W2 benchmark D = 16, 63 % error against 7.6.
    "enot": Recipe(lr=5e-3, weight_decay=0.0, times=2.0, defaults={"hidden": (48,) * 4}),
    # arXiv:2604.26942, app. D.3, d >= 10: T = 1000, batch 256, cosine from 1e-2 to 1e-4.
    "paper": Recipe(
        lr=1e-2,
        weight_decay=0.0,
        defaults={"max_steps": 1000, "n_ensemble": 1, "batch_size": 256, "hidden": (48,) * 4},
    ),
}


class TrainingOptions(TypedDict, total=False):
    r"""Training options of :func:`scot_hycnn.solver.fit`, ``fit_many`` and :func:`scot_hycnn.tl.hycnn_ot`.

    ``typing.get_type_hints(TrainingOptions, include_extras=True)`` gives the types, with a line of help each.

    Parameters
    ----------
    potential
        Family of convex functions: ``'hycnn'`` (default); with another temperature ``'hycnn-max'``, ``'hycnn-fixed'``,
        ``'hycnn-cyclic'``; for comparison ``'groupmax'``, ``'icnn'`` (softplus), ``'icnn-relu'``,
        ``'icnn-leaky-relu'``, ``'icnn-soft'``, ``'icnn-quadratic'`` and ``'mlp'`` (the last and ``'icnn-soft'`` are not
        convex). ``'gaussian'`` is the closed-form Gaussian map alone. It may also be a potential from
        :mod:`scot_hycnn.potentials`, of the dimension of the cells.
    solver
        Training method: ``'amortized'`` (default); ``'minimax'`` (Makkuva et al. 2020), ``'w2gn'`` (Korotin et al.
        2021) or ``'enot'`` (Buzun et al. 2024) in the same coordinates and loop; or ``'paper'``, the minimax training
        of the HyCNN paper as it was published, without balanced coordinates and without a fallback on the Gaussian map.
    hidden
        Width of each hidden layer; None takes three of 48, or three of 32 for at most 1,000 cells.
    max_steps
        Training steps; None takes 250 to 650, depending on the number of cells. Training stops earlier only where
        the Gaussian map will be kept: where it is clearly better, or no response is seen.
    batch_size
        Source cells and target cells in each step, for each member; None takes 128 to 512, depending on the number of
        cells. Cells are drawn with replacement, so a batch that is much larger than the cloud repeats the same cells:
        a number above 256 and above the cells of the larger cloud (rounded up to a power of two) is reduced to the
        larger of these two, and ``params`` of the map hold the reduced number.
    lr
        Highest learning rate of the schedule; None takes that of the solver.
    weight_decay
        Strength with which the networks are pulled towards the Gaussian map; None takes that of the solver, and less
        where there are more than 300 cells for each dimension.
    n_ensemble
        Members of the ensemble, which are trained as one batch and averaged; None takes four.
    validation_fraction
        Fraction of the cells that is held out of training for the choice of the blend, 0.1 by default.
    group_weights
        Proportion of a group, from its share of the cells (the mean over both clouds): ``'sqrt'`` (default), the square
        root of the share, so that large groups do not dominate small ones; ``'equal'``; or ``'observed'``, the share
        itself.
    leave_out
        Cells on which the map is chosen: ``'cells'`` (default), held-out cells of the same groups; or ``'groups'``,
        groups that are left out by cross-validation over groups, for a map that is applied to cells of other groups. It
        chooses among no change, shifts, Gaussian maps and networks, takes about three times as long, and may return a
        centred map; see :class:`scot_hycnn.solver.TransportMap`. With ``potential='gaussian'`` it compares the maps
        with a closed form alone, which takes seconds. (:func:`scot_hycnn.tl.hycnn_ot` takes a column, too.)
    conjugates
        Warm start of the search for the conjugate of a target cell, for ``solver='amortized'``: ``'amortized'``, the
        prediction of a second network, or ``'cached'``, the maximiser of the step in which the cell was drawn before.
        None takes ``'cached'``, which is faster, for at most 50,000 target cells (and at most 160 MB): of more cells
        each is drawn too rarely.
    unbalanced
        None (default) carries every cell. Where cells die or divide, or types were sampled in other
        proportions, a number is the penalty for mass that is created or destroyed, in units of the mean squared
        distance of a source cell, moved by a Gaussian map, from a target cell: 0.3 is a good one, and less
        transports less. Cells then get weights by unbalanced optimal transport (within their group, with
        groups), and the fit and its scores are those of the weighted cells. ``'auto'`` takes 0.3, or 1 if that
        transports less than half of the mass, where two halves of the cells both show populations whose share
        changed by more than sampling explains, and else the balanced fit. ``validation`` of the map then has the
        penalty (``unbalanced``, infinite for the balanced fit) and the ``transported_mass``, and for each cell
        ``source_weight``, ``target_weight`` (mean 1) and ``source_growth``.
    unbalanced_side
        Which cloud gets weights: ``'both'`` (default), ``'source'`` if only source cells may lack a counterpart, since
        the composition of the target is known to be that of the survivors, or ``'target'``.
    growth
        Size of the target population over that of the source, such as 0.6 if 40 % of the cells have died; None takes
        1. It is the unit of ``source_growth`` alone: numbers of sampled cells do not show it.
    cuda_graph
        ``'auto'`` (default) records a training step on an NVIDIA GPU and replays it as one CUDA graph, which gives the
        same numbers ten times as fast for few cells. ``'never'`` computes every step anew.

    Examples
    --------
    >>> from scot_hycnn.solver import Settings, TrainingOptions
    >>> options = TrainingOptions(max_steps=300, n_ensemble=2)
    >>> Settings.for_cells(500, 500, 30, device="cpu", rng=0, **options).max_steps
    300
    """

    potential: Annotated[str | Potential, "Family of convex functions, such as hycnn, icnn or gaussian."]
    solver: Annotated[str, "Training method: amortized, minimax, w2gn, enot or paper."]
    hidden: Annotated[Sequence[int] | None, "Width of each hidden layer; by default it depends on the number of cells."]
    max_steps: Annotated[int | None, "Training steps; by default they depend on the number of cells."]
    batch_size: Annotated[int | None, "Cells in each step; by default it depends on the number of cells."]
    lr: Annotated[float | None, "Highest learning rate; by default that of the solver."]
    weight_decay: Annotated[
        float | None, "Strength of the pull towards the Gaussian map; by default it depends on the cells."
    ]
    n_ensemble: Annotated[int | None, "Members of the ensemble; by default four."]
    validation_fraction: Annotated[float, "Fraction of the cells that is held out for the choice of the blend."]
    group_weights: Annotated[str, "Proportions of groups: sqrt, equal or observed."]
    leave_out: Annotated[str, "What the map is chosen on: held-out cells, or groups that are left out."]
    conjugates: Annotated[
        str | None, "Warm start of the conjugates: amortized or cached; by default it depends on the number of cells."
    ]
    unbalanced: Annotated[
        float | str | None, "Penalty for mass that changes, such as 0.3, or auto; by default all mass is transported."
    ]
    unbalanced_side: Annotated[str, "Which cells get weights: both, source or target."]
    growth: Annotated[float | None, "Size of the target population over that of the source; by default 1."]
    cuda_graph: Annotated[str, "Record steps as a CUDA graph on an NVIDIA GPU: auto or never."]


@dataclass(frozen=True)
class Settings:
    """The options of a fit after all checks, with a value for every option.

    Parameters
    ----------
    potential, solver, hidden, max_steps, batch_size, lr, weight_decay, n_ensemble
        See :class:`TrainingOptions`.
    device
        Name of the device on which the networks are trained.
    rng
        Seed.
    validation_fraction, group_weights, leave_out, conjugates, unbalanced, unbalanced_side, growth, cuda_graph
        See :class:`TrainingOptions`.

    Raises
    ------
    ValueError
        If a name is unknown or a number is out of range; the message has the choices or the range.

    Examples
    --------
    >>> from scot_hycnn.solver import Settings
    >>> settings = Settings.for_cells(500, 500, 30, device="cpu", rng=0)
    >>> settings.hidden, settings.n_ensemble, settings.max_steps, settings.balanced
    ((32, 32, 32), 4, 250, True)
    >>> settings.report()["batch_size"], settings.report()["potential"]
    (128, 'hycnn')
    >>> settings.conjugates, Settings.for_cells(500, 10**6, 30, device="cpu", rng=0).conjugates
    ('cached', 'amortized')
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
    conjugates: str = AMORTIZED
    unbalanced: float | str = "never"
    unbalanced_side: str = "both"
    growth: float = 1.0
    cuda_graph: str = "auto"

    @classmethod
    def for_cells(
        cls, n_source: int, n_target: int, n_dims: int, *, device: str, rng: int, **training: Unpack[TrainingOptions]
    ) -> Self:
        """Choose every option that is missing or None, by the number of cells and the solver.

        Parameters
        ----------
        n_source, n_target
            Cells of each cloud.
        n_dims
            Dimension d of the representation.
        device
            Name of the device.
        rng
            Seed.
        training
            See :class:`TrainingOptions`.

        Returns
        -------
        The settings.

        Raises
        ------
        TypeError
            If an option is unknown; the message has the nearest one.
        ValueError
            If an option is out of range, or the dimension of a potential is not that of the cells.
        """
        _check_names(training)
        given = {name: value for name, value in training.items() if value is not None or name in _NEVER_NONE}
        # An unknown solver is refused with all other options, in __post_init__.
        recipe = RECIPES.get(str(given.setdefault("solver", "amortized")), Recipe())
        potential = given.setdefault("potential", "hycnn")
        if isinstance(potential, Potential):
            if potential.n_dims != n_dims:
                raise ValueError(
                    f"potential has n_dims={potential.n_dims}, and the cells have {counted(n_dims, 'dimension')}."
                )
            if "hidden" in given:
                raise ValueError(
                    f"hidden={given['hidden']!r} goes with a potential's name; {potential} has its own. Leave hidden "
                    "out."
                )
            given["hidden"] = potential.hidden
        n_cells, n_largest = min(n_source, n_target), max(n_source, n_target)
        steps = STEPS_ROUNDED_TO * round(STEPS_PER_ROOT * math.sqrt(n_cells) / STEPS_ROUNDED_TO)
        steps = round(recipe.times * min(max(steps, MIN_STEPS), MAX_STEPS))
        few = n_cells <= FEW_CELLS
        decay = min(2.0 ** round(math.log2(DECAY_CELLS * n_dims / n_cells)), 1.0)
        cached = n_target <= MAX_CACHED_CELLS and N_ENSEMBLE * n_target * n_dims <= MAX_CACHED_VALUES
        suited = {
            "hidden": HIDDEN_OF_FEW if few else HIDDEN,
            "max_steps": steps,
            "batch_size": BATCH_SIZE_OF_FEW if few else BATCH_SIZE_OF_MANY if n_cells >= MANY_CELLS else BATCH_SIZE,
            "n_ensemble": N_ENSEMBLE,
            "lr": recipe.lr,
            "weight_decay": recipe.weight_decay * decay,
            "conjugates": CACHED if recipe.can_cache and cached else AMORTIZED,
        }
        options: dict[str, Any] = {**suited, **recipe.defaults, **given, "device": device, "rng": rng}
        if is_integer(options["batch_size"], minimum=1):
            # A larger batch repeats the same cells. A power of two, so that maps of a screen with about as many cells
            # have the same options and train together.
            largest = max(BATCH_SIZE, 1 << (n_largest - 1).bit_length())
            options["batch_size"] = min(int(options["batch_size"]), largest)
        return cls(**options)

    @property
    def balanced(self) -> bool:
        """Whether the solver trains in balanced coordinates and falls back on the Gaussian map."""
        return self.solver not in UNBALANCED_SOLVERS

    def report(self) -> dict[str, Any]:
        """Return every option by name, as plain numbers and strings.

        Returns
        -------
        The options, as a file can hold them.
        """
        return {one.name: getattr(self, one.name) for one in fields(self)} | {"potential": str(self.potential)}

    def __post_init__(self) -> None:
        for name, choices in (
            ("solver", tuple(RECIPES)),
            ("group_weights", tuple(WEIGHTINGS)),
            ("leave_out", LEAVE_OUT),
            ("cuda_graph", CUDA_GRAPH),
            ("unbalanced_side", UNBALANCED_SIDES),
            ("conjugates", CONJUGATES),
            ("potential", POTENTIALS),
        ):
            value = getattr(self, name)
            if name == "potential" and isinstance(value, Potential):
                continue
            if not isinstance(value, str) or value not in choices:
                near = did_you_mean(value, choices)
                raise ValueError(f"{name}={value!r} is unknown; choose one of {list(choices)}.{near}")
        if self.conjugates == CACHED and not RECIPES[self.solver].can_cache:
            able = [name for name, recipe in RECIPES.items() if recipe.can_cache]
            raise ValueError(
                f"conjugates={CACHED!r} goes with the solvers {able}, not with {self.solver!r}; leave it out."
            )
        if self.leave_out == "groups" and not self.balanced:
            raise ValueError(
                f"leave_out='groups' chooses between network and Gaussian map, and solver={self.solver!r} always keeps "
                "the network; choose another solver, or leave_out='cells'."
            )
        # Numbers of NumPy cannot be written as JSON, so that they become numbers of Python here.
        for name, smallest in (("max_steps", 1), ("batch_size", 1), ("n_ensemble", 1), ("rng", 0)):
            if not is_integer(value := getattr(self, name), minimum=smallest):
                seed = ", the seed" if name == "rng" else ""
                raise ValueError(f"{name}={value!r} must be an integer of {smallest} or more{seed}.")
            object.__setattr__(self, name, int(value))
        widths = tuple(self.hidden) if isinstance(self.hidden, Iterable) else ()
        if not widths or not all(is_integer(width, minimum=1) for width in widths):
            raise ValueError(f"hidden={self.hidden!r} must be one or more widths, each an integer of 1 or more.")
        object.__setattr__(self, "hidden", tuple(int(width) for width in widths))
        if self.unbalanced not in ("never", "auto"):
            try:
                penalty = math.nan if isinstance(self.unbalanced, bool) else float(self.unbalanced)
            except (TypeError, ValueError):
                penalty = math.nan
            if not penalty > 0:
                raise ValueError(
                    f"unbalanced={self.unbalanced!r} must be a positive number, 'auto', or None for the balanced fit."
                )
            object.__setattr__(self, "unbalanced", penalty)
        for name, lowest, highest, allowed in (
            ("growth", math.nextafter(0, 1), MAX_FLOAT, "positive"),
            ("lr", math.nextafter(0, 1), MAX_FLOAT, "positive"),
            ("weight_decay", 0.0, MAX_FLOAT, "not negative"),
            # The blend is chosen on cells that training has not used.
            ("validation_fraction", math.nextafter(0, 1), 0.5, "positive"),
        ):
            value = getattr(self, name)
            if not isinstance(value, Real) or isinstance(value, bool) or not lowest <= float(value) <= highest:
                raise ValueError(f"{name}={value!r} must be a number that is {allowed} and at most {highest:g}.")
            object.__setattr__(self, name, float(value))


# For these options None is an error, because their default is not chosen by the number of cells.
_NEVER_NONE = {"potential", "solver", "validation_fraction", "group_weights", "leave_out", "cuda_graph"}
_NEVER_NONE |= {"unbalanced_side"}


def check_options(options: Mapping[str, Any], others: Iterable[str] = (), *, rng: Any) -> None:
    """Raise a TypeError if an option is none of TrainingOptions and ``others``, a ValueError if its value is wrong.

    This needs no cells; only the dimension of a potential is compared with that of the cells later.
    """
    _check_names(options, others)
    potential = options.get("potential")
    n_dims = potential.n_dims if isinstance(potential, Potential) else 1
    training: Any = {name: options[name] for name in options if name in TrainingOptions.__annotations__}
    # Numbers of cells choose defaults, and no check depends on them.
    Settings.for_cells(1, 1, n_dims, device="cpu", rng=rng, **training)


def _check_names(options: Iterable[str], others: Iterable[str] = ()) -> None:
    """Raise a TypeError, with the nearest name, if an option is none of TrainingOptions and ``others``."""
    known = sorted({*TrainingOptions.__annotations__, *others})
    for name in options:
        if name not in known:
            raise TypeError(f"{name!r} is not an option of a fit.{did_you_mean(name, known)} The options are {known}.")
