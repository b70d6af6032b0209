"""Figures in a plane, pl.history, and what all figures share: scanpy's conventions, and wrong input."""

from __future__ import annotations

from functools import partial

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.quiver import Quiver
from scipy.spatial.distance import pdist

import scot_hycnn as sh

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
def test_the_axes_of_the_user_are_drawn_into_and_adata_is_unchanged(adata, plot, unchanged):
    figure, ax = plt.subplots()
    with unchanged(adata):
        assert plot(adata, ax=ax, show=False) is ax
        assert plot(adata, ax=ax, return_fig=True) is figure


def test_the_list_of_plots_is_complete():
    # pl.report writes a page; the others need another fit, and have their own tests.
    others = {"report", "screen", "similarity", "growth"}
    assert {getattr(plot, "func", plot).__name__ for plot in PLOTS} | others == set(sh.pl.__all__)


def test_an_arrow_is_the_way_of_the_cell_nearest_to_the_medians(adata):
    arrows = quiver(sh.pl.transport(adata, n_grid=1, show=False))
    control = (adata.obs["condition"] == "control").to_numpy()
    x, moved = adata.obsm["X_pca"][control, :2], adata.obsm["X_hycnn_ot"][control, :2]
    # Cells that move by less than a fortieth of the diagonal stay.
    diagonal = np.linalg.norm(np.ptp(np.concatenate([x, moved]), axis=0))
    goes = np.linalg.norm(moved - x, axis=1) > diagonal / 40
    x, moved = x[goes], moved[goes]
    nearest = (((x - np.median(x, 0)) ** 2).sum(1) + ((moved - np.median(moved, 0)) ** 2).sum(1)).argmin()
    np.testing.assert_allclose(arrows.get_offsets(), x[[nearest]], rtol=1e-5)
    np.testing.assert_allclose([arrows.U[0], arrows.V[0]], (moved - x)[nearest], rtol=1e-4)


def ends(ax):
    arrows = quiver(ax)
    return arrows.get_offsets(), arrows.get_offsets() + np.column_stack([arrows.U, arrows.V])


def rows_of(points, table):
    """Return the row of the table at each of the points."""
    distance = np.linalg.norm(points[:, None] - table, axis=2)
    assert distance.min(axis=1).max() < 1e-3
    return distance.argmin(axis=1)


@pytest.mark.parametrize("basis", [None, "umap"])
def test_one_arrow_for_each_category_leads_from_a_cell_to_where_it_moves(adata, control, basis):
    sh.tl.project(adata)
    before = adata.obsm["X_pca" if basis is None else "X_umap"][control][:, :2]
    after = adata.obsm["X_hycnn_ot" if basis is None else "X_umap_hycnn_ot"][control][:, :2]
    starts, stops = ends(sh.pl.transport(adata, basis=basis, color="cell_type", show=False))
    cells = rows_of(starts, before)
    np.testing.assert_allclose(stops, after[cells], atol=1e-3)
    labels = adata.obs["cell_type"][control].astype(str).to_numpy()
    assert len(set(labels[cells])) == len(cells) > 1
    sizes = adata.obs["cell_type"][control].value_counts()
    assert all(sizes[label] >= 10 for label in labels[cells])


@pytest.mark.parametrize(("share", "drawn"), [(0.2, False), (0.4, True)])
def test_an_arrow_is_that_of_the_cells_that_move_if_they_are_many(adata, control, share, drawn):
    adata.obs["kind"] = pd.Categorical(["one"] * 400)
    moved = adata.obsm["X_pca"][:, :5].copy()
    moved[: int(200 * share), 0] += 30
    adata.obsm["X_hycnn_ot"][control] = moved[control]
    starts, stops = ends(sh.pl.transport(adata, color="kind", show=False))
    np.testing.assert_allclose(stops - starts, [[30.0, 0.0]] if drawn else np.empty((0, 2)), atol=1e-4)


def test_arrows_of_types_that_lie_together_do_not_cover_each_other(adata, control):
    adata.obs["kind"] = pd.Categorical(np.resize(["a", "b", "c"], 400))
    moved = adata.obsm["X_pca"][:, :5] + np.float32([30, 0, 0, 0, 0])
    adata.obsm["X_hycnn_ot"][control] = moved[control]
    adata.obsm["X_pca"][~control, :5] = moved[~control]
    starts, stops = ends(sh.pl.transport(adata, color="kind", show=False))
    assert len(starts) == 3
    ways = np.hstack([starts, stops])
    diagonal = np.linalg.norm(np.ptp(np.concatenate([adata.obsm["X_pca"][control, :2], moved[control, :2]]), axis=0))
    assert pdist(ways).min() > 0.05 * diagonal
    np.testing.assert_allclose(stops - starts, [[30.0, 0.0]] * 3, atol=1e-4)


def test_a_fit_with_groups_draws_an_arrow_for_each_of_them(adata):
    adata.uns["hycnn_ot"]["params"]["group_key"] = "cell_type"
    ax = sh.pl.transport(adata, show=False)
    wanted = sh.pl.transport(adata, color="cell_type", show=False)
    np.testing.assert_array_equal(ends(ax)[0], ends(wanted)[0])
    assert ax.get_legend().get_title().get_text() == "cell_type"
    by_number = sh.pl.transport(adata, color="hycnn_ot_displacement", show=False)
    np.testing.assert_array_equal(ends(by_number)[0], ends(wanted)[0])


def test_predicted_cells_between_islands_are_left_out(adata, control):
    """Two islands far apart; some predicted cells lie halfway, where no cell is."""
    rng = np.random.default_rng(0)
    adata.obsm["X_umap"] = rng.normal(size=(400, 2)) + np.where(control, 0, 50)[:, None]
    sh.tl.project(adata)
    lost = np.flatnonzero(control)[:30]
    adata.obsm["X_umap_hycnn_ot"][control] = adata.obsm["X_umap"][~control]
    adata.obsm["X_umap_hycnn_ot"][lost] = 25.0
    _, stops = ends(sh.pl.transport(adata, basis="umap", show=False))
    assert len(stops) > 0
    assert (np.linalg.norm(stops - 25, axis=1) > 10).all()
    panel = sh.pl.embedding(adata, basis="umap", show=False)[1]
    assert len(panel.collections[1].get_offsets()) == 170
    assert "30 cells" in sh.pl.transport(adata, basis="umap", show=False).get_title()
    assert len(sh.pl.embedding(adata, show=False)[1].collections[1].get_offsets()) == 200


def test_the_plane_has_the_dimensions_that_change_most(adata, control):
    adata.obsm["X_hycnn_ot"][control] = adata.obsm["X_pca"][control, :5] + np.array([0, 3, 0, -4, 1], np.float32)
    ax = sh.pl.transport(adata, show=False)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("PC2", "PC4")
    starts, stops = ends(ax)
    np.testing.assert_allclose(stops - starts, np.tile([3.0, -4.0], (len(starts), 1)), atol=1e-4)
    assert sh.pl.embedding(adata, show=False)[0].get_xlabel() == "PC2"


# ---- held-out cells


@pytest.fixture
def split(adata):
    """Cells with a split, which the fit was made with; all that a figure may draw are rows of the test cells."""
    adata.obs["split"] = pd.Categorical(np.where(np.arange(400) % 4 == 0, "test", "train"))
    adata.uns["hycnn_ot"]["params"]["split_key"] = "split"
    return adata


def texts(figure):
    return " ".join(text.get_text() for text in figure.findobj(mpl.text.Text))


@pytest.mark.parametrize("plot", [plot for plot in PLOTS if plot not in (sh.pl.history, PLOTS[6])])
def test_figures_say_which_cells_they_show_and_how_many(split, plot):
    assert "held-out cells: 50 control, 50 IFN-beta" in texts(plot(split, return_fig=True))
    del split.uns["hycnn_ot"]["params"]["split_key"]
    assert "cells of the fit: 200 control, 200 IFN-beta" in texts(plot(split, return_fig=True))


def test_held_out_cells_are_drawn(split, control):
    test = (split.obs["split"] == "test").to_numpy()
    ax = sh.pl.transport(split, color="cell_type", show=False)
    for drawn, chosen in zip(ax.collections[:2], (test & ~control, test & control), strict=True):
        wanted = split.obsm["X_pca"][chosen, :2]
        np.testing.assert_array_equal(np.sort(drawn.get_offsets(), axis=0), np.sort(wanted, axis=0))
    panels = sh.pl.embedding(split, basis="umap", show=False)
    for panel, chosen in zip(panels[::2], (test & control, test & ~control), strict=True):
        drawn, wanted = panel.collections[1].get_offsets(), split.obsm["X_umap"][chosen]
        np.testing.assert_allclose(np.sort(drawn, axis=0), np.sort(wanted, axis=0), rtol=1e-6)


def test_predicted_cells_are_placed_among_all_cells_also_if_some_are_drawn(split, control):
    sh.tl.project(split)
    test = (split.obs["split"] == "test").to_numpy()
    drawn = sh.pl.embedding(split, basis="umap", show=False)[1].collections[1].get_offsets()
    fresh = sh.pl.embedding(split, basis="umap", n_neighbors=5, show=False)[1].collections[1].get_offsets()
    np.testing.assert_allclose(np.sort(fresh, axis=0), np.sort(drawn, axis=0), atol=1e-5)
    assert len(rows_of(drawn, split.obsm["X_umap_hycnn_ot"][test & control])) > 40


def test_all_cells_are_drawn_if_a_condition_has_no_held_out_cells(split, control):
    split.obs.loc[control, "split"] = "train"
    assert "cells of the fit: 200 control, 200 IFN-beta" in sh.pl.transport(split, show=False).get_title()


def test_colours_of_numbers_end_at_their_99th_percentile(adata, control):
    adata.obs.loc[adata.obs_names[control][0], "hycnn_ot_displacement"] = 1e6
    bar = sh.pl.transport(adata, color="hycnn_ot_displacement", return_fig=True).axes[1]
    assert bar.get_ylim()[1] < 1e5


@pytest.mark.parametrize("basis", [None, "umap"])
def test_cells_that_stay_get_neither_arrow_nor_stream(adata, control, basis):
    assert len(quiver(sh.pl.transport(adata, basis=basis, show=False)).U) > 0
    adata.obsm["X_hycnn_ot"][control] = adata.obsm["X_pca"][control, :5]
    assert len(quiver(sh.pl.transport(adata, basis=basis, show=False)).U) == 0
    assert len(streams(sh.pl.transport(adata, basis=basis, style="streams", show=False))) == 0


def test_target_cells_lie_in_grey_beneath_coloured_source_cells(adata):
    ax = sh.pl.transport(adata, color="cell_type", show=False)
    beneath, above = ax.collections[:2]
    assert len(beneath.get_offsets()) == (adata.obs["condition"] == "IFN-beta").sum()
    assert len(above.get_offsets()) == (adata.obs["condition"] == "control").sum()
    assert "(IFN-beta cells)" in [text.get_text() for text in ax.get_legend().get_texts()]


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


@pytest.mark.parametrize(("n", "drawn"), [(4, False), (5, True)])
def test_no_streams_where_few_cells_pass(adata, control, n, drawn):
    """Cells in five rows of squares move far away from all others, n cells in each row."""
    x = np.random.default_rng(0).normal(size=(200, 5)).astype(np.float32)
    x[: 5 * n, 0] = 0
    x[: 5 * n, 1] = np.repeat(np.linspace(-0.6, 0.6, 5), n)
    adata.obsm["X_pca"][control, :5] = x
    x[: 5 * n, 0] = 20
    adata.obsm["X_hycnn_ot"][control] = x
    pieces = streams(sh.pl.transport(adata, style="streams", show=False))
    assert (pieces[..., 0] > 9).any() == drawn
    np.testing.assert_allclose(pieces[pieces[..., 0].min(axis=1) > 9][..., 1], 0, atol=2)


def test_the_stored_projection_is_drawn(adata, control):
    sh.tl.project(adata)
    # A mark that no projection would give: all predicted cells at the place of one measured cell.
    mark = adata.obsm["X_umap"][control][0].copy()
    adata.obsm["X_umap_hycnn_ot"][control] = mark
    (stop,) = ends(sh.pl.transport(adata, basis="umap", n_grid=1, show=False))[1]
    np.testing.assert_allclose(stop, mark, rtol=1e-4)
    drawn = sh.pl.embedding(adata, basis="umap", show=False)[1].collections[1].get_offsets()
    np.testing.assert_array_equal(drawn, np.tile(mark, (200, 1)))
    fresh = sh.pl.embedding(adata, basis="umap", n_neighbors=5, show=False)[1].collections[1].get_offsets()
    assert np.ptp(fresh, axis=0).min() > 0.1


def test_a_projection_of_another_fit_is_not_drawn(adata, control):
    sh.tl.project(adata)
    adata.obsm["X_umap_hycnn_ot"][control] = [3.0, 4.0]
    adata.obsm["X_hycnn_ot"][control, 0] += 1
    with pytest.warns(UserWarning, match=r"'X_umap_hycnn_ot'.* another fit") as record:
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
def test_any_number_of_categories_has_different_colours(adata, n):
    labels = pd.Series(np.arange(adata.n_obs) % n, index=adata.obs_names).astype("category")
    labels.iloc[:5] = None
    adata.obs["group"] = labels
    legend = sh.pl.transport(adata, color="group", show=False).get_legend()
    assert len({handle.get_color() for handle in legend.legend_handles[:-1]}) == n


@pytest.mark.parametrize(
    ("palette", "problem"),
    [(["red"], "1 visible colours for 10"), (["nix"] * 10, "nix"), (7, "int"), (np.array("red"), "0-d")],
)
def test_a_palette_that_cannot_be_used_is_reported(adata, palette, problem):
    adata.uns["cell_type_colors"] = palette
    with pytest.warns(UserWarning, match=rf"'cell_type_colors'.*{problem}") as record:
        sh.pl.transport(adata, color="cell_type", show=False)
    assert record[0].filename == __file__


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


def test_embedding_panels_and_overlay(adata):
    panels = sh.pl.embedding(adata, color="cell_type", basis="umap", show=False)
    assert [ax.get_title() for ax in panels] == [
        "control (source)",
        "control → IFN-beta (predicted)",
        "IFN-beta (observed)",
    ]
    assert [len(ax.collections[1].get_offsets()) for ax in panels] == [200, 200, 200]
    assert panels[0].get_xlabel() == "UMAP1"
    assert "grey" in panels[0].get_figure().get_suptitle()
    _, ax = plt.subplots()
    sh.pl.embedding(adata, ax=ax, show=False)
    assert len(ax.collections[0].get_offsets()) == 600
    assert len({to_hex(color) for color in ax.collections[0].get_facecolors()}) == 3


def test_a_colour_bar_and_grey_cells_are_both_explained(adata):
    ax = sh.pl.transport(adata, color="hycnn_ot_displacement", show=False)
    assert ax.get_figure().axes[1].get_ylabel() == "displacement (distance in PCs)"
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
    assert "Gaussian map" in one.get_ylabel()
    # A reader must not take the band for a 95 % interval.
    assert "standard error" in one.get_xlabel()


def test_history_says_how_many_validation_cells_there_are(adata):
    ax = sh.pl.history(adata, show=False)
    validation = adata.uns["hycnn_ot"]["validation"]["IFN-beta"]
    assert f"n = {validation['n_source']} and {validation['n_target']}" in ax.get_title()


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


WRONG = [
    (sh.pl.transport, {"key": "foo"}, "'foo'"),
    (sh.pl.transport, {"basis": "tsne"}, r"'tsne'.*'X_pca'"),
    (sh.pl.transport, {"basis": "line"}, "'line' has 1 column"),
    (sh.pl.transport, {"basis": "holes"}, "'holes'.* 3 of 200 cells"),
    (sh.pl.transport, {"color": "nix"}, r"'nix'.*'condition'"),
    (sh.pl.transport, {"color": "unique"}, "'unique' has 400 "),
    (sh.pl.transport, {"style": "waves"}, r"'waves'.*'arrows', 'streams'"),
    (sh.pl.transport, {"n_grid": 0}, "n_grid=0"),
    (sh.pl.transport, {"n_neighbors": 2.5}, "n_neighbors=2.5"),
    (sh.pl.embedding, {"n_neighbors": True}, "n_neighbors=True"),
    (sh.pl.embedding, {"target": "IL-2"}, "target='IL-2'"),
    (sh.pl.embedding, {"ax": 1, "color": "cell_type"}, "color and ax"),
    (sh.pl.history, {"key": "foo"}, "'foo'"),
    (sh.pl.displacement, {"groupby": "nix"}, "'nix'.*'condition'"),
    (sh.pl.displacement, {"groupby": "hycnn_ot_std"}, "'hycnn_ot_std' holds numbers"),
    (sh.pl.evaluation, {"key": "foo"}, r"'foo_evaluation'.*'hycnn_ot'"),
    (sh.pl.evaluation, {"target": "IL-2"}, "'IL-2'.*'IFN-beta'"),
    (sh.pl.evaluation, {"metrics": ["w2", "mmd"]}, "'w2', 'mmd'.*'energy_distance', "),
    (sh.pl.evaluation, {"metrics": []}, r"metrics: \[\]"),
    (sh.pl.evaluation, {"group": "NK"}, "'NK'.*'all', 'B cells', 'T cells'"),
    (sh.pl.evaluation, {"ax": 1}, "ax .* 3"),
    (sh.pl.evaluation, {"n_cols": 0}, "n_cols=0"),
    (sh.pl.marginals, {"names": ["PC1", "NOGENE"]}, "'NOGENE'.*'PC1', 'PC2', 'PC3'"),
    (sh.pl.marginals, {"names": []}, r"names=\[\]"),
    (sh.pl.marginals, {"names": ["PC1", "PC2"], "ax": 1}, "ax .*'PC1', 'PC2'.* 2"),
    (sh.pl.marginals, {"names": "ISG20", "layer": "nix"}, "layer='nix'"),
    (sh.pl.mean_scatter, {"groupby": "nothing"}, r"adata.obs\['nothing'\]"),
    (sh.pl.mean_scatter, {"groupby": "condition"}, r"'control' has \['control'\], 'IFN-beta' has"),
    (sh.pl.mean_scatter, {"groupby": "cell_type", "ax": 1}, "ax .*'cell_type'"),
    (sh.pl.mean_scatter, {"n_labels": -1}, "n_labels=-1"),
    (sh.pl.deg, {"names": ["ISG20", "NOGENE"]}, r"\['NOGENE'\] .* 765 genes"),
    (sh.pl.deg, {"names": []}, r"names=\[\]"),
    (sh.pl.deg, {"n_genes": 0}, "n_genes=0"),
    (sh.pl.deg, {"groupby": "cell_type", "ax": 1}, "ax .*'cell_type' makes 2"),
]


def test_wrong_input(adata):
    adata.obsm["line"] = adata.obsm["X_pca"][:, :1]
    adata.obsm["holes"] = np.where(np.arange(adata.n_obs)[:, None] < 3, np.nan, adata.obsm["X_umap"])
    adata.obs["nothing"] = np.array([None] * adata.n_obs, dtype=object)
    adata.obs["unique"] = pd.Categorical([f"cell {i}" for i in range(adata.n_obs)])
    for plot, options, message in WRONG:
        with pytest.raises(ValueError, match=message):
            plot(adata, show=False, **options)


def test_genes_need_measured_and_predicted_values(adata, control):
    adata.layers["hycnn_ot"][np.flatnonzero(control)[:7]] = np.nan
    with pytest.raises(ValueError, match=r"adata.layers\['hycnn_ot'\] .* 7 of the 200 "):
        sh.pl.marginals(adata, names="ISG20", show=False)
    predicted, loadings = adata.layers.pop("hycnn_ot"), adata.varm.pop("PCs")
    adata.uns["hycnn_ot"]["rep"]["fingerprint"] = ""
    for plot in (partial(sh.pl.marginals, names="ISG20"), sh.pl.deg):
        with pytest.raises(ValueError, match=r"'X_pca'.*decoder="):
            plot(adata, show=False)
    adata.varm["PCs"], adata.X = loadings, None
    for layer in (None, np.nan_to_num(predicted)):
        with pytest.raises(ValueError, match="X"):
            sh.pl.marginals(adata, names="ISG20", show=False)
        adata.layers["hycnn_ot"] = np.zeros(adata.shape) if layer is None else layer


def test_one_dimension_and_no_training(adata):
    sh.tl.hycnn_ot(adata, "control", "IFN-beta", n_pcs=1, potential="gaussian", key_added="line")
    with pytest.raises(ValueError, match="has one dimension; pass basis"):
        sh.pl.transport(adata, "line", show=False)
    sh.pl.transport(adata, "line", basis="umap", show=False)
    with pytest.raises(ValueError, match="There is no history: the Gaussian map"):
        sh.pl.history(adata, "line", show=False)
