"""Training and test cells."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import islice
from typing import TypeAlias

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scanpy import logging as logg
from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold

from scot_hycnn._anndata._conditions import (
    as_labels,
    column_of,
    is_integer,
    listed,
    listed_labels,
    read_labels,
    rows_of_labels,
)
from scot_hycnn._anndata._fit_input import TEST, TRAIN
from scot_hycnn._anndata._schema import check_key
from scot_hycnn._anndata._write import claim, commit
from scot_hycnn._warn import counted

_Codes = NDArray[np.intp]  # (cells,), numbers 0, 1 ... of groups or strata
_Rows = NDArray[np.intp]
_Seed: TypeAlias = "int | np.random.Generator | None"

# By whether groups stay together, and whether folds are stratified.
_SPLITTERS = {(False, False): KFold, (True, False): GroupKFold, (True, True): StratifiedGroupKFold}


def split(
    adata: AnnData,
    *,
    test_size: float = 0.2,
    groupby: str | None = None,
    holdout: Hashable | Sequence[Hashable] | None = None,
    stratify: str | Sequence[str] | None = None,
    n_folds: int | None = None,
    fold: int = 0,
    key_added: str = "split",
    rng: int | np.random.Generator | None = 0,
    copy: bool = False,
) -> AnnData | None:
    """Label every cell ``'train'`` or ``'test'``.

    ====================================== =============================================================
    call                                   test cells
    ====================================== =============================================================
    ``split(adata)``                       random cells, ``test_size`` of them
    ``split(adata, stratify=[...])``       the same share of every combination of labels, to within a cell
    ``split(adata, groupby=, holdout=)``   the groups named: a cell type, a donor
    ``split(adata, groupby=)``             whole groups at random, about ``test_size`` of the cells
    ``split(adata, n_folds=5, fold=k)``    fold k of 5, with ``stratify``, ``groupby`` (whole groups) or both
    ====================================== =============================================================

    Pass the column to :func:`scot_hycnn.pp.pca` and ``tl.hycnn_ot`` as ``split_key``. Steps on all cells, such as
    highly variable genes and ``sc.pp.scale``, leak test cells into training; steps on single cells
    (``sc.pp.normalize_total``, ``sc.pp.log1p``) do not.

    Parameters
    ----------
    adata
        Annotated cells.
    test_size
        Fraction of the cells to test on, between 0 and 1. ``holdout`` and ``n_folds`` set it themselves.
    groupby
        Column of ``obs`` whose groups stay together, for instance ``'donor'``. Every cell needs a value.
    holdout
        Label, or list of labels, of ``groupby`` to test on.
    stratify
        Column or columns of ``obs``, for instance ``['condition', 'cell_type']``: every combination of their labels (a
        missing one is a label) has its share of test cells. Combinations with fewer cells than 1 / ``test_size``, or
        than ``n_folds``, may have no test or training cell; the log names them.
    n_folds
        Number of folds, at least 2. Calls with the same ``rng`` and every ``fold`` test each cell exactly once.
    fold
        Number of the fold to test on, from 0.
    key_added
        Column of ``obs`` to write. An earlier split is replaced, with a warning.
    rng
        Seed, or a generator; with ``n_folds`` an integer, so that all folds are of one partition.
    copy
        Return a changed copy instead of changing ``adata``.

    Returns
    -------
    None, or the copy. ``adata.obs['split']`` is categorical with the categories ``'train'`` and ``'test'``.

    Raises
    ------
    ValueError
        If a column or label does not exist, options exclude each other, no training or test cells would remain, or
        ``key_added`` names a column that is no split. Then nothing is changed.

    Examples
    --------
    >>> import scot_hycnn as sh
    >>> adata = sh.datasets.pbmc_planted(n_cells=400)
    >>> sh.pp.split(adata, stratify=["condition", "cell_type"])
    >>> adata.obs["split"].value_counts().to_dict()
    {'train': 320, 'test': 80}

    A cell type that training never sees:

    >>> sh.pp.split(adata, groupby="cell_type", holdout="CD19+ B", key_added="without_b")
    >>> adata.obs.loc[adata.obs["without_b"] == "test", "cell_type"].unique().tolist()
    ['CD19+ B']
    """
    adata = claim(adata, copy=copy)
    obs, n_obs = adata.obs, adata.n_obs
    check_key(key_added)
    if key_added in obs:
        column = column_of(obs, key_added, "key_added")
        # A subset of the cells may have lost one of the two categories.
        if not isinstance(column.dtype, pd.CategoricalDtype) or not set(column.cat.categories) <= {TRAIN, TEST}:
            raise ValueError(
                f"key_added={key_added!r} would replace adata.obs[{key_added!r}], which is no split of {TRAIN!r} and "
                f"{TEST!r} but has {listed_labels(obs, key_added)}; pass another key_added."
            )

    # Options that exclude each other.
    if n_obs < 2:
        raise ValueError(f"adata has {counted(n_obs, 'cell')}; training and test cells need at least one each.")
    if holdout is not None and groupby is None:
        raise ValueError(f"holdout={holdout!r} are labels of groups; name their column with groupby.")
    if holdout is not None and n_folds is not None:
        raise ValueError(f"holdout={holdout!r} names the test cells, and so does n_folds={n_folds}; pass one of them.")
    if groupby is not None and stratify is not None and n_folds is None:
        raise ValueError(
            f"stratify={stratify!r} cannot be kept when whole groups of adata.obs[{groupby!r}] go to one side: leave "
            "it out, or pass n_folds."
        )
    if n_folds is None and holdout is None and not 0 < test_size < 1:
        raise ValueError(f"test_size={test_size!r} has to be a fraction between 0 and 1.")

    columns = [stratify] if isinstance(stratify, str) else [] if stratify is None else list(stratify)
    strata = None if stratify is None else _strata(obs, columns)
    groups = None if groupby is None else _groups(obs, groupby)
    if n_folds is not None:
        test = _fold(groups, strata, n_obs, n_folds=n_folds, fold=fold, rng=rng)
    elif groups is None:
        test = _random_cells(strata, n_obs, test_size, np.random.default_rng(rng))
    elif holdout is None:
        test = _random_groups(groups, test_size, np.random.default_rng(rng))
    else:
        test = _held_out(obs, str(groupby), holdout)

    is_test = np.zeros(n_obs, dtype=bool)
    is_test[test] = True
    if strata is not None:
        # Strata that are too small to be on both sides are named: an evaluation by stratum would miss them.
        n_cells, n_test = np.bincount(strata), np.bincount(strata, weights=is_test)
        one_sided = np.flatnonzero((n_test == 0) | (n_test == n_cells))
        if len(one_sided):
            named = [(obs[columns].iloc[int(np.argmax(strata == code))], n_cells[code]) for code in one_sided[:10]]
            shown = ", ".join(f"{' / '.join(map(str, labels))} ({n})" for labels, n in named)
            more = f" and {len(one_sided) - 10} more" if len(one_sided) > 10 else ""
            logg.warning(f"of stratify, too small to be in both training and test cells: {shown}{more}")
    labels = pd.Categorical(np.where(is_test, TEST, TRAIN), categories=[TRAIN, TEST])
    added = commit(adata, {"obs": {key_added: labels}})
    logg.info(f"{n_obs - len(test)} training and {counted(len(test), 'test cell')}", deep=added)
    return adata if copy else None


def _strata(obs: pd.DataFrame, columns: list[str]) -> _Codes:
    if not columns:
        raise ValueError(f"stratify=[] is empty: name at least one column of adata.obs; it has {listed(obs.columns)}.")
    for column in columns:
        column_of(obs, column, "stratify")
    columns = list(dict.fromkeys(columns))
    codes = obs[columns].astype(str).groupby(columns, sort=True, dropna=False).ngroup()
    return np.asarray(codes, dtype=np.intp)


def _groups(obs: pd.DataFrame, groupby: str) -> _Codes:
    column = column_of(obs, groupby, "groupby")
    read_labels(column, f"adata.obs[{groupby!r}]")  # raises for values that cannot be labels
    codes, labels = pd.factorize(column)
    n_missing = int((codes < 0).sum())
    if n_missing:
        raise ValueError(
            f"adata.obs[{groupby!r}] has no value in {n_missing} of {len(obs)} cells, whose group is unknown: fill "
            "them in, or leave these cells out."
        )
    if len(labels) < 2:
        raise ValueError(f"adata.obs[{groupby!r}] has one group only, {listed(labels)}; a split needs at least two.")
    return codes


def _random_cells(strata: _Codes | None, n_obs: int, test_size: float, rng: np.random.Generator) -> _Rows:
    # Systematic sampling: every 1/test_size-th of the shuffled cells, sorted by stratum. scikit-learn's
    # StratifiedShuffleSplit refuses strata of one cell, and more strata than test cells.
    order = _shuffled(strata, n_obs, rng)
    n_test = min(max(round(test_size * n_obs), 1), n_obs - 1)
    return np.asarray(order[(np.arange(n_test) * n_obs + rng.integers(n_obs)) // n_test])


def _shuffled(strata: _Codes | None, n_obs: int, rng: np.random.Generator) -> _Rows:
    order = rng.permutation(n_obs)
    return order if strata is None else order[np.argsort(strata[order], kind="stable")]


def _random_groups(groups: _Codes, test_size: float, rng: np.random.Generator) -> _Rows:
    # Groups in random order; a group is taken if it brings the number of test cells nearer to their share.
    sizes = np.bincount(groups)
    order = rng.permutation(len(sizes))
    wanted, n_test, taken = test_size * len(groups), 0, []
    for group in order:
        n_more = n_test + sizes[group]
        if abs(n_more - wanted) < abs(n_test - wanted) and n_more < len(groups):
            taken.append(group)
            n_test = n_more
    return np.flatnonzero(np.isin(groups, taken or order[np.argmin(sizes[order])]))


def _held_out(obs: pd.DataFrame, groupby: str, holdout: object) -> _Rows:
    labels = as_labels(holdout)
    found = rows_of_labels(obs, groupby, labels)
    unknown = [label for label, rows in zip(labels, found, strict=True) if rows is None or not len(rows)]
    if unknown or not labels:
        what = f"={unknown[0]!r}: no cell has this label in" if unknown else " is an empty list of labels of"
        raise ValueError(f"holdout{what} adata.obs[{groupby!r}]; it has {listed_labels(obs, groupby)}.")
    test = np.unique(np.concatenate([rows for rows in found if rows is not None]))
    if len(test) == len(obs):
        raise ValueError(f"holdout={holdout!r} are all groups of adata.obs[{groupby!r}]; no training cells remain.")
    return test


def _fold(groups: _Codes | None, strata: _Codes | None, n_obs: int, *, n_folds: int, fold: int, rng: _Seed) -> _Rows:
    n_units, units = (n_obs, "cells") if groups is None else (int(groups.max()) + 1, "groups")
    if not is_integer(n_folds) or not 2 <= n_folds <= n_units:
        raise ValueError(f"n_folds={n_folds!r} has to be an integer from 2 to {n_units}, the number of {units}.")
    if not is_integer(fold) or not 0 <= fold < n_folds:
        raise ValueError(f"fold={fold!r} has to be an integer from 0 to {n_folds - 1}.")
    if not is_integer(rng):
        raise ValueError(f"rng={rng!r}: folds of one partition need the same integer in every call.")
    if strata is not None:
        n_cells = np.bincount(strata)
        if n_cells.max() < n_folds:
            raise ValueError(
                f"No combination of the labels in stratify has {n_folds} cells, one for each fold: use fewer columns."
            )
        if groups is None:
            # Every n_folds-th of the shuffled cells, sorted by stratum, as in _random_cells.
            return _shuffled(strata, n_obs, np.random.default_rng(rng))[fold::n_folds]
        # scikit-learn warns of strata with fewer cells than folds. Whole groups keep strata only roughly, so these are
        # divided together with the largest stratum.
        strata = np.where(n_cells[strata] < n_folds, np.argmax(n_cells), strata)
    splitter = _SPLITTERS[groups is not None, strata is not None]
    seed = int(np.random.default_rng(rng).integers(2**31))
    splits = splitter(n_folds, shuffle=True, random_state=seed).split(np.zeros(n_obs), strata, groups)
    _, test = next(islice(splits, fold, None))
    if not len(test):  # uneven groups may leave a fold empty
        raise ValueError(
            f"fold={fold} of {n_folds} is empty: the groups are too uneven; use fewer folds or another rng."
        )
    return np.asarray(test)
