"""pl.displacement: order, boxes and labels of groups."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from scipy.linalg import sqrtm

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
    assert ax.get_xlabel() == "displacement (X_pca)"


def by_chance(ax):
    """Where the dashed line of each row stands, from the bottom to the top."""
    lines = [line for line in ax.collections if isinstance(line, LineCollection) and line.get_linestyle()[0][1]]
    return [line.get_segments()[0][0, 0] for line in lines]


def test_the_line_of_chance_is_where_a_map_between_equal_conditions_moves_cells(adata, control):
    """Without a response, boxes lie at the line; a shift is added to the boxes and not to the line."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 5)).astype(np.float32)
    # The Gaussian map between the first and the second half of the control cells.
    halves = x[control][:100].astype(float), x[control][100:].astype(float)
    mean, cov = zip(*((half.mean(0), np.cov(half.T)) for half in halves), strict=True)
    root = sqrtm(cov[0])
    linear = np.linalg.solve(root, sqrtm(root @ cov[1] @ root)) @ np.linalg.inv(root)
    adata.obsm["X_pca"] = x
    adata.obsm["X_hycnn_ot"][control] = (x[control] - mean[0]) @ linear + mean[1]
    moved = np.linalg.norm(adata.obsm["X_hycnn_ot"][control] - x[control], axis=1)
    ax = sh.pl.displacement(adata, groupby="condition", show=False)
    (level,) = by_chance(ax)
    assert level == pytest.approx(np.median(moved), rel=0.5)
    adata.obsm["X_hycnn_ot"][control, 0] += 10
    assert by_chance(sh.pl.displacement(adata, groupby="condition", show=False)) == [level]
    # Twice as large coordinates, twice as far.
    adata.obsm["X_pca"] = 2 * x
    adata.obsm["X_hycnn_ot"][control] *= 2
    (twice,) = by_chance(sh.pl.displacement(adata, groupby="condition", show=False))
    assert twice == pytest.approx(2 * level, rel=1e-4)


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
