"""Correction of predicted means by the residuals of seen groups: known answers, and what must not change."""

from __future__ import annotations

import warnings

import anndata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from scipy.sparse import csr_matrix

import scot_hycnn as sh
from scot_hycnn._anndata.genes._correction import krige

N_GROUPS, N_CELLS, N_GENES = 7, 40, 12
N_SEEN = N_GROUPS - 1  # the last group is never seen treated


def groups(kind: str = "linear", seed: int = 0, noise: float = 0.05) -> anndata.AnnData:
    """Groups with their own baselines, the last of which has control cells alone in the fit.

    The response of a group is the same for all ('shared'), linear in the baseline, or none.
    """
    rng = np.random.default_rng(seed)
    baselines = 2 * rng.normal(size=(N_GROUPS, 3)) @ rng.normal(size=(3, N_GENES))
    responses = np.tile(rng.normal(size=N_GENES), (N_GROUPS, 1)) * (kind != "none")
    if kind == "linear":
        responses = responses + (baselines - baselines.mean(axis=0)) @ rng.normal(size=(N_GENES, N_GENES)) / 10
    spread = noise * rng.normal(size=(2, N_GROUPS, N_CELLS, N_GENES))
    x = baselines[:, None] + spread[0]
    y = baselines[:, None] + responses[:, None] + spread[1]
    obs = pd.DataFrame(
        {
            "condition": np.repeat(["control", "drug"], N_GROUPS * N_CELLS),
            "donor": np.tile(np.repeat([f"donor {k}" for k in range(N_GROUPS)], N_CELLS), 2),
        }
    )
    obs.index = [f"cell{i}" for i in range(len(obs))]
    values = np.concatenate([x.reshape(-1, N_GENES), y.reshape(-1, N_GENES)]).astype(np.float32)
    adata = anndata.AnnData(values, obs=obs)
    is_new = (adata.obs["donor"] == f"donor {N_GROUPS - 1}").to_numpy()
    adata.obs["seen"] = ~is_new
    return adata


def fit(adata: anndata.AnnData, **options) -> anndata.AnnData:
    options = {"use_rep": "X", "mask_obs": "seen", "group_key": "donor"} | options
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Replacing")
        sh.tl.hycnn_ot(adata, "control", "drug", potential="gaussian", **options)
        sh.tl.transport(adata)
    return adata


@pytest.fixture(scope="module")
def fitted():
    return fit(groups())


@pytest.fixture
def adata(fitted):
    return fitted.copy()


def change(adata, donor=N_SEEN, **options):
    table = sh.get.deg(adata, groupby="donor", min_fraction=0, **options)
    return table[table["group"] == f"donor {donor}"].set_index("gene").loc[adata.var_names]


def kriged(adata):
    """The equations, cell by cell, of the change of the new donor, with all residuals."""
    x, moved = adata.X.astype(float), adata.obsm["X_hycnn_ot"].astype(float)
    of = [(adata.obs["donor"] == f"donor {k}").to_numpy() for k in range(N_GROUPS)]
    control = (adata.obs["condition"] == "control").to_numpy()
    m = np.stack([x[rows & control].mean(axis=0) for rows in of])
    y = np.stack([x[rows & ~control].mean(axis=0) for rows in of])
    residuals = (y - np.stack([moved[rows & control].mean(axis=0) for rows in of]))[:N_SEEN]
    q = m - m[:N_SEEN].mean(axis=0)
    scale = (q[:N_SEEN] ** 2).sum(axis=1).mean()
    kernel = 1 + q @ q.T / scale
    weights = np.linalg.solve(kernel[:N_SEEN, :N_SEEN] + np.eye(N_SEEN), kernel[:N_SEEN, N_SEEN])
    delta = (y - m)[:N_SEEN]
    products = delta @ delta.T
    reliability = (products.sum() - np.trace(products)) / (N_SEEN * (N_SEEN - 1)) / (delta.mean(axis=0) ** 2).sum()
    predicted = moved[of[N_SEEN] & control].mean(axis=0) - m[N_SEEN]
    variance = 1 + kernel[N_SEEN, N_SEEN] - weights @ kernel[:N_SEEN, N_SEEN]
    solved = np.linalg.solve(kernel[:N_SEEN, :N_SEEN] + np.eye(N_SEEN), residuals)
    whole, factor = predicted + weights @ residuals, np.clip(reliability, 0, 1)
    std = np.sqrt(variance * (residuals * solved).sum(axis=0) / (N_SEEN - 3) + (1 - factor) * whole**2)
    return predicted, factor * whole, std, (y - m)[N_SEEN]


def test_the_equations_on_a_group_that_was_not_seen(adata):
    plain, wanted, std, truth = kriged(adata)
    table = change(adata)
    np.testing.assert_allclose(table["predicted_change"], wanted, atol=1e-4)
    np.testing.assert_allclose(table["predicted_std"], std, rtol=1e-4)
    np.testing.assert_allclose(change(adata, correction=None)["predicted_change"], plain, atol=1e-4)
    assert change(adata, correction=None)["predicted_std"].isna().all()
    # The response is linear in the baseline, which no map of all cells together follows.
    assert ((wanted - truth) ** 2).sum() < 0.7 * ((plain - truth) ** 2).sum()


def test_a_linear_residual_of_many_groups_is_recovered_and_copies_have_equal_weights():
    rng = np.random.default_rng(0)
    seen, slopes = rng.normal(size=(400, 3)), rng.normal(size=(3, 5))
    seen[1] = seen[0]
    new = rng.normal(size=(20, 3))
    found = krige(seen, 1 + seen @ slopes, seen @ slopes, np.full(400, 30.0), new)
    np.testing.assert_allclose(found.weights @ (1 + seen @ slopes), 1 + new @ slopes, atol=0.05)
    np.testing.assert_allclose(found.weights[:, 0], found.weights[:, 1])
    order = rng.permutation(400)
    again = krige(seen[order], (1 + seen @ slopes)[order], (seen @ slopes)[order], np.full(400, 30.0), new)
    np.testing.assert_allclose(again.weights, found.weights[:, order], atol=1e-10)


def test_residuals_that_do_not_predict_each_other_are_not_used():
    rng = np.random.default_rng(0)
    # Pairs of equal baselines whose residuals are opposite.
    seen, residuals = np.repeat(rng.normal(size=(5, 3)), 2, axis=0), np.repeat(rng.normal(size=(5, 200)), 2, axis=0)
    residuals[1::2] *= -1
    found = krige(seen, residuals, 3 + residuals, np.full(10, 30.0), seen)
    assert not found.weights.any()
    np.testing.assert_allclose(found.variance, (residuals**2).sum(axis=0) / (10 - 3))
    np.testing.assert_array_equal(found.covariance, np.zeros((10, 10)))
    assert found.reliability > 0.9


def test_where_the_map_is_right_nothing_changes(adata):
    x, of_donors = adata.X.copy(), adata.obs["donor"].to_numpy()
    for donor in np.unique(of_donors):
        source, target = ((adata.obs["condition"] == label).to_numpy() for label in ("control", "drug"))
        x[target & (of_donors == donor)] = adata.obsm["X_hycnn_ot"][source & (of_donors == donor)]
    adata.X = x
    plain = change(adata, 0, correction=None)
    np.testing.assert_allclose(change(adata, 0)["predicted_change"], plain["predicted_change"], atol=1e-4)


def test_no_mean_is_predicted_below_0_where_none_is_measured_there():
    adata = groups()
    adata.X = np.maximum(adata.X, 0)
    fit(adata)
    plain, table = change(adata, correction=None), change(adata)
    assert (plain["source_mean"] + plain["predicted_change"]).min() < -0.01
    assert (table["source_mean"] + table["predicted_change"]).min() > -1e-5


def test_where_nothing_responds_almost_nothing_is_predicted():
    adata = fit(groups("none", noise=1.0))
    table, plain = change(adata), change(adata, correction=None)
    assert (table["predicted_change"] ** 2).sum() < 0.5 * (plain["predicted_change"] ** 2).sum()


@pytest.mark.parametrize("rep", ["X", "X_pca"])
def test_decoded_cells_have_the_mean_of_the_table(adata, rep, unchanged):
    if rep == "X_pca":
        sc.pp.pca(adata, n_comps=8)
        adata = fit(adata, use_rep=rep)
    with unchanged(adata):
        table = change(adata)
    with unchanged(adata), pytest.raises(ValueError, match="'cells'"):
        sh.tl.decode(adata, correction="cells")
    sh.tl.decode(adata)
    rows = ((adata.obs["condition"] == "control") & ~adata.obs["seen"]).to_numpy()
    cells = sh.get.predicted(adata, roles=["predicted"])
    np.testing.assert_array_equal(cells.X[cells.obs["donor"] == f"donor {N_SEEN}"], adata.layers["hycnn_ot"][rows])
    decoded = (adata.layers["hycnn_ot"] - adata.X)[rows].mean(axis=0)
    np.testing.assert_allclose(decoded, table["predicted_change"], atol=1e-4)
    pd.testing.assert_frame_equal(change(adata), table, rtol=1e-3, atol=1e-3)
    std = adata.obs["hycnn_ot_mean_std"]
    np.testing.assert_allclose(std[rows], np.sqrt((table["predicted_std"] ** 2).mean()), rtol=1e-5)
    assert std[(adata.obs["condition"] == "drug").to_numpy()].isna().all()


def test_no_held_out_cell_is_learned_from_and_order_does_not_matter(adata):
    table, scores = change(adata), sh.metrics.evaluate(adata, mask_obs=~adata.obs["seen"].to_numpy(), n_bootstrap=0)
    spoilt = adata[np.random.default_rng(0).permutation(adata.n_obs)].copy()
    held_out = ((spoilt.obs["condition"] == "drug") & ~spoilt.obs["seen"]).to_numpy()
    values = spoilt.X.copy()
    values[held_out] = 7
    spoilt.X = values
    np.testing.assert_allclose(change(spoilt)["predicted_change"], table["predicted_change"], atol=1e-4)

    # The scores are those of the table, and baselines are not corrected.
    wanted = np.corrcoef(table["predicted_change"], table["observed_change"])[0, 1]
    of_genes = scores[(scores["metric"] == "pearson_delta") & (scores["group"] == "all")].set_index("method")["value"]
    np.testing.assert_allclose(of_genes["hycnn_ot"], wanted, atol=1e-4)
    plain = np.corrcoef(change(adata, correction=None)["predicted_change"], table["observed_change"])[0, 1]
    np.testing.assert_allclose(of_genes["gaussian"], plain, atol=1e-4)


def test_cells_of_a_new_file_are_corrected_beside_the_training_cells(adata):
    table = change(adata)
    new = groups()[~adata.obs["seen"].to_numpy() & (adata.obs["condition"] == "control").to_numpy()].copy()
    training = fit(groups()[groups().obs["seen"].to_numpy()].copy())
    sh.tl.transport(new, model=training)
    joined = anndata.concat([training, new], merge="same", uns_merge="first")
    np.testing.assert_allclose(change(joined)["predicted_change"], table["predicted_change"], atol=1e-4)


def test_values_in_a_file_are_read_by_blocks(adata, tmp_path):
    sh.tl.decode(adata)
    path = tmp_path / "cells.h5ad"
    plain = groups()
    plain.obsm, plain.uns = adata.obsm, adata.uns
    plain.X = csr_matrix(plain.X)
    plain.write_h5ad(path)
    in_file = anndata.read_h5ad(path, backed="r")
    sh.tl.decode(in_file, output=tmp_path / "out.zarr")
    layer = anndata.read_zarr(tmp_path / "out.zarr").layers["hycnn_ot"]
    np.testing.assert_allclose(layer, adata.layers["hycnn_ot"], atol=1e-4)


def test_with_fewer_groups_there_is_no_correction(adata):
    few = adata[adata.obs["donor"].isin([f"donor {k}" for k in (0, 1, 2, N_SEEN)])].copy()
    table = change(few)
    assert table["predicted_std"].isna().all()
    np.testing.assert_array_equal(table["predicted_change"], change(few, correction=None)["predicted_change"])


def types_of_donors(seed: int, own: float, shared: float) -> anndata.AnnData:
    """Types of donors, of whom the last is new; the response varies by donor and type (own), or by donor (shared)."""
    rng, n_donors, n_types, n_genes = np.random.default_rng(seed), 8, 3, 30
    donor, kind, treated = (index.ravel() for index in np.indices((n_donors, n_types, 2, 40))[:3])
    rows = rng.permutation(len(donor))[: 3 * len(donor) // 4]
    donor, kind, treated = donor[rows], kind[rows], treated[rows]
    of_donors, of_types = rng.normal(size=(n_donors, n_genes)), 3 * rng.normal(size=(n_types, n_genes))
    response = rng.normal(size=n_genes) + own * rng.normal(size=(n_donors, n_types, n_genes))
    response += shared * rng.normal(size=(n_donors, 1, n_genes))
    x = of_donors[donor] + of_types[kind] + 0.5 * rng.normal(size=(len(rows), n_genes))
    x += treated[:, None] * response[donor, kind]
    obs = pd.DataFrame({"condition": np.where(treated, "drug", "control")}, index=[f"cell{i}" for i in range(len(x))])
    obs["donor"], obs["cell_type"] = [f"donor {k}" for k in donor], [f"type {k}" for k in kind]
    obs["split"] = np.where(donor == n_donors - 1, "test", "train")
    adata = anndata.AnnData(x.astype(np.float32), obs=obs)
    return fit(adata, mask_obs=None, split_key="split", group_key="cell_type", leave_out="donor")


@pytest.mark.parametrize(("own", "shared"), [(0.0, 0.0), (0.5, 0.0), (0.0, 0.5)])
def test_the_standard_deviation_counts_how_donors_differ(own, shared):
    donors = [types_of_donors(seed, own, shared) for seed in range(3)]
    for groupby in ("cell_type", None):
        table = pd.concat([sh.get.deg(adata, groupby=groupby, min_fraction=0).query("held_out") for adata in donors])
        errors = (table["predicted_change"] - table["observed_change"]).abs() / table["predicted_std"]
        assert len(errors) == 3 * 30 * (1 if groupby is None else 3)
        assert (errors < 2).mean() > 0.85
        assert errors.median() > 0.3  # 0.67 of normal errors


def test_donors_with_one_type_each_are_groups(adata):
    table = change(adata)
    adata.obs["cell_type"] = "type of " + adata.obs["donor"].astype(str)
    adata.uns["hycnn_ot"]["params"] |= {"group_key": "cell_type", "leave_out": "donor"}
    pd.testing.assert_frame_equal(change(adata), table)
