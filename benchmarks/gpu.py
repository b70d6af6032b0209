"""Measure maps a second against the number of maps that train together, on the CPU or a GPU.

A step costs a fixed part, in which a GPU waits for the next launch, and a part for each map. The seconds of a step come
from two fits of different length; what comes before and after training is reported apart.

    python benchmarks/gpu.py
    python benchmarks/gpu.py --device cuda --n-maps 1 16 64 256 --cuda-graph never auto
    python benchmarks/gpu.py --quick
"""

from __future__ import annotations

import argparse
import functools
import time

import numpy as np
import torch
from _lib.rows import run, show
from _lib.timing import seconds_of_step
from screen import screen

from scot_hycnn import solver

N_CELLS, N_DIMS = 500, 30
# Steps of the two fits, multiples of 20. A GPU needs more of them for a time that can be measured, and so do few
# networks: NETWORK_STEPS of all together.
FEW, MANY, NETWORK_STEPS = 20, 60, 800
FEW_OF_GPU, MANY_OF_GPU = 60, 560


def timed_fit(
    n_maps: int, n_ensemble: int, device: str, max_steps: int, cuda_graph: str = "auto"
) -> tuple[float, list[solver.TransportMap]]:
    """Return the seconds of one call of fit_many, and its maps."""
    x, ys, *_ = screen(n_maps, N_CELLS, N_DIMS, 0)
    options = {"n_ensemble": n_ensemble, "max_steps": max_steps, "device": device, "progress": False}
    if cuda_graph != "auto":
        options["cuda_graph"] = cuda_graph
    started = time.perf_counter()
    fits = solver.fit_many(x, ys, **options)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started, fits


@functools.cache
def warm_up(device: str) -> None:
    """Load the kernels of a device, which its first call does."""
    timed_fit(1, 1, device, 2)


def measure(n_maps: int, n_ensemble: int, on: str, cuda_graph: str) -> dict[str, object]:
    """Return the seconds of a step, and whole maps a second with the default number of steps."""
    warm_up(on)
    few, many = FEW_OF_GPU, MANY_OF_GPU
    if on == "cpu":
        few, many = FEW, max(MANY, FEW + NETWORK_STEPS // (n_maps * n_ensemble) // 20 * 20)
    # The better of two times: other programs only make a fit slower.
    pairs = [[timed_fit(n_maps, n_ensemble, on, steps, cuda_graph) for steps in (few, many)] for _ in range(2)]
    step = min(seconds_of_step(short[1], long[1], torch.get_num_threads(), on) for short, long in pairs)
    seconds, maps = min((short for short, _ in pairs), key=lambda pair: pair[0])
    beside = max(seconds - step * float(np.mean([fitted.params["n_steps"] for fitted in maps])), 0.0)
    steps = solver.Settings.for_cells(N_CELLS, N_CELLS, N_DIMS, device=on, rng=0).max_steps
    return {
        "milliseconds_of_step": 1000 * step,
        "milliseconds_of_step_and_map": 1000 * step / n_maps,
        "seconds_beside_steps": beside,
        "maps_per_second": n_maps / (steps * step + beside),
        "seconds": sum(seconds for pair in pairs for seconds, _ in pair),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--n-maps", nargs="*", type=int, default=[1, 4, 16, 64])
    parser.add_argument("--n-ensemble", nargs="*", type=int, default=[1, 4])
    parser.add_argument("--cuda-graph", nargs="*", default=["auto"], choices=["auto", "never"])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quick", action="store_true", help="few maps, under two minutes")
    parser.add_argument("--fresh", action="store_true", help="measure again what the CSV holds")
    options = parser.parse_args()
    if options.quick:
        options.n_maps, options.n_ensemble = [1, 4], [1]
    torch.set_num_threads(options.threads)
    device = str(solver.resolve_device(options.device))
    cases = [
        {"n_maps": n_maps, "n_ensemble": n_ensemble, "on": device, "cuda_graph": cuda_graph}
        for cuda_graph in options.cuda_graph
        for n_ensemble in options.n_ensemble
        for n_maps in options.n_maps
    ]
    name = "gpu_quick" if options.quick else "gpu"
    table = run(name, cases, measure, fresh=options.fresh or options.quick)
    step = table.groupby(["cuda_graph", "n_ensemble"])["milliseconds_of_step"]
    show(table.assign(times_first=np.round(table["milliseconds_of_step"] / step.transform("first"), 2)))


if __name__ == "__main__":
    main()
