"""From cells to fitted maps, many at a time: prepare, train, choose."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from itertools import chain

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from scot_hycnn.potentials import Potential
from scot_hycnn.solver._options import Settings
from scot_hycnn.solver.data._task import Task
from scot_hycnn.solver.data._training_data import Trained
from scot_hycnn.solver.data._training_data import TrainingData as Cells
from scot_hycnn.solver.model._blended import Blended
from scot_hycnn.solver.model._families import GAUSSIAN
from scot_hycnn.solver.model._map import TransportMap
from scot_hycnn.solver.selection._final_map import final_map
from scot_hycnn.solver.selection._groups_left_out import GroupScores, leave_groups_out
from scot_hycnn.solver.training._loop import train
from scot_hycnn.solver.training._methods import RECIPES, make_network

from ._checkpoint import Checkpoint
from ._progress import Progress
from ._results import Results
from ._threads import threads_here

# Networks that train as one batch, for each thread. On a CPU more are not faster, since their layers leave the cache; a
# GPU is idle with fewer. What 'auto' is on the workers of a cluster is not known before.
MEMBERS_AT_ONCE = 16
MEMBERS_AT_ONCE_ELSEWHERE = 256
# Coordinates of the training cells of a batch, all maps together: 160 MB. Each map has its own, balanced.
MOST_VALUES = 4 * 10**7


def fit_tasks(
    tasks: Sequence[Task], progress: bool | None, results: Results | None = None
) -> Iterator[tuple[int, TransportMap]]:
    """Fit maps in batches of those with the same options.

    Parameters
    ----------
    tasks
        The maps to fit.
    progress
        Show a bar; None shows it in a terminal if it takes more than a second.
    results
        Maps that are found there are not fitted again, those that were in training go on, and all are kept there.

    Yields
    ------
    Number of the task, and its map; not in their order.
    """
    with Progress([task.settings.max_steps for task in tasks], show=progress) as bar:
        # As they were divided when they began: in other company the same map has other rounding.
        begun = [] if results is None else [batch for batch in batches(tasks) if results.has_begun(_of(tasks, batch))]
        left = []
        for number in sorted(set(range(len(tasks))) - set(chain.from_iterable(begun))):
            finished = None if results is None else results.find(tasks[number])
            if finished is None:
                left.append(number)
                continue
            bar.told(tasks[number].settings.max_steps)
            yield number, finished
        for batch in [*begun, *batches(tasks, left=left)]:
            own = _of(tasks, batch)
            fits = _fit_batch(own, bar, None if results is None else results.checkpoint(own))
            if results is not None:
                results.keep(own, fits)
            yield from zip(batch, fits, strict=True)


def _of(tasks: Sequence[Task], numbers: Sequence[int]) -> list[Task]:
    return [tasks[number] for number in numbers]


def batches(
    tasks: Sequence[Task], *, n_threads: int | None = None, left: Collection[int] | None = None
) -> list[list[int]]:
    """Numbers of maps that train together: those with the same options, as many as are fast and fit into memory.

    Parameters
    ----------
    tasks
        The maps.
    n_threads
        Of a CPU; None means PyTorch's.
    left
        Numbers of those that are to be divided; None means all. After the first batches are done the others stay as
        they were.
    """
    n_threads = threads_here() if n_threads is None else n_threads
    left = None if left is None else set(left)
    alike: dict[Settings, list[int]] = {}
    for number, task in enumerate(tasks):
        alike.setdefault(task.settings, []).append(number)
    found = []
    for settings, numbers in alike.items():
        most = min(
            maps_at_once(settings, n_threads), max(MOST_VALUES // max(tasks[number].n_values for number in numbers), 1)
        )
        rest = [number for number in numbers if left is None or number in left]
        if rest:
            # Of one size: a last batch of few maps would leave threads idle.
            found += [part.tolist() for part in np.array_split(rest, -(-len(rest) // most))]
    return found


def maps_at_once(settings: Settings, n_threads: int) -> int:
    """How many maps train as one batch, of a CPU by so many threads."""
    is_cpu = settings.device.partition(":")[0] in ("cpu", "auto")
    members = MEMBERS_AT_ONCE * n_threads if is_cpu else MEMBERS_AT_ONCE_ELSEWHERE
    return max(members // settings.n_ensemble, 1)


def _fit_batch(tasks: Sequence[Task], bar: Progress, checkpoint: Checkpoint | None = None) -> list[TransportMap]:
    started, settings = time.perf_counter(), tasks[0].settings
    network = make_network(settings.potential, settings.solver, tasks[0].x.shape[1], settings.hidden)
    # k-means of few cells: with 16 threads it took 14 times as long. (BLAS has one limit for all threads of a process,
    # OpenMP one for each: fits side by side do not change each other's.)
    with threadpool_limits(1, user_api="openmp"):
        clouds = [_prepared(task) for task in tasks]
    if settings.potential == GAUSSIAN:
        theta = network.init(1, torch.Generator().manual_seed(settings.rng))
        trained = [Trained(theta, cells, keep_gaussian=True) for cells in clouds]
        bar.told(settings.max_steps * len(tasks))
    else:
        balanced = RECIPES[settings.solver].balanced
        own = clouds if balanced else [cells.centred() for cells in clouds]
        trained = train(network, settings, own, told=bar.told, checkpoint=checkpoint)
    left_out: list[GroupScores | None] = [None] * len(tasks)
    if settings.leave_out == "groups":
        left_out = [
            None if one.keep_gaussian else _judged_by_groups(network, task, checkpoint and checkpoint.of_folds(number))
            for number, (one, task) in enumerate(zip(trained, tasks, strict=True))
        ]
    seconds = (time.perf_counter() - started) / len(tasks)
    fits = [
        final_map(network, one, cells, settings, seconds, left_out=scores)
        for one, cells, scores in zip(trained, clouds, left_out, strict=True)
    ]
    return [
        replace(fitted, validation=fitted.validation | {"groups_left_out": np.array(task.rest)})
        if task.rest
        else fitted
        for fitted, task in zip(fits, tasks, strict=True)
    ]


def _prepared(task: Task) -> Cells:
    x, y, groups, (far_x, far_y) = task.cells()
    settings = task.settings
    cells = Cells.prepare(x, y, settings.validation_fraction, rng=settings.rng, device=settings.device, groups=groups)
    return replace(cells, far_x=far_x, far_y=far_y)


def _judged_by_groups(network: Potential, task: Task, checkpoint: Checkpoint | None) -> GroupScores | None:
    x, y, groups, _ = task.cells()
    if groups is None:
        return None

    def ensembles(fewer: Settings, clouds: Sequence[Cells]) -> list[Blended]:
        return [
            Blended(network, network.weights(one.theta), blend=1.0)
            for one in train(network, fewer, clouds, told=lambda *_: None, checkpoint=checkpoint)
        ]

    return leave_groups_out(x, y, groups, task.settings, ensembles)
