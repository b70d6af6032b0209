"""Measure the theory (HyCNN paper, sec. 3): sup-error of x^2 on [0, 1] against depth and parameters.

'by hand' are the weights of _lib/square.py, evaluated in double precision; 'trained' is the best of 16 starts of Adam;
'at best' is the lower bound for any ICNN of the same widths, 1/(8 k^2) with the largest number k of pieces that it can
have. Draws docs/approximation.png.

    python benchmarks/approximation.py
    python benchmarks/approximation.py --quick
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import matplotlib as mpl
import pandas as pd
import torch
from _lib.rows import run, show
from _lib.square import error_bound, hycnn, square
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor
from tqdm import trange

from scot_hycnn.potentials import ICNN, Potential

FIGURE = Path(__file__).parent.parent / "docs" / "approximation.png"
WIDTHS = {2: range(1, 13), 8: range(1, 5)}
TRAINED = {2: range(1, 9), 8: range(1, 5)}
N_STARTS = 16
# Name, colour (Okabe & Ito 2008), marker, line.
STYLES = {
    ("icnn", "at best"): ("ICNN, lower bound", "#D55E00", "", "-"),
    ("icnn", "trained"): ("ICNN, trained", "#D55E00", "o", ":"),
    ("hycnn", "by hand"): ("HyCNN, weights by hand", "#0072B2", "", "-"),
    ("hycnn", "trained"): ("HyCNN, trained", "#0072B2", "o", ":"),
}


def icnn(widths: tuple[int, ...]) -> ICNN:
    """The ICNN of the theorem."""
    return ICNN(1, widths, activation="relu", strong_convexity=0.0)


def lower_bound(widths: tuple[int, ...]) -> float:
    """1/(8 k^2): a unit of the first layer adds one kink, a later one two at most, being a convex function's ReLU."""
    n_pieces = 1 + widths[0] + 2 * sum(widths[1:])
    return 1 / (8 * n_pieces**2)


def sup_error(f: Potential, theta: Tensor) -> Tensor:
    """Largest error on a fine grid of [0, 1] of each of the K functions."""
    # 3 * 2^14 intervals: up to 2^12 pieces, their ends and middles are points of the grid.
    x = torch.linspace(0, 1, 3 * 2**14 + 1, dtype=torch.float64)
    errors = [
        (f.value(f.weights(one[None]), x[None, :, None])[0] - x**2).abs().max() for one in theta.detach().double()
    ]
    return torch.stack(errors)


def train(f: Potential, max_steps: int) -> Tensor:
    """Least squares on a grid of [0, 1] by Adam, from 16 starts side by side; shape (16, P)."""
    x = torch.linspace(0, 1, 257, dtype=torch.float64).expand(N_STARTS, -1)
    theta = f.init(N_STARTS, torch.Generator().manual_seed(0)).double().requires_grad_()
    adam = torch.optim.Adam([theta], lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, max_steps, eta_min=1e-6)
    for _ in trange(max_steps, desc=f"{type(f).__name__} {f.hidden}", leave=False, disable=None):
        adam.zero_grad()
        (f.value(f.weights(theta), x[..., None]) - x**2).square().mean(1).sum().backward()
        adam.step()
        schedule.step()
    return theta


def measure(family: str, how: str, width: int, depth: int, steps: int) -> dict[str, object]:
    """Error of one network, or the bound on it."""
    widths = (width,) * depth
    f = hycnn(widths) if family == "hycnn" else icnn(widths)
    if how == "at best":
        error = lower_bound(widths)
    else:
        error = float(sup_error(f, square(widths) if how == "by hand" else train(f, steps)).min())
    theory = error_bound(widths) if family == "hycnn" else lower_bound(widths)
    return {"n_parameters": f.n_parameters, "n_layers": depth, "error": error, "theory": theory}


def draw(table: pd.DataFrame) -> None:
    """Error against depth at each width, and against parameters."""
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(9.6, 3.8), layout="constrained")
        panels = figure.subplots(1, 3, sharey=True, width_ratios=[1.2, 0.8, 1.2])
        for axes, width in zip(panels, WIDTHS, strict=False):
            _lines(axes, table[table["width"] == width], "depth")
            axes.set(title=f"width {width}", xlabel="layers")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        panels[0].set(ylabel="sup-error of x² on [0, 1]", yscale="log")
        _lines(panels[2], table[table["how"] != "trained"], "n_parameters")
        panels[2].set(title="width 2 (thin) and 8 (thick)", xlabel="parameters", xscale="log")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
        FIGURE.parent.mkdir(exist_ok=True)
        figure.savefig(FIGURE, dpi=150)
    print(f"wrote docs/{FIGURE.name}")


def _lines(axes: Axes, rows: pd.DataFrame, x: str) -> None:
    for (family, how), (name, colour, marker, line) in STYLES.items():
        chosen = rows[(rows["family"] == family) & (rows["how"] == how)]
        for width, one in chosen.groupby("width"):
            label = name if width == chosen["width"].min() else None
            thickness = 2.4 if x == "n_parameters" and width == 8 else 1.2
            axes.plot(one[x], one["error"], line, marker=marker, ms=3.5, lw=thickness, color=colour, label=label)


def slope(table: pd.DataFrame) -> pd.DataFrame:
    """Factor by which one more layer divides the error, the mean over the depths measured."""
    rows = [
        {"family": family, "how": how, "width": width, "factor": _factor(one)}
        for (family, how, width), one in table.groupby(["family", "how", "width"], sort=False)
        if len(one) > 1
    ]
    return pd.DataFrame(rows)


def _factor(one: pd.DataFrame) -> float:
    first, last = one.iloc[0], one.iloc[-1]
    return math.exp(math.log(first["error"] / last["error"]) / (last["depth"] - first["depth"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=3000, help="steps of Adam")
    parser.add_argument("--quick", action="store_true", help="shallow networks and few steps, under a minute")
    parser.add_argument("--fresh", action="store_true", help="measure again what the CSV holds")
    options = parser.parse_args()
    if options.quick:
        options.steps = 300
    cases = [
        {
            "family": family,
            "how": how,
            "width": width,
            "depth": depth,
            "steps": options.steps if how == "trained" else 0,
        }
        for family, how in STYLES
        for width, depths in (TRAINED if how == "trained" else WIDTHS).items()
        for depth in depths
        if depth <= 3 or not options.quick
    ]
    name = "approximation_quick" if options.quick else "approximation"
    table = run(name, cases, measure, fresh=options.fresh or options.quick)
    show(table[["family", "how", "width", "depth", "n_parameters", "error", "theory", "seconds"]])
    show(slope(table))
    if not options.quick:
        draw(table)


if __name__ == "__main__":
    main()
