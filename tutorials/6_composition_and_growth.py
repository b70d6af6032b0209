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
# # Composition and growth
#
# A treatment kills some cells, others divide, and every sample catches the types in other proportions. A transport map
# carries *every* control cell to the treated cells. If a part of the treated cells is missing, where do their control
# cells go? This tutorial shows the mistake, two remedies, and what no method can tell from such data.
#
# The cells are 4,000 PBMCs of the package with a planted response, so the true answer is known for each control cell.
# From the treated cells we **remove 70 % of the dendritic cells**, at random: they died, or the protocol lost them.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.neighbors import KNeighborsClassifier

import scot_hycnn as sh

plt.rcParams["figure.dpi"] = 80


def planted(lost_types, share, n_cells=4000):
    """Return planted cells without a share of the treated cells of some types."""
    adata = sh.datasets.pbmc_planted(n_cells=n_cells)
    may_be_lost = (adata.obs["condition"] == "IFN-beta") & adata.obs["cell_type"].isin(lost_types)
    is_lost = may_be_lost & (np.random.default_rng(0).random(adata.n_obs) < share)
    return adata[~is_lost].copy()


adata = planted(["Dendritic"], share=0.7)
pd.crosstab(adata.obs["cell_type"], adata.obs["condition"])

# %% [markdown]
# ## The mistake
#
# We fit as if nothing had happened. The log warns at once, since the file has a column of cell types.

# %%
sh.tl.hycnn_ot(adata, "control", "IFN-beta", key_added="balanced")

# %% [markdown]
# Of the control cells a third are dendritic cells, of the treated cells a seventh. The others have to go somewhere: the
# map turns them into cells of other types. For each predicted cell we ask the nearest true positions of which type they
# are:

# %%
is_control = (adata.obs["condition"] == "control").to_numpy()
cell_type = adata.obs["cell_type"].astype(str).to_numpy()[is_control]
truth = adata.obsm["X_planted"][is_control]
types_at = KNeighborsClassifier(15).fit(truth, cell_type)


def check(key):
    """Return for each type how many of its cells stay in it, and the mean squared error of their positions."""
    predicted = adata.obsm[f"X_{key}"][is_control]
    stays = types_at.predict(predicted) == cell_type
    error = ((predicted - truth) ** 2).sum(axis=1)
    return pd.DataFrame({"stays": stays, "error": error}).groupby(cell_type).mean()


check("balanced").round(2)

# %% [markdown]
# Measured data have no such truth. Would the scores show the mistake?

# %%
sh.tl.evaluate(adata, "balanced", groupby="cell_type", n_bootstrap=50)
scores = sh.get.evaluation(adata, "balanced").query("metric == 'energy_distance' and group.str.startswith('all')")
scores.pivot(index="group", columns="method", values="value").round(2)

# %% [markdown]
# The row `'all'` does not: the predicted cells as a whole lie where the treated cells lie. The row
# `'all, same composition'` does, and so does the warning about cells that change their group
# ([tutorial 4](4_evaluation.ipynb)). Always look at these two.
#
# ## If you know the types: group_key
#
# With `group_key` each type has the same share in both conditions. Nothing is estimated, so this is the remedy to take
# whenever there are labels that the treatment does not change.

# %%
sh.tl.hycnn_ot(adata, "control", "IFN-beta", group_key="cell_type", key_added="groups")

# %% [markdown]
# ## If you do not: unbalanced
#
# Sometimes there are no labels, or the interesting population has none. *Unbalanced* transport may leave cells out where
# carrying them costs more than a penalty. `unbalanced="auto"` uses a penalty only if two halves of the cells show that
# cells grow differently by more than sampling explains, and if it saves clearly more than a smooth response would.

# %%
sh.tl.hycnn_ot(adata, "control", "IFN-beta", unbalanced="auto", key_added="weighted")

validation = sh.get.model(adata, "weighted").validation
{name: validation[name] for name in ("unbalanced", "unbalanced_savings", "unbalanced_change", "unbalanced_limit")}

# %% [markdown]
# It chose a penalty. Each cell now has a weight, `obs["weighted_weight"]`, and each control cell a growth,
# `obs["weighted_growth"]`: 1 if cells like it have the same share in both conditions, 0.5 if half of it. The labels were
# not used in the fit; here they only sort the figure.

# %%
sh.pl.growth(adata, "weighted", groupby="cell_type")

# %% [markdown]
# The type that lost cells is left of the line, most others are right of it, because shares add up to one. Is it right?
# The true growth is the ratio of the two shares:

# %%
shares = pd.crosstab(adata.obs["cell_type"], adata.obs["condition"], normalize="columns")
growth = pd.DataFrame(
    {
        "true": shares["IFN-beta"] / shares["control"],
        "estimated": adata.obs.groupby("cell_type", observed=True)["weighted_growth"].mean(),
        "control cells": adata.obs.loc[is_control, "cell_type"].value_counts(),
    }
)
growth.sort_values("true").round(2)

# %% [markdown]
# It finds without labels which population shrinks. But the penalty still allows cells to be carried over, here between
# dendritic cells and monocytes, which lie side by side. So **estimates of neighbours are drawn towards each other**:
# dendritic cells seem to lose less than they did, and monocytes seem to lose some. `basis=` draws the same for each cell,
# on any embedding. It is the figure to look at if there are no types: a population that shrinks may be a part of a type.

# %%
sh.pl.growth(adata, "weighted", basis="pca")

# %% [markdown]
# ## Which remedy is better?
#
# The errors of the three fits, against the truth:

# %%
fits = {"balanced": "nothing done", "weighted": 'unbalanced="auto"', "groups": "group_key"}
checks = pd.concat({label: check(key) for key, label in fits.items()}, axis=1)
errors = checks.xs("error", axis=1, level=1).sort_values("nothing done")
errors.loc["all cells"] = [
    np.average(errors[label], weights=pd.Series(cell_type).value_counts()[errors.index]) for label in errors
]

figure, ax = plt.subplots(figsize=(6, 3.8), layout="constrained")
for label, color, marker in zip(errors, ["#D55E00", "#E69F00", "#0072B2"], "os^", strict=True):
    ax.plot(errors[label], range(len(errors)), marker, color=color, label=label)
ax.set_yticks(range(len(errors)), errors.index)
ax.set(xscale="log", xlabel="squared error of predicted cells (log scale)", title="Errors with and without a remedy")
ax.spines[["top", "right"]].set_visible(False)
ax.legend(frameon=False, fontsize="small")
plt.show()

checks.xs("stays", axis=1, level=1).loc[["CD14+ Monocyte", "Dendritic"]].round(2)

# %% [markdown]
# Labels and weights are about equally good here, and both are far better than nothing. Labels need no estimate: use them
# where you have them. If there are labels and cells may die *within* a
# type, use both: `group_key="cell_type", unbalanced="auto"` estimates the weights in each type.
#
# ## What auto does not see
#
# `"auto"` is careful, since weights add noise where nothing was lost. If only 30 % of the monocytes are lost, a small
# part of all cells, it does nothing. (Its decision does not depend on the networks, so we fit the Gaussian map alone.)

# %%
few = planted(["CD14+ Monocyte"], share=0.3)
for penalty in ("auto", 0.3):
    key = f"penalty_{penalty}"
    sh.tl.hycnn_ot(few, "control", "IFN-beta", unbalanced=penalty, potential="gaussian", key_added=key)
    found = sh.get.model(few, key).validation
    print(f"unbalanced={penalty!r}: penalty {found['unbalanced']}, mass {found['transported_mass']:.2f}")

few.obs.groupby("cell_type", observed=True)["penalty_0.3_growth"].mean().round(2).sort_values().head(3)

# %% [markdown]
# If you know that cells were lost, give a number, as in the second line; or, better, name the types.
#
# ## What cannot be told apart
#
# **How many cells there are.** Sequencing gives shares. Here B cells have a growth above 1, although no B cell
# divided. If you counted cells, say what the whole population became, with `growth=`. Here a quarter was removed:

# %%
left = (~is_control).sum() / is_control.sum()
options = {"unbalanced": 0.3, "growth": left, "potential": "gaussian"}
sh.tl.hycnn_ot(adata, "control", "IFN-beta", key_added="counted", **options)
print(f"{left:.0%} of the cells are left")
adata.obs.groupby("cell_type", observed=True)["counted_growth"].mean().round(2).sort_values()

# %% [markdown]
# Now 1 means as many cells as before: B and T cells are all there, and the dendritic cells are fewer (and the monocytes
# beside them seem to be, as above).
#
# **Death and sampling.** The cells above are the same whether they died or the protocol lost them. The growth is the
# same too.
#
# **Death and conversion.** Next we plant something else: monocytes do not respond, but 70 % of them *become* dendritic
# cells. Only the column of types before treatment, which nobody has, would show it.

# %%
controls = sh.datasets.pbmc_planted(n_cells=8000)[:4000].copy()  # cells before treatment
rng = np.random.default_rng(0)
controls.obs["condition"] = pd.Categorical(np.where(rng.random(4000) < 0.5, "before", "after"))
types = controls.obs["cell_type"].astype(str).to_numpy()
converts = (controls.obs["condition"] == "after") & (types == "CD14+ Monocyte") & (rng.random(4000) < 0.7)
dendritic = np.flatnonzero(types == "Dendritic")
controls.obsm["X_pca"][converts] = controls.obsm["X_pca"][rng.choice(dendritic, converts.sum())]

sh.tl.hycnn_ot(controls, "before", "after", unbalanced=0.3, potential="gaussian")
controls.obs.groupby("cell_type", observed=True)["hycnn_ot_growth"].mean().round(2)[["CD14+ Monocyte", "Dendritic"]]

# %% [markdown]
# The fit reports that monocytes died and dendritic cells divided. Nothing of this happened, and no fit of two samples can
# know it: both stories give the same cells. Balanced transport tells the other story. A choice between them needs
# another measurement: counts, barcodes of lineages, or a stain of dead cells.
#
# ## In short
#
# | you know | use |
# |---|---|
# | types that the treatment does not change | `group_key="cell_type"` |
# | no types, and proportions may differ | `unbalanced="auto"`; a number if you know that cells were lost |
# | types, and cells may die within a type | both |
# | cells convert from one type to another | neither: the balanced fit |
# | the number of cells before and after | also `growth=` |
#
# Scores of fits with different penalties are not comparable with each other, because each is a score of the mass that it
# transports. The guide on composition, death and growth explains what is estimated. Next: how to show a result honestly,
# [tutorial 4](4_evaluation.ipynb).
