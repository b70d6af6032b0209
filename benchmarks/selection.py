"""Measure how well the blend is chosen: the error at every blend and at the choice of each rule; and which ensemble.

Maps of known truth are judged by their squared error, real cells (where SCOT_HYCNN_DATA names them) by the energy
distance of held-out cells. Regret: how much larger the error at the chosen blend is than at the best one; for real
cells, whose distances may be zero, in units of the Gaussian map's distance.

    python benchmarks/selection.py --threads 1
    python benchmarks/selection.py --ensembles 1x2400 2x1200 4x600 8x300
    python benchmarks/selection.py --quick
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from _lib.held_out_cells import RESPONSES, fold
from _lib.known_maps import closed_form, w2_benchmark
from _lib.rows import run, show

from scot_hycnn import datasets, metrics, solver

# Name to number of cells.
SYNTHETIC = {
    "scale-20": 2000, "sign-10": 2000, "sign-20": 5000, "sign-50": 5000, "cubic-20": 2000, "cubic-50": 5000,
    "logsumexp-10": 1000, "logsumexp-40": 2000, "planted": 0,
}  # fmt: skip
W2 = {"w2-16": 2000, "w2-32": 5000}
EVERY = [*SYNTHETIC, *W2, *RESPONSES]
# Rules that choose the blend by one validation score only.
RULES = {"J": "J_by_blend", "energy": "energy_distance_by_blend"}

Error = Callable[[solver.TransportMap], float]


def cells(task: str, seed: int) -> tuple[np.ndarray, np.ndarray, Error]:
    """Source and target cells of a task, and the error of a map."""
    if task in RESPONSES:
        held = fold(task, seed)
        return held.x, held.y, lambda fitted: metrics.energy_distance(fitted.transport(held.x_held), held.y_held)
    if task == "planted":
        adata = datasets.pbmc_planted(rng=seed)
        source = (adata.obs["condition"] == "control").to_numpy()
        points, truth = adata.obsm["X_pca"], adata.obsm["X_planted"][source]
        return points[source], points[~source], lambda f: metrics.map_mse(f.transport(points[source]), truth)
    name, n_dims = task.split("-")
    if task in W2:
        clouds = w2_benchmark(int(n_dims), 20_000)
        rows = np.random.default_rng(seed).permutation(len(clouds.x))[: W2[task]]
        clouds = clouds._replace(x=clouds.x[rows], y=clouds.y[rows])
    else:
        clouds = closed_form(name, int(n_dims), SYNTHETIC[task], seed)
    return clouds.x, clouds.y, lambda fitted: metrics.map_mse(fitted.transport(clouds.x_test), clouds.y_test)


def measure(task: str, seed: int, ensemble: str) -> dict[str, object]:
    """Fit once, and evaluate every blend."""
    x, y, error = cells(task, seed)
    n_ensemble, max_steps = (None, None) if ensemble == "default" else map(int, ensemble.split("x"))
    fitted = solver.fit(x, y, n_ensemble=n_ensemble, max_steps=max_steps, rng=seed)
    state, scores = fitted.to_dict(), fitted.validation
    # A fit that stopped early lists the Gaussian map only, and may have stopped wrongly: score all blends here.
    blends = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
    errors = {blend: error(solver.TransportMap.from_dict(state | {"blend": blend})) for blend in blends}
    picks = {"ours": fitted.blend} | {
        rule: float(scores["blends"][np.argmin(scores[column])]) for rule, column in RULES.items()
    }
    return {
        **{f"error_{blend}": value for blend, value in errors.items()},
        **{f"pick_{rule}": blend for rule, blend in picks.items()},
        "seconds": fitted.params["seconds"],
    }


def regrets(table: pd.DataFrame) -> pd.DataFrame:
    """Return the mean error and the regret of each rule's choice, one row for each task and ensemble."""
    rows = []
    for (task, ensemble), group in table.groupby(["task", "ensemble"], sort=False):
        errors = group.filter(like="error_").rename(columns=lambda name: float(name.removeprefix("error_")))
        best = errors.min(axis=1)
        scale = errors[0.0] if task in RESPONSES else best
        row = {"task": task, "ensemble": ensemble, "gaussian": errors[0.0].mean(), "network": errors[1.0].mean()}
        row |= {"best": best.mean()}
        for rule in ("ours", *RULES):
            picked = pd.Series({i: errors.loc[i, group.loc[i, f"pick_{rule}"]] for i in group.index})
            row |= {rule: picked.mean(), f"regret_{rule}_%": 100 * ((picked - best) / scale).mean()}
        rows.append(row | {"fits": len(group), "seconds": group["seconds"].mean()})
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    tasks = EVERY if "SCOT_HYCNN_DATA" in os.environ else list(SYNTHETIC)
    parser.add_argument("--tasks", nargs="*", default=tasks, choices=EVERY)
    parser.add_argument("--seeds", type=int, default=3, help="on real cells, folds")
    parser.add_argument("--ensembles", nargs="*", default=["default"], help="members x steps, such as 4x600")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quick", action="store_true", help="two tasks, one seed, under two minutes")
    parser.add_argument("--fresh", action="store_true", help="measure again what the CSV holds")
    options = parser.parse_args()
    if options.quick:
        options.tasks, options.seeds = ["sign-10", "logsumexp-10"], 1
    torch.set_num_threads(options.threads)
    cases = [
        {"task": task, "seed": seed, "ensemble": ensemble}
        for ensemble in options.ensembles
        for task in options.tasks
        for seed in range(options.seeds)
    ]
    name = "selection_quick" if options.quick else "selection"
    show(regrets(run(name, cases, measure, fresh=options.fresh or options.quick)))


if __name__ == "__main__":
    main()
