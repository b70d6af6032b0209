"""Maps as independent jobs of a Dask cluster: each worker fits batches, and sends small weights back."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from scot_hycnn.solver._options import Settings
from scot_hycnn.solver.data._checks import Rows
from scot_hycnn.solver.data._groups import Labels
from scot_hycnn.solver.data._task import Task
from scot_hycnn.solver.model._map import TransportMap

from ._batching import batches, fit_tasks
from ._device import resolve_device
from ._progress import Progress
from ._results import Results

# What a worker needs for one map alone: target cells, their groups, options, and groups that are left out.
Job = tuple[Any, Labels | None, Settings, tuple[str, ...]]
# What all maps share: source cells, their groups, and the rows of those that lie far from all others.
Source = tuple[Any, Labels | None, Rows | None]

# Of glibc's mallopt.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def check_client(client: object) -> None:
    """Refuse what is no client.

    Raises
    ------
    ImportError
        If Dask is not installed.
    TypeError
        If it is not a ``dask.distributed.Client``.
    """
    try:
        from distributed import Client  # noqa: PLC0415 - optional
    except ImportError as error:
        raise ImportError("client= needs the extra 'dask': pip install 'scot-hycnn[dask]'.") from error
    if not isinstance(client, Client):
        raise TypeError(f"client={client!r} must be a dask.distributed.Client, such as Client(LocalCluster(...)).")


def fit_on_cluster(
    client: Any, tasks: Sequence[Task], progress: bool | None, results: Results | None
) -> Iterator[tuple[int, TransportMap]]:
    """Fit maps on the workers of a cluster.

    Dask starts a batch again whose worker has died. With ``results``, a folder that all workers reach, finished maps of
    an earlier run, and of a worker that died in the middle of a batch, are not fitted again.

    Parameters
    ----------
    client
        Of the cluster.
    tasks
        The maps to fit, all from the same source cells.
    progress
        Show a bar over maps.
    results
        Where finished maps are kept.

    Yields
    ------
    Number of the task, and its map; in the order in which they are done.
    """
    import distributed  # noqa: PLC0415 - optional

    as_completed: Any = distributed.as_completed
    folder = None if results is None else results.folder.absolute()
    # What maps share travels once to each worker, not with every batch.
    labels = tasks[0].labels
    source = client.scatter((tasks[0].x, labels and labels[0], tasks[0].far_x), broadcast=True, hash=False)
    numbers = {}
    for batch in batches(tasks, n_threads=1):
        jobs = [_job(tasks[number]) for number in batch]
        numbers[client.submit(_work, source, jobs, folder, pure=False)] = batch
    with Progress([task.settings.max_steps for task in tasks], show=progress) as bar:
        for future, states in as_completed(list(numbers), with_results=True):
            for number, state in zip(numbers[future], states, strict=True):
                bar.told(tasks[number].settings.max_steps)
                yield number, TransportMap.from_dict(state)
            future.release()


def _job(task: Task) -> Job:
    return task.y, None if task.labels is None else task.labels[1], task.settings, task.rest


def _work(source: Source, jobs: Sequence[Job], folder: Path | None) -> list[dict[str, Any]]:
    """Fit a batch, on a worker."""
    _keep_freed_memory()
    x, of_x, far_x = source
    tasks = [
        Task(
            x,
            y,
            None if of_x is None or of_y is None else (of_x, of_y),
            replace(settings, device=str(resolve_device(settings.device))),
            rest,
            far_x,
        )
        for y, of_y, settings, rest in jobs
    ]
    fitted = dict(fit_tasks(tasks, progress=False, results=None if folder is None else Results(folder)))
    return [fitted[number].to_dict() for number in range(len(tasks))]


def _keep_freed_memory() -> None:
    """Undo what Dask's nanny asks of glibc: to give memory back at once, and take it anew for every tensor of a step.

    Steps would take twice the time. The values are those that glibc itself reaches where nothing is asked of it.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None and "MALLOC_TRIM_THRESHOLD_" in os.environ:
        mallopt(_M_MMAP_THRESHOLD, 32 << 20)
        mallopt(_M_TRIM_THRESHOLD, 64 << 20)
