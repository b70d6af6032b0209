"""pl.displacement: order, boxes and labels of groups."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

import scot_hycnn as sh


@pytest.fixture
def lengths(adata, control):
    """Displacements by cell type, of the types that are drawn."""
    types = adata.obs.loc[control, "cell_type"].astype(str)
    types = types[types.map(types.value_counts()) >= 10]
    return adata.obs.loc[types.index, "hycnn_ot_displacement"].groupby(types)


def test_groups_are_sorted_by_their_median(adata, lengths):
    ax = sh.pl.displacement(adata, groupby="cell_type", show=False)
    median, n = lengths.median().sort_values(), lengths.size()
    wanted = [f"{label} (n = {n[label]})" for label in median.index]
    assert [text.get_text() for text in ax.get_yticklabels()] == wanted
    assert ax.get_ylim()[0] < ax.get_ylim()[1]  # the last is on top


def test_boxes_span_the_quartiles(adata, lengths):
    ax = sh.pl.displacement(adata, groupby="cell_type", show=False)
    order = lengths.median().sort_values().index
    boxes = [(box.get_x(), box.get_x() + box.get_width()) for box in ax.patches]
    np.testing.assert_allclose(boxes, np.column_stack([lengths.quantile(q)[order] for q in (0.25, 0.75)]), rtol=1e-3)
    assert ax.get_xlabel().splitlines()[0] == "displacement (distance in PCs)"


def test_groups_without_a_response_are_pale(adata, control):
    """The treated cells of one group lie elsewhere, those of the other do not; a third has no treated cells."""
    rng = np.random.default_rng(0)
    adata.obs["group"] = np.where(
        np.arange(400) % 200 < 90, "shifted", np.where(np.arange(400) % 200 < 180, "same", "few")
    )
    adata.obs.loc[~control & (adata.obs["group"] == "few"), "group"] = "same"
    adata.obsm["X_pca"] = rng.normal(size=(400, 5)).astype(np.float32)
    adata.obsm["X_pca"][~control & (adata.obs["group"] == "shifted"), 0] += 1
    ax = sh.pl.displacement(adata, groupby="group", show=False)
    names = [text.get_text().split(" (n")[0] for text in ax.get_yticklabels()]
    opaque = dict(zip(names, [box.get_facecolor()[3] == 1 for box in ax.patches], strict=True))
    assert opaque == {"shifted": True, "same": False, "few": False}


@pytest.mark.parametrize("shift", [0.0, 0.8, 1.5])
def test_figure_and_summary_see_the_same_responses(adata, control, shift):
    """Also where a few cells are held out: whether there is a response does not depend on which cells are drawn."""
    rng = np.random.default_rng(1)
    adata.obs["group"] = [f"group {i % 4}" for i in range(400)]
    adata.obs["split"] = np.where(np.arange(400) % 20 < 8, "test", "train")
    adata.uns["hycnn_ot"]["params"] |= {"split_key": "split", "group_key": "group"}
    adata.obsm["X_pca"] = rng.normal(size=(400, 5)).astype(np.float32)
    adata.obsm["X_pca"][~control & (adata.obs["group"] == "group 1"), 0] += shift
    table = sh.get.summary(adata)
    rows = table[table["group"] != "all"].set_index("group")
    ax = sh.pl.displacement(adata, show=False)
    names = [text.get_text().split(" (n")[0] for text in ax.get_yticklabels()]
    opaque = {name for name, box in zip(names, ax.patches, strict=True) if box.get_facecolor()[3] == 1}
    assert opaque == set(rows.index[rows["p_adjusted"] <= 0.05])
    assert opaque == set(rows.index[rows["verdict"] != "no response"])
    if shift == 1.5:
        assert opaque == {"group 1"}


def test_held_out_cells_are_drawn(adata, control):
    test = np.arange(400) % 4 == 0
    adata.obs["split"] = pd.Categorical(np.where(test, "test", "train"))
    adata.uns["hycnn_ot"]["params"]["split_key"] = "split"
    ax = sh.pl.displacement(adata, groupby="condition", show=False)
    assert [text.get_text() for text in ax.get_yticklabels()] == ["control (n = 50)"]
    moved = np.sort(ax.collections[0].get_offsets()[:, 0])
    wanted = np.sort(adata.obs["hycnn_ot_displacement"][test & control])
    np.testing.assert_allclose(moved, wanted, rtol=1e-4)


def test_colours_of_scanpy(adata):
    adata.uns["cell_type_colors"] = [to_hex((i / 20, 0.5, 0.5)) for i in range(10)]
    ax = sh.pl.displacement(adata, groupby="cell_type", show=False)
    palette = dict(zip(adata.obs["cell_type"].cat.categories, adata.uns["cell_type_colors"], strict=True))
    drawn = [text.get_text().split(" (n")[0] for text in ax.get_yticklabels()]
    assert [to_hex(box.get_facecolor()) for box in ax.patches] == [palette[label] for label in drawn]


def test_groups_of_few_cells_are_left_out_and_named(adata, control):
    adata.obs["group"] = np.where(np.arange(400) % 200 < 9, "few", "many")
    ax = sh.pl.displacement(adata, groupby="group", show=False)
    assert [text.get_text() for text in ax.get_yticklabels()] == ["many (n = 191)"]
    assert "few" in ax.get_title().split("\n")[-1]
    adata.obs["group"] = np.where(np.arange(400) % 200 < 9, "few", None)
    assert len(sh.pl.displacement(adata, groupby="group", show=False).get_yticklabels()) == 1  # there is no other


def test_long_names_widen_the_figure(adata):
    width = sh.pl.displacement(adata, groupby="condition", return_fig=True).get_figwidth()
    adata.obs["long"] = adata.obs["condition"].cat.rename_categories(lambda name: name + " with a long name" * 3)
    figure = sh.pl.displacement(adata, groupby="long", return_fig=True)
    figure.draw_without_rendering()
    assert figure.get_figwidth() > width + 1
    assert figure.axes[0].get_window_extent().width / figure.dpi > 2
    assert figure.axes[0].get_tightbbox().x0 >= 0


def test_the_groups_of_the_fit_are_the_default(adata):
    with pytest.raises(ValueError, match=r"groupby=.*'cell_type'"):
        sh.pl.displacement(adata, show=False)
    adata.uns["hycnn_ot"]["params"]["group_key"] = "cell_type"
    drawn = [
        [text.get_text() for text in sh.pl.displacement(adata, groupby=groupby, show=False).get_yticklabels()]
        for groupby in (None, "cell_type")
    ]
    assert drawn[0] == drawn[1]
