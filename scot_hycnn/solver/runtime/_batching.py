"""From checked cells to fitted maps, many at a time, here or on a Dask cluster, with a bar: prepare, train, choose."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from scot_hycnn.potentials import Potential
from scot_hycnn.solver._options import AS_PUBLISHED, FAMILIES, GAUSSIAN, HYCNN_OF_THE_PAPER, NEAR_GAUSSIAN, Settings
from scot_hycnn.solver.data._groups import Groups
from scot_hycnn.solver.data._training_data import Task, Trained, TrainingData, cells_of
from scot_hycnn.solver.data._unbalanced import CellWeights
from scot_hycnn.solver.model._map import TransportMap
from scot_hycnn.solver.selection._blend import BLENDS, MAX_FOLDS, GroupScores, choose_blend_by_groups, leave_groups_out
from scot_hycnn.solver.selection._final_map import final_map
from scot_hycnn.solver.selection._ladder import Ladder
from scot_hycnn.solver.training._loop import train

from ._checkpoint import CheckpointFolder
from ._device import limited_threads, resolve_device

# Networks that train as one batch, for each thread. On a CPU more are not faster, since their layers no longer fit into
# the cache; a GPU is idle with fewer.
MEMBERS_ON_CPU, MEMBERS_ELSEWHERE = 16, 256
# Coordinates of the training cells of a batch, all maps together: 160 MB in float32, beside the originals.
MAX_VALUES = 4 * 10**7

# Adds steps of all maps together, and at checks shows the mean of J minus that of the Gaussian map.
Update = Callable[..., None]
# Several maps train together, so that fractions of maps are done at a time.
_ONE = "{l_bar}{bar}| [{elapsed}<{remaining}{postfix}]"
_MANY = "{l_bar}{bar}| {n:.1f}/{total:.0f} maps [{elapsed}<{remaining}{postfix}]"


def fit_tasks(
    tasks: Sequence[Task], progress: bool | None, folder: CheckpointFolder | None
) -> Iterator[tuple[int, TransportMap]]:
    """Fit maps in batches; yields the number of each task with its map, finished and interrupted ones first."""
    with progress_bar([_cost(task.settings) for task in tasks], show=progress) as update:
        # Batches that were interrupted stay together: in another batch the same map has other rounding.
        begun = [] if folder is None else [b for b in batches(tasks) if folder.has_begun([tasks[k] for k in b])]
        left = []
        for number in sorted(set(range(len(tasks))) - set(chain.from_iterable(begun))):
            finished = None if folder is None else folder.find(tasks[number])
            if finished is None:
                left.append(number)
            else:
                update(_cost(tasks[number].settings))
                yield number, finished
        for batch in [*begun, *batches(tasks, left=left)]:
            members = [tasks[number] for number in batch]
            fits = _fit_batch(members, update, folder)
            if folder is not None:
                folder.keep(members, fits)
            yield from zip(batch, fits, strict=True)


def batches(
    tasks: Sequence[Task], *, n_threads: int | None = None, left: Collection[int] | None = None
) -> list[list[int]]:
    """Return numbers of maps that train together: those with the same options, as many as are fast and fit into memory.

    ``left`` are the numbers to divide, by default all.
    """
    n_threads = torch.get_num_threads() if n_threads is None else n_threads
    alike: dict[Settings, list[int]] = {}
    for number, task in enumerate(tasks):
        alike.setdefault(task.settings, []).append(number)
    found = []
    for settings, numbers in alike.items():
        # What 'auto' is on the workers of a cluster is not known here.
        on_cpu = settings.device.partition(":")[0] in ("cpu", "auto")
        n_members = MEMBERS_ON_CPU * n_threads if on_cpu else MEMBERS_ELSEWHERE
        n_cells = max(len(tasks[number].x) + len(tasks[number].y) for number in numbers)
        n_fitting = MAX_VALUES // (n_cells * tasks[numbers[0]].x.shape[1])
        n_maps = max(min(n_members // settings.n_ensemble, n_fitting), 1)
        wanted = numbers if left is None else [number for number in numbers if number in left]
        if wanted:
            # Batches of equal size: a last batch of few maps would leave threads idle.
            found += [part.tolist() for part in np.array_split(wanted, -(-len(wanted) // n_maps))]
    return found


def _cost(settings: Settings) -> float:
    """Return the steps of a map, those without each group included, in which half of the networks train."""
    return settings.max_steps * (1 + MAX_FOLDS / 2 * (settings.leave_out == "groups"))


def _fit_batch(tasks: Sequence[Task], update: Update, folder: CheckpointFolder | None) -> list[TransportMap]:
    """Fit maps with the same options together."""
    started, settings = time.perf_counter(), tasks[0].settings
    network = settings.potential
    if not isinstance(network, Potential):
        # Near the Gaussian map in balanced coordinates, and otherwise as it was published. The Gaussian map needs no
        # network; its potential is one that can be stored.
        family, options = FAMILIES["hycnn" if network == GAUSSIAN else network]
        if settings.balanced or network == GAUSSIAN:
            options = NEAR_GAUSSIAN | options
        else:
            options = (HYCNN_OF_THE_PAPER if network == "hycnn" else options) | AS_PUBLISHED
        network = family(tasks[0].x.shape[1], settings.hidden, **options)

    # Read, split and balance the cells of one map after the other, so that the originals of one at a time are in
    # memory. Far cells, and cells of groups that are too small, take no part in the fit.
    clouds, grouped, ladders, judged, left_out = [], {}, {}, {}, dict[int, GroupScores]()
    for number, task in enumerate(tasks):
        x, y, groups = cells_of(task)
        # k-means of few cells took 14 times as long with 16 threads.
        with limited_threads(1):
            cells = TrainingData.prepare(x, y, settings, groups)
            if groups is not None and settings.leave_out == "groups":
                grouped[number] = x, y, groups
                ladders[number], judged[number], cells = _on_groups(x, y, groups, settings, cells)
            clouds.append(cells)

    # Train all ensembles together. The Gaussian map needs no training, only a network that can be stored.
    if settings.potential == GAUSSIAN:
        theta = network.init(1, torch.Generator().manual_seed(settings.rng))
        trained = [Trained(theta, cells, keep_gaussian=True) for cells in clouds]
        update(_cost(settings) * len(tasks))
    else:
        in_training = clouds if settings.balanced else [cells.centred() for cells in clouds]
        kept = {} if folder is None else folder.of_training(folder.state_of(tasks), settings.device)
        trained = train(network, settings, in_training, progress=update, **kept)

    # Choose: blend each ensemble with its Gaussian map, on held-out cells; or take a rung of the ladder, of which the
    # networks, by cross-validation over groups, are one.
    for number, (x, y, groups) in grouped.items():
        if trained[number].keep_gaussian:
            update(_cost(settings) - settings.max_steps)
            continue
        kept = {}
        if folder is not None:
            path = folder.state_of(tasks).with_suffix(f".folds{number}.checkpoint")
            kept = folder.of_training(path, settings.device)
        train_folds = partial(train, network, **kept)
        left_out[number], ladders[number] = _with_networks(
            ladders[number], (x, y, groups), settings, network, train=train_folds, update=update
        )
    seconds = (time.perf_counter() - started) / len(tasks)
    fits = []
    for k, (task, one) in enumerate(zip(tasks, trained, strict=True)):
        of_groups: dict[str, Any] = {"ladder": ladders.get(k), "judged": judged.get(k), "left_out": left_out.get(k)}
        fitted = final_map(network, one, clouds[k], task, seconds, **of_groups)
        fits.append(fitted if task.weights is None else _with_weights(fitted, task, task.weights))
    return fits


def _on_groups(
    x: Any, y: Any, groups: Groups, settings: Settings, cells: TrainingData
) -> tuple[Ladder, tuple[TrainingData, TrainingData], TrainingData]:
    """Compare simple maps on groups left out.

    Return the ladder; the cells as they are, less baselines, and so that the best simple map is the same for all
    groups; and the cells that networks train on.
    """
    ladder = Ladder.compare(x, y, groups, rng=settings.rng, response_seen=cells.no_change.rejected)
    best, origins, centres = ladder.best, ladder.origins, ladder.centres
    around = cells
    if ladder.baselines is not None:
        around = TrainingData.prepare(x, y, settings, groups, centres=(origins, origins))
    simple, trained = cells if best.is_shift else around, around
    if best.is_centred:
        moved = origins + centres @ best.between.T
        simple = TrainingData.prepare(x, y, settings, groups, centres=(origins + centres, moved))
    if ladder.is_centred:
        trained = TrainingData.prepare(x, y, settings, groups, centres=(centres, centres))
    return ladder, (around, simple), trained


def _with_networks(
    ladder: Ladder,
    cells: tuple[Any, Any, Groups],
    settings: Settings,
    network: Potential,
    *,
    train: Callable[..., Any],
    update: Update,
) -> tuple[GroupScores, Ladder]:
    """Score networks on groups that they were trained without; return the scores, and the ladder with networks."""
    share = (_cost(settings) / settings.max_steps - 1) / min(MAX_FOLDS, len(np.unique(cells[2].units)))

    def progress(n_steps: float, _: float | None = None) -> None:
        update(share * n_steps)

    centres = ladder.centres if ladder.is_centred else ladder.origins
    scores = leave_groups_out(*cells, settings, network, centres=centres, train=partial(train, progress=progress))
    energy = np.array([[score.energy_distance for score in row] for row in scores])
    return scores, ladder.with_networks((energy - energy[:, :1]).T, choose_blend_by_groups(scores), BLENDS)


def _with_weights(fitted: TransportMap, task: Task, weights: CellWeights) -> TransportMap:
    """Return the map with the weights of all cells in its validation report; NaN for cells that took no part."""
    validation = fitted.validation | weights.report
    if weights.x is not None:
        # Row numbers go through the same choice as the cells.
        numbers = replace(task, x=np.arange(len(task.x)), y=np.arange(len(task.y)), weights=None)
        rows_x, rows_y, _ = cells_of(numbers, dtype=np.intp)
        for name, values, rows, n in (
            ("source_weight", weights.x, rows_x, len(task.x)),
            ("target_weight", weights.y, rows_y, len(task.y)),
            ("source_growth", weights.growth, rows_x, len(task.x)),
        ):
            validation[name] = np.full(n, np.nan, dtype=np.float32)
            validation[name][rows] = values
    return replace(fitted, validation=validation)


def place_of(
    device: str, client: Any, checkpoint_dir: str | Path | None, *, resume: bool = True
) -> tuple[str, CheckpointFolder | None]:
    """Check where maps are fitted and kept; return the device, with a client that of the workers, and the folder."""
    if client is None:
        device = str(resolve_device(device))
    else:
        check_client(client, device)
    return device, None if checkpoint_dir is None else CheckpointFolder(checkpoint_dir, resume=resume)


def check_client(client: object, device: str) -> None:
    """Raise an error without Dask, if this is no ``dask.distributed.Client``, or if there is no device of that name."""
    try:
        from distributed import Client  # noqa: PLC0415 - optional
    except ImportError as error:
        raise ImportError("client= needs the extra 'dask': pip install 'scot-hycnn[dask]'.") from error
    if not isinstance(client, Client):
        raise TypeError(f"client={client!r} must be a dask.distributed.Client, such as Client(LocalCluster(...)).")
    try:
        torch.device("cpu" if device == "auto" else device)
    except (RuntimeError, TypeError):
        raise ValueError(
            f"device={device!r} is unknown; name 'auto', or a device of the workers such as 'cuda'."
        ) from None


def fit_on_cluster(
    client: Any, tasks: Sequence[Task], progress: bool | None, folder: CheckpointFolder | None
) -> Iterator[tuple[int, TransportMap]]:
    """Fit maps from the same source on the workers of a cluster; yields them in the order in which they finish."""
    import distributed  # noqa: PLC0415 - optional

    as_completed: Any = distributed.as_completed
    # Maps come back on the device of the call; workers may have one, such as 'cuda', that this machine lacks.
    device = tasks[0].settings.device
    try:
        resolve_device(device)
    except ValueError:
        device = "auto"
    # Source cells and their groups are sent once to each worker, not with every batch.
    source = client.scatter((tasks[0].x, tasks[0].labels_x, tasks[0].far_x), broadcast=True, hash=False)
    where = None if folder is None else (folder.folder, folder.resume)
    numbers = {}
    for batch in batches(tasks, n_threads=1):
        jobs = [replace(tasks[number], x=None, labels_x=None) for number in batch]
        numbers[client.submit(_fit_on_worker, source, jobs, where, pure=False)] = batch
    with progress_bar([_cost(task.settings) for task in tasks], show=progress) as update:
        for future, states in as_completed(list(numbers), with_results=True):
            for number, state in zip(numbers[future], states, strict=True):
                update(_cost(tasks[number].settings))
                yield number, TransportMap.from_dict(state, device=device)
            future.release()


def _fit_on_worker(source: Any, jobs: Sequence[Task], where: tuple[Path, bool] | None) -> list[dict[str, Any]]:
    x, labels_x, far_x = source
    tasks = []
    for job in jobs:
        settings = replace(job.settings, device=str(resolve_device(job.settings.device)))
        tasks.append(replace(job, x=x, labels_x=labels_x, far_x=far_x, settings=settings))
    folder = None if where is None else CheckpointFolder(where[0], resume=where[1])
    fitted = dict(fit_tasks(tasks, progress=False, folder=folder))
    return [fitted[number].to_dict() for number in range(len(tasks))]


@contextmanager
def progress_bar(steps: Sequence[float], *, show: bool | None) -> Iterator[Update]:
    """Show a bar over the steps of a single map, or over many maps with these steps, and give what moves it.

    None shows it after a second in a terminal or a notebook, but not where tests run.
    """
    # Checks take longer than steps: the time that is left is that of the mean rate rather than of the last steps.
    options: dict[str, Any] = {"bar_format": _ONE, "smoothing": 0.05}
    if len(steps) > 1:
        options |= {"bar_format": _MANY, "unit_scale": len(steps) / sum(steps)}
    # The output of a Jupyter kernel is no terminal, and shows bars: as a widget, or as text without ipywidgets.
    in_kernel = type(sys.stderr).__module__.startswith("ipykernel.")
    is_seen = "CI" not in os.environ and (in_kernel or (sys.stderr is not None and sys.stderr.isatty()))
    options |= {"disable": not is_seen, "delay": 1} if show is None else {"disable": not show}
    with tqdm(desc="HyCNN-OT", total=sum(steps), **options) as bar:

        def update(n_steps: float, difference: float | None = None) -> None:
            # J is smaller where a map is better.
            if difference is not None:
                bar.set_postfix_str(f"gain over the Gaussian map {-difference:.3g}", refresh=False)
            bar.update(n_steps)

        yield update
        # Sums of fractions of steps are rounded, and a notebook shows a bar that ends before its total in red.
        bar.update(bar.total - bar.n)
