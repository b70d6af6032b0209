"""Predict the treated cells of a new donor, of whom there are control cells of several types, in own proportions.

Every donor is held out in turn; maps with a closed form are fitted on the others. The score is the energy distance
(unbiased) of predicted to observed cells of each type with ten of both, the mean over types by the square root of their
shares. Routes: leave_out="donor" with group_key="cell_type" ("donors left out, types balanced"), and with
leave_out="groups" the groups are donors, types, or a column that joins both; "shift of each type" is the mean change of
the type over the other donors. Donors are those of pbmc_planted, or normal clouds with baselines; their types move by
one shift ("shared"), each type by its own ("types"), with a strength for each donor ("strength"), or not at all
("none"); the response of "shared, strength" is one shift with a strength for each donor. With own proportions a random
part of each type is missing in each donor and condition.

With --means the scores are those of sh.get.deg with leave_out="donor" on the types of the donor held out, with and
without the correction: the squared error of the mean changes relative to no change, their Pearson correlation, R² of
the means, and the share of genes whose error is below two predicted standard deviations, by type and for all types.

    python benchmarks/new_donor.py
    python benchmarks/new_donor.py --means
    python benchmarks/new_donor.py --quick
"""

from __future__ import annotations

import argparse
import functools

import anndata
import numpy as np
import pandas as pd
from _lib.rows import run, show

import scot_hycnn as sh
from scot_hycnn import metrics, solver

SETTINGS = ("planted, equal proportions", "planted", "shared", "types", "strength", "none", "shared, strength")
COLUMNS = {"donors left out, types balanced": (0, 1), "donor": (0,), "cell type": (1,), "joined": (2,)}
ROUTES = ("no change", "shift", "shift of each type", *COLUMNS)
N_DONORS, N_TYPES, N_CELLS, N_DIMS = 7, 5, 50, 10
MIN_CELLS = 10

Cells = tuple[np.ndarray, np.ndarray, np.ndarray]


@functools.lru_cache(maxsize=1)
def sampled(setting: str, seed: int) -> anndata.AnnData:
    """Return cells of donors, with the columns donor, cell_type and treated, and their coordinates in X_pca."""
    rng = np.random.default_rng(seed)
    if setting.startswith("planted"):
        adata = sh.datasets.pbmc_planted(n_cells=4000, n_donors=N_DONORS, rng=seed)
        adata.obs["treated"] = (adata.obs["condition"] != "control").to_numpy()
    else:
        shape = (N_DONORS, N_TYPES, 2, N_CELLS)
        donor, kind, treated = (index.ravel() for index in np.indices(shape)[:3])
        treated = treated.astype(bool)
        root = np.eye(N_DIMS) + 0.3 * rng.normal(size=(N_DIMS, N_DIMS)) / np.sqrt(N_DIMS)
        baselines, profiles = 2.0 * rng.normal(size=(N_DONORS, N_DIMS)), 3.0 * rng.normal(size=(N_TYPES, N_DIMS))
        moves = 0.8 * rng.normal(size=(N_TYPES, N_DIMS)) * (setting != "none")
        moves = np.tile(moves[0], (N_TYPES, 1)) if setting.startswith("shared") else moves
        strength = np.exp(0.4 * rng.normal(size=N_DONORS)) if setting.endswith("strength") else np.ones(N_DONORS)
        cells = rng.normal(size=(len(donor), N_DIMS)) @ root + baselines[donor] + profiles[kind]
        cells += (treated * strength[donor])[:, None] * moves[kind]
        obs = pd.DataFrame({"treated": treated}, index=np.arange(len(cells)).astype(str))
        obs["donor"], obs["cell_type"] = [f"donor {k}" for k in donor], [f"type {k}" for k in kind]
        adata = anndata.AnnData(cells, obs=obs, obsm={"X_pca": cells})
    kept = np.ones(adata.n_obs, dtype=bool)
    if setting != SETTINGS[0]:
        samples = adata.obs["donor"].astype(str) + ", " + adata.obs["cell_type"].astype(str)
        samples = (samples + adata.obs["treated"].astype(str)).to_numpy(dtype=str)
        for sample in np.unique(samples):
            rows = rng.permutation(np.flatnonzero(samples == sample))
            kept[rows[int(rng.beta(1.5, 1) * len(rows)) :]] = False
    return adata[kept].copy()


def donors(setting: str, seed: int) -> Cells:
    """Return cells, (n, d); donor, type and both of each cell, (n, 3); and whether it is treated, (n,)."""
    adata = sampled(setting, seed)
    columns = [adata.obs[name].to_numpy(dtype=str) for name in ("donor", "cell_type")]
    joined = np.char.add(np.char.add(columns[0], ", "), columns[1])
    return adata.obsm["X_pca"].astype(float), np.stack([*columns, joined], axis=1), adata.obs["treated"].to_numpy()


def predicted(route: str, cells: np.ndarray, labels: np.ndarray, treated: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Return the predicted cells of the held-out donor, of all cells ``held`` that are controls."""
    x, y, of_x, of_y = (part[~held & of] for part in (cells, labels) for of in (~treated, treated))
    new, of_new = cells[held & ~treated], labels[held & ~treated]
    if route == "no change":
        return new
    if route == "shift":
        return new + y.mean(axis=0) - x.mean(axis=0)
    if route == "shift of each type":
        moved = new.copy()
        for kind in np.unique(of_new[:, 1]):
            changes = [
                y[of_y[:, 2] == sample].mean(axis=0) - x[of_x[:, 2] == sample].mean(axis=0)
                for sample in np.unique(of_x[of_x[:, 1] == kind, 2])
                if min((of_x[:, 2] == sample).sum(), (of_y[:, 2] == sample).sum()) >= MIN_CELLS // 2
            ]
            moved[of_new[:, 1] == kind] += np.mean(changes, axis=0) if changes else 0.0
        return moved
    columns = COLUMNS[route]
    groups = [of[:, columns] if len(columns) > 1 else of[:, columns[0]] for of in (of_x, of_y)]
    fitted = solver.fit(x, y, groups=tuple(groups), leave_out="groups", potential="gaussian")
    if not fitted.centres:
        return fitted.transport(new).astype(float)
    moved = np.empty_like(new)
    kinds, codes = np.unique(of_new[:, columns[-1]], return_inverse=True)
    centres, counts = np.stack([new[codes == k].mean(axis=0) for k in range(len(kinds))]), np.bincount(codes)
    around = ()
    if fitted.baselines is not None:
        around = (fitted.baselines.of_unit(centres, counts, kinds),)
    for k, centre in enumerate(centres):
        moved[codes == k] = fitted.around(centre - sum(around), *around).transport(new[codes == k])
    return moved


def measure(setting: str, donor: str, route: str, seed: int) -> dict[str, object]:
    """Score one route on one donor."""
    cells, labels, treated = donors(setting, seed)
    held = labels[:, 0] == donor
    moved = predicted(route, cells, labels, treated, held)
    of_new, observed, of_observed = labels[held & ~treated, 1], cells[held & treated], labels[held & treated, 1]
    errors, weights = [], []
    for kind in np.unique(of_new):
        one, other = moved[of_new == kind], observed[of_observed == kind]
        if min(len(one), len(other)) >= MIN_CELLS:
            errors.append(metrics.energy_distance(one, other))
            weights.append(np.sqrt(len(one) / len(moved) + len(other) / len(observed)))
    return {"error": float(np.average(errors, weights=weights))}


def measure_means(setting: str, donor: str, seed: int) -> dict[str, object]:
    """Score the means of genes of the types of one donor, with and without the correction."""
    adata, rep = sampled(setting, seed).copy(), "X"
    sh.pp.split(adata, groupby="donor", holdout=donor)
    if setting.startswith("planted"):
        rep = "X_train"
        sh.pp.pca(adata, 30, split_key="split", key_added=rep)
    adata.obs["condition"] = np.where(adata.obs["treated"], "drug", "control")
    options = {"group_key": "cell_type", "leave_out": "donor", "potential": "gaussian"}
    sh.tl.hycnn_ot(adata, "control", "drug", groupby="condition", use_rep=rep, split_key="split", **options)
    scores: dict[str, float] = {}
    for name, correction in (("without", None), ("with", "groups")):
        table = sh.get.deg(adata, groupby="cell_type", min_fraction=0, correction=correction).query("held_out")
        table = table[table[["n_source", "n_target"]].min(axis=1) >= MIN_CELLS // 2]
        error = table["predicted_change"] - table["observed_change"]
        scores[f"relative_error_{name}"] = float((error**2).sum() / (table["observed_change"] ** 2).sum())
        by_type = table.groupby("group", observed=True)
        pearson = by_type.apply(lambda one: one["predicted_change"].corr(one["observed_change"]))
        after = table[["predicted_change", "observed_change"]].add(table["source_mean"], axis=0)
        r2 = after.groupby(table["group"], observed=True).apply(lambda one: one.corr().iloc[0, 1] ** 2)
        scores |= {f"pearson_delta_{name}": float(pearson.mean()), f"r2_{name}": float(r2.mean())}
    varies = table["predicted_std"] > 0
    scores["within_2_std"] = float((error.abs() < 2 * table["predicted_std"])[varies].mean())
    top = table["predicted_change"].abs().groupby(table["group"], observed=True).rank(ascending=False) <= 50
    scores["within_2_std_top50"] = float((error.abs() < 2 * table["predicted_std"])[varies & top].mean())
    table = sh.get.deg(adata, min_fraction=0).query("predicted_std > 0")
    error = table["predicted_change"] - table["observed_change"]
    return scores | {"within_2_std_all": float((error.abs() < 2 * table["predicted_std"]).mean())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--settings", nargs="+", default=SETTINGS, choices=SETTINGS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--means", action="store_true", help="score means of genes instead of cells")
    parser.add_argument("--quick", action="store_true", help="one synthetic setting and seed")
    parser.add_argument("--fresh", action="store_true", help="measure everything again")
    arguments = parser.parse_args()
    settings, seeds = (["types"], [0]) if arguments.quick else (arguments.settings, arguments.seeds)
    cases = [
        {"setting": setting, "donor": donor, "seed": seed}
        for seed in seeds
        for setting in settings
        for donor in np.unique(donors(setting, seed)[1][:, 0])
    ]
    if arguments.means:
        table = run("new_donor_means", cases, measure_means, fresh=arguments.fresh)
        show(table.groupby("setting", sort=False).mean(numeric_only=True).drop(columns="seed").reset_index())
        show(table.pivot_table(index="setting", columns="seed", values="within_2_std", sort=False).reset_index())
        return
    cases = [case | {"route": route} for case in cases for route in ROUTES]
    table = run("new_donor", cases, measure, fresh=arguments.fresh)
    by_seed = table.pivot_table(index=["setting", "seed"], columns="route", values="error", sort=False)[list(ROUTES)]
    mean = by_seed.groupby("setting", sort=False).mean()
    show(mean.reset_index())
    show(by_seed.groupby("setting", sort=False).sem().reset_index())


if __name__ == "__main__":
    main()
