"""Scores of predictions beside those of simple answers."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple, cast

import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from scot_hycnn._anndata import as_labels, check_counts, listed, matching, read_evaluation

from ._panels import check_number, check_one_panel, grid
from ._show import finish
from ._text import PLAIN

FLOOR = "floor"
_FLOOR_GREY, _FLOOR_LINE = "#BDBDBD", "#707070"
# Okabe & Ito, apart for the answer that needs no method.
METHODS = {
    "identity": ("identity", "#000000"),
    "mean_shift": ("mean shift", "#CC79A7"),
    "gaussian": ("Gaussian map", "#0072B2"),
    "hycnn_ot": ("HyCNN-OT", "#D55E00"),
}
_OTHER_COLORS = ("#009E73", "#E69F00", "#56B4E9", "#F0E442")
# Shown if the user names none: closeness of clouds, of means, of changes, and of spread.
_USUAL = ("energy_distance", "r2_mean", "pearson_delta", "trace_ratio")
# What is good, by how a metric's name begins.
_GOOD = {
    ("energy_distance", "mmd", "sinkhorn", "w2", "l2_uvp", "map_mse"): "← smaller is better",
    ("r2", "pearson", "deg_overlap"): "larger is better, 1 is perfect →",
    ("trace_ratio",): "1 is perfect",
}
# Where the largest score is so many times the best one's, a linear axis shows nothing but the largest.
_WIDE = 20
# Decades that an axis has room to name.
_DECADES = 4
_PRINTED = {"r2": "R²", "mean": "of means", "mmd": "MMD", "w2": "W2", "deg": "DEG", "pearson": "Pearson", "delta": "Δ"}


class _Score(NamedTuple):
    value: float
    low: float
    high: float


# Group and method to score.
_Scores = dict[tuple[str, str], _Score]


def evaluation(
    adata: AnnData,
    key: str = "hycnn_ot",
    target: str | None = None,
    *,
    metrics: Sequence[str] | str | None = None,
    group: Sequence[str] | str | None = "all",
    n_cols: int = 4,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool = False,
) -> Axes | list[Axes] | Figure | None:
    r"""Draw the scores of :func:`scot_hycnn.tl.evaluate`: methods with their intervals, and the floor in grey.

    The floor is the score of one half of the observed cells against the other: no prediction can be expected to do
    better. What is good is said below each axis. Where scores differ by orders of magnitude, the axis is linear around
    0 and logarithmic beyond.

    Parameters
    ----------
    adata
        Cells with scores in ``uns``.
    key
        Of the fit that was evaluated: scores lie in ``uns['<key>_evaluation']``.
    target
        Label of the target condition; may be None if there is one.
    metrics
        One panel for each. None takes the energy distance, R² of means, Pearson correlation of changes and trace
        ratio, as far as they were computed.
    group
        Groups of cells, ``'all'`` for all together; None takes all groups and leaves the cells together out, unless
        there is nothing else.
    n_cols
        Panels in a row.
    ax
        Draw here, if there is one metric.
    show
        Show the figure and return None; None follows ``scanpy.settings.autoshow``.
    return_fig
        Return the figure.

    Returns
    -------
    The list of axes if ``show`` is False (the axes if ``ax`` is given), the figure if ``return_fig``.

    Raises
    ------
    ValueError
        If there are no scores or they are damaged, there is no such target, metric or group, several targets and none
        named, ``ax`` is given for several metrics, more than 200 groups are to be drawn, or ``n_cols`` is not
        a whole number of 1 or more.

    Examples
    --------
    >>> import numpy as np
    >>> import scot_hycnn as sh
    >>> adata = sh.datasets.pbmc_planted(n_cells=400)
    >>> scores = {"identity": 0.376, "gaussian": 0.033, "hycnn_ot": -0.011, "floor": -0.012}
    >>> value = np.array(list(scores.values()))
    >>> adata.uns["hycnn_ot_evaluation"] = {  # as tl.evaluate writes it
    ...     "target": np.full(4, "IFN-beta"),
    ...     "group": np.full(4, "all"),
    ...     "method": np.array(list(scores)),
    ...     "metric": np.full(4, "energy_distance"),
    ...     "value": value,
    ...     "low": value - 0.01,
    ...     "high": value + 0.01,
    ...     "vs_gaussian": value - 0.033,
    ...     "vs_gaussian_low": value - 0.038,
    ...     "vs_gaussian_high": value - 0.028,
    ...     "n_source": np.full(4, 200),
    ...     "n_target": np.full(4, 200),
    ... }
    >>> ax = sh.pl.evaluation(adata, metrics=["energy_distance"], show=False)[0]
    >>> ax.get_xlabel()
    'energy distance\n← smaller is better'
    """
    check_counts(n_cols=n_cols)
    table = _of_target(read_evaluation(adata, key), target)
    metrics = [metrics] if isinstance(metrics, str) else metrics
    metrics = _usual(table) if metrics is None else _known(table, "metric", metrics)
    table = table[table["group"].isin(_groups(table, group))]
    check_one_panel(ax, len(metrics), f"metrics={list(metrics)}")
    check_number(table["group"].nunique(), f"group={group!r}")
    groups, methods = (list(dict.fromkeys(table[name])) for name in ("group", "method"))
    methods = [method for method in methods if method != FLOOR]
    height = 1.2 + len(groups) * (0.2 + 0.22 * len(methods) if len(groups) > 1 else 0.34 * len(methods))
    figure, axes = (None, [ax]) if ax is not None else grid(len(metrics), n_cols, (2.6, height))
    styles = _styles(methods)
    for i, (panel, metric) in enumerate(zip(axes, metrics, strict=True)):
        scores = _scores(table[table["metric"] == metric])
        _draw(panel, scores, groups, styles)
        _scale(panel, scores)
        panel.set_xlabel("\n".join(filter(None, metric_in_print(metric))))
        if i % n_cols:
            panel.set_yticklabels([])
    if len(groups) > 1:
        _add_legend(axes[0], figure, styles)
    drawn = axes if figure is not None else axes[0]
    return cast("Axes | list[Axes] | Figure | None", finish(drawn, show=show, return_fig=return_fig))


def _of_target(table: pd.DataFrame, target: str | None) -> pd.DataFrame:
    targets = list(dict.fromkeys(table["target"]))
    if target is None:
        if len(targets) > 1:
            raise ValueError(f"Several targets were evaluated; pass target= one of {targets}.")
        target = targets[0]
    return table[table["target"] == _known(table, "target", [target])[0]]


def _known(table: pd.DataFrame, column: str, values: Sequence[Hashable]) -> list[str]:
    """What is called like this in the table, where all labels are text: 1 is found as '1.0' too."""
    found = list(dict.fromkeys(table[column]))
    places = [matching(value, found) for value in values]
    unknown = [value for value, own in zip(values, places, strict=True) if len(own) != 1]
    if unknown or not places:
        raise ValueError(f"{column}: {listed(unknown or values)} was not evaluated; there are {listed(found)}.")
    return [found[own[0]] for own in places]


def _usual(table: pd.DataFrame) -> list[str]:
    found = list(dict.fromkeys(table["metric"]))
    return [metric for metric in _USUAL if metric in found] or found


def _groups(table: pd.DataFrame, group: Sequence[str] | str | None) -> list[str]:
    if group is None:
        found = list(dict.fromkeys(table["group"]))
        return [label for label in found if label != "all"] or found
    return _known(table, "group", as_labels(group))


def _scores(table: pd.DataFrame) -> _Scores:
    numbers = (table[name].to_numpy(dtype=float) for name in _Score._fields)
    numbers = (np.where(np.isfinite(column), column, np.nan).tolist() for column in numbers)  # no axis has infinity
    return {
        (group, method): _Score(*score)
        for group, method, *score in zip(table["group"], table["method"], *numbers, strict=True)
    }


def _styles(methods: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Method to its name in print and its colour."""
    others = [method for method in methods if method not in METHODS]
    spare = {
        method: (method.replace("_", " "), _OTHER_COLORS[i % len(_OTHER_COLORS)]) for i, method in enumerate(others)
    }
    return {method: ({**METHODS, **spare})[method] for method in methods}


def _draw(ax: Axes, scores: _Scores, groups: Sequence[str], styles: dict[str, tuple[str, str]]) -> None:
    """Methods from top to bottom within each group, and the group's floor behind them."""
    step = len(styles) + (1 if len(groups) > 1 else 0)
    for i, group in enumerate(groups):
        top, bottom = i * step - 0.5, i * step + len(styles) - 0.5
        if (group, FLOOR) in scores:
            floor = scores[group, FLOOR]
            ax.fill_betweenx([top, bottom], floor.low, floor.high, color=_FLOOR_GREY, alpha=0.6, linewidth=0)
            ax.vlines(floor.value, top, bottom, color=_FLOOR_LINE, linewidth=1)
            if i == 0:
                _annotate(ax, FLOOR, floor.value, top, _FLOOR_LINE)
        for k, (method, (_, color)) in enumerate(styles.items()):
            if (group, method) in scores:
                _draw_score(ax, scores[group, method], i * step + k, color, annotated=len(groups) == 1)
    if len(groups) == 1:
        ax.set_yticks(range(len(styles)), [name for name, _ in styles.values()], **PLAIN)
    else:
        ax.set_yticks(np.arange(len(groups)) * step + (len(styles) - 1) / 2, groups, **PLAIN)
    ax.set_ylim(len(groups) * step - 0.5, -0.7)
    ax.tick_params(axis="y", length=0)
    ax.spines[["top", "right", "left"]].set_visible(False)


def _draw_score(ax: Axes, score: _Score, place: float, color: str, *, annotated: bool) -> None:
    if not np.isfinite(score.value):
        ax.text(0.02, place, "not defined", transform=ax.get_yaxis_transform(), va="center", fontsize="x-small")
        return
    ax.hlines(place, score.low, score.high, color=color, linewidth=1.5, zorder=3)
    ax.plot(score.value, place, "o", color=color, markersize=5, zorder=4)
    if annotated:
        _annotate(ax, _print(score.value), score.value, place, "black")


def _annotate(ax: Axes, text: str, x: float, y: float, color: str) -> None:
    offset = (0, 4 if color == "black" else 1)
    ax.annotate(text, (x, y), offset, textcoords="offset points", ha="center", fontsize="x-small", color=color)


def _scale(ax: Axes, scores: _Scores) -> None:
    """Linear; or, where methods differ by orders of magnitude, linear around 0 and logarithmic beyond."""
    ax.margins(x=0.15)
    sizes = [np.nanmax(np.abs(score)) for score in scores.values() if np.isfinite(score.value)]
    # The floor, or what is nearly as good, has to be seen in full, interval and all.
    if not sizes or not 0 < _WIDE * min(sizes) < max(sizes):
        return
    least, most = round(np.log10(min(sizes))), int(np.floor(np.log10(max(sizes))))
    ax.set_xscale("symlog", linthresh=10.0**least)
    ax.margins(x=0.15)
    step = -(-(most - least + 1) // _DECADES)
    ticks = [0.0, *(10.0**power for power in range(least, most + 1, step))]
    if min(score.low for score in scores.values()) < -(10.0**least):
        ticks.append(-(10.0**least))
    ax.xaxis.set_major_locator(FixedLocator(ticks))
    ax.xaxis.set_major_formatter(FixedFormatter([_print(tick) for tick in ticks]))
    ax.xaxis.set_minor_locator(NullLocator())


def _print(number: float) -> str:
    return f"{number:.3g}".replace("-", "\N{MINUS SIGN}")


def metric_in_print(metric: str) -> tuple[str, str]:
    """Name of a metric as it is printed, and what of it is good, empty if that is not known."""
    name = " ".join(_PRINTED.get(word, word) for word in metric.split("_"))
    return name, next((good for starts, good in _GOOD.items() if metric.startswith(starts)), "")


def _add_legend(ax: Axes, figure: Figure | None, styles: dict[str, tuple[str, str]]) -> None:
    """Above all panels of a figure of our own, else within the axes."""
    handles = [Line2D([], [], color=color, marker="o", markersize=5, label=name) for name, color in styles.values()]
    if figure is None:
        ax.legend(handles=handles, fontsize="x-small", framealpha=0.7)
    else:
        figure.legend(handles=handles, loc="outside upper center", ncols=4, frameon=False, fontsize="small")
