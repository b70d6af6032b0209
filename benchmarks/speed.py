"""Measure the error against seconds of training, every method on the same machine, and draw docs/speed.png.

Our methods are fitted once for each budget, and the whole fit counts. The other methods train once, and their clock
stops while they compile and while their map is scored. Seconds are those of one core (CPU time), so that other programs
on the machine do not count.

    taskset -c 0 python benchmarks/speed.py
    python benchmarks/speed.py --tasks w2-16 --methods hycnn/amortized hycnn/paper
    python benchmarks/speed.py --quick
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import time
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from _lib.known_maps import Clouds, closed_form, w2_benchmark
from _lib.methods import ALL_CELLS, EPSILONS, PEERS, check_peers, fit, ours, score, train_peer
from _lib.rows import run, show
from _lib.speed_figure import draw
from _lib.timing import seconds_and_rate

from scot_hycnn import metrics

BUDGETS = (1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 120.0)
AS_IT_COMES = 0.0  # the budget of a fit with its default number of steps
HERO, RIVAL = "hycnn/amortized", "hycnn/paper"
HURRIED = f"{HERO}/1"  # one network: what to take when there is little time
OURS = (
    HURRIED,
    *ours(["hycnn", "icnn-relu", "icnn-quadratic"], ["amortized"]),
    *ours(["hycnn"], ["minimax", "w2gn", "enot", "paper"]),
)
OTHERS = (*EPSILONS, ALL_CELLS, *PEERS[1:])
# What is measured, and on how many cells.
TASKS = {"w2-16": ("L2-UVP, %", 20_000), "scale-50": ("squared error", 5000)}


@functools.cache
def read(task: str, seed: int) -> Clouds:
    """Return the cells of a task."""
    name, dim = task.split("-")
    n = TASKS[task][1]
    return w2_benchmark(int(dim), n) if name == "w2" else closed_form(name, int(dim), n, seed)


def error(task: str, seed: int, transport: Callable[[np.ndarray], np.ndarray]) -> float:
    """Return the error of a map on the test cells."""
    *_, x_test, y_test = read(task, seed)
    return score(metrics.l2_uvp if task.startswith("w2") else metrics.map_mse, transport(x_test), y_test)


def timed_fit(task: str, method: str, seed: int, max_steps: int | None) -> tuple[float, object]:
    """Return the seconds of a fit, and its map."""
    x, y, *_ = read(task, seed)
    started = time.process_time()
    fitted = fit(method, x, y, rng=seed, max_steps=max_steps)
    return time.process_time() - started, fitted


@functools.cache
def cost(task: str, method: str) -> tuple[float, float]:
    """Return the seconds that a fit takes beside its steps, and its steps a second."""
    return seconds_and_rate(lambda n_steps: timed_fit(task, method, 0, n_steps))


@functools.cache
def looks(task: str, method: str, seed: int, marks: tuple[float, ...]) -> tuple[list[dict[str, float]], float]:
    """Train another package's method once; return its errors at the marks, and the seconds of compilation."""
    x, y, *_ = read(task, seed)
    seen: list[dict[str, float]] = []

    def look(seconds: float, steps: int, transport: Callable[[np.ndarray], np.ndarray]) -> None:
        seen.append({"seconds": seconds, "steps": steps, "error": error(task, seed, transport)})

    return seen, train_peer(method, x, y, look, marks=marks, rng=seed)


def measure(task: str, method: str, seed: int, budget: float, marks: tuple[float, ...]) -> dict[str, object]:
    """Return the error that a method reaches in a budget of seconds."""
    if method in OTHERS:
        seen, compiling = looks(task, method, seed, marks)
        row = next((row for row in seen if row["seconds"] >= budget), seen[-1])
        return row | {"compile_seconds": compiling}
    if method == "gaussian" or budget == AS_IT_COMES:
        max_steps = None
    else:
        beside, rate = cost(task, method)
        max_steps = max(round((budget - beside) * rate), 10)
    seconds, fitted = timed_fit(task, method, seed, max_steps)
    steps, blend = fitted.params["n_steps"], fitted.blend
    return {"seconds": seconds, "steps": steps, "error": error(task, seed, fitted.transport), "blend": blend}


def compare(table: pd.DataFrame, task: str, budgets: list[float]) -> None:
    """Print how much sooner our method has the paper's final error, and whether it leads at every budget."""
    rows = table[table["task"] == task].astype({"budget": float})
    mine = rows[rows["method"].isin([HERO, HURRIED])]
    final = rows[(rows["method"] == RIVAL) & (rows["budget"] == AS_IT_COMES)]
    if not mine.empty and not final.empty:
        reached = mine.loc[mine["error"] <= final["error"].iloc[0], "seconds"].min()
        ratio = final["seconds"].iloc[0] / reached
        print(
            f"{task}: {RIVAL} ends at {final['error'].iloc[0]:.4g} after {final['seconds'].iloc[0]:.3g} s; {HERO} is "
            f"there after {reached:.3g} s: {ratio:.3g}x sooner"
        )
    for budget in budgets:
        # The better of our two settings that ended in time.
        best_of_ours = mine[mine["seconds"] <= 1.05 * budget].nsmallest(1, "error")["error"]
        # The best map that any other method had until then, although without the truth nobody could choose it.
        # An entropic map of all cells has its first map after a minute.
        in_time = (rows["budget"] <= budget) & (rows["seconds"] <= 1.5 * budget)
        rivals = rows[in_time & rows["method"].isin(OTHERS)]
        if not rivals.empty and not best_of_ours.empty:
            best = rivals.loc[rivals["error"].idxmin()]
            error_of_ours = best_of_ours.item()
            verdict = "ahead" if error_of_ours < best["error"] else "BEHIND"
            print(
                f"{task}, {budget:g} s: {error_of_ours:.4g} against {best['error']:.4g} ({best['method']}): {verdict}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="*", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--methods", nargs="*", default=["gaussian", *OURS, *OTHERS])
    parser.add_argument("--budgets", nargs="*", type=float, default=list(BUDGETS), help="seconds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="one task, few methods, 2.5 s each, under two minutes")
    parser.add_argument("--fresh", action="store_true", help="measure again what the CSV holds")
    options = parser.parse_args()
    if options.quick:
        options.tasks, options.budgets = ["scale-50"], [1.0, 2.5]
        peers = ["ott-enot"] if importlib.util.find_spec("ott") else []
        options.methods = ["gaussian", *OURS, *peers]
    check_peers(options.methods)
    torch.set_num_threads(1)
    cases = []
    for task in options.tasks:
        for method in options.methods:
            budgets = [AS_IT_COMES] if method == "gaussian" else options.budgets
            if method in OURS and not options.quick:
                budgets = [AS_IT_COMES, *budgets]
            cases += [{"task": task, "method": method, "seed": options.seed, "budget": float(b)} for b in budgets]
    name = "speed_quick" if options.quick else "speed"
    table = run(
        name,
        cases,
        functools.partial(measure, marks=tuple(options.budgets)),
        fresh=options.fresh or options.quick,
    )
    show(table[["task", "method", "budget", "steps", "seconds", "error"]])
    for task in options.tasks:
        compare(table, task, options.budgets)
    if not options.quick:
        draw(table, {task: TASKS[task][0] for task in options.tasks}, AS_IT_COMES)


if __name__ == "__main__":
    main()
