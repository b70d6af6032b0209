"""Figures of a screen: a dot for each condition and group, and a heatmap of conditions."""

from __future__ import annotations

import itertools

import anndata
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

import scot_hycnn as sh

KEY = "hycnn_screen"


@pytest.fixture(scope="module")
def fitted():
    adata = sh.datasets.screen_planted(18, 100)
    sh.tl.hycnn_screen(adata, "control", groupby="condition", n_pcs=8, potential="gaussian", predict=False)
    return adata


@pytest.fixture
def adata(fitted):
    yield fitted.copy()
    plt.close("all")


def names_of(ax):
    return [text.get_text() for text in ax.get_yticklabels()]


def test_each_condition_is_one_row_and_the_strongest_comes_first(adata):
    table = sh.get.summary(adata).set_index("condition")
    (ax,) = sh.pl.screen(adata, show=False)
    assert sorted(names_of(ax)) == sorted(table.index)
    assert names_of(ax)[0] == table["no_change"].idxmax()
    quiet, seen = ax.collections[:2]
    assert len(seen.get_offsets()) == (table["verdict"] != "no response").sum()
    assert len(quiet.get_offsets()) == (table["verdict"] == "no response").sum()
    sizes = table.loc[[names_of(ax)[int(y)] for _, y in seen.get_offsets()], "no_change"]
    assert np.argsort(seen.get_sizes()).tolist() == np.argsort(sizes.to_numpy()).tolist()
    black = (seen.get_edgecolors() == [0, 0, 0, 1]).all(axis=1)
    as_replicate = table.loc[sizes.index, "verdict"] == "predicted as well as a replicate"
    assert black.tolist() == as_replicate.tolist()


def test_a_response_that_cannot_be_scored_is_hollow(adata):
    table = sh.get.summary(adata, groupby="cell_type")
    (ax,) = sh.pl.screen(adata, groupby="cell_type", show=False)
    seen = ax.collections[1]
    seen.update_scalarmappable()  # colours of numbers are known when they are drawn
    is_hollow = (seen.get_facecolors()[:, :3] == 1).all(axis=1) & (seen.get_edgecolors()[:, 3] > 0)
    assert is_hollow.sum() == (table["verdict"] == "responds, too few cells to score").sum() > 0


def test_groups_are_columns_and_more_rows_are_panels(adata):
    axes = sh.pl.screen(adata, groupby="cell_type", n_rows=8, sort="cluster", show=False)
    assert [len(names_of(ax)) for ax in axes] == [6, 6, 6]
    columns = [text.get_text() for text in axes[0].get_xticklabels()]
    assert columns[0] == "all"
    assert set(columns[1:]) <= set(adata.obs["cell_type"])
    assert len({name for ax in axes for name in names_of(ax)}) == 18


def test_some_conditions_sorted_by_name(adata):
    chosen = ["drug B, 10 uM, 24 h", "drug A, 10 uM, 24 h"]
    _, ax = plt.subplots()
    drawn = sh.pl.screen(adata, conditions=chosen, sort="name", ax=ax, title="two of them", show=False)
    assert drawn is ax
    assert names_of(ax) == chosen[::-1]
    assert "two of them" in ax.get_title()


def test_the_heatmap_shows_the_table_in_clusters(adata):
    table = sh.get.similarity(adata)
    for values in ("cosine", "distance"):
        ax = sh.pl.similarity(adata, values=values, shown="all", show=False)
        names = names_of(ax)
        np.testing.assert_array_equal(ax.images[0].get_array(), table[values].loc[names, names])
        assert [text.get_text() for text in ax.get_xticklabels()] == names
    # Two drugs that act alike are neighbours.
    ax = sh.pl.similarity(adata, show=False)
    names = names_of(ax)
    seen = table["response"]["seen"]
    assert set(names) == set(seen.index[seen.astype(bool)])
    a, b = (names.index(f"drug {drug}, 10 uM, 24 h") for drug in "AB")
    c = names.index("drug C, 10 uM, 24 h")
    assert abs(a - b) < max(abs(a - c), abs(b - c))
    assert f"without a response: {18 - len(names)}" in ax.get_title()
    two = names_of(sh.pl.similarity(adata, conditions=names[:2], show=False))
    assert sorted(two) == sorted(names[:2])


def test_a_hundred_conditions_have_names_that_do_not_collide():
    rng = np.random.default_rng(0)
    labels = np.repeat(["control", *(f"drug {i}" for i in range(100))], [100, *[20] * 100])
    adata = anndata.AnnData(obs=pd.DataFrame({"condition": labels}, index=[f"cell{i}" for i in range(len(labels))]))
    adata.obsm["X_pca"] = rng.normal(size=(len(labels), 3)) + 3 * (labels != "control")[:, None]
    sh.tl.hycnn_ot(adata, "control", sorted(set(labels) - {"control"}), potential="gaussian", predict=False)
    ax = sh.pl.similarity(adata, shown="all", show=False)
    ax.figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in ax.get_yticklabels()]
    assert len(boxes) == 100
    assert all(above.y0 >= below.y1 - 1 for above, below in itertools.pairwise(boxes))


@pytest.mark.parametrize(
    ("draw", "said"),
    [
        (lambda adata: sh.pl.screen(adata, sort="size"), "'size'"),
        (lambda adata: sh.pl.screen(adata, conditions=["drug Z"]), "drug Z"),
        (lambda adata: sh.pl.screen(adata, n_rows=0), "n_rows"),
        (lambda adata: sh.pl.screen(adata, n_rows=5, ax=plt.figure().gca()), "n_rows=5"),
        (lambda adata: sh.pl.similarity(adata, values="angle"), "'angle'"),
        (lambda adata: sh.pl.similarity(adata, shown="some"), "'some'"),
        (lambda adata: sh.pl.similarity(adata, "other"), "'other'"),
    ],
)
def test_wrong_arguments(adata, draw, said):
    with pytest.raises(ValueError, match=said):
        draw(adata)


def test_a_heatmap_needs_a_condition_that_responds(adata):
    for model in adata.uns[KEY]["validation"].values():
        model["p_no_change"] = 0.9
    with pytest.raises(ValueError, match="shown"):
        sh.pl.similarity(adata)


def test_a_figure_is_returned(adata):
    assert isinstance(sh.pl.screen(adata, return_fig=True), plt.Figure)
    assert isinstance(sh.pl.similarity(adata, return_fig=True), plt.Figure)
