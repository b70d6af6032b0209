"""Wasserstein-2 benchmark Mix3toMix10 (Korotin et al. 2021) from at most 20,000 samples: L2-UVP, percent.

The samples are read from the folder that SCOT_HYCNN_DATA names.

    python benchmarks/w2_benchmark.py --dims 2 8 16 32 --threads 1
    python benchmarks/w2_benchmark.py --quick
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
from _report import run, show

from scot_hycnn import metrics, solver


def measure(dim: int, n: int, seed: int, n_ensemble: int | None, max_steps: int | None) -> dict[str, object]:
    """Fit one dimension and return its errors."""
    with np.load(Path(os.environ["SCOT_HYCNN_DATA"]) / "w2_benchmark" / f"{dim}.npz") as file:
        x, y, x_test, y_test = (file[name] for name in ("x", "y", "x_test", "y_test"))
    x, y = x[:n], y[:n]
    gaussian = solver.fit(x, y, potential="gaussian")
    started = time.perf_counter()
    fitted = solver.fit(x, y, n_ensemble=n_ensemble, max_steps=max_steps, rng=seed)
    seconds = time.perf_counter() - started
    return {
        "gaussian": metrics.l2_uvp(gaussian.transport(x_test), y_test),
        "hycnn_ot": metrics.l2_uvp(fitted.transport(x_test), y_test),
        "blend": fitted.blend,
        "seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dims", nargs="*", type=int, default=[2, 8, 16, 32])
    parser.add_argument("--n", nargs="*", type=int, default=[20_000])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--n-ensemble", type=int, help="members; the default suits cells and dimensions")
    parser.add_argument("--max-steps", type=int, help="the default suits the members")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quick", action="store_true", help="two dimensions, one seed, under two minutes")
    parser.add_argument("--fresh", action="store_true", help="measure again what the CSV holds")
    options = parser.parse_args()
    if "SCOT_HYCNN_DATA" not in os.environ:
        sys.exit("Set SCOT_HYCNN_DATA to the folder that holds w2_benchmark/<dim>.npz.")
    if options.quick:
        options.dims, options.seeds = [2, 16], 1
    torch.set_num_threads(options.threads)
    cases = [
        {"dim": dim, "n": n, "seed": seed, "n_ensemble": options.n_ensemble, "max_steps": options.max_steps}
        for dim in options.dims
        for n in options.n
        for seed in range(options.seeds)
    ]
    name = "w2_benchmark_quick" if options.quick else "w2_benchmark"
    table = run(name, cases, measure, fresh=options.fresh or options.quick)
    groups = table.groupby(["dim", "n", "n_ensemble", "max_steps"])
    summary = groups[["gaussian", "hycnn_ot", "blend", "seconds"]].mean()
    summary["sd_over_seeds"] = groups["hycnn_ot"].std()
    summary["slowest"] = groups["seconds"].max()
    show(summary.reset_index())


if __name__ == "__main__":
    main()
