"""Fit transport maps between conditions."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray
from scanpy import logging as logg
from scanpy import settings as scanpy_settings

from scot_hycnn import solver as _solver
from scot_hycnn._anndata import (
    Cells,
    Fitted,
    Mask,
    Pairs,
    announce_replaced,
    claim,
    read_pairs,
    without_targets,
    write_fit,
)
from scot_hycnn.solver import Settings, TransportMap, resolve_device
from scot_hycnn.solver.data._checks import FEW_IN_GROUPS, UnusableError, raise_together, several
from scot_hycnn.solver.data._groups import Labels, groups_left_out, usable_groups

from ._seed import seed_of
from ._threads import threads_of_scanpy

# So many labels fit into a sentence.
_NAMED = 5


def hycnn_ot(
    adata: AnnData,
    source_key: Hashable,
    target_key: Hashable | Sequence[Hashable],
    *,
    groupby: str | None = None,
    use_rep: str | None = None,
    n_pcs: int | None = None,
    mask_obs: Mask | None = None,
    split_key: str | None = None,
    group_key: str | None = None,
    max_cells: int | None = 100_000,
    group_weights: str = "sqrt",
    leave_out: str = "cells",
    skip_small: bool = False,
    potential: str = "hycnn",
    solver: str = "amortized",
    hidden: Sequence[int] | None = None,
    max_steps: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    weight_decay: float | None = None,
    n_ensemble: int | None = None,
    validation_fraction: float = 0.1,
    fallback: bool = False,
    predict: bool = True,
    inverse: bool = False,
    fill: str = "nan",
    conjugates: str | None = None,
    cuda_graph: str = "auto",
    device: str = "auto",
    rng: int | np.random.Generator | None = 0,
    progress: bool | None = None,
    client: Any = None,
    checkpoint_dir: str | Path | None = None,
    resume: bool = True,
    key_added: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    r"""Fit the optimal transport map from source to target cells, and move the source cells by it.

    The cells of the two conditions are unpaired. The map :math:`T = \nabla f` is the gradient of a convex function f,
    the one that carries the source distribution to the target's at the least mean squared displacement; an ensemble
    of hyper input convex neural networks learns f. :func:`scot_hycnn.solver.fit` says how.

    Parameters
    ----------
    adata
        Annotated cells of both conditions, with a representation such as principal components. ``X`` is not needed.
        Cells may be in a file: ``anndata.read_h5ad(path, backed="r")``, ``anndata.experimental.read_lazy(path)`` (extra
        'lazy'), or zarr and Dask arrays as the representation; rows are read in blocks. Results go into the object in
        memory, not into the file. anndata cannot write a lazily read object: fit with ``predict=False``, keep the maps
        by ``sh.get.model(adata, target=...).save(path)``, or all in a new
        ``AnnData(uns={"hycnn_ot": adata.uns["hycnn_ot"]})``, and write moved cells by ``output`` of
        :func:`scot_hycnn.tl.transport`.
    source_key
        Label of the source condition, for instance ``'control'``.
    target_key
        Label of the target condition. A list fits one map for each of its labels, all in one training loop; each map
        is the one that a fit of its own gives.
    groupby
        Column of ``obs`` that holds the labels, of any type. None takes the one categorical or string column that
        holds them all; or, if all labels are names of boolean columns, these columns as masks.
    use_rep
        Key of ``obsm``, or ``'X'`` for the expression values. None takes ``'X_pca'``, or ``'pca'``.
    n_pcs
        Use the first so many columns of it only.
    mask_obs
        Fit on these cells only: a boolean array, or the name of a boolean column of ``obs``. Source cells
        outside are moved by the map all the same, unless their coordinates are NaN.
    split_key
        Column of ``obs`` as :func:`scot_hycnn.pp.split` writes it: fit on cells labelled ``'train'`` only. With
        ``mask_obs`` too, on those in both. :func:`scot_hycnn.metrics.evaluate` then looks at the others.
    group_key
        Column of ``obs`` with groups of cells, such as cell types. Groups then have the same proportions in source and
        target, so that a shift of their proportions between the conditions is not taken for a response. Cells of
        groups with fewer than five cells in either condition are not fitted on.
    max_cells
        Fit each condition on a random sample of at most so many of its training cells; None takes all. Of cells in a
        file, only these are read, and those that are to be moved.
    group_weights
        Proportion of a group, from its share of the cells, averaged over both conditions: ``'sqrt'``, its root, so
        that large groups do not drown small ones; ``'equal'``; or ``'observed'``, the share itself.
    leave_out
        What the choice between networks and Gaussian map is made on: ``'cells'``, for more cells like these; or
        ``'groups'`` of ``group_key``, each left out of a fit of its own, for cells of types that are not among these.
    skip_small
        Leave out targets with too few cells, or with too few in groups that the source has too, say which in the log,
        and fit the others. False refuses to fit any, and names them all.
    potential
        Family of convex functions: ``'hycnn'``, others for comparison, or ``'gaussian'`` for the closed-form map
        between two Gaussians alone; :func:`scot_hycnn.solver.fit` has the list.
    solver
        Training method: ``'amortized'``, or for comparison ``'minimax'``, ``'w2gn'``, ``'enot'``, ``'paper'``.
    hidden
        Width of each hidden layer; None takes four of 48, and three of 32 up to 1,000 cells.
    max_steps
        Training steps; None takes what suits the cells, 600 to 1,200.
    batch_size
        Source and target cells in each step, for each network; None takes what suits the cells. A number above 256 and
        above the cells of the larger condition (rounded up to a power of two) is taken as the larger of these two.
    lr
        Learning rate at its top; None takes the training method's.
    weight_decay
        Pull of the networks towards the Gaussian map; None takes the training method's.
    n_ensemble
        Networks, trained side by side and averaged; None takes four.
    validation_fraction
        Part of the cells held out of training for the choice between networks and Gaussian map.
    fallback
        Go over to the Gaussian map where a cell is far from the training source cells (out-of-support score from 1 to
        2). The map as a whole is then not the gradient of a convex function.
    predict
        Move the source cells and write where they end. False stores the maps alone: for hundreds of targets their
        slots, each as tall as the AnnData, would take gigabytes; ``sh.tl.transport(adata, target=...)`` then moves the
        cells for the targets that you want to look at.
    inverse
        Also move the target cells back to the source, by the inverse map.
    fill
        What rows of other cells hold: ``'nan'``, or ``'identity'`` for their own coordinates.
    conjugates
        Where the search for a target cell's conjugate starts: ``'predicted'`` or ``'remembered'``; None takes what
        suits the cells. See :func:`scot_hycnn.solver.fit`.
    cuda_graph
        ``'auto'`` replays training steps as CUDA graphs on an NVIDIA GPU; ``'always'`` also has torch.compile write the
        innermost loop, which pays after some minutes of training, on the CPU too; ``'never'`` does neither.
    device
        ``'auto'``, ``'cpu'``, ``'cuda'`` ...
    rng
        Seed, or a generator that gives one. The same seed gives the same result.
    progress
        Show a bar; None shows it in a terminal if the fit takes more than a second, unless scanpy's verbosity is 0.
    client
        A ``dask.distributed.Client`` (extra 'dask'): its workers fit the maps. See
        :func:`scot_hycnn.solver.fit_many`.
    checkpoint_dir
        Folder for finished maps and the state of those in training.
    resume
        Go on from what an interrupted call has left there, as if there had been no interruption; False begins anew.
    key_added
        Stem of all keys below; None means ``'hycnn_ot'``.
    copy
        Return a changed copy instead of changing ``adata``.

    Returns
    -------
    None, or the copy. These slots are written, after everything has succeeded; ``_<slug>`` is left out if there is one
    target, and is otherwise the target's label with every character but letters, digits and ``_.-`` replaced.

    ``adata.obsm['X_hycnn_ot_<slug>']``
        T(x) of the source cells, float32, shape (n_obs, d), in the units of the representation.
    ``adata.obs['hycnn_ot_displacement_<slug>']``, ``adata.obs['hycnn_ot_std_<slug>']``
        Length of T(x) - x, and the standard deviation of T(x) over the ensemble, in the same units; NaN for others.
        The standard deviation is 0 where the fit kept the Gaussian map, which has no ensemble: it is no certainty.
    ``adata.obs['hycnn_ot_out_of_support_<slug>']``
        Distance of a source cell from those that the map was trained on; 95 % of unseen cells of the same kind are
        below 1. See :meth:`scot_hycnn.solver.TransportMap.out_of_support`.
    ``adata.obsm['X_hycnn_ot_inverse_<slug>']``
        Target cells moved back, if ``inverse``.
    ``adata.uns['hycnn_ot']``
        ``source`` and ``targets`` (slug to label), ``groupby``, ``rep``, ``params``, ``history``, ``validation``,
        ``certificate``, ``outcome`` (one of :class:`scot_hycnn.solver.Outcome`), ``status`` (the outcome in sentences;
        the last five by slug), ``versions``, ``schema_version``, and the maps themselves, ``models``. ``validation``
        holds the rows of cells that lie so far from all others that they took no part in the fit (``far_source``,
        ``far_target``). ``certificate`` and ``validation`` are measured on validation cells, which also chose the
        blend. It survives .h5ad and .zarr, and :func:`scot_hycnn.tl.transport` works from it.

    Raises
    ------
    TypeError
        If ``adata`` is no AnnData.
    ValueError
        If a label, column, representation or option does not exist or does not fit, source and target are the same,
        there are too few cells, or coordinates are not finite. The AnnData is then as it was.

    Warns
    -----
    UserWarning
        Before the fit, if slots will be replaced, or the representation is on raw scales or an embedding of neighbours.
        After it, if something went wrong in training; the results are then written all the same. That
        the fit kept the Gaussian map is a result, which the log says.

    References
    ----------
    Hundrieser, Kong & Schmidt-Hieber (2026), arXiv:2604.26942 (HyCNN). Brenier (1991), Comm. Pure Appl. Math. 44,
    375-417 (the map is a gradient).

    Examples
    --------
    >>> import scot_hycnn as sh
    >>> adata = sh.datasets.pbmc_planted(n_cells=400)
    >>> sh.tl.hycnn_ot(adata, "control", "IFN-beta", n_pcs=5, potential="gaussian")
    >>> adata.obsm["X_hycnn_ot"].shape
    (400, 5)
    >>> adata.uns["hycnn_ot"]["source"], adata.uns["hycnn_ot"]["targets"]
    ('control', {'IFN-beta': 'IFN-beta'})
    """
    adata = claim(adata, copy=copy)
    key = "hycnn_ot" if key_added is None else key_added
    options: dict[str, Any] = {"potential": potential, "solver": solver, "hidden": hidden, "n_ensemble": n_ensemble}
    options |= {"max_steps": max_steps, "batch_size": batch_size, "lr": lr, "weight_decay": weight_decay}
    options |= {
        "validation_fraction": validation_fraction,
        "group_weights": group_weights,
        "leave_out": leave_out,
        "conjugates": conjugates,
        "cuda_graph": cuda_graph,
        "device": str(resolve_device(device)) if client is None else device,
        "rng": seed_of(rng),
    }
    pairs = read_pairs(
        adata,
        source_key,
        target_key,
        groupby=groupby,
        use_rep=use_rep,
        n_pcs=n_pcs,
        mask_obs=mask_obs,
        split_key=split_key,
        group_key=group_key,
        max_cells=max_cells,
        seed=options["rng"],
        everyone=(predict, inverse),
        key=key,
        fill=fill,
        skip_small=skip_small,
    )
    if few := _check_groups(pairs, leave_out, skip_small=skip_small):
        pairs = without_targets(adata, pairs, few, key)
    start = _begin(pairs, options, predict=predict, inverse=inverse, on_cluster=client is not None)
    announce_replaced(adata, pairs, key=key, predict=predict, inverse=inverse)
    maps = _fit(pairs, options, progress=progress, client=client, checkpoint_dir=checkpoint_dir, resume=resume)
    fits = _moved(pairs, maps, predict=predict, inverse=inverse, fallback=fallback)
    logg.info("    finished", time=start, deep=write_fit(adata, pairs, fits, key=key, fill=fill, fallback=fallback))
    _report(adata, pairs, maps)
    return adata if copy else None


def _begin(pairs: Pairs, options: dict[str, Any], *, predict: bool, inverse: bool, on_cluster: bool) -> datetime:
    """Check everything, say what begins, and when."""
    settings = _settings(pairs, options, predict=predict, inverse=inverse)
    start: datetime = logg.info(_announce(pairs, settings, on_cluster=on_cluster))
    return start


def _settings(pairs: Pairs, options: dict[str, Any], *, predict: bool, inverse: bool) -> list[Settings]:
    """Options of each target's map; everything that is wrong with them is said here, before any map is fitted."""
    if inverse and not predict:
        raise ValueError("inverse=True moves target cells and predict=False moves none; choose one of them.")
    n_source, n_dims = pairs.source.n_training, pairs.rep.n_dims
    n_targets = [target.n_training for target in pairs.targets]
    return [Settings.for_cells(n_source, n, n_dims, **options) for n in n_targets]


def _announce(pairs: Pairs, settings: Sequence[Settings], *, on_cluster: bool) -> str:
    place = "boolean columns of adata.obs" if pairs.groupby is None else f"adata.obs[{pairs.groupby!r}]"
    named = [f"{target.label!r} ({target.n_training})" for target in pairs.targets]
    targets = ", ".join(named) if len(named) <= _NAMED else f"{len(named)} targets ({', '.join(named[:_NAMED])} ...)"
    where = "the workers of a cluster" if on_cluster else f"{settings[0].device}"
    return (
        f"fitting transport from {pairs.source.label!r} ({pairs.source.n_training} cells) to {targets} of {place}, "
        f"on {pairs.rep.n_dims} dimensions of {pairs.rep.name!r}, on {where}"
    )


def _say_skipped(skipped: Sequence[tuple[str, int | str]]) -> None:
    if skipped:
        named = several([f"{label!r} ({found})" for label, found in skipped])
        logg.warning(f"{len(skipped)} targets have too few cells and are not fitted (skip_small=True): {named}")


def _check_groups(pairs: Pairs, leave_out: str, *, skip_small: bool) -> list[str]:
    """All targets before any is fitted.

    Returns
    -------
    Targets to leave out, since they have too few cells in groups that the source has too.
    """
    _say_skipped(pairs.skipped)
    if pairs.group_key is None:
        if leave_out == "groups":
            raise ValueError("leave_out='groups' needs group_key, the column of adata.obs that holds the groups.")
        return []
    source = Labels.of(pairs.source.groups)
    problems: list[tuple[str, UnusableError]] = []
    lacking: dict[str, list[str]] = {}  # groups that are not fitted on, and in which maps
    for target in pairs.targets:
        pair = source, Labels.of(target.groups)
        try:
            shared = usable_groups(pair, pairs.rep.n_dims, leave_out)
        except UnusableError as problem:
            problems.append((repr(target.label), problem))
            continue
        for group in groups_left_out(pair, shared):
            lacking.setdefault(group, []).append(target.label)
    small = [(name, problem) for name, problem in problems if problem.kind == FEW_IN_GROUPS]
    skips = skip_small and len(small) < len(pairs.targets)
    advice = "" if len(small) in (0, len(pairs.targets)) else "skip_small=True leaves such targets out."
    raise_together([one for one in problems if not (skips and one in small)], len(pairs.targets), advice=advice)
    _say_lacking(lacking, f"adata.obs[{pairs.group_key!r}]")
    without = {name for name, _ in small}
    left_out = [target.label for target in pairs.targets if repr(target.label) in without]
    _say_skipped([(label, problem.found) for label, (_, problem) in zip(left_out, small, strict=True)])
    return left_out


def _say_lacking(lacking: dict[str, list[str]], column: str) -> None:
    """One message for all maps that some groups are left out of."""
    maps = list(dict.fromkeys(label for labels in lacking.values() for label in labels))
    if not maps:
        return
    same = all(len(labels) == len(maps) for labels in lacking.values())
    named = several([repr(group) if same else f"{group!r} ({len(labels)} maps)" for group, labels in lacking.items()])
    logg.warning(
        f"{'the map' if len(maps) == 1 else f'{len(maps)} maps'} to {_several(maps)} "
        f"{'is' if len(maps) == 1 else 'are'} not fitted on cells of [{named}] ({column}), which are too few in source "
        "or target"
    )


def _fit(pairs: Pairs, options: dict[str, Any], *, progress: bool | None, **how: Any) -> list[TransportMap]:
    if progress is None and int(scanpy_settings.verbosity) == 0:
        progress = False
    own = [pairs.groups_with(target) for target in pairs.targets]
    groups = [pair for pair in own if pair is not None]
    with threads_of_scanpy():
        maps = _solver.fit_many(
            pairs.source.training,
            [target.training for target in pairs.targets],
            groups=(groups[0][0], [of_target for _, of_target in groups]) if groups else None,
            progress=progress,
            **how,
            **options,
        )
    return [_in_rows_of_adata(pairs.source, target, fitted) for target, fitted in zip(pairs.targets, maps, strict=True)]


def _in_rows_of_adata(source: Cells, target: Cells, fitted: TransportMap) -> TransportMap:
    """Give the far cells, which the fit numbers among its own, by their rows in the AnnData."""
    far = {
        name: cells.rows[cells.is_training][fitted.validation[name]]
        for name, cells in (("far_source", source), ("far_target", target))
        if name in fitted.validation
    }
    return replace(fitted, validation=fitted.validation | far)


def _report(adata: AnnData, pairs: Pairs, maps: Sequence[TransportMap]) -> None:
    """Say what the fits have led to, after everything is written: a warning may be an error."""
    for condition, rows in _far_cells(pairs, maps).items():
        names = [str(name) for name in adata.obs_names[rows]]
        some = f"1 cell of {condition!r} lies" if len(rows) == 1 else f"{len(rows)} cells of {condition!r} lie"
        logg.warning(
            f"{some} far from all others and took no part in the fit: {_several(names)}. Look for debris, doublets or "
            "broken values"
        )
    by_outcome: dict[str, list[int]] = {}
    for number, fitted in enumerate(maps):
        if not fitted.ok:
            by_outcome.setdefault(fitted.outcome, []).append(number)
    for outcome, numbers in by_outcome.items():
        labels = [pairs.targets[number].label for number in numbers]
        example = f" ({outcome}), for instance to {labels[0]!r}" if len(numbers) > 1 else ""
        message = f"the map to {_several(labels)}{example}: {maps[numbers[0]].status}"
        if _solver.Outcome(outcome).is_trouble:
            warnings.warn(message, UserWarning, stacklevel=3)
        else:
            logg.info(message)


def _far_cells(pairs: Pairs, maps: Sequence[TransportMap]) -> dict[str, NDArray[np.intp]]:
    """Condition to the rows of its far cells; the source's are the same for all maps."""
    sides = [(pairs.source.label, "far_source", maps[0])]
    sides += [(target.label, "far_target", fitted) for target, fitted in zip(pairs.targets, maps, strict=True)]
    found = {label: fitted.validation.get(side, []) for label, side, fitted in sides}
    return {label: rows for label, rows in found.items() if len(rows)}


def _several(labels: Sequence[str]) -> str:
    named = ", ".join(map(repr, labels[:_NAMED]))
    return named if len(labels) <= _NAMED else f"{named} and {len(labels) - _NAMED} others"


@threads_of_scanpy()
def _moved(pairs: Pairs, maps: Sequence[TransportMap], *, predict: bool, inverse: bool, fallback: bool) -> list[Fitted]:
    if not predict:
        return [Fitted(fitted.to_dict()) for fitted in maps]
    x, fits = pairs.source.coordinates, []
    for target, fitted in zip(pairs.targets, maps, strict=True):
        moved, std = fitted.transport(x, return_std=True, fallback=fallback)
        back = fitted.inverse(target.coordinates) if inverse else None
        fits.append(Fitted(fitted.to_dict(), moved, std, fitted.out_of_support(x), back))
    return fits
