"""Predicted cells on an embedding: their positions, what is written, and errors."""

from __future__ import annotations

import anndata
import numpy as np
import pytest

import scot_hycnn as sh


@pytest.fixture
def fitted(new_cells):
    """The embedding is linear in the coordinates, so the right place of any point is known."""
    adata = new_cells(n=200, d=3)
    sh.tl.hycnn_ot(adata, "control", "IFN-beta", potential="gaussian")
    adata.obsm["X_umap"] = (adata.obsm["X_pca"] @ np.array([[1.0, 0, 0], [0, 1, 1]]).T).astype(np.float32)
    return adata


@pytest.fixture
def control(fitted):
    return (fitted.obs["condition"] == "control").to_numpy()


def test_predicted_cells_land_where_they_belong(fitted, control):
    sh.tl.project(fitted)
    placed, moved = fitted.obsm["X_umap_hycnn_ot"], fitted.obsm["X_hycnn_ot"]
    right = moved[control] @ np.array([[1.0, 0, 0], [0, 1, 1]]).T
    error = np.linalg.norm(placed[control] - right, axis=1)
    distance = np.linalg.norm(fitted.obsm["X_umap"][control] - right, axis=1)
    assert np.median(error) < 0.25 * np.median(distance)
    assert placed.dtype == np.float32
    assert np.isnan(placed[~control]).all()
    assert fitted.uns["umap_hycnn_ot"]["basis"] == "X_umap"
    assert fitted.uns["umap_hycnn_ot"]["n_neighbors"] == 5


def test_the_place_is_the_mean_weighted_by_one_over_the_distance(fitted, control):
    sh.tl.project(fitted, n_neighbors=3)
    known = np.flatnonzero(fitted.obs["condition"].notna())
    cell = np.flatnonzero(control)[7]
    distance = np.linalg.norm(fitted.obsm["X_pca"][known] - fitted.obsm["X_hycnn_ot"][cell], axis=1)
    nearest = np.argsort(distance)[:3]
    weight = 1 / distance[nearest]
    wanted = weight @ fitted.obsm["X_umap"][known[nearest]] / weight.sum()
    np.testing.assert_allclose(fitted.obsm["X_umap_hycnn_ot"][cell], wanted, rtol=1e-4)


def test_cells_that_stay_keep_their_place(fitted, control):
    fitted.obsm["X_hycnn_ot"][control] = fitted.obsm["X_pca"][control]
    sh.tl.project(fitted, "X_umap")
    np.testing.assert_allclose(fitted.obsm["X_umap_hycnn_ot"][control], fitted.obsm["X_umap"][control], atol=1e-5)


def test_all_columns_and_more_neighbours_than_cells(fitted, control):
    fitted.obsm["X_umap3"] = fitted.obsm["X_pca"].copy()
    sh.tl.project(fitted, "umap3", n_neighbors=100_000)
    assert fitted.obsm["X_umap3_hycnn_ot"].shape == (fitted.n_obs, 3)
    assert np.isfinite(fitted.obsm["X_umap3_hycnn_ot"][control]).all()


def test_all_targets_or_one(new_cells):
    adata = new_cells()
    labels = adata.obs["condition"].astype(object)
    labels.iloc[np.flatnonzero(labels == "IFN-beta")[::2]] = "IL/2"
    adata.obs["condition"] = labels
    sh.tl.hycnn_ot(adata, "control", ["IFN-beta", "IL/2"], potential="gaussian")
    adata.obsm["X_umap"] = adata.obsm["X_pca"][:, :2]
    one = sh.tl.project(adata, target="IL/2", copy=True)
    assert [name for name in one.obsm if "umap_" in name] == ["X_umap_hycnn_ot_IL_2"]
    sh.tl.project(adata)
    both = ["umap_hycnn_ot_IFN-beta", "umap_hycnn_ot_IL_2"]
    assert [name for name in adata.obsm if "umap_" in name] == [f"X_{name}" for name in both]
    assert [name for name in adata.uns if "umap" in name] == both
    np.testing.assert_array_equal(one.obsm["X_umap_hycnn_ot_IL_2"], adata.obsm["X_umap_hycnn_ot_IL_2"])
    sh.pl.transport(adata, target="IL/2", basis="umap", show=False)


def test_copies_and_views(fitted, unchanged):
    with unchanged(fitted):
        copied = sh.tl.project(fitted, key_added="place", copy=True)
    assert "X_place" in copied.obsm
    assert "place" in copied.uns
    view = fitted[:300]
    sh.tl.project(view)
    assert not view.is_view
    assert "X_umap_hycnn_ot" in view.obsm
    assert "X_umap_hycnn_ot" not in fitted.obsm


def test_again_replaces_with_a_warning(fitted):
    sh.tl.project(fitted)
    with pytest.warns(UserWarning, match=r"'X_umap_hycnn_ot' \(adata.obsm\), 'umap_hycnn_ot' \(adata.uns\)") as r:
        sh.tl.project(fitted, n_neighbors=7)
    assert r[0].filename == __file__
    assert fitted.uns["umap_hycnn_ot"]["n_neighbors"] == 7


def test_a_file_holds_it(fitted, tmp_path):
    sh.tl.project(fitted)
    fitted.write_h5ad(tmp_path / "fit.h5ad")
    back = anndata.read_h5ad(tmp_path / "fit.h5ad")
    np.testing.assert_array_equal(back.obsm["X_umap_hycnn_ot"], fitted.obsm["X_umap_hycnn_ot"])
    # Neither stale, which would warn, nor foreign, which would be refused.
    sh.pl.transport(back, basis="umap", show=False)
    with pytest.warns(UserWarning, match="Replacing"):
        sh.tl.project(back)


def test_an_error_names_the_value_and_nothing_changes(fitted, unchanged):
    fitted.obsm["line"] = fitted.obsm["X_pca"][:, :1]
    fitted.obsm["holes"] = np.where(np.arange(fitted.n_obs)[:, None] < 5, np.nan, fitted.obsm["X_umap"])
    for options, values in (
        ({"basis": "tsne"}, "'tsne'.*'X_pca'"),
        ({"basis": "line"}, "'line'.*1 column"),
        ({"basis": "holes"}, r"'holes'.*\d+ of 400 cells"),
        ({"key": "foo"}, "'foo'"),
        ({"target": "IL-2"}, "'IL-2'"),
        ({"n_neighbors": 0}, "n_neighbors=0"),
        ({"key_added": "a/b"}, "key_added='a/b'"),
        ({"key_added": ""}, "key_added=''"),
        ({"key_added": "umap"}, r"'X_umap' \(adata.obsm\)"),
        ({"key_added": "hycnn_ot"}, r"'X_hycnn_ot' \(adata.obsm\) and 'hycnn_ot' \(adata.uns\)"),
    ):
        with unchanged(fitted), pytest.raises(ValueError, match=values):
            sh.tl.project(fitted, **options)


def test_another_type_than_anndata(fitted):
    with pytest.raises(TypeError, match="ndarray"):
        sh.tl.project(fitted.obsm["X_pca"])
