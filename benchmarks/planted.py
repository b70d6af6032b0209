"""Compare the map of planted PBMCs with their known truth, beside the simple answers.

python benchmarks/planted.py
python benchmarks/planted.py --quick
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from _lib.rows import run, show

from scot_hycnn import datasets, metrics, solver

METHODS = ("identity", "mean_shift", "gaussian", "hycnn_ot")


def measure(n_cells: int, method: str, seed: int) -> dict[str, object]:
    """Fit by one method on all cells, and score the moved control cells."""
    adata = datasets.pbmc_planted(n_cells)
    is_source = (adata.obs["condition"] == "control").to_numpy()
    x, y = adata.obsm["X_pca"][is_source], adata.obsm["X_pca"][~is_source]
    labels = adata.obs["cell_type"].to_numpy()
    started = time.process_time()
    moved = x if method == "identity" else x + y.mean(axis=0) - x.mean(axis=0)
    if method in ("gaussian", "hycnn_ot"):
        options = (
            {"potential": "gaussian"} if method == "gaussian" else {"groups": (labels[is_source], labels[~is_source])}
        )
        moved = np.asarray(solver.fit(x, y, rng=seed, **options).transport(x))
    seconds = time.process_time() - started
    return {
        "squared_error": float(metrics.map_mse(moved, adata.obsm["X_planted"][is_source])),
        "energy_distance": float(metrics.energy_distance(moved, y)),
        "seconds": round(seconds, 2),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n-cells", type=int, default=4000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="400 cells, one seed")
    parser.add_argument("--fresh", action="store_true", help="measure again what the CSV holds")
    options = parser.parse_args()
    n_cells, n_seeds = (400, 1) if options.quick else (options.n_cells, options.seeds)
    cases = [
        {"n_cells": n_cells, "method": method, "seed": seed}
        for method in METHODS
        for seed in range(n_seeds if method == "hycnn_ot" else 1)
    ]
    show(run("planted_quick" if options.quick else "planted", cases, measure, fresh=options.fresh or options.quick))


if __name__ == "__main__":
    main()
