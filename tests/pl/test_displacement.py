"""pl.displacement: order, boxes and labels of groups."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_hex

import scot_hycnn as sh


@pytest.fixture
def lengths(adata, control):
    moved = adata.obs.loc[control, "hycnn_ot_displacement"]
    return moved.groupby(adata.obs.loc[control, "cell_type"].astype(str))


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


def test_colours_of_scanpy(adata):
    adata.uns["cell_type_colors"] = [to_hex((i / 20, 0.5, 0.5)) for i in range(10)]
    ax = sh.pl.displacement(adata, groupby="cell_type", show=False)
    assert {to_hex(box.get_facecolor()) for box in ax.patches} == set(adata.uns["cell_type_colors"])


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
