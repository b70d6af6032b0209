"""Predict the treated cells of a group that was never seen treated: a cell type, a lineage, or a donor.

Every group is held out in turn, in both conditions; the map is fitted on the others with leave_out="groups", which
chooses among simple maps and networks by leaving out groups of these. So the group held out takes no part in any choice
(nested). Scores are energy distances (unbiased) of the moved to the observed cells, of at most 1,000 cells each, which
are other random ones for the rungs (without cells far from all others) than for the chosen map. The rows of the rungs
are of the maps without choice, fitted on the other groups; "chosen" is the map that the fit returns: with closed forms
alone, or with networks too ("with networks"), and "fallback" the same map with fallback=True. "groups farther" are
those where the chosen map is farther than no change by more than two standard errors (bootstrap over cells). Synthetic
donors have their own baselines and a shared response, the same baseline and their own responses, or no response. Needs
SCOT_HYCNN_DATA, the folder of the data, for the real ones.

    python benchmarks/unseen.py
    python benchmarks/unseen.py --networks kang_ifnb
    python benchmarks/unseen.py --quick
"""

from __future__ import annotations

import argparse
import functools

import numpy as np
import pandas as pd
from _lib.held_out_cells import LINEAGES, RESPONSES, left_out, types_of
from _lib.rows import run, show
from scipy.spatial.distance import cdist

from scot_hycnn import metrics, solver

DONORS = ("own baselines", "own responses", "no response")
N_DONORS, N_CELLS, N_DIMS = 8, 200, 10
N_SEEDS = 4
# Cells that are scored of each condition.
MAX_CELLS = 1000
CHOSEN, FALLBACK, WITH_NETWORKS = "chosen", "chosen, fallback", "chosen, with networks"
# Types one by one, and lineages.
OF_LINEAGES = {f"{response}_lineages": response for response in RESPONSES}
SETTINGS = (*RESPONSES, *OF_LINEAGES, *DONORS)
N_BOOTSTRAP = 50
NO_CHANGE = "no change"

Cells = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]


@functools.lru_cache(maxsize=1)
def donors(setting: str, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return source and target cells of synthetic donors, and the donor of each cell."""
    rng = np.random.default_rng(seed)
    baselines = rng.normal(size=(N_DONORS, N_DIMS)) * (0.0 if setting == "own responses" else 2.0)
    responses = np.tile(rng.normal(size=N_DIMS) * (0.0 if setting == "no response" else 0.6), (N_DONORS, 1))
    if setting == "own responses":
        responses = responses + 0.3 * rng.normal(size=(N_DONORS, N_DIMS))
    root = np.eye(N_DIMS) + 0.3 * rng.normal(size=(N_DIMS, N_DIMS)) / np.sqrt(N_DIMS)
    x, y = rng.normal(size=(2, N_DONORS, N_CELLS, N_DIMS)) @ root + baselines[:, None]
    of_cells = np.repeat([f"donor {k}" for k in range(N_DONORS)], N_CELLS)
    return x.reshape(-1, N_DIMS), (y + responses[:, None]).reshape(-1, N_DIMS), of_cells


def cells_of(setting: str, group: str, seed: int) -> Cells:
    """Return source and target cells to fit on, those of the group held out, and the labels of the former."""
    if setting not in DONORS:
        held = left_out(OF_LINEAGES.get(setting, setting), group)
        return held.x, held.y, held.x_held, held.y_held, held.labels
    x, y, of_cells = donors(setting, seed)
    is_held = of_cells == group
    return x[~is_held], y[~is_held], x[is_held], y[is_held], (of_cells[~is_held],) * 2


@functools.lru_cache(maxsize=1)
def scores(setting: str, group: str, seed: int) -> dict[str, float]:
    """Return the energy distance of each rung, and of the rung that a fit with closed forms chooses, on a group."""
    x, y, x_held, y_held, labels = cells_of(setting, group, seed)
    fitted = solver.fit(x, y, groups=labels, leave_out="groups", potential="gaussian", rng=seed)
    # All groups, so that each rung is scored on this group by maps that are fitted without it.
    everyone = solver.fit(
        np.concatenate([x, x_held]),
        np.concatenate([y, y_held]),
        groups=tuple(np.append(of, [group] * len(part)) for of, part in zip(labels, (x_held, y_held), strict=True)),
        leave_out="groups",
        potential="gaussian",
        rng=seed,
    ).validation
    # A group has no score if too few of its cells are left without those that lie far from all others.
    groups = list(everyone["ladder_groups"])
    if group not in groups:
        return dict.fromkeys((*RUNGS, CHOSEN, FALLBACK, "farther"), float("nan")) | {"winner": ""}
    column = groups.index(group)
    rungs = {
        str(name): float(value)
        for name, value in zip(everyone["ladder"], everyone["ladder_energy_distance"][:, column], strict=True)
        if not str(name).startswith("average of")
    }
    chosen, farther = distance(fitted, x_held, y_held)
    fallback, _ = distance(fitted, x_held, y_held, fallback=True)
    return rungs | {CHOSEN: chosen, FALLBACK: fallback, "farther": farther, "winner": fitted.validation["winner"]}


def distance(
    fitted: solver.TransportMap, x_held: np.ndarray, y_held: np.ndarray, *, fallback: bool = False
) -> tuple[float, float]:
    """Return the energy distance of the moved cells of a new group to its observed ones.

    Also return by how many standard errors it is larger than that of the cells as they are.
    """
    rng = np.random.default_rng(0)
    around = fitted.around(x_held.mean(axis=0)) if fitted.centres else fitted
    x, y = (rng.permutation(cells)[:MAX_CELLS] for cells in (x_held, y_held))
    moved = around.transport(x, fallback=fallback).astype(float)
    # The target's own spread is the same for both.
    apart = 2 * (cdist(moved, y) - cdist(x, y)), cdist(moved, moved) - cdist(x, x)
    more = []
    for _ in range(N_BOOTSTRAP):
        w, v = (rng.multinomial(len(cells), np.full(len(cells), 1 / len(cells))) / len(cells) for cells in (x, y))
        more.append(w @ apart[0] @ v - w @ apart[1] @ w)
    mean = apart[0].mean() - apart[1].sum() / (len(x) * (len(x) - 1))
    return float(metrics.energy_distance(moved, y)), float(mean / np.std(more))


def measure(setting: str, group: str, method: str, seed: int) -> dict[str, object]:
    """Score one method on one group."""
    if method != WITH_NETWORKS:
        found = scores(setting, group, seed)
        of_chosen = {"winner": found["winner"], "farther": found["farther"]}
        return {"error": found[method]} | (of_chosen if method == CHOSEN else {"winner": "", "farther": float("nan")})
    x, y, x_held, y_held, labels = cells_of(setting, group, seed)
    fitted = solver.fit(x, y, groups=labels, leave_out="groups", rng=seed)
    error, farther = distance(fitted, x_held, y_held)
    return {"error": error, "winner": fitted.validation["winner"], "farther": farther}


RUNGS = (
    NO_CHANGE, "half of the shift", "half of the centred shift", "half of the Gaussian map",
    "half of the centred Gaussian map", "shrunk centred shift", "shift", "centred shift", "Gaussian map",
    "centred Gaussian map", "regression over groups", "Gaussian map with regression over groups",
)  # fmt: skip


def groups_of(setting: str) -> list[str]:
    """Return the names of the groups that are held out one after the other."""
    if setting in DONORS:
        return [f"donor {k}" for k in range(N_DONORS)]
    return list(LINEAGES[RESPONSES[OF_LINEAGES[setting]][0]]) if setting in OF_LINEAGES else types_of(setting)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--settings", nargs="+", default=SETTINGS, choices=SETTINGS)
    parser.add_argument("--networks", nargs="*", default=[], help="settings that are also fitted with networks")
    parser.add_argument("--seeds", type=int, default=N_SEEDS, help="seeds of synthetic donors")
    parser.add_argument("--quick", action="store_true", help="one synthetic setting and seed")
    parser.add_argument("--fresh", action="store_true", help="measure everything again")
    arguments = parser.parse_args()
    settings, seeds = (DONORS[:1], 1) if arguments.quick else (arguments.settings, arguments.seeds)
    cases = [
        {"setting": setting, "group": group, "method": method, "seed": seed}
        for setting in settings
        for seed in range(seeds if setting in DONORS else 1)
        for group in groups_of(setting)
        for method in (*RUNGS, CHOSEN, FALLBACK, *([WITH_NETWORKS] if setting in arguments.networks else []))
    ]
    table = run("unseen", cases, measure, fresh=arguments.fresh)
    means = table.pivot_table(index="setting", columns="method", values="error", aggfunc="mean", sort=False)
    chosen = table[table["method"] == CHOSEN].set_index(["setting", "group", "seed"])["error"]
    farther = table[table["method"] == CHOSEN].set_index("setting")["farther"].astype(float) > 2
    summary = pd.DataFrame(
        {
            "no change": means[NO_CHANGE],
            "best rung": means[list(RUNGS)].min(axis=1),
            "which": means[list(RUNGS)].idxmin(axis=1),
            **{name: means[name] for name in (CHOSEN, FALLBACK, WITH_NETWORKS) if name in means},
            "groups": chosen.groupby("setting", sort=False).size(),
            "groups farther": farther.groupby("setting", sort=False).sum(),
        }
    )
    show(summary.reset_index())


if __name__ == "__main__":
    main()
