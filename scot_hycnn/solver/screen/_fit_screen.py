"""Fit one model to all conditions of a screen."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
from numpy.typing import ArrayLike

from scot_hycnn.potentials._combination import Combination
from scot_hycnn.potentials._gaussian import Gaussian
from scot_hycnn.solver._fit import place_of, tasks_of
from scot_hycnn.solver._options import Settings, TrainingOptions, check_options
from scot_hycnn.solver.data._coordinates import Coordinates
from scot_hycnn.solver.data._task import Task
from scot_hycnn.solver.data._training_data import Trained, TrainingData
from scot_hycnn.solver.model._families import NEAR_GAUSSIAN
from scot_hycnn.solver.model._map import TransportMap
from scot_hycnn.solver.selection._final_map import final_map

from ._covariates import Array, Covariates
from ._screen import GAUSSIAN, N_POINTS, Screen

# Shared networks, and the width of their layers: 8 of 32 x 3 found 8 pathways, and take as long as 2 own ensembles.
N_NETWORKS, HIDDEN = 8, (32, 32, 32)
OTHERS = ("covariates", "embedding", "model", "device", "rng", "progress", "checkpoint_dir", "client")


def fit_screen(
    x: ArrayLike | Sequence[ArrayLike],
    ys: Sequence[ArrayLike],
    *,
    covariates: Mapping[str, Sequence[Any]] | None = None,
    embedding: ArrayLike | None = None,
    model: Screen | None = None,
    device: str = "auto",
    rng: int = 0,
    progress: bool | None = None,
    checkpoint_dir: str | Path | None = None,
    client: Any = None,
    **training: Unpack[TrainingOptions],
) -> Screen:
    r"""Learn the transport maps from x to each of many targets, which share their networks.

    Non-negative sums of convex functions are convex. So the potential of a condition is its Gaussian map's and a
    non-negative combination of R networks that all conditions share: what one condition lacks in cells it gets from the
    others. Held-out cells of all conditions choose when training stops, and for each condition whether its map is
    the combination, the Gaussian map, or networks of its own.

    Parameters
    ----------
    x
        Source cells of all conditions, shape (n, d), or a list with the source cells of each condition, such as
        controls of its plate or its cell type.
    ys
        Target cells of each condition, shape (m_k, d).
    covariates
        Values of each covariate, such as dose, minutes or protein, one for each condition: numbers, which are 0 for the
        source if they are never negative, or names. :meth:`Screen.at` then gives the map of an unseen condition.
    embedding
        A vector for each condition, shape (K, p), such as a fingerprint of its drug: a further covariate.
    model
        A fitted screen whose shared networks are kept: only the weights of the new conditions ``ys`` are fitted, which
        takes a part of a second each. The new screen holds the new conditions.
    device
        'auto' (the first of cuda, mps and cpu that is available) or the name of a device.
    rng
        Seed.
    progress
        Show a progress bar; None shows it in a terminal or a notebook if the fit takes more than a second.
    checkpoint_dir
        Folder in which the state of training is stored at each check; the same call continues from there.
    client
        A ``dask.distributed.Client`` (extra 'dask'), whose workers fit the weights of conditions.
    training
        Training options; see Other Parameters.

    Other Parameters
    ----------------
    **training
        Options of :class:`scot_hycnn.solver.TrainingOptions`, such as ``max_steps``; those that are left out are chosen
        by the number of cells. ``potential='gaussian'`` trains nothing.

    Returns
    -------
    The fitted screen.

    Raises
    ------
    TypeError
        If an option is unknown; the message has the nearest one.
    ValueError
        For the reasons of :func:`fit_many`, or if covariates, sources or the model do not fit the conditions.

    References
    ----------
    Brenier (1991), Comm. Pure Appl. Math. 44, 375-417; Hundrieser, Kong & Schmidt-Hieber (2026), arXiv:2604.26942.

    Examples
    --------
    >>> import numpy as np
    >>> from scot_hycnn import solver
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(300, 2))
    >>> ys = [rng.normal(size=(60, 2)) + shift for shift in ([3, 0], [0, 3])]
    >>> screen = solver.fit_screen(x, ys, potential="gaussian")
    >>> [fitted.transport(x).mean(0).argmax().item() for fitted in screen.maps]
    [0, 1]
    """
    check_options(training, OTHERS, rng=rng)
    if not len(ys):
        raise ValueError("ys is empty: give the cells of at least one condition.")
    known = Covariates.read(covariates, embedding, len(ys))
    started = time.perf_counter()
    device, _ = place_of(device, client, checkpoint_dir)
    options = {"device": device, "rng": rng, **training}
    tasks = _tasks(x, ys, options)
    clouds = [_prepared(task) for task in tasks]
    if model is not None and model.network.n_dims != tasks[0].x.shape[1]:
        raise ValueError(f"model has {model.network.n_dims} dimensions, and the cells {tasks[0].x.shape[1]}.")

    common, points = _common_coordinates(tasks, clouds, rng)
    network = Combination(tasks[0].x.shape[1], HIDDEN, n_networks=N_NETWORKS, **NEAR_GAUSSIAN)
    theta = network.network.init(N_NETWORKS, torch.Generator().manual_seed(rng))
    maps = [_gaussian_map(task, cells) for task, cells in zip(tasks, clouds, strict=True)]
    params = tasks[0].settings.report() | {"n_conditions": len(ys), "seconds": time.perf_counter() - started}
    screen = Screen(
        maps, {}, [GAUSSIAN] * len(ys), common, network, theta, points, params=params, device=device
    )  # fmt: skip
    if known is not None:
        screen = replace(screen, covariates=known.chosen(screen.displacements().reshape(len(ys), -1)))
    return screen


def _tasks(x: Any, ys: Sequence[Any], options: dict[str, Any]) -> list[Task]:
    """Check the cells of all conditions, with one source for all or one for each."""
    names = {f"ys[{k}] (target)": y for k, y in enumerate(ys)}
    if not isinstance(x, (list, tuple)) or np.ndim(x[0]) != 2:
        return tasks_of(x, names, None, options)
    if len(x) != len(ys):
        raise ValueError(f"x has the source cells of {len(x)} conditions, and ys has {len(ys)}.")
    # Conditions with the same source, such as those of one plate, are checked together and share its cells.
    alike: dict[int, list[int]] = {}
    for k, source in enumerate(x):
        alike.setdefault(id(source), []).append(k)
    found: dict[int, Task] = {}
    keys = list(names)
    for numbers in alike.values():
        tasks = tasks_of(x[numbers[0]], {keys[k]: ys[k] for k in numbers}, None, options)
        found |= dict(zip(numbers, tasks, strict=True))
    return [found[k] for k in range(len(ys))]


def _prepared(task: Task) -> TrainingData:
    """Split and balance the cells of a condition; far cells take no part."""
    x, y = (np.delete(np.asarray(c, dtype=float), rows, 0) for c, rows in ((task.x, task.far_x), (task.y, task.far_y)))
    settings = task.settings
    cells = TrainingData.prepare(x, y, settings.validation_fraction, rng=settings.rng, device=settings.device)
    return replace(cells, far_x=task.far_x, far_y=task.far_y)


def _common_coordinates(
    tasks: Sequence[Task], clouds: Sequence[TrainingData], rng: int
) -> tuple[Coordinates, Array]:  # fmt: skip
    """Return the coordinates of the shared networks, and some source cells of all conditions."""
    # A = M^(1/2), with the mean M of the Gaussian maps' matrices: the mean response is balanced, without a rotation.
    mean = np.mean([c.coordinates.matrix.T @ c.coordinates.matrix / c.coordinates.scale for c in clouds], axis=0)
    sources = {id(task.x): task.x for task in tasks}
    generator = np.random.default_rng(rng)
    n_each = max(N_POINTS // len(sources), 10)
    points = np.concatenate(
        [np.asarray(x, dtype=float)[generator.permutation(len(x))[:n_each]] for x in sources.values()]
    )
    values, vectors = np.linalg.eigh(mean)
    root = (vectors * np.sqrt(values)) @ vectors.T
    pooled = Gaussian.fit(points, points)
    scale = len(mean) / float(np.trace(root @ pooled.covariance_x @ root))
    centre = np.mean([cells.coordinates.mean_x for cells in clouds], axis=0)
    return Coordinates(centre, np.zeros(len(mean)), np.sqrt(scale) * root, scale), points


def _gaussian_map(task: Task, cells: TrainingData) -> TransportMap:
    settings: Settings = task.settings
    network = Combination(task.x.shape[1], (1,), n_networks=1, **NEAR_GAUSSIAN)
    theta = network.init(1, torch.Generator().manual_seed(0))
    return final_map(network, Trained(theta, cells, keep_gaussian=True), cells, settings, 0.0)
