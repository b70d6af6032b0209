"""Predict the response of cells that were held out, print the scores and genes, and draw before, predicted and observed.

`make demo` runs this on the PBMCs with a planted response that come with the package, and writes demo/response.png,
demo/report.html and demo/predicted.h5ad. If SCOT_HYCNN_DATA names the folder of the data sets, it does the same with the
cells of Kang et al. (2018) in demo/kang; the README shows that picture.
"""

from __future__ import annotations

import logging
import os
import time
from itertools import cycle
from pathlib import Path

import anndata
import matplotlib.pyplot as plt
import numpy as np
import scanpy as sc
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import scot_hycnn as sh

SOURCE, TARGET = "control", "IFN-beta"
FOLDER = Path("demo")
N_GENES = 14
MAX_CELLS = 3000  # of all three kinds; more take longer and are not seen better


def main() -> None:
    """Fit, print, write and draw."""
    logging.getLogger("fontTools").setLevel(logging.ERROR)
    show(sh.datasets.pbmc_planted(n_cells=8000), "PBMCs with a planted response", FOLDER)
    if "SCOT_HYCNN_DATA" in os.environ:
        show(kang(Path(os.environ["SCOT_HYCNN_DATA"])), "PBMCs of Kang et al. (2018)", FOLDER / "kang")


def kang(folder: Path) -> sc.AnnData:
    """Return the cells of Kang et al., log-normalised by the library sizes of all genes."""
    adata = anndata.read_h5ad(folder / "kang_ifnb.h5ad")
    size = adata.obs["total_counts_all_genes"].to_numpy()[:, None]
    adata.X = np.log1p(adata.X.toarray() / size * 1e4).astype(np.float32)
    return adata


def show(adata: sc.AnnData, what: str, folder: Path) -> None:
    """Do the steps of the README's quick start, and draw the picture."""
    folder.mkdir(exist_ok=True, parents=True)
    print(f"\n{adata.n_obs:,} {what}; half of them are held out.\n")
    started = time.process_time()
    sh.pp.split(adata, stratify=["condition", "cell_type"], test_size=0.5)
    sh.pp.pca(adata, n_comps=30, split_key="split", key_added="X_train_pca")
    sh.tl.hycnn_ot(adata, SOURCE, TARGET, group_key="cell_type", use_rep="X_train_pca", split_key="split")
    fitted = time.process_time()
    sh.tl.evaluate(adata)
    scores = sh.get.evaluation(adata).query("group == 'all, same composition' and metric == 'energy_distance'")
    print(scores[["method", "value", "low", "high", "kept_group"]].round(2).to_string(index=False), "\n")
    genes = sh.get.deg(adata, groupby="cell_type")
    print(genes[["group", "gene", "observed_change", "predicted_change"]].head(3).round(2).to_string(index=False))
    sh.pl.report(adata, folder / "report.html")
    print(f"\nCPU seconds: the fit {fitted - started:.0f}, all steps {time.process_time() - started:.0f}.")
    picture(adata, f"{what}: cells that the fit has not seen").savefig(folder / "response.png", dpi=160)
    adata.write_h5ad(folder / "predicted.h5ad", compression="gzip")
    print(f"{folder} has response.png, report.html and predicted.h5ad.")


def picture(adata: sc.AnnData, title: str) -> Figure:
    """Draw held-out cells before, predicted and observed, in one UMAP of them all, and how genes change in each type.

    Types that respond, whose distance without a prediction is clearly above that of a replicate, are coloured.
    """
    cells = sh.get.transported(adata)
    cells = cells[(cells.obs["split"] == "test").to_numpy()]
    shown = np.sort(np.random.default_rng(0).permutation(cells.n_obs)[:MAX_CELLS])
    cells = cells[shown].copy()
    sc.pp.neighbors(cells, use_rep="X", n_neighbors=30, random_state=0)
    sc.tl.umap(cells, min_dist=0.4, random_state=0)
    scores = sh.get.evaluation(adata).query("metric == 'energy_distance'").pivot(index="group", columns="method")
    responds = scores["low"]["identity"] > scores["high"]["replicate"]
    labels = [str(label) for label in cells.obs["cell_type"].cat.categories if responds.get(label, False)]
    # Grey is for what does not respond.
    palette = [color for k, color in enumerate(plt.colormaps["tab10"].colors) if k != 7]
    colors = dict(zip(labels, cycle(palette), strict=False))

    figure = plt.figure(figsize=(12, 3.9), layout="constrained")
    axes = figure.subplots(1, 4, width_ratios=[1, 1, 1, 1.05])
    (x, y), types = cells.obsm["X_umap"].T, cells.obs["cell_type"].to_numpy()
    titles = {"source": f"before ({SOURCE})", "predicted": "predicted", "observed": f"observed ({TARGET})"}
    for ax, (role, name) in zip(axes, titles.items(), strict=False):
        is_role = (cells.obs["hycnn_ot_role"] == role).to_numpy()
        ax.scatter(x[~is_role], y[~is_role], s=3, color="0.92", linewidths=0, label="cells of the other two panels")
        others = is_role & ~np.isin(types, labels)
        ax.scatter(
            x[others],
            y[others],
            s=5,
            color="0.65",
            linewidths=0,
            label="types without a clear response, or with few cells",
        )
        for label in labels:
            of_type = is_role & (types == label)
            ax.scatter(x[of_type], y[of_type], s=7, color=colors[label], linewidths=0, label=label)
        ax.set_title(name, fontsize="large")
        # A few cells far from all others would make the rest small.
        ax.set(xticks=[], yticks=[], xlim=_limits(x), ylim=_limits(y))
        ax.spines[:].set_visible(False)
    axes[0].set(xlabel="UMAP 1", ylabel="UMAP 2")
    _genes(adata, colors, axes[3])
    handles, names = axes[0].get_legend_handles_labels()
    crosses, names_of_crosses = axes[3].get_legend_handles_labels()
    legend = {"ncols": 5, "frameon": False, "markerscale": 2, "fontsize": "small", "columnspacing": 1}
    figure.legend(
        handles[2:] + handles[:2] + crosses,
        names[2:] + names[:2] + names_of_crosses,
        loc="outside lower center",
        **legend,
    )
    figure.suptitle(title, x=0.01, ha="left", fontsize="large", fontweight="bold")
    return figure


def _genes(adata: sc.AnnData, colors: dict[str, tuple[float, ...]], ax: Axes) -> None:
    """Draw predicted against observed changes of the genes that change most, by type, and those of a common shift."""
    genes, is_training = sh.get.deg(adata, groupby="cell_type"), adata.obs["split"] == "train"
    means = [adata[is_training & (adata.obs["condition"] == label)].X.mean(axis=0) for label in (SOURCE, TARGET)]
    shift = dict(zip(adata.var_names, np.ravel(means[1] - means[0]), strict=True))
    for label, color in colors.items():
        top = genes[genes["group"] == label].nlargest(N_GENES, "observed_score")
        crosses = "the same genes, all cells shifted alike" if label == next(iter(colors)) else None
        ax.plot(top["observed_change"], top["gene"].map(shift), "x", color="0.6", markersize=4, label=crosses)
        ax.plot(top["observed_change"], top["predicted_change"], "o", color=color, markersize=4)
    ax.axline((0, 0), slope=1, color="0.3", linewidth=0.8)
    ax.set(xlabel="observed change of mean expression", ylabel="predicted change")
    ax.set_title(f"{N_GENES} genes of each type", fontsize="large")
    ax.spines[["top", "right"]].set_visible(False)


def _limits(values: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values, [0.005, 0.995])
    return low - 0.08 * (high - low), high + 0.08 * (high - low)


if __name__ == "__main__":
    main()
