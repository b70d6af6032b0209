"""Fit one model to all conditions of a screen."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias, Unpack

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scanpy import logging as logg

from scot_hycnn._anndata._conditions import Mask, as_labels
from scot_hycnn._anndata._files import read_uns
from scot_hycnn._anndata._fit_input import FitInput, read_fit_input
from scot_hycnn._anndata._schema import SCREEN, SHARED_THETA, is_fit
from scot_hycnn._anndata._write import Fitted, claim, claim_slots, write_fit
from scot_hycnn._anndata.evaluation._screen_input import (
    controls_of_plates,
    other_conditions,
    read_covariates,
    read_embedding,
    stored_screen,
)
from scot_hycnn.solver import Screen, Settings, TrainingOptions, fit_screen
from scot_hycnn.solver.model._map import summary_of

from ._fitting import announce, as_fitted, check_groups, complete, report_outcomes, shown_by_default, threads_of_scanpy

ScreenModel: TypeAlias = AnnData | Screen | str | Path


class ScreenOptions(TrainingOptions, total=False):
    """Options of :func:`hycnn_screen` that few fits need."""

    split_key: str | None
    max_cells: int | None
    skip_small: bool
    fallback: bool


def hycnn_screen(
    adata: AnnData,
    source_key: Hashable,
    targets: Hashable | Sequence[Hashable] | None = None,
    *,
    groupby: str,
    covariate_keys: Sequence[str] = (),
    embedding_key: str | pd.DataFrame | None = None,
    model: ScreenModel | None = None,
    use_rep: str | None = None,
    n_pcs: int | None = None,
    mask_obs: Mask | None = None,
    group_key: str | None = None,
    plate_key: str | None = None,
    predict: bool = True,
    fill: str = "nan",
    device: str = "auto",
    rng: int | np.random.Generator | None = 0,
    progress: bool | None = None,
    client: Any = None,
    checkpoint_dir: str | Path | None = None,
    key_added: str | None = None,
    copy: bool = False,
    **training: Unpack[ScreenOptions],
) -> AnnData | None:
    r"""Fit the transport maps from a control to all conditions of a screen, which share their networks.

    A screen has many conditions with few cells each, and conditions respond by pathways that they share. The potential
    of a condition c is a non-negative combination of convex functions,

    .. math::
        f_c(x) = \tfrac12 s_c\, x^\top G_c\, x + \langle a_c, x\rangle + \sum_r v_{cr} f_r(x),
        \qquad s_c, v_{cr} \ge 0

    with the condition's Gaussian map :math:`G_c`, and networks :math:`f_r` that learn from the cells of all conditions.
    It is convex, so that its gradient is an optimal transport map, as with :func:`scot_hycnn.tl.hycnn_ot`. Held-out
    cells choose for each condition among this map, the Gaussian map and, where cells are many, own networks. See
    :func:`scot_hycnn.solver.fit_screen`.

    Parameters
    ----------
    adata
        Cells of all conditions, with a representation such as principal components.
    source_key
        Label of the control.
    targets
        Labels of the conditions; None takes all others in the column. Their order makes no difference.
    groupby
        Column of ``obs`` that holds the labels.
    covariate_keys
        Columns of ``obs`` with what is known of conditions, such as drug, dose and minutes, each with one value in a
        condition: numbers or names. Conditions that were not measured are then predicted by
        :func:`scot_hycnn.tl.transport`.
    embedding_key
        Key of ``uns`` with a DataFrame of vectors of the conditions, such as fingerprints of drugs, one row for each
        label; or the DataFrame.
    model
        A fitted screen whose networks are kept: an AnnData that holds one under the same key, a path to it, or a
        :class:`scot_hycnn.solver.Screen`. Only the weights of ``targets`` are fitted, which takes a part of a second
        each. The result holds these conditions.
    use_rep, n_pcs, mask_obs
        As for :func:`scot_hycnn.tl.hycnn_ot`: key of ``obsm`` or ``'X'``, number of its columns, and cells to fit on.
    group_key
        Column of ``obs`` with groups such as cell types. They count the same in all conditions and in the control, so
        that a map does not mistake a shift of their proportions for a response. A condition needs two groups with five
        cells; cells of smaller groups are left out of its fit.
    plate_key
        Column of ``obs`` with the plate or batch of each cell. The source of a condition are then the control cells of
        its own plates, and only these are moved by its map; other control cells have NaN there.
    predict
        Move the source cells by the map of every condition. False stores the maps alone, since the moved cells of
        hundreds of conditions take gigabytes.
    fill
        Content of the rows of all other cells: ``'nan'``, or ``'identity'`` for their own coordinates.
    device
        ``'auto'``, ``'cpu'``, ``'cuda'`` ...
    rng
        Seed, or a generator that gives one.
    progress
        Show a progress bar. None shows it in a terminal or a notebook if the fit takes more than a second, unless
        scanpy's verbosity is 0.
    client
        A ``dask.distributed.Client`` (extra 'dask'), whose workers fit the weights of conditions.
    checkpoint_dir
        Folder for the state of training, from which a later call with the same seed continues.
    key_added
        Stem of all keys; None means ``'hycnn_screen'``.
    copy
        Return a changed copy instead of changing ``adata``.

    Other Parameters
    ----------------
    split_key, max_cells, skip_small, fallback
        As for :func:`scot_hycnn.tl.hycnn_ot`.
    **training
        Options of :class:`scot_hycnn.solver.TrainingOptions`, such as ``max_steps``.

    Returns
    -------
    None, or the copy. The slots are those of :func:`scot_hycnn.tl.hycnn_ot` with several targets, under
    ``'hycnn_screen'``, so that all functions that take ``key=`` read them. ``adata.uns['hycnn_screen']`` also has

    ``screen``
        The state of the :class:`scot_hycnn.solver.Screen`, and ``shared_theta``, the parameters of its networks.
    ``choices``, ``params['covariate_keys']``
        What each condition's map is (``'gaussian'``, ``'dictionary'``, ``'own networks'``), and the covariates.

    Raises
    ------
    TypeError
        If ``adata`` is no AnnData, ``model`` or ``embedding_key`` is of another type, or an option is unknown.
    ValueError
        If a label, column or option does not exist or does not fit, a covariate has several values in a condition, or a
        condition has too few cells. The AnnData is then as it was.

    Warns
    -----
    UserWarning
        As :func:`scot_hycnn.tl.hycnn_ot`.

    See Also
    --------
    scot_hycnn.get.summary : which conditions respond, and how well that is predicted.
    scot_hycnn.get.similarity : which conditions act alike.

    References
    ----------
    Hundrieser, Kong & Schmidt-Hieber (2026), arXiv:2604.26942 (HyCNN). Brenier (1991), Comm. Pure Appl. Math. 44,
    375-417 (the map is a gradient).

    Examples
    --------
    >>> import scot_hycnn as sh
    >>> adata = sh.datasets.screen_planted(n_conditions=6, n_cells=30)
    >>> sh.tl.hycnn_screen(
    ...     adata, "control", groupby="condition", covariate_keys=["dose", "hours"], n_pcs=5, potential="gaussian"
    ... )
    >>> len(adata.uns["hycnn_screen"]["targets"])
    6

    A dose that was not measured:

    >>> sh.tl.transport(adata, "hycnn_screen", covariates={"dose": 3, "hours": 24})
    >>> adata.obsm["X_hycnn_screen_dose_3_hours_24"].shape
    (300, 5)
    """
    # Check what needs no data.
    options: dict[str, Any] = {**training, "device": device, "rng": rng, "progress": progress}
    options |= {"client": client, "checkpoint_dir": checkpoint_dir}
    names = {*ScreenOptions.__optional_keys__, *inspect.signature(hycnn_screen).parameters} - {"training"}
    of_cells, fallback = complete(options, names)
    key = "hycnn_screen" if key_added is None else key_added
    covariate_keys = [covariate_keys] if isinstance(covariate_keys, str) else list(covariate_keys)

    # Read the cells, and what is known of each condition, before anything is fitted.
    adata = claim(adata, copy=copy)
    fitted = None if model is None else _screen_of(model, key)
    labels = other_conditions(adata, source_key, groupby) if targets is None else as_labels(targets)
    cells = read_fit_input(
        adata,
        source_key,
        sorted(labels, key=str),  # the result does not depend on the order of conditions
        groupby=groupby,
        use_rep=use_rep,
        n_pcs=n_pcs,
        mask_obs=mask_obs,
        group_columns=() if group_key is None else (group_key,),
        seed=options["rng"],
        reads_all=(predict, False),
        key=key,
        fill=fill,
        **of_cells,
    )
    # The source cells of each target, if they are not all of them.
    controls = {} if plate_key is None else controls_of_plates(adata, plate_key, cells)
    if group_key is not None:
        cells = check_groups(cells, "cells", skip_small=of_cells["skip_small"], controls=controls)
    rows = {target.label: target.rows for target in cells.targets}
    known: dict[str, Any] = {"covariates": read_covariates(adata, covariate_keys, rows) or None, "model": fitted}
    known["embedding"] = read_embedding(adata, embedding_key, [*rows])
    x, known["groups"] = _sources(cells, controls)
    Settings.for_cells(1, 1, cells.rep.n_dims, device="cpu", rng=0, potential=options.get("potential", "hycnn"))
    slots, stale = claim_slots(adata, cells, key, predict=predict, inverse=False, weights=False)
    start = announce(cells, options)

    # Fit, and move the cells.
    with threads_of_scanpy():
        ys = [target.training for target in cells.targets]
        screen = fit_screen(x, ys, **known, **options)
        options = {"predict": predict, "inverse": False, "fallback": fallback}
        fits = [
            as_fitted(adata, cells, fitted, target, **options, is_control=controls.get(target.label))
            for fitted, target in zip(screen.maps, cells.targets, strict=True)
        ]
    stored, entries = _as_stored(screen, fits, list(slots))
    params = {"fallback": fallback, "covariate_keys": np.array(covariate_keys, dtype=np.str_)}
    params |= {} if plate_key is None else {"plate_key": plate_key}

    # Write everything at once, and then log and warn of the outcomes: a warning may be an error.
    added = write_fit(adata, cells, stored, slots, stale, key=key, fill=fill, entries=entries, **params)
    with shown_by_default():
        chosen = ", ".join(f"{n} {choice}" for choice, n in sorted(Counter(screen.choices).items()))
        logg.info(f"    finished: {summary_of(screen.maps)}; maps are {chosen}", time=start, deep=added)
    report_outcomes(adata, cells, screen.maps, fits)
    return adata if copy else None


def _sources(cells: FitInput, controls: Mapping[str, NDArray[np.bool_]]) -> tuple[Any, Any]:
    """Return the source cells to fit on, or those of each target, and the groups of all cells."""
    x, labels, of_targets = cells.source.training, cells.source.groups, [target.groups for target in cells.targets]
    if not controls:
        return x, None if labels is None else (labels, of_targets)
    whole, of_target = np.asarray(x), [controls[target.label] for target in cells.targets]
    rows = {id(one): one[cells.source.is_training] for one in of_target}
    tables = {key: whole[some] for key, some in rows.items()}  # conditions of one plate share its cells
    groups = None if labels is None else ([labels[rows[id(one)]] for one in of_target], of_targets)
    return [tables[id(one)] for one in of_target], groups


def _as_stored(screen: Screen, fits: Sequence[Fitted], slugs: Sequence[str]) -> tuple[list[Fitted], dict[str, Any]]:
    """Return fits without the networks that they share, and what is stored of the screen beside them."""
    # These networks are stored once; read_fit joins them to the parameters of each map.
    shared_theta, stored = screen.theta.cpu().numpy().reshape(1, -1), []
    # The training that they share is the history of each of these maps; the error of its mean gain is not known.
    history = {**screen.history, "J_error": np.full(len(screen.history.get("step", ())), np.nan)}
    for fit in fits:
        own, of_networks = np.split(fit.state["theta"], [-shared_theta.shape[1]], axis=1)
        shares = np.array_equal(of_networks, shared_theta)
        state = {**fit.state, "theta": own, SHARED_THETA: True, "history": history} if shares else fit.state
        stored.append(replace(fit, state=state))
    choices = dict(zip(slugs, screen.choices, strict=True))
    return stored, {SCREEN: screen.to_dict(), SHARED_THETA: shared_theta, "choices": choices}


def _screen_of(model: ScreenModel, key: str) -> Screen:
    """Return a fitted screen from what the user passes as ``model``."""
    if isinstance(model, Screen):
        return model
    if isinstance(model, (str, Path)):
        model = read_uns(Path(model))
    if not isinstance(model, AnnData):
        raise TypeError(
            f"model is of type {type(model).__name__}; it takes an AnnData that holds a screen, a path, or a Screen."
        )
    screens = [name for name, value in model.uns.items() if is_fit(value) and SCREEN in value]
    name = screens[0] if len(screens) == 1 else key
    return Screen.from_dict(stored_screen(model, name))
