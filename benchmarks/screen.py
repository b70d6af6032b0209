"""Fit many conditions at once: what a batch saves, which options suit few cells, and a whole screen.

The part "choices" measures the error with few cells a side, for members, steps, batch and network: the squared error of
maps of known truth, the energy distance of held-out real cells, both in units of the Gaussian map's error (below 1 is
better). "batch" compares the seconds of 16 conditions in one call and one after the other. "screen" fits 200 conditions
in one call, PBMCs with planted responses of all sizes (a fifth have none), and measures seconds, memory, and the error
against the truth and against the Gaussian map. "workers" fits 16 conditions on a Dask cluster of one and two processes.

    python benchmarks/screen.py
    python benchmarks/screen.py --parts choices --n-cells 500 --choices 4x600/256/48x4 4x300/128/48x4
    python benchmarks/screen.py --quick
"""

from __future__ import annotations

import argparse
import functools
import os
import time

import numpy as np
import pandas as pd
import torch
from _lib.rows import peak_memory, run, show
from selection import RESPONSES, SYNTHETIC, cells

from scot_hycnn import datasets, metrics, solver

# Rows of screen.csv name the start of the conjugates as it was called when they were measured.
CONJUGATES = {"predicted": "amortized", "remembered": "cached"}
# Candidates by name: members x steps / batch / widths.
CHOICES = (
    "4x600/256/48x4", "4x300/256/48x4", "4x600/128/48x4", "4x300/128/48x4", "2x600/256/48x4", "2x600/128/48x4",
    "4x600/128/32x3", "4x300/128/32x3", "8x300/128/32x3",
)  # fmt: skip
TASKS = ("sign-10", "cubic-20", "logsumexp-10", "planted", "w2-16", "w2-32")
REAL = ("kang_ifnb", "bodenmiller_pma", "bodenmiller_bcr")
N_CONDITIONS, N_CELLS, N_DIMS = 200, 500, 30
BATCH_STEPS = 200  # the ratio of seconds does not depend on them


def options_of(choice: str) -> dict[str, object]:
    """Return the options of a fit by a name of CHOICES or CONJUGATES; 'default' has none."""
    if choice == "default":
        return {}
    if choice in CONJUGATES:
        return {"conjugates": CONJUGATES[choice]}
    training, batch, network = choice.split("/")
    (members, steps), (width, depth) = (map(int, part.split("x")) for part in (training, network))
    return {"n_ensemble": members, "max_steps": steps, "batch_size": int(batch), "hidden": (width,) * depth}


def measure_choice(task: str, n_cells: int, choice: str, seed: int) -> dict[str, object]:
    """Return the error of one choice with few cells, in units of the Gaussian map's error."""
    x, y, error = cells(task, seed)
    rows = np.random.default_rng(seed)
    x, y = (cloud[rows.permutation(len(cloud))[:n_cells]] for cloud in (x, y))
    fitted = solver.fit(x, y, rng=seed, progress=False, **options_of(choice))
    errors = {"error": error(fitted), "gaussian": error(fitted.gaussian_map())}
    return errors | {
        "relative": errors["error"] / errors["gaussian"],
        "blend": fitted.blend,
        "seconds": fitted.params["seconds"],
    }


@functools.cache
def pbmcs(n_cells: int) -> tuple[np.ndarray, np.ndarray]:
    """Return untreated PBMCs in 30 principal components, and their cell types."""
    adata = datasets.pbmc_planted(2 * n_cells, rng=0)
    control = (adata.obs["condition"] == "control").to_numpy()
    return adata.obsm["X_pca"][control].astype(float), adata.obs["cell_type"].to_numpy().astype(str)[control]


def condition(number: int, points: np.ndarray, labels: np.ndarray) -> datasets.LogSumExpPotential:
    """Make a response: a part of the cells of some types moves, in one direction for each type; a fifth have none."""
    generator = np.random.default_rng(number)
    vectors, offsets = [np.zeros(points.shape[1])], [0.0]
    n_moving = 0 if number % 5 == 0 else generator.integers(1, 4)
    for label in generator.choice(np.unique(labels), n_moving, replace=False):
        cells = points[labels == label]
        towards = cells.mean(0) - points.mean(0) + generator.normal(size=points.shape[1]) * points.std(0)
        direction, distance = towards / np.linalg.norm(towards), generator.uniform(1, 12)
        vectors.append(distance * direction)
        offsets.append(distance * float(np.quantile(cells @ direction, generator.uniform(0.2, 0.8))))
    return datasets.LogSumExpPotential(np.array(vectors), np.array(offsets), 3.0, quadratic=1.0)


def screen(n_conditions: int, n_cells: int, n_dims: int, seed: int) -> tuple[np.ndarray, list, np.ndarray, list]:
    """Return source cells, target cells of each condition, other source cells, and where these truly go."""
    points, labels = pbmcs(12_000)
    generator = np.random.default_rng(seed)
    x, held = (points[generator.choice(len(points), n_cells)] for _ in range(2))
    responses = [condition(number, points, labels) for number in range(n_conditions)]
    ys = [response.transport(points[generator.choice(len(points), n_cells)]) for response in responses]
    truth = [response.transport(held) for response in responses]

    def in_dims(cells: np.ndarray) -> np.ndarray:
        # Components beyond the thirtieth are noise that nothing moves.
        return np.hstack([cells, generator.normal(size=(n_cells, max(n_dims - cells.shape[1], 0)))])[:, :n_dims]

    x, held, ys = in_dims(x), in_dims(held), [in_dims(y) for y in ys]
    moving = min(n_dims, points.shape[1])
    moved = [np.hstack([target[:, :moving], held[:, moving:]]) for target in truth]
    return x, ys, held, moved


def measure_screen(n_conditions: int, n_cells: int, n_dims: int, choice: str, seed: int) -> dict[str, object]:
    """Fit all conditions in one call."""
    x, ys, held, truth = screen(n_conditions, n_cells, n_dims, seed)
    before, started = peak_memory(), time.perf_counter()
    maps = solver.fit_many(x, ys, rng=seed, progress=None, **options_of(choice))
    seconds, after = time.perf_counter() - started, peak_memory()
    error, gaussian = (
        np.array([metrics.map_mse(one.transport(held), moved) for one, moved in zip(fits, truth, strict=True)])
        for fits in (maps, [fitted.gaussian_map() for fitted in maps])
    )
    spread = np.array([y.var(0).sum() for y in ys])
    return {
        "seconds": seconds,
        "megabytes": after - before,
        "megabytes_of_process": after,
        "error": (error / spread).mean(),
        "gaussian": (gaussian / spread).mean(),
        "n_networks": sum(fitted.blend > 0 for fitted in maps),
        "n_above_gaussian": int((error > 1.02 * gaussian).sum()),
        "worst_to_gaussian": (error / gaussian).max(),
    }


def measure_batch(n_conditions: int, n_cells: int, n_dims: int, choice: str, seed: int) -> dict[str, object]:
    """Compare the seconds of one call and of as many single fits."""
    x, ys, *_ = screen(n_conditions, n_cells, n_dims, seed)
    options = {"max_steps": BATCH_STEPS} | ({"n_ensemble": 1} if choice == "single" else {})
    started = time.perf_counter()
    together = solver.fit_many(x, ys, rng=seed, **options)
    middle = time.perf_counter()
    alone = [solver.fit(x, y, rng=seed, **options) for y in ys]
    ended = time.perf_counter()
    difference = [np.abs(a.transport(x) - b.transport(x)).mean() for a, b in zip(together, alone, strict=True)]
    return {
        "seconds": middle - started,
        "seconds_of_single_fits": ended - middle,
        "ratio": (middle - started) / (ended - middle),
        "mean_difference": float(np.mean(difference)),
        "same_blend": sum(a.blend == b.blend for a, b in zip(together, alone, strict=True)),
    }


def measure_workers(n_conditions: int, n_cells: int, n_dims: int, choice: str, seed: int) -> dict[str, object]:
    """Return the seconds of one call on a running cluster of processes with one thread each."""
    from distributed import Client, LocalCluster  # extra 'dask'

    n_workers = int(choice.split(maxsplit=1)[0])
    x, ys, *_ = screen(n_conditions, n_cells, n_dims, seed)
    with (
        LocalCluster(n_workers=n_workers, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster) as on,
    ):
        on.wait_for_workers(n_workers)
        on.run(solver.fit, x, ys[0], max_steps=2, progress=False)  # imports
        started = time.perf_counter()
        solver.fit_many(x, ys, rng=seed, client=on, progress=False)
        return {"seconds": time.perf_counter() - started}


def measure(part: str, task: str, n_cells: int, choice: str, seed: int) -> dict[str, object]:
    """Measure one row of any part; all parts but "choices" have tasks of the form conditions x dimensions."""
    if part == "choices":
        return measure_choice(task, n_cells, choice, seed)
    n_conditions, n_dims = map(int, task.split("x"))
    measured = {"screen": measure_screen, "batch": measure_batch, "workers": measure_workers}[part]
    return measured(n_conditions, n_cells, n_dims, choice, seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    tasks = [*TASKS, *REAL] if "SCOT_HYCNN_DATA" in os.environ else [task for task in TASKS if task in SYNTHETIC]
    parser.add_argument("--parts", nargs="*", default=["choices", "batch", "screen", "workers"])
    parser.add_argument("--tasks", nargs="*", default=tasks, choices=[*TASKS, *RESPONSES])
    parser.add_argument("--n-cells", nargs="*", type=int, default=[500], help="cells a side, for the choices")
    parser.add_argument("--choices", nargs="*", default=[*CONJUGATES, *CHOICES])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quick", action="store_true", help="few conditions and cells, under two minutes")
    parser.add_argument("--fresh", action="store_true", help="measure again what the CSV holds")
    options = parser.parse_args()
    parts = {
        "batch": [("16x50", 2000, choice) for choice in ("single", "default")],
        "screen": [(f"{N_CONDITIONS}x{N_DIMS}", N_CELLS, "default")],
        "workers": [(f"16x{N_DIMS}", N_CELLS, f"{n} workers") for n in (1, 2)],
    }
    if options.quick:
        options.tasks, options.choices, options.seeds = ["logsumexp-10"], ["4x300/128/32x3"], 1
        parts = {"batch": [("4x10", 200, "single")], "screen": [("8x10", 200, "default")], "workers": []}
    torch.set_num_threads(options.threads)
    parts["choices"] = [
        (task, n, choice) for task in options.tasks for n in options.n_cells for choice in options.choices
    ]
    cases = [
        {"part": part, "task": task, "n_cells": n_cells, "choice": choice, "seed": seed}
        for part in options.parts
        for task, n_cells, choice in parts[part]
        for seed in range(options.seeds if part == "choices" else 1)
    ]
    table = run("screen_quick" if options.quick else "screen", cases, measure, fresh=options.fresh or options.quick)
    for part, rows in table.groupby("part", sort=False):
        if part == "choices":
            few = rows.assign(**{name: pd.to_numeric(rows[name]) for name in ("relative", "seconds")})
            mean = few.pivot_table(values="relative", index=["n_cells", "choice"], columns="task", sort=False)
            seconds = few.groupby(["n_cells", "choice"], sort=False)["seconds"].mean()
            show(pd.concat([mean, mean.mean(axis=1).rename("mean"), seconds], axis=1).reset_index())
        else:
            show(rows.dropna(axis=1, how="all"))


if __name__ == "__main__":
    main()
