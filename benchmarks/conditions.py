"""Many conditions with few cells each: one model for all of them, against a fit of each one alone.

Synthetic pathways: each condition has a shift and three of eight nonlinear pathways that all conditions share
("shared"), or two that no other condition has ("own"); with "linear" it also has a linear response of its own. The
error is the mean squared distance to the true map, on new source cells, in units of the Gaussian map's. Real cells:
each condition has at most 100 treated cells, and the error is the energy distance of moved held-out source cells to
held-out treated cells. "adnet": one time of one protein is left out, and predicted by each rule. Real data are in the
folder that SCOT_HYCNN_DATA names.

    python benchmarks/conditions.py
    python benchmarks/conditions.py --settings "adnet 15" bodenmiller
    python benchmarks/conditions.py --quick
"""

from __future__ import annotations

import argparse
import functools
import os
from pathlib import Path

import anndata
import numpy as np
import scanpy as sc
from _lib.rows import peak_memory, processor_seconds, run, show, wide

from scot_hycnn import metrics, solver

# Conditions, cells of each, and dimensions; the name says whether pathways are shared.
SYNTHETIC = {
    "40 x 100, shared": (40, 100, 20),
    "40 x 100, shared, linear": (40, 100, 20),
    "16 x 300, shared": (16, 300, 20),
    "16 x 300, own": (16, 300, 20),
    "200 x 100, shared": (200, 100, 30),
    "quick, shared": (6, 60, 4),
}
REAL = ("bodenmiller", "kang")
# Conditions that are added to a fitted screen, and cells of each.
NEW, N_NEW, N_NEW_CELLS = "40 x 100, 200 new x 50", 200, 50
N_CELLS, MAX_HELD, MIN_HELD = 100, 500, 30
GAUSSIAN, OWN, SCREEN, FLOOR, NO_CHANGE = "Gaussian map", "own fits", "screen", "floor", "no change"
RULES = ("nearest", "interpolation", "additive", "kriging")
LEFT_OUT_MINUTES = (15.0, 30.0)

Array = np.ndarray


class Pathways:
    """Source cells of four populations, and conditions whose true maps are gradients of convex functions."""

    def __init__(self, n_conditions: int, n_cells: int, n_dims: int, *, shared: bool, linear: bool, seed: int) -> None:
        rng = np.random.default_rng(seed)
        n_pathways, n_active = (8, 3) if shared else (2 * n_conditions, 2)
        self._centres, self._scales = rng.normal(size=(4, n_dims)), rng.uniform(0.5, 1.1, size=(4, n_dims))
        directions = rng.normal(size=(n_pathways, 3, n_dims))
        self._directions = directions / np.linalg.norm(directions, axis=2, keepdims=True)
        self._offsets = 0.7 * rng.normal(size=(n_pathways, 3))
        self._strengths = np.zeros((n_conditions, n_pathways))
        for k, row in enumerate(self._strengths):
            active = rng.choice(n_pathways, 3, replace=False) if shared else [2 * k, 2 * k + 1]
            row[active] = rng.gamma(3.0, size=n_active)
        roots = 0.5 * rng.normal(size=(n_conditions, n_dims, 3)) / np.sqrt(n_dims)
        self._linear = 0.8 * np.eye(n_dims) + linear * roots @ roots.swapaxes(1, 2)
        self._shifts = 0.3 * rng.normal(size=(n_conditions, n_dims))
        self.x, self.new = self._draw(2000, rng), self._draw(2000, rng)
        self.ys = [self.move(k, self._draw(n_cells, rng)) for k in range(n_conditions)]

    def _draw(self, n: int, rng: np.random.Generator) -> Array:
        of = rng.integers(4, size=n)
        return self._centres[of] + self._scales[of] * rng.normal(size=(n, self._centres.shape[1]))

    def move(self, k: int, x: Array) -> Array:
        """Return the true map of condition k: linear, and gradients of soft maxima of three directions."""
        moved = x @ self._linear[k] + self._shifts[k]
        for r in np.flatnonzero(self._strengths[k]):
            slopes = (x @ self._directions[r].T + self._offsets[r]) / 0.3
            shares = np.exp(slopes - slopes.max(axis=1, keepdims=True))
            moved += self._strengths[k, r] * (shares / shares.sum(axis=1, keepdims=True)) @ self._directions[r]
        return moved

    def errors(self, maps: list[solver.TransportMap], first: int = 0) -> Array:
        """Return the squared error of the maps of conditions, from the first of them, and those of Gaussian maps."""
        truth = [self.move(k, self.new) for k in range(first, first + len(maps))]
        both = maps, [one.gaussian_map() for one in maps]
        return np.array(
            [[metrics.map_mse(one.transport(self.new), y) for one, y in zip(some, truth, strict=True)] for some in both]
        )


def fit(method: str, x: Array | list[Array], ys: list[Array], seed: int) -> list[solver.TransportMap]:
    """Return the map of each condition by a method."""
    options = {"rng": seed, "device": "cpu", "progress": False}
    if method == SCREEN:
        return solver.fit_screen(x, ys, **options).maps
    options |= {"potential": "gaussian"} if method == GAUSSIAN else {}
    if isinstance(x, list):
        return [solver.fit(source, y, **options) for source, y in zip(x, ys, strict=True)]
    return solver.fit_many(x, ys, **options)


def synthetic(setting: str, method: str, seed: int) -> dict[str, float]:
    """Return the error of a method in units of the Gaussian map's."""
    pathways = Pathways(*SYNTHETIC[setting], shared="shared" in setting, linear="linear" in setting, seed=seed)
    of_method, of_gaussian = pathways.errors(fit(method, pathways.x, pathways.ys, seed)).sum(axis=1)
    return {"error": of_method / of_gaussian}


def new_conditions(seed: int) -> dict[str, float]:
    """Return the error of conditions that a fitted screen has not seen, and in which part of them it is no larger."""
    n_conditions, n_cells, n_dims = SYNTHETIC["40 x 100, shared"]
    pathways = Pathways(n_conditions + N_NEW, n_cells, n_dims, shared=True, linear=False, seed=seed)
    options = {"device": "cpu", "rng": seed, "progress": False}
    model = solver.fit_screen(pathways.x, pathways.ys[:n_conditions], **options)
    new = [y[:N_NEW_CELLS] for y in pathways.ys[n_conditions:]]
    seconds = []
    for some in (new[:1], new):
        before = processor_seconds()
        screen = solver.fit_screen(pathways.x, some, model=model, **options)
        seconds.append((processor_seconds() - before) / len(some))
    of_method, of_gaussian = pathways.errors(screen.maps, n_conditions)
    return {
        "error": of_method.sum() / of_gaussian.sum(),
        "no_worse": (of_method <= of_gaussian).mean(),
        "seconds_one": seconds[0],
        "seconds_each": seconds[1],
    }


@functools.lru_cache(maxsize=1)
def cells_of(setting: str) -> tuple[Array, list[tuple[Array, Array]]]:
    """Return the representation, and the rows of source and treated cells of each condition."""
    folder = Path(os.environ["SCOT_HYCNN_DATA"])
    if setting == "bodenmiller":
        adata = anndata.read_h5ad(folder / "bodenmiller_cytof.h5ad")
        cells, control = np.asarray(adata.X, dtype=float), "unstimulated"
    else:
        adata, control = anndata.read_h5ad(folder / "kang_ifnb.h5ad"), "control"
        sc.pp.normalize_total(adata)
        sc.pp.log1p(adata)
        sc.pp.pca(adata, n_comps=20)
        cells = np.asarray(adata.obsm["X_pca"], dtype=float)
    condition, kind = adata.obs["condition"].astype(str), adata.obs["cell_type"].astype(str)
    pairs = []
    for stimulus in sorted(set(condition) - {control}):
        for one in sorted(set(kind)):
            rows = [np.flatnonzero((condition == label) & (kind == one)) for label in (control, stimulus)]
            if min(map(len, rows)) >= N_CELLS + MIN_HELD:
                pairs.append((rows[0], rows[1]))
    return cells, pairs


def real(setting: str, method: str, seed: int) -> dict[str, float]:
    """Return the mean energy distance over conditions with 100 treated cells each."""
    cells, pairs = cells_of(setting)
    rng = np.random.default_rng(seed)
    halves = {}
    for rows, _ in pairs:  # conditions of one type share their source cells
        if rows[0] not in halves:
            shuffled = cells[rng.permutation(rows)]
            halves[rows[0]] = np.split(shuffled, [min(len(shuffled) // 2, 1000)])
    treated = [np.split(cells[rng.permutation(rows)], [N_CELLS]) for _, rows in pairs]
    observed = [held[:MAX_HELD] for _, held in treated]
    held = [halves[rows[0]][1][:MAX_HELD] for rows, _ in pairs]
    if method == NO_CHANGE:
        moved = held
    else:
        maps = fit(method, [halves[rows[0]][0] for rows, _ in pairs], [train for train, _ in treated], seed)
        moved = [one.transport(x) for one, x in zip(maps, held, strict=True)]
    scores = [metrics.energy_distance(x, y) for x, y in zip(moved, observed, strict=True)]
    return {"error": float(np.mean(scores))}


def adnet(setting: str, method: str, seed: int) -> dict[str, float]:
    """Return the mean energy distance over proteins at a time that was left out of the fit, by a rule."""
    adata = anndata.read_h5ad(Path(os.environ["SCOT_HYCNN_DATA"]) / "adnet_egf.h5ad")
    cells, minutes = np.asarray(adata.X, dtype=float), adata.obs["minutes"].to_numpy(dtype=float)
    protein = adata.obs["protein"].astype(str).to_numpy()
    held = np.random.default_rng(seed).random(len(cells)) < 0.3
    time = float(setting.split()[1])

    def rows(name: str, at: float, *, is_held: bool) -> Array:
        return cells[(protein == name) & (minutes == at) & (held == is_held)][: MAX_HELD if is_held else None]

    scores = []
    for left_out in sorted(set(protein)):
        seen = [
            (name, at)
            for name in sorted(set(protein))
            for at in sorted(set(minutes) - {0.0})
            if (name, at) != (left_out, time)
        ]
        source, observed = rows(left_out, 0.0, is_held=True), rows(left_out, time, is_held=True)
        if method == NO_CHANGE:
            scores.append(metrics.energy_distance(source, observed))
            continue
        sources = {name: rows(name, 0.0, is_held=False) for name, _ in seen}
        screen = solver.fit_screen(
            [sources[name] for name, _ in seen],
            [rows(name, at, is_held=False) for name, at in seen],
            covariates={"protein": [name for name, _ in seen], "minutes": [at for _, at in seen]},
            potential="gaussian",
            device="cpu",
            rng=seed,
        )
        unseen, _ = screen.at({"protein": left_out, "minutes": time}, rule=method)
        scores.append(metrics.energy_distance(unseen.transport(source), observed))
    return {"error": float(np.mean(scores))}


def measure(setting: str, method: str, seed: int) -> dict[str, object]:
    """Return the error of a method, and what it costs: memory and processor time, whatever else the machine does."""
    before = processor_seconds()
    of_kind = synthetic if setting in SYNTHETIC else real if setting in REAL else adnet
    scores = new_conditions(seed) if setting == NEW else of_kind(setting, method, seed)
    return {**scores, "memory": round(peak_memory()), "processor_seconds": processor_seconds() - before}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    of_adnet = [f"adnet {minutes:g}" for minutes in LEFT_OUT_MINUTES]
    settings = [*SYNTHETIC, NEW, *REAL, *of_adnet]
    parser.add_argument("--settings", nargs="+", default=settings, choices=settings)
    parser.add_argument("--methods", nargs="+", help="only these methods")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="one small synthetic setting")
    parser.add_argument("--fresh", action="store_true", help="measure everything again")
    arguments = parser.parse_args()
    chosen = ["quick, shared"] if arguments.quick else arguments.settings
    cases = [
        {"setting": setting, "method": method, "seed": seed}
        for setting in chosen
        for method in (
            (NO_CHANGE, *RULES)
            if setting in of_adnet
            else (OWN, SCREEN)
            if setting in SYNTHETIC
            else (SCREEN,)
            if setting == NEW
            else (NO_CHANGE, GAUSSIAN, OWN, SCREEN)
        )
        for seed in range(1 if arguments.quick else arguments.seeds)
        if not arguments.methods or method in arguments.methods
    ]
    table = run("conditions", cases, measure, fresh=arguments.fresh)
    show(wide(table, ["setting"]).reset_index())


if __name__ == "__main__":
    main()
