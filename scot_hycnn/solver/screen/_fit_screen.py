"""Fit one model to all conditions of a screen."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
from numpy.typing import ArrayLike

from scot_hycnn.potentials._gaussian import Gaussian
from scot_hycnn.potentials._hycnn import Combination
from scot_hycnn.potentials._potential import inverse_softplus
from scot_hycnn.solver._options import NEAR_GAUSSIAN, WEIGHTINGS, TrainingOptions, check_options
from scot_hycnn.solver.data._coordinates import Coordinates
from scot_hycnn.solver.data._groups import pair_of
from scot_hycnn.solver.data._training_data import Task, TrainingData, cells_of, tasks_of
from scot_hycnn.solver.model._map import TransportMap
from scot_hycnn.solver.runtime._batching import fit_tasks, place_of, progress_bar
from scot_hycnn.solver.runtime._checkpoint import CheckpointFolder
from scot_hycnn.solver.runtime._device import in_threads, n_parts, resolve_device

from ._choice import blended_weights, choose_blends, combined_map, fit_weights, own_maps
from ._conditions import Conditions, first_coefficients, in_proportion, training_cells
from ._covariates import Array, Covariates
from ._dictionary import DECAY, LR, Dictionary, joined, train_dictionary
from ._screen import DICTIONARY, GAUSSIAN, N_POINTS, OWN, Screen

# Shared networks, and the width of their layers: 8 of 32 x 3 found 8 pathways, and take as long as 2 own ensembles.
N_NETWORKS, HIDDEN, N_STEPS = 8, (32, 32, 32), 300
# Dictionaries whose maps are averaged: three have .45 of the Gaussian map's error where single ones have .49 to .54
# (16 x 300), and .59 where these have .63 to .72 (40 x 100).
N_MEMBERS = 3
# Source cells of a condition that take part; each condition holds them in its own coordinates.
MAX_SOURCE = 5000
# Conditions on which the shared networks are trained where a cluster fits the weights of the others, and conditions of
# one job.
N_SAMPLE, N_JOB = 200, 20
OTHERS = ("groups", "covariates", "embedding", "model", "device", "rng", "progress", "checkpoint_dir", "client")


def fit_screen(
    x: ArrayLike | Sequence[ArrayLike],
    ys: Sequence[ArrayLike],
    *,
    groups: tuple[Any, Any] | None = None,
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
    groups
        Labels of the source cells, or a list with those of each condition as in ``x``, and a list with the labels of
        the target cells of each condition, such as cell types. They get the same proportions in all conditions, by
        ``group_weights``, so that a map moves cells within types.
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
        A ``dask.distributed.Client`` (extra 'dask'), for more than 200 conditions: the shared networks are trained
        here on 200 random conditions, and workers fit the weights of the others.
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
    known, started = Covariates.read(covariates, embedding, len(ys)), time.perf_counter()
    device, folder = place_of(device, client, checkpoint_dir)
    tasks = _tasks(x, ys, groups, {"device": device, "rng": rng, **training})
    n_dims, settings = tasks[0].x.shape[1], tasks[0].settings
    if client is not None and len(ys) > N_SAMPLE and model is None:
        same = {"device": device, "rng": rng, "progress": progress, "checkpoint_dir": checkpoint_dir, **training}
        return _with_covariates(_on_cluster(client, x, ys, groups, same), known)
    if model is not None and model.network.n_dims != n_dims:
        raise ValueError(f"model has {model.network.n_dims} dimensions, and the cells have {n_dims}.")
    with in_threads(n_parts(device, len(tasks))) as in_parallel:
        clouds: list[TrainingData] = in_parallel(partial(_prepared, shares=_shares(tasks)), tasks)
    keys = [(id(task.x), task.groups_left_out) for task in tasks]

    # The shared networks: those of a model, trained on all conditions, or none.
    common, points = _common_coordinates(tasks, clouds, rng)
    near: Any = NEAR_GAUSSIAN
    network = Combination(n_dims, tuple(training.get("hidden") or HIDDEN), n_networks=N_NETWORKS, **near)
    if settings.potential == GAUSSIAN:
        theta = network.network.init(N_NETWORKS, torch.Generator().manual_seed(rng))
        trained = Dictionary(theta, first_coefficients(network, len(ys), "cpu"))
        blends, gains, errors = np.zeros((3, len(ys)))
    elif model is not None:
        network, common = model.network, model.coordinates
        trained = _with_networks_of(model, clouds, keys, device)
        blends, gains, errors = np.full(len(ys), float(bool(model.weights[:, 1:].any()))), *np.zeros((2, len(ys)))
    else:
        cells = Conditions.split(common, clouds, keys, device)
        options: dict[str, Any] = {"max_steps": training.get("max_steps") or N_STEPS}
        options |= {"lr": training.get("lr") or LR, "decay": training.get("weight_decay", DECAY)}
        with progress_bar([options["max_steps"] * N_MEMBERS], show=progress) as update:
            each = (options | own for own in _members(folder, tasks, rng))
            network, trained = joined(network, [train_dictionary(network, cells, progress=update, **o) for o in each])
        blends, gains, errors = choose_blends(network, trained, cells[1])

    # The map of each condition, and where they are better those of own networks.
    make = partial(combined_map, network, trained, common)
    with in_threads(n_parts(device, len(tasks))) as in_parallel:
        shared: list[TransportMap] = in_parallel(
            lambda k: make(clouds[k], k, blend=float(blends[k]), task=tasks[k]), range(len(tasks))
        )
    trains, fit = settings.potential != GAUSSIAN and model is None, partial(fit_tasks, progress=False, folder=folder)
    own = own_maps(tasks, (gains / common.scale, errors / common.scale), fit) if trains else {}
    blends = np.array([fitted.blend for fitted in shared])
    params = settings.report() | {"max_steps": trained.n_steps, "n_conditions": len(ys)}
    params |= {"seconds": time.perf_counter() - started}
    screen = Screen(
        shared=shared,
        own=own,
        choices=[OWN if k in own else DICTIONARY if blends[k] else GAUSSIAN for k in range(len(ys))],
        coordinates=common,
        network=network,
        theta=trained.theta.cpu(),
        weights=blended_weights(network, trained.coefficients, blends),
        points=points,
        params=params,
        history=trained.history,
        device=device,
    )
    return _with_covariates(screen, known)


def _with_covariates(screen: Screen, known: Covariates | None) -> Screen:
    """Return the screen with the rule for unseen conditions that is best where seen ones are left out."""
    if known is None:
        return screen
    return replace(screen, covariates=known.chosen(screen.displacements().reshape(len(screen.shared), -1)))


def _on_cluster(client: Any, x: Any, ys: Sequence[Any], groups: Any, options: dict[str, Any]) -> Screen:
    """Train the networks on a sample of the conditions here, and fit the weights of the others on workers."""
    order = np.random.default_rng(options["rng"]).permutation(len(ys))
    has_own = _is_list_of_tables(x)

    def cells(numbers: Any) -> tuple[Any, list[Any], Any]:
        some_x = [x[k] for k in numbers] if has_own else x
        if groups is None:
            return some_x, [ys[k] for k in numbers], None
        of_x, of_y = pair_of(groups)
        labels = [of_x[k] for k in numbers] if has_own else of_x, [of_y[k] for k in numbers]
        return some_x, [ys[k] for k in numbers], labels

    sample, rest = order[:N_SAMPLE], order[N_SAMPLE:]
    of_sample = cells(sample)
    model = fit_screen(*of_sample[:2], groups=of_sample[2], **options)
    state = client.scatter(model.to_dict(), broadcast=True, hash=False)
    jobs = [rest[start : start + N_JOB] for start in range(0, len(rest), N_JOB)]
    on_worker = {name: value for name, value in options.items() if name != "checkpoint_dir"} | {"progress": False}
    futures = [client.submit(_fit_on_worker, state, *cells(job), on_worker, pure=False) for job in jobs]
    parts = [model, *(Screen.from_dict(one, device=model.device) for one in client.gather(futures))]
    # From the order of fitting back to that of ys.
    place = np.argsort(np.concatenate([sample, *jobs]))
    shared = [fitted for part in parts for fitted in part.shared]
    choices = [choice for part in parts for choice in part.choices]
    return replace(
        model,
        shared=[shared[k] for k in place],
        choices=[choices[k] for k in place],
        weights=np.concatenate([part.weights for part in parts])[place],
        own={int(sample[k]): fitted for k, fitted in model.own.items()},
        params=model.params | {"n_conditions": len(ys)},
    )


def _fit_on_worker(
    state: dict[str, Any], x: Any, ys: list[Any], groups: Any, options: dict[str, Any]
) -> dict[str, Any]:
    options = options | {"device": str(resolve_device(options["device"])), "groups": groups}
    return fit_screen(x, ys, model=Screen.from_dict(state, device=options["device"]), **options).to_dict()


def _is_list_of_tables(x: Any) -> bool:
    return isinstance(x, (list, tuple)) and np.ndim(x[0]) == 2


def _with_networks_of(model: Screen, clouds: Sequence[TrainingData], keys: Sequence[Any], device: str) -> Dictionary:
    """Fit the weights of new conditions to all of their cells, for the networks of a model."""
    sources = []
    for key, c in zip(keys, clouds, strict=True):
        x, y = training_cells(c)
        x, y = np.concatenate([x, c.x_validation_original]), np.concatenate([y, c.y_validation_original])
        # Copies of cells do not count as more cells.
        sources.append((key, x, in_proportion(y, None, len(c.y) + len(c.y_validation))))
    cells = Conditions.of(model.coordinates, [c.all_cells for c in clouds], sources, device)
    theta = model.theta.to(device)
    s, v = fit_weights(model.network, theta, cells, model.weights)
    free = [inverse_softplus(part.clamp_min(1e-12)) for part in (v, s.unsqueeze(1))]
    return Dictionary(theta, torch.cat([*free, s.new_zeros(len(s), model.network.n_dims)], 1))


def _members(folder: CheckpointFolder | None, tasks: Sequence[Task], rng: int) -> Iterator[dict[str, Any]]:
    """Yield of each dictionary its seed, where its training continues, and what writes its state at each check."""
    seeds = np.random.default_rng(rng).integers(2**31, size=N_MEMBERS)
    for k, seed in enumerate(seeds.tolist()):
        if folder is None:
            yield {"rng": seed}
            continue
        path = folder.state_of(tasks).with_suffix(f".screen{k}")
        saved = folder.read_state(path, tasks[0].settings.device)
        yield {"rng": seed, "saved": saved, "save": partial(folder.write_state, path)}


def _tasks(x: Any, ys: Sequence[Any], groups: Any, options: dict[str, Any]) -> list[Task]:
    """Check the cells of all conditions, with one source for all or one for each."""
    if not len(ys):
        raise ValueError("ys is empty: give the cells of at least one condition.")
    names = {f"ys[{k}] (target)": y for k, y in enumerate(ys)}
    if not _is_list_of_tables(x):
        return tasks_of(x, names, groups, options)
    if len(x) != len(ys):
        raise ValueError(f"x has the source cells of {len(x)} conditions, and ys has {len(ys)}.")
    # Conditions with the same source, such as those of one plate, are checked together and share its cells.
    alike: dict[int, list[int]] = {}
    for k, source in enumerate(x):
        alike.setdefault(id(source), []).append(k)
    found: dict[int, Task] = {}
    keys = list(names)
    for numbers in alike.values():
        of_x, of_y = ([None] * len(x), [None] * len(ys)) if groups is None else pair_of(groups)
        labels = None if groups is None else (of_x[numbers[0]], [of_y[k] for k in numbers])
        tasks = tasks_of(x[numbers[0]], {keys[k]: ys[k] for k in numbers}, labels, options)
        found |= dict(zip(numbers, tasks, strict=True))
    return [found[k] for k in range(len(ys))]


def _shares(tasks: Sequence[Task]) -> Counter[str]:
    """Return the share of each group in the cells, the mean over sources and targets of all conditions."""
    shares: Counter[str] = Counter()
    for task in tasks:
        for labels in (task.labels_x, task.labels_y):
            if labels is not None:
                of_cloud = labels.counts / len(labels) / (2 * len(tasks))
                shares.update(dict(zip(labels.names.tolist(), of_cloud, strict=True)))
    return shares


def _prepared(task: Task, shares: Mapping[str, float]) -> TrainingData:
    """Split and balance the cells of a condition; far cells take no part."""
    x, y, groups = cells_of(task)
    settings = task.settings
    if groups is not None and shares:
        # One composition of all conditions: they are comparable, and one source has the same weights for all.
        raw = WEIGHTINGS[settings.group_weights](np.array([shares[name] for name in groups.labels]))
        groups = replace(groups, proportions=raw / raw.sum())
    if len(x) > MAX_SOURCE:
        kept = np.zeros(len(x), dtype=bool)
        kept[np.random.default_rng(settings.rng).permutation(len(x))[:MAX_SOURCE]] = True
        x, groups = x[kept], None if groups is None else groups.take(kept, np.ones(len(y), dtype=bool))
    return TrainingData.prepare(x, y, settings, groups)


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
