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
# Cells die when they are sequenced, so nobody has seen the same cell before and after a treatment. There are two
# clouds of cells, control and treated, and the question is which point of the second belongs to which of the first.
# *Optimal transport* answers: the pairing that moves the cells as little as possible. `scot_hycnn` learns it as a
# map, from any untreated cell to the state it would have under treatment.
#
# The data here are 4,000 PBMCs whose response was **planted**: real cells, a made-up response, and therefore a known
# truth to compare with. They come with the package.

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
# All that is needed is a column of `obs` with the conditions and a representation; here `X_pca`, as `sc.pp.pca` makes
# it. Name the source and the target condition:

# %%
sh.tl.hycnn_ot(adata, "control", "IFN-beta")

# %% [markdown]
# The results lie in the AnnData, as after any scanpy tool:
#
# * `obsm["X_hycnn_ot"]`: where each control cell goes (NaN in the rows of treated cells),
# * `obs["hycnn_ot_displacement"]`: how far,
# * `obs["hycnn_ot_std"]`: how much the networks of the ensemble disagree about it,
# * `uns["hycnn_ot"]`: the map itself and the record of its training; it is saved with the file.

# %%
columns = ["cell_type", "hycnn_ot_displacement", "hycnn_ot_std"]
adata.obs.loc[adata.obs["condition"] == "control", columns].sample(5, random_state=0).round(2)

# %% [markdown]
# ## Look
#
# On a UMAP of all cells, arrows lead from the control cells to where the map takes them; treated cells are grey.

# %%
sc.pp.neighbors(adata, random_state=0)
sc.tl.umap(adata, random_state=0)
sh.pl.transport(adata, basis="umap", color="cell_type")

# %% [markdown]
# A UMAP shows directions and not sizes. The distances themselves, by cell type:

# %%
sh.pl.displacement(adata, groupby="cell_type")

# %% [markdown]
# Monocytes, dendritic and NK cells move, and in each of these types some cells move and others stay. That is what was
# planted.
#
# Do the predicted cells lie where treated ones do?

# %%
sh.pl.embedding(adata, basis="umap", color="cell_type")

# %% [markdown]
# ## Which genes?
#
# `get.predicted` turns the moved cells into gene expression, stacked with the measured control and treated cells. From
# there on it is plain scanpy. Genes that hardly any measured cell expresses are left out first: a prediction is never
# exactly zero, and against a constant zero any difference looks significant.

# %%
cells = sh.get.predicted(adata, clip=True)
monocytes = cells[cells.obs["cell_type"] == "CD14+ Monocyte"]
measured = monocytes[monocytes.obs["hycnn_ot_role"] != "predicted"]
monocytes = monocytes[:, (measured.X > 0).mean(axis=0) > 0.1].copy()

sc.tl.rank_genes_groups(monocytes, "hycnn_ot_role", groups=["predicted", "observed"], reference="source")
pd.DataFrame(
    {role: sc.get.rank_genes_groups_df(monocytes, role)["names"].head(10) for role in ("predicted", "observed")}
)

# %% [markdown]
# Both columns are compared with the control monocytes: on the left those that the map has moved, on the right those
# that were treated. The same genes, nearly in the same order.
#
# ## Is it right?
#
# Here the truth is known: `obsm["X_planted"]` holds the point to which each control cell really goes. The table sets
# the mean squared error of the map beside that of three simple answers. No cell changes; all cells shift alike; and the
# *Gaussian map*, the best that can be done with means and covariances alone.

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
# With measured data there is no such truth. [Tutorial 4](4_evaluation.ipynb) shows what can be said then, and how not
# to fool oneself.
#
# ## Keep
#
# One file holds cells, predictions and map. Any other cells in the same representation can be moved later:

# %%
adata.write_h5ad("predicted.h5ad")

others = sh.datasets.pbmc_planted(n_cells=500, rng=1)  # new cells, not in the fit
sh.tl.transport(others, model="predicted.h5ad")
others.obs.groupby("cell_type", observed=True)["hycnn_ot_displacement"].median().sort_values(ascending=False).round(1)

# %% [markdown]
# ## With your own data
#
# ```python
# sc.pp.normalize_total(adata)
# sc.pp.log1p(adata)
# sc.pp.highly_variable_genes(adata)
# sc.pp.pca(adata)
# sh.tl.hycnn_ot(adata, "control", ["drug A", "drug B"])  # one map for each target
# ```
#
# * A new cell type, and its genes: [tutorial 2](2_cell_type_held_out.ipynb).
# * Proteins instead of principal components, several treatments: [tutorial 3](3_three_stimuli.ipynb).
# * Evaluation: [tutorial 4](4_evaluation.ipynb).
