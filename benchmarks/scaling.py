"""What a fit costs: seconds and memory against cells, dimensions, maps and width, and the law behind them.

One thing is changed at a time from 4 maps of 2,000 cells a side in 50 dimensions. Steps are timed apart from what a map
takes beside them: preparation, ten checks, choice of the blend, certificate. Each size has a process of its own, whose
peak memory is read. The law is fitted to the rows by least squares of relative errors; from it come the costs of a
genome-wide screen and an atlas, here and on GPUs of the speed that one job was measured at.

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
import warnings
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pandas as pd
import torch
from _report import machine, peak_memory, run, show
from scipy.optimize import nnls

from scot_hycnn import solver
from scot_hycnn.solver.data._cells import Cells
from scot_hycnn.solver.runtime._batching import maps_at_once
from scot_hycnn.solver.training import _loop
from scot_hycnn.solver.training._methods import RECIPES, make_method, make_network

BASE = {"n_cells": 2000, "n_dims": 50, "n_maps": 4, "width": 48}
CHANGES = {
    "n_cells": (500, 10_000, 100_000),
    "n_dims": (10, 20, 100),
    "n_maps": (1, 2, 8, 16, 32),
    "width": (16, 32, 96),
}
WARM_UP, STEPS, CHECKS = 3, 15, 10
MEMBERS, DEPTH, BATCH = 4, 4, 256
# Gradients of the batch that a step amounts to where conjugates are predicted, which is what is measured.
GRADIENTS = RECIPES["amortized"].method.gradients_per_step
# Screens and atlases: maps, cells a side, dimensions.
JOBS = {
    "16 conditions x 2,000 cells, d = 50": (16, 2000, 50),
    "200 conditions x 500 cells, d = 30": (200, 500, 30),
    "genome-wide Perturb-seq: 10,000 conditions x 200 cells, d = 50": (10_000, 200, 50),
    "atlas: 100 million cells in 20 conditions, d = 50 (100,000 of each are fitted on)": (20, 100_000, 50),
}
# Multiply-adds a second in float32, H100 (SXM, without tf32), and what part of them training has been seen to reach: 64
# conditions of 500 cells, d = 30, four networks each, took 8.3 ms a step (gpu.py).
GPU, REACHED = 33e12, 0.056


def work(n_dims: int, hidden: tuple[int, ...]) -> int:
    """Multiply-adds of one gradient of a HyCNN at one point: forward, and as many back."""
    forward = 2 * n_dims * hidden[0]  # (Qx)^2
    for below, width in zip((0, *hidden), hidden, strict=False):
        forward += 2 * width * (n_dims + below)
    return 2 * forward


class Idle:
    """In the place of the monitor: steps alone are timed."""

    gain, clearly_worse_than_gaussian, history = 0.0, False, MappingProxyType({})

    def __init__(self, *_: object) -> None:
        pass

    def check(self, _: int, theta: torch.Tensor, __: object) -> None:
        """Keep the last state."""
        self._theta = theta

    def selected(self) -> torch.Tensor:
        """Give it back."""
        return self._theta


def child(size: dict[str, int], device: str, threads: int) -> None:
    """Time one size in this process and print seconds and memory."""
    torch.set_num_threads(threads)
    n_cells, n_dims, n_maps, width = (size[name] for name in BASE)
    generator = np.random.default_rng(0)
    x = generator.normal(size=(n_cells, n_dims)).astype(np.float32)
    shifts = generator.normal(size=(n_maps, n_dims))
    ys = [(x[generator.permutation(n_cells)] + shift * (x[:, :1] > 0)).astype(np.float32) for shift in shifts]
    options = {"hidden": (width,) * DEPTH, "n_ensemble": MEMBERS, "batch_size": BATCH, "device": device}
    solver.fit_many(x[:500], [y[:500] for y in ys[:1]], max_steps=2, progress=False, **options)  # loads kernels
    before, step = _memory(), seconds_of_step(x, ys, options)
    started = time.perf_counter()
    solver.fit_many(x, ys, max_steps=CHECKS, progress=False, **options)
    seconds = time.perf_counter() - started
    measured = {
        "milliseconds_of_step_and_map": 1000 * step / n_maps,
        "seconds_of_map_beside_steps": max(seconds - CHECKS * step, 0) / n_maps,
        "mib": _memory() - before,
        "seconds": seconds + STEPS * step,
    }
    print(json.dumps(measured))


def seconds_of_step(x: np.ndarray, ys: list[np.ndarray], options: dict[str, object]) -> float:
    """Of all maps together, which train in the batches of a fit."""
    settings = solver.Settings.for_cells(*x.shape, max_steps=STEPS, rng=0, conjugates="predicted", **options)
    network = make_network(settings.potential, settings.solver, x.shape[1], settings.hidden)
    clouds = [Cells.prepare(x.astype(float), y.astype(float), 0.1, rng=0, device=settings.device) for y in ys]
    most = maps_at_once(settings, torch.get_num_threads())
    own = _loop.Monitor, _loop.snapshots
    _loop.Monitor = Idle
    _loop.snapshots = lambda _, f, __, monitors: f.detach().clone().split(len(f) // len(monitors))
    seconds = {}
    for steps in (WARM_UP, STEPS):
        started = time.perf_counter()
        for first in range(0, len(clouds), most):
            _loop.train(network, replace(settings, max_steps=steps), clouds[first : first + most], told=lambda *_: None)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds[steps] = time.perf_counter() - started
    _loop.Monitor, _loop.snapshots = own
    return seconds[STEPS] / STEPS


def _memory() -> float:
    """Most memory that the process has had, in MiB, on the device where that is a GPU."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return peak_memory()


def measure(n_cells: int, n_dims: int, n_maps: int, width: int, *, device: str, threads: int) -> dict[str, object]:
    """One size, in a new process."""
    settings = dict(zip(BASE, (n_cells, n_dims, n_maps, width), strict=True))
    command = [sys.executable, __file__, "--child", json.dumps(settings), "--device", device, "--threads", str(threads)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    measured: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return measured


def law(table: pd.DataFrame) -> tuple[float, float]:
    """Nanoseconds a network, step and point: alpha for each unit of a layer, beta for each multiply-add."""
    points = MEMBERS * BATCH * GRADIENTS
    measured = table["milliseconds_of_step_and_map"].to_numpy(float) * 1e6 / points
    units = DEPTH * table["width"].to_numpy(float)
    products = np.array([work(d, (w,) * DEPTH) for d, w in zip(table["n_dims"], table["width"], strict=True)], float)
    (alpha, beta), _ = nnls(np.stack([units, products], axis=1) / measured[:, None], np.ones(len(measured)))
    return float(alpha), float(beta)


def costs(table: pd.DataFrame, alpha: float, beta: float) -> pd.DataFrame:
    """Seconds that the jobs take here, and on GPUs of the stated speed; what is beside steps stays on the CPU."""
    beside = table.groupby("n_cells")["seconds_of_map_beside_steps"].median()
    rows = []
    for name, (n_maps, n_cells, n_dims) in JOBS.items():
        fitted = solver.Settings.for_cells(n_cells, n_dims, device="cpu", rng=0)
        method = make_method(fitted.solver, None, None, conjugates=fitted.conjugates)
        points = n_maps * fitted.n_ensemble * fitted.max_steps * fitted.batch_size * method.gradients_per_step
        products = work(n_dims, fitted.hidden)
        here = points * (alpha * sum(fitted.hidden) + beta * products) * 1e-9
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
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "solver.fit", UserWarning)
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
        f"\nA step takes {MEMBERS} members x batch x {GRADIENTS} gradients x ({alpha:.3g} ns x units + {beta:.3g} ns x "
        f"multiply-adds) a map; a GPU of {GPU:.2g} multiply-adds a second is assumed to reach {REACHED:.0%} of them.\n"
    )
    show(costs(table, alpha, beta))


if __name__ == "__main__":
    main()
