"""Measure what a fit costs: seconds and memory against cells, dimensions, maps and width, and the law behind them.

One size at a time is changed, from 4 maps of 2,000 cells a side in 50 dimensions. Steps are timed apart from what a
map takes beside them: preparation, ten checks, choice of the blend, certificate. Each size runs in a new process, whose
peak memory is read. The law is fitted to the rows by least squares of relative errors. It gives the costs of a
genome-wide screen and an atlas, here and on GPUs of the speed that was measured for one job.

    python benchmarks/scaling.py
    python benchmarks/scaling.py --device cuda
    python benchmarks/scaling.py --quick
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import torch
from _lib.rows import machine, peak_memory, run, show
from _lib.timing import seconds_of_step
from scipy.optimize import nnls

from scot_hycnn import solver

BASE = {"n_cells": 2000, "n_dims": 50, "n_maps": 4, "width": 48}
CHANGES = {
    "n_cells": (500, 10_000, 100_000),
    "n_dims": (10, 20, 100),
    "n_maps": (1, 2, 8, 16, 32),
    "width": (16, 32, 96),
}
FEW, MANY = 20, 60  # steps of the two fits that time a step, multiples of 20
MEMBERS, DEPTH, BATCH = 4, 4, 256
# Gradients of a batch that a step costs, by how the search for conjugates starts. The rows measure amortised starts.
GRADIENTS = {"amortized": 20, "cached": 10}
# Number of maps, cells a side and dimensions of screens and atlases.
JOBS = {
    "16 conditions x 2,000 cells, d = 50": (16, 2000, 50),
    "200 conditions x 500 cells, d = 30": (200, 500, 30),
    "genome-wide Perturb-seq: 10,000 conditions x 200 cells, d = 50": (10_000, 200, 50),
    "atlas: 100 million cells in 20 conditions, d = 50 (100,000 of each are fitted on)": (20, 100_000, 50),
}
# Multiply-adds a second in float32 of an H100 (SXM, without TF32), and the part of them that training reached: 64
# conditions of 500 cells, d = 30, four networks each, took 8.3 ms a step (gpu.py).
GPU, REACHED = 33e12, 0.056


def work(n_dims: int, hidden: tuple[int, ...]) -> int:
    """Return the multiply-adds of one gradient of a HyCNN at one point: a forward and a backward pass of equal cost."""
    forward = 2 * n_dims * hidden[0]  # (Qx)^2
    for below, width in zip((0, *hidden), hidden, strict=False):
        forward += 2 * width * (n_dims + below)
    return 2 * forward


def child(size: dict[str, int], device: str, threads: int) -> None:
    """Time one size in this process and print seconds and memory."""
    torch.set_num_threads(threads)
    n_cells, n_dims, n_maps, width = (size[name] for name in BASE)
    generator = np.random.default_rng(0)
    x = generator.normal(size=(n_cells, n_dims)).astype(np.float32)
    shifts = generator.normal(size=(n_maps, n_dims))
    ys = [(x[generator.permutation(n_cells)] + shift * (x[:, :1] > 0)).astype(np.float32) for shift in shifts]
    options = {"hidden": (width,) * DEPTH, "n_ensemble": MEMBERS, "batch_size": BATCH, "conjugates": "amortized"}
    options |= {"device": device, "progress": False}
    solver.fit_many(x[:500], [y[:500] for y in ys[:1]], max_steps=2, **options)  # loads kernels
    before, started = _memory(), time.perf_counter()
    short = solver.fit_many(x, ys, max_steps=FEW, **options)
    middle = time.perf_counter()
    long = solver.fit_many(x, ys, max_steps=MANY, **options)
    step = seconds_of_step(short, long, threads, device)
    n_steps = float(np.mean([fitted.params["n_steps"] for fitted in short]))
    measured = {
        "milliseconds_of_step_and_map": 1000 * step / n_maps,
        "seconds_of_map_beside_steps": max(middle - started - n_steps * step, 0) / n_maps,
        "mib": _memory() - before,
        "seconds": time.perf_counter() - started,
    }
    print(json.dumps(measured))


def _memory() -> float:
    """Return the peak memory of the process in MiB, or of the device if that is a GPU."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return peak_memory()


def measure(n_cells: int, n_dims: int, n_maps: int, width: int, *, device: str, threads: int) -> dict[str, object]:
    """Measure one size in a new process."""
    settings = dict(zip(BASE, (n_cells, n_dims, n_maps, width), strict=True))
    command = [sys.executable, __file__, "--child", json.dumps(settings), "--device", device, "--threads", str(threads)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    measured: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return measured


def law(table: pd.DataFrame) -> tuple[float, float]:
    """Return the nanoseconds of a gradient at a point: alpha for each unit of a layer, beta for each multiply-add."""
    points = MEMBERS * BATCH * GRADIENTS["amortized"]
    measured = table["milliseconds_of_step_and_map"].to_numpy(float) * 1e6 / points
    units = DEPTH * table["width"].to_numpy(float)
    products = np.array([work(d, (w,) * DEPTH) for d, w in zip(table["n_dims"], table["width"], strict=True)], float)
    (alpha, beta), _ = nnls(np.stack([units, products], axis=1) / measured[:, None], np.ones(len(measured)))
    return float(alpha), float(beta)


def costs(table: pd.DataFrame, alpha: float, beta: float) -> pd.DataFrame:
    """Return the minutes of the jobs here, and on GPUs of the stated speed; what is beside steps stays on the CPU."""
    beside = table.groupby("n_cells")["seconds_of_map_beside_steps"].median()
    rows = []
    for name, (n_maps, n_cells, n_dims) in JOBS.items():
        settings = solver.Settings.for_cells(n_cells, n_cells, n_dims, device="cpu", rng=0)
        points = n_maps * settings.n_ensemble * settings.max_steps * settings.batch_size
        points *= GRADIENTS[settings.conjugates]
        products = work(n_dims, settings.hidden)
        here = points * (alpha * sum(settings.hidden) + beta * products) * 1e-9
        on_gpu = points * products / (GPU * REACHED)
        around = n_maps * float(np.interp(n_cells, beside.index, beside))
        rows.append(
            {
                "job": name,
                "minutes here": (here + around) / 60,
                "of which beside steps": around / 60,
                "minutes of steps, 1 GPU (estimate)": on_gpu / 60,
                "16 GPUs": on_gpu / 60 / 16,
            }
        )
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quick", action="store_true", help="four sizes, under two minutes")
    parser.add_argument("--fresh", action="store_true", help="measure again what the CSV holds")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    device = str(solver.resolve_device(options.device))
    if options.child:
        child(json.loads(options.child), device, options.threads)
        return
    torch.set_num_threads(options.threads)
    base = BASE | ({"n_maps": 1} if options.quick else {})
    changes = {"n_cells": (500,), "n_dims": (10,), "width": (16,)} if options.quick else CHANGES
    cases = [base, *(base | {name: value} for name, values in changes.items() for value in values)]

    def measured(on: str, **size: int) -> dict[str, object]:
        return measure(**size, device=on, threads=options.threads)

    name = "scaling_quick" if options.quick else "scaling"
    table = run(name, [case | {"on": device} for case in cases], measured, fresh=options.fresh or options.quick)
    show(table.drop(columns=list(machine())))
    alpha, beta = law(table)
    print(
        f"\nA step takes {MEMBERS} members x batch x {GRADIENTS['amortized']} gradients x ({alpha:.3g} ns x units + "
        f"{beta:.3g} ns x multiply-adds) a map.\nA GPU of {GPU:.2g} multiply-adds a second is assumed to reach "
        f"{REACHED:.0%} of them.\n"
    )
    show(costs(table, alpha, beta))


if __name__ == "__main__":
    main()
