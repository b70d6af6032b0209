"""Fit many transport maps from one source at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ._options import check_options
from .data._checks import SOURCE, UnusableError, as_table, check_same_dimensions, check_table, raise_together
from .data._groups import labels_of
from .data._task import Task, far_rows
from .model._map import TransportMap
from .runtime._batching import fit_tasks
from .runtime._dask import check_client, fit_on_cluster
from .runtime._device import resolve_device
from .runtime._results import Results


def fit_many(
    x: ArrayLike,
    ys: Sequence[ArrayLike],
    *,
    groups: tuple[ArrayLike, Sequence[ArrayLike]] | None = None,
    device: str = "auto",
    rng: int = 0,
    progress: bool | None = None,
    client: Any = None,
    checkpoint_dir: str | Path | None = None,
    resume: bool = True,
    **options: Any,
) -> list[TransportMap]:
    """Learn the optimal transport maps from x to each of many targets, in one training loop.

    Each map is the one that :func:`fit` finds alone, up to rounding: its cells, its random numbers, its checks, its end
    and its blend are its own. Only the arithmetic is shared, which costs less.

    Parameters
    ----------
    x
        Source cells, shape (n, d).
    ys
        Target cells of each map, shape (m_k, d). Those that are no NumPy arrays but become one, such as Dask arrays of
        a file, are read when their turn comes, and with ``client`` by the worker.
    groups
        Group of each source cell, shape (n,), and for each target the groups of its cells, shape (m_k,): arrays, or
        pandas' categories, whose codes are taken as they are.
    device
        'auto' (cuda, mps or cpu, the first there is) or a device's name.
    rng
        Seed of every map.
    progress
        Show a bar over maps; None shows it in a terminal if it takes more than a second.
    client
        A ``dask.distributed.Client`` (extra 'dask'): its workers fit the maps, in batches, and send them back. A batch
        whose worker dies is fitted by another one. ``device`` is then each worker's; name ``'cuda'`` if they have GPUs,
        since batches are then as large as suits one.
    checkpoint_dir
        Folder for the finished maps, one .safetensors file each, and, ten times in a fit, the state of those in
        training. Files are named by a hash of cells and options. With ``client`` all workers must reach it.
    resume
        If the same call is made again, after an interruption, go on from what is in ``checkpoint_dir``: finished maps
        are not fitted again, and the others, on the CPU with as many threads, get the same bits as without the
        interruption. False begins anew.
    options
        Other options of :func:`fit`, for all maps. Those left out suit the cells of each.

    Returns
    -------
    The fitted maps, in the order of ``ys``, each with its ``outcome`` and ``status``. A map that could not be trained
    is the Gaussian one; it does not stop the others.

    Raises
    ------
    ImportError
        If ``client`` is given and Dask is not installed.
    TypeError
        If ``client`` is something else, or an option is unknown; the message has the nearest one.
    ValueError
        Before any work, if there is no target, or for any of them what :func:`fit` says. The message names all targets
        with too few cells, up to 20 of them.

    References
    ----------
    As for :func:`fit`.

    Examples
    --------
    >>> import numpy as np
    >>> from scot_hycnn import solver
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(300, 2))
    >>> ys = [rng.normal(size=(200, 2)) + shift for shift in ([3, 0], [0, 3])]
    >>> maps = solver.fit_many(x, ys, potential="gaussian")
    >>> [fitted.transport(x).mean(0).argmax().item() for fitted in maps]
    [0, 1]
    """
    check_options(options, ("groups", "device", "rng", "progress", "client", "checkpoint_dir", "resume"))
    if not len(ys):
        raise ValueError("ys is empty: give the cells of at least one target.")
    if client is None:
        device = str(resolve_device(device))
    else:
        check_client(client)
    tasks = _tasks(x, ys, groups, options | {"device": device, "rng": rng})
    kept = Results.opened(checkpoint_dir, tasks, resume=resume)
    if client is None:
        fitted = dict(fit_tasks(tasks, progress, kept))
    else:
        fitted = dict(fit_on_cluster(client, tasks, progress, kept))
    return [fitted[number] for number in range(len(tasks))]


def _tasks(x: Any, ys: Sequence[Any], groups: Any, options: dict[str, Any]) -> list[Task]:
    """The maps to fit, all checked; they share the source cells and their groups, which are checked and coded once."""
    source = as_table(x, SOURCE)
    check_table(source, SOURCE)
    of_targets: Sequence[Any] = [None] * len(ys)
    if groups is not None:
        if not isinstance(groups, (tuple, list)) or len(groups) != 2 or len(groups[1]) != len(ys):
            raise ValueError(
                f"groups must be a pair: labels of the source cells, and a sequence of labels for each of {len(ys)} "
                "targets."
            )
        of_source, of_targets = labels_of(groups[0], len(source), "source"), groups[1]
    far_x, tasks, problems = far_rows(source), [], []
    for number, (y, own) in enumerate(zip(ys, of_targets, strict=True)):
        name = f"ys[{number}] (target)"
        try:
            target = as_table(y, name)
            check_same_dimensions(source, target, name)
            check_table(target, name)
            # What is in a file stays there until its turn comes.
            cells = y if _is_stored(y) else target
            tasks.append(Task.of(source, cells, None if groups is None else (of_source, own), far_x=far_x, **options))
        except UnusableError as problem:
            problems.append((name, problem))
    raise_together(problems, len(ys))
    return tasks


def _is_stored(cells: Any) -> bool:
    """Whether the cells are read from a file, or computed, when they become an array; what is in memory is checked."""
    in_memory = isinstance(cells, (np.ndarray, list, tuple)) or hasattr(cells, "detach") or hasattr(cells, "iloc")
    return hasattr(cells, "__array__") and hasattr(cells, "shape") and not in_memory
