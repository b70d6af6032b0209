"""Compare the true error of cells with the ensemble's standard deviation, and with the out-of-support score.

On data whose true map is known: the planted PBMCs, and maps in closed form. A ratio of 1 would be a standard deviation
as large as the error; the rank correlation says whether uncertain cells are the wrong ones. Draws docs/calibration.png.

    python benchmarks/calibration.py --threads 1
    python benchmarks/calibration.py --quick
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import torch
from _lib.known_maps import closed_form
from _lib.rows import run, show
from scipy.stats import spearmanr

from scot_hycnn import datasets, solver

FIGURE = Path(__file__).parents[1] / "docs" / "calibration.png"
N_CELLS = {"sign-10": 2000, "cubic-20": 2000, "logsumexp-10": 2000}
TASKS = ("planted", *N_CELLS)
TITLES = {
    "planted": "planted PBMCs",
    "sign-10": "x + sign x, d = 10",
    "cubic-20": "4x³, d = 20",
    "logsumexp-10": "log-sum-exp, d = 10",
}
N_BINS = 10


def measure(task: str, seed: int) -> dict[str, object]:
    """Return root mean squares of error and standard deviation, of all cells and of each tenth of them."""
    x, y, x_test, truth = _cells(task, seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "solver.fit", UserWarning)
        fitted = solver.fit(x, y, rng=seed)
    moved, std = fitted.transport(x_test, return_std=True)
    error, support = np.linalg.norm(moved - truth, axis=1), fitted.out_of_support(x_test)
    row: dict[str, object] = {
        "rms_error": _rms(error),
        "rms_std": _rms(std),
        "ratio": _rms(std) / _rms(error),
        "rank_correlation_std": float(spearmanr(std, error).statistic),
        "rank_correlation_support": float(spearmanr(support, error).statistic),
        "blend": fitted.blend,
    }
    for k, cells in enumerate(np.array_split(np.argsort(std), N_BINS)):
        row |= {f"std_{k}": _rms(std[cells]), f"error_{k}": _rms(error[cells])}
    return row


def _cells(task: str, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    if task != "planted":
        name, n_dims = task.split("-")
        return tuple(closed_form(name, int(n_dims), N_CELLS[task], seed))
    adata = datasets.pbmc_planted(rng=seed)
    source = (adata.obs["condition"] == "control").to_numpy()
    points = adata.obsm["X_pca"]
    return points[source], points[~source], points[source], adata.obsm["X_planted"][source]


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values.astype(float) ** 2)))


def draw(table: pd.DataFrame) -> None:
    """Draw a panel for each task and a line for each seed: the error in each tenth of the standard deviation."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    tasks = list(dict.fromkeys(table["task"]))
    figure, panels = plt.subplots(1, len(tasks), figsize=(3.2 * len(tasks), 3.3), layout="compressed", squeeze=False)
    for axes, task in zip(panels[0], tasks, strict=True):
        rows = table[table["task"] == task]
        for _, row in rows.iterrows():
            std, error = (row[[f"{name}_{k}" for k in range(N_BINS)]].astype(float) for name in ("std", "error"))
            axes.plot(std, error, "o-", color="#0072B2", markersize=3, linewidth=1, alpha=0.8)
        top = 1.08 * rows[[f"error_{k}" for k in range(N_BINS)]].to_numpy(float).max()
        for slope, style in ((1, "-"), (2, "--")):
            axes.plot([0, top / slope], [0, top], style, color="#999999", linewidth=1, zorder=0)
            axes.annotate(
                f"{slope} x std", (0.97 * top / slope, 0.97 * top), ha="right", va="top", color="#666666", size=8
            )
        axes.set(title=TITLES[task], xlim=(0, top), ylim=(0, top), xlabel="standard deviation", aspect="equal")
    panels[0, 0].set_ylabel("true error (rms of a tenth of the cells)")
    FIGURE.parent.mkdir(exist_ok=True)
    figure.savefig(FIGURE, dpi=150)
    print(f"wrote docs/{FIGURE.name}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="*", default=list(TASKS), choices=TASKS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quick", action="store_true", help="one task, one seed, under two minutes")
    parser.add_argument("--fresh", action="store_true", help="measure again what the CSV holds")
    options = parser.parse_args()
    if options.quick:
        options.tasks, options.seeds = ["logsumexp-10"], 1
    torch.set_num_threads(options.threads)
    cases = [{"task": task, "seed": seed} for task in options.tasks for seed in range(options.seeds)]
    name = "calibration_quick" if options.quick else "calibration"
    table = run(name, cases, measure, fresh=options.fresh or options.quick)
    columns = ["rms_error", "rms_std", "ratio", "rank_correlation_std", "rank_correlation_support", "seconds"]
    show(table.groupby("task", sort=False)[columns].mean().reset_index())
    if not options.quick:
        draw(table)


if __name__ == "__main__":
    main()
