"""Ask on many random divisions whether a fit is ever farther from held-out cells than the Gaussian map.

Each row has the energy distance of both maps and a 95 % interval of their difference, from a bootstrap of the held-out
source and target cells. Of 20 intervals about one is expected to lie above 0 by chance where the maps are equally good.

    python benchmarks/splits.py
    python benchmarks/splits.py --quick
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from _lib.held_out_cells import N_FOLDS, RESPONSES, fold
from _lib.rows import run, show
from scipy.spatial.distance import cdist
from sklearn.decomposition import PCA

from scot_hycnn import metrics, solver

# Cells a side, genes, counts a cell and components of made-up sparse counts, of which most components are noise.
SPARSE = {
    "sparse 600": (600, 100, 60, 20),
    "sparse 2400": (2400, 100, 60, 20),
    "sparse 4800": (4800, 100, 60, 20),
    "sparse 3000, many components": (3000, 1000, 200, 50),
    "sparse 7500": (7500, 500, 300, 30),
}
HELD_OUT = 0.2
MOST_CELLS, N_DRAWS = 1000, 500


def sparse_counts(n_cells: int, n_genes: int, depth: int, n_pcs: int, seed: int) -> tuple[np.ndarray, ...]:
    """Return training cells x, y and held-out cells x, y of log-normalised counts, in principal components."""
    rng = np.random.default_rng(seed)
    expression = rng.lognormal(0, 1.5, n_genes)
    changed = expression * np.exp(np.where(rng.random(n_genes) < 0.1, rng.normal(size=n_genes), 0))
    sizes = rng.lognormal(np.log(depth), 0.4, (2, n_cells, 1))
    counts = [rng.poisson(size * mean / mean.sum()) for size, mean in zip(sizes, (expression, changed), strict=True)]
    logs = [np.log1p(part / np.maximum(part.sum(1, keepdims=True), 1) * 1e4) for part in counts]
    n_train = round(n_cells * (1 - HELD_OUT))
    pca = PCA(n_pcs, random_state=0).fit(np.concatenate([part[:n_train] for part in logs]))
    x, y = (pca.transform(part) for part in logs)
    return x[:n_train], y[:n_train], x[n_train:], y[n_train:]


def read(data: str, seed: int) -> tuple[np.ndarray, ...]:
    """Return training cells x, y and held-out cells x, y; seeds of real cells are divisions, all of different cells."""
    if data in SPARSE:
        return sparse_counts(*SPARSE[data], seed)
    held = fold(data, seed * N_FOLDS)
    return held.x, held.y, held.x_held, held.y_held


def difference(a: np.ndarray, b: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw the bootstrap of the energy distance of a to y minus that of b to y; rows of a and b are the same cells."""
    to_y, within = cdist(a, y) - cdist(b, y), cdist(a, a) - cdist(b, b)
    draws = []
    for _ in range(N_DRAWS):
        u = rng.multinomial(len(a), np.full(len(a), 1 / len(a))) / len(a)
        v = rng.multinomial(len(y), np.full(len(y), 1 / len(y))) / len(y)
        # Two copies of one cell have the distance 0: pairs of the same cell are left out of the mean.
        draws.append(2 * u @ to_y @ v - u @ within @ u / (1 - u @ u))
    return np.array(draws)


def measure(data: str, seed: int) -> dict[str, object]:
    """Fit both maps on the training cells, and compare them on the held-out ones."""
    x, y, x_held, y_held = read(data, seed)
    rng = np.random.default_rng(seed)
    x_held, y_held = (part[rng.permutation(len(part))[:MOST_CELLS]] for part in (x_held, y_held))
    started = time.process_time()
    fitted = solver.fit(x, y, rng=seed)
    seconds = time.process_time() - started
    moved = np.asarray(fitted.transport(x_held))
    gaussian = np.asarray(solver.fit(x, y, rng=seed, potential="gaussian").transport(x_held))
    draws = difference(moved, gaussian, y_held, rng)
    low, high = np.quantile(draws, [0.025, 0.975])
    return {
        "hycnn_ot": float(metrics.energy_distance(moved, y_held)),
        "gaussian": float(metrics.energy_distance(gaussian, y_held)),
        "difference_low": float(low),
        "difference_high": float(high),
        "outcome": fitted.outcome,
        "seconds": round(seconds, 2),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="*", default=[*RESPONSES, *SPARSE], choices=[*RESPONSES, *SPARSE])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="600 sparse cells, one seed")
    parser.add_argument("--fresh", action="store_true", help="measure again what the CSV holds")
    options = parser.parse_args()
    data, n_seeds = (["sparse 600"], 1) if options.quick else (options.data, options.seeds)
    cases = [{"data": name, "seed": seed} for name in data for seed in range(n_seeds)]
    table = run("splits_quick" if options.quick else "splits", cases, measure, fresh=options.fresh or options.quick)
    show(table)
    print(f"clearly farther than the Gaussian map: {(table['difference_low'] > 0).sum()} of {len(table)} fits")


if __name__ == "__main__":
    main()
