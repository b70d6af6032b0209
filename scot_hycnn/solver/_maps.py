"""From cells to fitted maps, many at a time: prepare, train, choose."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch

from scot_hycnn.potentials import Potential

from ._cells import Array, Cells
from ._choices import GAUSSIAN, RECIPES, make_network
from ._groups import Groups
from ._leave_out import leave_groups_out
from ._loop import train
from ._map import TransportMap
from ._outcome import Trained, finish
from ._progress import Progress
from ._results import Results
from ._selection import Blended
from ._settings import Settings
from ._task import Task

# Networks that train as one batch. On a CPU more are not faster, since their layers leave the cache; a GPU is idle with
# fewer. What 'auto' is on the workers of a cluster is not known before.
MEMBERS_AT_ONCE = {"cpu": 16, "auto": 16}
MEMBERS_AT_ONCE_ELSEWHERE = 256


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
        Maps that are found there are not fitted again, and the others are kept there.

    Yields
    ------
    Number of the task, and its map; not in their order.
    """
    with Progress([task.settings.max_steps for task in tasks], show=progress) as bar:
        left = []
        for number, task in enumerate(tasks):
            finished = None if results is None else results.find(task)
            if finished is None:
                left.append(number)
                continue
            bar.told(task.settings.max_steps)
            yield number, finished
        for batch in batches([tasks[number].settings for number in left]):
            numbers = [left[place] for place in batch]
            fits = _fit_batch([tasks[number] for number in numbers], bar)
            for number, fitted in zip(numbers, fits, strict=True):
                if results is not None:
                    results.keep(tasks[number], fitted)
                yield number, fitted


def batches(settings: Sequence[Settings]) -> list[list[int]]:
    """Numbers of maps that train together: those with the same options, as many as are fast."""
    alike: dict[Settings, list[int]] = {}
    for number, own in enumerate(settings):
        alike.setdefault(own, []).append(number)
    return [
        numbers[start : start + maps_at_once(own)]
        for own, numbers in alike.items()
        for start in range(0, len(numbers), maps_at_once(own))
    ]


def maps_at_once(settings: Settings) -> int:
    """How many maps train as one batch."""
    members = MEMBERS_AT_ONCE.get(settings.device.partition(":")[0], MEMBERS_AT_ONCE_ELSEWHERE)
    return max(members // settings.n_ensemble, 1)


def _fit_batch(tasks: Sequence[Task], bar: Progress) -> list[TransportMap]:
    started, settings = time.perf_counter(), tasks[0].settings
    network = make_network(settings.potential, settings.solver, tasks[0].x.shape[1], settings.hidden)
    given = [task.cells() for task in tasks]
    clouds = [
        Cells.prepare(x, y, settings.validation_fraction, rng=settings.rng, device=settings.device, groups=groups)
        for x, y, groups in given
    ]
    if settings.potential == GAUSSIAN:
        theta = network.init(1, torch.Generator().manual_seed(settings.rng))
        trained = [Trained(theta, cells, keep_gaussian=True) for cells in clouds]
        bar.told(settings.max_steps * len(tasks))
    else:
        balanced = RECIPES[settings.solver].balanced
        trained = train(network, settings, clouds if balanced else [cells.centred() for cells in clouds], bar.told)
    if settings.leave_out == "groups":
        trained = [
            one if one.keep_gaussian else _judged_by_groups(one, network, settings, own)
            for one, own in zip(trained, given, strict=True)
        ]
    seconds = (time.perf_counter() - started) / len(tasks)
    return [finish(network, *own, settings, seconds) for own in zip(trained, clouds, strict=True)]


def _judged_by_groups(
    trained: Trained, network: Potential, settings: Settings, given: tuple[Array, Array, Groups | None]
) -> Trained:
    x, y, groups = given
    if groups is None:
        return trained

    def ensembles(fewer: Settings, clouds: Sequence[Cells]) -> list[Blended]:
        return [
            Blended(network, network.weights(one.theta), blend=1.0)
            for one in train(network, fewer, clouds, lambda *_: None)
        ]

    return replace(trained, left_out=leave_groups_out(x, y, groups, settings, ensembles))
