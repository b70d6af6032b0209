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
# # A screen: many conditions, few cells
#
# A screen has drugs, doses and times, and one hundred cells of each. Fitted alone, most of these conditions are too
# small for networks. They respond by pathways that they share, though, so one model can learn from the cells of all of
# them. This tutorial goes from a file to a table of the conditions that respond, to those that act alike, and to a dose
# and a time that nobody measured.
#
# The cells are real PBMCs, and the responses are made up, so that every answer can be compared with the truth.

# %%
import tempfile

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scanpy as sc

import scot_hycnn as sh

plt.rcParams["figure.dpi"] = 80

path = f"{tempfile.gettempdir()}/screen.h5ad"
sh.datasets.screen_planted(n_conditions=24, n_cells=150).write_h5ad(path)
adata = sc.read_h5ad(path)
adata.obs[["condition", "drug", "dose", "hours"]].drop_duplicates().head(8)

# %% [markdown]
# Four drugs were given at three doses and two times. We put one condition aside, as if it had not been measured:

# %%
unmeasured = "drug B, 1 uM, 24 h"
measured = adata[adata.obs["condition"] != unmeasured].copy()

# %% [markdown]
# ## Fit
#
# One call fits all conditions of the column. `covariate_keys` are columns of `obs` that have one value in each
# condition; they are what later tells the model where a new dose or time lies.

# %%
sh.tl.hycnn_screen(
    measured, "control", groupby="condition", covariate_keys=["drug", "dose", "hours"], n_pcs=15, predict=False
)
pd.Series(measured.uns["hycnn_screen"]["choices"]).value_counts()

# %% [markdown]
# Held-out cells have chosen for each condition: the dictionary of networks that all conditions share, the Gaussian map,
# or own networks.
#
# ## Which conditions respond?

# %%
table = sh.get.summary(measured)
columns = ["condition", "displacement", "no_change", "predicted", "replicate", "p_adjusted", "verdict"]
table[columns].sort_values("no_change", ascending=False).head(8).round(3)

# %% [markdown]
# A condition responds if a permutation test can tell its cells from the control cells, after a correction for the number
# of conditions. It is predicted as well as a replicate if the predicted cells are as near to the observed ones as other
# cells of the same condition would be. The low doses move so few cells that 150 of them show nothing, and drug D does
# nothing at all, as was planted:

# %%
drug = table["condition"].str[:6]
pd.crosstab(drug, table["verdict"])

# %% [markdown]
# The same by cell type. Dots are as large as the response, and grey points are conditions without one:

# %%
sh.pl.screen(measured, groupby="cell_type", sort="cluster")

# %% [markdown]
# Drugs A and B move monocytes and dendritic cells; drug C moves T cells.
#
# ## Which conditions act alike?

# %%
sh.pl.similarity(measured)

# %% [markdown]
# The conditions of A and B form one block. Their pathway is the same one, whatever the dose. Drug C moves other cells
# in another direction.
#
# ## A dose that was not measured
#
# `tl.transport` takes covariates in place of the name of a condition:

# %%
sh.tl.transport(measured, "hycnn_screen", covariates={"drug": "drug B", "dose": 1, "hours": 24}, key_added="unseen")

control = (measured.obs["condition"] == "control").to_numpy()
x, observed = measured.obsm["X_pca"][control, :15], adata[adata.obs["condition"] == unmeasured].obsm["X_pca"][:, :15]
predicted = measured.obsm["X_unseen_drug_drug_B_dose_1_hours_24"][control]
pd.Series(
    {
        "no change": sh.metrics.energy_distance(x, observed),
        "prediction without any cell of this condition": sh.metrics.energy_distance(predicted, observed),
    },
    name="energy distance",
).round(3)

# %% [markdown]
# The screen knows how far this condition is from those that it has seen, in units of the usual distance between
# neighbours. A dose far beyond all others is refused:

# %%
print(measured.uns["unseen_unseen_drug_drug_B_dose_1_hours_24"]["distance"])
try:
    sh.tl.transport(measured, "hycnn_screen", covariates={"drug": "drug B", "dose": 1e6, "hours": 24})
except ValueError as error:
    print(error)

# %% [markdown]
# ## A dose curve
#
# How far do the monocytes move at any dose? Here the truth is known at every dose, also between the measured ones.

# %%
screen = sh.solver.Screen.from_dict(measured.uns["hycnn_screen"]["screen"])
monocytes = control & (measured.obs["cell_type"] == "CD14+ Monocyte").to_numpy()
full = measured.obsm["X_pca"][monocytes]
cells = full[:, :15]
doses = np.geomspace(0.1, 10, 15)

figure, ax = plt.subplots(figsize=(5, 3.2), layout="constrained")
for hours, color in ((6, "#56B4E9"), (24, "#D55E00")):
    maps = [screen.at({"drug": "drug B", "dose": dose, "hours": hours})[0] for dose in doses]
    lengths = [np.linalg.norm((fitted.transport(cells) - cells).mean(axis=0)) for fitted in maps]
    truths = [sh.datasets.screen_response(adata, "drug B", dose=dose, hours=hours)(full) for dose in doses]
    true_lengths = [np.linalg.norm((moved[:, :15] - cells).mean(axis=0)) for moved in truths]
    ax.plot(doses, lengths, color=color, label=f"predicted, {hours} h")
    ax.plot(doses, true_lengths, "--", color=color, label=f"truth, {hours} h")
ax.set(xscale="log", xlabel="dose of drug B (uM)", ylabel="mean displacement of monocytes")
ax.legend(frameon=False, fontsize="small")
plt.show()

# %% [markdown]
# Between the doses the curve follows the truth as far as one hundred and fifty cells allow. Each map on it is the
# gradient of a convex function, so cells can be moved along it and back.
#
# What to do with your data: the page "Screens" of the user guide says when to use one model and when many,
# what is refused and why.
