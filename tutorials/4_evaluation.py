# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Evaluating without leaks
#
# No cell can be measured before and after treatment, so a prediction cannot be checked cell by cell; only distributions
# of cells can be compared. This allows many mistakes. This tutorial evaluates one map properly, and then makes each
# mistake on purpose, to show its effect.
#
# The data (PBMCs, interferon-β; Kang et al. 2018) are read from the folder that the environment variable
# `SCOT_HYCNN_DATA` names. Without it, the same code runs on PBMCs that come with the package; the text and the outputs
# below are those of Kang's cells. (`sh.datasets.kang_2018()` downloads the full data set, which has other labels.)

# %%
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scanpy as sc

import scot_hycnn as sh

plt.rcParams["figure.dpi"] = 80

if "SCOT_HYCNN_DATA" in os.environ:
    adata = sc.read_h5ad(Path(os.environ["SCOT_HYCNN_DATA"]) / "kang_ifnb.h5ad")
    size = adata.obs["total_counts_all_genes"].to_numpy()  # library sizes, over all genes
    adata.X = adata.X.multiply(1e4 / size[:, None]).tocsr().astype(np.float32)
    sc.pp.log1p(adata)
else:
    adata = sh.datasets.pbmc_planted()
    del adata.obsm["X_pca"], adata.varm["PCs"], adata.uns["pca"]  # components are fitted on training cells below
    adata.obs["cell_type"] = adata.obs["cell_type"].cat.rename_categories({"CD14+ Monocyte": "CD14 Mono"})
counts = adata.obs["cell_type"].value_counts()
adata = adata[adata.obs["cell_type"].isin(counts.index[counts >= 100])].copy()  # too few to be tested on
adata

# %% [markdown]
# ## Split first
#
# Everything that is *learned* from cells must be learned from training cells: principal components, the map, the choice
# of its settings. `stratify` gives training and test cells the same composition, so that chance does not decide the
# scores; then pass `split_key` to every step.

# %%
sh.pp.split(adata, test_size=0.3, stratify=["condition", "cell_type"])
sh.pp.pca(adata, split_key="split")
sh.tl.hycnn_ot(adata, "control", "IFN-beta", split_key="split")

# %% [markdown]
# (One mistake cannot be corrected here: the 2,000 variable genes of this file were chosen on all cells. With raw data,
# choose them on training cells only. Also, the patients are not labelled here: with several donors, hold out whole
# donors, `sh.pp.split(adata, groupby="donor")`.)
#
# ## Score
#
# `tl.evaluate` finds the test cells by the split that the fit has recorded. It scores the map, three simple answers
# and a replicate, on the same cells and with 95 % bootstrap intervals.

# %%
sh.tl.evaluate(adata, groupby="cell_type")
metrics = ["energy_distance", "kept_group", "trace_ratio", "r2_mean", "pearson_delta"]
sh.pl.evaluation(adata, metrics=metrics, group=["all", "all, same composition"], n_cols=3)

# %% [markdown]
# * **no change** (`identity` in tables): no cell changes. Any method has to be better than this.
# * **mean shift**: all cells move by the same vector. **Gaussian map**: the best map that uses only means and
#   covariances. It takes milliseconds, and is hard to beat.
# * **replicate**: one half of the treated test cells compared with the other half. No method can be expected to do
#   better.
#
# The *energy distance* compares whole distributions. In the row `'all'` HyCNN-OT is as near as a replicate; within the
# intervals the Gaussian map is too. The *trace ratio* compares their spread: below 1 the predicted cells have too
# little. *R² of means* and *Pearson Δ* compare means of genes. On these two **the mean shift is as good as any other
# answer**, since it makes the mean right. Scores of means over all cells cannot distinguish a good map from a useless one.
#
# That row has another fault. The fit above has no `group_key`, on purpose: the proportions of cell types differ between
# the conditions, and the row rewards a map that carries cells into other types to match them. In the row
# `'all, same composition'` treated cells are weighted to the proportions of the control cells. There HyCNN-OT is far
# from the replicate, and fewer predicted cells than treated ones lie among cells of their own type, of which the log
# warns too. For your own data pass `group_key="cell_type"` to the fit, and report this row.
#
# Compare cell types too: the mean of each type must be right.

# %%
sh.pl.evaluation(adata, group=None, metrics=["energy_distance", "pearson_delta"])

# %% [markdown]
# Now the mean shift is worse everywhere. For the CD4 T cells, the most numerous, HyCNN-OT is as near as a replicate
# and the Gaussian map is not. For the CD14 monocytes neither is: the map can still be improved. For NK cells and
# activated T cells there are fewer than 25 test cells a condition, and the intervals of the scores are too wide for a
# decision. (That of the replicate, from halves of them, is as wide.)
#
# All scores are in one table:

# %%
scores = sh.get.evaluation(adata)
table = scores.query("group == 'all'").pivot(index="metric", columns="method", values="value")
table = table[["identity", "mean_shift", "gaussian", "hycnn_ot", "replicate"]].round(3)
table

# %%
types = scores.query("metric == 'energy_distance' and method in ['gaussian', 'hycnn_ot'] and group != 'all'")
types.set_index(["group", "method"])[["value", "low", "high", "n_source", "n_target"]].round(2)

# %% [markdown]
# Is the map better than the Gaussian map? Both move the same cells, so the variation of these cells cancels in the
# difference of the two scores. Its interval is narrower than those above: below 0 the answer is yes, above 0 it is no.

# %%
differences = scores.query("metric == 'energy_distance' and method == 'hycnn_ot'").set_index("group")
differences[["vs_gaussian", "vs_gaussian_low", "vs_gaussian_high"]].round(3)

# %% [markdown]
# It is for CD4 T cells. For the NK cells, of which there are 17, the Gaussian map is better, which the scores did not
# show: types with few cells have little weight in a fit of all cells. `group_key="cell_type"` in `sh.tl.hycnn_ot` gives
# all types more equal weights (see the tutorial on a cell type held out).
#
# An interval says how much the score would vary with *other test cells*. It does not cover another training run,
# another split or another donor. For a paper, repeat with several folds: `sh.pp.split(adata, n_folds=5, fold=k,
# stratify=...)`.
#
# ## What a leak looks like
#
# We make two mistakes. First, we score the same map on its training cells. (`tl.evaluate` warns of it; here the message
# is turned off.)

# %%
with sc.settings.verbosity.override("error"):
    sh.tl.evaluate(adata, mask_obs=(adata.obs["split"] == "train").to_numpy(), key_added="training_cells")

# %% [markdown]
# The second mistake is harder to notice: the scores use test cells, but principal components and map are computed on
# *all* cells. This happens whenever the split comes last.

# %%
sh.pp.pca(adata, key_added="X_pca_of_all")
sh.tl.hycnn_ot(adata, "control", "IFN-beta", use_rep="X_pca_of_all", key_added="leaky")

with sc.settings.verbosity.override("error"):
    sh.tl.evaluate(adata, "leaky", split_key="split")

# %% [markdown]
# The table divides each score by that of the replicate:

# %%
fits = {"honest": "hycnn_ot", "scored on training cells": "training_cells", "PCA and map saw test cells": "leaky"}
ratios = {}
for name, key in fits.items():
    scores = sh.get.evaluation(adata, key).query("group == 'all'")
    scores = scores.pivot(index="metric", columns="method", values="value")
    ratios[name] = scores["hycnn_ot"] / scores["replicate"]
pd.DataFrame(ratios).T[["w2_squared", "sinkhorn_divergence", "pearson_delta"]].round(2)

# %% [markdown]
# The map without a leak is clearly above the replicate (1 in the first two columns). Both maps with a leak are at it:
# their predicted cells are as near to the treated cells as other treated cells are. With a few hundred cells in fifty
# dimensions no map can do that without a leak. **If a map reaches the replicate in W2² or the Sinkhorn divergence, or is
# below it, there is probably a leak** (or the predicted cells have too little spread, which both reward; check the trace
# ratio). This is not so for the energy distance: its estimate has no bias of few cells, and a good map is as near as the
# replicate, as the report says with praise. A leak is not always so clear: the correlation in the last column hardly
# differs, and without a replicate it would not be noticed.
#
# ## What a good score can hide
#
# Here are two useless predictions without a leak. One moves every cell to the mean of the treated training cells. The
# other replaces every cell by a random treated training cell.

# %%
x = adata.obsm["X_pca"]
is_control, is_test = (adata.obs["condition"] == "control").to_numpy(), (adata.obs["split"] == "test").to_numpy()
cell_type = adata.obs["cell_type"].to_numpy()
source, observed = is_test & is_control, is_test & ~is_control
treated = x[~is_test & ~is_control]

predictions = {
    "mean treated cell": np.tile(treated.mean(axis=0), (source.sum(), 1)),
    "random treated cells": treated[np.random.default_rng(0).integers(len(treated), size=source.sum())],
    "HyCNN-OT": adata.obsm["X_hycnn_ot"][source],
}
monocytes = [cell_type[cells] == "CD14 Mono" for cells in (source, observed)]
pd.DataFrame(
    {
        name: {
            "R² of means": sh.metrics.r2_mean(points, x[observed]),
            "trace ratio": sh.metrics.trace_ratio(points, x[observed]),
            "energy distance": sh.metrics.energy_distance(points, x[observed]),
            "energy distance, CD14 Mono": sh.metrics.energy_distance(points[monocytes[0]], x[observed][monocytes[1]]),
        }
        for name, points in predictions.items()
    }
).T.round(2)

# %% [markdown]
# The mean treated cell has as good an R² as any other prediction, but its trace ratio is wrong. Random treated cells
# are nearly perfect by all scores of whole distributions, although a monocyte may become a T cell; only scores
# *within* cell types show it. So use a distance between distributions and the spread, both by cell type.
#
# ## How uncertain is the prediction of a cell?
#
# `obs["hycnn_ot_std"]` is the standard deviation over the networks of the ensemble. Is it as large as the error? On
# measured data this cannot be checked. On the planted PBMCs of tutorial 1 the true position of each cell is known:

# %%
planted = sh.datasets.pbmc_planted()
sh.tl.hycnn_ot(planted, "control", "IFN-beta")

control = planted[planted.obs["condition"] == "control"]
errors = pd.DataFrame(
    {
        "std": control.obs["hycnn_ot_std"].to_numpy(),
        "error": np.linalg.norm(control.obsm["X_hycnn_ot"] - control.obsm["X_planted"], axis=1),
    }
)


def root_mean_square(values):
    return np.sqrt((values**2).mean())


tenths = errors.groupby(pd.qcut(errors["std"], 10, labels=False)).agg(root_mean_square)

figure, ax = plt.subplots(figsize=(4.2, 3.4), layout="constrained")
ax.plot(tenths["std"], tenths["error"], "o-", color="#D55E00")
for factor, style in ((1, "-"), (2, "--")):
    ax.axline((0, 0), slope=factor, color="0.5", linestyle=style, linewidth=1, label=f"error = {factor} × std")
ax.set(xlim=(0, None), ylim=(0, None), xlabel="standard deviation", ylabel="true error (rms of a tenth of the cells)")
ax.spines[["top", "right"]].set_visible(False)
ax.legend(frameon=False, loc="lower right")
plt.show()

print(f"true error / std: {root_mean_square(errors['error']) / root_mean_square(errors['std']):.1f}")
print(f"rank correlation: {errors['std'].corr(errors['error'], method='spearman'):.1f}")

# %% [markdown]
# The true error is about twice the standard deviation. The reason is that all networks use the same cells, so they
# share the errors that come from these cells, and a spread shows only errors that they do not share. Use `std` as a
# lower bound. It also ranks cells only roughly. The tenth of the cells with the largest `std` is predicted clearly
# worse than the others; among the rest it says little. If the fit has kept the Gaussian map, there is no ensemble, and
# a `std` of 0 says nothing about the error.
#
# ## A checklist
#
# 1. Split first, stratified or by group; give `split_key` to `pp.pca`, to `tl.hycnn_ot`, and choose genes on training
#    cells.
# 2. Show identity, mean shift, Gaussian map and replicate beside every score, with intervals.
# 3. Score cell types, not only all cells.
# 4. If a score is clearly better than the replicate, or W2² or the Sinkhorn divergence only reaches it, search for a leak.
# 5. If the statement is about a new cell type or donor, hold out a cell type or donor
#    ([tutorial 2](2_cell_type_held_out.ipynb), and the guide *A new patient*).
