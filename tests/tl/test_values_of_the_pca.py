"""Genes are decoded from the values that the PCA was run on, and from no others, on every path."""

from __future__ import annotations

import time
import warnings

import anndata
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from scipy.sparse import csr_matrix

import scot_hycnn as sh

N, GENES = 400, 60


def expression(seed: int = 0) -> anndata.AnnData:
    """Sparse log-normalised counts of two cell types in two conditions, sorted by both."""
    rng = np.random.default_rng(seed)
    kind, treated = np.arange(N) % (N // 2) < N // 4, np.arange(N) >= N // 2
    # Genes differ in their spread, so that scaling them changes the components.
    rate = np.exp(np.random.default_rng(1).normal(0, 1.2, GENES))
    rate = rate * np.exp(0.8 * np.outer(kind, np.random.default_rng(2).normal(size=GENES)))
    rate = rate * np.exp(0.8 * np.outer(treated, np.random.default_rng(3).normal(size=GENES)))
    counts = rng.poisson(rate * rng.gamma(5, 1 / 5, (N, 1))).astype(np.float32)
    obs = pd.DataFrame({"condition": np.where(treated, "drug", "control"), "type": np.where(kind, "a", "b")})
    obs.index = [f"cell{i}" for i in range(N)]
    adata = anndata.AnnData(csr_matrix(counts), obs=obs)
    adata.layers["counts"] = adata.X.copy()
    sc.pp.normalize_total(adata, target_sum=100)
    sc.pp.log1p(adata)
    return adata


def fit(adata: anndata.AnnData, **options) -> anndata.AnnData:
    sh.tl.hycnn_ot(adata, "control", "drug", potential="gaussian", **options)
    return adata


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Where reports are written."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def fitted():
    adata = expression()
    sc.pp.pca(adata, n_comps=5)
    return fit(adata)


@pytest.fixture
def adata(fitted):
    yield fitted.copy()
    plt.close("all")


def evaluate(adata, **options):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="All cells are evaluated")
        return sh.metrics.evaluate(adata, n_bootstrap=0, **options)


PATHS = {
    "decode": sh.tl.decode,
    "predicted": sh.get.predicted,
    "evaluate": evaluate,
    "report": lambda adata, **options: sh.pl.report(adata, "report.html", **options),
}
FIGURES = {
    "mean_scatter": lambda adata, **options: sh.pl.mean_scatter(adata, show=False, **options),
    "deg": lambda adata, **options: sh.pl.deg(adata, show=False, **options),
    "marginals": lambda adata, **options: sh.pl.marginals(adata, names=["3", "6"], show=False, **options),
    "report with the layer": PATHS["report"],
}


def counts_in_x(adata):
    adata.layers["log"], adata.X = adata.X, adata.layers["counts"]
    return "log"


def loadings_of_a_scaled_copy(adata):
    scaled = adata.copy()
    scaled.X = scaled.X.toarray()
    sc.pp.scale(scaled, max_value=10)
    sc.pp.pca(scaled, n_comps=5)
    adata.obsm["X_pca"], adata.varm["PCs"] = scaled.obsm["X_pca"], scaled.varm["PCs"]
    adata.layers["scaled"] = scaled.X
    fit(adata)
    return "scaled"


def other_logarithm(adata):
    adata.layers["ln"], adata.X = adata.X, adata.X / np.log(2).astype(np.float32)
    return "ln"


def some_cells_in_counts(adata):
    """The last tenth of the file: not among its first cells."""
    adata.layers["log"] = adata.X
    mixed = adata.X.toarray()
    mixed[-N // 10 :] = adata.layers["counts"][-N // 10 :].toarray()
    adata.X = mixed
    return "log"


WRONG = [counts_in_x, loadings_of_a_scaled_copy, other_logarithm, some_cells_in_counts]


def refused(message: str):
    return pytest.raises(ValueError, match=message)


@pytest.mark.filterwarnings("ignore:Replacing")
@pytest.mark.parametrize("spoil", WRONG)
@pytest.mark.parametrize("path", PATHS)
def test_other_values_are_refused_and_the_layer_is_named(adata, path, spoil, unchanged, tmp_path):
    if path == "decode" and spoil is some_cells_in_counts:
        pytest.skip("these are target cells, which decode does not read")
    right = spoil(adata)
    with unchanged(adata), refused(rf"adata.X does not hold the values.*are [\d.]+ times the spread.*layer='{right}'"):
        PATHS[path](adata)
    assert not list(tmp_path.iterdir())
    PATHS[path](adata, layer=right)
    del adata.layers[right]
    adata.layers.pop("hycnn_ot", None)
    with unchanged(adata), refused(r"Pass layer= the one that the PCA was run on: .*\['counts'\]"):
        PATHS[path](adata)


@pytest.mark.filterwarnings("ignore:Replacing")
@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("spoil", WRONG)
@pytest.mark.parametrize("figure", FIGURES)
def test_figures_of_decoded_genes(adata, figure, spoil, clip, unchanged):
    right = spoil(adata)
    sh.tl.decode(adata, layer=right, clip=clip)
    with unchanged(adata), refused(rf"adata.X does not hold the values.*layer='{right}'"):
        FIGURES[figure](adata)
    FIGURES[figure](adata, layer=right)


@pytest.mark.parametrize("figure", FIGURES)
def test_a_layer_that_was_decoded_from_other_values(adata, figure, tmp_path, monkeypatch):
    """As an older version has written it."""
    monkeypatch.chdir(tmp_path)
    adata.layers["hycnn_ot"] = adata.layers["counts"].toarray()
    source = (adata.obs["condition"] == "control").to_numpy()
    change = (adata.obsm["X_hycnn_ot"] - adata.obsm["X_pca"])[source] @ adata.varm["PCs"].T
    adata.layers["hycnn_ot"][source] += change
    with refused(r"adata.layers\['hycnn_ot'\] was predicted from layer='counts', and .*decode again with layer='X'"):
        FIGURES[figure](adata)
    adata.X = adata.layers["counts"]
    with refused("adata.X does not hold the values"):
        FIGURES[figure](adata)


@pytest.mark.parametrize("figure", FIGURES)
def test_figures_of_a_decoder_on_a_scale_of_its_own(adata, figure):
    mean = adata.layers["counts"].toarray().mean(axis=0)
    adata.X = adata.layers["counts"]
    sh.tl.decode(adata, decoder=lambda points: mean + np.abs(points[:, :1]) * np.linspace(0, 1, GENES))
    FIGURES[figure](adata)


def right_paths(adata, rep="X_pca"):
    """Each of the paths gives what the formula does."""
    source = (adata.obs["condition"] == "control").to_numpy()
    n = adata.obsm["X_hycnn_ot"].shape[1]
    key = "PCs" if rep == "X_pca" else rep
    change = (adata.obsm["X_hycnn_ot"] - adata.obsm[rep][:, :n])[source] @ adata.varm[key][:, :n].T
    values = adata.X.toarray() if hasattr(adata.X, "toarray") else adata.X
    sh.tl.decode(adata)
    np.testing.assert_allclose(adata.layers["hycnn_ot"][source], values[source] + change, atol=1e-4)
    cells = sh.get.predicted(adata, roles=["predicted"])
    np.testing.assert_array_equal(cells.X, adata.layers["hycnn_ot"][source])
    assert "r2_mean" in set(evaluate(adata)["metric"])
    for figure in ("mean_scatter", "deg", "marginals"):
        FIGURES[figure](adata)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"zero_center": False},
        {"chunked": True, "chunk_size": 100},
        {"svd_solver": "randomized"},
        {"mask_var": "some"},
    ],
)
@pytest.mark.parametrize("kind", ["sparse", "dense", "scaled", "float64", "offset"])
@pytest.mark.filterwarnings("ignore")  # scanpy's and scikit-learn's own
def test_every_kind_of_pca_passes(kind, options):
    adata = expression()
    adata.var["some"] = np.arange(GENES) % 3 > 0
    if kind != "sparse":
        adata.X = adata.X.toarray()
    if kind == "scaled":
        sc.pp.scale(adata)
    if kind == "float64":
        adata.X = adata.X.astype(np.float64)
    if kind == "offset":
        adata.X = adata.X + np.float32(1000)
    sc.pp.pca(adata, n_comps=5, **options)
    right_paths(fit(adata, n_pcs=2 if kind in ("dense", "scaled") else None))
    plt.close("all")


@pytest.mark.filterwarnings("ignore:Replacing")
def test_components_of_a_part_of_the_cells(adata):
    sh.pp.split(adata, test_size=0.8)
    sh.pp.pca(adata, n_comps=5, split_key="split", key_added="X_train")
    right_paths(fit(adata, use_rep="X_train", split_key="split"), "X_train")


def test_genes_that_were_taken_out_after_the_pca():
    """Loadings that are left are not orthonormal: the scale alone can be seen."""
    adata = expression()
    adata.layers["twice"] = 2 * adata.X
    sc.pp.pca(adata, n_comps=5)
    few = fit(adata[:, ::3].copy())
    right_paths(few)
    for layer in ("twice", "counts"):
        with refused("does not hold the values.*layer='X'"):
            sh.tl.decode(few, layer=layer, key_added="new")


@pytest.mark.parametrize("n_pcs", [2, 10, 30])
@pytest.mark.parametrize("n_cells", [200, 2000])
def test_the_planted_cells_pass_though_zeros_were_put_in(n_cells, n_pcs):
    adata = sh.datasets.pbmc_planted(n_cells=n_cells)
    sh.tl.hycnn_ot(adata, "control", "IFN-beta", n_pcs=n_pcs, potential="gaussian")
    sh.tl.decode(adata)
    scaled = adata.copy()
    scaled.X = scaled.X.toarray()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # genes that do not vary among few cells
        sc.pp.scale(scaled)
    sc.pp.pca(scaled, n_comps=30)
    scaled.X = adata.X
    with pytest.warns(UserWarning, match="Replacing"):
        sh.tl.hycnn_ot(scaled, "control", "IFN-beta", n_pcs=n_pcs, potential="gaussian")
    with refused("layer="):
        sh.tl.decode(scaled, key_added="new")


def test_cells_without_coordinates_are_not_compared(adata):
    lost = np.random.default_rng(0).random(N) < 0.9
    adata.obsm["X_pca"][lost] = np.nan
    adata.X = adata.layers["counts"]
    with refused("does not hold the values"):
        sh.tl.decode(adata)


@pytest.mark.parametrize("backed", ["h5ad", "lazy"])
def test_files_are_read_in_a_few_places(adata, backed, tmp_path, monkeypatch):
    path = tmp_path / "cells.h5ad"
    adata.write_h5ad(path)
    if backed == "lazy":
        pytest.importorskip("xarray")
        in_file = anndata.experimental.read_lazy(path)
    else:
        in_file = anndata.read_h5ad(path, backed="r")
    result = sh.get.predicted(in_file, roles=["predicted"])
    np.testing.assert_array_equal(result.X, sh.get.predicted(adata, roles=["predicted"]).X)
    with refused("adata.layers.* does not hold the values.*layer='X'"):
        sh.get.predicted(in_file, layer="counts")


def test_it_takes_milliseconds():
    rng = np.random.default_rng(0)
    n, genes = 20_000, 2_000
    loadings = np.linalg.qr(rng.normal(size=(genes, 30)))[0].astype(np.float32)
    adata = anndata.AnnData(csr_matrix((n, genes), dtype=np.float32))
    adata.X = csr_matrix(
        (rng.random(50 * n, dtype=np.float32), rng.integers(genes, size=50 * n), np.arange(n + 1) * 50)
    )
    adata.obsm["X_pca"], adata.varm["PCs"] = adata.X @ loadings, loadings
    adata.obs["condition"] = np.repeat(["control", "drug"], n // 2)
    fit(adata)
    start = time.perf_counter()
    with refused("does not exist|not in adata.layers"):
        sh.get.predicted(adata, layer="nix")
    without = time.perf_counter() - start
    adata.X = 2 * adata.X
    start = time.perf_counter()
    with refused("does not hold the values"):
        sh.get.predicted(adata)
    assert time.perf_counter() - start < without + 1.0
