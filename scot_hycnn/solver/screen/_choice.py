"""For each condition the weights of shared networks, and the choice among these, its Gaussian map and own networks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scot_hycnn.potentials._hycnn import Combination
from scot_hycnn.solver.data._coordinates import Array, Coordinates
from scot_hycnn.solver.data._training_data import Task, Trained, TrainingData
from scot_hycnn.solver.model._blended import Support, ascend
from scot_hycnn.solver.model._map import TransportMap
from scot_hycnn.solver.selection._blend import BLENDS, J_STANDARD_ERRORS
from scot_hycnn.solver.selection._final_map import CERTIFICATE_CELLS, final_map

from ._conditions import CHUNK, Conditions, Mixture, in_proportion, training_cells, unpacked
from ._dictionary import Dictionary, semi_duals
from ._screen import N_POINTS, condition_theta

# Own networks are trained for so many conditions first, and for all if they are better there.
N_PILOT = 6
# Source cells on which the gradients of the networks are compared.
N_SOURCE = 256
N_ITERATIONS, DAMPING = 20, 0.7
FLOOR = 1e-4


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
    behind = gains - gains[:, [gains.mean(0).argmin()]]
    # The smallest blend that is as good within a standard error over the conditions. (Planted PBMCs, seed 0: blend 1,
    # .8 standard errors better than .75 in J, has the squared error 5.8 instead of 5.4, and 8.4 instead of 5.4 at a
    # dose that was left out.)
    spread = behind.std(0, ddof=1) / np.sqrt(len(behind)) if len(behind) > 1 else np.zeros(behind.shape[1])
    best = int((behind.mean(0) <= spread).argmax())
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
    task: Task,
) -> TransportMap:
    """Return the map of condition k with the shared networks, around its Gaussian map between all of its cells."""
    v, s, _ = (part.cpu().double().numpy().ravel() for part in unpacked(network, trained.coefficients[k : k + 1]))
    no_shift, whole = np.zeros(network.n_dims), cells.all_cells
    theta, of_all = (
        condition_theta(network, trained.theta, (common, own), float(s[0]), v=v, w=no_shift)
        for own in (cells.coordinates, whole)
    )
    own = Trained(theta.to(cells.x.device), cells, keep_gaussian=not blend, n_steps=trained.n_steps)
    # A blend gets its certificate below, around all cells; one takes a fifth of the time of a new condition.
    fitted = final_map(network, own, cells, task, 0.0, blend=blend or None, certify=not blend)
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


@torch.no_grad()
def fit_weights(network: Combination, theta: Tensor, cells: Conditions, seen: Array) -> tuple[Tensor, Tensor]:
    r"""Return s, shape (K,), and v, shape (K, R), that minimise :math:`J_k + \frac{1}{2m_k}|u - \bar u|^2_\Sigma`.

    With fixed networks J is convex in (s, v). Its Hessian is close to the Gram matrix P of the gradients of the terms,
    since f is close to :math:`|x|^2/2`, and the noise of its gradient is at most P/m: so m J is a log likelihood, to
    which the prior is added: a normal distribution with mean and variance of the weights ``seen``, (K', R + 1), of the
    screen's conditions. Projected Newton steps (Bertsekas 1982, SIAM J. Control Optim. 20, 221-246) keep the weights
    non-negative.
    """
    # Few conditions do not show how weights go together, so that these are independent; the floor is a tenth of the
    # weight itself.
    floor = (0.1 * np.abs(seen).mean(0)) ** 2 + FLOOR**2
    prior = seen.mean(0), np.diag(1 / np.maximum(seen.var(0), floor))
    shared = network.network.weights(theta)
    everything = torch.arange(len(cells), device=theta.device).split(CHUNK)
    parts = [_fit_some(network, shared, cells, rows, prior) for rows in everything]
    return torch.cat([u[:, 0] for u in parts]), torch.cat([u[:, 1:] for u in parts])


def _fit_some(network: Combination, shared: Any, cells: Conditions, rows: Tensor, prior: tuple[Array, Array]) -> Tensor:
    """Return (s, v) of some conditions, shape (C, R + 1), with mean and precision matrix of the prior."""
    ratio = cells.ratio[rows]
    mean, precision = (torch.tensor(a, dtype=torch.float32, device=ratio.device) for a in prior)
    u = mean.expand(len(rows), -1).clone()
    # Terms of the potential at source cells: |x|^2/2, and each network less its mean gradient.
    zero = u.new_zeros(len(rows), 1, network.n_dims)
    start = Mixture(network, shared, u[:, 1:], u[:, :1, None], zero, cells.to_common[rows], cells.shift[rows], ratio)
    sources = cells.sources[:, :N_SOURCE]
    values = start.networks(network.network.value, sources).mean(2)[:, cells.source_of[rows]].T
    slopes = start.networks(network.network.gradient, sources)[:, cells.source_of[rows]]
    slopes = torch.einsum("rcnd,cde->crne", slopes, cells.to_common[rows]) * ratio[:, None, None, None]
    centre = slopes.mean(2)
    x = cells.balanced_sources(rows, sources[cells.source_of[rows]])
    x = x - x.mean(1, keepdim=True)
    terms = torch.cat([x.unsqueeze(1), slopes - centre.unsqueeze(2)], 1)
    gram = torch.einsum("cind,cjnd->cij", terms, terms) / x.shape[1]

    y, valid = cells.y[rows], cells.in_rows()[rows].float()
    n = valid.sum(1, keepdim=True)
    hessian = gram + precision / n.unsqueeze(2)
    x_hat, size = y, torch.ones_like(y[..., 0])
    for iteration in range(N_ITERATIONS):
        # w makes the mean of the moved source cells that of the target, 0 in balanced coordinates.
        w = -torch.einsum("cr,crd->cd", u[:, 1:], centre)
        f = replace(start, v=u[:, 1:], s=u[:, :1, None], w=w.unsqueeze(1))
        x_hat, _, size = ascend(f.gradient, y, x_hat, size, n_steps=10 if not iteration else 3)
        at_y = f.networks(network.network.value, torch.baddbmm(f.shift, x_hat, f.to_common.mT))
        mean_x_hat = (x_hat * valid.unsqueeze(2)).sum(1) / n
        mean_values = torch.einsum("rcm,cm->cr", at_y, valid) / n
        of_s = 0.5 * (gram[:, :1, 0] - (x_hat.square().sum(2) * valid).sum(1, keepdim=True) / n)
        of_v = ratio[:, None] * (values - mean_values) + torch.einsum("crd,cd->cr", centre, mean_x_hat)
        gradient = torch.cat([of_s, of_v], 1) + (u - mean) @ precision / n

        # Weights that are 0 and would fall stay there.
        fixed = (u <= 0) & (gradient > 0)
        free = (~fixed).float()
        matrix = hessian * free.unsqueeze(1) * free.unsqueeze(2) + torch.diag_embed(1 - free)
        u = (u - DAMPING * torch.linalg.solve(matrix, gradient * free)).clamp_min(0.0)
        u[:, 0].clamp_(min=0.02)
    return u
