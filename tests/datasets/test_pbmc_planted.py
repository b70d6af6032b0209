"""The planted PBMCs: the gradient of a convex function, plausible cells, stable slots, and the committed file."""

from __future__ import annotations

import hashlib
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import scanpy as sc
from scipy.sparse import issparse

from scot_hycnn.datasets import pbmc_planted, planted_response
from scot_hycnn.metrics import energy_distance, map_mse

MOVING = ["CD14+ Monocyte", "CD56+ NK", "Dendritic"]
STILL = ["CD19+ B", "CD34+", "CD4+/CD25 T Reg", "CD4+/CD45RO+ Memory", "CD8+/CD45RA+ Naive Cytotoxic"]


@pytest.fixture(scope="module")
def adata():
    return pbmc_planted(2000)


@pytest.fixture(scope="module")
def control(adata):
    return adata[adata.obs["condition"] == "control"]


@pytest.fixture(scope="module")
def x(control):
    return control.obsm["X_pca"].astype(float)


@pytest.fixture(scope="module")
def truth(control):
    return control.obsm["X_planted"].astype(float)


@pytest.fixture(scope="module")
def y(adata):
    return adata[adata.obs["condition"] == "IFN-beta"].obsm["X_pca"].astype(float)


# ---- slots


def test_slots(adata):
    assert adata.shape == (2000, 765)
    assert issparse(adata.X)
    assert adata.X.dtype == np.float32
    assert list(adata.obs.columns) == ["condition", "cell_type"]
    assert list(adata.obs["condition"].cat.categories) == ["control", "IFN-beta"]
    assert adata.obs["cell_type"].cat.categories.size == 10
    assert adata.obs_names.is_unique
    assert {"LYZ", "IFITM3"} < set(adata.var_names)
    for key in ["X_pca", "X_planted"]:
        assert adata.obsm[key].shape == (2000, 30)
        assert adata.obsm[key].dtype == np.float32
    assert adata.varm["PCs"].shape == (765, 30)
    assert set(adata.uns["pca"]) == {"params", "variance", "variance_ratio"}
    assert (np.diff(adata.uns["pca"]["variance"]) < 0).all()
    assert 0 < adata.uns["pca"]["variance_ratio"].sum() < 1


def test_the_truth_is_known_for_control_cells_only(adata):
    is_control = (adata.obs["condition"] == "control").to_numpy()
    assert is_control.sum() == 1000
    assert np.isfinite(adata.obsm["X_planted"][is_control]).all()
    assert np.isnan(adata.obsm["X_planted"][~is_control]).all()


def test_number_of_cells():
    assert pbmc_planted(21).obs["condition"].value_counts().to_dict() == {"control": 10, "IFN-beta": 11}
    with pytest.raises(ValueError, match="n_cells=19; at least 20"):
        pbmc_planted(19)


def test_the_seed_decides_and_the_global_generator_is_not_used():
    state = np.random.get_state()[1].copy()
    first, again, other = (
        pbmc_planted(40),
        pbmc_planted(40, rng=np.random.default_rng(0)),
        pbmc_planted(40, rng=1),
    )
    assert np.array_equal(first.obsm["X_pca"], again.obsm["X_pca"])
    assert (first.X != again.X).nnz == 0
    assert not np.array_equal(first.obsm["X_pca"], other.obsm["X_pca"])
    assert np.array_equal(first.uns["planted"]["vectors"], other.uns["planted"]["vectors"])
    assert np.array_equal(np.random.get_state()[1], state)


def test_donors_have_a_baseline_and_a_strength_each():
    plain, donors = pbmc_planted(400), pbmc_planted(400, n_donors=3)
    is_control = np.arange(400) < 200
    way = [(one.obsm["X_planted"] - one.obsm["X_pca"])[is_control] for one in (plain, donors)]
    baseline = (donors.obsm["X_pca"] - plain.obsm["X_pca"])[is_control]
    strengths = []
    for label in donors.obs["donor"].cat.categories:
        of_donor = (donors.obs["donor"] == label).to_numpy()[is_control]
        assert np.ptp(baseline[of_donor], axis=0).max() < 1e-4
        strengths.append((way[1][of_donor] * way[0][of_donor]).sum() / (way[0][of_donor] ** 2).sum())
        np.testing.assert_allclose(way[1][of_donor], strengths[-1] * way[0][of_donor], atol=1e-3)
    assert np.ptp(strengths) > 0.3
    more = pbmc_planted(400, n_donors=5, rng=1).obs["donor"]
    assert list(more.cat.categories) == [f"donor {k}" for k in range(1, 6)]
    with pytest.raises(ValueError, match="n_donors=-1"):
        pbmc_planted(400, n_donors=-1)


@pytest.mark.filterwarnings("ignore:Writing zarr v2 data:UserWarning")
@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_round_trip(suffix, tmp_path):
    small = pbmc_planted(60)
    if suffix == "h5ad":
        small.write_h5ad(tmp_path / "cells.h5ad")
        read = ad.read_h5ad(tmp_path / "cells.h5ad")
    else:
        pytest.importorskip("zarr")
        small.write_zarr(tmp_path / "cells.zarr")
        read = ad.read_zarr(tmp_path / "cells.zarr")
    points = small.obsm["X_pca"]
    expected = planted_response(small).transport(points)
    np.testing.assert_array_equal(planted_response(read).transport(points), expected)
    np.testing.assert_array_equal(read.obsm["X_planted"], small.obsm["X_planted"])


def test_other_data_have_no_response():
    with pytest.raises(ValueError, match="'planted'"):
        planted_response(ad.AnnData(np.zeros((2, 2), dtype=np.float32)))


# ---- cells


@pytest.fixture(scope="module")
def real():
    return sc.datasets.pbmc68k_reduced()


def test_the_pca_is_that_of_the_real_cells_and_expression_has_their_residuals(adata, real):
    expression, loadings = real.raw.X.toarray(), adata.varm["PCs"].astype(float)
    np.testing.assert_allclose(loadings.T @ loadings, np.eye(30), atol=1e-5)
    np.testing.assert_allclose(adata.var["mean"], expression.mean(axis=0), atol=1e-5)
    centred = expression - expression.mean(axis=0)
    scores = centred @ loadings
    np.testing.assert_allclose(scores.var(axis=0, ddof=1), adata.uns["pca"]["variance"], rtol=1e-4)
    error = adata.X.toarray() - adata.obsm["X_pca"] @ loadings.T - adata.var["mean"].to_numpy()
    assert abs(error.mean()) < 0.05
    assert error.std() == pytest.approx((centred - scores @ loadings.T).std(), rel=0.1)


def test_expression_looks_log_normalised(control, real):
    values, real = control.X.data, real.raw.X
    assert values.min() >= real.data.min() - 1 / 64
    assert values.max() < real.data.max() + 2
    assert control.X.nnz / np.prod(control.shape) == pytest.approx(real.nnz / np.prod(real.shape), rel=0.1)
    assert (values * 64 == np.round(values * 64)).all()


def test_cell_types_keep_their_place_spread_and_share(control, x, real):
    expression = real.raw.X.toarray()
    scores = (expression - expression.mean(axis=0)) @ control.varm["PCs"]
    for cell_type in ["CD14+ Monocyte", "CD19+ B", "Dendritic"]:
        before = scores[(real.obs["bulk_labels"] == cell_type).to_numpy()]
        after = x[(control.obs["cell_type"] == cell_type).to_numpy()]
        spread = np.sqrt(before.var(axis=0).sum())
        assert np.linalg.norm(after.mean(axis=0) - before.mean(axis=0)) < 0.2 * spread
        assert np.sqrt(after.var(axis=0).sum()) == pytest.approx(spread, rel=0.1)
        assert len(after) / len(x) == pytest.approx(len(before) / 700, abs=0.04)


def test_interferon_genes_rise_in_monocytes(adata):
    monocytes = adata[adata.obs["cell_type"] == "CD14+ Monocyte"]
    means = monocytes.to_df().groupby(monocytes.obs["condition"], observed=True).mean()
    change = means.loc["IFN-beta"] - means.loc["control"]
    assert (change[["IFITM2", "IFITM3", "IFI30", "OAS1", "BST2"]] > 0.1).all()


# ---- response


def test_stored_truth_is_the_gradient(control, x, truth):
    np.testing.assert_allclose(planted_response(control).transport(x), truth, atol=1e-4)


def test_jacobian_is_symmetric_and_positive(control, x):
    transport, points, step = planted_response(control).transport, x[:50], 1e-4
    jacobian = np.stack(
        [(transport(points + e) - transport(points - e)) / (2 * step) for e in step * np.eye(30)], axis=1
    )
    np.testing.assert_allclose(jacobian, jacobian.transpose(0, 2, 1), atol=1e-6)
    assert np.linalg.eigvalsh(jacobian).min() > 1 - 1e-6  # the share of the parabola


def test_types_respond_differently_and_plausibly(control, x, truth):
    distance = np.linalg.norm(truth - x, axis=1)
    mean = control.obs.assign(distance=distance).groupby("cell_type", observed=True)["distance"].mean()
    spread = np.sqrt(x[(control.obs["cell_type"] == "CD14+ Monocyte").to_numpy()].var(axis=0).sum())
    assert (mean[STILL] < 0.1).all()
    assert (mean[MOVING] > 2).all()
    assert 0.3 * spread < mean["CD14+ Monocyte"] < spread
    assert distance.max() < 1.5 * spread


def test_treated_cells_are_the_image_of_other_control_cells(x, y, truth):
    assert energy_distance(x, y) > 0.1
    assert energy_distance(truth, y) < 0.1 * energy_distance(x, y)
    nearest = np.abs(truth[:200, None] - y[None, :200]).max(axis=2).min(axis=1)
    assert nearest.min() > 0.1


def test_no_affine_map_reproduces_the_response(x, truth):
    """Least squares on the true images leaves a quarter of the displacement."""
    design = np.column_stack([x, np.ones(len(x))])
    best_affine = design @ np.linalg.lstsq(design, truth)[0]
    assert map_mse(best_affine, truth) > 0.25 * map_mse(x, truth)


# ---- data/pbmc_planted.h5ad is the file of its checksum, its script and its README


def test_the_committed_file_is_regenerated():
    folder = Path(__file__).parents[2] / "data"
    path = folder / "pbmc_planted.h5ad"
    committed = ad.read_h5ad(path)
    checksum, name = (folder / "SHA256SUMS").read_text(encoding="utf-8").split()
    assert name == path.name
    assert hashlib.sha256(path.read_bytes()).hexdigest() == checksum
    assert path.stat().st_size < 3e6
    assert f"{committed.n_obs} cells x {committed.n_vars} genes" in (folder / "README.md").read_text(encoding="utf-8")
    again = pbmc_planted(committed.n_obs)
    assert committed.obs.astype(str).equals(again.obs.astype(str))
    assert list(committed.var_names) == list(again.var_names)
    for key in ("X_pca", "X_planted"):
        np.testing.assert_allclose(committed.obsm[key], again.obsm[key], atol=1e-3)
    np.testing.assert_allclose(committed.varm["PCs"], again.varm["PCs"], atol=1e-4)
    for key, value in again.uns["planted"].items():
        np.testing.assert_allclose(committed.uns["planted"][key], value, atol=1e-4)
    # Rounding to 1/64 and the detection limit: the last digit of another machine changes a few entries.
    assert (np.abs((committed.X - again.X).toarray()) > 0).mean() < 1e-4
