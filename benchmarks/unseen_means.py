"""Predict the means of genes in a group that was never seen treated, with and without the residuals of seen groups.

Groups are held out in both conditions: a cell type, all types of a lineage, or a synthetic donor. The Gaussian map
with the weights of groups is fitted on the others, or leave_out="groups" chooses among the simple maps of the ladder
("chosen"). The scores of each group are computed from sh.get.deg: Pearson correlation of predicted and observed changes
over all genes, squared error of the mean relative to no change, R² of the means of the 50 genes of the largest observed
score, and the share of genes whose error is below two predicted standard deviations. Those of a lineage are means of
its types, weighted by their cells. Types of Bodenmiller need 50 cells of both conditions. Needs SCOT_HYCNN_DATA, the
folder of the data, for the real ones.

    python benchmarks/unseen_means.py
    python benchmarks/unseen_means.py --settings kang_ifnb --level lineage
    python benchmarks/unseen_means.py --quick
"""

from __future__ import annotations

import argparse
import functools
from typing import Any

import anndata
import numpy as np
import pandas as pd
from _lib.held_out_cells import N_PCS_GROUPS, RESPONSES, cells_of, types_of
from _lib.rows import run, show
from unseen import DONORS, N_DONORS, donors

import scot_hycnn as sh

LINEAGES = {
    "kang_ifnb": {
        "B": ("B",),
        "T and NK": ("CD4 T", "CD8 T", "T activated", "NK"),
        "monocytes": ("CD14 Mono", "CD16 Mono"),
        "DC": ("DC", "pDC"),
    },
    "bodenmiller": {
        "B": ("B IgM+", "B IgM-"),
        "T": ("CD4 T", "CD8 T"),
        "NK": ("NK",),
        "myeloid": ("Mono CD14+", "CD14+ surface-", "DC", "CD14- HLADR+"),
        "other": ("surface-", "CD14- HLADR-"),
    },
}
MAPS = ("Gaussian map", "chosen")
N_SEEDS = 4


def min_cells(setting: str) -> int:
    """Return how many cells of both conditions a type needs."""
    return 10 if setting == "kang_ifnb" else 50


def held_out(setting: str, level: str) -> dict[str, tuple[str, ...]]:
    """Return the groups to hold out, each with the types in it."""
    if setting in DONORS:
        return {f"donor {k}": (f"donor {k}",) for k in range(N_DONORS)}
    if level == "lineage":
        return LINEAGES.get(setting, LINEAGES["bodenmiller"])
    return {name: (name,) for name in types_of(setting, min_cells(setting))}


def read(setting: str, seed: int) -> tuple[anndata.AnnData, str, str]:
    """Return cells with the column group, and the labels of source and target."""
    if setting in RESPONSES:
        adata = cells_of(setting).copy()
        adata.obs["group"] = adata.obs["cell_type"].astype(str)
        return adata, *RESPONSES[setting][1:3]
    x, y, of_cells = donors(setting, seed)
    obs = pd.DataFrame({"condition": np.repeat(["control", "drug"], len(x)), "group": np.tile(of_cells, 2)})
    obs.index = obs.index.astype(str)
    return anndata.AnnData(np.concatenate([x, y]).astype(np.float32), obs=obs), "control", "drug"


@functools.lru_cache(maxsize=1)
def fitted(*, setting: str, level: str, group: str, method: str, seed: int) -> anndata.AnnData:
    """Return the cells with a fit on all groups but the one held out."""
    adata, source, target = read(setting, seed)
    is_held = adata.obs["group"].isin(held_out(setting, level)[group])
    adata.obs["split"] = np.where(is_held, "test", "train")
    rep = "X"
    if setting in RESPONSES and RESPONSES[setting][3]:
        rep = "X_train"
        sh.pp.pca(adata, min(RESPONSES[setting][3], N_PCS_GROUPS), split_key="split", key_added=rep)
    sh.tl.hycnn_ot(
        adata,
        source,
        target,
        groupby="condition",
        use_rep=rep,
        split_key="split",
        group_key="group",
        potential="gaussian",
        leave_out="groups" if method == "chosen" else "cells",
        rng=seed,
    )
    return adata


def measure(correction: str, **case: Any) -> dict[str, float]:
    """Score one map on one group."""
    adata, setting = fitted(**case), case["setting"]
    wanted = None if correction == "none" else correction
    table = sh.get.deg(adata, groupby="group", min_fraction=0, correction=wanted)
    scores, weights = [], []
    for name in held_out(setting, case["level"])[case["group"]]:
        genes = table[table["group"] == name]
        n_cells = min(genes[["n_source", "n_target"]].min()) if len(genes) else 0
        if n_cells < min_cells(setting):
            continue
        predicted, observed, before = (
            genes[column].to_numpy() for column in ("predicted_change", "observed_change", "source_mean")
        )
        error, top = ((predicted - observed) ** 2).sum(), np.arange(min(50, len(genes)))
        moves = predicted.any()
        std = genes["predicted_std"].to_numpy()  # 0 for genes that no cell expresses
        z = (predicted - observed)[std > 0] / std[std > 0]
        scores.append(
            {
                "pearson_delta": float(np.corrcoef(predicted, observed)[0, 1]) if moves else float("nan"),
                "relative_error": float(error / (observed**2).sum()),
                "squared_error": float(error),
                "r2_top50": float(np.corrcoef((before + predicted)[top], (before + observed)[top])[0, 1] ** 2),
                "within_2_std": float((np.abs(z) < 2).mean()) if wanted else float("nan"),
            }
        )
        weights.append(n_cells)
    return pd.DataFrame(scores).mul(weights, axis=0).sum(min_count=1).div(sum(weights)).to_dict()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--settings", nargs="+", default=[*RESPONSES, *DONORS], choices=[*RESPONSES, *DONORS])
    parser.add_argument("--level", nargs="+", default=["type", "lineage"], choices=["type", "lineage"])
    parser.add_argument("--maps", nargs="+", default=list(MAPS), choices=MAPS)
    parser.add_argument("--quick", action="store_true", help="one synthetic setting and seed")
    parser.add_argument("--fresh", action="store_true", help="measure everything again")
    arguments = parser.parse_args()
    settings, seeds = (DONORS[:1], 1) if arguments.quick else (arguments.settings, N_SEEDS)
    cases = [
        {
            "setting": setting,
            "level": level,
            "group": group,
            "method": method,
            "correction": correction,
            "seed": seed,
        }
        for setting in settings
        for level in (arguments.level if setting in RESPONSES else ["type"])
        for seed in range(1 if setting in RESPONSES else seeds)
        for group in held_out(setting, level)
        for method in arguments.maps
        for correction in ("none", "groups")
    ]
    table = run("unseen_means", cases, measure, fresh=arguments.fresh)
    numbers = ["pearson_delta", "relative_error", "squared_error", "r2_top50", "within_2_std"]
    table[numbers] = table[numbers].apply(pd.to_numeric, errors="coerce")
    show(table.groupby(["setting", "level", "method", "correction"], sort=False)[numbers].mean().reset_index())


if __name__ == "__main__":
    main()
