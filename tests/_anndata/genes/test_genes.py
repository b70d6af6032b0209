"""Values of features are the same block by block as all at once."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
from scipy.sparse import csc_matrix, csr_matrix

import scot_hycnn as sh
from scot_hycnn._anndata.genes._genes import Features, Values


@pytest.mark.parametrize(("kind", "n"), [(np.asarray, 7), (csr_matrix, 2500), (csc_matrix, 1)])
def test_moments_and_columns(kind, n):
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(3000, 4)) * [1, 1e-3, 1, 0] + [0, 1e6, 5, 3]
    rows = rng.permutation(3000)[:n]
    values = Values(kind(matrix), rows)
    mean, variance, expressed = values.moments()
    # Cells without transcripts have 0, or where values were shifted the smallest one.
    nothing = np.minimum(matrix[rows].min(axis=0), 0)
    np.testing.assert_allclose(expressed, (matrix[rows] != nothing).mean(axis=0), atol=1e-15)
    np.testing.assert_allclose(mean, matrix[rows].mean(axis=0), rtol=1e-12)
    expected = matrix[rows].var(axis=0, ddof=1) if n > 1 else np.zeros(4)
    np.testing.assert_allclose(variance, expected, rtol=1e-6, atol=1e-15)
    np.testing.assert_array_equal(values.columns([2, 0]), matrix[rows][:, [2, 0]])
    chosen = np.arange(n) % 2 == 0
    some = Features(list("abcd"), np.ones(4, dtype=bool), values, values, values).among(chosen, ~chosen)
    np.testing.assert_array_equal(some.predicted.columns([1]), matrix[rows[chosen]][:, [1]])
    np.testing.assert_array_equal(some.observed.columns([1]), matrix[rows[~chosen]][:, [1]])


@pytest.mark.parametrize(("values", "text"), [(np.array([["a"]]), "<U1"), (np.array([[np.nan]]), "row 0")])
def test_values_that_are_no_numbers(values, text):
    with pytest.raises(ValueError, match=text):
        Values(values, np.arange(1)).columns([0])


@pytest.fixture
def adata():
    adata = sh.datasets.pbmc_planted(n_cells=200)
    sh.tl.hycnn_ot(adata, "control", "IFN-beta", n_pcs=5, potential="gaussian")
    sh.tl.decode(adata)
    adata.layers["text"] = np.full(adata.shape, "a")  # no candidate for measured values
    yield adata
    plt.close("all")


def test_figures_name_what_is_missing(adata):
    adata.layers["hycnn_ot"][0] = np.nan
    with pytest.raises(ValueError, match=r"'hycnn_ot'.* 1 of the 100 .*sh\.tl\.decode"):
        sh.pl.deg(adata, show=False)
    with pytest.raises(ValueError, match="layer='nix'"):
        sh.metrics.evaluate(adata, layer="nix", n_bootstrap=0)
    adata.X = None
    with pytest.raises(ValueError, match=r"adata\.X .*'text'"):
        sh.pl.deg(adata, show=False)
    del adata.layers["hycnn_ot"]
    with pytest.raises(ValueError, match=r"adata\.X .*'text'"):
        sh.pl.deg(adata, show=False)


@pytest.mark.filterwarnings("ignore:All cells are evaluated")
def test_without_the_layer_of_the_pca_there_are_no_genes(adata):
    adata.uns["pca"] = {"params": {"layer": "gone"}}
    assert "r2_mean" not in set(sh.metrics.evaluate(adata, n_bootstrap=0)["metric"])


def test_a_decoded_layer_without_loadings_is_compared_as_it_is(adata):
    del adata.varm["PCs"]
    adata.uns["hycnn_ot"]["rep"]["fingerprint"] = ""
    sh.pl.deg(adata, show=False)


def test_genes_of_a_map_of_expression_are_its_dimensions(adata):
    few = adata[:, :6].copy()
    few.X = few.X.toarray() + np.random.default_rng(0).random(few.shape, dtype=np.float32)
    sh.tl.hycnn_ot(few, "control", "IFN-beta", use_rep="X", potential="gaussian", key_added="genes")
    sh.pl.deg(few, key="genes", show=False)


def test_values_are_named_when_none_fit_but_layers_of_text_exist(adata):
    adata.X = adata.X.multiply(3).tocsr()
    with pytest.raises(ValueError, match=r"adata\.X does not hold"):
        sh.get.predicted(adata)
