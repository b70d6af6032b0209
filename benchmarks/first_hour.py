"""The first hour of a new user: twelve lines from the log-normalised counts of Kang's cells to verdict, genes, report.

The same lines are run on the file as it should be and on files as users have them: sorted, scaled, raw counts, other
types of matrices and of labels, genes that were taken out. Each case ends with scores on held-out cells, or with a
sentence that says what to do (column "said": the warnings of the log, those of Python, or the error).

kept_group is the share of predicted cells that lie among observed cells of their own group, in parts of the share that
observed cells reach. R² is that of the 50 genes that change most. The overlap counts the genes that are among the 50
with the largest scores, observed and predicted, of get.deg. "overlap of training" puts the observed change of the
training cells in place of the prediction: what a map that makes no error would reach with as many cells.
Needs SCOT_HYCNN_DATA, the folder of the data.

    python benchmarks/first_hour.py
    python benchmarks/first_hour.py --splits 3 --cases "as it should be" "highly variable genes, all kept"
    python benchmarks/first_hour.py --quick
"""

from __future__ import annotations

import argparse
import functools
import io
import json
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import scanpy as sc
from _lib.rows import run, show
from anndata import AnnData
from scipy import sparse

import scot_hycnn as sh

N_TOP = 50
SAME_COMPOSITION = "all, same composition"


def notebook(adata: AnnData, page: str, rng: int, **options: object) -> pd.DataFrame:
    """Run the lines that a new user writes, after those that import and read; return the changes of genes."""
    sh.pp.split(adata, stratify=["condition", "cell_type"], rng=rng)
    sh.pp.pca(adata, split_key="split")
    sh.tl.hycnn_ot(adata, "control", "IFN-beta", group_key="cell_type", split_key="split", **options)
    sh.tl.evaluate(adata)
    sh.get.evaluation(adata)
    genes = sh.get.deg(adata)
    sh.pl.deg(adata, return_fig=True)
    sh.pl.report(adata, page)
    return genes


@functools.cache
def _counts() -> AnnData:
    if "SCOT_HYCNN_DATA" not in os.environ:
        sys.exit("Set SCOT_HYCNN_DATA to the folder that holds kang_ifnb.h5ad.")
    return anndata.read_h5ad(Path(os.environ["SCOT_HYCNN_DATA"]) / "kang_ifnb.h5ad")


def log_normalised() -> AnnData:
    """Return the file as it should be: log1p of counts per 10,000 of all genes, sparse, rows as they were."""
    adata = _counts().copy()
    adata.uns.clear()
    size = adata.obs.pop("total_counts_all_genes").to_numpy()[:, None]
    adata.X = sparse.csr_matrix(adata.X.toarray() / size * 1e4, dtype=np.float32)
    sc.pp.log1p(adata)
    return adata


def _sorted_by(adata: AnnData, *columns: str) -> AnnData:
    return adata[adata.obs.sort_values([*columns]).index].copy() if columns else adata[np.sort(adata.obs_names)].copy()


def _variable(adata: AnnData, n_genes: int) -> AnnData:
    sc.pp.highly_variable_genes(adata, n_top_genes=n_genes)
    return adata


def _only_variable(adata: AnnData, n_genes: int, *, raw: bool = False) -> AnnData:
    adata.raw = adata if raw else None
    return _variable(adata, n_genes)[:, adata.var["highly_variable"]].copy()


def _scaled(adata: AnnData) -> AnnData:
    sc.pp.scale(adata, max_value=10)
    return adata


def _with(adata: AnnData, **changes: object) -> AnnData:
    for name, value in changes.items():
        setattr(adata, name, value)
    return adata


def _without_log1p(adata: AnnData) -> AnnData:
    del adata.uns["log1p"]
    return adata


def _categories(adata: AnnData) -> AnnData:
    """Give both columns categories in another order, one of which has no cells."""
    for name in ("condition", "cell_type"):
        adata.obs[name] = adata.obs[name].cat.add_categories("unused")
        adata.obs[name] = adata.obs[name].cat.reorder_categories(adata.obs[name].cat.categories[::-1])
    return adata


def _integers(adata: AnnData) -> AnnData:
    adata.obs["cell_type"] = adata.obs["cell_type"].cat.codes.astype(int)
    return adata


# How a file looks, made from the file as it should be.
CASES: dict[str, Callable[[AnnData], AnnData]] = {
    "as it should be": lambda adata: adata,
    "highly variable genes, all kept": lambda adata: _variable(adata, 500),
    "2,000 highly variable genes, all kept": lambda adata: _variable(adata, 2000),
    "highly variable genes only": lambda adata: _only_variable(adata, 500),
    "highly variable genes only, others in raw": lambda adata: _only_variable(adata, 500, raw=True),
    "rows sorted by name": _sorted_by,
    "rows sorted by condition and type": lambda adata: _sorted_by(adata, "condition", "cell_type"),
    "scaled": _scaled,
    "raw counts": lambda adata: _without_log1p(_with(adata, X=_counts().X.copy())),
    "without uns['log1p']": _without_log1p,
    "float64, dense": lambda adata: _with(adata, X=adata.X.toarray().astype(np.float64)),
    "sparse by column": lambda adata: _with(adata, X=adata.X.tocsc()),
    "other order of categories": _categories,
    "types as integers": _integers,
}
# Cases that a short run takes, and those of which more splits are measured.
QUICK = ("highly variable genes, all kept", "scaled", "types as integers")


def measure(case: str, split: int, potential: str) -> dict[str, object]:
    """Run the notebook on one file, and return its scores and what was said."""
    adata, log = CASES[case](log_normalised()), io.StringIO()
    sc.settings.logfile, sc.settings.verbosity = log, "warning"
    found: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        page = f"{folder}/report.html"
        try:
            genes = notebook(adata, page, split, **({} if potential == "hycnn" else {"potential": potential}))
        except (ValueError, TypeError) as error:
            found, said = {"ends": "error"}, [str(error)]
        else:
            said = []
            found = {"ends": "report", **_scores(adata, genes), "verdict": _headline(page)}
    said += [str(one.message) for one in caught if issubclass(one.category, UserWarning)]
    said += [line.removeprefix("WARNING: ") for line in log.getvalue().splitlines() if line.startswith("WARNING")]
    # Types with too few cells are named in every case.
    said = [line for line in dict.fromkeys(said) if "too few" not in line and "fewer" not in line]
    return found | {"said": " | ".join(said)}


def _scores(adata: AnnData, genes: pd.DataFrame) -> dict[str, float]:
    table = sh.get.evaluation(adata)
    values = table[table["group"] == SAME_COMPOSITION].set_index(["method", "metric"])["value"]
    kept, floor = (values.get((method, "kept_group"), np.nan) for method in ("hycnn_ot", "replicate"))
    tops = [_top(genes[f"{kind}_score"]) for kind in ("observed", "predicted")]
    of_training = _change_of_training(adata).reindex(genes["gene"]).to_numpy()
    error = (genes["observed_change"] / genes["observed_score"]).to_numpy()
    return {
        "kept_group": kept / floor,
        "r2_top50": values.get(("hycnn_ot", "r2_mean_top50"), np.nan),
        "r2_top50_replicate": values.get(("replicate", "r2_mean_top50"), np.nan),
        "overlap": float(len(tops[0] & tops[1])),
        "overlap_of_training": float(len(tops[0] & _top(pd.Series(of_training / error)))),
        "genes": float(len(genes)),
        "with_logfc": float(genes["predicted_logfc"].notna().mean()),
    }


def _top(scores: pd.Series) -> set[int]:
    return set(np.argsort(-scores.abs().to_numpy(), kind="stable")[:N_TOP].tolist())


def _change_of_training(adata: AnnData) -> pd.Series:
    """Return the change from held-out source cells to treated training cells, in the proportions of the former."""
    cells = pd.DataFrame(adata.X.toarray() if sparse.issparse(adata.X) else adata.X, columns=adata.var_names)
    keys = [adata.obs[name].to_numpy() for name in ("cell_type", "condition", "split")]
    means, sizes = cells.groupby(keys).mean(), cells.groupby(keys).size()
    change, n = pd.Series(0.0, index=adata.var_names), 0
    for group in np.unique(keys[0]):
        source, other = (group, "control", "test"), (group, "IFN-beta", "train")
        if min(sizes.get(source, 0), sizes.get((group, "IFN-beta", "test"), 0), sizes.get(other, 0)) > 1:
            change += sizes[source] * (means.loc[other] - means.loc[source])
            n += sizes[source]
    return change / n


def _headline(page: str) -> str:
    found = re.search(r'"headline": ?("(?:[^"\\]|\\.)*")', Path(page).read_text(encoding="utf-8"))
    return str(json.loads(found[1])) if found else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--splits", type=int, default=1, help="divisions into training and held-out cells")
    parser.add_argument("--potential", default="hycnn", help="hycnn, or gaussian for the closed form alone")
    parser.add_argument("--quick", action="store_true", help="three cases with the closed form")
    parser.add_argument("--fresh", action="store_true", help="measure everything again")
    arguments = parser.parse_args()
    names, potential = (QUICK, "gaussian") if arguments.quick else (arguments.cases, arguments.potential)
    splits = range(1 if arguments.quick else arguments.splits)
    cases = [{"case": case, "split": split, "potential": potential} for split in splits for case in names]
    table = run("first_hour", cases, measure, fresh=arguments.fresh)
    numbers = [name for name in ("kept_group", "r2_top50", "overlap", "overlap_of_training") if name in table]
    show(table.groupby("case", sort=False)[numbers].mean().reset_index())
    for case, verdict, said in table[["case", "verdict", "said"]].drop_duplicates("case").itertuples(index=False):
        print(f"\n{case}: {verdict}", *filter(None, str(said).split(" | ")), sep="\n    ")


if __name__ == "__main__":
    main()
