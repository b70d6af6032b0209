"""Training and test cells."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Sequence
from itertools import islice
from numbers import Integral

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scanpy import logging as logg
from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold

from scot_hycnn._anndata import (
    TEST,
    TRAIN,
    as_labels,
    check_key,
    claim,
    column_of,
    commit,
    labelled_rows,
    listed,
    listed_labels,
    read_labels,
)

_Codes = NDArray[np.intp]  # (cells,), numbers 0, 1 ... of groups or strata
_Rows = NDArray[np.intp]

_SPLITTERS = {
    # (in groups, stratified)
    (False, False): KFold,
    (False, True): StratifiedKFold,
    (True, False): GroupKFold,
    (True, True): StratifiedGroupKFold,
}


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

    Pass the column to :func:`scot_hycnn.pp.pca` and ``tl.hycnn_ot`` as ``split_key``: whatever is computed before,
    on all cells, has seen the test cells. That goes for highly variable genes and for ``sc.pp.scale`` too, and not for
    what treats each cell by itself (``sc.pp.normalize_total``, ``sc.pp.log1p``).

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
        Column or columns of ``obs``, for instance ``['condition', 'cell_type']``: each combination of their labels (a
        missing one counts as a label) has its share in the test cells. One with fewer cells than 1 / ``test_size``,
        or than ``n_folds``, may have no test cell, or no training cell; it is then named in the log.
    n_folds
        Number of folds, at least 2. Calls with the same ``rng`` and every ``fold`` test each cell exactly once.
    fold
        Which of them to test on, from 0.
    key_added
        Column of ``obs`` to write.
    rng
        Seed, or a generator; with ``n_folds`` a whole number, so that all folds are of one partition.
    copy
        Return a changed copy instead of changing ``adata``.

    Returns
    -------
    None, or the copy. ``adata.obs['split']`` is categorical with the categories ``'train'`` and ``'test'``.

    Raises
    ------
    TypeError
        If ``adata`` is no AnnData.
    ValueError
        If a column or label does not exist, options do not go together, no training or test cells would remain, or
        ``key_added`` names a column that is no split. The AnnData is then as it was.

    Warns
    -----
    UserWarning
        If an earlier split is replaced.

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
    _check_slot(adata.obs, key_added)
    _check_options(adata.obs, groupby, holdout, stratify, n_folds)
    strata = None if stratify is None else _strata(adata.obs, [stratify] if isinstance(stratify, str) else stratify)
    groups = None if groupby is None else _groups(adata.obs, groupby)
    if n_folds is not None:
        test = _fold(groups, strata, adata.n_obs, n_folds=n_folds, fold=fold, rng=rng)
    elif groups is None:
        test = _random_cells(strata, adata.n_obs, _fraction(test_size), np.random.default_rng(rng))
    elif holdout is None:
        test = _random_groups(groups, _fraction(test_size), np.random.default_rng(rng))
    else:
        test = _held_out(adata.obs, str(groupby), holdout)
    is_test = np.zeros(adata.n_obs, dtype=bool)
    is_test[test] = True
    _name_one_sided(adata.obs, stratify, strata, is_test)
    labels = pd.Categorical(np.where(is_test, TEST, TRAIN), categories=[TRAIN, TEST])
    commit(adata, {"obs": {key_added: labels}}, stacklevel=3)
    logg.info(f"{adata.n_obs - len(test)} training and {len(test)} test cells", deep=f"added {key_added!r} (adata.obs)")
    return adata if copy else None


def _check_slot(obs: pd.DataFrame, key_added: str) -> None:
    check_key(key_added)
    if key_added in obs:
        column = column_of(obs, key_added, "key_added")
        # A subset of the cells may have lost one of the two.
        ours = isinstance(column.dtype, pd.CategoricalDtype) and set(column.cat.categories) <= {TRAIN, TEST}
        if not ours:
            raise ValueError(
                f"key_added={key_added!r} would replace adata.obs[{key_added!r}], which is no split (categorical with "
                f"{TRAIN!r} and {TEST!r}) but has {listed_labels(obs, key_added)}; pass another key_added."
            )


def _check_options(
    obs: pd.DataFrame,
    groupby: str | None,
    holdout: object,
    stratify: str | Sequence[str] | None,
    n_folds: int | None,
) -> None:
    if len(obs) < 2:
        raise ValueError(f"adata has {len(obs)} cells; training and test cells need at least one each.")
    if holdout is not None and groupby is None:
        raise ValueError(f"holdout={holdout!r} are labels of groups; name their column with groupby.")
    if holdout is not None and n_folds is not None:
        raise ValueError(f"holdout={holdout!r} names the test cells, and so does n_folds={n_folds}; pass one of them.")
    if groupby is not None and stratify is not None and n_folds is None:
        raise ValueError(
            f"stratify={stratify!r} cannot be kept when whole groups of adata.obs[{groupby!r}] go to one side; "
            "leave it out, or pass n_folds, which comes as close as the groups allow."
        )


def _columns_of(obs: pd.DataFrame, name: str, columns: Sequence[str]) -> list[str]:
    if not len(columns):
        raise ValueError(
            f"{name}={list(columns)!r} is empty: name at least one column of adata.obs; it has {listed(obs.columns)}."
        )
    for column in columns:
        column_of(obs, column, name)
    return list(dict.fromkeys(columns))


def _strata(obs: pd.DataFrame, stratify: Sequence[str]) -> _Codes:
    columns = _columns_of(obs, "stratify", stratify)
    codes = obs[columns].astype(str).groupby(columns, sort=True, dropna=False).ngroup()
    return np.asarray(codes, dtype=np.intp)


def _groups(obs: pd.DataFrame, groupby: str) -> _Codes:
    (column,) = _columns_of(obs, "groupby", [groupby])
    read_labels(obs[column], f"adata.obs[{column!r}]")  # refuses what cannot be labels
    codes, labels = pd.factorize(obs[column].astype(np.float32) if obs[column].dtype == np.float16 else obs[column])
    n_missing = int((codes < 0).sum())
    if n_missing:
        raise ValueError(
            f"adata.obs[{groupby!r}] has no value in {n_missing} of {len(obs)} cells, whose group is unknown; fill "
            f"them in, or leave these cells out: adata = adata[adata.obs[{groupby!r}].notna()].copy()."
        )
    if len(labels) < 2:
        raise ValueError(f"adata.obs[{groupby!r}] has one group only, {listed(labels)}; a split needs at least two.")
    return codes


def _fraction(test_size: float) -> float:
    if not 0 < test_size < 1:
        raise ValueError(f"test_size={test_size!r} has to be a fraction between 0 and 1.")
    return test_size


def _random_cells(strata: _Codes | None, n_obs: int, test_size: float, rng: np.random.Generator) -> _Rows:
    """Every 1/test_size-th of the shuffled cells, sorted by stratum: systematic sampling.

    scikit-learn's StratifiedShuffleSplit refuses strata of one cell, and more strata than test cells.
    """
    order = rng.permutation(n_obs)
    if strata is not None:
        order = order[np.argsort(strata[order], kind="stable")]
    n_test = min(max(round(test_size * n_obs), 1), n_obs - 1)
    return np.asarray(order[(np.arange(n_test) * n_obs + rng.integers(n_obs)) // n_test])


def _random_groups(groups: _Codes, test_size: float, rng: np.random.Generator) -> _Rows:
    """Groups in random order, each taken if it brings the test cells nearer to their share."""
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
    if not labels:
        raise ValueError("holdout is an empty list; name at least one group to test on.")
    found = []
    for label in labels:
        rows = labelled_rows(obs, groupby, label)
        if rows is None or not len(rows):
            raise ValueError(
                f"holdout={label!r}: no cell has this label in adata.obs[{groupby!r}]; it has "
                f"{listed_labels(obs, groupby)}."
            )
        found.append(rows)
    test = np.unique(np.concatenate(found))
    if len(test) == len(obs):
        raise ValueError(f"holdout={holdout!r} are all groups of adata.obs[{groupby!r}]; no training cells remain.")
    return test


def _fold(
    groups: _Codes | None,
    strata: _Codes | None,
    n_obs: int,
    *,
    n_folds: int,
    fold: int,
    rng: int | np.random.Generator | None,
) -> _Rows:
    n_units, units = (n_obs, "cells") if groups is None else (int(groups.max()) + 1, "groups")
    if not _is_whole(n_folds) or not 2 <= n_folds <= n_units:
        raise ValueError(f"n_folds={n_folds!r} has to be a whole number from 2 to {n_units}, the number of {units}.")
    if not _is_whole(fold) or not 0 <= fold < n_folds:
        raise ValueError(f"fold={fold!r} has to be a whole number from 0 to {n_folds - 1}.")
    if not _is_whole(rng):
        raise ValueError(f"rng={rng!r}: folds of one partition need the same whole number in every call.")
    if strata is not None and np.bincount(strata).max() < n_folds:
        raise ValueError(
            f"No combination of the labels in stratify has {n_folds} cells, one for each fold; use fewer columns."
        )
    splitter = _SPLITTERS[groups is not None, strata is not None]
    seed = int(np.random.default_rng(rng).integers(2**31))
    splits = splitter(n_folds, shuffle=True, random_state=seed).split(np.zeros(n_obs), strata, groups)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)  # named in our log
        _, test = next(islice(splits, fold, None))
    if not len(test):  # groups may leave no choice
        raise ValueError(
            f"fold={fold} of {n_folds} is empty: the groups are too uneven; use fewer folds or another rng."
        )
    return np.asarray(test)


def _is_whole(number: object) -> bool:
    return isinstance(number, Integral) and not isinstance(number, bool)


def _name_one_sided(
    obs: pd.DataFrame, stratify: str | Sequence[str] | None, strata: _Codes | None, is_test: NDArray[np.bool_]
) -> None:
    """Say which strata are too small to be on both sides: an evaluation by stratum would miss them."""
    if strata is None:
        return
    n_each = np.bincount(strata)
    n_test = np.bincount(strata, weights=is_test)
    one_sided = np.flatnonzero((n_test == 0) | (n_test == n_each))
    if len(one_sided):
        columns = [stratify] if isinstance(stratify, str) else list(stratify or [])
        named = {code: obs[columns].iloc[int(np.argmax(strata == code))] for code in one_sided[:10]}
        shown = ", ".join(f"{' / '.join(map(str, labels))} ({n_each[code]})" for code, labels in named.items())
        more = f" and {len(one_sided) - 10} more" if len(one_sided) > 10 else ""
        logg.warning(f"of stratify, too small to be in both training and test cells: {shown}{more}")
