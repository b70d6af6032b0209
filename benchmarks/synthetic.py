"""Measure the squared error of maps known in closed form (Table A of the HyCNN paper, app. D.3).

python benchmarks/synthetic.py                    # every task, 3 seeds
python benchmarks/synthetic.py --tasks scale-50 --seeds 10 --threads 1
python benchmarks/synthetic.py --potentials hycnn icnn icnn-quadratic groupmax mlp --solvers amortized minimax
python benchmarks/synthetic.py --peers entropic monge-gap          # needs the extra 'bench'
python benchmarks/synthetic.py --quick
"""

from __future__ import annotations

import argparse

import torch
from _lib.known_maps import closed_form
from _lib.methods import BASELINES, PEERS, check_peers, error_after, ours
from _lib.rows import run, show, wide

from scot_hycnn import metrics

N_CELLS = 5000
# Published for n = 5000, mean of 10 seeds, best entry of each family (arXiv:2604.26942, App. D.3).
METHODS = ("entropic", "monge-gap", "icnn", "icnn-quadratic", "hycnn")
PUBLISHED = {
    "identity-10": (0.999, 1.07, 0.391, 0.073, 0.023),
    "identity-20": (6.54, 4.53, 1.97, 0.365, 0.067),
    "identity-50": (32.8, 19.6, 9.81, 2.05, 0.386),
    "scale-10": (1.08, 1.38, 0.426, 0.078, 0.029),
    "scale-20": (6.59, 4.99, 1.94, 0.324, 0.071),
    "scale-50": (33.7, 16.9, 9.79, 2.02, 0.406),
    "sign-10": (3.83, 5.37, 2.17, 0.942, 1.009),
    "sign-20": (31.0, 19.6, 9.64, 5.03, 4.70),
    "sign-50": (89.2, 65.2, 56.0, 24.8, 19.77),
    "cubic-10": (3.42, 10.5, 3.91, 0.360, 0.822),
    "cubic-20": (16.7, 18.8, 11.8, 1.91, 7.78),
    "cubic-50": (82.2, 51.6, 41.2, 21.9, 19.81),
}


def measure(task: str, method: str, seed: int, n_ensemble: int | None, max_steps: int | None) -> dict[str, object]:
    """Fit one task by one method and return its error."""
    name, n_dims = task.split("-")
    clouds = closed_form(name, int(n_dims), N_CELLS, seed)
    return error_after(method, clouds, metrics.map_mse, rng=seed, n_ensemble=n_ensemble, max_steps=max_steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="*", default=list(PUBLISHED), choices=list(PUBLISHED))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--potentials", nargs="*", default=["hycnn"], help="families, as solver.fit names them")
    parser.add_argument("--solvers", nargs="*", default=["amortized"], help="training methods")
    parser.add_argument("--peers", nargs="*", default=[], choices=PEERS, help="methods of OTT-JAX")
    parser.add_argument("--n-ensemble", type=int, help="members; the default suits cells and dimensions")
    parser.add_argument("--max-steps", type=int, help="the default suits the members")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quick", action="store_true", help="two tasks, one seed, under two minutes")
    parser.add_argument("--fresh", action="store_true", help="measure again what the CSV holds")
    options = parser.parse_args()
    if options.quick:
        options.tasks, options.seeds, options.max_steps = ["scale-10", "sign-10"], 1, options.max_steps or 400
    check_peers(options.peers)
    torch.set_num_threads(options.threads)
    methods = [*BASELINES, *ours(options.potentials, options.solvers), *options.peers]
    cases = [
        {"task": task, "method": method, "seed": seed}
        | {"n_ensemble": options.n_ensemble, "max_steps": options.max_steps}
        for task in options.tasks
        for method in methods
        for seed in range(options.seeds)
    ]
    table = run(
        "synthetic_quick" if options.quick else "synthetic", cases, measure, fresh=options.fresh or options.quick
    )
    summary = wide(table, ["task"])
    for number, name in enumerate(METHODS):
        summary[f"published {name}"] = [PUBLISHED[task][number] for task in summary.index]
    show(summary.reset_index())
    show(table.groupby("method", sort=False)[["seconds"]].agg(["mean", "max"]).reset_index())


if __name__ == "__main__":
    main()
