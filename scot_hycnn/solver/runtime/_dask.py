"""Maps as independent jobs of a Dask cluster: each worker fits batches and returns the weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from scot_hycnn.solver.data._task import Task
from scot_hycnn.solver.model._map import TransportMap

from ._batching import batches, fit_tasks
from ._checkpoint import CheckpointFolder
from ._device import resolve_device
from ._progress import progress_bar


def check_client(client: object) -> None:
    """Raise an ImportError without Dask, and a TypeError if this is not a ``dask.distributed.Client``."""
    try:
        from distributed import Client  # noqa: PLC0415 - optional
    except ImportError as error:
        raise ImportError("client= needs the extra 'dask': pip install 'scot-hycnn[dask]'.") from error
    if not isinstance(client, Client):
        raise TypeError(f"client={client!r} must be a dask.distributed.Client, such as Client(LocalCluster(...)).")


def fit_on_cluster(
    client: Any, tasks: Sequence[Task], progress: bool | None, folder: CheckpointFolder | None
) -> Iterator[tuple[int, TransportMap]]:
    """Fit maps from the same source on the workers of a cluster; yields them in the order in which they finish.

    Dask starts a batch again whose worker has died. With a folder that all workers have access to, finished maps of an
    earlier run are not fitted again.
    """
    import distributed  # noqa: PLC0415 - optional

    as_completed: Any = distributed.as_completed
    # Source cells and their groups are sent once to each worker, not with every batch.
    source = client.scatter((tasks[0].x, tasks[0].labels_x, tasks[0].far_x), broadcast=True, hash=False)
    where = None if folder is None else (folder.folder, folder.resume)
    numbers = {}
    for batch in batches(tasks, n_threads=1):
        jobs = [replace(tasks[number], x=None, labels_x=None) for number in batch]
        numbers[client.submit(_fit_on_worker, source, jobs, where, pure=False)] = batch
    with progress_bar([task.settings.max_steps for task in tasks], show=progress) as update:
        for future, states in as_completed(list(numbers), with_results=True):
            for number, state in zip(numbers[future], states, strict=True):
                update(tasks[number].settings.max_steps)
                yield number, TransportMap.from_dict(state)
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
