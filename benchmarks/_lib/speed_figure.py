"""Draw the figure of speed.py: error against seconds, with one line for each method and its name at the end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

FIGURE = Path(__file__).parents[2] / "docs" / "speed.png"
# Name in the figure, colour (Okabe & Ito 2008), line. Solid: ours; dashed: other packages.
STYLES = {
    "hycnn/amortized": ("HyCNN-OT", "#0072B2", "-"),
    "hycnn/amortized/1": ("HyCNN-OT, one network", "#0072B2", ":"),
    "icnn-relu/amortized": ("ICNN in our solver", "#56B4E9", "-"),
    "icnn-quadratic/amortized": ("ICNN, quadratic skip, in our solver", "#000000", "-"),
    "hycnn/minimax": ("our minimax", "#009E73", "-"),
    "hycnn/w2gn": ("our W2GN", "#E69F00", "-"),
    "hycnn/enot": ("our ENOT", "#CC79A7", "-"),
    "hycnn/paper": ("HyCNN paper's loop", "#D55E00", "-"),
    "ott-enot": ("ENOT (OTT)", "#CC79A7", "--"),
    "ott-enot-1e-3": ("ENOT (OTT), rate .001", "#CC79A7", "-."),
    "ott-w2-icnn": ("W2NeuralDual, ICNN (OTT)", "#000000", "--"),
    "ott-w2-mlp": ("W2NeuralDual, MLP (OTT)", "#D55E00", "--"),
    "monge-gap": ("Monge gap (OTT)", "#009E73", "--"),
    "entropic": ("entropic map (OTT)", "#E69F00", "--"),
    "gaussian": ("Gaussian map", "#777777", ":"),
}
# A line with larger errors would press all others together, so it is only named.
HIGHEST = 100.0
TITLES = {
    "w2-16": "Wasserstein-2 benchmark, 16 dimensions, 20,000 cells",
    "scale-50": "T = s∘x, 50 dimensions, 5,000 cells",
}


def draw(table: pd.DataFrame, tasks: Mapping[str, str], as_it_comes: float) -> None:
    """Write the figure.

    Parameters
    ----------
    table
        Columns task, method, budget, seconds, error.
    tasks
        Task to the name of its error.
    as_it_comes
        The budget of fits with their default number of steps: a dot on the line.
    """
    table = table.astype({"budget": float}).replace({"method": {r"entropic-.*": "entropic"}}, regex=True)
    table = table[np.isfinite(table["error"])]
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(6.4 * len(tasks), 4.6), layout="constrained")
        for axes, (task, metric) in zip(figure.subplots(1, len(tasks), squeeze=False)[0], tasks.items(), strict=True):
            _panel(axes, table[table["task"] == task], as_it_comes)
            axes.set(title=TITLES.get(task, task), xlabel="seconds on one core", ylabel=metric)
        FIGURE.parent.mkdir(exist_ok=True)
        figure.savefig(FIGURE, dpi=150)
    print(f"wrote docs/{FIGURE.name}")


def _panel(axes: Axes, rows: pd.DataFrame, as_it_comes: float) -> None:
    ends = {}
    above = []
    right = rows["seconds"].max()
    for method, (label, colour, line) in STYLES.items():
        mine = rows[rows["method"] == method]
        if mine.empty:
            continue
        if method == "gaussian":
            axes.axhline(mine["error"].iloc[0], color=colour, linestyle=line, linewidth=1)
            ends[label] = (right, mine["error"].iloc[0], colour)
            continue
        # Entropic maps of several epsilons: the best that a budget allows. That of all cells takes more than a minute.
        if method == "entropic":
            mine = mine[mine["seconds"] <= 1.5 * mine["budget"]]
        curve = mine.sort_values(["budget", "error"]).drop_duplicates("budget").sort_values("seconds")
        if curve["error"].min() > HIGHEST:
            above.append(f"{label}: {curve['error'].min():,.0f}")
            continue
        width = 2.4 if method == "hycnn/amortized" else 1.3
        axes.plot(curve["seconds"], curve["error"], line, color=colour, linewidth=width, zorder=2 + width)
        default = curve[curve["budget"] == as_it_comes]
        axes.plot(default["seconds"], default["error"], "o", color=colour, markersize=3 + width, zorder=9)
        ends[label] = (*curve[["seconds", "error"]].iloc[-1], colour)
    axes.set(xscale="log", yscale="log")
    axes.set_ylim(top=min(axes.get_ylim()[1], HIGHEST))
    if above:
        axes.text(0.02, 0.02, "above: " + "; ".join(above), transform=axes.transAxes, size=8)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())
        axis.set_minor_locator(NullLocator())
    _label(axes, ends, right)


def _label(axes: Axes, ends: Mapping[str, tuple[float, float, str]], right: float) -> None:
    """Write the names in a column at the right, in the order of the ends of the lines, without overlaps."""
    low, high = np.log(axes.get_ylim())
    names = sorted(ends, key=lambda name: ends[name][1])
    wanted = np.array([(np.log(ends[name][1]) - low) / (high - low) for name in names])
    places = _apart(wanted, least=0.052)
    for name, place in zip(names, places, strict=True):
        x, y, colour = ends[name]
        axes.annotate(
            name, (x, y), (1.03, place), textcoords="axes fraction", color=colour, va="center",
            weight="bold" if name == "HyCNN-OT" else "normal",
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.5, "alpha": 0.6, "shrinkB": 0},
        )  # fmt: skip
    axes.set_xlim(right=right * 1.05)


def _apart(wanted: np.ndarray, *, least: float) -> np.ndarray:
    """Push sorted places apart as little as needed: each group lies around the mean of its wanted places."""
    groups: list[list[float]] = []
    for place in wanted:
        groups.append([place])
        while len(groups) > 1 and _spread(groups[-2], least)[-1] + least > _spread(groups[-1], least)[0]:
            groups[-2:] = [groups[-2] + groups[-1]]
    return np.concatenate([_spread(group, least) for group in groups]) if groups else np.empty(0)


def _spread(group: list[float], least: float) -> np.ndarray:
    return np.mean(group) + least * (np.arange(len(group)) - (len(group) - 1) / 2)
