"""Predict real cells that were held out: in folds, a cell type at a time, and beside other packages at equal seconds.

The part "folds" measures the energy distance of transported held-out controls to held-out treated cells, in five folds
that are stratified by cell type and condition. All fits know the cell types, and treated cells are weighted so that
each type has the proportion that it has among the controls: treated cells of the experiments have other proportions,
and a map that matches those would carry cells into other types. Column energy_distance_all is without weights, and
kept_group the part of the moved cells whose type is that of most of the 15 nearest treated cells. "groups" holds out
all cells of a type, in both conditions, and scores mean expression: the prediction is control + mean(T(x) - x) PCs, as
it is and with negative means set to 0 (genes cannot have them). "peers" measures other packages on the folds after
seconds of training on one core, as in speed.py; they get treated cells drawn in the proportions of the controls.
The PCA and everything else is fitted on training cells. Energy distances are unbiased: 0 is perfect. 'floor' is the
distance of the training target cells. 'floor_mean' adds the sampling error of both means, from which a map takes its
shift: no map can be expected below it. Needs SCOT_HYCNN_DATA, the folder of the data.

    python benchmarks/cells.py
    python benchmarks/cells.py --parts groups --responses kang_ifnb
    taskset -c 0 python benchmarks/cells.py --parts --peers
    python benchmarks/cells.py --quick
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from _lib.held_out_cells import GROUPS, N_FOLDS, RESPONSES, Held, fold, left_out
from _lib.known_maps import Cells
from _lib.methods import Transport, check_peers, fit, train_peer
from _lib.rows import run, show
from scipy.spatial.distance import cdist
from scipy.stats import ttest_ind
from sklearn.neighbors import KNeighborsClassifier

from scot_hycnn import metrics, solver

# Name of a row, and how it is fitted. Fits with groups give each group the same proportion in both conditions.
NETWORKS = {"hycnn_ot": "hycnn/amortized", "icnn": "icnn/amortized", "paper": "hycnn/paper"}
BASELINES = ("identity", "mean_shift", "gaussian")
FOLDS_METHODS = ("floor", "floor_mean", *BASELINES, "hycnn_ot", "icnn")
# The word after the slash names what the blend is chosen on; '+fallback' is the Gaussian map far from training cells.
GROUPS_METHODS = (
    *BASELINES, "gaussian_weighted", "hycnn_ot/groups", "hycnn_ot/groups+fallback", "hycnn_ot/cells",
    "hycnn_ot/cells+fallback", "icnn/groups", "icnn/cells", "paper",
)  # fmt: skip
PEERS = ("ot-cfm", "ott-enot", "entropic-mean")
# The other package gets axes of unit variance.
STANDARDISED = "+standardised"
BUDGETS = (15.0, 30.0, 60.0)
N_TOP = 50
N_BOOTSTRAP = 20
N_NEIGHBORS = 15
MAX_CELLS = 4000  # treated training cells of the replicate
MIN_OF_TYPE = 10  # held-out cells of a type in each condition; rarer types are not scored


def spread(held: Held, moved: Cells, labels: np.ndarray | None = None) -> dict[str, float]:
    """Score how well moved cells, (n, d) with labels, agree with the observed ones in the same composition."""
    of_x, of_y = held.labels_held
    labels = of_x if labels is None else labels
    if not np.isfinite(moved).all():
        return {"energy_distance": float("inf"), "trace_ratio": float("nan")}
    scores = {
        "energy_distance_all": metrics.energy_distance(moved, held.y_held),
        "trace_ratio": metrics.trace_ratio(moved, held.y_held),
    }
    names = [name for name in np.unique(of_x) if min((of_x == name).sum(), (of_y == name).sum()) >= MIN_OF_TYPE]
    scores |= {"energy_distance": scores["energy_distance_all"]}
    if len(names) > 1:
        share = {name: (of_x == name).mean() for name in names}
        a, b = (weights_of(part, share) for part in (labels, of_y))
        between, within = a @ cdist(moved, held.y_held) @ b, [within_of(moved, a), within_of(held.y_held, b)]
        scores["energy_distance"] = float(2 * between - sum(within))
        nearest = KNeighborsClassifier(N_NEIGHBORS).fit(held.y_held, of_y).predict(moved)
        scores["kept_group"] = float(a @ (nearest == labels))
    return scores


def weights_of(labels: np.ndarray, share: dict[str, float]) -> np.ndarray:
    """Return weights of cells, with sum 1, that give each type a share; 0 for other types."""
    weights = np.zeros(len(labels))
    for name, part in share.items():
        weights[labels == name] = part / (labels == name).sum()
    return weights / weights.sum()


def within_of(cells: Cells, weights: np.ndarray) -> float:
    """Return the mean distance of two different cells, as a U-statistic with weights."""
    return float(weights @ cdist(cells, cells) @ weights / (1 - weights @ weights))


def means(held: Held, moved: Cells) -> dict[str, float]:
    """Score the prediction of mean expression; for genes also without negative means, and of the most changed ones."""
    before, after = held.control.mean(0), held.observed.mean(0)
    predicted = before + (moved - held.x_held).mean(0) @ held.loadings
    genes = len(before) > N_TOP
    t = np.nan_to_num(ttest_ind(held.observed, held.control, equal_var=False).statistic) if genes else None
    scores = {}
    for suffix, mean in {"": predicted, "_clipped": np.maximum(predicted, 0)}.items():
        if suffix and not genes:
            continue
        scores[f"pearson_delta{suffix}"] = _correlation(mean - before, after - before)
        scores[f"r2_mean{suffix}"] = _correlation(mean, after) ** 2
        if genes:
            top = np.argsort(-np.abs(t), kind="stable")[:N_TOP]
            scores[f"r2_top{N_TOP}{suffix}"] = _correlation(mean[top], after[top]) ** 2
    return scores


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a, b)[0, 1]) if np.ptp(a) > 1e-6 else float("nan")


def baseline(method: str, held: Held) -> Cells:
    """Return the moved cells of a baseline that needs no training; the shift is the mean over types of the controls."""
    if method == "identity":
        return held.x_held
    of_x, of_y = held.labels
    share = {name: (of_x == name).mean() for name in np.intersect1d(of_x, of_y)}
    return held.x_held + weights_of(of_y, share) @ held.y - weights_of(of_x, share) @ held.x


def floor_of_means(held: Held, rng: int) -> dict[str, float]:
    """Return the floor with the sampling error of both means: a bootstrap within types, as folds are stratified."""
    generator = np.random.default_rng(rng)

    def error(cells: Cells, labels: np.ndarray) -> np.ndarray:
        types = [np.flatnonzero(labels == label) for label in np.unique(labels)]
        drawn = np.concatenate([generator.choice(rows, len(rows)) for rows in types])
        return cells[drawn].mean(0) - cells.mean(0)

    scores = [
        spread(held, held.y + error(held.y, held.labels[1]) - error(held.x, held.labels[0]), held.labels[1])
        for _ in range(N_BOOTSTRAP)
    ]
    return {name: float(np.mean([score[name] for score in scores])) for name in scores[0]}


def measure_fold(response: str, fold_number: int, method: str, max_steps: int | None, seed: int) -> dict[str, object]:
    """Fit on four folds and score the fifth."""
    held = fold(response, fold_number)
    # CPU seconds, so that other programs on the machine do not count.
    started = time.process_time()
    if method.startswith("floor"):
        some = np.random.default_rng(fold_number).permutation(len(held.y))[:MAX_CELLS]
        held = replace(held, y=held.y[some], labels=(held.labels[0], held.labels[1][some]))
    if method == "floor_mean":
        return floor_of_means(held, rng=seed)
    if method == "floor":
        return spread(held, held.y, held.labels[1])
    if method in ("identity", "mean_shift"):
        return spread(held, baseline(method, held))
    options = {"groups": held.labels, "max_steps": max_steps}
    fitted = fit(NETWORKS.get(method, method), held.x, held.y, rng=fold_number + seed, **options)
    seconds = time.process_time() - started
    return spread(held, fitted.transport(held.x_held)) | _report(fitted) | {"seconds": seconds}


@functools.lru_cache(maxsize=1)
def _fit_groups(
    response: str, group: str, name: str, leave_out: str, *, max_steps: int | None, seed: int
) -> solver.TransportMap:
    held = left_out(response, group)
    options = {"groups": held.labels, "leave_out": leave_out} if leave_out else {}
    return fit(NETWORKS.get(name, name), held.x, held.y, rng=seed, max_steps=max_steps, **options)


def measure_group(response: str, group: str, method: str, max_steps: int | None, seed: int) -> dict[str, object]:
    """Fit on the other cell types and score this one."""
    held = left_out(response, group)
    fitted = None
    if method in ("identity", "mean_shift"):
        moved, seconds = baseline(method, held), 0.0
    else:
        method, _, fallback = method.partition("+")
        name, _, leave_out = method.partition("/")
        if method == "gaussian_weighted":
            name, leave_out = "gaussian", "cells"
        # The rows with and without the fall-back share one fit.
        fitted = _fit_groups(response, group, name, leave_out, max_steps=max_steps, seed=seed)
        # A centred map acts around the mean of the source cells.
        around = fitted.around(held.x_held.mean(axis=0)) if fitted.centres else fitted
        moved, seconds = around.transport(held.x_held, fallback=bool(fallback)), fitted.params["seconds"]
    return means(held, moved) | spread(held, moved) | _report(fitted) | {"seconds": seconds}


def _report(fitted: solver.TransportMap | None) -> dict[str, object]:
    return {} if fitted is None else {"blend": fitted.blend, "steps": fitted.params["n_steps"]}


@functools.lru_cache(maxsize=1)
def looks(
    response: str, fold_number: int, method: str, marks: tuple[float, ...]
) -> tuple[list[dict[str, float]], float]:
    """Train another package's method once; return its scores at the marks, and the seconds of compilation."""
    held = fold(response, fold_number)
    method, _, standardised = method.partition("+")
    shift, scale = np.zeros(held.x.shape[1]), 1.0
    if standardised:
        both = np.concatenate([held.x, held.y])
        shift, scale = both.mean(0), both.std(0)
    of_x, of_y = held.labels
    share = {name: (of_x == name).mean() for name in np.intersect1d(of_x, of_y)}
    drawn = np.random.default_rng(fold_number).choice(len(held.y), len(held.y), p=weights_of(of_y, share))
    x, y, x_held = (((cells - shift) / scale).astype(np.float32) for cells in (held.x, held.y[drawn], held.x_held))
    seen: list[dict[str, float]] = []

    def look(seconds: float, steps: int, transport: Transport) -> None:
        moved = np.asarray(transport(x_held)) * scale + shift
        seen.append(spread(held, moved) | {"seconds": seconds, "steps": steps})

    return seen, train_peer(method, x, y, look, marks=marks, rng=fold_number)


def measure_peer(
    response: str, fold_number: int, method: str, budget: float, marks: tuple[float, ...]
) -> dict[str, object]:
    """Return the scores that a method reaches in a budget of seconds."""
    seen, compiling = looks(response, fold_number, method, marks)
    return next((row for row in seen if row["seconds"] >= budget), seen[-1]) | {"compile_seconds": compiling}


def measure(
    part: str,
    response: str,
    held_out: str,
    method: str,
    budget: float,
    *,
    seed: int,
    max_steps: int | None,
    marks: tuple,
) -> dict[str, object]:
    """Measure one row of any part."""
    if part == "groups":
        return measure_group(response, held_out, method, max_steps, seed)
    number = int(held_out.removeprefix("fold "))
    if part == "folds":
        return measure_fold(response, number, method, max_steps, seed)
    return measure_peer(response, number, method, budget, marks)


def cases(options: argparse.Namespace) -> list[dict[str, object]]:
    """Return the rows to measure."""
    found = []
    for response in options.responses:
        folds = [f"fold {number}" for number in range(options.folds)]
        groups = [group for group in GROUPS[response] if options.groups is None or group in options.groups]
        for part, held_out, methods, budgets in (
            ("folds", folds, FOLDS_METHODS, [0.0]),
            ("groups", groups, GROUPS_METHODS, [0.0]),
            ("peers", folds, (*PEERS, *(f"{peer}{STANDARDISED}" for peer in PEERS)), options.budgets),
        ):
            found += [
                {"part": part, "response": response, "held_out": name, "method": method, "budget": budget, "seed": seed}
                for seed in range(1 if part == "peers" else options.seeds)
                for name in held_out
                for method in methods
                for budget in budgets
                if part in options.parts and (options.methods is None or method in options.methods)
            ]
    return found


def summary(table: pd.DataFrame, keys: list[str], columns: list[str]) -> pd.DataFrame:
    """Return mean and standard deviation of some columns over the folds or types."""
    table = table.assign(**{column: pd.to_numeric(table.get(column), errors="coerce") for column in columns})
    grouped = table.groupby(keys, sort=False)
    wide = grouped[columns].mean()
    wide.insert(1, f"sd_{columns[0]}", grouped[columns[0]].std())
    wide.insert(0, "n", grouped.size())
    return wide.reset_index()


def main() -> None:
    options = arguments()
    if "SCOT_HYCNN_DATA" not in os.environ:
        sys.exit("Set SCOT_HYCNN_DATA to the folder that holds kang_ifnb.h5ad and bodenmiller_cytof.h5ad.")
    if "peers" in options.parts:
        check_peers(PEERS)
    torch.set_num_threads(options.threads)
    name = "cells_quick" if options.quick else "cells"
    measured: Callable[..., dict[str, object]] = functools.partial(
        measure, max_steps=40 if options.quick else None, marks=tuple(options.budgets)
    )
    table = run(name, cases(options), measured, fresh=options.fresh or options.quick)
    columns = ["energy_distance", "energy_distance_all", "kept_group", "trace_ratio", "blend", "steps", "seconds"]
    for part, rows in table.groupby("part", sort=False):
        if part == "groups":
            genes = [f"{score}{end}" for end in ("", "_clipped") for score in ("pearson_delta", "r2_mean", "r2_top50")]
            show(summary(rows, ["response", "method"], [*genes, *columns]))
        else:
            show(summary(rows, ["response", "method", *(["budget"] if part == "peers" else [])], columns))


def arguments() -> argparse.Namespace:
    """Read the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="*", default=["folds", "groups"], choices=["folds", "groups", "peers"])
    parser.add_argument("--peers", action="store_true", help="also what needs the extra 'bench'; one thread")
    parser.add_argument("--responses", nargs="*", default=list(RESPONSES), choices=list(RESPONSES))
    parser.add_argument("--folds", type=int, default=N_FOLDS, help="more than five: of other divisions into five")
    parser.add_argument("--seeds", type=int, default=1, help="seeds of each fit; other folds are other seeds as well")
    parser.add_argument("--groups", nargs="*", help="cell types to leave out; all by default")
    parser.add_argument("--methods", nargs="*", help="all by default")
    parser.add_argument("--budgets", nargs="*", type=float, default=list(BUDGETS), help="seconds, for the peers")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quick", action="store_true", help="one fold, one type, few steps, under two minutes")
    parser.add_argument("--fresh", action="store_true", help="measure again what the CSV holds")
    options = parser.parse_args()
    if options.quick:
        options.responses, options.folds, options.groups, options.budgets = ["kang_ifnb"], 1, ["B"], [2.5]
        options.peers = all(map(importlib.util.find_spec, ("ott", "torchcfm")))
    if options.peers:
        options.parts, options.threads = [*options.parts, "peers"], 1
    return options


if __name__ == "__main__":
    main()
