"""get.deg: scores and fold changes by hand, strata, held-out cells, and predicted cells with a noise model."""

from __future__ import annotations

import io

import anndata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from anndata import AnnData
from scipy.stats import false_discovery_control, ttest_ind

import scot_hycnn as sh


@pytest.fixture(scope="module")
def fitted():
    adata = sh.datasets.pbmc_planted(n_cells=600)
    sh.pp.split(adata, stratify=["condition", "cell_type"], test_size=0.4)
    adata.uns["log1p"] = {"base": None}
    with pytest.warns(UserWarning, match="Replacing"):
        sh.pp.pca(adata, 10, split_key="split")
    sh.tl.hycnn_ot(adata, "control", "IFN-beta", n_pcs=10, potential="gaussian", split_key="split")
    return adata


@pytest.fixture
def adata(fitted):
    return fitted.copy()


def parts(adata, rows=True):
    """Held-out source and target cells."""
    test = (adata.obs["split"] == "test").to_numpy() & rows
    control = (adata.obs["condition"] == "control").to_numpy()
    return [np.flatnonzero(test & which) for which in (control, ~control)]


def table_of(adata, **options):
    return sh.get.deg(adata, min_fraction=0.0, **options).set_index("gene").loc[adata.var_names]


def test_scores_are_those_of_welch_and_change_is_the_loadings_times_the_shift(adata):
    x, y = (adata.X[rows].toarray().astype(float) for rows in parts(adata))
    table = table_of(adata)
    with np.errstate(all="ignore"):
        wanted = ttest_ind(y, x, equal_var=False)
    varies = (x.var(axis=0) + y.var(axis=0)) > 0
    np.testing.assert_allclose(table["observed_score"][varies], wanted.statistic[varies], rtol=1e-4, atol=1e-5)
    p = np.where(varies, wanted.pvalue, 1.0)
    np.testing.assert_allclose(table["observed_pval_adj"], false_discovery_control(p), rtol=1e-3, atol=1e-12)
    source = parts(adata)[0]
    shift = (adata.obsm["X_hycnn_ot"] - adata.obsm["X_pca"][:, :10])[source].mean(axis=0)
    change = adata.varm["PCs"][:, :10] @ shift
    np.testing.assert_allclose(table["predicted_change"], change, atol=1e-5)
    error = np.sqrt(x.var(axis=0, ddof=1) / len(x) + y.var(axis=0, ddof=1) / len(y))
    large = np.abs(change) > 1e-3
    np.testing.assert_allclose(table["predicted_score"][large], (change / error)[large], rtol=1e-3)
    np.testing.assert_allclose(table["fraction"], np.maximum((x != 0).mean(0), (y != 0).mean(0)))
    assert (table["n_source"] == len(x)).all()
    assert table["predicted"].all()


@pytest.mark.parametrize("base", [None, 2])
def test_fold_changes_are_those_of_scanpy(adata, base):
    adata.uns["log1p"] = {"base": base}
    held_out = adata[np.concatenate(parts(adata))].copy()
    sc.tl.rank_genes_groups(held_out, "condition", groups=["IFN-beta"], reference="control")
    theirs = sc.get.rank_genes_groups_df(held_out, "IFN-beta").set_index("names").loc[adata.var_names]
    np.testing.assert_allclose(table_of(adata)["observed_logfc"], theirs["logfoldchanges"], rtol=1e-3, atol=1e-4)


def test_without_a_base_logarithms_are_natural(adata):
    kinds = ["observed_logfc", "predicted_logfc"]
    before = table_of(adata)[kinds]
    del adata.uns["log1p"]
    pd.testing.assert_frame_equal(table_of(adata)[kinds], before)


@pytest.fixture
def log():
    before, sc.settings.logfile = sc.settings.logfile, io.StringIO()
    yield sc.settings.logfile
    sc.settings.logfile = before


def refitted(adata, values):
    """The same cells and split with other values of expression, and a new PCA and fit."""
    other = AnnData(values.astype(np.float32), obs=adata.obs[["condition", "cell_type", "split"]], var=adata.var[[]])
    sh.pp.pca(other, 10, split_key="split")
    sh.tl.hycnn_ot(other, "control", "IFN-beta", potential="gaussian", split_key="split")
    return other


@pytest.mark.parametrize("change", [lambda x: np.round(10 * x), lambda x: x - 1])
@pytest.mark.filterwarnings("ignore:adata.obsm:UserWarning")
def test_counts_and_negative_values_have_no_fold_changes_and_the_log_says_so(adata, change, log):
    other = refitted(adata, change(adata.X.toarray()))
    assert table_of(other)["observed_logfc"].isna().all()
    assert "no fold changes" in log.getvalue()


def test_scaling_does_not_change_which_genes_are_expressed(adata):
    scaled = refitted(adata, sc.pp.scale(adata.X.toarray()))
    # Of a gene that all cells of a condition express, the cell with the smallest value does not count.
    np.testing.assert_allclose(table_of(scaled)["fraction"], table_of(adata)["fraction"], atol=0.01)


def test_a_gene_that_does_not_vary_has_no_predicted_score(adata):
    values = adata.X.toarray()
    values[:, 3] = 0
    values[np.flatnonzero(adata.obs["split"] == "train")[0], 3] = 2
    row = table_of(refitted(adata, values)).iloc[3]
    assert row["predicted_change"] != 0
    assert np.isnan(row["predicted_score"])
    assert row["observed_score"] == 0


def test_genes_that_only_raw_has_are_counted_in_the_log(adata, log):
    some = refitted(adata[:, :300], adata.X[:, :300].toarray())
    some.raw = adata
    sh.get.deg(some)
    assert f"{adata.n_vars - 300} genes are in adata.raw" in log.getvalue()


def test_groups_of_the_fit_are_strata(adata):
    sh.tl.hycnn_ot(
        adata,
        "control",
        "IFN-beta",
        n_pcs=10,
        potential="gaussian",
        split_key="split",
        group_key="cell_type",
        key_added="g",
    )
    table = table_of(adata, key="g")
    change = variance = 0.0
    pairs = []
    for label in adata.obs["cell_type"].unique():
        x, y = (adata.X[rows].toarray() for rows in parts(adata, (adata.obs["cell_type"] == label).to_numpy()))
        if min(len(x), len(y)) > 1:
            pairs.append((x, y))
    n = sum(len(x) for x, _ in pairs)
    for x, y in pairs:
        change = change + len(x) / n * (y.mean(axis=0) - x.mean(axis=0))
        of_means = x.var(axis=0, ddof=1) / len(x) + y.var(axis=0, ddof=1) / len(y)
        variance = variance + (len(x) / n) ** 2 * of_means
    np.testing.assert_allclose(table["observed_change"], change, atol=1e-5)
    large = np.abs(change) > 1e-3
    np.testing.assert_allclose(table["observed_score"][large], (change / np.sqrt(variance))[large], rtol=1e-3)


def test_groups_are_tested_alone_and_one_without_treated_cells_is_predicted(adata):
    labels = adata.obs["cell_type"].astype(str)
    labels[((adata.obs["condition"] == "control") & (labels == "CD14+ Monocyte")).to_numpy()] = "only control"
    adata.obs["group"] = labels
    table = sh.get.deg(adata, groupby="group", min_fraction=0.2)
    alone = table[table["group"] == "only control"]
    assert alone["observed_score"].isna().all()
    assert alone["predicted_pval_adj"].notna().all()
    assert alone["predicted_score"].abs().is_monotonic_decreasing
    x = adata.X[parts(adata, (labels == "only control").to_numpy())[0]].toarray()
    row = alone.iloc[0]
    error = np.sqrt(2 * x[:, adata.var_names == row["gene"]].var(ddof=1) / len(x))
    np.testing.assert_allclose(row["predicted_score"], row["predicted_change"] / error, rtol=1e-3)
    assert (table["fraction"] >= 0.2).all()
    assert "CD14+ Monocyte" not in set(table["group"])  # no source cell is left


def test_a_decoder_and_a_decoded_layer_are_read(adata):
    del adata.uns["log1p"]
    basis = adata.varm["PCs"][:, :10].T
    of_decoder = table_of(adata, decoder=lambda points: points @ basis)
    source = parts(adata)[0]
    wanted = (adata.obsm["X_hycnn_ot"][source] @ basis).mean(axis=0) - adata.X[source].toarray().mean(axis=0)
    np.testing.assert_allclose(of_decoder["predicted_change"], wanted, atol=1e-4)
    without = table_of(adata)["predicted_change"]
    sh.tl.decode(adata)
    np.testing.assert_allclose(table_of(adata)["predicted_change"], without, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "value"),
    [
        ({"min_fraction": 1.5}, "1.5"),
        ({"groupby": "nix"}, "'nix'"),
        ({"groupby": "one_cell_each"}, "'one_cell_each'"),
        ({"target": "IL-2"}, "'IL-2'"),
    ],
)
def test_errors_name_the_value(adata, options, value):
    adata.obs["one_cell_each"] = adata.obs_names
    with pytest.raises(ValueError, match=value):
        sh.get.deg(adata, **options)


def test_cells_with_noise_are_treated_training_cells_moved_by_the_rest(adata):
    cells = sh.get.predicted(adata, noise="residuals", roles=["predicted"])
    training = (adata.obs["split"] == "train").to_numpy() & (adata.obs["condition"] == "IFN-beta").to_numpy()
    pool, z = adata.X[training].toarray(), adata.obsm["X_pca"][training, :10]
    moved = cells.obsm["X_pca"]
    near = np.argsort(((moved[:20, None] - z[None]) ** 2).sum(axis=2), axis=1)[:, :5]
    for values, point, candidates in zip(cells.X[:20], moved[:20], near, strict=True):
        of_candidates = np.maximum(pool[candidates] + (point - z[candidates]) @ adata.varm["PCs"][:, :10].T, 0)
        of_candidates[pool[candidates] == 0] = 0
        assert np.abs(of_candidates - values).max(axis=1).min() < 1e-4
    np.testing.assert_array_equal(cells.X, sh.get.predicted(adata, noise="residuals", roles=["predicted"]).X)


def test_held_out_treated_cells_are_never_borrowed_from(adata):
    before = sh.get.predicted(adata, noise="residuals", roles=["predicted"]).X
    values = adata.X.toarray()
    values[np.ix_(parts(adata)[1], [0, 1, 2])] = 0.1
    adata.X = values
    after = sh.get.predicted(adata, noise="residuals", roles=["predicted"]).X
    np.testing.assert_array_equal(before, after)


def test_noise_needs_loadings_and_treated_cells(adata):
    with pytest.raises(ValueError, match="noise='white'"):
        sh.get.predicted(adata, noise="white")
    source = adata[(adata.obs["condition"] == "control").to_numpy()]
    others = adata[parts(adata)[1]]
    with pytest.raises(ValueError, match="'IFN-beta'"):
        sh.get.predicted(anndata.concat([source, others], merge="same", uns_merge="same"), noise="residuals")
    few = adata[:, :6].copy()
    few.X = few.X.toarray() + np.random.default_rng(0).random(few.shape, dtype=np.float32)
    sh.tl.hycnn_ot(few, "control", "IFN-beta", use_rep="X", potential="gaussian", key_added="genes")
    with pytest.raises(ValueError, match="loadings"):
        sh.get.predicted(few, "genes", noise="residuals")


def test_columns(adata):
    table = sh.get.deg(adata)
    kinds = [
        f"{kind}_{what}" for kind in ("observed", "predicted") for what in ("change", "logfc", "score", "pval_adj")
    ]
    assert {"gene", "group", "in_representation", "predicted", "source_mean", "n_target", *kinds} <= set(table)
    assert table["observed_score"].abs().is_monotonic_decreasing
    assert set(table["group"]) == {"all"}
    assert isinstance(table.index, pd.RangeIndex)
