"""Scores of predictions beside those of simple predictions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from scot_hycnn._anndata._fit_input import check_counts
from scot_hycnn._anndata._results import read_fit
from scot_hycnn._anndata.evaluation._evaluation_input import (
    CEILING,
    REPLICATE,
    SAME_COMPOSITION,
    headline_of,
    read_evaluation,
)
from scot_hycnn._anndata.genes._genes import read_evaluated

from ._figure import (
    PLAIN,
    check_number,
    entitle,
    explain_panels,
    known_labels,
    number,
    panels_of,
    show_or_return,
    which_cells,
    widen,
)

# Method to its name in print and its colour, of Okabe & Ito; black for the prediction that needs no method.
METHODS = {
    "identity": ("no change", "#000000"),
    "mean_shift": ("mean shift", "#CC79A7"),
    "gaussian": ("Gaussian map", "#0072B2"),
    "hycnn_ot": ("prediction (HyCNN-OT)", "#D55E00"),
    # A fit that kept the Gaussian map is drawn once.
    "hycnn_ot = gaussian": ("prediction = Gaussian map", "#D55E00"),
}
# Predictions of others; the last four are those of Tol's muted scheme.
_OTHER_COLORS = ("#009E73", "#E69F00", "#56B4E9", "#882255", "#999933", "#332288", "#AA4499", "#44AA99")
_REPLICATE_GREY, _REPLICATE_LINE = "#BDBDBD", "#707070"
# Metrics of which the first four are drawn if the user names none: closeness of distributions, groups that are kept,
# changes of means, spread, means.
_DEFAULT_METRICS = ("energy_distance", "kept_group", "pearson_delta", "trace_ratio", "r2_mean")
# What is good, by the beginning of a metric's name.
_GOOD = {
    ("energy_distance", "mmd", "sinkhorn", "w2", "l2_uvp", "map_mse"): "← smaller is better",
    ("r2", "pearson", "deg_overlap"): "larger is better, 1 is perfect →",
    ("kept_group",): "larger is better →",
    ("trace_ratio",): "1 is perfect",
}
# The axis is logarithmic beyond this ratio of the largest to the smallest score: on a linear axis others would be at 0.
_WIDE = 20
_NAMES = {
    "kept_group": "share of cells in their own group",
    "pearson_delta": "correlation of changes (Pearson Δ)",
    "trace_ratio": "spread of cells (trace ratio)",
}
_PRINTED = {"r2": "R²", "mean": "of means", "mmd": "MMD", "w2": "W2", "deg": "DEG", "pearson": "Pearson", "delta": "Δ"}

_Scores = dict[tuple[str, str], Any]  # group and method to the row of the table
_Sizes = dict[str, tuple[int, int]]  # group to its numbers of source and target cells


def evaluation(
    adata: AnnData,
    key: str = "hycnn_ot",
    target: str | None = None,
    *,
    metrics: Sequence[str] | str | None = None,
    group: Sequence[str] | str | None = "all, same composition",
    scaled: bool = False,
    n_cols: int = 4,
    title: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool = False,
) -> Axes | list[Axes] | Figure | None:
    """Draw the scores of :func:`scot_hycnn.tl.evaluate`: methods with their intervals, replicate and ceiling.

    The replicate is one half of the observed cells, scored against the other half: no prediction is expected to be
    better. Its band is where 95 % of such halves score. If scores differ by orders of magnitude, the axis is linear
    around 0 and logarithmic beyond. A fit that kept the Gaussian map is drawn once, and its name says so.

    Parameters
    ----------
    adata
        Cells with scores in ``uns['<key>_evaluation']``.
    key
        Key of the fit in ``uns``.
    target
        Label of the target condition; may be left out if there is only one.
    metrics
        Metrics, one panel for each. None takes energy distance, share of cells that keep their group, correlation of
        changes and trace ratio, and R² of means if no groups were scored.
    group
        Groups of cells. ``'all, same composition'`` are all cells, the observed ones weighted to the proportions of
        groups among the source cells, or ``'all'``, all cells as they are, if no groups were scored. None takes the
        groups themselves.
    scaled
        Draw the scaled scores: 0 is no change, 1 the replicate of a distance and the ceiling of a correlation. Metrics
        that have none, or where no response is seen, are not drawn.
    n_cols
        Panels in each row, at most.
    title, ax, show, return_fig
        First line of the title; None names the conditions. Axes to draw into (of one metric), and what to show or
        return, as in scanpy.

    Returns
    -------
    The list of axes if ``show`` is False (the axes if ``ax`` is given), the figure if ``return_fig``.

    Raises
    ------
    ValueError
        If there are no scores or they are damaged, if a target, metric or group was not evaluated, if one of several
        targets has to be named, or if there are more than 200 groups.

    Examples
    --------
    >>> import numpy as np
    >>> import scot_hycnn as sh
    >>> adata = sh.datasets.pbmc_planted(n_cells=400)
    >>> train = np.random.default_rng(0).random(400) < 0.7
    >>> sh.tl.hycnn_ot(adata, "control", "IFN-beta", mask_obs=train, n_pcs=5, potential="gaussian")
    >>> sh.tl.evaluate(adata, mask_obs=~train, n_bootstrap=20)
    >>> ax = sh.pl.evaluation(adata, metrics="energy_distance", show=False)[0]
    """
    check_counts(n_cols=n_cols)
    table = read_evaluation(adata, key)
    targets = list(dict.fromkeys(table["target"]))
    if target is None and len(targets) > 1:
        raise ValueError(f"Several targets were evaluated; pass target= one of {targets}.")
    (target,) = targets if target is None else known_labels("target", [target], targets, "the scores")
    table = without_twin(table[table["target"] == target])
    called = name_of_evaluated(adata, key, target, table)
    # Within a single group all cells keep their group.
    if table[~table["group"].isin(["all", SAME_COMPOSITION])]["group"].nunique() < 2 and metrics is None:
        table = table[table["metric"] != "kept_group"]
    table = _of_groups(without_noise(table), group)
    if scaled:
        table = _scaled(table)
    # Metrics, groups and methods are drawn in the order in which they were evaluated.
    found, groups, methods = (list(dict.fromkeys(table[name])) for name in ("metric", "group", "method"))
    if metrics is None:
        metrics = [metric for metric in _DEFAULT_METRICS if metric in found][:4] or found
    metrics = known_labels("metrics", metrics, found, "the scores")
    # Name in print and colour of each method; replicate and ceiling are none.
    others = [method for method in methods if method not in (*METHODS, REPLICATE, CEILING)]
    colors = dict(zip(others, cycle(_OTHER_COLORS), strict=False))
    styles = METHODS | {method: (method.replace("_", " "), color) for method, color in colors.items()}
    styles = {method: styles[method] for method in methods if method in styles}
    numbers = table[["n_source", "n_target"]].to_numpy(dtype=int).tolist()
    sizes: _Sizes = {group: (n, m) for group, (n, m) in zip(table["group"], numbers, strict=True)}
    check_number(len(groups), f"group={group!r}")
    height = 1.2 + len(groups) * (0.2 + 0.22 * len(styles) if len(groups) > 1 else 0.34 * len(styles))
    place, axes, n_cols = panels_of(ax, len(metrics), n_cols, (2.6, height), f"metrics={metrics}")
    for i, (panel, metric) in enumerate(zip(axes, metrics, strict=True)):
        # No axis has infinity.
        rows = table[table["metric"] == metric].replace([np.inf, -np.inf], np.nan)
        scores: _Scores = {(str(row.group), str(row.method)): row for row in rows.itertuples()}
        _draw(panel, scores, sizes, styles)
        is_log = _scale(panel, scores, is_linear=scaled)
        name, good = metric_in_print(metric)
        good, log = "scaled: 0 no change, 1 best" if scaled else good, " (log scale)" if is_log else ""
        panel.set_xlabel(f"{name}{log}\n{good}".strip(), fontsize="small")
        if i % n_cols:
            panel.set_yticklabels([])
    # The numbers of several groups stand beside them.
    source = read_fit(adata, key).source if key in adata.uns else "source"
    which = f"{called}; in brackets: {source}, {target}"
    if len(groups) == 1:
        whose = "" if groups[0] == "all" else f"{_in_print(groups[0])}; "
        which = whose + which_cells(called, dict(zip((source, target), sizes[groups[0]], strict=True)))
    entitle(place, title or (f"{source} → {target}" if key in adata.uns else target), which)
    # With one group the names of the methods stand at the axis; with several a legend explains their colours.
    keys: dict[str, Artist] = {"score and its 95 % interval": Line2D([], [], color="black", marker="o", markersize=5)}
    if len(groups) > 1:
        keys = {name: Line2D([], [], color=color, marker="o", markersize=5) for name, color in styles.values()}
    if REPLICATE in methods:
        keys["replicate: observed cells against each other"] = Patch(color=_REPLICATE_GREY, alpha=0.6)
    if CEILING in methods:
        keys["ceiling: true means (not drawn where it is noise)"] = Line2D([], [], color=_REPLICATE_LINE, ls="--", lw=1)
    if len(groups) > 1 or isinstance(place, Figure):
        explain_panels(place, axes, list(keys.values()), list(keys))
    if isinstance(place, Figure):
        widen(axes[0], max(text.get_window_extent().width for text in axes[0].get_yticklabels()))
    return show_or_return(axes if ax is None else ax, show=show, return_fig=return_fig)


def _scaled(table: pd.DataFrame) -> pd.DataFrame:
    """Return the scores of one target on the scale of ``scaled``, with their intervals."""
    table = table[table["scaled"].notna()].copy()
    if table.empty:
        raise ValueError("There are no scaled scores: no response is seen, or the scores come from an older version.")
    for _, rows in table.groupby(["group", "metric"]):
        # The scale is linear. The score of no change is 0, or not defined for correlations of changes, which is 0 too.
        nothing = float(np.nan_to_num(rows.loc[rows["method"] == "identity", "value"].iloc[0]))
        replicate = rows[rows["method"] == REPLICATE].iloc[0]
        ends = (rows[["low", "high"]] - nothing) * replicate["scaled"] / (replicate["value"] - nothing)
        table.loc[rows.index, "low"], table.loc[rows.index, "high"] = ends.min(axis=1), ends.max(axis=1)
    return table.assign(value=table["scaled"])


def _of_groups(table: pd.DataFrame, group: Sequence[str] | str | None) -> pd.DataFrame:
    """Return the scores of the groups that the user asks for."""
    if group is None:
        is_group = ~table["group"].isin(["all", SAME_COMPOSITION])
        return table[is_group] if is_group.any() else table[table["group"] == "all"]
    if isinstance(group, str) and group == SAME_COMPOSITION:
        return table[table["group"] == headline_of(table["group"])]
    return table[table["group"].isin(known_labels("group", group, list(dict.fromkeys(table["group"])), "the scores"))]


def name_of_evaluated(adata: AnnData, key: str, target: str, table: pd.DataFrame) -> str:
    """Return what the evaluated cells are called: scores name none, so the cells of figures if there are as many."""
    try:
        results, called = read_evaluated(adata, key, target)
    except ValueError:  # for instance if the scores were stored alone
        return "evaluated cells"
    everyone = table[table["group"] == "all"]
    sizes = {(row.n_source, row.n_target) for row in everyone.itertuples()}
    return called if sizes == {(len(results.source_rows), len(results.target_rows))} else "evaluated cells"


def without_twin(table: pd.DataFrame) -> pd.DataFrame:
    """Return scores of one target in which a fit that kept the Gaussian map stands once, under a name that says so."""
    ours = table[table["method"] == "hycnn_ot"]
    if not len(ours) or (ours["vs_gaussian"].dropna() != 0).any() or ours["vs_gaussian"].isna().all():
        return table
    return table[table["method"] != "gaussian"].replace({"method": {"hycnn_ot": "hycnn_ot = gaussian"}})


def without_noise(table: pd.DataFrame) -> pd.DataFrame:
    """Return scores without ceilings where no response is seen: they come from correlations of noise."""
    return table[(table["method"] != CEILING) | table["scaled"].notna()]


def _draw(ax: Axes, scores: _Scores, sizes: _Sizes, styles: dict[str, tuple[str, str]]) -> None:
    """Draw the methods of each group from top to bottom, and the replicate of the group behind them."""
    groups = list(sizes)
    # Between groups one place stays free.
    step = len(styles) + (1 if len(groups) > 1 else 0)
    small: dict[str, Any] = {"ha": "center", "fontsize": "x-small", "textcoords": "offset points"}
    for i, group in enumerate(groups):
        top, bottom = i * step - 0.5, i * step + len(styles) - 0.5
        if (group, REPLICATE) in scores:
            replicate = scores[group, REPLICATE]
            ax.fill_betweenx(
                [top, bottom], replicate.low, replicate.high, color=_REPLICATE_GREY, alpha=0.6, linewidth=0
            )
            ax.vlines(replicate.value, top, bottom, color=_REPLICATE_LINE, linewidth=1)
            if (group, CEILING) in scores:
                ax.vlines(scores[group, CEILING].value, top, bottom, color=_REPLICATE_LINE, linestyle="--", linewidth=1)
            if i == 0:
                ax.annotate("replicate", (replicate.value, top), (0, 1), color=_REPLICATE_LINE, **small)
        for y, (method, (_, color)) in enumerate(styles.items(), start=i * step):
            score = scores.get((group, method))
            if score is None:
                continue
            if not np.isfinite(score.value):
                ax.text(0.02, y, "not defined", transform=ax.get_yaxis_transform(), va="center", fontsize="x-small")
                continue
            ax.hlines(y, score.low, score.high, color=color, linewidth=1.5, zorder=3)
            ax.plot(score.value, y, "o", color=color, markersize=5, zorder=4)
            if len(groups) == 1:
                ax.annotate(number(score.value), (score.value, y), (0, 4), color="black", **small)
    if len(groups) == 1:
        ax.set_yticks(range(len(styles)), [name for name, _ in styles.values()], **PLAIN)
    else:
        names = [f"{_in_print(group)}\n({n:,}, {m:,})" for group, (n, m) in sizes.items()]
        ax.set_yticks(np.arange(len(names)) * step + (len(styles) - 1) / 2, names, fontsize="small", **PLAIN)
    ax.set_ylim(len(groups) * step - 0.5, -0.7)
    ax.tick_params(axis="y", length=0)
    ax.spines[["top", "right", "left"]].set_visible(False)


def _scale(ax: Axes, scores: _Scores, *, is_linear: bool) -> bool:
    """Make the axis logarithmic beyond a range around 0 if scores differ by orders of magnitude; say if it is."""
    ends = [[score.value, score.low, score.high] for score in scores.values() if np.isfinite(score.value)]
    sizes = [np.nanmax(np.abs(end)) for end in ends]
    # The replicate, or a score that is nearly as good, has to be seen in full with its interval.
    is_log = not is_linear and bool(sizes) and 0 < _WIDE * min(sizes) < max(sizes)
    if is_log:
        first, last = round(np.log10(min(sizes))), int(np.floor(np.log10(max(sizes))))
        # At most three powers of ten have room beside 0.
        step = -(-(last - first + 1) // 3)
        ticks = [0.0, *(10.0**power for power in range(last, first - (step == 1), -step))]
        ax.set_xscale("symlog", linthresh=10.0**first)
        ax.set_xticks(ticks, [number(tick) for tick in ticks])
        ax.minorticks_off()
    else:
        ax.locator_params(axis="x", nbins=4)
    ax.margins(x=0.15)
    ax.tick_params(axis="x", labelsize="x-small")
    if is_log:
        # Small ticks at 2, 3 ... 9 times a power of ten are the sign of a logarithmic axis.
        steps = np.outer(10.0 ** np.arange(first, last + 2), np.arange(1, 10)).ravel()
        ax.set_xticks(steps[steps < ax.get_xlim()[1]], minor=True)
    return is_log


def _in_print(group: str) -> str:
    same = "groups of ten cells or more, in the proportions of the source"
    return {"all": "all cells", SAME_COMPOSITION: same}.get(group, group)


def metric_in_print(metric: str) -> tuple[str, str]:
    """Return the name of a metric in print, and which of its values are good, empty if that is not known."""
    name = _NAMES.get(metric) or " ".join(_PRINTED.get(word, word) for word in metric.split("_"))
    return name, next((good for starts, good in _GOOD.items() if metric.startswith(starts)), "")
