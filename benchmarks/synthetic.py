"""Maps known in closed form (Table A of the HyCNN paper, App. D.3): squared error against the truth.

python benchmarks/synthetic.py                    # every task, 3 seeds
python benchmarks/synthetic.py --tasks scale-50 --seeds 10 --threads 1
python benchmarks/synthetic.py --quick
"""

from __future__ import annotations

import argparse
import time

import torch
from _report import run, show

from scot_hycnn import datasets, metrics, solver

N_CELLS = 5000
# Best published entry of any method for n = 5000, 10 seeds (arXiv:2604.26942, App. D.3).
PUBLISHED = {
    "identity-10": 0.023, "identity-20": 0.067, "identity-50": 0.386,
    "scale-10": 0.029, "scale-20": 0.071, "scale-50": 0.406,
    "sign-10": 0.942, "sign-20": 4.70, "sign-50": 19.77,
    "cubic-10": 0.360, "cubic-20": 1.91, "cubic-50": 19.81,
}  # fmt: skip


def measure(task: str, seed: int, n_ensemble: int | None, max_steps: int | None) -> dict[str, object]:
    """Fit one task and return its errors."""
    name, n_dims = task.split("-")
    pair = datasets.brenier_pair(name, int(n_dims), N_CELLS, rng=seed)
    gaussian = solver.fit(pair.x, pair.y, potential="gaussian", rng=seed)
    started = time.perf_counter()
    fitted = solver.fit(pair.x, pair.y, n_ensemble=n_ensemble, max_steps=max_steps, rng=seed)
    seconds = time.perf_counter() - started
    return {
        "identity": metrics.map_mse(pair.x_test, pair.y_test),
        "gaussian": metrics.map_mse(gaussian.transport(pair.x_test), pair.y_test),
        "hycnn_ot": metrics.map_mse(fitted.transport(pair.x_test), pair.y_test),
        "blend": fitted.blend,
        "steps": fitted.params["n_steps"],
        "seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="*", default=list(PUBLISHED), choices=list(PUBLISHED))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--n-ensemble", type=int, help="members; the default suits cells and dimensions")
    parser.add_argument("--max-steps", type=int, help="the default suits the members")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quick", action="store_true", help="two tasks, one seed, under two minutes")
    parser.add_argument("--fresh", action="store_true", help="measure again what the CSV holds")
    options = parser.parse_args()
    if options.quick:
        options.tasks, options.seeds = ["scale-10", "sign-10"], 1
    torch.set_num_threads(options.threads)
    cases = [
        {"task": task, "seed": seed, "n_ensemble": options.n_ensemble, "max_steps": options.max_steps}
        for task in options.tasks
        for seed in range(options.seeds)
    ]
    table = run(
        "synthetic_quick" if options.quick else "synthetic",
        cases,
        measure,
        fresh=options.fresh or options.quick,
    )
    summary = table.groupby("task", sort=False)[
        ["identity", "gaussian", "hycnn_ot", "blend", "steps", "seconds"]
    ].mean()
    summary.insert(0, "published_best", [PUBLISHED[task] for task in summary.index])
    summary["worst_ratio_to_gaussian"] = (table["hycnn_ot"] / table["gaussian"]).groupby(table["task"]).max()
    summary["sd_over_seeds"] = table.groupby("task")["hycnn_ot"].std()
    show(summary.reset_index())


if __name__ == "__main__":
    main()
