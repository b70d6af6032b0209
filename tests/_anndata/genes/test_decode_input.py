"""Genes are decoded from the values that the PCA was run on; other values are refused wherever genes are used."""

from __future__ import annotations

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
    """Reports are written to the working directory."""
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
    return sh.metrics.evaluate(adata, n_bootstrap=0, **options)


def report(adata, **options):
    sh.pl.report(adata, "report.html", **options)


READERS = {"decode": sh.tl.decode, "predicted": sh.get.predicted, "evaluate": evaluate, "report": report}
FIGURES = {
    "mean_scatter": lambda adata, **options: sh.pl.mean_scatter(adata, show=False, **options),
    "deg": lambda adata, **options: sh.pl.deg(adata, show=False, **options),
    "marginals": lambda adata, **options: sh.pl.marginals(adata, names=["3", "6"], show=False, **options),
    "report": report,
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
    """The last tenth of the file, all of them target cells."""
    adata.layers["log"] = adata.X
    mixed = adata.X.toarray()
    mixed[-N // 10 :] = adata.layers["counts"][-N // 10 :].toarray()
    adata.X = mixed
    return "log"


SPOILT = [counts_in_x, loadings_of_a_scaled_copy, other_logarithm, some_cells_in_counts]


def refused(values: str):
    return pytest.raises(ValueError, match=values)


@pytest.mark.filterwarnings("ignore:Replacing")
@pytest.mark.parametrize(
    ("reader", "spoil"),
    [(reader, SPOILT[i % 3]) for i, reader in enumerate(READERS)]
    + [("predicted", some_cells_in_counts), ("evaluate", loadings_of_a_scaled_copy), ("report", other_logarithm)],
)
def test_other_values_are_refused_and_the_right_layer_is_named(adata, reader, spoil, unchanged, tmp_path):
    right = spoil(adata)
    with unchanged(adata), refused(rf"adata\.X .*layer='{right}'"):
        READERS[reader](adata)
    assert not list(tmp_path.iterdir())
    READERS[reader](adata, layer=right)
    del adata.layers[right]
    adata.layers.pop("hycnn_ot", None)
    with unchanged(adata), refused(r"adata\.X .*\['counts'\]"):
        READERS[reader](adata)


@pytest.mark.filterwarnings("ignore:Replacing")
@pytest.mark.parametrize(("figure", "spoil"), list(zip(FIGURES, SPOILT, strict=True)))
@pytest.mark.parametrize("clip", [False, True])
def test_figures_of_decoded_genes(adata, figure, spoil, clip, unchanged):
    right = spoil(adata)
    sh.tl.decode(adata, layer=right, clip=clip)
    with unchanged(adata), refused(rf"adata\.X .*layer='{right}'"):
        FIGURES[figure](adata)
    FIGURES[figure](adata, layer=right)


@pytest.mark.parametrize("figure", FIGURES)
def test_a_layer_that_was_decoded_from_other_values(adata, figure):
    """An older version has written such layers."""
    adata.layers["hycnn_ot"] = adata.layers["counts"].toarray()
    source = (adata.obs["condition"] == "control").to_numpy()
    change = (adata.obsm["X_hycnn_ot"] - adata.obsm["X_pca"])[source] @ adata.varm["PCs"].T
    adata.layers["hycnn_ot"][source] += change
    with refused("layer='counts'.*layer='X'"):
        FIGURES[figure](adata)
    adata.X = adata.layers["counts"]
    with refused(r"adata\.X does not hold"):
        FIGURES[figure](adata)


def test_figures_of_a_decoder_on_another_scale(adata):
    mean = adata.layers["counts"].toarray().mean(axis=0)
    adata.X = adata.layers["counts"]
    sh.tl.decode(adata, decoder=lambda points: mean + np.abs(points[:, :1]) * np.linspace(0, 1, GENES))
    for figure in FIGURES.values():
        figure(adata)


def check_formula(adata, rep="X_pca", *, figures=False):
    """All readers return what the formula gives."""
    source = (adata.obs["condition"] == "control").to_numpy()
    n = adata.obsm["X_hycnn_ot"].shape[1]
    key = "PCs" if rep == "X_pca" else rep
    change = (adata.obsm["X_hycnn_ot"] - adata.obsm[rep][:, :n])[source] @ adata.varm[key][:, :n].T
    values = adata.X.toarray() if hasattr(adata.X, "toarray") else adata.X
    sh.tl.decode(adata)
    used = (adata.varm[key] != 0).any(axis=1)  # others are predicted by regression
    result = adata.layers["hycnn_ot"][source]
    np.testing.assert_allclose(result[:, used], (values[source] + change)[:, used], atol=1e-4)
    cells = sh.get.predicted(adata, roles=["predicted"])
    np.testing.assert_array_equal(cells.X, adata.layers["hycnn_ot"][source])
    if figures:
        assert "r2_mean" in set(evaluate(adata)["metric"])
        for name in ("mean_scatter", "deg", "marginals"):
            FIGURES[name](adata)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("sparse", {}),
        ("sparse", {"zero_center": False}),
        ("sparse", {"mask_var": "some"}),
        ("dense", {"svd_solver": "randomized"}),
        ("dense", {"chunked": True, "chunk_size": 100}),
        ("scaled", {}),
        ("scaled", {"svd_solver": "randomized"}),
        ("float64", {"mask_var": "some"}),
        ("offset", {}),
    ],
)
@pytest.mark.filterwarnings("ignore")  # warnings of scanpy and scikit-learn
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
    check_formula(fit(adata, n_pcs=2 if kind in ("dense", "scaled") else None), figures=kind == "scaled")
    plt.close("all")


@pytest.mark.filterwarnings("ignore:Replacing")
def test_components_of_a_part_of_the_cells(adata):
    sh.pp.split(adata, test_size=0.8)
    sh.pp.pca(adata, n_comps=5, split_key="split", key_added="X_train")
    check_formula(fit(adata, use_rep="X_train", split_key="split"), "X_train", figures=True)


def test_genes_that_were_taken_out_after_the_pca():
    """The loadings that are left are not orthonormal, so only the scale can be checked."""
    adata = expression()
    adata.layers["twice"] = 2 * adata.X
    sc.pp.pca(adata, n_comps=5)
    few = fit(adata[:, ::3].copy())
    check_formula(few)
    for layer in ("twice", "counts"):
        with refused("layer='X'"):
            sh.tl.decode(few, layer=layer, key_added="new")


@pytest.mark.parametrize(("n_cells", "n_pcs"), [(200, 30), (2000, 2), (2000, 10)])
def test_the_planted_cells_pass_although_their_small_values_became_zeros(n_cells, n_pcs):
    adata = sh.datasets.pbmc_planted(n_cells=n_cells)
    sh.tl.hycnn_ot(adata, "control", "IFN-beta", n_pcs=n_pcs, potential="gaussian")
    sh.tl.decode(adata)
    scaled = adata.copy()
    scaled.X = scaled.X.toarray()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some genes do not vary among few cells
        sc.pp.scale(scaled)
    sc.pp.pca(scaled, n_comps=30)
    scaled.X = adata.X
    with pytest.warns(UserWarning, match="Replacing"):
        sh.tl.hycnn_ot(scaled, "control", "IFN-beta", n_pcs=n_pcs, potential="gaussian")
    with refused("layer="):
        sh.tl.decode(scaled, key_added="new")


@pytest.mark.parametrize("cell_type", ["Dendritic", "CD14+ Monocyte", "CD4+/CD25 T Reg"])
def test_the_planted_cells_of_one_type_pass_and_another_logarithm_does_not(cell_type):
    adata = sh.datasets.pbmc_planted(n_cells=2000)
    adata = adata[adata.obs["cell_type"] == cell_type].copy()
    sh.tl.hycnn_ot(adata, "control", "IFN-beta", n_pcs=20, potential="gaussian")
    sh.tl.decode(adata)
    adata.X = adata.X / np.float32(np.log(2))
    with refused(r"adata\.X does not hold"):
        sh.tl.decode(adata, key_added="new")


@pytest.mark.parametrize("value", [1e3, 1e30, -1e38])
def test_one_broken_coordinate_does_not_refuse_all_cells(adata, value):
    expected = sh.get.predicted(adata, roles=["predicted"]).X
    adata.obsm["X_pca"][7, 2] = value
    adata.obsm["X_pca"][N - 1, 0] = value
    decoded = sh.tl.decode(adata, copy=True).layers["hycnn_ot"][: N // 2]
    others = np.arange(N // 2) != 7
    np.testing.assert_array_equal(decoded[others], expected[others])
    adata.X = adata.layers["counts"]
    with refused(r"adata\.X does not hold"):
        sh.tl.decode(adata)


@pytest.mark.parametrize("share", [0.9, 0.97])
def test_cells_without_coordinates_are_not_compared(adata, share):
    lost = np.random.default_rng(0).random(N) < share
    adata.obsm["X_pca"][lost] = np.nan
    adata.X = adata.layers["counts"]
    with refused(r"adata\.X does not hold"):
        sh.tl.decode(adata)


@pytest.mark.parametrize("form", ["backed", "lazy"])
def test_cells_in_files(adata, form, tmp_path):
    path = tmp_path / "cells.h5ad"
    adata.write_h5ad(path)
    if form == "lazy":
        pytest.importorskip("xarray")
        in_file = anndata.experimental.read_lazy(path)
    else:
        in_file = anndata.read_h5ad(path, backed="r")
    result = sh.get.predicted(in_file, roles=["predicted"])
    np.testing.assert_array_equal(result.X, sh.get.predicted(adata, roles=["predicted"]).X)
    with refused("adata.layers.*layer='X'"):
        sh.get.predicted(in_file, layer="counts")
