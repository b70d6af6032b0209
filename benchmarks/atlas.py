"""Fit and move cells that do not fit into memory: a .zarr file of millions of cells is generated for it.

Each job runs in a new process and reports its peak memory beyond the interpreter with all imports. "generate" writes
the file in blocks. "fit" fits a map to each of the conditions, with predict=False, from samples of max_cells cells a
side. "transport" moves all cells of the file by one map into a new store.

With few training steps (column max_steps) the memory is that of a full fit, but the maps mean nothing.

    python benchmarks/atlas.py
    python benchmarks/atlas.py --n-cells 1000000 --max-steps 600 --folder /scratch
    python benchmarks/atlas.py --quick
"""

from __future__ import annotations

import argparse
import functools
import json
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import anndata
import dask
import numpy as np
import pandas as pd
import torch
import zarr
from _lib.rows import peak_memory, run, show
from anndata import AnnData
from anndata.experimental import read_lazy

import scot_hycnn as sh

N_DIMS, BLOCK = 50, 50_000
KEY = "hycnn_ot"


def generate(path: Path, *, n_cells: int, n_targets: int) -> None:
    """Write cells of a control and of n_targets conditions in random order; each condition moves in one direction."""
    rng = np.random.default_rng(0)
    codes = rng.integers(n_targets + 1, size=n_cells).astype(np.int8)
    labels = ["control", *(f"drug{number}" for number in range(n_targets))]
    obs = pd.DataFrame({"condition": pd.Categorical.from_codes(codes, labels)}, index=[f"c{i}" for i in range(n_cells)])
    root = zarr.open_group(path, mode="w", zarr_format=2)
    anndata.io.write_elem(root, "/", AnnData(obs=obs))
    shifts = np.concatenate([np.zeros((1, N_DIMS)), rng.normal(size=(n_targets, N_DIMS))]).astype(np.float32)
    scales = np.linspace(3, 0.5, N_DIMS, dtype=np.float32)
    for start in range(0, n_cells, BLOCK):
        labelled = codes[start : start + BLOCK]
        values = rng.standard_normal((len(labelled), N_DIMS), dtype=np.float32)
        values = scales * (values + shifts[labelled] * (values[:, :1] > 0))
        if start == 0:
            anndata.io.write_elem(root["obsm"], "X_rep", values, dataset_kwargs={"chunks": (BLOCK, N_DIMS)})
        else:
            root["obsm/X_rep"].append(values)
    zarr.consolidate_metadata(root.store)


def fit(path: Path, *, n_targets: int, max_cells: int, max_steps: int) -> None:
    """Fit all conditions from the file, and keep the maps beside it."""
    adata = read_lazy(path)
    targets = [f"drug{number}" for number in range(n_targets)]
    sample = {"max_cells": max_cells, "max_steps": max_steps or None}
    sh.tl.hycnn_ot(adata, "control", targets, groupby="condition", use_rep="X_rep", predict=False, **sample)
    AnnData(uns={KEY: adata.uns[KEY]}).write_h5ad(path.parent / "maps.h5ad")


def transport(path: Path, *, output: Path) -> None:
    """Move every cell of the file by the first map."""
    fitted = anndata.read_h5ad(path.parent / "maps.h5ad")
    # A short training may keep the Gaussian map, but the time of the networks is what counts.
    next(iter(fitted.uns[KEY]["models"].values()))["blend"] = 1.0
    adata = read_lazy(path)
    everyone = np.ones(adata.n_obs, dtype=bool)
    sh.tl.transport(adata, target="drug0", model=fitted, mask_obs=everyone, output=output)


JOBS = {"generate": generate, "fit": fit, "transport": transport}
BEFORE = {"fit": "generate", "transport": "fit"}


def child(job: str, path: str, arguments: str, threads: int) -> None:
    """Run one job in this process and print what it took."""
    torch.set_num_threads(threads)
    dask.config.set(num_workers=threads)
    warnings.simplefilter("ignore", UserWarning)  # zarr format 2, and cells without a fingerprint of a PCA
    before, started = peak_memory(), time.perf_counter()
    JOBS[job](Path(path), **json.loads(arguments))
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "extra_mib": peak_memory() - before, "imports_mib": before}))


def measure(
    job: str, n_cells: int, n_targets: int, max_cells: int, max_steps: int, *, folder: Path, threads: int
) -> dict[str, object]:
    """Run one job on one file in a new process."""
    path = folder / f"{n_cells}.zarr"
    made = {"generate": path, "fit": folder / "maps.h5ad"}
    before = BEFORE.get(job)
    if before and not made[before].exists():  # the CSV holds its row, from another run
        measure(before, n_cells, n_targets, max_cells, max_steps, folder=folder, threads=threads)
    arguments: dict[str, object] = {
        "generate": {"n_cells": n_cells, "n_targets": n_targets},
        "fit": {"n_targets": n_targets, "max_cells": max_cells, "max_steps": max_steps},
        "transport": {"output": str(folder / "moved.zarr")},
    }[job]
    command = [sys.executable, __file__, "--child", job, str(path), json.dumps(arguments), "--threads", str(threads)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    measured = json.loads(done.stdout.splitlines()[-1])
    if job == "transport":
        check(path, folder / "moved.zarr")
        shutil.rmtree(folder / "moved.zarr")
    return measured | {"cells_per_second": n_cells / measured["seconds"] if job != "fit" else ""}


def check(path: Path, output: Path) -> None:
    """Check that every cell has moved, and that its displacement is the distance."""
    before, after = read_lazy(path), read_lazy(output)
    rows = np.sort(np.random.default_rng(1).choice(before.n_obs, 1000, replace=False))
    moved, x = (np.asarray(table[rows]) for table in (after.obsm[f"X_{KEY}_drug0"], before.obsm["X_rep"]))
    length = np.asarray(after.obs[f"{KEY}_displacement_drug0"])
    np.testing.assert_allclose(np.linalg.norm(moved - x, axis=1), length[rows], rtol=1e-4)
    assert np.isfinite(length).all()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n-cells", type=int, default=5_000_000)
    parser.add_argument("--n-targets", type=int, default=20)
    parser.add_argument("--max-cells", type=int, default=100_000)
    parser.add_argument("--max-steps", type=int, default=0, help="0 takes the fit's default")
    parser.add_argument("--folder", type=Path, help="where the file goes; a temporary folder by default")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quick", action="store_true", help="few cells, conditions and steps, under two minutes")
    parser.add_argument("--fresh", action="store_true", help="measure again what the CSV holds")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(*options.child, threads=options.threads)
        return
    if options.quick:
        options.n_cells, options.n_targets, options.max_cells, options.max_steps = 50_000, 3, 5_000, 20
    columns = ("n_cells", "n_targets", "max_cells", "max_steps")
    cases = [{"job": job} | {name: getattr(options, name) for name in columns} for job in JOBS]
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        measured = functools.partial(measure, folder=Path(folder), threads=options.threads)
        show(run("atlas_quick" if options.quick else "atlas", cases, measured, fresh=options.fresh or options.quick))


if __name__ == "__main__":
    main()
