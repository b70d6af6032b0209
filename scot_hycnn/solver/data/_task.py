"""Maps to fit: their cells, checked, with groups, weights and settings."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from scot_hycnn.solver._options import Settings
from scot_hycnn.solver.runtime._device import limited_threads

from ._checks import SOURCE, Rows, UnusableError, as_table, check_table, far_cells, raise_together
from ._groups import Groups, Labels, group_cells, groups_left_out, labels_of, pair_of, usable_groups
from ._unbalanced import CellWeights, weigh_cells


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
        x, y, groups = group_cells(x, y, labels, task.settings.group_weights)
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
    check_table(source, SOURCE, source.shape[1])
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
            target = as_table(y, name)
            check_table(target, name, source.shape[1])
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
                task = _weighed(task, name)
            tasks.append(task)
        except UnusableError as problem:
            problems.append((name, problem))
    raise_together(problems, len(ys))
    return tasks


def _weighed(task: Task, name: str) -> Task:
    """Return the same map to fit with the weights of its cells; ``name`` is that of the target in messages."""
    settings = task.settings
    with limited_threads(1):
        weights = weigh_cells(
            *cells_of(task),
            name,
            penalty=settings.unbalanced,
            side=settings.unbalanced_side,
            growth=settings.growth,
            rng=settings.rng,
        )
    return replace(task, weights=weights)
