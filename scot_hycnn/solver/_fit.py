"""Fit transport maps between clouds of points: one map, or many from the same source."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

from numpy.typing import ArrayLike

from ._options import TrainingOptions, check_options
from .data._groups import pair_of
from .data._training_data import tasks_of
from .model._map import TransportMap
from .runtime._batching import fit_on_cluster, fit_tasks, place_of


def fit(
    x: ArrayLike,
    y: ArrayLike,
    *,
    groups: tuple[ArrayLike, ArrayLike] | None = None,
    device: str = "auto",
    rng: int = 0,
    progress: bool | None = None,
    checkpoint_dir: str | Path | None = None,
    **training: Unpack[TrainingOptions],
) -> TransportMap:
    r"""Learn the optimal transport map from x to y for the cost :math:`\frac12|x - y|^2`.

    The cells are unpaired. By Brenier's theorem the map is the gradient of a convex function; an ensemble of HyCNNs
    learns this function in coordinates in which the Gaussian map is the identity. Held-out cells then choose the
    weight (the blend) between the ensemble and the Gaussian map, which is the result if the ensemble is not better.

    Parameters
    ----------
    x
        Source cells, shape (n, d).
    y
        Target cells, shape (m, d).
    groups
        Group of each source and each target cell, such as its cell type, shape (n,) and (m,): arrays, or pandas'
        categories; at most 2,000 groups, and no missing ones. Groups then have the same proportions in both clouds.
        Cells of groups with fewer than five cells in either cloud are left out. Two columns, shape (n, 2) and (m, 2),
        are a unit such as a donor and the group within it: ``leave_out='groups'`` then leaves out whole units.
    device
        'auto' (the first of cuda, mps and cpu that is available) or the name of a device.
    rng
        Seed. The same seed gives the same bits on the CPU with the same number of threads. The global random state
        is not touched.
    progress
        Show a progress bar with the time that is left and the gain over the Gaussian map so far. None shows it in a
        terminal or a notebook if the fit takes more than a second.
    checkpoint_dir
        Folder in which the state of training is stored, ten times in a fit, and then the map. The same call continues
        from what it finds there; see :func:`scot_hycnn.solver.fit_many`.
    **training
        Every option of :class:`scot_hycnn.solver.TrainingOptions`, such as ``max_steps``; those that are left out are
        chosen by the number of cells.

    Returns
    -------
    The fitted map. Its ``outcome`` and ``status`` say how the fit ended, and its ``validation`` how good the map is,
    which groups were left out, and which cells lie so far from all others that they took no part (``far_source``,
    ``far_target``: row numbers). The fit gives no warnings.

    Raises
    ------
    TypeError
        If an option is unknown; the message has the nearest one.
    ValueError
        If x or y is not a finite array of two dimensions, their dimensions differ, one has fewer than max(20, 2 d)
        cells, groups are too few or not one for each cell, or an option is out of range.

    References
    ----------
    Brenier (1991), Comm. Pure Appl. Math. 44, 375-417; Hundrieser, Kong & Schmidt-Hieber (2026), arXiv:2604.26942.

    Examples
    --------
    >>> import numpy as np
    >>> from scot_hycnn import solver
    >>> x = np.random.default_rng(0).normal(size=(300, 2))
    >>> y = np.random.default_rng(1).normal(size=(300, 2)) + [3.0, 0.0]
    >>> transport_map = solver.fit(x, y, max_steps=20, n_ensemble=2)
    >>> bool(np.abs(transport_map.transport(x) - x - [3.0, 0.0]).mean() < 0.5)
    True
    """
    check_options(training, ("groups", "device", "rng", "progress", "checkpoint_dir"), rng=rng)
    device, folder = place_of(device, None, checkpoint_dir)
    options = {"device": device, "rng": rng, **training}
    if groups is not None:
        of_x, of_y = pair_of(groups)
        groups = of_x, [of_y]
    tasks = tasks_of(x, {"y (target)": y}, groups, options)
    ((_, fitted),) = fit_tasks(tasks, progress, folder)
    return fitted


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
    **training: Unpack[TrainingOptions],
) -> list[TransportMap]:
    """Learn the optimal transport maps from x to each of many targets, in one training loop.

    Each map is the one that :func:`fit` finds alone, up to rounding: only the arithmetic is shared, to save time.

    Parameters
    ----------
    x
        Source cells, shape (n, d).
    ys
        Target cells of each map, shape (m_k, d). Objects that become arrays, such as Dask arrays of a file, are read
        when their map is fitted, with ``client`` by the worker.
    groups
        Group of each source cell, shape (n,), and for each target the groups of its cells, shape (m_k,): arrays, or
        pandas' categories, whose codes are taken as they are. Units and groups within them have two columns.
    device
        'auto' (the first of cuda, mps and cpu that is available) or the name of a device.
    rng
        Seed of every map.
    progress
        Show a progress bar over maps, as in :func:`fit`.
    client
        A ``dask.distributed.Client`` (extra 'dask'), whose workers fit the maps in batches. A batch whose worker dies
        is fitted by another one. ``device`` is then that of each worker; name ``'cuda'`` if they have GPUs. Maps come
        back on the same device, or on that of ``'auto'`` where this machine lacks it.
    checkpoint_dir
        Folder for the finished maps, one .safetensors file each, and, ten times in a fit, the state of those in
        training. Files are named by a hash of cells and options. With ``client`` all workers must have access to it.
    resume
        Continue from what an interrupted call left in ``checkpoint_dir``: finished maps are not fitted again, and the
        others get the same bits as without the interruption, on the CPU with the same number of threads. False fits
        all maps anew, and replaces each file when its new content is there.
    **training
        Every option of :class:`scot_hycnn.solver.TrainingOptions`, such as ``max_steps``; those that are left out are
        chosen by the number of cells of each map.

    Returns
    -------
    The fitted maps, in the order of ``ys``, each with its ``outcome`` and ``status``. A map that could not be trained
    is the Gaussian map, and does not stop the others.

    Raises
    ------
    ImportError
        If ``client`` is given and Dask is not installed.
    TypeError
        If ``client`` is not a client, or an option is unknown; the message has the nearest one.
    ValueError
        Before any fit, if there is no target, or for the reasons of :func:`fit`. The message names all targets with
        too few cells, up to 20 of them.

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
    others = ("groups", "device", "rng", "progress", "client", "checkpoint_dir", "resume")
    check_options(training, others, rng=rng)
    if not len(ys):
        raise ValueError("ys is empty: give the cells of at least one target.")
    device, folder = place_of(device, client, checkpoint_dir, resume=resume)
    tasks = tasks_of(
        x, {f"ys[{k}] (target)": y for k, y in enumerate(ys)}, groups, {"device": device, "rng": rng, **training}
    )
    if client is None:
        fitted = dict(fit_tasks(tasks, progress, folder))
    else:
        fitted = dict(fit_on_cluster(client, tasks, progress, folder))
    return [fitted[number] for number in range(len(tasks))]
