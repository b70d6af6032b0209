"""Real cells, held out: unbiased energy distance of transported controls to treated cells, in 5 folds.

Folds are stratified by cell type and condition; everything, PCA included, is fitted on the training folds. The data
sets are read from the folder that SCOT_HYCNN_DATA names.

    python benchmarks/real_cells.py
    python benchmarks/real_cells.py --quick
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
import time
import warnings
from pathlib import Path

import anndata
import numpy as np
import scanpy as sc
import torch
from _report import run, show
from sklearn.decomposition import PCA
from sklearn.model_selection import StratifiedKFold

from scot_hycnn import metrics, solver

N_FOLDS = 5
# Name of the response: file, source, target, principal components (0: the proteins themselves).
RESPONSES = {
    "kang_ifnb": ("kang_ifnb.h5ad", "control", "IFN-beta", 50),
    "bodenmiller_bcr": ("bodenmiller_cytof.h5ad", "unstimulated", "BCR/FcR-XL", 0),
    "bodenmiller_pma": ("bodenmiller_cytof.h5ad", "unstimulated", "PMA/Ionomycin", 0),
    "bodenmiller_vanadate": ("bodenmiller_cytof.h5ad", "unstimulated", "vanadate", 0),
}


@functools.cache
def read(file: str) -> anndata.AnnData:
    """One data set; counts are log-normalised by the library size of all genes."""
    adata = anndata.read_h5ad(Path(os.environ["SCOT_HYCNN_DATA"]) / file)
    if "total_counts_all_genes" in adata.obs:
        size = adata.obs["total_counts_all_genes"].to_numpy()[:, None]
        adata.X = np.log1p(adata.X.toarray() / size * 1e4).astype(np.float32)
    return adata


def fold(response: str, split: int, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training source and target, held-out source and target, in the representation of the training cells."""
    file, source, target, n_pcs = RESPONSES[response]
    adata = read(file)
    adata = adata[adata.obs["condition"].isin([source, target])]
    strata = adata.obs["condition"].astype(str) + adata.obs["cell_type"].astype(str)
    folds = StratifiedKFold(N_FOLDS, shuffle=True, random_state=split)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        train, test = list(folds.split(strata, strata))[number]
    cells = np.asarray(adata.X)
    if n_pcs:
        cells = PCA(n_pcs, random_state=0).fit(cells[train]).transform(cells)
    is_source = (adata.obs["condition"] == source).to_numpy()
    return tuple(cells[rows[is_source[rows] == wanted]] for rows in (train, test) for wanted in (True, False))


def measure(response: str, split: int, number: int, n_ensemble: int | None, max_steps: int | None) -> dict[str, object]:
    """Fit one fold and return the energy distances."""
    x, y, x_held, y_held = fold(response, split, number)
    started = time.perf_counter()
    fitted = solver.fit(x, y, n_ensemble=n_ensemble, max_steps=max_steps, rng=number)
    seconds = time.perf_counter() - started
    gaussian = solver.fit(x, y, potential="gaussian")
    return {
        "floor": metrics.energy_distance(y, y_held),
        "identity": metrics.energy_distance(x_held, y_held),
        "mean_shift": metrics.energy_distance(x_held + y.mean(0) - x.mean(0), y_held),
        "gaussian": metrics.energy_distance(gaussian.transport(x_held), y_held),
        "hycnn_ot": metrics.energy_distance(fitted.transport(x_held), y_held),
        "trace_ratio": metrics.trace_ratio(fitted.transport(x_held), y_held),
        "blend": fitted.blend,
        "seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--responses", nargs="*", default=list(RESPONSES), choices=list(RESPONSES))
    parser.add_argument("--splits", type=int, default=1, help="repetitions of the 5 folds")
    parser.add_argument("--n-ensemble", type=int, help="members; the default suits cells and dimensions")
    parser.add_argument("--max-steps", type=int, help="the default suits the members")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quick", action="store_true", help="one response, two folds, under two minutes")
    parser.add_argument("--fresh", action="store_true", help="measure again what the CSV holds")
    options = parser.parse_args()
    if "SCOT_HYCNN_DATA" not in os.environ:
        sys.exit("Set SCOT_HYCNN_DATA to the folder that holds kang_ifnb.h5ad and bodenmiller_cytof.h5ad.")
    n_folds = N_FOLDS
    if options.quick:
        options.responses, n_folds = ["kang_ifnb"], 2
    torch.set_num_threads(options.threads)
    sc.settings.verbosity = 0
    cases = [
        {
            "response": response,
            "split": split,
            "number": number,
            "n_ensemble": options.n_ensemble,
            "max_steps": options.max_steps,
        }
        for response in options.responses
        for split in range(options.splits)
        for number in range(n_folds)
    ]
    name = "real_cells_quick" if options.quick else "real_cells"
    table = run(name, cases, measure, fresh=options.fresh or options.quick)
    columns = ["floor", "identity", "mean_shift", "gaussian", "hycnn_ot", "trace_ratio", "blend", "seconds"]
    summary = table.groupby("response", sort=False)[columns].mean()
    summary["sd_over_folds"] = table.groupby("response")["hycnn_ot"].std()
    summary["ratio_to_gaussian"] = summary["hycnn_ot"] / summary["gaussian"]
    show(summary.reset_index())


if __name__ == "__main__":
    main()
