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
# # My data in ten minutes
#
# From counts to predicted genes, one step at a time, with every output. Copy the cells and change three names: the file,
# the column of conditions, and the column of cell types.
#
# ## What you need
#
# One AnnData with the control cells and the treated cells, one column of `obs` that says which is which, and, if you
# have them, cell types. Some hundred cells a condition are enough for a linear answer, a thousand for more.
#
# This notebook takes PBMCs that come with the package. They are log-normalised, so the next cell makes counts from them,
# about 20,000 a cell; with your file it is `adata = sc.read_h5ad("my_cells.h5ad")`.

# %%
import numpy as np
import pandas as pd
import scanpy as sc
from scipy.sparse import csr_matrix

import scot_hycnn as sh

planted = sh.datasets.pbmc_planted(n_cells=8000)
counts = np.random.default_rng(0).poisson(10 * np.expm1(planted.X.toarray()))
adata = sc.AnnData(csr_matrix(counts.astype(np.float32)), obs=planted.obs, var=planted.var[[]])
adata.layers["counts"] = adata.X.copy()
adata

# %%
pd.crosstab(adata.obs["cell_type"], adata.obs["condition"])

# %% [markdown]
# ## 1. Normalise
#
# As always in scanpy. A map moves distances, so it needs values on a log scale; it warns if it gets counts.

# %%
sc.pp.normalize_total(adata, target_sum=2e3)  # these cells have 765 genes; 1e4 is usual for all genes
sc.pp.log1p(adata)

# %% [markdown]
# ## 2. Hold cells out
#
# A score is fair if the scored cells influenced nothing. `split` labels half of the cells of each type and condition as
# `'test'`. With your data take the default, a fifth; or hold out a donor: `groupby="donor", holdout="donor 3"`.

# %%
sh.pp.split(adata, stratify=["condition", "cell_type"], test_size=0.5)
pd.crosstab(adata.obs["split"], adata.obs["condition"])

# %% [markdown]
# ## 3. Components
#
# `pp.pca` fits the components on the training cells, and projects all cells. 30 to 50 are usual. If there are more than
# 3,000 genes, choose highly variable ones of the training cells first; the others are predicted too.

# %%
sh.pp.pca(adata, n_comps=30, split_key="split", key_added="X_train_pca")
adata.obsm["X_train_pca"].shape

# %% [markdown]
# ## 4. Fit
#
# The two labels say from where to where. `group_key` keeps the proportions of cell types apart from the response; always
# give it if you have cell types.

# %%
sh.tl.hycnn_ot(adata, "control", "IFN-beta", group_key="cell_type", use_rep="X_train_pca", split_key="split")

# %%
sh.get.model(adata)

# %% [markdown]
# `networks` or `gaussian kept` says which map was chosen. Both are results: the Gaussian map (a shift and a stretch) is
# kept if the networks are not clearly better on validation cells.
#
# ## 5. How good is it?
#
# `evaluate` compares the predicted with the observed cells that were held out, beside simple answers.

# %%
sh.tl.evaluate(adata)
sh.pl.evaluation(adata)

# %% [markdown]
# Each panel has one score. A dot near the grey band is as good as a replicate of the experiment. The same as numbers,
# for one score and all cell types:

# %%
scores = sh.get.evaluation(adata)
distances = scores[scores["metric"] == "energy_distance"]
distances.pivot_table(index="group", columns="method", values="value", observed=True).round(2)

# %% [markdown]
# ## 6. Look at the cells
#
# Held-out cells before, predicted and observed, in the two components that the map changes most. The predicted cells
# should lie where the observed ones lie. With a UMAP in your file, pass `basis="umap"`.

# %%
sh.pl.embedding(adata, color="cell_type")

# %% [markdown]
# Which types respond, and how far their cells move (pale: no response is seen):

# %%
sh.pl.displacement(adata)

# %% [markdown]
# ## 7. Genes
#
# The changes that were observed and predicted, of the genes that change most, and the same in each type.

# %%
sh.pl.deg(adata)

# %%
genes = sh.get.deg(adata, groupby="cell_type")
genes[["group", "gene", "observed_change", "predicted_change", "predicted_pval_adj"]].head(8).round(3)

# %% [markdown]
# ## 8. Keep and show
#
# The file holds cells, predictions, scores and the map: it moves other cells later. The report is one page with a verdict
# in plain words, which you can send by mail.

# %%
adata.write_h5ad("predicted.h5ad")
sh.pl.report(adata, "report.html")

# %% [markdown]
# ## What next
#
# * The scores are worse than you hoped, or the Gaussian map was kept: see the FAQ of the site.
# * A cell type or a donor without treated cells: [tutorial 2](2_cell_type_held_out.ipynb).
# * Several treatments, or proteins: [tutorial 3](3_three_stimuli.ipynb).
# * Which score to report, and mistakes to avoid: [tutorial 4](4_evaluation.ipynb).
