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
# From counts to predicted genes, one step at a time, with every output. Copy the cells; all names that you have to change
# are in the first one.
#
# ## What you need
#
# One AnnData with the control cells and the treated cells, one column of `obs` that says which is which, and, if you
# have them, cell types. Some hundred cells a condition are enough for a linear answer, a thousand for more. If you have
# patients and want to predict one who was not treated, begin with the guide *A new patient* instead.

# %%
import numpy as np
import pandas as pd
import scanpy as sc
from scipy.sparse import csr_matrix

import scot_hycnn as sh

file = None  # "my_cells.h5ad", with counts; None takes PBMCs of the package
condition, control, treated = "condition", "control", "IFN-beta"  # a column of obs, and two of its labels
cell_type = "cell_type"  # a column of obs
counts_per_cell = 2e3  # to normalise to; these cells have 765 genes, and 1e4 is usual for all genes
test_size = 0.5  # part of the cells that is held out for the scores; 0.2 is usual

# %% [markdown]
# The cells of the package are log-normalised, so counts are made from them, about 20,000 a cell. Their response is
# *planted*: the cells are real, and the response of monocytes, dendritic and NK cells is made up.

# %%
if file is None:
    planted = sh.datasets.pbmc_planted(n_cells=8000)
    counts = np.random.default_rng(0).poisson(10 * np.expm1(planted.X.toarray()))
    adata = sc.AnnData(csr_matrix(counts.astype(np.float32)), obs=planted.obs, var=planted.var[[]])
else:
    adata = sc.read_h5ad(file)
adata

# %%
pd.crosstab(adata.obs[cell_type], adata.obs[condition])

# %% [markdown]
# ## 1. Normalise
#
# As always in scanpy. Distances between cells are computed on log values; a fit warns if it gets counts.

# %%
sc.pp.normalize_total(adata, target_sum=counts_per_cell)
sc.pp.log1p(adata)

# %% [markdown]
# ## 2. Hold cells out
#
# A score is fair if the scored cells influenced nothing. `split` labels a part of the cells of each type and condition as
# `'test'`, here half of them.

# %%
sh.pp.split(adata, stratify=[condition, cell_type], test_size=test_size)
pd.crosstab(adata.obs["split"], adata.obs[condition])

# %% [markdown]
# ## 3. Components
#
# `pp.pca` fits the components on the training cells, and projects all cells. 30 to 50 are usual. If there are more than
# 3,000 genes, components are made from the highly variable ones of the training cells; the others are predicted too.

# %%
if adata.n_vars > 3000:
    training = adata[adata.obs["split"] == "train"]
    chosen = sc.pp.highly_variable_genes(training, n_top_genes=2000, inplace=False)
    adata.var["highly_variable"] = chosen["highly_variable"].to_numpy()  # pp.pca uses this column
sh.pp.pca(adata, n_comps=30, split_key="split", key_added="X_train_pca")
adata.obsm["X_train_pca"].shape

# %% [markdown]
# ## 4. Fit
#
# The two labels say from where to where. `group_key` keeps the proportions of cell types apart from the response; always
# give it if you have cell types.

# %%
sh.tl.hycnn_ot(adata, control, treated, group_key=cell_type, use_rep="X_train_pca", split_key="split")

# %%
sh.get.model(adata)

# %% [markdown]
# `networks` or `gaussian kept` says which map was chosen. Both are results: the Gaussian map, a linear one (a shift and a
# stretch), is kept if the networks are not clearly better on *validation cells*, a tenth of the training cells that is kept
# apart for this choice. The gain is in units of the loss and can only be compared with its error. The energy distances of
# so few cells are noisy, and negative ones are zero within noise; the scores below are the ones to look at.
#
# ## 5. How good is it?
#
# `evaluate` compares the predicted with the observed cells that were held out, beside simple answers. Read the verdict
# first: does a type respond, and is its response predicted?

# %%
sh.tl.evaluate(adata)
sh.get.summary(adata)[["group", "no_change", "predicted", "replicate", "verdict"]].round(2)

# %% [markdown]
# Monocytes, dendritic and NK cells respond, as was planted, and most of their response is predicted. The other types do
# not respond. There no change is the best answer, and every map adds noise: the largest distances are those of the
# CD34+ and memory cells, of which there are few. So do not interpret the prediction of a type without a response. (These
# distances are measured on at most 300 cells of each type, those below on all.)
#
# The figure compares the prediction with simple answers and with a replicate: two halves of the treated cells, compared
# with each other. A prediction is as good as a replicate if its line overlaps the grey band.

# %%
sh.pl.evaluation(adata)

# %% [markdown]
# The energy distance compares whole clouds of cells. There HyCNN-OT is nearer than the Gaussian map, and in the
# correlation of the changes of genes (Pearson Δ) they are not: the Gaussian map is made to get means right, and this
# score sees only means. The same as numbers, for one score and all cell types:

# %%
scores = sh.get.evaluation(adata)
distances = scores[scores["metric"] == "energy_distance"]
columns = ["identity", "mean_shift", "gaussian", "hycnn_ot", "replicate"]
distances.pivot_table(index="group", columns="method", values="value", observed=True)[columns].round(2)

# %% [markdown]
# (`identity` is no change.)

# %% [markdown]
# ## 6. Look at the cells
#
# Held-out cells before, predicted and observed, in the two components that the map changes most. The predicted cells
# should lie where the observed ones lie. With a UMAP in your file, pass `basis="umap"`.

# %%
sh.pl.embedding(adata, color=cell_type)

# %% [markdown]
# Which types respond, and how far their cells move (pale: no response is seen):

# %%
sh.pl.displacement(adata)

# %% [markdown]
# ## 7. Genes
#
# The changes that were observed and predicted, of the genes that change most, and the same in each type. The p values
# count cells: they say what other cells of the same samples would show, not other patients.

# %%
sh.pl.deg(adata)

# %%
genes = sh.get.deg(adata, groupby=cell_type)
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
# * A patient without treated cells: the guide *A new patient* of the site. A cell type without treated cells:
#   [tutorial 2](2_cell_type_held_out.ipynb).
# * Several treatments, or proteins: [tutorial 3](3_three_stimuli.ipynb).
# * Which score to report, and mistakes to avoid: [tutorial 4](4_evaluation.ipynb).
