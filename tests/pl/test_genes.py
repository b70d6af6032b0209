"""Genes as colours, genes that only ``raw`` has, and values that sc.pp.scale has made."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
import scanpy as sc

import scot_hycnn as sh

GENE = "ISG20"


@pytest.fixture
def fitted():
    adata = sh.datasets.pbmc_planted(n_cells=400)
    adata.raw = adata.copy()
    sh.tl.hycnn_ot(adata, "control", "IFN-beta", potential="gaussian")
    yield adata
    plt.close("all")


def colours(ax):
    """Colours of the cells that were drawn last in these axes, sorted, since cells are drawn in random order."""
    return np.sort(ax.collections[-1].get_facecolors()[:, :3], axis=0)


def viridis(values, top):
    return np.sort(plt.get_cmap("viridis")(np.clip(values / top, 0, 1))[:, :3], axis=0)


def test_predicted_cells_have_the_colour_of_their_predicted_expression(fitted):
    source, predicted, observed = sh.pl.embedding(fitted, color=GENE, show=False)
    sh.tl.decode(fitted)
    of = {name: (fitted.obs["condition"] == name).to_numpy() for name in ("control", "IFN-beta")}
    measured = fitted[:, GENE].X.toarray()[:, 0]
    decoded = fitted[:, GENE].layers["hycnn_ot"][:, 0]
    top = np.percentile(measured, 99)
    np.testing.assert_allclose(colours(source), viridis(measured[of["control"]], top), atol=0.02)
    np.testing.assert_allclose(colours(predicted), viridis(decoded[of["control"]], top), atol=0.02)
    np.testing.assert_allclose(colours(observed), viridis(measured[of["IFN-beta"]], top), atol=0.02)
    assert np.abs(colours(predicted) - colours(source)).max() > 0.05


def test_a_gene_of_raw_colours_source_cells_and_is_not_predicted(fitted):
    few = fitted[:, [name for name in fitted.var_names if name != GENE]].copy()
    sc.pp.pca(few, n_comps=5)
    sh.tl.hycnn_ot(few, "control", "IFN-beta", potential="gaussian", key_added="few")
    figures = [
        sh.pl.transport(adata, key, color=GENE, n_grid=2, return_fig=True).axes[0].collections[1]
        for adata, key in ((fitted, "hycnn_ot"), (few, "few"))
    ]
    np.testing.assert_array_equal(*(cells.get_facecolors() for cells in figures))
    for refused in (
        lambda: sh.pl.embedding(few, "few", color=GENE),
        lambda: sh.pl.marginals(few, "few", names=[GENE]),
        lambda: sh.pl.deg(few, "few", names=[GENE]),
    ):
        with pytest.raises(ValueError, match=r"adata\.raw"):
            refused()


@pytest.mark.parametrize("is_scaled", [False, True])
def test_scaled_values_are_called_z_scores(is_scaled):
    adata = sh.datasets.pbmc_planted(n_cells=400)
    adata.X = adata.X.toarray()
    if is_scaled:
        sc.pp.scale(adata)
    sc.pp.pca(adata, n_comps=5)
    sh.tl.hycnn_ot(adata, "control", "IFN-beta", potential="gaussian")
    labels = [
        sh.pl.mean_scatter(adata, show=False).get_xlabel(),
        sh.pl.deg(adata, show=False).get_xlabel(),
        sh.pl.deg(adata, groupby="cell_type", return_fig=True).axes[-1].get_ylabel(),
    ]
    assert ["z-score" in label for label in labels] == [is_scaled] * 3
    assert ["expression" in label for label in labels] == [not is_scaled] * 3
    plt.close("all")
