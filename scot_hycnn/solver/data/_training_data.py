"""From the cells of a user to those of training: maps to fit, training and validation cells, and mini-batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import MiniBatchKMeans
from torch import Tensor

from scot_hycnn._response import NoChange, drawn_by_weight
from scot_hycnn.potentials._gaussian import Gaussian
from scot_hycnn.solver._options import WEIGHTINGS, Settings
from scot_hycnn.solver.runtime._device import limited_threads

from ._checks import SOURCE, Array, Rows, UnusableError, as_table, far_cells, raise_together
from ._coordinates import Coordinates, as_numpy, as_tensor
from ._groups import Groups, Labels, group_cells, groups_left_out, labels_of, pair_of, usable_groups
from ._unbalanced import CellWeights, weigh_cells

# Scoring costs n m distances; beyond this many cells the choice of a blend gains nothing.
MAX_VALIDATION_CELLS = 2000
MIN_VALIDATION_CELLS = 5
# Places of a cell of mean weight among those that batches draw from.
COPIES = 16


@dataclass(frozen=True)
class Task:
    """One map to fit; maps from the same source cells share ``x``, ``labels_x`` and ``far_x``."""

    # Checked cells, shape (n, d) and (m, d): arrays, or rows of a file that become an array when the map is fitted.
    x: Any
    y: Any
    # Group of each cell, or None.
    labels_x: Labels | None
    labels_y: Labels | None
    settings: Settings
    # Groups with too few cells, whose cells take no part in the fit.
    groups_left_out: tuple[str, ...]
    # Rows of the source and of the target cells that lie far from all others, which take no part in the fit either.
    far_x: Rows
    far_y: Rows
    # Weights of the cells that take part in the fit, where they do not all count the same.
    weights: CellWeights | None = None


def cells_of(task: Task, dtype: Any = np.float64) -> tuple[Any, Any, Groups | None]:
    """Read the cells that take part in a fit, (n, d) and (m, d), and their groups with the weights of the cells."""
    x, y = np.asarray(task.x, dtype=dtype), np.asarray(task.y, dtype=dtype)
    far = task.far_x, task.far_y
    x, y = (np.delete(cells, rows, axis=0) if len(rows) else cells for cells, rows in zip((x, y), far, strict=True))
    groups = None
    if task.labels_x is not None and task.labels_y is not None:
        labels = task.labels_x.without(task.far_x), task.labels_y.without(task.far_y)
        x, y, groups = group_cells(x, y, labels, WEIGHTINGS[task.settings.group_weights])
    if task.weights is not None and task.weights.x is not None:
        groups = groups or Groups.of_one(len(x), len(y))
        groups = replace(groups, cells_x=task.weights.x, cells_y=task.weights.y)
    return x, y, groups


def tasks_of(x: Any, ys: dict[str, Any], groups: Any, options: dict[str, Any]) -> list[Task]:
    """Check the cells and groups of all targets, by the names that messages use, and return the maps to fit."""
    if groups is None and options.get("leave_out") == "groups":
        raise ValueError("leave_out='groups' needs groups: the group of each source and each target cell.")
    # The source is converted, coded and searched for far cells once for all maps.
    source = as_table(x, SOURCE)
    far_x = far_cells(source)
    labels_x, near_x, labels_of_targets = None, None, [None] * len(ys)
    if groups is not None:
        of_source, labels_of_targets = pair_of(groups)
        if not hasattr(labels_of_targets, "__len__") or len(labels_of_targets) != len(ys):
            raise ValueError(
                "groups must be a pair: labels of the source cells, and a sequence of labels for each of the "
                f"{len(ys)} targets."
            )
        labels_x = labels_of(of_source, len(source), "source")
        near_x = labels_x.without(far_x)
    tasks, problems = [], []
    for (name, y), of_y in zip(ys.items(), labels_of_targets, strict=True):
        try:
            target = as_table(y, name, source.shape[1])
            settings = Settings.for_cells(len(source), len(target), source.shape[1], **options)
            far_y, labels_y, left_out = far_cells(target), None, []
            if near_x is not None:
                labels_y = labels_of(of_y, len(target), "target")
                # Far cells take no part in the fit, so that they do not count for their groups either.
                pair = near_x, labels_y.without(far_y)
                left_out = groups_left_out(pair, usable_groups(pair, source.shape[1], settings.leave_out))
            # Cells in a file are read again when their map is fitted, so that memory holds those of one batch.
            in_memory = isinstance(y, (np.ndarray, list, tuple)) or hasattr(y, "detach") or hasattr(y, "iloc")
            in_file = hasattr(y, "__array__") and hasattr(y, "shape") and not in_memory
            cells = source, y if in_file else target
            task = Task(*cells, labels_x, labels_y, settings, tuple(left_out), far_x, far_y)
            if settings.unbalanced != "never":
                # Before any map is fitted, so that too little mass in one target does not cost hours.
                *clouds, of_task = cells_of(task)
                weighed = of_task or Groups.of_one(*map(len, clouds))
                with limited_threads(1):
                    weights = weigh_cells(
                        tuple(clouds),
                        (weighed.x, weighed.y),
                        weighed.proportions,
                        name,
                        penalty=settings.unbalanced,
                        side=settings.unbalanced_side,
                        growth=settings.growth,
                        rng=settings.rng,
                    )
                task = replace(task, weights=weights)
            tasks.append(task)
        except UnusableError as problem:
            problems.append((name, problem))
    if problems:
        raise_together(problems, len(ys))
    return tasks


@dataclass(frozen=True, eq=False)
class Strata:
    """Draws cells of one cloud: first a group by its proportion and then one of its cells."""

    # Cumulative proportions, shape (K,). Those of millions of single cells would be beyond the precision of float32.
    cumulative: Tensor
    # Where the cells of each group begin in `order`, and how many they are, shape (K,).
    start: Tensor
    size: Tensor
    # Row numbers of the cells ordered by group, shape (n,).
    order: Tensor

    @classmethod
    def of(
        cls, codes: NDArray[np.intp], proportions: NDArray[np.float64], device: str, cells: Array | None = None
    ) -> Strata:
        """Prepare for drawing; groups without a cell leave their proportion to the others."""
        by_group = np.argsort(codes)
        size = np.bincount(codes, minlength=len(proportions))
        if cells is not None:
            # A cell stands in the order as often as it counts: COPIES times on average.
            ends = np.floor(np.cumsum(cells[by_group]) * (COPIES * len(codes) / cells.sum())).astype(np.intp)
            by_group = np.repeat(by_group, np.diff(ends, prepend=0))
            size = np.bincount(codes[by_group], minlength=len(proportions))
        share = np.cumsum(np.where(size > 0, proportions, 0))
        start, sizes, order = (
            torch.as_tensor(rows, device=device) for rows in (np.cumsum(size) - size, size, by_group)
        )
        cumulative = torch.as_tensor(share / share[-1], dtype=torch.float32, device=device)
        return cls(cumulative, start, sizes, order)

    def draw(self, shape: tuple[int, int], generator: torch.Generator) -> Tensor:
        """Return row numbers, with replacement."""
        group, within = (
            torch.rand(shape, generator=generator, dtype=torch.float32, device=generator.device) for _ in range(2)
        )
        k = torch.searchsorted(self.cumulative, group, right=True).clamp(max=len(self.size) - 1)
        return self.order[self.start[k] + (within * self.size[k]).long().clamp(max=self.size[k] - 1)]


@dataclass(frozen=True)
class TrainingData:
    """Both clouds, split into training and validation cells, and balanced."""

    # Balanced coordinates from the training cells alone; and from all cells, which give the Gaussian map that is kept
    # where no network is better.
    coordinates: Coordinates
    all_cells: Coordinates
    # Training cells, shape (n, d) and (m, d), and validation cells, float32 in `coordinates`.
    x: Tensor
    y: Tensor
    x_validation: Tensor
    y_validation: Tensor
    # The same validation cells in the representation.
    x_validation_original: Array
    y_validation_original: Array
    # The Gaussian map's potential at the source and its conjugate at the target validation cells.
    gaussian_x: Tensor
    gaussian_y: Tensor
    # Whether the training cells show a response at all.
    no_change: NoChange
    # With groups: how batches are drawn from the training cells, and the weight of each one, (n,) and (m,), sum 1.
    strata_x: Strata | None = None
    strata_y: Strata | None = None
    weights_x: Array | None = None
    weights_y: Array | None = None

    @classmethod
    def prepare(
        cls,
        x: Array,
        y: Array,
        settings: Settings,
        groups: Groups | None = None,
        *,
        centres: tuple[Array, Array] | None = None,
    ) -> TrainingData:
        """Split both clouds and balance them by the Gaussian map of the training cells; with groups, weighted.

        With ``centres`` of source and target, (groups, d) each, the centre of its group is subtracted from each cell.
        """
        fraction, device = settings.validation_fraction, settings.device
        generator = np.random.default_rng(settings.rng)
        sampling: dict[str, Any] = {}
        if groups is None or len(groups.labels) == 1:
            cells = (None, None) if groups is None else (groups.cells_x, groups.cells_y)
            in_x, in_y = (
                validation_rows(cloud, fraction, generator, weights)
                for cloud, weights in zip((x, y), cells, strict=True)
            )
        else:
            in_x, in_y = groups.hold_out(fraction, MAX_VALIDATION_CELLS, generator)
        train_groups, codes = None, None
        train_weights: tuple[Array | None, ...] = (None, None)
        all_weights: tuple[Array | None, ...] = (None, None)
        if groups is not None:
            train_groups = groups.without(in_x, in_y)
            train_weights, all_weights = train_groups.weights, groups.weights
            codes = train_groups.x, train_groups.y
            strata_x, strata_y = (
                Strata.of(of_cloud, groups.proportions, device, weights)
                for of_cloud, weights in zip(codes, (train_groups.cells_x, train_groups.cells_y), strict=True)
            )
            sampling = {"strata_x": strata_x, "strata_y": strata_y}
            sampling |= dict(zip(("weights_x", "weights_y"), train_weights, strict=True))
        # Centres are means of the observed source cells, under which source and target cells are not exchangeable: the
        # test takes the cells as they are.
        of_cells = (None, None) if train_groups is None else (train_groups.cells_x, train_groups.cells_y)
        no_change = NoChange.test(x[~in_x], y[~in_y], codes, np.random.default_rng(settings.rng), of_cells)
        if groups is not None and centres is not None:
            x, y = x - centres[0][groups.x], y - centres[1][groups.y]
        # The validation cells must not shape the coordinates in which they judge the networks.
        coordinates, all_cells = (
            Coordinates.from_gaussian(Gaussian.fit(of_x, of_y, weights_x=weights[0], weights_y=weights[1]))
            for of_x, of_y, weights in ((x[~in_x], y[~in_y], train_weights), (x, y, all_weights))
        )
        # Early stopping scores the first of these cells: in file order they would be of the types that come first.
        x_held, y_held = generator.permutation(x[in_x]), generator.permutation(y[in_y])
        return cls(
            coordinates,
            all_cells,
            as_tensor(coordinates.source(x[~in_x]), device),
            as_tensor(coordinates.target(y[~in_y]), device),
            **_validation(coordinates, x_held, y_held, device),
            no_change=no_change,
            **sampling,
        )

    def validated_on(self, x: Array, y: Array) -> TrainingData:
        """Return the same training cells with other validation cells."""
        return replace(self, **_validation(self.coordinates, x, y, self.x.device))

    def centred(self) -> TrainingData:
        """Return the same cells, centred but not balanced, for solvers without balanced coordinates."""
        balanced = self.coordinates
        centred = Coordinates(balanced.mean_x, balanced.mean_y, np.eye(len(balanced.mean_x)), 1.0)

        def source(x: Tensor) -> Tensor:
            return as_tensor(centred.source(balanced.invert_source(as_numpy(x))), x.device)

        def target(y: Tensor) -> Tensor:
            return as_tensor(centred.target(balanced.invert_target(as_numpy(y))), y.device)

        return replace(
            self,
            coordinates=centred,
            x=source(self.x),
            y=target(self.y),
            x_validation=source(self.x_validation),
            y_validation=target(self.y_validation),
            # Potentials have the units of the inner product, of which `scale` is the factor.
            gaussian_x=self.gaussian_x / balanced.scale,
            gaussian_y=self.gaussian_y / balanced.scale,
        )


@dataclass(frozen=True)
class Trained:
    """The result of training on the cells of one map."""

    # Parameters of the members, shape (K, P), and the cells in the coordinates of training.
    theta: Tensor
    cells: TrainingData
    # Whether training ended early because the Gaussian map was clearly better.
    keep_gaussian: bool
    n_steps: int = 0
    # Columns with a row for each check.
    history: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    # Updates of single networks that were skipped.
    n_bad_gradients: int = 0

    def state(self) -> dict[str, Any]:
        """Return all but the cells, as plain values for a checkpoint."""
        names = ("theta", "keep_gaussian", "n_steps", "history", "n_bad_gradients")
        return {name: getattr(self, name) for name in names}


def _validation(coordinates: Coordinates, x: Array, y: Array, device: str | torch.device) -> dict[str, Any]:
    """Return the fields of TrainingData that belong to validation cells."""
    xi, eta = as_tensor(coordinates.source(x), device), as_tensor(coordinates.target(y), device)
    return {
        "x_validation": xi,
        "y_validation": eta,
        "x_validation_original": x,
        "y_validation_original": y,
        # In balanced coordinates the Gaussian map is the identity: its potential and the conjugate are |.|^2/2.
        "gaussian_x": 0.5 * xi.square().sum(1),
        "gaussian_y": 0.5 * eta.square().sum(1),
    }


def validation_rows(
    cells: Array, fraction: float, rng: np.random.Generator, weights: Array | None = None
) -> NDArray[np.bool_]:
    """Return which cells to validate on, spread over the cloud in proportion, shape (n,)."""
    # Scores vary most between cell types. Few validation cells drawn at random would hold too many of one type, and the
    # choice of the blend would follow this accident. So cells are put in the order of their k-means cluster, at random
    # within it, and validation takes rows at even steps (systematic sampling).
    n = len(cells)
    n_validation = min(max(round(fraction * n), MIN_VALIDATION_CELLS), MAX_VALIDATION_CELLS)
    seed = int(rng.integers(2**31))
    # Unit scale keeps squared distances of values such as 1e8 or 1e-8 in range; distinct points may be few.
    centred = cells - cells.mean(0)
    scale = np.abs(centred).max()
    clustering = MiniBatchKMeans(min(10, n // 5), n_init=1, batch_size=1024, random_state=seed)
    clusters = clustering.fit_predict(centred / scale) if scale > 0 else np.zeros(n)
    order = np.lexsort((rng.random(n), clusters))
    step = n / n_validation
    taken = np.zeros(n, dtype=bool)
    if weights is not None:
        taken[drawn_by_weight(weights, order, n_validation, rng)] = True
        return taken
    taken[order[((rng.random() + np.arange(n_validation)) * step).astype(np.intp)]] = True
    return taken


class Batches:
    """Random training cells, drawn with replacement: ``shape`` is members of each map, and cells for each member."""

    def __init__(
        self,
        maps: Sequence[TrainingData],
        shape: tuple[int, int],
        generator: torch.Generator,
        *,
        one_table: bool | None = None,
    ) -> None:
        self._shape, self._generator = shape, generator
        # One table of the cells of all maps: a hundred maps then take hardly more operations than one, if their clouds
        # have one size and no groups. On a CPU, where launching is cheap, the copy is not worth its memory.
        join = len(maps) > 1 and (generator.device.type != "cpu" if one_table is None else one_table)
        # For the source and for the target: what is drawn from, the number of it for each map, the tables of cells, and
        # the row of each member's first cell in its table.
        self._sides: list[tuple[list[int | Strata], Tensor, list[Tensor], Tensor]] = []
        for clouds in ([(cells.x, cells.strata_x) for cells in maps], [(cells.y, cells.strata_y) for cells in maps]):
            # Maps whose clouds have one size and no groups share their row numbers, which are then drawn once.
            keys = [(len(cells), id(strata)) for cells, strata in clouds]
            sources = {key: key[0] if strata is None else strata for key, (_, strata) in zip(keys, clouds, strict=True)}
            which = torch.tensor([list(sources).index(key) for key in keys], device=clouds[0][0].device)
            tables = [cells for cells, _ in clouds]
            first = torch.zeros(len(maps), dtype=torch.long, device=which.device)
            if join:
                sizes = torch.tensor([len(cells) for cells in tables], device=which.device)
                tables, first = [torch.cat(tables)], sizes.cumsum(0) - sizes
            self._sides.append((list(sources.values()), which, tables, first.repeat_interleave(shape[0]).unsqueeze(1)))

    def draw(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return source and target cells, (members, n, d), and the rows of the latter in their cloud, (members, n)."""
        generator, drawn_cells = self._generator, []
        for sources, which, tables, first in self._sides:
            before = generator.get_state() if len(sources) > 1 else None
            drawn = []
            for source in sources:
                if before is not None:
                    # Each map gets the numbers that it would draw alone.
                    generator.set_state(before)
                drawn.append(
                    source.draw(self._shape, generator)
                    if isinstance(source, Strata)
                    else torch.randint(source, self._shape, generator=generator, device=generator.device)
                )
            rows = torch.stack(drawn)[which].flatten(0, 1)
            parts = (rows + first).chunk(len(tables))
            drawn_cells.append(torch.cat([table[wanted] for table, wanted in zip(tables, parts, strict=True)]))
        x, y = drawn_cells
        return x, y, rows
