"""pl.marginals: the numbers in the bars, and which features are drawn."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.patches import StepPatch

import scot_hycnn as sh


def bars(ax):
    """Source, observed and predicted, in the order of drawing."""
    return [patch.get_data() for patch in ax.patches if isinstance(patch, StepPatch)]


def means(ax):
    return [line.get_xdata()[0] for line in ax.get_lines()]


def test_bars_are_fractions_of_cells(adata, control):
    (ax,) = sh.pl.marginals(adata, names="PC1", show=False)
    samples = adata.obsm["X_pca"][control, 0], adata.obsm["X_pca"][~control, 0], adata.obsm["X_hycnn_ot"][control, 0]
    for (counts, edges, _), values in zip(bars(ax), samples, strict=True):
        # No cell is left out: the outermost bars count those beyond them.
        assert counts.sum() == pytest.approx(1)
        np.testing.assert_allclose(counts[1:-1], np.histogram(values, edges)[0][1:-1] / 200)
    np.testing.assert_allclose(means(ax), [samples[0].mean(), samples[2].mean(), samples[1].mean()], rtol=1e-5)


def test_genes_come_from_the_decoded_layer(adata, control):
    axes = sh.pl.marginals(adata, names=["PC2", "ISG20"], show=False)
    assert [ax.get_title() for ax in axes] == ["PC2", "ISG20"]
    gene = adata[:, "ISG20"].X.toarray().ravel()
    source, predicted, observed = means(axes[1])
    assert source == pytest.approx(gene[control].mean(), rel=1e-5)
    assert predicted == pytest.approx(gene[control].mean() + 0.5, rel=1e-5)
    assert observed == pytest.approx(gene[~control].mean(), rel=1e-5)
    adata.layers["twice"] = adata.X * 2
    (ax,) = sh.pl.marginals(adata, names="ISG20", layer="twice", show=False)
    assert means(ax)[0] == pytest.approx(2 * gene[control].mean(), rel=1e-5)


def test_the_largest_shifts_are_drawn_if_none_are_named(adata, control):
    x, y = adata.obsm["X_pca"][control, :5], adata.obsm["X_pca"][~control, :5]
    shift = abs(y.mean(0) - x.mean(0)) / np.sqrt((x.var(0) + y.var(0)) / 2)
    axes = sh.pl.marginals(adata, n_cols=2, show=False)
    assert [ax.get_title() for ax in axes] == [f"PC{i + 1}" for i in np.argsort(-shift)[:4]]
    assert [ax.get_ylabel() for ax in axes] == ["fraction of cells", "", "fraction of cells", ""]
    assert len(axes[0].get_figure().axes) == 4


def test_a_dimension_without_spread(adata):
    adata.obsm["X_pca"][:, 1] = 2.0
    adata.obsm["X_hycnn_ot"][:, 1] = 2.0
    axes = sh.pl.marginals(adata, show=False)
    assert [ax.get_title() for ax in axes][-1] == "PC2"


def test_a_spike_is_drawn_in_full_and_others_beside_it_are_seen(adata, control):
    silent = np.flatnonzero((adata.X.toarray()[:, :] == 0).mean(axis=0) > 0.9)[0]
    adata.layers["hycnn_ot"][control] = adata.X[control].toarray()
    (ax,) = sh.pl.marginals(adata, names=adata.var_names[silent], show=False)
    assert max(counts.max() for counts, _, _ in bars(ax)) > 0.9
    (whole,) = sh.pl.marginals(adata, names="PC1", show=False)
    for panel in (ax, whole):
        assert panel.get_ylim()[1] >= max(counts.max() for counts, _, _ in bars(panel))
        assert not panel.texts
    # On a square root a bar of one in a hundred is a tenth of the axis.
    heights = ax.transData.transform([[0, share] for share in (0, 0.01, 1)])[:, 1]
    assert (heights[1] - heights[0]) / (heights[2] - heights[0]) == pytest.approx(0.1)


def test_predicted_zeros_that_are_spread_do_not_hide_a_spike(adata, control):
    # Nine of ten measured values are 0, and the predicted zeros lie in two bars.
    gene = adata.var_names[0]
    values = np.where(np.arange(adata.n_obs) % 10 == 0, np.linspace(1, 6, adata.n_obs), 0)
    adata.X = adata.X.toarray()
    adata.X[:, 0] = values
    adata.layers["hycnn_ot"][control, 0] = np.where(values == 0, np.arange(adata.n_obs) % 2 / 2, values)[control]
    (ax,) = sh.pl.marginals(adata, names=gene, show=False)
    heights = ax.transData.transform([[0, share] for share in (0, 0.01, 1)])[:, 1]
    assert (heights[1] - heights[0]) / (heights[2] - heights[0]) == pytest.approx(0.1)


def test_axes_have_units(adata):
    axes = sh.pl.marginals(adata, names=["PC2", "ISG20"], show=False)
    assert [ax.get_xlabel() for ax in axes] == ["coordinate", "expression"]


@pytest.mark.parametrize("n", [1, 2, 8])
def test_nothing_is_cut_off(adata, n):
    figure = sh.pl.marginals(adata, names=adata.var_names[:n].tolist(), return_fig=True)
    figure.draw_without_rendering()
    whole = figure.bbox
    for part in (*figure.legends, *figure.axes):
        box = part.get_tightbbox()
        assert (box.min >= whole.min - 1).all()
        assert (box.max <= whole.max + 1).all()


def test_one_legend_explains_all_panels(adata):
    figure = sh.pl.marginals(adata, return_fig=True)
    words = ["control (source)", "predicted", "IFN-beta (observed)", "mean"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == words
    _, ax = plt.subplots()
    sh.pl.marginals(adata, names=["PC1"], ax=ax, show=False)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == words
