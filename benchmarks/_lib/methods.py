"""Fit the methods that the benchmarks compare, by name.

Names of our methods are 'potential/solver', or 'potential/solver/1' for one network instead of the default ensemble.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence

import numpy as np
from _lib.known_maps import Cells, Clouds

from scot_hycnn import solver

Transport = Callable[[Cells], Cells]
BASELINES = ("identity", "gaussian")
PEERS = ("entropic", "monge-gap", "ott-enot", "ott-enot-1e-3", "ott-w2-icnn", "ott-w2-mlp")
# The HyCNN paper's grid for the entropic map, and a hundredth of the mean cost.
EPSILONS = {"entropic-0.1": 0.1, "entropic-1": 1.0, "entropic-10": 10.0, "entropic-mean": None}
# "entropic-mean" with up to 20,000 cells; the others have up to 5,000.
ALL_CELLS = "entropic-mean-all"
# Budget of a method of another package: seconds, or for the Monge gap the steps of the paper.
SECONDS, MONGE_STEPS = 60.0, 1000
# Learning rate for one network and little time: after 146 steps the error is 6 %, with the default rate 14 % (W2
# benchmark, D = 16).
HURRIED_RATE = 0.04
# The HyCNN paper compares its networks of width 48 with others of width 64.
WIDTHS = {"icnn": 64, "mlp": 64}


def ours(potentials: Sequence[str], solvers: Sequence[str]) -> list[str]:
    """Return the names of every potential with every training method."""
    return [f"{potential}/{method}" for method in solvers for potential in potentials]


def fit(
    method: str,
    x: Cells,
    y: Cells,
    *,
    rng: int,
    max_steps: int | None = None,
    n_ensemble: int | None = None,
    **options: object,
) -> solver.TransportMap:
    """Fit one of our methods."""
    if method == "gaussian":
        return solver.fit(x, y, potential="gaussian", rng=rng, **options)
    potential, training, *single = method.split("/")
    width = WIDTHS.get(potential.partition("-")[0])
    return solver.fit(
        x,
        y,
        potential=potential,
        solver=training,
        hidden=(width,) * 4 if width else None,
        max_steps=max_steps,
        n_ensemble=1 if single else n_ensemble,
        batch_size=256 if single else None,
        lr=HURRIED_RATE if single else None,
        rng=rng,
        progress=False,
        **options,
    )


def train_peer(
    method: str,
    x: Cells,
    y: Cells,
    seen: Callable[[float, int, Transport], None],
    *,
    marks: Sequence[float],
    rng: int,
    max_steps: int | None = None,
) -> float:
    """Train another package's method, pass its map to ``seen`` at the marks, and return the seconds of compilation."""
    from _lib import peers

    trainers = {
        "monge-gap": peers.monge_gap,
        "ott-enot": peers.enot,
        "ott-enot-1e-3": functools.partial(peers.enot, lr=1e-3),
        "ott-w2-icnn": peers.w2_icnn,
        "ott-w2-mlp": peers.w2_mlp,
        "ot-cfm": peers.ot_cfm,
        ALL_CELLS: functools.partial(peers.entropic, epsilon=None, n_cells=20_000),
        **{name: functools.partial(peers.entropic, epsilon=epsilon) for name, epsilon in EPSILONS.items()},
    }
    clock = peers.Clock(marks, seen, max_steps)
    trainers[method](peers.Problem(x, y, clock, rng))
    return clock.compiling


def check_peers(methods: Sequence[str]) -> None:
    """Raise before anything is measured if the extra 'bench' is missing."""
    if not {*PEERS, *EPSILONS, ALL_CELLS, "ot-cfm"}.isdisjoint(methods):
        from _lib import peers  # noqa: F401


def score(metric: Callable[[Cells, Cells], float], moved: Cells, truth: Cells) -> float:
    """Return the metric, or infinity if training diverged."""
    moved = np.asarray(moved)
    return metric(moved, truth) if np.isfinite(moved).all() else float("inf")


def error_after(
    method: str,
    clouds: Clouds,
    metric: Callable[[Cells, Cells], float],
    *,
    rng: int,
    n_ensemble: int | None = None,
    max_steps: int | None = None,
    times: float = 1.0,
) -> dict[str, object]:
    """Train any of the methods and score its map on test cells whose true images are known.

    A method of another package trains for SECONDS, the Monge gap for the 1,000 steps of the paper; the best of the
    entropic maps counts. ``times`` multiplies the default steps of our methods.
    """
    x, y, x_test, y_test = clouds
    if method == "identity":
        return {"error": score(metric, x_test, y_test), "seconds": 0.0}
    if method in PEERS:
        names = list(EPSILONS) if method == "entropic" else [method]
        rows: list[dict[str, object]] = []
        for name in names:
            train_peer(
                name,
                x,
                y,
                lambda seconds, steps, transport, name=name: rows.append(
                    {"error": score(metric, transport(x_test), y_test), "seconds": seconds, "steps": steps, "as": name}
                ),
                marks=(SECONDS,),
                rng=rng,
                max_steps=MONGE_STEPS if method == "monge-gap" else None,
            )
        return min(rows, key=lambda look: look["error"])
    if times != 1:
        default = fit(method, x, y, rng=rng, n_ensemble=n_ensemble, max_steps=max_steps).params["max_steps"]
        max_steps = round(times * default)
    # CPU seconds, so that other programs on the machine do not count.
    started = time.process_time()
    fitted = fit(method, x, y, rng=rng, n_ensemble=n_ensemble, max_steps=max_steps)
    seconds = time.process_time() - started
    error = score(metric, fitted.transport(x_test), y_test)
    return {"error": error, "blend": fitted.blend, "steps": fitted.params["n_steps"], "seconds": seconds}
