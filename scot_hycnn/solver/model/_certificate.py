"""How far a map is what it claims to be, measured on cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ._map import TransportMap

Array = NDArray[np.float64]

# Nearer cells are one cell to a map that computes in float32: what is left of their difference is rounding.
_RESOLUTION = 1000 * float(np.finfo(np.float32).eps)


def certificate(fitted: TransportMap, x: Array, y: Array, rng: int) -> dict[str, float]:
    """See TransportMap.certify.

    Parameters
    ----------
    fitted
        The map.
    x, y
        Source and target cells, float64, shape (n, d) and (m, d).
    rng
        Seed for the random pairs of cells.

    Returns
    -------
    The measurements by name.
    """
    moved_x = fitted.mapped(x)
    return {
        **_convexity(fitted, *_pairs(fitted.coordinates.source(x), x, rng)),
        "fenchel_residual": _mean_distance(y, fitted.mapped(fitted.inverted(y))),
        "cycle_error": _mean_distance(x, fitted.inverted(moved_x)),
        **_squared_distance(fitted, x, y),
        "transport_cost": float(((moved_x - x) ** 2).sum(1).mean()),
    }


def _pairs(points: Array, x: Array, rng: int) -> tuple[Array, Array]:
    """Random pairs of cells x that differ; ``points`` are the same cells as the map sees them."""
    resolution = _RESOLUTION * max(1.0, float(np.abs(points).max()))
    # One cell of each place: where nearly all cells are the same, pairs of any two would hardly ever differ.
    _, places = np.unique(np.round(points / resolution), axis=0, return_index=True)
    first, second = places[np.random.default_rng(rng).integers(len(places), size=(2, max(len(x), 1000)))]
    differ = np.linalg.norm(points[first] - points[second], axis=1) > resolution
    return x[first[differ]], x[second[differ]]


def _convexity(fitted: TransportMap, a: Array, b: Array) -> dict[str, float]:
    if not len(a):  # all cells are the same: there is nothing to compare
        return {"convexity_gap": float("nan"), "monotonicity": float("nan")}
    # The linear part <m_y, x> of f has no gap, and far from the origin would drown the rest in rounding.
    ends, middle = fitted.centred_potential(np.concatenate([a, b])), fitted.centred_potential((a + b) / 2)
    gap = middle - ends.reshape(2, -1).mean(0)
    moved = fitted.mapped(a) - fitted.mapped(b)
    return {
        "convexity_gap": float(gap.max()),
        "monotonicity": float(((moved * (a - b)).sum(1) / ((a - b) ** 2).sum(1)).min()),
    }


def _squared_distance(fitted: TransportMap, x: Array, y: Array) -> dict[str, float]:
    r"""Dual bound :math:`W_2^2 \ge E|X|^2 + E|Y|^2 - 2J(f)` in centred coordinates, cell by cell."""
    mean_x, mean_y = fitted.coordinates.mean_x, fitted.coordinates.mean_y
    xi, eta, shift = x - mean_x, y - mean_y, mean_x - mean_y
    of_x = (xi**2).sum(1) + 2 * xi @ shift - 2 * fitted.centred_potential(x)
    of_y = (eta**2).sum(1) - 2 * eta @ shift - 2 * fitted.centred_conjugate(y)
    return {
        "w2_squared": max(float(shift @ shift + of_x.mean() + of_y.mean()), 0.0),
        "w2_squared_error": float(np.sqrt(of_x.var(ddof=1) / len(x) + of_y.var(ddof=1) / len(y))),
    }


def _mean_distance(a: Array, b: Array) -> float:
    return float(np.sqrt(((a - b) ** 2).sum(1)).mean())
