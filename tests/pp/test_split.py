"""Splits: known shares, whole groups, folds that partition, and sentences for what does not work."""

from __future__ import annotations

import sys

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from hypothesis import given, settings
from hypothesis import strategies as st

import scot_hycnn as sh


def cells(**columns):
    n_obs = len(next(iter(columns.values())))
    obs = pd.DataFrame(columns, index=[f"cell{i}" for i in range(n_obs)])
    return ad.AnnData(np.ones((n_obs, 2), dtype=np.float32), obs=obs)


def is_tested(adata, key="split"):
    return (adata.obs[key] == "test").to_numpy()


@pytest.fixture
def adata():
    rng = np.random.default_rng(0)
    return cells(
        condition=pd.Categorical(rng.choice(["control", "treated"], 200)),
        cell_type=rng.choice(["B", "T", "NK"], 200, p=[0.6, 0.35, 0.05]),
        donor=rng.integers(8, size=200),
    )


# ---- what is written


def test_the_column(adata):
    assert sh.pp.split(adata) is None
    column = adata.obs["split"]
    assert column.cat.categories.tolist() == ["train", "test"]
    assert not column.cat.ordered
    assert column.value_counts().to_dict() == {"train": 160, "test": 40}


def test_copy_and_view(adata):
    other = sh.pp.split(adata, copy=True)
    assert "split" not in adata.obs
    view = adata[:50]
    sh.pp.split(view)
    assert is_tested(view).sum() == 10
    assert "split" not in adata.obs
    assert is_tested(other).sum() == 40


@pytest.mark.filterwarnings("ignore:Writing zarr v2 data:UserWarning")
@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_round_trip(adata, tmp_path, suffix):
    sh.pp.split(adata)
    getattr(adata, f"write_{suffix}")(tmp_path / f"cells.{suffix}")
    read = getattr(ad, f"read_{suffix}")(tmp_path / f"cells.{suffix}")
    np.testing.assert_array_equal(is_tested(read), is_tested(adata))
    with pytest.warns(UserWarning, match=r"Replacing 'split' \(adata.obs\); pass key_added"):
        sh.pp.split(read)


def test_cells_of_a_file(adata, tmp_path):
    adata.write_h5ad(tmp_path / "cells.h5ad")
    backed = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    sh.pp.split(backed)
    sh.pp.split(adata)
    np.testing.assert_array_equal(is_tested(backed), is_tested(adata))
    backed.file.close()


def test_seed_decides_and_the_global_generator_is_left_alone(adata):
    state = np.random.get_state()[1].copy()
    first, again, other = (
        is_tested(sh.pp.split(adata, rng=rng, copy=True)) for rng in (0, np.random.default_rng(0), 1)
    )
    sh.pp.split(adata, n_folds=5)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert np.array_equal(np.random.get_state()[1], state)


def test_our_own_column_is_replaced_with_a_warning_also_when_it_has_lost_a_category(adata):
    sh.pp.split(adata)
    training = adata[~is_tested(adata)].copy()
    assert training.obs["split"].cat.categories.tolist() == ["train"]
    with pytest.warns(UserWarning, match="Replacing 'split'"):
        sh.pp.split(training)
    assert is_tested(training).sum() == 32


# ---- random cells


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=12),
    test_size=st.floats(0.05, 0.95),
    seed=st.integers(0, 10**6),
)
def test_every_stratum_has_its_share_to_within_a_cell(sizes, test_size, seed):
    n_obs = sum(sizes)
    if n_obs < 2:
        return
    labels = np.random.default_rng(seed).permutation(np.repeat([f"s{i}" for i in range(len(sizes))], sizes))
    adata = cells(label=labels)
    sh.pp.split(adata, stratify="label", test_size=test_size, rng=seed)
    n_test = is_tested(adata).sum()
    assert n_test == min(max(round(test_size * n_obs), 1), n_obs - 1)
    for i, size in enumerate(sizes):
        assert abs(is_tested(adata)[labels == f"s{i}"].sum() - size * n_test / n_obs) < 1


def test_every_cell_is_as_likely_to_be_tested():
    adata = cells(label=["a"] * 3 + ["b"] * 7)
    for options in ({}, {"stratify": "label"}):
        mean = np.mean([is_tested(sh.pp.split(adata, rng=i, copy=True, **options)) for i in range(600)], axis=0)
        np.testing.assert_allclose(mean, 0.2, atol=0.07)  # four standard deviations


def test_combinations_of_columns_are_strata(adata):
    sh.pp.split(adata, stratify=["condition", "cell_type"], test_size=0.25)
    for _, part in adata.obs.groupby(["condition", "cell_type"], observed=True):
        assert abs((part["split"] == "test").sum() - 0.25 * len(part)) < 1


def test_a_missing_label_is_a_stratum():
    for column in (np.array(["a"] * 20 + [None] * 20), pd.Categorical(["a"] * 20 + [None] * 20)):
        adata = cells(label=column)
        sh.pp.split(adata, stratify="label", test_size=0.25)
        assert is_tested(adata)[:20].sum() == is_tested(adata)[20:].sum() == 5


@pytest.mark.parametrize("options", [{"test_size": 0.2}, {"n_folds": 3}])
def test_strata_that_are_too_small_are_named(options, capsys):
    adata = cells(label=["many"] * 30 + ["alone"])
    before, sc.settings.logfile = sc.settings.logfile, sys.stderr
    try:
        sh.pp.split(adata, stratify="label", **options)
    finally:
        sc.settings.logfile = before
    assert "of stratify, too small to be in both training and test cells: alone (1)\n" in capsys.readouterr().err


# ---- groups


def test_held_out_groups_are_exactly_the_test_cells(adata):
    sh.pp.split(adata, groupby="cell_type", holdout="B")
    np.testing.assert_array_equal(is_tested(adata), adata.obs["cell_type"] == "B")
    sh.pp.split(adata, groupby="cell_type", holdout=["B", "NK"], key_added="two")
    np.testing.assert_array_equal(is_tested(adata, "two"), adata.obs["cell_type"].isin(["B", "NK"]))
    sh.pp.split(adata, groupby="donor", holdout="3", key_added="donor3")  # as a shell writes it
    np.testing.assert_array_equal(is_tested(adata, "donor3"), adata.obs["donor"] == 3)


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 30), min_size=2, max_size=10),
    test_size=st.floats(0.05, 0.95),
    seed=st.integers(0, 10**6),
)
def test_drawn_groups_stay_whole_and_come_near_the_share(sizes, test_size, seed):
    groups = np.repeat(np.arange(len(sizes)), sizes)
    adata = cells(donor=groups)
    sh.pp.split(adata, groupby="donor", test_size=test_size, rng=seed)
    is_test = is_tested(adata)
    assert 0 < is_test.sum() < len(groups)
    for group in range(len(sizes)):
        assert len(set(is_test[groups == group])) == 1
    assert abs(is_test.sum() - test_size * len(groups)) <= max(sizes)


def test_groups_are_drawn_at_random():
    adata = cells(donor=np.repeat(np.arange(10), 3))
    drawn = np.array([is_tested(sh.pp.split(adata, groupby="donor", rng=i, copy=True)) for i in range(300)])
    assert (drawn.sum(axis=1) == 6).all()
    np.testing.assert_allclose(drawn.mean(axis=0), 0.2, atol=0.1)


def test_a_group_far_above_the_share_is_left_to_training():
    adata = cells(donor=["big"] * 90 + ["a"] * 5 + ["b"] * 5)
    for seed in range(10):
        is_test = is_tested(sh.pp.split(adata, groupby="donor", test_size=0.05, rng=seed, copy=True))
        assert is_test.sum() == 5
    assert (
        is_tested(sh.pp.split(cells(donor=["big"] * 9 + ["b"]), groupby="donor", test_size=0.04, copy=True)).sum() == 1
    )


# ---- folds


@pytest.mark.parametrize("groupby", [None, "donor"])
@pytest.mark.parametrize("stratify", [None, ["condition", "cell_type"]])
def test_folds_partition_the_cells(adata, groupby, stratify):
    n_tested = np.zeros(adata.n_obs, dtype=int)
    for fold in range(4):
        options = {"n_folds": 4, "fold": fold, "groupby": groupby, "stratify": stratify, "rng": 3}
        is_test = is_tested(sh.pp.split(adata, copy=True, **options))
        np.testing.assert_array_equal(is_test, is_tested(sh.pp.split(adata, copy=True, **options)))
        n_tested += is_test
        if groupby:
            assert not set(adata.obs["donor"][is_test]) & set(adata.obs["donor"][~is_test])
        elif stratify:
            for rows in adata.obs.groupby(stratify, observed=True).indices.values():
                assert abs(is_test[rows].sum() - len(rows) / 4) < 1
    np.testing.assert_array_equal(n_tested, 1)


def test_another_seed_gives_other_folds(adata):
    first, other = (is_tested(sh.pp.split(adata, n_folds=5, rng=seed, copy=True)) for seed in (0, 1))
    assert (first != other).any()


# ---- what does not work

BAD = {
    "no column to stratify by": ({"stratify": ["condition", "sex"]}, r"stratify='sex' is not a column of adata.obs"),
    "nothing to stratify by": ({"stratify": []}, r"stratify=\[\] is empty: .*; it has \['condition"),
    "no column of groups": ({"groupby": "sex"}, r"groupby='sex' is not a column of adata.obs; it has \['condi"),
    "labels without column": ({"holdout": "B"}, "holdout='B' are labels of groups; name their column with groupby"),
    "unknown label": (
        {"groupby": "cell_type", "holdout": ["B", "mono"]},
        r"holdout='mono': no cell has this label in adata.obs\['cell_type'\]; it has \[",
    ),
    "no label": ({"groupby": "cell_type", "holdout": []}, "holdout is an empty list; name at least one group"),
    "all labels": ({"groupby": "cell_type", "holdout": ["B", "T", "NK"]}, "are all groups .* no training cells"),
    "labels and folds": (
        {"groupby": "cell_type", "holdout": "B", "n_folds": 3},
        "holdout='B' names the test cells, and so does n_folds=3; pass one of them",
    ),
    "labels and strata": ({"groupby": "cell_type", "holdout": "B", "stratify": "donor"}, "stratify='donor' cannot be"),
    "groups and strata": ({"groupby": "donor", "stratify": "condition"}, "cannot be kept when whole groups .* n_folds"),
    "share of all": ({"test_size": 1.0}, r"test_size=1.0 has to be a fraction between 0 and 1"),
    "number of cells": ({"groupby": "donor", "test_size": 40}, "test_size=40 has to be a fraction"),
    "one fold": ({"n_folds": 1}, "n_folds=1 has to be a whole number from 2 to 200, the number of cells"),
    "half a fold": ({"n_folds": 2.5}, "n_folds=2.5 has to be a whole number"),
    "more folds than groups": ({"n_folds": 9, "groupby": "donor"}, "n_folds=9 .* from 2 to 8, the number of groups"),
    "fold after the last": ({"n_folds": 5, "fold": 5}, "fold=5 has to be a whole number from 0 to 4"),
    "folds without seed": ({"n_folds": 5, "rng": None}, "rng=None: folds of one partition need the same whole number"),
    "strata below folds": ({"n_folds": 150, "stratify": "condition"}, "No combination .* has 150 cells, one for each"),
    "key with a slash": ({"key_added": "a/b"}, "key_added='a/b' is no valid key"),
    "column of others": (
        {"key_added": "condition"},
        r"would replace adata.obs\['condition'\], which is no split .* has \['control', 'treated'\]; pass another",
    ),
    "labels of a split that are no categories": ({"key_added": "mine"}, "would replace adata.obs.'mine'"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(adata, unchanged, name):
    options, message = BAD[name]
    adata.obs["mine"] = "train"
    with unchanged(adata), pytest.raises(ValueError, match=message):
        sh.pp.split(adata, **options)


def test_cells_without_group(adata, unchanged):
    adata.obs["donor"] = adata.obs["donor"].astype(float).mask(np.arange(200) < 3)
    with unchanged(adata), pytest.raises(ValueError, match="has no value in 3 of 200 cells, whose group is unknown"):
        sh.pp.split(adata, groupby="donor")


def test_one_group():
    with pytest.raises(ValueError, match=r"adata.obs\['donor'\] has one group only, \['a'\]; a split needs at least"):
        sh.pp.split(cells(donor=["a"] * 5), groupby="donor")


def test_one_cell():
    with pytest.raises(ValueError, match="adata has 1 cells; training and test cells need at least one each"):
        sh.pp.split(cells(donor=["a"]))


def test_no_anndata():
    with pytest.raises(TypeError, match="adata is of type DataFrame; an AnnData is needed"):
        sh.pp.split(pd.DataFrame())


def test_a_fold_that_groups_leave_empty():
    """scikit-learn puts groups together that balance each other, also where another fold then gets none."""
    adata = cells(donor=np.repeat(list("abcde"), [3, 1, 2, 2, 3]), label=list("11132200222"))
    with pytest.raises(ValueError, match="fold=2 of 5 is empty: the groups are too uneven; use fewer folds"):
        sh.pp.split(adata, groupby="donor", stratify="label", n_folds=5, fold=2, rng=1)
