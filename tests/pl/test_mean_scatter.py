"""pl.mean_scatter: means, R², names, and panels by group."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest

import scot_hycnn as sh


def names(ax):
    return [text.get_text() for text in ax.texts]


def test_points_are_means(adata, control):
    ax = sh.pl.mean_scatter(adata, show=False)
    source, predicted = (np.asarray(points.get_offsets()) for points in ax.collections)
    genes = adata.X.toarray()
    np.testing.assert_allclose(source, np.column_stack([genes[~control].mean(0), genes[control].mean(0)]), atol=1e-5)
    np.testing.assert_allclose(predicted[:, 1], genes[control].mean(0) + 0.5, rtol=1e-4)
    r2 = np.corrcoef(*source.T)[0, 1] ** 2  # predictions differ by a constant
    assert ax.get_title().split("\n")[0] == "control → IFN-beta"
    assert f"R² = {r2:.3f} (no change {r2:.3f})" in ax.get_title()
    assert ax.get_ylabel() == "predicted mean expression"


def test_r2_is_that_of_the_metrics(adata, control):
    rng = np.random.default_rng(0)
    adata.layers["hycnn_ot"][control] += rng.normal(size=(200, adata.n_vars)).cumsum(axis=0) / 10
    ax = sh.pl.mean_scatter(adata, show=False)
    wanted = sh.metrics.r2_mean(adata.layers["hycnn_ot"][control], adata.X[~control].toarray())
    assert f"R² = {wanted:.3f} " in ax.get_title()
    assert wanted < 0.999


def test_genes_that_change_most_are_named(adata, control):
    genes = adata.X.toarray()
    change = abs(genes[~control].mean(0) - genes[control].mean(0))
    ax = sh.pl.mean_scatter(adata, n_labels=5, show=False)
    assert names(ax) == adata.var_names[np.argsort(-change)[:5]].tolist()
    assert names(sh.pl.mean_scatter(adata, n_labels=0, show=False)) == []


def test_genes_are_decoded_where_no_layer_holds_them(adata, control):
    del adata.layers["hycnn_ot"]
    ax = sh.pl.mean_scatter(adata, show=False)
    assert ax.get_xlabel() == "observed mean expression"
    predicted = sh.get.predicted(adata, roles=["predicted"]).X.mean(axis=0)
    np.testing.assert_allclose(ax.collections[1].get_offsets()[:, 1], predicted, atol=1e-4)
    assert "R² = " in ax.get_title()
    assert "hycnn_ot" not in adata.layers


def test_dimensions_are_drawn_where_no_way_leads_to_genes(adata, control):
    del adata.layers["hycnn_ot"], adata.varm["PCs"]
    adata.uns["hycnn_ot"]["rep"]["fingerprint"] = ""
    ax = sh.pl.mean_scatter(adata, show=False)
    assert ax.get_xlabel() == "observed mean of PCs"
    assert "R²" not in ax.get_title()
    assert sorted(names(ax)) == ["PC1", "PC2", "PC3", "PC4", "PC5"]
    points = ax.collections[1].get_offsets()
    np.testing.assert_allclose(points[:, 1], adata.obsm["X_hycnn_ot"][control].mean(0), rtol=1e-4)


def test_a_map_of_genes_needs_no_layer(adata, control):
    small = adata[:, :6].copy()
    small.X = small.X.toarray()
    sh.tl.hycnn_ot(small, "control", "IFN-beta", use_rep="X", potential="gaussian", key_added="genes")
    ax = sh.pl.mean_scatter(small, "genes", show=False)
    assert ax.get_xlabel() == "observed mean expression"
    np.testing.assert_allclose(
        ax.collections[1].get_offsets()[:, 1], small.obsm["X_genes"][control].mean(0), rtol=1e-4, atol=1e-6
    )


def test_each_group_with_ten_cells_of_both_conditions_has_a_panel(adata, control):
    labels = adata.obs["cell_type"].astype(str)
    labels[control & (labels == "Dendritic")] = "only control"
    adata.obs["group"] = labels
    axes = sh.pl.mean_scatter(adata, groupby="group", n_cols=2, show=False)
    both = sorted(set(labels[control]) & set(labels[~control]))
    assert "only control" not in both
    both = [label for label in both if min(((labels == label) & side).sum() for side in (control, ~control)) >= 10]
    n, m = ([((labels == label) & side).sum() for label in both] for side in (control, ~control))
    titles = [ax.get_title().split("\n")[0] for ax in axes]
    assert set(titles) == {f"{label} ({a}, {b} cells)" for label, a, b in zip(both, n, m, strict=True)}
    # Groups without a response come last, and no gene is named there.
    quiet = [ax.title.get_color() != "black" for ax in axes]
    assert 0 < sum(quiet) < len(quiet)
    assert sorted(quiet) == quiet
    assert [not names(ax) for ax in axes] == quiet
    mean = adata[control & (labels == titles[0].rsplit(" (", 1)[0]).to_numpy()].X.toarray().mean(0)
    np.testing.assert_allclose(axes[0].collections[0].get_offsets()[:, 1], mean, atol=1e-5)
    assert [bool(ax.get_ylabel()) for ax in axes] == [True, False, True]
    assert all(ax.get_xlabel() for ax in axes[-2:])
    assert "left out" in axes[0].get_figure().get_suptitle()


def test_means_without_spread_have_no_r2(adata, control):
    adata.layers["hycnn_ot"][control] = 1.0
    assert "R² = nan" in sh.pl.mean_scatter(adata, n_labels=0, show=False).get_title()


@pytest.mark.parametrize("n", [5, 15])
def test_names_lie_within_the_axes_and_do_not_overlap(adata, n):
    figure, ax = plt.subplots(figsize=(8, 8), layout="constrained")
    sh.pl.mean_scatter(adata, n_labels=n, ax=ax, show=False)
    figure.draw_without_rendering()
    boxes = [text.get_bbox_patch().get_window_extent() for text in ax.texts]
    assert len(boxes) == n
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert all(box.x0 >= ax.bbox.x0 and box.x1 <= ax.bbox.x1 for box in boxes)


def test_one_of_several_targets(adata, control):
    labels = adata.obs["condition"].astype(str)
    labels.iloc[np.flatnonzero(~control)[::2]] = "IL/2"
    adata.obs["condition"] = labels
    sh.tl.hycnn_ot(adata, "control", ["IFN-beta", "IL/2"], n_pcs=3, potential="gaussian", key_added="two")
    sh.tl.decode(adata, "two")
    with pytest.raises(ValueError, match=r"several targets; pass target= one of \['IFN-beta', 'IL/2'\]"):
        sh.pl.mean_scatter(adata, "two", show=False)
    ax = sh.pl.mean_scatter(adata, "two", "IL/2", show=False)
    np.testing.assert_allclose(
        ax.collections[1].get_offsets()[:, 1], adata.layers["two_IL_2"][control].mean(0), rtol=1e-3, atol=1e-5
    )
    for plot in (sh.pl.marginals, sh.pl.deg):
        plot(adata, "two", "IL/2", names=["ISG20"], show=False)
    sh.pl.displacement(adata, "two", "IL/2", groupby="cell_type", show=False)
