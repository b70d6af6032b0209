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
# # Five-minute start
#
# Cells are destroyed when they are sequenced, so the same cell cannot be measured before and after a treatment. There
# are two sets of cells, control and treated, and the question is how each control cell would look after treatment.
# *Optimal transport* answers with the map that moves the cells as little as possible. `scot_hycnn` learns this map: it
# takes any untreated cell to the state that it would have under treatment.
#
# The data here are 4,000 PBMCs whose response was **planted**: real cells, a made-up response, and therefore a known
# truth for comparison. The data come with the package.

# %%
import matplotlib.pyplot as plt
import pandas as pd
import scanpy as sc

import scot_hycnn as sh

plt.rcParams["figure.dpi"] = 80

adata = sh.datasets.pbmc_planted()
adata

# %% [markdown]
# ## Fit
#
# A fit needs a column of `obs` with the conditions, and a representation: here it is `X_pca`, as `sc.pp.pca` makes it.
# Name the source and the target condition, and in `group_key` the column of cell types, if there is one. Types then have
# the same proportions in both conditions. Otherwise a difference of proportions would be taken for a response, and the
# map would turn cells of one type into cells of another.

# %%
sh.tl.hycnn_ot(adata, "control", "IFN-beta", group_key="cell_type")

# %% [markdown]
# The results are in the AnnData, as after any scanpy tool:
#
# * `obsm["X_hycnn_ot"]`: the predicted position of each control cell (NaN in the rows of treated cells),
# * `obs["hycnn_ot_displacement"]`: the distance that it moves,
# * `obs["hycnn_ot_std"]`: how much the networks of the ensemble disagree about it,
# * `uns["hycnn_ot"]`: the map and the record of its training; it is saved with the file.

# %%
columns = ["cell_type", "hycnn_ot_displacement", "hycnn_ot_std"]
adata.obs.loc[adata.obs["condition"] == "control", columns].sample(5, random_state=0).round(2)

# %% [markdown]
# ## Plot
#
# On a UMAP of all cells, arrows lead from the control cells to their predicted positions; treated cells are grey.

# %%
sc.pp.neighbors(adata, random_state=0)
sc.tl.umap(adata, random_state=0)
sh.pl.transport(adata, basis="umap", color="cell_type")

# %% [markdown]
# A UMAP shows directions, but not distances. This figure shows the distances by cell type, the groups of the fit:

# %%
sh.pl.displacement(adata)

# %% [markdown]
# Monocytes, dendritic and NK cells move, and in each of these types some cells move and others stay. This is the
# planted response.
#
# Are the predicted cells in the same places as the treated cells?

# %%
sh.pl.embedding(adata, basis="umap", color="cell_type")

# %% [markdown]
# ## Which genes?
#
# `get.deg` lists for every gene the observed and the predicted change of its mean. Its scores and p values use the
# spread of the measured cells, since predicted cells are no independent sample. Genes that fewer than a tenth of the
# cells express are left out.

# %%
genes = sh.get.deg(adata, groupby="cell_type")
monocytes = genes[genes["group"] == "CD14+ Monocyte"]
monocytes[["gene", "observed_change", "predicted_change", "observed_score", "predicted_score"]].head(10).round(2)

# %% [markdown]
# Both changes compare with the control monocytes: the predicted one the monocytes that the map has moved, the observed
# one those that were treated. They are nearly the same. `pl.deg` draws them:

# %%
sh.pl.deg(adata, groupby="cell_type")

# %% [markdown]
# ## Is it right?
#
# Here the truth is known: `obsm["X_planted"]` holds the true position of each control cell after treatment. The table
# compares the mean squared error of the map with that of three simple answers: no cell changes; all cells shift by the
# same vector; and the *Gaussian map*, the best map that uses only means and covariances.

# %%
is_control = (adata.obs["condition"] == "control").to_numpy()
x, y = adata.obsm["X_pca"][is_control], adata.obsm["X_pca"][~is_control]
truth = adata.obsm["X_planted"][is_control]
answers = {
    "no change": x,
    "same shift for all": x + y.mean(axis=0) - x.mean(axis=0),
    "Gaussian map": sh.solver.fit(x, y, potential="gaussian").transport(x),
    "HyCNN-OT": adata.obsm["X_hycnn_ot"][is_control],
}
pd.Series({name: sh.metrics.map_mse(points, truth) for name, points in answers.items()}, name="squared error").round(1)

# %% [markdown]
# Measured data have no such truth. [Tutorial 4](4_evaluation.ipynb) shows what can be said then, and which mistakes to
# avoid.
#
# ## Save
#
# One file holds cells, predictions and map. You can move other cells later, if their coordinates are in the same
# components. (Cells of a new file are not: the guide *A new patient* joins the files before the PCA.)

# %%
adata.write_h5ad("predicted.h5ad")

others = sh.datasets.pbmc_planted(n_cells=500, rng=1)  # new cells, not in the fit
sh.tl.transport(others, model="predicted.h5ad")
others.obs.groupby("cell_type", observed=True)["hycnn_ot_displacement"].median().sort_values(ascending=False).round(1)

# %% [markdown]
# ## With your data
#
# ```python
# sc.pp.normalize_total(adata)
# sc.pp.log1p(adata)
# sc.pp.highly_variable_genes(adata, n_top_genes=2000)
# sc.pp.pca(adata)
# sh.tl.hycnn_ot(adata, "control", ["drug A", "drug B"], group_key="cell_type")  # one map for each target
# ```
#
# The components are made from highly variable genes. All other genes are predicted too, by regression on the
# components.
#
# * A new cell type, and its genes: [tutorial 2](2_cell_type_held_out.ipynb).
# * Proteins instead of principal components, several treatments: [tutorial 3](3_three_stimuli.ipynb).
# * Evaluation: [tutorial 4](4_evaluation.ipynb).
