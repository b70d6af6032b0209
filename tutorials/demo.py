"""Predict the response of PBMCs whose true response is known, and compare with simple baselines.

`make demo` runs this. It writes demo/pbmc_predicted.h5ad and demo/transport.png.
"""

from __future__ import annotations

import time
from pathlib import Path

import pandas as pd
import scanpy as sc

import scot_hycnn as sh

SOURCE, TARGET = "control", "IFN-beta"
FOLDER = Path("demo")


def main() -> None:
    """Fit, compare, write and draw."""
    adata = sh.datasets.pbmc_planted()
    print(f"{adata.n_obs} PBMCs, half of them with a planted response called {TARGET!r}, whose truth is known.\n")

    started = time.perf_counter()
    sh.tl.hycnn_ot(adata, SOURCE, TARGET, group_key="cell_type")
    seconds = time.perf_counter() - started

    print(compare(adata).to_string(float_format=lambda value: f"{value:.3f}"))
    blend = sh.get.model(adata).blend
    print(f"\nFitted in {seconds:.0f} s; the blend is {blend} (0 is the Gaussian map, 1 the networks).")

    FOLDER.mkdir(exist_ok=True)
    sc.pp.neighbors(adata, random_state=0)
    sc.tl.umap(adata, random_state=0)
    axes = sh.pl.transport(adata, basis="umap", color="cell_type", show=False)
    axes.figure.savefig(FOLDER / "transport.png", dpi=150, bbox_inches="tight")
    adata.write_h5ad(FOLDER / "pbmc_predicted.h5ad", compression="gzip")
    print(f"Wrote {FOLDER / 'pbmc_predicted.h5ad'} and {FOLDER / 'transport.png'}.")


def compare(adata: sc.AnnData) -> pd.DataFrame:
    """Return the errors of HyCNN-OT and of the baselines against the planted truth, on the control cells."""
    is_source = (adata.obs["condition"] == SOURCE).to_numpy()
    x, y = adata.obsm["X_pca"][is_source], adata.obsm["X_pca"][~is_source]
    truth = adata.obsm["X_planted"][is_source]
    predictions = {
        "identity": x,
        "mean shift": x + y.mean(0) - x.mean(0),
        "Gaussian map": sh.solver.fit(x, y, potential="gaussian").transport(x),
        "HyCNN-OT": adata.obsm["X_hycnn_ot"][is_source],
    }
    return pd.DataFrame(
        {
            name: {
                "squared error": sh.metrics.map_mse(predicted, truth),
                "L2-UVP %": sh.metrics.l2_uvp(predicted, truth),
                "energy distance": sh.metrics.energy_distance(predicted, y),
                "trace ratio": sh.metrics.trace_ratio(predicted, y),
            }
            for name, predicted in predictions.items()
        }
    ).T


if __name__ == "__main__":
    main()
