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
# # A screen
#
# A screen has many conditions with few cells each: drugs, doses, times. Three questions come first. Which conditions
# respond? Which act alike? What would a dose do that was not measured?
#
# The cells here are PBMCs of the package with a **planted** screen: four drugs, three doses, two times, 200 cells in each
# condition. Drugs A and B act on the same pathway, C on another one, and **drug D does nothing**. So every answer can be
# checked. Conditions have names such as `drug A, 1 uM, 24 h`, and `obs` has the parts as columns.

# %%
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scanpy as sc

import scot_hycnn as sh

plt.rcParams["figure.dpi"] = 80

everything = sh.datasets.screen_planted(n_conditions=24, n_cells=200)
pd.crosstab([everything.obs["drug"], everything.obs["hours"]], everything.obs["dose"])

# %% [markdown]
# One condition is put aside, as if nobody had measured it. It comes back at the end.

# %%
unmeasured = "drug A, 1 uM, 24 h"
adata = everything[everything.obs["condition"] != unmeasured].copy()

# %% [markdown]
# ## Fit
#
# `tl.hycnn_screen` fits one model to all conditions. Each condition has its own map, and all maps are made of the same
# networks, so a condition with 200 cells learns from the cells of the others. Columns in `covariate_keys` say what is
# known of a condition. `predict=False` stores the maps only: moved cells of hundreds of conditions take gigabytes.

# %%
design = ["drug", "dose", "hours"]
options = {"groupby": "condition", "covariate_keys": design, "n_pcs": 20, "max_steps": 300, "predict": False}
sh.tl.hycnn_screen(adata, "control", **options)

# %% [markdown]
# (`tl.hycnn_ot` with a list of targets fits maps that share nothing. It is the right choice if each condition has
# thousands of cells.)
#
# ## Which conditions respond?
#
# `get.summary` has one row for each condition, and for each cell type if you name the column. A permutation test asks
# whether there is a response at all; p values are corrected for the number of conditions. If there is one, the distance
# of predicted and observed cells is compared with that of a replicate.

# %%
table = sh.get.summary(adata, groupby="cell_type")
overall = table[table["group"] == "all"].set_index("condition")
overall["verdict"].value_counts()

# %%
overall[["no_change", "predicted", "replicate", "p_adjusted", "verdict"]].round(2).sort_values("no_change").tail(12)

# %% [markdown]
# The test is made within cell types, so a shift of their proportions is not taken for a response. No condition of drug D
# is called, which is right, and none of the lowest dose: with 200 cells these responses are too small to be seen. *No
# response* means that these cells show none, not that there is none.
#
# `pl.screen` draws the same. A dot is a condition and a cell type: its area is the strength of the response, its colour
# the part that is predicted, a black edge says as near as a replicate, a grey point no
# response, and a hollow dot a response of too few cells to score.
# With so many places, one or two are coloured by chance: p values are corrected over the types of a condition.

# %%
sh.pl.screen(adata, groupby="cell_type")

# %% [markdown]
# Drugs A and B act on monocytes and dendritic cells, C on T cells, and longer times and higher doses act more. This is
# what was planted, but for NK cells, which A and B move too: there are too few of them to show it.
#
# ## Which act alike?
#
# `pl.similarity` compares the directions in which the maps move the cells, for the conditions that respond.

# %%
sh.pl.similarity(adata, groupby="cell_type")

# %% [markdown]
# Conditions are ordered by clustering. A and B make one block and C another, whatever dose and time. (Leave out what does
# not respond, as the figure does: the cosine of two conditions without a response is one of noise.) `get.similarity`
# returns the numbers, also the distances of the maps, which know the strength too.
#
# ## How good are the maps?
#
# The true map of each condition is known here. The table has the mean squared error of simple answers and of the screen.
# The Gaussian map is fitted to each condition alone.

# %%
is_control = (adata.obs["condition"] == "control").to_numpy()
x = adata.obsm["X_pca"][is_control, :20]


def true_cells(drug, dose, hours):
    moved = sh.datasets.screen_response(everything, drug, dose=dose, hours=hours)
    return moved(adata.obsm["X_pca"][is_control])[:, :20]


errors = {}
for condition, cells in adata.obs[~is_control].groupby("condition", observed=True):
    y, truth = adata[cells.index].obsm["X_pca"][:, :20], true_cells(*cells.iloc[0][design])
    answers = {
        "no change": x,
        "mean shift": x + y.mean(axis=0) - x.mean(axis=0),
        "Gaussian map": sh.solver.fit(x, y, potential="gaussian").transport(x),
        "screen": sh.get.model(adata, "hycnn_screen", target=condition).transport(x),
    }
    errors[condition] = {name: sh.metrics.map_mse(points, truth) for name, points in answers.items()}
errors = pd.DataFrame(errors).T

called = overall["verdict"] != "no response"
errors.groupby(called.map({True: "response seen", False: "no response seen"}).reindex(errors.index)).mean().round(1)

# %% [markdown]
# Where a response is seen, the screen and the Gaussian map are the nearest answers, and hardly differ here. Where none is
# seen, **no change is the best answer**: any map of so few cells mostly moves noise. So read the verdict before you use a
# map.
#
# ## A dose that was not measured
#
# The condition that was put aside lies between measured doses. Give its covariates to `tl.transport`:

# %%
sh.tl.transport(adata, "hycnn_screen", covariates={"drug": "drug A", "dose": 1, "hours": 24})
predicted = adata.obsm["X_hycnn_screen_drug_drug_A_dose_1_hours_24"][is_control]
distance = adata.uns["hycnn_screen_unseen_drug_drug_A_dose_1_hours_24"]["distance"]

truth = true_cells("drug A", 1, 24)
observed = everything[everything.obs["condition"] == unmeasured].obsm["X_pca"][:, :20]
higher = sh.get.model(adata, "hycnn_screen", target="drug A, 10 uM, 24 h").transport(x)
print(f"distance from the nearest measured condition: {distance:.1f}")
pd.DataFrame(
    {
        name: {
            "squared error": sh.metrics.map_mse(points, truth),
            "energy distance": sh.metrics.energy_distance(points, observed),
        }
        for name, points in {"no change": x, "map of 10 uM": higher, "predicted dose": predicted}.items()
    }
).T.round(2)

# %% [markdown]
# The first column needs the truth, the second only the cells that were put aside; in your screen, put a condition aside
# and look at the second. The figure shows the cells in the two components that change most; grey are the control cells.
# The predicted cells move in the right direction, and less far than the observed ones:

# %%
axes_shown = np.argsort(np.abs((truth - x).mean(axis=0)))[-2:][::-1]
figure, panels = plt.subplots(1, 3, figsize=(9, 3), sharex=True, sharey=True, layout="constrained")
for panel, (name, points, color) in zip(
    panels,
    [("control", x, "0.4"), ("predicted at 1 uM, 24 h", predicted, "#D55E00"), ("observed", observed, "#0072B2")],
    strict=True,
):
    panel.scatter(*x[:, axes_shown].T, s=3, color="0.85")
    panel.scatter(*points[:200, axes_shown].T, s=5, color=color)
    panel.set(title=name, xlabel=f"PC{axes_shown[0] + 1}", xticks=[], yticks=[])
panels[0].set_ylabel(f"PC{axes_shown[1] + 1}")
plt.show()

# %% [markdown]
# The distance is 1 for an ordinary step between neighbours of the design. What cannot be checked is refused: a drug that
# was not seen, or a dose far from all measured ones.

# %%
try:
    sh.tl.transport(adata, "hycnn_screen", covariates={"drug": "drug Z", "dose": 1, "hours": 24})
except ValueError as error:
    print(error)

# %% [markdown]
# ## A time course of real cells
#
# HEK293T cells that overexpress one of twelve proteins, 0, 5, 15, 30 and 60 minutes after EGF; 34 signalling proteins
# were measured by mass cytometry (Lun et al. 2017, repository `BodenmillerGroup/Adnet`, arcsinh-transformed). The cells
# are read from the folder that the environment variable `SCOT_HYCNN_DATA` names. Without it the same code runs on the
# planted screen: drugs stand for proteins, doses for minutes. The text and the outputs are those of the real cells.
#
# Each protein has its own cells without EGF, and `plate_key` makes them the source of its maps. The 15 minutes of the
# cells with an empty vector are put aside.

# %%
if "SCOT_HYCNN_DATA" in os.environ:
    course = sc.read_h5ad(Path(os.environ["SCOT_HYCNN_DATA"]) / "adnet_egf.h5ad")
    asked = {"protein": "Empty", "minutes": 15.0}
else:
    late = everything[everything.obs["hours"] != 6]
    course = sc.AnnData(
        late.obsm["X_pca"][:, :10], obs=late.obs[["drug"]].rename(columns={"drug": "protein"}).astype(str)
    )
    course.obs["minutes"] = late.obs["dose"].map({0.0: 0.0, 0.1: 5.0, 1.0: 15.0, 10.0: 30.0}).to_numpy()
    course.obs.loc[course.obs["minutes"] == 0, "protein"] = np.repeat([f"drug {one}" for one in "ABCD"], 200)
    asked = {"protein": "drug A", "minutes": 15.0}
chosen = course.obs.groupby(["protein", "minutes"], observed=True).sample(frac=1 / 3, random_state=0).index
course = course[chosen].copy()
parts = course.obs["protein"].astype(str) + ", " + course.obs["minutes"].map("{:g} min".format).astype(str)
course.obs["condition"] = np.where(course.obs["minutes"] == 0, "0 min", parts)


def cells_at(minutes):
    return course[(course.obs["protein"] == asked["protein"]) & (course.obs["minutes"] == minutes)].X


start, observed = cells_at(0), cells_at(asked["minutes"])
measured = course[course.obs["condition"] != f"{asked['protein']}, 15 min"].copy()
options = {"covariate_keys": ["protein", "minutes"], "plate_key": "protein", "use_rep": "X", "predict": False}
sh.tl.hycnn_screen(measured, "0 min", groupby="condition", potential="gaussian", **options)
screen = sh.solver.Screen.from_dict(measured.uns["hycnn_screen"]["screen"])
maps = {minutes: screen.at({**asked, "minutes": minutes})[0] for minutes in (2.0, 5.0, 10.0, 15.0, 20.0, 30.0)}

answers = {
    "no change": start,
    "cells of 5 min": cells_at(5),
    "cells of 30 min": cells_at(30),
    "mean of both maps": (maps[5].transport(start) + maps[30].transport(start)) / 2,
    "predicted time": maps[15].transport(start),
}
pd.Series(
    {name: sh.metrics.energy_distance(points, observed) for name, points in answers.items()}, name="energy distance"
).to_frame().round(3)

# %% [markdown]
# Means of the three proteins that change most, over time. The line is predicted; at the open circle no cell was used.

# %%
figure, panels = plt.subplots(1, 3, figsize=(9, 2.8), layout="constrained")
for panel, column in zip(panels, np.argsort(-np.abs(observed.mean(axis=0) - start.mean(axis=0)))[:3], strict=True):
    means = [start.mean(axis=0)[column], *(one.transport(start).mean(axis=0)[column] for one in maps.values())]
    panel.plot([0, *maps], means, color="#D55E00", label="predicted")
    panel.plot(
        [0, 5, 30], [cells_at(one)[:, column].mean() for one in (0, 5, 30)], "o", color="#0072B2", label="measured"
    )
    panel.plot(15, observed[:, column].mean(), "o", mfc="none", color="#0072B2", label="put aside")
    panel.set(title=course.var_names[column], xlabel="minutes after EGF")
panels[0].set_ylabel("mean")
panels[-1].legend(frameon=False)
plt.show()

# %% [markdown]
# ## With your screen
#
# ```python
# sh.tl.hycnn_screen(adata, "DMSO", groupby="condition", covariate_keys=["drug", "dose"], predict=False)
# sh.get.summary(adata, groupby="cell_type").to_csv("screen.csv", index=False)
# sh.tl.hycnn_screen(new_plate, "DMSO", groupby="condition", model=adata)  # more conditions, the same networks
# ```
#
# * Read the verdicts first; more cells a condition show smaller responses.
# * Hold cells or conditions out before you say how good a map is: [tutorial 4](4_evaluation.ipynb).
# * Types that change their proportions, or cells that die: [tutorial 6](6_composition_and_growth.ipynb).
