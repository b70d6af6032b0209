"""Maps a second against the number of maps that train together, on whatever device there is.

A step costs a fixed part, in which a GPU waits for the next launch, and a part for each map. Seconds of a step are
those of two fits of different length, subtracted: what comes before and after training is reported apart.

    python benchmarks/gpu.py
    python benchmarks/gpu.py --device cuda --n-maps 1 16 64 256 --compilation never auto
    python benchmarks/gpu.py --quick
"""

from __future__ import annotations

import argparse
import functools
import time
import warnings

import numpy as np
import torch
from _report import run, show
from screen import screen

from scot_hycnn import solver
from scot_hycnn.solver.training import _loop

N_CELLS, N_DIMS = 500, 30
# Steps of the two fits; both have ten checks. A GPU takes more of them for a time that can be measured, and so do few
# networks: NETWORK_STEPS of all together.
FEW, MANY, NETWORK_STEPS = 20, 60, 800
FEW_OF_GPU, MANY_OF_GPU = 50, 550


class NeverStops(_loop.Monitor):
    """Few steps leave networks worse than the Gaussian map, and a fit that ends early says nothing of its steps."""

    clearly_worse_than_gaussian = property(lambda _: False, lambda *_: None)


def seconds_of(n_maps: int, n_ensemble: int, device: str, max_steps: int, compilation: str = "auto") -> float:
    """Time of one call, all steps of it."""
    _loop.Monitor = NeverStops
    x, ys, *_ = screen(n_maps, N_CELLS, N_DIMS, 0)
    started = time.perf_counter()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "solver.fit", UserWarning)
        solver.fit_many(
            x,
            ys,
            n_ensemble=n_ensemble,
            max_steps=max_steps,
            compilation=compilation,
            device=device,
            progress=False,
        )
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


@functools.cache
def warm(device: str) -> None:
    """The first call on a device loads kernels."""
    seconds_of(1, 1, device, 2)


def measure(n_maps: int, n_ensemble: int, on: str, compilation: str) -> dict[str, object]:
    """Seconds a step, and whole maps a second with the default number of steps."""
    warm(on)
    few, many = FEW_OF_GPU, MANY_OF_GPU
    if on == "cpu":
        few, many = FEW, max(MANY, FEW + NETWORK_STEPS // (n_maps * n_ensemble))
    short, long = (
        min(seconds_of(n_maps, n_ensemble, on, steps, compilation) for _ in range(2)) for steps in (few, many)
    )
    step = max(long - short, 1e-9) / (many - few)
    steps = solver.Settings.for_cells(N_CELLS, N_DIMS, device=on, rng=0).max_steps
    beside = max(short - few * step, 0.0)
    return {
        "milliseconds_of_step": 1000 * step,
        "milliseconds_of_step_and_map": 1000 * step / n_maps,
        "seconds_beside_steps": beside,
        "maps_per_second": n_maps / (steps * step + beside),
        "seconds": short + long,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--n-maps", nargs="*", type=int, default=[1, 4, 16, 64])
    parser.add_argument("--n-ensemble", nargs="*", type=int, default=[1, 4])
    parser.add_argument("--compilation", nargs="*", default=["auto"], choices=["auto", "always", "never"])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quick", action="store_true", help="few maps, under two minutes")
    parser.add_argument("--fresh", action="store_true", help="measure again what the CSV holds")
    options = parser.parse_args()
    if options.quick:
        options.n_maps, options.n_ensemble = [1, 4], [1]
    torch.set_num_threads(options.threads)
    device = str(solver.resolve_device(options.device))
    cases = [
        {"n_maps": n_maps, "n_ensemble": n_ensemble, "on": device, "compilation": compilation}
        for compilation in options.compilation
        for n_ensemble in options.n_ensemble
        for n_maps in options.n_maps
    ]
    name = "gpu_quick" if options.quick else "gpu"
    table = run(name, cases, measure, fresh=options.fresh or options.quick)
    step = table.groupby(["compilation", "n_ensemble"])["milliseconds_of_step"]
    show(table.assign(times_first=np.round(table["milliseconds_of_step"] / step.transform("first"), 2)))


if __name__ == "__main__":
    main()
