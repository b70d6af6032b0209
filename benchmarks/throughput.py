"""Measure transported cells a second, memory against the number of cells, and the time of imports.

python benchmarks/throughput.py --threads 1
python benchmarks/throughput.py --quick
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time

import numpy as np
import torch
from _lib.rows import run, show

from scot_hycnn import datasets, solver


def measure(n_dims: int, n_ensemble: int, n_cells: int) -> dict[str, object]:
    """Fit a small map that keeps its network, and apply it to many cells."""
    pair = datasets.brenier_pair("sign", n_dims, 2000)
    fitted = solver.fit(pair.x, pair.y, max_steps=20, n_ensemble=n_ensemble)
    # A blend of zero would measure the Gaussian map alone.
    fitted = type(fitted).from_dict(fitted.to_dict() | {"blend": 1.0})
    cells = np.random.default_rng(0).normal(size=(n_cells, n_dims)).astype(np.float32)
    fitted.transport(cells[:1000])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        fitted.transport(cells)
        seconds.append(time.perf_counter() - started)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "cells_per_second": n_cells / statistics.median(seconds),
        "best_cells_per_second": n_cells / min(seconds),
        "result_mib": cells.nbytes / 2**20,
        "extra_mib": (after - before) / 1024,
        "seconds": statistics.median(seconds),
    }


def import_seconds(statement: str, repeats: int) -> float:
    """Return the median time of a process that runs a statement in a new interpreter."""
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-W", "error", "-c", statement], check=True)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quick", action="store_true", help="fewer cells, under two minutes")
    parser.add_argument("--fresh", action="store_true", help="measure again what the CSV holds")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    sizes = [20_000] if options.quick else [50_000, 200_000, 800_000]
    cases = [{"n_dims": 50, "n_ensemble": k, "n_cells": n} for k in (1, 2, 4) for n in sizes]
    name = "throughput_quick" if options.quick else "throughput"
    show(run(name, cases, measure, fresh=options.fresh or options.quick))
    repeats = 3 if options.quick else 7
    baseline = import_seconds("import scanpy, torch", repeats)
    for statement in (
        "import scot_hycnn",
        "import scot_hycnn, scanpy, torch",
        "from scot_hycnn import tl, solver",
    ):
        seconds = import_seconds(statement, repeats)
        print(f"{statement}: {seconds:.2f} s, {seconds / baseline:.2f}x 'import scanpy, torch' ({baseline:.2f} s)")


if __name__ == "__main__":
    main()
