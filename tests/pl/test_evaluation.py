"""pl.evaluation: points, intervals, replicate, scale and labels."""

from __future__ import annotations

from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex

import scot_hycnn as sh

METHODS = ["no change", "mean shift", "Gaussian map", "prediction (HyCNN-OT)"]


def points(ax):
    return [(line.get_xdata()[0], line.get_ydata()[0]) for line in ax.get_lines()]


def lines(ax):
    """Intervals and replicates."""
    return [line.get_segments()[0] for line in ax.collections if isinstance(line, LineCollection)]


def ticks(ax):
    return [text.get_text() for text in ax.get_yticklabels()]


def test_methods_with_their_intervals(adata, scores):
    axes = sh.pl.evaluation(adata, metrics=["energy_distance", "trace_ratio"], show=False)
    wanted = [(value, place) for place, value in enumerate(list(scores["energy_distance"].values())[:-1])]
    assert points(axes[0]) == wanted
    assert ticks(axes[0]) == METHODS
    assert ticks(axes[1]) == [""] * 4
    assert axes[0].get_ylim()[0] > axes[0].get_ylim()[1]  # from top to bottom
    replicate, *intervals = lines(axes[0])
    assert replicate[:, 0].tolist() == [scores["energy_distance"]["replicate"]] * 2
    for (value, place), interval in zip(wanted, intervals, strict=True):
        np.testing.assert_allclose(interval, [[value - 0.01, place], [value + 0.01, place]])
    written = [text.get_text() for text in axes[0].texts]
    assert written == ["replicate", "7.07", "0.667", "0.031", "\N{MINUS SIGN}0.0035"]


def test_axis_labels_name_the_good_values(adata):
    axes = sh.pl.evaluation(adata, show=False)
    assert [ax.get_xlabel() for ax in axes] == [
        "energy distance (log scale)\n← smaller is better",
        "correlation of changes (Pearson Δ)\nlarger is better, 1 is perfect →",
        "spread of cells (trace ratio)\n1 is perfect",
    ]
    adata.uns["hycnn_ot_evaluation"]["metric"][:] = "mmd"
    adata.uns["hycnn_ot_evaluation"]["metric"][-5:] = "brand_new"
    axes = sh.pl.evaluation(adata, group="T cells", show=False)
    assert [ax.get_xlabel() for ax in axes] == ["MMD\n← smaller is better", "brand new"]


def test_every_metric_of_the_package_is_known(adata):
    names = [name for name in sh.metrics.__all__ if name != "evaluate"]
    for name in names:
        adata.uns["hycnn_ot_evaluation"]["metric"] = np.array([name] * 45)
        assert "\n" in sh.pl.evaluation(adata, ax=plt.figure().add_subplot(), show=False).get_xlabel(), name
        plt.close("all")


def test_a_score_a_hundred_times_the_best_leaves_the_rest_readable(adata):
    distance, ratio = sh.pl.evaluation(adata, metrics=["energy_distance", "trace_ratio"], show=False)
    assert distance.get_xscale() == "symlog"
    assert ratio.get_xscale() == "linear"
    distance.get_figure().draw_without_rendering()
    places = distance.transAxes.inverted().transform(distance.transData.transform(points(distance)))[:, 0]
    assert -np.diff(places).max() > 0.1  # everyone apart
    names_do_not_collide(distance)
    labels = [text.get_text() for text in distance.get_xticklabels() if text.get_visible()]
    assert labels[0] == "0"
    assert {"0.1", "1"} <= {*labels} <= {"0", "0.01", "0.1", "1", "\N{MINUS SIGN}0.01"}


def names_do_not_collide(ax):
    texts = [text for text in ax.get_xticklabels() if text.get_visible() and text.get_text()]
    boxes = sorted((text.get_window_extent() for text in texts), key=lambda box: box.x0)
    assert all(a.x1 < b.x0 for a, b in pairwise(boxes))


@pytest.mark.parametrize(("scale", "group"), [(1e-4, "all"), (1e-2, None), (1, "all"), (1e3, None)])
def test_names_of_ticks_do_not_collide(adata, scale, group):
    found = adata.uns["hycnn_ot_evaluation"]
    for name in ("value", "low", "high"):
        found[name][found["method"] == "identity"] *= scale
    figure = sh.pl.evaluation(adata, group=group, return_fig=True)
    figure.draw_without_rendering()
    for ax in figure.axes:
        names_do_not_collide(ax)


@pytest.mark.parametrize("n", [200, 120])
def test_the_title_says_which_cells_were_evaluated(adata, n):
    adata.uns["hycnn_ot_evaluation"]["n_source"][:] = n
    lines = sh.pl.evaluation(adata, return_fig=True).get_suptitle().split("\n")
    assert lines[0] == "control → IFN-beta"
    # The fit has 200 cells of each condition; others are not known.
    assert lines[1] == f"{'cells of the fit' if n == 200 else 'evaluated cells'}: {n} control, 200 IFN-beta"
    adata.obs["split"] = pd.Categorical(np.where(np.arange(400) % 4 == 0, "test", "train"))
    adata.uns["hycnn_ot"]["params"]["split_key"] = "split"
    for name in ("n_source", "n_target"):
        adata.uns["hycnn_ot_evaluation"][name][:] = 50
    assert "held-out cells: 50 control, 50 IFN-beta" in sh.pl.evaluation(adata, return_fig=True).get_suptitle()


def test_a_score_that_is_not_defined_is_marked(adata):
    (ax,) = sh.pl.evaluation(adata, metrics="pearson_delta", show=False)
    assert "not defined" in [text.get_text() for text in ax.texts]
    assert len(points(ax)) == 3


def test_scores_without_intervals(adata):
    for end in ("low", "high"):
        adata.uns["hycnn_ot_evaluation"][end][:] = np.nan
    (ax,) = sh.pl.evaluation(adata, metrics="energy_distance", show=False)
    assert ax.get_xscale() == "symlog"
    ax.get_figure().draw_without_rendering()
    assert len(points(ax)) == 4


def test_a_ceiling_is_drawn_where_a_response_is_seen_only(adata, new_scores):
    """Without a response a correlation of changes is one of noise, and its ceiling may lie below the replicate."""
    table = pd.DataFrame(new_scores())
    ceiling = table[(table["metric"] == "pearson_delta") & (table["method"] == "replicate")].assign(method="ceiling")
    ceiling["value"] = ceiling["group"].map({"all": 0.995, "B cells": 0.998, "T cells": 0.3})
    ceiling["scaled"] = ceiling["group"].map({"all": 1.0, "B cells": 1.0})
    table = pd.concat([table, ceiling], ignore_index=True)
    adata.uns["hycnn_ot_evaluation"] = {name: column.to_numpy() for name, column in table.items()}
    (ax,) = sh.pl.evaluation(adata, metrics="pearson_delta", group=None, show=False)
    drawn = [line for line in ax.collections if isinstance(line, LineCollection) and line.get_linestyle()[0][1]]
    assert [line.get_segments()[0][0, 0] for line in drawn] == [0.998]


@pytest.mark.parametrize("group", [None, ["B cells", "T cells"]])
def test_groups_have_places_and_methods_have_colours(adata, group):
    figure = sh.pl.evaluation(adata, group=group, return_fig=True)
    ax = figure.axes[0]
    assert ticks(ax) == ["B cells\n(200, 200)", "T cells\n(200, 200)"]
    places = [place for _, place in points(ax)]
    assert places == [0, 1, 2, 3, 5, 6, 7, 8]
    colors = [to_hex(line.get_color()) for line in ax.get_lines()]
    assert colors[:4] == colors[4:]
    assert len(set(colors)) == 4
    legend = figure.legends[0]
    assert [text.get_text() for text in legend.get_texts()][:4] == METHODS
    assert [to_hex(handle.get_color()) for handle in legend.legend_handles[:4]] == colors[:4]
    _, ax = plt.subplots()
    sh.pl.evaluation(adata, group=group, metrics="trace_ratio", ax=ax, show=False)
    assert [text.get_text() for text in ax.get_legend().get_texts()][:4] == METHODS


def test_all_cells_where_there_are_no_groups(adata, new_scores):
    adata.uns["hycnn_ot_evaluation"] = new_scores(groups=("all",))
    axes = sh.pl.evaluation(adata, group=None, show=False)
    assert ticks(axes[0]) == METHODS


@pytest.mark.parametrize(("groups", "shown"), [(("all",), False), (("all", "B"), False), (("all", "B", "T"), True)])
def test_cells_in_their_own_group_are_drawn_if_there_are_several_groups(adata, new_scores, groups, shown):
    adata.uns["hycnn_ot_evaluation"] = found = new_scores(groups=groups)
    found["metric"] = np.where(found["metric"] == "trace_ratio", "kept_group", found["metric"])
    labels = [ax.get_xlabel() for ax in sh.pl.evaluation(adata, show=False)]
    assert any("own group" in label for label in labels) == shown
    assert len(sh.pl.evaluation(adata, metrics="kept_group", show=False)) == 1


@pytest.mark.parametrize(("n_cols", "is_free"), [(2, True), (3, False)])
def test_the_legend_takes_the_place_that_the_panels_leave_free(adata, n_cols, is_free):
    figure = sh.pl.evaluation(adata, group=["all", "B cells"], n_cols=n_cols, return_fig=True)
    figure.draw_without_rendering()
    legend = figure.legends[0].get_window_extent()
    panels = [ax.get_tightbbox() for ax in figure.axes]
    assert not any(legend.overlaps(panel) for panel in panels)
    assert (legend.y1 > min(panel.y0 for panel in panels)) == is_free


def test_an_unknown_method_gets_a_name_and_a_colour(adata):
    method = adata.uns["hycnn_ot_evaluation"]["method"].astype("<U20")
    method[method == "gaussian"] = "entropic_map"
    adata.uns["hycnn_ot_evaluation"]["method"] = method
    (ax,) = sh.pl.evaluation(adata, metrics="trace_ratio", show=False)
    assert "entropic map" in ticks(ax)
    assert len({line.get_color() for line in ax.get_lines()}) == 4


def test_one_of_several_targets(adata, new_scores):
    adata.uns["hycnn_ot_evaluation"] = new_scores(targets=("IFN-beta", "IL-2"))
    with pytest.raises(ValueError, match=r"pass target= one of \['IFN-beta', 'IL-2'\]"):
        sh.pl.evaluation(adata, show=False)
    (ax,) = sh.pl.evaluation(adata, target="IL-2", metrics="trace_ratio", show=False)
    assert len(points(ax)) == 4


# ---- the row that counts, and the Gaussian map


def test_the_row_of_the_same_composition_is_drawn_if_there_is_one(adata, new_scores):
    adata.uns["hycnn_ot_evaluation"] = new_scores(groups=("all, same composition", "all", "B cells"))
    found = adata.uns["hycnn_ot_evaluation"]
    found["value"][(found["group"] == "all") & (found["method"] == "hycnn_ot")] = 77
    (ax,) = sh.pl.evaluation(adata, metrics="trace_ratio", show=False)
    assert 77 not in [x for x, _ in points(ax)]
    assert "proportions" in ax.figure.get_suptitle()
    (ax,) = sh.pl.evaluation(adata, group="all", metrics="trace_ratio", show=False)
    assert 77 in [x for x, _ in points(ax)]
    (ax,) = sh.pl.evaluation(adata, group=None, metrics="trace_ratio", show=False)
    assert len(points(ax)) == len(METHODS)  # of the one group


def test_a_fit_that_kept_the_gaussian_map_is_drawn_once(adata):
    table = adata.uns["hycnn_ot_evaluation"]
    for name in ("value", "vs_gaussian", "vs_gaussian_low", "vs_gaussian_high"):
        table[name][table["method"] == "hycnn_ot"] = table[name][table["method"] == "gaussian"]
    for name in ("vs_gaussian", "vs_gaussian_low", "vs_gaussian_high"):
        table[name][np.isin(table["method"], ["hycnn_ot", "gaussian"])] = 0.0
    axes = sh.pl.evaluation(adata, metrics=["energy_distance", "trace_ratio"], show=False)
    assert len(points(axes[0])) == 3
    assert "Gaussian" in ticks(axes[0])[-1]
    assert "prediction" in ticks(axes[0])[-1]


def test_a_fitted_gaussian_map_has_exactly_the_scores_of_the_baseline(adata):
    sh.tl.hycnn_ot(adata, "control", "IFN-beta", n_pcs=3, potential="gaussian", key_added="closed")
    sh.tl.evaluate(adata, "closed", n_bootstrap=2)
    (ax,) = sh.pl.evaluation(adata, "closed", metrics="energy_distance", show=False)
    assert len(points(ax)) == 3
