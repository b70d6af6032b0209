"""Splits: known shares, whole groups, folds that partition the cells, and errors."""

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


@pytest.mark.filterwarnings("ignore:Writing zarr v2 data:UserWarning")
@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_copies_views_and_files(adata, tmp_path, suffix):
    expected = is_tested(sh.pp.split(adata, copy=True))
    assert "split" not in adata.obs
    view = adata[:50]
    sh.pp.split(view)
    assert is_tested(view).sum() == 10
    assert "split" not in adata.obs
    sh.pp.split(adata)
    getattr(adata, f"write_{suffix}")(tmp_path / f"cells.{suffix}")
    read = getattr(ad, f"read_{suffix}")(tmp_path / f"cells.{suffix}")
    np.testing.assert_array_equal(is_tested(read), expected)
    with pytest.warns(UserWarning, match="'split'"):
        sh.pp.split(read)


def test_cells_of_an_open_file(adata, tmp_path):
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


@settings(max_examples=25, deadline=None)
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
        mean = np.mean([is_tested(sh.pp.split(adata, rng=i, copy=True, **options)) for i in range(300)], axis=0)
        np.testing.assert_allclose(mean, 0.2, atol=0.1)  # four standard deviations


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
    assert "alone (1)" in capsys.readouterr().err


# ---- groups


def test_held_out_groups_are_exactly_the_test_cells(adata):
    sh.pp.split(adata, groupby="cell_type", holdout="B")
    np.testing.assert_array_equal(is_tested(adata), adata.obs["cell_type"] == "B")
    sh.pp.split(adata, groupby="cell_type", holdout=["B", "NK"], key_added="two")
    np.testing.assert_array_equal(is_tested(adata, "two"), adata.obs["cell_type"].isin(["B", "NK"]))
    sh.pp.split(adata, groupby="donor", holdout="3", key_added="donor3")  # as a shell writes it
    np.testing.assert_array_equal(is_tested(adata, "donor3"), adata.obs["donor"] == 3)


@settings(max_examples=25, deadline=None)
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
    drawn = np.array([is_tested(sh.pp.split(adata, groupby="donor", rng=i, copy=True)) for i in range(150)])
    assert (drawn.sum(axis=1) == 6).all()
    np.testing.assert_allclose(drawn.mean(axis=0), 0.2, atol=0.13)


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


def test_folds_keep_the_proportions_of_large_strata_beside_many_small_ones():
    adata = cells(label=np.r_[np.repeat(np.arange(90), 4), np.full(40, 99)].astype(str))
    for fold in range(5):
        is_test = is_tested(sh.pp.split(adata, n_folds=5, fold=fold, stratify=pd.Index(["label"]), copy=True))
        assert is_test[-40:].sum() == 8
        assert is_test[:-40].reshape(90, 4).sum(1).max() == 1


@pytest.mark.parametrize("groupby", [None, "donor"])
def test_small_strata_are_divided_and_warn_of_nothing(groupby):
    label, donor = np.repeat(["many", "few", "alone"], [30, 2, 1]), np.arange(33) % 6
    adata = cells(label=label, donor=donor)
    folds = [
        is_tested(sh.pp.split(adata, n_folds=3, fold=k, stratify="label", groupby=groupby, copy=True)) for k in range(3)
    ]
    np.testing.assert_array_equal(np.sum(folds, axis=0), 1)
    assert all(test.sum() > 5 for test in folds)


# ---- errors

BAD = [
    ({"stratify": ["condition", "sex"]}, "'sex'"),
    ({"stratify": []}, r"stratify=\[\].*'condition'"),
    ({"groupby": "sex"}, "'sex'.*'condition'"),
    ({"holdout": "B"}, "holdout='B'.*groupby"),
    ({"groupby": "cell_type", "holdout": ["B", "mono"]}, "holdout='mono'.*'cell_type'.*'NK'"),
    ({"groupby": "cell_type", "holdout": []}, "holdout"),
    ({"groupby": "cell_type", "holdout": ["B", "T", "NK"]}, "'NK'"),
    ({"groupby": "cell_type", "holdout": "B", "n_folds": 3}, "holdout='B'.*n_folds=3"),
    ({"groupby": "cell_type", "holdout": "B", "stratify": "donor"}, "stratify='donor'"),
    ({"groupby": "donor", "stratify": "condition"}, "stratify='condition'.*'donor'.*n_folds"),
    ({"test_size": 1.0}, "test_size=1.0"),
    ({"groupby": "donor", "test_size": 40}, "test_size=40"),
    ({"n_folds": 1}, "n_folds=1.*2 to 200"),
    ({"n_folds": 2.5}, "n_folds=2.5"),
    ({"n_folds": 9, "groupby": "donor"}, "n_folds=9.*2 to 8"),
    ({"n_folds": 5, "fold": 5}, "fold=5.*0 to 4"),
    ({"n_folds": 5, "rng": None}, "rng=None"),
    ({"n_folds": 150, "stratify": "condition"}, "150 cells"),
    ({"key_added": "a/b"}, "key_added='a/b'"),
    ({"key_added": "condition"}, "key_added='condition'.*'control'"),
    ({"key_added": "text"}, "key_added='text'"),
    ({"groupby": "holes"}, "'holes'.* 3 of 200 cells"),
    ({"groupby": "text"}, r"'text'.*\['train'\]"),
]


def test_an_error_names_the_value_and_nothing_changes(adata, unchanged):
    adata.obs["text"] = "train"
    adata.obs["holes"] = adata.obs["donor"].astype(float).mask(np.arange(200) < 3)
    for options, values in BAD:
        with unchanged(adata), pytest.raises(ValueError, match=values):
            sh.pp.split(adata, **options)


def test_one_cell_or_none():
    with pytest.raises(ValueError, match="1 cell;"):
        sh.pp.split(cells(donor=["a"]))
    with pytest.raises(TypeError, match="DataFrame"):
        sh.pp.split(pd.DataFrame())


def test_a_fold_that_groups_leave_empty():
    """scikit-learn joins groups that balance each other, even if another fold then gets none."""
    adata = cells(donor=np.repeat(list("abcd"), [7, 9, 2, 11]), label=list("12212220022220010011000000212"))
    with pytest.raises(ValueError, match="fold=2 of 4"):
        sh.pp.split(adata, groupby="donor", stratify="label", n_folds=4, fold=2, rng=1)
