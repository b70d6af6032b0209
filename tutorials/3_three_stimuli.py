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
# # Three stimuli, measured as proteins
#
# Mass cytometry of PBMCs (Bodenmiller et al. 2012): 9 surface markers and 14 signalling proteins in unstimulated cells
# and after three stimuli. There are no genes and no principal components here; the map moves the values of the
# proteins. Three things are new: several targets in one call, `use_rep="X"`, and a change of cell type proportions that
# is not a response.
#
# The data are read from the folder that the environment variable `SCOT_HYCNN_DATA` names; they come from the R package
# `bodenmiller` on CRAN (CC0), arcsinh-transformed. Without it, the same code runs on PBMCs that come with the package: 23
# of their genes stand for proteins. The text and the outputs below are those of Bodenmiller's cells.

# %%
import os
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import scanpy as sc

import scot_hycnn as sh

plt.rcParams["figure.dpi"] = 80

stimuli = ["BCR/FcR-XL", "PMA/Ionomycin", "vanadate"]
if "SCOT_HYCNN_DATA" in os.environ:
    adata = sc.read_h5ad(Path(os.environ["SCOT_HYCNN_DATA"]) / "bodenmiller_cytof.h5ad")
    t_cells, shown = "CD4 T", ["CD3", "CD4", "pStat3", "pErk"]
else:
    adata = sh.datasets.pbmc_planted(n_cells=20000)
    variance = adata.X.toarray().var(axis=0)
    adata = sc.AnnData(adata.X.toarray(), obs=adata.obs, var=adata.var)[:, (-variance).argsort()[:23]].copy()
    # The second half of the cells is treated; it is divided among the stimuli.
    labels = ["unstimulated"] * 10000 + [stimuli[i % 3] for i in range(10000)]
    adata.obs["condition"] = pd.Categorical(labels, ["unstimulated", *stimuli])
    t_cells, shown = "CD4+/CD25 T Reg", list(adata.var_names[:4])
sizes = adata.obs.value_counts(["cell_type", "condition"], sort=False).unstack()
common = sizes.index[sizes.min(axis=1) >= 90]  # four rare types have fewer cells in one of the wells
adata = adata[adata.obs["cell_type"].isin(common)]

# We use 3,000 cells of each condition, to save time.
cells = adata.obs.groupby("condition", observed=True).sample(3000, random_state=0).index
adata = adata[cells].copy()
adata

# %% [markdown]
# This is the composition of the four wells, in percent:

# %%
percent = pd.crosstab(adata.obs["cell_type"], adata.obs["condition"], normalize="columns") * 100
percent.round(1)

# %% [markdown]
# The well with vanadate has far fewer CD4 T cells and far more NK cells. Cells do not change their type within half an
# hour; they were lost, or gated differently. A map between the two conditions as they are would have to turn T cells
# into other types. `group_key` prevents this: each cell type gets the same total weight in both conditions.
#
# ## Fit
#
# With a list of targets, the call fits one map for each of them. Thirty percent of the cells, of each type and
# condition, are held out for the evaluation below.

# %%
sh.pp.split(adata, test_size=0.3, stratify=["condition", "cell_type"])
sh.tl.hycnn_ot(adata, "unstimulated", stimuli, use_rep="X", group_key="cell_type", split_key="split")
adata

# %% [markdown]
# Every target has separate slots. A "/" cannot be part of a key in a file, so keys have a simpler spelling of the
# label; functions take the label itself:

# %%
adata.uns["hycnn_ot"]["targets"]

# %% [markdown]
# ## Which proteins?
#
# The figure shows the eight proteins that change most under PMA/ionomycin. The orange line, the predicted cells,
# should follow the green area:

# %%
sh.pl.marginals(adata, target="PMA/Ionomycin")

# %% [markdown]
# pS6 changes from one peak to two, in the predicted cells too. A shift cannot do this.
#
# ## Which cells?
#
# The figure shows how far the held-out cells of each type move, the type that moves most at the top. Types in
# which no response is seen are pale.

# %%
figure, axes = plt.subplots(1, 3, figsize=(12, 3), layout="constrained")
for ax, stimulus in zip(axes, stimuli, strict=True):
    sh.pl.displacement(adata, target=stimulus, groupby="cell_type", ax=ax, show=False)
    ax.set_title(stimulus)
plt.show()

# %% [markdown]
# Cross-linking the B cell receptor moves the B cells; the same reagent binds the Fc receptors of monocytes, which come
# next; T and NK cells stay nearly where they are. PMA/ionomycin and vanadate act downstream of any receptor, and move
# every type. The fit found this without the labels: `group_key` balances the proportions, but the map does not use the
# type of a cell.
#
# The next figure shows which proteins change in which cells, observed and predicted, under B cell receptor
# cross-linking:

# %%
sh.pl.deg(adata, target="BCR/FcR-XL", groupby="cell_type", n_genes=14)

# %% [markdown]
# ## Proportions are not a response
#
# What happens without `group_key`? We fit vanadate again without it, and plot the surface markers that define T cells:

# %%
sh.tl.hycnn_ot(adata, "unstimulated", "vanadate", use_rep="X", split_key="split", key_added="plain")

is_t = adata.obs["cell_type"] == t_cells
before = adata[is_t & (adata.obs["condition"] == "unstimulated")]
after = adata[is_t & (adata.obs["condition"] == "vanadate")]
change = {
    "with group_key": before.obsm["X_hycnn_ot_vanadate"].mean(axis=0) - before.X.mean(axis=0),
    "without": before.obsm["X_plain"].mean(axis=0) - before.X.mean(axis=0),
    "observed": after.X.mean(axis=0) - before.X.mean(axis=0),
}
pd.DataFrame(change, index=adata.var_names).loc[shown].round(2)

# %% [markdown]
# The map without groups removes CD3 and CD4 from many CD4 T cells, to account for the missing T cells. The map with
# groups does so far less, and predicts the signalling better.
#
# ## Is it better than simpler answers?
#
# We compare on the held-out cells, by cell type, since the proportions of all cells together differ between the wells:

# %%
sh.tl.evaluate(adata)  # by the groups of the fit

figure, axes = plt.subplots(1, 3, figsize=(13, 6), layout="constrained")
for ax, stimulus in zip(axes, stimuli, strict=True):
    sh.pl.evaluation(adata, target=stimulus, group=None, metrics="energy_distance", ax=ax, show=False)
    ax.set_title(stimulus, pad=14)
    legend = ax.get_legend()
    legend.remove()
labels = [text.get_text() for text in legend.get_texts()]
figure.legend(legend.legend_handles, labels, loc="outside upper center", ncols=4, frameon=False)  # one for all
plt.show()

# %% [markdown]
# Grey is the replicate: one half of the observed cells against the other half. In brackets are the numbers of
# unstimulated and stimulated cells. The line of HyCNN-OT overlaps the grey for nearly every type and stimulus. The Gaussian
# map is close behind for some and clearly worse for the T cells, whose response to PMA/ionomycin and vanadate differs from
# cell to cell. For types that do not respond to B cell receptor cross-linking, no change is as good as any other answer.
# For the IgM+ B cells, which respond most, the lines of HyCNN-OT and of the Gaussian map only just overlap the grey: of 60
# cells more cannot be said. [Tutorial 4](4_evaluation.ipynb) explains how to read such figures, and how they can mislead.
