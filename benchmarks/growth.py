"""Fit maps where cells die, divide or were sampled in other proportions, with and without weights of cells.

Planted: three clusters, each with its own affine map, that grow by 1, 1 and 4. The rows say the error of the map on new
cells, the part of them that ends in another cluster, and the largest relative error of the growth of a cluster; "equal"
is the fit on target cells of the same composition, "none" has no growth at all. Choice: the part of seeds in which
"auto" decides rightly. Kinds: the same for other populations (_lib/growth_kinds.py). Real: Kang et al. 2018 without
labels, and Bodenmiller et al. 2012 with one type that lacks in the target. Overhead: seconds that the weights take.

    python benchmarks/growth.py --threads 1
    python benchmarks/growth.py --quick
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import anndata
import numpy as np
import scanpy as sc
import torch
from _lib.growth_kinds import KINDS, ONE_POPULATION
from _lib.rows import run, show

import scot_hycnn as sh
from scot_hycnn import solver

SHARES = {"growth": (1 / 6, 1 / 6, 4 / 6), "equal": (1 / 3,) * 3}
FITS = {
    "balanced": {},
    "unbalanced=1": {"unbalanced": 1.0},
    "unbalanced=.3": {"unbalanced": 0.3},
    "unbalanced=.1": {"unbalanced": 0.1},
    "auto": {"unbalanced": "auto"},
    "labels": {},
}
AGAIN = "balanced, all cells, another seed"
DATA = Path(os.environ.get("SCOT_HYCNN_DATA", "data"))


def clusters(n: int, d: int, shares: tuple[float, ...], seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return cells, (n, d), where the planted map of their cluster carries them, and their cluster."""
    rng, fixed = np.random.default_rng(seed), np.random.default_rng(1)
    of = rng.choice(3, n, p=shares)
    centres, shifts = 20 * fixed.normal(size=(3, d)) / np.sqrt(d), fixed.normal(size=(3, d))
    spread = fixed.normal(size=(3, d, d)) / np.sqrt(d)
    matrices = np.eye(d) + 0.4 * (spread + spread.transpose(0, 2, 1)) / 2
    noise = rng.normal(size=(n, d))
    moved = centres[of] + shifts[of] + np.einsum("nij,nj->ni", matrices[of], noise)
    return centres[of] + noise, moved, of


def planted(task: str, d: int, n: int, fit: str, *, seed: int, potential: str) -> dict[str, object]:
    """Measure one fit of planted clusters."""
    x, _, of_x = clusters(n, d, SHARES["equal"], 3 * seed)
    _, y, of_y = clusters(n, d, SHARES[task], 3 * seed + 1)
    new, truth, of_new = clusters(2000, d, SHARES["equal"], 3 * seed + 2)
    groups = (of_x, of_y) if fit == "labels" else None
    started = time.perf_counter()
    fitted = solver.fit(x, y, groups=groups, rng=seed, potential=potential, progress=False, **FITS[fit])
    seconds = time.perf_counter() - started
    moved = fitted.transport(new)
    centres = np.stack([truth[of_new == k].mean(0) for k in range(3)])
    nearest = ((moved[:, None] - centres) ** 2).sum(-1).argmin(1)
    row = {"error": float(((moved - truth) ** 2).sum(1).mean()), "to_another": float((nearest != of_new).mean())}
    growth = fitted.validation.get("source_growth")
    if growth is not None:
        true = np.bincount(of_y, minlength=3) / np.bincount(of_x, minlength=3)
        found = np.array([growth[of_x == k].mean() for k in range(3)])
        row["growth_error"] = float(np.abs(found / true - 1).max())
    return row | {"penalty": fitted.validation.get("unbalanced", np.nan), "fit_seconds": seconds}


def choice(task: str, d: int, n: int, seed: int) -> dict[str, object]:
    """Return whether 'auto' decides rightly; the Gaussian map is enough for that."""
    x, _, _ = clusters(n, d, SHARES["equal"], 1000 + 2 * seed)
    _, y, _ = clusters(n, d, SHARES[task], 1001 + 2 * seed)
    return decision(x, y, seed, grows=task == "growth")


def decision(x: np.ndarray, y: np.ndarray, seed: int, *, grows: bool) -> dict[str, object]:
    """Return the penalty that 'auto' takes, and whether this is right."""
    fitted = solver.fit(x, y, rng=seed, potential="gaussian", unbalanced="auto", progress=False)
    penalty = fitted.validation["unbalanced"]
    return {"penalty": penalty, "right": np.isfinite(penalty) == grows}


def kinds(kind: str, growth: float, seed: int) -> dict[str, object]:
    """Return whether 'auto' decides rightly on another kind of populations."""
    x, y = KINDS[kind](growth, seed) if kind in KINDS else ONE_POPULATION[kind](seed)
    return decision(x, y, seed, grows=growth != 1)


def kang(fit: str, seed: int) -> dict[str, object]:
    """Return which part of each type keeps its type; on held-out cells, of a PCA of training cells."""
    adata = anndata.read_h5ad(DATA / "kang_ifnb.h5ad")
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    sh.pp.split(adata, rng=seed)
    sh.pp.pca(adata, n_comps=50, split_key="split", key_added="X_train")
    options = {"group_key": "cell_type"} if fit == "labels" else FITS[fit]
    sh.tl.hycnn_ot(
        adata, "control", "IFN-beta", groupby="condition", use_rep="X_train", split_key="split", rng=seed, **options
    )
    # All evaluated cells, whatever their weight, so that fits are compared on the same cells.
    adata.obs = adata.obs.drop(columns=[name for name in adata.obs if name.endswith("_weight")])
    scores = sh.metrics.evaluate(adata, groupby="cell_type", n_bootstrap=0)
    kept = scores[(scores["metric"] == "kept_group") & (scores["method"] == "hycnn_ot")].set_index("group")["value"]
    return {f"kept_{name.replace(' ', '_')}": kept.get(name, np.nan) for name in ("CD14 Mono", "CD4 T", "B", "DC")}


def dropped(condition: str, fit: str, seed: int, dropped_type: str) -> dict[str, object]:
    """Compare predictions of a fit without one type in the target with those of the fit of all cells.

    "labels" has the groups in both fits, and "again" is the fit of all cells with another seed, for comparison.
    """
    cells = anndata.read_h5ad(DATA / "bodenmiller_cytof.h5ad")
    keep = cells.obs["condition"].isin(["unstimulated", condition]).to_numpy()
    rows = np.sort(np.random.default_rng(seed).permutation(np.flatnonzero(keep))[:8000])
    adata = cells[rows].copy()
    adata.obsm["X_markers"] = np.asarray(adata.X.todense() if hasattr(adata.X, "todense") else adata.X)
    lost = (adata.obs["condition"] == condition) & (adata.obs["cell_type"] == dropped_type)
    evaluated = np.random.default_rng(seed).random(adata.n_obs) < 0.3
    results = {}
    labels = {"group_key": "cell_type", "skip_small": True} if fit == "labels" else {}
    kept = np.full(len(evaluated), fill_value=True) if fit == AGAIN else ~lost.to_numpy()
    for name, train, options in (
        ("full", ~evaluated, labels),
        ("dropped", ~evaluated & kept, labels or FITS.get(fit, {})),
    ):
        sh.tl.hycnn_ot(
            adata,
            "unstimulated",
            condition,
            groupby="condition",
            use_rep="X_markers",
            mask_obs=train,
            rng=seed + 100 * (fit == AGAIN and name == "dropped"),
            key_added=name,
            **options,
        )
        adata.obs = adata.obs.drop(columns=[column for column in adata.obs if column.endswith("_weight")])
        scores = sh.metrics.evaluate(adata, name, mask_obs=evaluated, groupby="cell_type", n_bootstrap=50)
        results[name] = scores[
            (scores["metric"] == "energy_distance") & (scores["method"] == "hycnn_ot") & (scores["group"] != "all")
        ].set_index("group")
    both = results["full"].index.intersection(results["dropped"].index).drop([dropped_type, "all, same composition"])
    full, other = results["full"].loc[both], results["dropped"].loc[both, "value"]
    return {
        "n_types": len(both),
        "within": float((other <= full["high"]).mean()),
        "mean_full": float(full["value"].mean()),
        "mean_dropped": float(other.mean()),
    }


def overhead(n: int, seed: int, unbalanced: str) -> dict[str, object]:
    """Return the seconds that weights add to a Gaussian map."""
    x, _, _ = clusters(n, 30, SHARES["equal"], seed)
    _, y, _ = clusters(n, 30, SHARES["growth"], seed + 1)
    seconds = []
    for value in (None, "auto" if unbalanced == "auto" else float(unbalanced)):
        started = time.process_time()
        solver.fit(x, y, potential="gaussian", unbalanced=value, progress=False)
        seconds.append(time.process_time() - started)
    return {"overhead_seconds": seconds[1] - seconds[0]}


PARTS = {"planted": planted, "choice": choice, "kinds": kinds, "kang": kang, "dropped": dropped, "overhead": overhead}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="*", default=list(PARTS), choices=PARTS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--fits", nargs="*", default=list(FITS), choices=FITS)
    parser.add_argument("--dims", type=int, nargs="*", default=[10, 30])
    parser.add_argument("--potential", default="hycnn")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quick", action="store_true", help="planted clusters by the Gaussian map, under two minutes")
    parser.add_argument("--fresh", action="store_true", help="measure again what the CSV holds")
    options = parser.parse_args()
    if options.quick:
        options.parts, options.seeds, options.potential = ["planted", "choice"], 1, "gaussian"
    torch.set_num_threads(options.threads)
    sc.settings.verbosity = 0
    seeds, n = range(options.seeds), 500 if options.quick else 2000
    cases = {
        "planted": [
            {"task": task, "d": d, "n": n, "fit": fit, "seed": seed, "potential": options.potential}
            for d in options.dims
            for seed in seeds
            for task in SHARES
            for fit in options.fits
            if task == "growth" or fit in ("balanced", "unbalanced=.3")
        ],
        "choice": [
            {"task": task, "d": d, "n": n, "seed": seed}
            for d in options.dims
            for seed in range(1 if options.quick else 20)
            for task in SHARES
        ],
        "kinds": [
            {"kind": kind, "growth": growth, "seed": seed}
            for kind in (*KINDS, *ONE_POPULATION)
            for growth in ((1.0,) if kind in ONE_POPULATION else (1.0, 0.1, 0.25, 0.5, 4.0))
            for seed in seeds
        ],
        "kang": [{"fit": fit, "seed": seed} for seed in seeds for fit in options.fits],
        "dropped": [
            {"condition": condition, "fit": fit, "seed": seed, "dropped_type": "CD4 T"}
            for condition in ("BCR/FcR-XL", "PMA/Ionomycin", "vanadate")
            for seed in seeds
            for fit in (*options.fits, AGAIN)
        ],
        "overhead": [
            {"n": size, "seed": 0, "unbalanced": value} for size in (2000, 100_000) for value in ("0.3", "auto")
        ],
    }
    for part in options.parts:
        name = f"growth_{part}" + ("_quick" if options.quick else "")
        table = run(name, cases[part], PARTS[part], fresh=options.fresh or options.quick)
        by = [
            name
            for name in ("task", "kind", "growth", "d", "n", "condition", "fit", "unbalanced", "potential")
            if name in table
        ]
        numbers = [name for name in table.select_dtypes(["number", "bool"]) if name not in (*by, "seed", "threads")]
        show(table.groupby(by, sort=False)[numbers].mean().reset_index())


if __name__ == "__main__":
    main()
