"""From checked cells to fitted maps, many at a time: prepare, train, choose."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scot_hycnn.solver._options import Settings
from scot_hycnn.solver.data._task import Task
from scot_hycnn.solver.data._training_data import Trained, TrainingData
from scot_hycnn.solver.model._blended import Blended
from scot_hycnn.solver.model._families import GAUSSIAN
from scot_hycnn.solver.model._map import TransportMap
from scot_hycnn.solver.selection._final_map import final_map
from scot_hycnn.solver.selection._groups_left_out import GroupScores, leave_groups_out
from scot_hycnn.solver.training._loop import train
from scot_hycnn.solver.training._methods import make_network

from ._checkpoint import CheckpointFolder
from ._progress import Update, progress_bar
from ._threads import limited_threads, threads_here

# Networks that train as one batch, for each thread. On a CPU more are not faster, since their layers no longer fit into
# the cache; a GPU is idle with fewer.
MEMBERS_ON_CPU, MEMBERS_ELSEWHERE = 16, 256
# Coordinates of the training cells of a batch, all maps together: 160 MB, because each map has its balanced ones.
MAX_VALUES = 4 * 10**7


def fit_tasks(
    tasks: Sequence[Task], progress: bool | None, folder: CheckpointFolder | None
) -> Iterator[tuple[int, TransportMap]]:
    """Fit maps in batches; yields the number of each task with its map, not in their order."""
    with progress_bar([task.settings.max_steps for task in tasks], show=progress) as update:
        # Batches that were interrupted stay together: in another batch the same map has other rounding.
        begun = [] if folder is None else [b for b in batches(tasks) if folder.has_begun([tasks[k] for k in b])]
        left = []
        for number in sorted(set(range(len(tasks))) - set(chain.from_iterable(begun))):
            finished = None if folder is None else folder.find(tasks[number])
            if finished is None:
                left.append(number)
            else:
                update(tasks[number].settings.max_steps)
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

    ``n_threads`` are those of a CPU, by default PyTorch's; ``left`` are the numbers to divide, by default all.
    """
    n_threads = threads_here() if n_threads is None else n_threads
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


def _fit_batch(tasks: Sequence[Task], update: Update, folder: CheckpointFolder | None) -> list[TransportMap]:
    """Fit maps with the same options together."""
    started, settings = time.perf_counter(), tasks[0].settings
    network = make_network(settings, tasks[0].x.shape[1])
    state_path = None if folder is None else folder.state_of(tasks)

    # Prepare: split and balance the cells of each map.
    cells_of = [task.cells() for task in tasks]
    # k-means of few cells took 14 times as long with 16 threads.
    with limited_threads(1):
        clouds = [
            replace(
                TrainingData.prepare(
                    x, y, settings.validation_fraction, rng=settings.rng, device=settings.device, groups=groups
                ),
                far_x=task.far_x,
                far_y=far_y,
            )
            for task, (x, y, groups, far_y) in zip(tasks, cells_of, strict=True)
        ]

    # Train all ensembles together. The Gaussian map needs no training, only a network that can be stored.
    if settings.potential == GAUSSIAN:
        theta = network.init(1, torch.Generator().manual_seed(settings.rng))
        trained = [Trained(theta, cells, keep_gaussian=True) for cells in clouds]
        update(settings.max_steps * len(tasks))
    else:
        in_training = clouds if settings.balanced else [cells.centred() for cells in clouds]
        trained = train(network, settings, in_training, progress=update, **_checkpointing(folder, state_path, settings))

    # Choose: blend each ensemble with its Gaussian map, on held-out cells or by cross-validation over groups.
    left_out: dict[int, GroupScores] = {}
    if settings.leave_out == "groups":
        for number, (x, y, groups, _) in enumerate(cells_of):
            if groups is None or trained[number].keep_gaussian:
                continue
            folds_path = state_path and state_path.with_suffix(f".folds{number}.checkpoint")

            def ensembles(
                fewer: Settings, folds: Sequence[TrainingData], path: Path | None = folds_path
            ) -> list[Blended]:
                results = train(
                    network, fewer, folds, progress=lambda *_: None, **_checkpointing(folder, path, settings)
                )
                return [Blended(network, network.weights(result.theta), blend=1.0) for result in results]

            left_out[number] = leave_groups_out(x, y, groups, settings, ensembles)
    seconds = (time.perf_counter() - started) / len(tasks)
    fits = [
        final_map(network, one, cells, settings, seconds, left_out=left_out.get(number))
        for number, (one, cells) in enumerate(zip(trained, clouds, strict=True))
    ]
    return [
        replace(fitted, validation=fitted.validation | {"groups_left_out": np.array(task.groups_left_out)})
        if task.groups_left_out
        else fitted
        for fitted, task in zip(fits, tasks, strict=True)
    ]


def _checkpointing(folder: CheckpointFolder | None, path: Path | None, settings: Settings) -> dict[str, Any]:
    """Return where training continues, and what writes its state at each check."""
    if folder is None or path is None:
        return {}
    return {
        "saved": folder.read_state(path, settings.device),
        "save": lambda state: folder.write_state(path, state),
    }
