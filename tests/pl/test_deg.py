"""pl.deg: which genes are drawn, how much they change, and in which group."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
from scipy.stats import ttest_ind

import scot_hycnn as sh


@pytest.fixture
def genes(adata):
    return adata.X.toarray().astype(float)


def ticks(axis):
    return [text.get_text() for text in axis.get_ticklabels()]


def test_the_genes_of_the_largest_t(adata, control, genes):
    ax = sh.pl.deg(adata, n_genes=8, show=False)
    with np.errstate(all="ignore"):  # genes that no cell has
        t = np.nan_to_num(ttest_ind(genes[~control], genes[control], equal_var=False).statistic)
    top = np.argsort(-abs(t))[:8]
    change = genes[~control].mean(0) - genes[control].mean(0)
    wanted = top[np.argsort(-change[top])]
    assert ticks(ax.yaxis) == adata.var_names[wanted].tolist()
    observed, predicted = (line for line in ax.get_lines() if line.get_label() in ("observed", "predicted"))
    np.testing.assert_allclose(observed.get_xdata(), change[wanted], rtol=1e-4)
    np.testing.assert_allclose(predicted.get_xdata(), 0.5, rtol=1e-4)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["observed", "predicted"]


def test_named_genes_in_their_order(adata):
    ax = sh.pl.deg(adata, names=["ISG20", "CD74"], show=False)
    assert ticks(ax.yaxis) == ["ISG20", "CD74"]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the first is on top


def test_heat_maps_hold_the_change_in_each_group(adata, control, genes):
    names = ["ISG20", "CD74", "LY6E"]
    observed, predicted = sh.pl.deg(adata, groupby="cell_type", names=names, show=False)
    monocytes = (adata.obs["cell_type"] == "CD14+ Monocyte").to_numpy()
    which = adata.var_names.get_indexer(names)
    change = genes[monocytes & ~control].mean(0)[which] - genes[monocytes & control].mean(0)[which]
    shown = observed.images[0].get_array()
    label = f"CD14+ Monocyte ({(monocytes & control).sum()}, {(monocytes & ~control).sum()})"
    row = ticks(observed.yaxis).index(label)
    np.testing.assert_allclose(shown[row], change, rtol=1e-4)
    np.testing.assert_allclose(predicted.images[0].get_array(), 0.5, rtol=1e-3)
    assert ticks(predicted.xaxis) == names
    assert (observed.get_title(), predicted.get_title()) == ("observed", "predicted")


def test_heat_maps_share_a_scale_around_zero(adata):
    axes = sh.pl.deg(adata, groupby="cell_type", show=False)
    low, high = axes[0].images[0].get_clim()
    assert axes[1].images[0].get_clim() == (low, high)
    assert low == -high
    assert axes[0].get_figure().axes[-1].get_ylabel() == "change of mean expression"


def test_genes_that_never_vary(adata, control):
    adata.X = np.zeros(adata.shape, np.float32)
    adata.layers["hycnn_ot"][control] = 0
    axes = sh.pl.deg(adata, groupby="cell_type", n_genes=3, show=False)
    assert ticks(axes[1].xaxis) == adata.var_names[:3].tolist()
    # One that differs without any spread is the first.
    adata.X[~control, 7] = 1
    assert ticks(sh.pl.deg(adata, n_genes=3, show=False).yaxis)[0] == adata.var_names[7]


def test_groups_of_the_fit_are_those_of_the_figures_unless_axes_are_given(adata):
    adata.obs["number"] = adata.obs["cell_type"].cat.codes
    sizes = adata.obs.groupby(["cell_type", "condition"], observed=True).size().unstack()
    for column in ("cell_type", "number"):  # groups of a fit may be integers
        adata.uns["hycnn_ot"]["params"]["group_key"] = column
        assert len(sh.pl.deg(adata, n_genes=3, show=False)) == 2
        assert len(sh.pl.mean_scatter(adata, n_labels=0, show=False)) == (sizes.min(axis=1) >= 10).sum()
        colored = sh.pl.transport(adata, show=False)
        assert len(colored.get_legend().get_texts()) == 11  # and the target cells
    for draw in (sh.pl.deg, sh.pl.mean_scatter):
        ax = plt.subplots()[1]
        assert draw(adata, ax=ax, show=False) is ax


def test_changes_that_are_significant_have_a_dot(adata):
    observed, predicted = sh.pl.deg(adata, groupby="cell_type", show=False)
    column, row = observed.collections[0].get_offsets().T.astype(int)
    table = sh.get.deg(adata, groupby="cell_type", min_fraction=0).set_index(["group", "gene"])["observed_pval_adj"]
    groups, genes = [name.rsplit(" (", 1)[0] for name in ticks(observed.yaxis)], ticks(predicted.xaxis)
    drawn = {(groups[i], genes[j]) for i, j in zip(row, column, strict=True)}
    assert drawn == {(group, gene) for group in groups for gene in genes if table[group, gene] <= 0.05}
    assert 0 < len(drawn) < len(groups) * len(genes)
