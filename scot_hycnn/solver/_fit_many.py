"""Fit many transport maps from one source at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike

from ._cells import check_cells
from ._cluster import check_client, fit_on_cluster
from ._device import resolve_device
from ._map import TransportMap
from ._maps import fit_tasks
from ._results import Results
from ._task import Task


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
        Group of each source cell, shape (n,), and for each target the groups of its cells, shape (m_k,).
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
        If ``client`` is something else, or an option is unknown.
    ValueError
        Before any work, if there is no target, or for any of them what :func:`fit` says.

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
    if not len(ys):
        raise ValueError("ys is empty: give the cells of at least one target.")
    labels: list[Any] = [None] * len(ys)
    if groups is not None:
        if not isinstance(groups, (tuple, list)) or len(groups) != 2 or len(groups[1]) != len(ys):
            raise ValueError(
                f"groups must be a pair: labels of the source cells, and a sequence of labels for each of {len(ys)} "
                "targets."
            )
        labels = [(groups[0], of_target) for of_target in groups[1]]
    if client is None:
        device = str(resolve_device(device))
    else:
        check_client(client)
    options |= {"device": device, "rng": rng}
    tasks = []
    for number, (y, own) in enumerate(zip(ys, labels, strict=True)):
        x, checked = check_cells(x, y, target=f"ys[{number}] (target)")
        # What is in a file stays there until its turn comes.
        tasks.append(Task.of(x, y if hasattr(y, "__array__") else checked, own, **options))
    kept = Results.opened(checkpoint_dir, tasks, resume=resume)
    if client is None:
        fitted = dict(fit_tasks(tasks, progress, kept))
    else:
        fitted = dict(fit_on_cluster(client, tasks, progress, kept))
    return [fitted[number] for number in range(len(tasks))]
