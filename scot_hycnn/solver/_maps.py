"""From cells to fitted maps, many at a time: prepare, train, choose."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch

from scot_hycnn.potentials import Potential

from ._cells import Array, Cells
from ._choices import GAUSSIAN, RECIPES, make_network
from ._groups import LEAST_CELLS, Groups, Labels, group_cells, groups_to_leave_out
from ._leave_out import leave_groups_out
from ._loop import train
from ._map import TransportMap
from ._outcome import Trained, finish
from ._progress import Progress
from ._selection import Blended
from ._settings import Settings

# Networks that train as one batch. On a CPU more are not faster, since their layers leave the cache; a GPU is idle with
# fewer.
MEMBERS_AT_ONCE = {"cpu": 16}
MEMBERS_AT_ONCE_ELSEWHERE = 256


@dataclass(frozen=True)
class Task:
    """One map to fit.

    Parameters
    ----------
    x, y
        Source and target cells, shape (n, d) and (m, d), checked.
    labels
        Group of each cell, or None.
    settings
        Options, every one with its value.
    rest
        Groups whose cells are left out, since they are too few.
    """

    x: Array
    y: Array
    labels: Labels | None
    settings: Settings
    rest: tuple[str, ...] = ()

    @classmethod
    def of(cls, x: Array, y: Array, labels: Any, **options: Any) -> Self:
        """Check options and groups, and give every option its value.

        Raises
        ------
        ValueError
            If an option is unknown or out of range, or groups are too few or not one for each cell.
        """
        settings = Settings.for_cells(min(len(x), len(y)), x.shape[1], **options)
        make_network(settings.potential, settings.solver, x.shape[1], settings.hidden)
        if labels is None:
            if settings.leave_out == "groups":
                raise ValueError("leave_out='groups' needs groups: the group of each source and each target cell.")
            return cls(x, y, None, settings)
        pair, rest = groups_to_leave_out(labels, x.shape, y.shape, settings.leave_out)
        return cls(x, y, pair, settings, tuple(rest))

    @property
    def left_out(self) -> str:
        """What to say of groups that are left out."""
        if not self.rest:
            return ""
        return f"left out the groups {list(self.rest)}, which have fewer than {LEAST_CELLS} cells in source or target."

    def cells(self) -> tuple[Array, Array, Groups | None]:
        """Source cells, target cells and their groups, without those that are left out."""
        if self.labels is None:
            return self.x, self.y, None
        return group_cells(self.x, self.y, self.labels, self.settings.group_weights)


def fit_tasks(tasks: Sequence[Task], progress: bool | None) -> Iterator[tuple[int, TransportMap]]:
    """Fit maps in batches of those with the same options.

    Parameters
    ----------
    tasks
        The maps to fit.
    progress
        Show a bar; None shows it in a terminal if it takes more than a second.

    Yields
    ------
    Number of the task, and its map; not in their order.
    """
    alike: dict[Settings, list[int]] = {}
    for number, task in enumerate(tasks):
        alike.setdefault(task.settings, []).append(number)
    with Progress([task.settings.max_steps for task in tasks], show=progress) as bar:
        for settings, numbers in alike.items():
            size = maps_at_once(settings)
            for start in range(0, len(numbers), size):
                batch = numbers[start : start + size]
                yield from zip(batch, _fit_batch([tasks[number] for number in batch], settings, bar), strict=True)


def maps_at_once(settings: Settings) -> int:
    """How many maps train as one batch."""
    members = MEMBERS_AT_ONCE.get(torch.device(settings.device).type, MEMBERS_AT_ONCE_ELSEWHERE)
    return max(members // settings.n_ensemble, 1)


def _fit_batch(tasks: Sequence[Task], settings: Settings, bar: Progress) -> list[TransportMap]:
    started = time.perf_counter()
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
