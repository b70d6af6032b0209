"""Correction of predicted means by the residuals of seen groups: known answers, and what must not change."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest

import scot_hycnn as sh

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
    sh.tl.hycnn_ot(adata, "control", "drug", potential="gaussian", **options)
    sh.tl.transport(adata, key_added="hycnn_ot")
    return adata


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
    variance = kernel[N_SEEN, N_SEEN] - weights @ kernel[:N_SEEN, N_SEEN]
    solved = np.linalg.solve(kernel[:N_SEEN, :N_SEEN] + np.eye(N_SEEN), residuals)
    std = np.sqrt(variance * (residuals * solved).sum(axis=0) / N_SEEN)
    return predicted, np.clip(reliability, 0, 1) * (predicted + weights @ residuals), std, (y - m)[N_SEEN]


@pytest.mark.filterwarnings("ignore:Replacing")
def test_the_equations_on_a_group_that_was_not_seen():
    adata = fit(groups())
    plain, wanted, std, truth = kriged(adata)
    table = change(adata)
    np.testing.assert_allclose(table["predicted_change"], wanted, atol=1e-4)
    np.testing.assert_allclose(table["predicted_std"], std, rtol=1e-4)
    np.testing.assert_allclose(change(adata, correction=None)["predicted_change"], plain, atol=1e-4)
    assert change(adata, correction=None)["predicted_std"].isna().all()
    # The response is linear in the baseline, which no map of all cells together follows.
    assert ((wanted - truth) ** 2).sum() < 0.7 * ((plain - truth) ** 2).sum()
