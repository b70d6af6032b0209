"""Figures: the artists that a reader is to see, and scanpy's conventions."""

from __future__ import annotations

from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.quiver import Quiver

import scot_hycnn as sh
from scot_hycnn.pl._field import _field

PLOTS = [
    sh.pl.transport,
    sh.pl.embedding,
    sh.pl.history,
    partial(sh.pl.marginals, names="PC1"),
    sh.pl.mean_scatter,
    partial(sh.pl.displacement, groupby="cell_type"),
    partial(sh.pl.evaluation, metrics="trace_ratio"),
    sh.pl.deg,
]


def quiver(ax):
    return next(artist for artist in ax.get_children() if isinstance(artist, Quiver))


@pytest.fixture
def autoshow():
    before = sc.settings.autoshow
    yield lambda value: setattr(sc.settings, "autoshow", value)
    sc.settings.autoshow = before


@pytest.mark.parametrize("plot", PLOTS)
def test_what_is_returned(adata, plot, monkeypatch, autoshow):
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(1))
    assert plot(adata, show=True) is None
    assert len(shown) == 1
    assert isinstance(plot(adata, return_fig=True), Figure)
    autoshow(False)
    axes = plot(adata)
    assert all(isinstance(ax, plt.Axes) for ax in (axes if isinstance(axes, list) else [axes]))
    autoshow(True)
    assert plot(adata) is None
    assert len(shown) == 2


@pytest.mark.parametrize("plot", PLOTS)
def test_given_axes_are_used(adata, plot):
    figure, ax = plt.subplots()
    assert plot(adata, ax=ax, show=False) is ax
    assert plot(adata, ax=ax, return_fig=True) is figure


@pytest.mark.parametrize("plot", PLOTS)
def test_drawing_changes_nothing(adata, plot):
    before = adata.copy()
    plot(adata, show=False)
    assert list(adata.uns) == list(before.uns)
    assert list(adata.obsm) == list(before.obsm)
    assert list(adata.layers) == list(before.layers)
    pd.testing.assert_frame_equal(adata.obs, before.obs)


def test_every_plot_is_here():
    assert {getattr(plot, "func", plot).__name__ for plot in PLOTS} == set(sh.pl.__all__) - {
        "report"
    }  # a page, not a figure


def test_arrows_join_medians(adata):
    arrows = quiver(sh.pl.transport(adata, n_grid=1, show=False))
    control = (adata.obs["condition"] == "control").to_numpy()
    x, moved = adata.obsm["X_pca"][control, :2], adata.obsm["X_hycnn_ot"][control, :2]
    np.testing.assert_allclose(arrows.get_offsets(), np.median(x, 0)[None], rtol=1e-5)
    expected = np.median(moved, 0) - np.median(x, 0)
    np.testing.assert_allclose([arrows.U[0], arrows.V[0]], expected, rtol=1e-4)


def test_cells_that_stay_get_no_arrow(adata):
    moved = adata.copy()
    moved.obsm["X_hycnn_ot"] = np.where(np.isnan(adata.obsm["X_hycnn_ot"]), np.nan, adata.obsm["X_pca"][:, :5])
    assert len(quiver(sh.pl.transport(moved, show=False)).U) == 0
    assert len(quiver(sh.pl.transport(adata, show=False)).U) > 0


def test_target_cells_lie_in_grey_beneath_coloured_source_cells(adata):
    ax = sh.pl.transport(adata, color="cell_type", show=False)
    beneath, above = ax.collections[:2]
    assert len(beneath.get_offsets()) == (adata.obs["condition"] == "IFN-beta").sum()
    assert len(above.get_offsets()) == (adata.obs["condition"] == "control").sum()
    assert "(IFN-beta cells)" in [text.get_text() for text in ax.get_legend().get_texts()]


@pytest.mark.parametrize("value", [0, -1, 2.5, True, "many"])
@pytest.mark.parametrize(
    ("plot", "name"), [(sh.pl.transport, "n_grid"), (sh.pl.transport, "n_neighbors"), (sh.pl.embedding, "n_neighbors")]
)
def test_counts_are_checked(adata, plot, name, value):
    with pytest.raises(ValueError, match=f"{name}={value!r} must be a whole number of 1 or more"):
        plot(adata, show=False, **{name: value})


def test_a_colour_needs_a_finite_number(adata):
    adata = adata.copy()
    adata.obs["nothing"] = np.nan
    with pytest.raises(ValueError, match="color='nothing' has no finite value"):
        sh.pl.transport(adata, color="nothing", show=False)
    adata.obs["nothing"] = np.where(np.arange(adata.n_obs) == 3, np.inf, 1.0)
    sh.pl.transport(adata, color="nothing", show=False)


def test_arrows_on_an_embedding_point_the_right_way(adata):
    exact = quiver(sh.pl.transport(adata, n_grid=1, show=False))
    umap = quiver(sh.pl.transport(adata, n_grid=1, basis="umap", show=False))
    assert umap.U[0] * exact.U[0] > 0


def test_a_cell_that_stays_keeps_its_place(adata):
    control = (adata.obs["condition"] == "control").to_numpy()
    adata.obsm["X_hycnn_ot"][control] = adata.obsm["X_pca"][control, :5]
    arrows = quiver(sh.pl.transport(adata, basis="X_umap", show=False))
    assert len(arrows.U) == 0


def streams(ax):
    """Pieces of the lines, shape (pieces, 2 ends, 2)."""
    lines = [artist for artist in ax.collections if isinstance(artist, LineCollection)]
    return np.array([segment for line in lines for segment in line.get_segments()]).reshape(-1, 2, 2)


def test_streams_follow_the_cells(adata, control):
    """A shift by one vector: every stream goes along it, from the source cells to the predicted ones."""
    shift = np.array([12.0, 5, 0, 0, 0], np.float32)
    adata.obsm["X_hycnn_ot"][control] = adata.obsm["X_pca"][control, :5] + shift
    pieces = streams(sh.pl.transport(adata, style="streams", show=False))
    assert len(pieces) > 50
    along = pieces[:, 1] - pieces[:, 0]
    along = along[np.linalg.norm(along, axis=1) > 1e-9]
    np.testing.assert_allclose(along[:, 1] / along[:, 0], 5 / 12, rtol=1e-3)
    starts = adata.obsm["X_pca"][control, :2]
    assert pieces.reshape(-1, 2).max(axis=0)[0] > starts.max(axis=0)[0]
    assert (pieces.reshape(-1, 2) >= starts.min(axis=0) - 1).all()


def test_no_streams_where_cells_stay(adata, control):
    adata.obsm["X_hycnn_ot"][control] = adata.obsm["X_pca"][control, :5]
    assert len(streams(sh.pl.transport(adata, style="streams", show=False))) == 0


@pytest.mark.parametrize(("n", "drawn"), [(4, False), (5, True)])
def test_no_streams_where_few_cells_pass(n, drawn):
    """Cells that leave a cloud of others on a way of their own; squares on that way."""
    x = np.random.default_rng(0).normal(size=(200, 2))
    x[:n] = 0
    predicted = x + np.where(np.arange(200) < n, 20.0, 0)[:, None] * [1, 0]
    centers, field = _field(x, predicted, 20)
    beyond = ~field.mask[:, :, centers[0] > 9]
    assert beyond.any() == drawn
    # Smoothing spreads sums and counts alike: the mean is the cells' own displacement.
    np.testing.assert_allclose(field[0, :, centers[0] > 9].compressed(), 20.0)


def test_the_stored_projection_is_drawn(adata, control):
    sh.tl.project(adata)
    # A mark that no projection would give: all predicted cells at one place.
    adata.obsm["X_umap_hycnn_ot"][control] = [3.0, 4.0]
    arrow = quiver(sh.pl.transport(adata, basis="umap", n_grid=1, show=False))
    np.testing.assert_allclose(arrow.get_offsets()[0] + [arrow.U[0], arrow.V[0]], [3, 4], rtol=1e-5)
    drawn = sh.pl.embedding(adata, basis="umap", show=False)[1].collections[1].get_offsets()
    np.testing.assert_array_equal(drawn, np.tile([3.0, 4.0], (200, 1)))
    fresh = quiver(sh.pl.transport(adata, basis="umap", n_grid=1, n_neighbors=5, show=False))
    assert abs(fresh.get_offsets()[0] + [fresh.U[0], fresh.V[0]]).max() < 1


def test_a_projection_of_another_fit_is_not_drawn(adata, control):
    sh.tl.project(adata)
    adata.obsm["X_umap_hycnn_ot"][control] = [3.0, 4.0]
    adata.obsm["X_hycnn_ot"][control, 0] += 1
    with pytest.warns(UserWarning, match="'X_umap_hycnn_ot'.* was made from another fit or embedding") as record:
        ax = sh.pl.transport(adata, basis="umap", n_grid=1, show=False)
    assert record[0].filename == __file__
    arrow = quiver(ax)
    assert abs(arrow.get_offsets()[0] + [arrow.U[0], arrow.V[0]]).max() < 1


def test_scanpys_palette_is_used(adata):
    names = adata.obs["cell_type"].cat.categories
    palette = [to_hex(plt.get_cmap("tab20")(i)) for i in range(len(names))]
    adata.uns["cell_type_colors"] = palette
    ax = sh.pl.transport(adata, color="cell_type", show=False)
    legend = ax.get_legend()
    assert [text.get_text() for text in legend.get_texts()] == [*names, "(IFN-beta cells)"]
    assert [to_hex(handle.get_color()) for handle in legend.legend_handles][:-1] == palette
    drawn = {to_hex(color) for color in ax.collections[1].get_facecolors()}
    assert drawn <= set(palette)


@pytest.mark.parametrize("n", [3, 9, 15, 40])
def test_any_number_of_categories(adata, n):
    labels = pd.Series(np.arange(adata.n_obs) % n, index=adata.obs_names).astype("category")
    labels.iloc[:5] = None
    adata.obs["group"] = labels
    legend = sh.pl.transport(adata, color="group", show=False).get_legend()
    assert len({handle.get_color() for handle in legend.legend_handles[:-1]}) == n


def box(artist):
    artist.get_figure(root=True).draw_without_rendering()
    return artist.get_window_extent()


def contains(outer, inner):
    corners = inner.corners()
    return (corners >= outer.min - 1).all() and (corners <= outer.max + 1).all()


@pytest.mark.parametrize("options", [{}, {"color": "cell_type"}, {"color": "hycnn_ot_displacement"}])
def test_the_legend_lies_within_axes_of_the_user(adata, options):
    _, (ax, neighbor) = plt.subplots(1, 2, figsize=(9, 4))
    sh.pl.transport(adata, ax=ax, show=False, **options)
    assert contains(box(ax), box(ax.get_legend()))
    sh.pl.embedding(adata, ax=neighbor, show=False)
    assert contains(box(neighbor), box(neighbor.get_legend()))


@pytest.mark.parametrize("n", [2, 40])
def test_a_legend_widens_the_figure_and_not_narrows_the_map(adata, n):
    adata.obs["group"] = pd.Categorical([f"a rather long name of group {i % n}" for i in range(adata.n_obs)])
    ax = sh.pl.transport(adata, color="group", show=False)
    whole = ax.get_figure().bbox
    map_, legend = box(ax), box(ax.get_legend())
    assert contains(whole, legend)
    assert contains(whole, ax.title.get_window_extent())
    assert legend.x0 >= map_.x1
    assert map_.width > 0.95 * map_.height
    panels = sh.pl.embedding(adata, color="group", show=False)
    boxes = [box(ax) for ax in panels]
    assert contains(panels[0].get_figure().bbox, box(panels[-1].get_legend()))
    assert min(panel.width for panel in boxes) > 0.8 * boxes[0].height


def test_numbers_get_a_colour_bar(adata):
    figure = sh.pl.transport(adata, color="hycnn_ot_displacement", return_fig=True)
    assert figure.axes[1].get_ylabel() == "hycnn_ot_displacement"


def test_embedding_panels_and_overlay(adata):
    panels = sh.pl.embedding(adata, color="cell_type", basis="umap", show=False)
    assert [ax.get_title() for ax in panels] == [
        "control (source)",
        "control → IFN-beta (predicted)",
        "IFN-beta (observed)",
    ]
    assert [len(ax.collections[1].get_offsets()) for ax in panels] == [200, 200, 200]
    assert panels[0].get_xlabel() == "UMAP1"
    _, ax = plt.subplots()
    sh.pl.embedding(adata, ax=ax, show=False)
    assert len(ax.collections[0].get_offsets()) == 600
    assert len({to_hex(color) for color in ax.collections[0].get_facecolors()}) == 3


def test_a_colour_bar_and_grey_cells_are_both_explained(adata):
    ax = sh.pl.transport(adata, color="hycnn_ot_displacement", show=False)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["(IFN-beta cells)"]
    assert box(ax).width > 0.95 * box(ax).height


def test_bands_of_several_targets_are_fainter(adata):
    labels = adata.obs["condition"].astype(str)
    labels.iloc[np.flatnonzero(labels == "IFN-beta")[::2]] = "other"
    adata.obs["condition"] = labels
    options = {"n_pcs": 3, "max_steps": 10, "hidden": (6, 6), "n_ensemble": 2}
    sh.tl.hycnn_ot(adata, "control", ["IFN-beta", "other"], key_added="two", **options)
    two, one = (sh.pl.history(adata, key, show=False) for key in ("two", "hycnn_ot"))
    assert len(two.collections) == 2
    assert max(band.get_alpha() for band in two.collections) < one.collections[0].get_alpha()
    assert "lower is better" in one.get_ylabel()
    assert "Gaussian map" in one.get_ylabel()


def test_history_shows_the_gaussian_map(adata):
    ax = sh.pl.history(adata, show=False)
    curve, baseline = ax.get_lines()
    table = sh.get.history(adata)
    np.testing.assert_array_equal(curve.get_xdata(), table["step"])
    np.testing.assert_array_equal(curve.get_ydata(), table["J_minus_gaussian"])
    assert baseline.get_linestyle() == "--"
    assert set(baseline.get_ydata()) == {0}


def test_drawn_from_a_file(adata, tmp_path):
    adata.write_h5ad(tmp_path / "fit.h5ad")
    back = sc.read_h5ad(tmp_path / "fit.h5ad")
    for plot in PLOTS:
        plot(back, show=False)


@pytest.mark.parametrize(
    ("plot", "options", "message"),
    [
        (sh.pl.transport, {"key": "foo"}, "no fit 'foo'"),
        (sh.pl.transport, {"basis": "tsne"}, r"basis='tsne' is not in adata.obsm; it has \['X_pca'"),
        (sh.pl.transport, {"basis": "line"}, "basis='line' has 1 column; a plot needs two"),
        (sh.pl.transport, {"color": "nix"}, r"color='nix' is not a column of adata.obs; it has \['condition'"),
        (sh.pl.transport, {"style": "waves"}, r"style='waves' is unknown; choose one of \['arrows', 'streams'\]"),
        (sh.pl.transport, {"basis": "holes"}, r"'holes'\] has no finite position for 3 of 200 cells"),
        (sh.pl.embedding, {"target": "IL-2"}, "target='IL-2' is not a target"),
        (sh.pl.embedding, {"ax": 1, "color": "cell_type"}, "color and ax do not go together"),
        (sh.pl.history, {"key": "foo"}, "no fit 'foo'"),
    ],
)
def test_bad_input(adata, plot, options, message):
    adata.obsm["line"] = adata.obsm["X_pca"][:, :1]
    adata.obsm["holes"] = np.where(np.arange(adata.n_obs)[:, None] < 3, np.nan, adata.obsm["X_umap"])
    with pytest.raises(ValueError, match=message):
        plot(adata, show=False, **options)


def test_one_dimension_and_no_training(adata):
    sh.tl.hycnn_ot(adata, "control", "IFN-beta", n_pcs=1, potential="gaussian", key_added="line")
    with pytest.raises(ValueError, match="has one dimension; pass basis"):
        sh.pl.transport(adata, "line", show=False)
    sh.pl.transport(adata, "line", basis="umap", show=False)
    with pytest.raises(ValueError, match="There is no history: the Gaussian map"):
        sh.pl.history(adata, "line", show=False)
