"""Fit four pairs of shapes in the plane, by HyCNN and by ICNN in the same solver, and draw docs/shapes.png.

The pairs of the HyCNN paper's figures, each with 2000 cells. Energy distance of the moved cells to fresh cells of the
other shape, forward and backward, beside that of the Gaussian map and of two samples of the same shape.

    python benchmarks/shapes.py
    python benchmarks/shapes.py --quick
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from _lib.known_maps import Cells
from _lib.methods import fit
from _lib.rows import run, show
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from scot_hycnn import metrics, solver

FIGURE = Path(__file__).parent.parent / "docs" / "shapes.png"
N_CELLS = 2000
METHODS = {"hycnn/amortized": "HyCNN", "icnn/amortized": "ICNN"}
SOURCE, TARGET, OBSERVED = "#0072B2", "#D55E00", "#BBBBBB"


def checkerboard(n: int, rng: np.random.Generator, squares: np.ndarray) -> np.ndarray:
    """Draw uniform points on unit squares around some centres."""
    return squares[rng.integers(len(squares), size=n)] + rng.uniform(-0.5, 0.5, (n, 2))


def five_squares(n: int, rng: np.random.Generator) -> np.ndarray:
    """The corners and the centre of a board of nine."""
    return checkerboard(n, rng, np.array([(-1, -1), (-1, 1), (0, 0), (1, -1), (1, 1)], float))


def four_squares(n: int, rng: np.random.Generator) -> np.ndarray:
    """The edges of a board of nine."""
    return checkerboard(n, rng, np.array([(-1, 0), (0, -1), (0, 1), (1, 0)], float))


def normal(n: int, rng: np.random.Generator) -> np.ndarray:
    """Standard normal."""
    return rng.normal(size=(n, 2))


def half_moon(n: int, rng: np.random.Generator) -> np.ndarray:
    """Upper half of a circle of radius 2, with noise."""
    angle = rng.uniform(0, np.pi, n)
    return 2 * np.stack([np.cos(angle), np.sin(angle) - 0.5], 1) + 0.15 * rng.normal(size=(n, 2))


def turned_half_moon(n: int, rng: np.random.Generator) -> np.ndarray:
    """The same, turned by a right angle."""
    return half_moon(n, rng) @ np.array([[0.0, 1.0], [-1.0, 0.0]])


def eight_gaussians(n: int, rng: np.random.Generator) -> np.ndarray:
    """On a ring of radius 3."""
    angle = rng.integers(8, size=n) * np.pi / 4
    return 3 * np.stack([np.cos(angle), np.sin(angle)], 1) + 0.25 * rng.normal(size=(n, 2))


Sampler = Callable[[int, np.random.Generator], np.ndarray]
PAIRS: dict[str, tuple[Sampler, Sampler]] = {
    "five squares to four": (five_squares, four_squares),
    "normal to half-moon": (normal, half_moon),
    "half-moon to turned half-moon": (half_moon, turned_half_moon),
    "normal to eight Gaussians": (normal, eight_gaussians),
}


def draw_cells(pair: str, seed: int, *, held_out: bool = False) -> tuple[Cells, Cells]:
    """Return source and target cells for the fit, or held-out cells of the same shapes."""
    rng = np.random.default_rng([seed, int(held_out)])
    source, target = PAIRS[pair]
    return source(N_CELLS, rng).astype(np.float32), target(N_CELLS, rng).astype(np.float32)


def measure(pair: str, method: str, seed: int, max_steps: int | None) -> dict[str, object]:
    """Fit one pair, return energy distances on held-out cells, and keep the map for the figure."""
    x_held, y_held = draw_cells(pair, seed, held_out=True)
    x, y = draw_cells(pair, seed)
    started = time.perf_counter()
    fitted = fit(method, x, y, rng=seed, max_steps=max_steps)
    seconds = time.perf_counter() - started
    FITTED[pair, method] = fitted
    return {
        "forward": metrics.energy_distance(fitted.transport(x_held), y_held),
        "backward": metrics.energy_distance(fitted.inverse(y_held), x_held),
        "floor": metrics.energy_distance(y, y_held),
        "blend": fitted.blend,
        "steps": fitted.params["n_steps"],
        "seconds": seconds,
    }


FITTED: dict[tuple[str, str], solver.TransportMap] = {}


def draw(fitted: Mapping[tuple[str, str], solver.TransportMap], seed: int) -> None:
    """Draw a row for each pair: the cells, then for each method the moved cells both ways and contours of f and f*."""
    with mpl.rc_context({"font.size": 9}):
        figure = Figure(figsize=(15, 1.72 * len(PAIRS) + 0.5), layout="constrained")
        for row, pair in zip(figure.subplots(len(PAIRS), 1 + 4 * len(METHODS)), PAIRS, strict=True):
            x, y = draw_cells(pair, seed, held_out=True)
            _points(row[0], x, SOURCE)
            _points(row[0], y, TARGET)
            row[0].set_ylabel(pair.replace(" to ", "\nto "))
            row[0].set_title("source and target")
            half = 1.05 * max(np.quantile(np.abs(x), 0.999), np.abs(y).max())
            for (method, name), first in zip(METHODS.items(), range(1, len(row), 4), strict=True):
                transport_map = fitted[pair, method]
                axes = row[first : first + 4]
                _points(axes[0], y, OBSERVED)
                _points(axes[0], transport_map.transport(x), TARGET)
                _points(axes[1], x, OBSERVED)
                _points(axes[1], transport_map.inverse(y), SOURCE)
                _contours(axes[2], half, transport_map.potential)
                _contours(axes[3], half, transport_map.conjugate)
                for panel, title in zip(axes, ("T(x)", "T⁻¹(y)", "f", "f*"), strict=True):
                    panel.set_title(f"{name}: {title}")
            for axes in row:
                axes.set(xticks=[], yticks=[], aspect="equal", xlim=(-half, half), ylim=(-half, half))
                if row[0].get_subplotspec().rowspan.start:
                    axes.set_title("")
        FIGURE.parent.mkdir(exist_ok=True)
        figure.savefig(FIGURE, dpi=110)
    # A palette: a third of the size, and the eye sees no difference.
    Image.open(FIGURE).convert("RGB").quantize(64).save(FIGURE, optimize=True)
    print(f"wrote docs/{FIGURE.name}")


def _points(axes: Axes, cells: Cells, colour: str) -> None:
    axes.scatter(*cells.T, s=1.5, color=colour, linewidths=0)


def _contours(axes: Axes, half: float, function: Callable[[Cells], np.ndarray]) -> None:
    line = np.linspace(-half, half, 60, dtype=np.float32)
    across, up = np.meshgrid(line, line)
    values = function(np.stack([across.ravel(), up.ravel()], 1)).reshape(across.shape)
    # Even steps of the root, for f grows like |x|^2; none at the bottom, where f* is flat over a gap of the target.
    levels = np.square(np.linspace(0, 1, 14)[2:-1]) * np.ptp(values)
    axes.contour(across, up, values - values.min(), levels=levels, cmap="viridis", linewidths=0.8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-steps", type=int, help="the default suits the members")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quick", action="store_true", help="fewer steps, under two minutes")
    options = parser.parse_args()
    if options.quick:
        options.max_steps = 100
    torch.set_num_threads(options.threads)
    cases = [
        {"pair": pair, "method": method, "seed": options.seed, "max_steps": options.max_steps}
        for pair in PAIRS
        for method in ("gaussian", *METHODS)
    ]
    # All rows are measured again, because the figure needs the maps.
    table = run("shapes_quick" if options.quick else "shapes", cases, measure, fresh=True)
    show(table[["pair", "method", "forward", "backward", "floor", "blend", "steps", "seconds"]])
    if not options.quick:
        draw(FITTED, options.seed)


if __name__ == "__main__":
    main()
