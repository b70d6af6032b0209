"""Fit transport maps between conditions."""

from __future__ import annotations

import inspect
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from anndata import AnnData
from scanpy import logging as logg

from scot_hycnn import solver as _solver
from scot_hycnn._anndata._conditions import Mask, column_of
from scot_hycnn._anndata._fit_input import read_fit_input
from scot_hycnn._anndata._representation import obs_columns
from scot_hycnn._anndata._transport_input import check_groups_of_cells
from scot_hycnn._anndata._write import claim, claim_slots, write_fit
from scot_hycnn.solver import TrainingOptions
from scot_hycnn.solver._options import LEAVE_OUT, UNBALANCED_SOLVERS
from scot_hycnn.solver.model._map import summary_of

from ._fitting import announce, as_fitted, check_groups, complete, report_outcomes, shown_by_default, threads_of_scanpy


class FitOptions(TrainingOptions, total=False):
    """Options of :func:`hycnn_ot` that few fits need."""

    split_key: str | None
    max_cells: int | None
    skip_small: bool
    fallback: bool
    resume: bool


def hycnn_ot(  # type: ignore[misc]
    adata: AnnData,
    source_key: Hashable,
    target_key: Hashable | Sequence[Hashable],
    *,
    groupby: str | None = None,
    use_rep: str | None = None,
    n_pcs: int | None = None,
    mask_obs: Mask | None = None,
    potential: str = "hycnn",
    solver: str = "amortized",
    group_key: str | None = None,
    leave_out: str = "cells",
    predict: bool = True,
    inverse: bool = False,
    fill: str = "nan",
    device: str = "auto",
    rng: int | np.random.Generator | None = 0,
    progress: bool | None = None,
    client: Any = None,
    checkpoint_dir: str | Path | None = None,
    key_added: str | None = None,
    copy: bool = False,
    **training: Unpack[FitOptions],
) -> AnnData | None:
    r"""Fit the optimal transport map from source to target cells, and move the source cells by it.

    The cells of the two conditions are unpaired. The map :math:`T = \nabla f` is the gradient of a convex function f,
    the one that carries the source distribution to the target's at the smallest mean squared displacement. An ensemble
    of hyper input convex neural networks learns f, as :func:`scot_hycnn.solver.fit` describes.

    Parameters
    ----------
    adata
        Cells of both conditions, with a representation such as principal components; ``X`` is not needed. Cells in a
        file (``backed="r"``, ``anndata.experimental.read_lazy``) are read in blocks, and results are written to the
        object in memory. anndata cannot write a lazily read object: fit with ``predict=False``, save the map by
        ``sh.get.model(adata).save(path)``, and write moved cells by ``output`` of :func:`scot_hycnn.tl.transport`.
    source_key
        Label of the source condition, for instance ``'control'``.
    target_key
        Label of the target condition. A list fits one map for each label, all in one training loop, and each map is,
        up to rounding, the one that a separate fit gives.
    groupby
        Column of ``obs`` that holds the labels, of any type. None takes the one categorical or string column that
        holds them all; or, if all labels are names of boolean columns, these columns as masks.
    use_rep
        Key of ``obsm``, or ``'X'`` for the expression values. None takes ``'X_pca'``, or ``'pca'``.
    n_pcs
        Number of components: use only so many first columns of the representation. None takes all.
    mask_obs
        Fit on these cells only: a boolean array, or the name of a boolean column of ``obs``. Source cells outside the
        mask are moved too, unless their coordinates are NaN.
    potential
        Family of convex functions: ``'hycnn'``, others for comparison, or ``'gaussian'`` for the closed-form map
        between two Gaussians alone; :class:`scot_hycnn.solver.TrainingOptions` has the list.
    solver
        Training method: ``'amortized'``, or for comparison ``'minimax'``, ``'w2gn'``, ``'enot'``, ``'paper'``.
    group_key
        Column of ``obs`` with groups of cells, such as cell types. Groups then have the same proportions in source and
        target, so that a shift of proportions is not taken for a response. Groups with fewer than five cells in either
        condition are left out of the fit. Without it, the log warns if the proportions of a column of labels differ
        between the conditions by more than chance, and by 5 % of the cells or more.
    leave_out
        Cells that decide between networks and Gaussian map: ``'cells'``, random ones, for new cells of the same types;
        or ``'groups'``, whole groups of ``group_key`` at a time, for cells of new types, donors or cell lines. This
        also compares no change, shifts, and maps around the mean of each group (centred maps), and averages those that
        may be the nearest. The name of another column of ``obs``, such as ``'donor'``, leaves out its values: then
        groups have the same proportions within each donor, and maps act around the baseline of each donor, the mean of
        its source cells at the same proportions of groups. (A column called ``'cells'`` or ``'groups'`` must be
        renamed.)
    predict
        Move the source cells and write where they end. False stores the maps alone, since slots for hundreds of
        targets take gigabytes; ``sh.tl.transport(adata, target=...)`` then moves cells for the targets of interest.
    inverse
        Also move the target cells back to the source, by the inverse map.
    fill
        Content of the rows of all other cells: ``'nan'``, or ``'identity'`` for their own coordinates.
    device
        Device to train on: ``'auto'``, ``'cpu'``, ``'cuda'`` ...
    rng
        Seed, or a generator that gives one. The same seed gives the same result.
    progress
        Show a bar with the time that is left and the gain over the Gaussian map so far. None shows it in a terminal or
        a notebook if the fit takes more than a second, unless scanpy's verbosity is 0.
    client
        A ``dask.distributed.Client`` (extra 'dask'): its workers fit the maps. See
        :func:`scot_hycnn.solver.fit_many`.
    checkpoint_dir
        Folder for finished maps and the state of those in training, which a later call finds by its seed (``rng``).
    key_added
        Stem of all keys below; None means ``'hycnn_ot'``.
    copy
        Return a changed copy instead of changing ``adata``.

    Other Parameters
    ----------------
    split_key
        Column of ``obs`` as :func:`scot_hycnn.pp.split` writes it: fit on cells labelled ``'train'`` only, and within
        ``mask_obs``. :func:`scot_hycnn.tl.evaluate` then scores the others. Default None.
    max_cells
        Fit each condition on a random sample of at most this number of its training cells, 100,000 by default. Of cells
        in a file, only these are read, and those that are moved. Pass None to take all.
    skip_small
        Leave out targets with too few cells, in all or in groups of the source, name them in the log, and fit the
        others. Otherwise such targets are an error. Default False.
    fallback
        Use the Gaussian map, or with ``leave_out='groups'`` the shift that was nearest on groups left out, where a cell
        is far from the training source cells (gradually, at out-of-support scores from 1 to 2). The map as a whole is
        then not the gradient of a convex function. Default False.
    resume
        Continue an interrupted call from ``checkpoint_dir``, with the same result; False starts again. Default True.
    unbalanced
        Penalty for mass that is created or destroyed, in units of the mean squared distance of a source from a target
        cell, such as 0.3, or ``'auto'``: for cells that die or divide, and for types in other proportions without
        labels. Default None, by which all mass is transported. See :func:`scot_hycnn.pl.growth`.
    **training
        Every other option of :class:`scot_hycnn.solver.TrainingOptions`. The most used are ``max_steps`` (training
        steps; 250 to 650 by the number of cells) and ``n_ensemble`` (networks that are trained side by side and
        averaged; four).

    Returns
    -------
    None, or the copy. These slots are written, after everything has succeeded; ``_<slug>`` is left out if there is one
    target, and is otherwise the target's label with every character but letters, digits and ``_.-`` replaced.

    ``adata.obsm['X_hycnn_ot_<slug>']``
        T(x) of the source cells, float32, shape (n_obs, d), in the units of the representation.
    ``adata.obs['hycnn_ot_displacement_<slug>']``, ``adata.obs['hycnn_ot_std_<slug>']``
        Length of T(x) - x, and the standard deviation of T(x) over the ensemble, in the same units; NaN for others.
        The latter is 0, which is not certainty, where the fit kept the Gaussian map, which has no ensemble.
    ``adata.obs['hycnn_ot_out_of_support_<slug>']``
        Distance of a source cell from the training cells; 95 % of unseen cells of the same kind are below 1. See
        :meth:`scot_hycnn.solver.TransportMap.out_of_support`.
    ``adata.obsm['X_hycnn_ot_inverse_<slug>']``
        Target cells moved back, if ``inverse``.
    ``adata.obs['hycnn_ot_weight_<slug>']``, ``adata.obs['hycnn_ot_growth_<slug>']``
        With ``unbalanced``, for the cells of the fit: how much each source and each target cell counts (mean 1 in each
        condition or group; near 0 without a counterpart), and the growth of each source cell, its weight over that of
        the target cells that it goes to: 1 if its share of all cells stays the same, times the option ``growth``.
    ``adata.uns['hycnn_ot']``
        ``source``, ``targets`` (slug to label), ``groupby``, ``rep``, ``params``, ``versions``, ``schema_version``, and
        by slug the maps themselves, ``models``, with ``history``, ``validation``, ``certificate``, ``outcome`` (one of
        :class:`scot_hycnn.solver.Outcome`) and ``status`` (the outcome in sentences). ``validation`` has the rows of
        cells so far from all others that they took no part in the fit (``far_source``, ``far_target``). With
        ``leave_out='groups'``, or a column, it has the ``winner``, and the table ``ladder_energy_distance`` of the maps
        ``ladder`` on the ``ladder_groups`` (or donors) that were left out, with ``ladder_mean``, its standard error
        ``ladder_error``, and the ``ladder_share`` of each in the map.
        ``certificate`` and ``validation`` are measured on validation cells, which also chose the blend.

    Raises
    ------
    TypeError
        If ``adata`` is no AnnData, or an option is unknown; the message has the nearest one.
    ValueError
        If a label, column, representation or option does not exist or does not fit, source and target are the same,
        there are too few cells, or coordinates are not finite. The AnnData is then as it was.

    Warns
    -----
    UserWarning
        Before the fit, if slots will be replaced, or the representation is on raw scales or an embedding of neighbours.
        After it, if something went wrong in training; the results are written all the same. That a fit kept the
        Gaussian map is logged, without a warning.

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
    # Check what needs no data.
    chosen_on = leave_out if leave_out in LEAVE_OUT else "groups"
    options: dict[str, Any] = {**training, "potential": potential, "solver": solver, "leave_out": chosen_on}
    options |= {"device": device, "rng": rng, "progress": progress, "client": client, "checkpoint_dir": checkpoint_dir}
    names = inspect.signature(hycnn_ot).parameters.keys() - {"training"}
    of_cells, fallback = complete(options, FitOptions.__optional_keys__ | names)
    if inverse and not predict:
        raise ValueError("inverse=True moves target cells and predict=False moves none; choose one of them.")
    if leave_out == "groups" and group_key is None:
        raise ValueError("leave_out='groups' needs group_key, the column of adata.obs that holds the groups.")
    if fallback and solver in UNBALANCED_SOLVERS:
        raise ValueError(f"fallback=True changes to the Gaussian map, without which solver={solver!r} trains.")
    key = "hycnn_ot" if key_added is None else key_added

    # Read the cells, and check all targets before any is fitted.
    adata = claim(adata, copy=copy)
    group_columns: tuple[str, ...] = () if group_key is None else (group_key,)
    if leave_out not in LEAVE_OUT:
        column_of(obs_columns(adata, leave_out), leave_out, "leave_out", advice=f" It also takes {list(LEAVE_OUT)}.")
        group_columns = (leave_out, *(name for name in group_columns if name != leave_out))
    cells = read_fit_input(
        adata,
        source_key,
        target_key,
        groupby=groupby,
        use_rep=use_rep,
        n_pcs=n_pcs,
        mask_obs=mask_obs,
        group_columns=group_columns,
        seed=options["rng"],
        reads_all=(predict, inverse),
        key=key,
        fill=fill,
        **of_cells,
    )
    # What is left to check of the options is the dimension of a potential, which no number of cells changes.
    _solver.Settings.for_cells(1, 1, cells.rep.n_dims, device="cpu", rng=0, potential=potential)
    if group_columns:
        cells = check_groups(cells, chosen_on, skip_small=of_cells["skip_small"])
        if chosen_on == "groups" and predict:  # a centred map needs the group of each cell that it moves
            moved = np.concatenate([cells.source.rows, *(target.rows for target in cells.targets if inverse)])
            check_groups_of_cells(adata, group_columns, np.unique(moved), cells.source.rows)
    groups: Any = None if not group_columns else (cells.source.groups, [one.groups for one in cells.targets])
    slots, stale = claim_slots(adata, cells, key, predict=predict, inverse=inverse, weights="unbalanced" in options)
    start = announce(cells, options)

    # Fit, and move the cells.
    with threads_of_scanpy():
        targets = [target.training for target in cells.targets]
        maps = _solver.fit_many(cells.source.training, targets, groups=groups, **options)
        fits = [
            as_fitted(adata, cells, fitted, target, predict=predict, inverse=inverse, fallback=fallback)
            for fitted, target in zip(maps, cells.targets, strict=True)
        ]

    # Write everything at once, and then log and warn of the outcomes: a warning may be an error.
    added = write_fit(adata, cells, fits, slots, stale, key=key, fill=fill, fallback=fallback)
    with shown_by_default():
        logg.info(f"    finished: {summary_of(maps)}", time=start, deep=added)
    report_outcomes(adata, cells, maps, fits)
    return adata if copy else None
