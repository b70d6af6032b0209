"""For each condition the choice among its Gaussian map, the shared networks, and networks of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np
import torch

from scot_hycnn.potentials._hycnn import Combination
from scot_hycnn.solver._options import Settings
from scot_hycnn.solver.data._coordinates import Array, Coordinates
from scot_hycnn.solver.data._task import Task
from scot_hycnn.solver.data._training_data import Trained, TrainingData
from scot_hycnn.solver.model._blended import Support
from scot_hycnn.solver.model._map import TransportMap
from scot_hycnn.solver.selection._blend import BLENDS, J_STANDARD_ERRORS
from scot_hycnn.solver.selection._final_map import CERTIFICATE_CELLS, final_map

from ._conditions import Conditions, in_proportion, training_cells, unpacked
from ._dictionary import Dictionary, semi_duals
from ._screen import N_POINTS, condition_theta

# Own networks are trained for so many conditions first, and for all if they are better there.
N_PILOT = 6


def shrunk(gains: Array, errors: Array) -> Array:
    """Return gains of single conditions, (K, ...), shrunk to their mean by how far they differ beyond their errors."""
    # A condition has ten or twenty validation cells, whose accidents must not choose its map: empirical Bayes (Morris
    # 1983, JASA 78, 47-55) weighs them against those of all conditions.
    mean = gains.mean(0)
    between = np.maximum(gains.var(0, ddof=1) - (errors**2).mean(0), 0.0) if len(gains) > 1 else errors[0] ** 2
    own = between / (between + errors**2 + np.finfo(float).tiny)
    return np.asarray(mean + own * (gains - mean), dtype=np.float64)


def choose_blends(network: Combination, trained: Dictionary, held_out: Conditions) -> tuple[Array, Array, Array]:
    """Return the blend of each condition, shape (K,), and its gain in J over the Gaussian map with its error."""
    gains, errors = (
        np.asarray(part.cpu().double())
        for part in semi_duals(network, trained.theta, trained.coefficients, held_out, BLENDS[1:])
    )
    # One blend for the screen, since a condition has ten or twenty validation cells; and none where it is not better
    # than the Gaussian maps by a standard error of all conditions together.
    is_sound = np.isfinite(gains) & np.isfinite(errors)
    gains, errors = np.where(is_sound, gains, 0.0), np.where(is_sound, errors, 0.0)
    best = int(gains.mean(0).argmin())
    pooled = gains.mean(0)[best] + J_STANDARD_ERRORS * np.sqrt((errors[:, best] ** 2).mean() / len(errors))
    combined = is_sound[:, best] & (shrunk(gains[:, best], errors[:, best]) < 0) & (pooled < 0)
    # What keeps the Gaussian map gains nothing over it.
    return np.where(combined, BLENDS[1:][best], 0.0), gains[:, best] * combined, errors[:, best] * combined


def combined_map(
    network: Combination,
    trained: Dictionary,
    common: Coordinates,
    cells: TrainingData,
    k: int,
    *,
    blend: float,
    settings: Settings,
) -> TransportMap:
    """Return the map of condition k with the shared networks, around its Gaussian map between all of its cells."""
    v, s, _ = (part.cpu().double().numpy().ravel() for part in unpacked(network, trained.coefficients[k : k + 1]))
    no_shift, whole = np.zeros(network.n_dims), cells.all_cells
    theta, of_all = (
        condition_theta(network, trained.theta, (common, own), float(s[0]), v=v, w=no_shift)
        for own in (cells.coordinates, whole)
    )
    own = Trained(theta.to(cells.x.device), cells, keep_gaussian=not blend, n_steps=trained.n_steps)
    fitted = final_map(network, own, cells, settings, 0.0, blend=blend or None)
    x = np.concatenate([training_cells(cells)[0], cells.x_validation_original])
    if fitted.blend:
        # Held-out cells have judged the map. Now they join its Gaussian map and its mean, as they do where the Gaussian
        # map is kept: ten of a hundred cells matter.
        fitted = replace(fitted, coordinates=whole, theta=of_all, gaussian=whole)
        mean = whole.mean_y + (whole.mean_y - fitted.transport(x).mean(0))
        fitted = replace(fitted, coordinates=replace(whole, mean_y=mean))
        sample = (part[:CERTIFICATE_CELLS] for part in (cells.x_validation_original, cells.y_validation_original))
        fitted = replace(fitted, certificate=fitted.certify(*sample))
    else:
        # A Gaussian map needs none of the networks' parameters.
        simple = Combination(network.n_dims, (1,), n_networks=1, strong_convexity=network.strong_convexity)
        fitted = replace(fitted, network=simple, theta=simple.init(1, torch.Generator().manual_seed(0)))
    unseen = cells.x_validation_original[:N_POINTS]
    points = (
        torch.tensor(whole.source(part), dtype=torch.float32) for part in (in_proportion(x, None, N_POINTS), unseen)
    )
    return replace(fitted, support=Support.of(*points))


def blended_weights(network: Combination, coefficients: torch.Tensor, blends: Array) -> Array:
    """Return s and v of each condition after its blend with the Gaussian map, whose are 1 and 0: shape (K, R + 1)."""
    v, s, _ = (part.cpu().double().numpy() for part in unpacked(network, coefficients))
    table = np.column_stack([s.reshape(-1), v])
    simple = np.eye(1, table.shape[1])
    return np.asarray(simple + blends[:, None] * (table - simple), dtype=np.float64)


def own_maps(
    tasks: Sequence[Task],
    of_shared: tuple[Array, Array],
    fit: Callable[[Sequence[Task]], Iterable[tuple[int, TransportMap]]],
) -> dict[int, TransportMap]:
    """Return the maps of own networks of those conditions for which they are better than the shared ones.

    ``fit`` fits the maps of tasks, which it numbers; ``of_shared`` are gains in J over the Gaussian map and their
    errors, both of shape (K,).
    """
    gains, errors = of_shared
    # The conditions with most cells are tried first: where own networks lose there, they lose everywhere.
    order = np.argsort([-len(task.y) for task in tasks], kind="stable")
    fits: dict[int, TransportMap] = {}
    for numbers in (order[:N_PILOT], order[N_PILOT:]):
        if len(numbers):
            fits |= {int(numbers[i]): fitted for i, fitted in fit([tasks[k] for k in numbers])}
        tried = np.array(list(fits))
        better = np.array([fits[k].validation["J"] - fits[k].validation["J_gaussian"] for k in tried]) - gains[tried]
        if better.mean() >= 0:
            return {}
    of_own = [float(fits[k].validation["J_error_by_blend"][np.argmin(fits[k].validation["J_by_blend"])]) for k in tried]
    expected = shrunk(better, np.hypot(errors[tried], of_own))
    return {int(k): fits[k] for k, gain in zip(tried, expected, strict=True) if gain < 0 and fits[k].blend}
