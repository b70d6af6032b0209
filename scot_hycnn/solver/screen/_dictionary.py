r"""Training of the shared networks: the sum of the conditions' semi-duals, with a cached conjugate for each cell.

.. math::
    \sum_k J_k(f_k), \qquad f_k(x) = \tfrac{s_k}{2}|x|^2 + w_k \cdot x + \sum_r v_{kr} f_r(L_k x + t_k)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scot_hycnn.potentials._hycnn import Combination
from scot_hycnn.potentials._potential import inverse_softplus
from scot_hycnn.solver.data._coordinates import Array
from scot_hycnn.solver.model._blended import ascend
from scot_hycnn.solver.runtime._device import full_precision, in_threads, n_parts
from scot_hycnn.solver.training._early_stopping import SLACK
from scot_hycnn.solver.training._optimiser import Optimiser, cosine

from ._conditions import CHUNK, Conditions, Mixture, first_coefficients, unpacked

N_CHECKS, CHECK_REFINEMENTS = 10, 15
REFINEMENTS = 3
# Conditions and target cells of one step, all conditions together, and source cells of each source.
BATCH_CONDITIONS, BATCH_CELLS, BATCH_SOURCE = 64, 768, 256
# The highest learning rates of the networks (SOAP) and of the weights of conditions (Adam).
LR, LR_WEIGHTS, DECAY = 0.05, 0.15, 1.0
BETAS, AVERAGING, WARM_UP = (0.8, 0.95), 0.98, 50


@dataclass(frozen=True)
class Dictionary:
    """Parameters of the shared networks, (R, P), free coefficients of each condition, and the checks in training."""

    theta: Tensor
    coefficients: Tensor
    history: dict[str, Array] = field(default_factory=dict)
    n_steps: int = 0


def joined(network: Combination, parts: Sequence[Dictionary]) -> tuple[Combination, Dictionary]:
    """Return the dictionary of all networks whose map for each condition is the mean of those of the parts."""
    parts = [one for one in parts if one.theta.any()] or parts[:1]  # those that diverged are 0
    v, s, w = (torch.stack(same) for same in zip(*(unpacked(network, one.coefficients) for one in parts), strict=True))
    free = [inverse_softplus(part.clamp_min(1e-12)) for part in (torch.cat([*v / len(parts)], 1), s.mean(0).squeeze(2))]
    coefficients = torch.cat([*free, w.mean(0).squeeze(1)], 1)
    history = {name: np.mean([one.history[name] for one in parts], axis=0) for name in parts[0].history}
    whole = Dictionary(torch.cat([one.theta for one in parts]), coefficients, history, parts[0].n_steps)
    return replace(network, n_networks=network.n_networks * len(parts)), whole


def train_dictionary(
    network: Combination,
    cells: tuple[Conditions, Conditions],
    *,
    rng: int,
    max_steps: int,
    lr: float,
    decay: float,
    progress: Callable[[int, float | None], None],
    saved: dict[str, Any] | None = None,
    save: Callable[[dict[str, Any]], None] | None = None,
) -> Dictionary:
    """Train on the first cells, and return the state that was best on the second ones, all conditions together."""
    training, held_out = cells
    device = training.y.device
    generator = torch.Generator(device).manual_seed(rng)
    networks = Optimiser(
        network.network,
        network.network.init(network.n_networks, generator),
        betas=BETAS,
        weight_decay=decay,
        max_norm=1.0,
        averaging=AVERAGING,
        soap=True,
    )
    weights = _RowAdam(first_coefficients(network, len(training), str(device)))
    # Maximisers of <x, y> - f(x) and step sizes for each target cell: the Gaussian map's are y and 1.
    cache = {"maximisers": training.y.clone(), "sizes": torch.ones_like(training.y[..., 0])}
    checks = _Checks(held_out)
    first_step = 1
    if saved is not None:
        generator.set_state(saved["generator"])
        networks.load(saved["networks"])
        weights.load(saved["weights"])
        cache, first_step = saved["cache"], saved["step"] + 1
        checks.load(saved["checks"])
    progress(first_step - 1, None)

    n_threads = n_parts(str(device), min(len(training), BATCH_CONDITIONS))
    n_all = int(training.n_y.sum())
    check_every = max(max_steps // N_CHECKS, 1)
    with in_threads(n_threads) as in_parallel:
        for step in range(first_step, max_steps + 1):
            # Draw conditions, the same number of target cells of each one, and source cells.
            networks.renew(step - 1)
            drawn = torch.randperm(len(training), generator=generator, device=device)[:BATCH_CONDITIONS]
            n_cells = max(min(BATCH_CELLS, n_all) // len(drawn), 4)
            uniform = torch.rand((len(drawn), n_cells), generator=generator, device=device)
            rows = (uniform * training.n_y[drawn, None]).long()
            x_rows = torch.randint(training.sources.shape[1], (BATCH_SOURCE,), generator=generator, device=device)
            work = partial(_gradients, network, (networks.theta, weights.table), (training, cache, x_rows))
            results = in_parallel(work, list(zip(drawn.chunk(n_threads), rows.chunk(n_threads), strict=True)))
            rate = cosine(step - 1, max_steps, warm_up=min(WARM_UP, max(max_steps // 10, 1)))
            grad = torch.stack([grad for grad, _, _ in results]).sum(0) * (network.n_networks / len(drawn))
            networks.update(grad, lr * rate)
            weights.update(drawn, torch.cat([grad for _, grad, _ in results]), LR_WEIGHTS * rate)
            progress(1, None)
            if step % check_every and step < max_steps:
                continue
            loss = float(sum(part for _, _, part in results)) / len(drawn)
            checks.check(network, networks.average, weights.average, step, loss)
            if save is not None:
                state = {"networks": networks.state, "weights": weights.state(), "cache": cache}
                save({"step": step, "generator": generator.get_state(), "checks": checks.state(), **state})
    theta, coefficients = checks.selected()
    return Dictionary(theta, coefficients, checks.history, max_steps)


def _gradients(
    network: Combination,
    parameters: tuple[Tensor, Tensor],
    data: tuple[Conditions, dict[str, Tensor], Tensor],
    batch: tuple[Tensor, Tensor],
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of the sum of J_k over some drawn conditions, and the sum."""
    (theta, table), (cells, cache, x_rows), (drawn, rows) = parameters, data, batch
    shared = network.network.weights(theta)
    free = table[drawn].detach().requires_grad_()
    fixed = {name: weight.detach() for name, weight in shared.items()}
    potential = Mixture.of(network, fixed, table.detach(), cells, drawn)
    at = drawn[:, None], rows
    y = cells.y[at]
    with torch.no_grad():
        found = ascend(potential.gradient, y, cache["maximisers"][at], cache["sizes"][at], n_steps=REFINEMENTS)
        x_hat, _, size = found
    cache["maximisers"][at], cache["sizes"][at] = x_hat, size.nan_to_num(nan=1.0)

    # By the envelope theorem J has the gradient of mean f(x) - mean f(x_hat), with x_hat held fixed. The networks see
    # source cells in common coordinates, so that conditions with one source share their values.
    sources, source_of = torch.unique(cells.source_of[drawn], return_inverse=True)
    x = cells.sources[sources][:, x_rows]
    in_common = torch.baddbmm(cells.shift[drawn], x_hat, cells.to_common[drawn].mT)
    both = torch.cat([x.flatten(0, 1), in_common.flatten(0, 1)]).expand(network.n_networks, -1, -1)
    values_x, values_y = network.network.value(shared, both).split([x[..., 0].numel(), x_hat[..., 0].numel()], 1)
    mean_x = values_x.unflatten(1, x.shape[:2]).mean(2)[:, source_of]
    mean_y = values_y.unflatten(1, x_hat.shape[:2]).mean(2)
    # Balanced source cells of a condition have mean 0.
    v, s, w = unpacked(network, free)
    half = cells.half_square[drawn] - 0.5 * x_hat.square().sum(-1).mean(1)
    simple = s.flatten() * half - (w.squeeze(1) * x_hat.mean(1)).sum(-1)
    loss = simple / cells.ratio[drawn] + (v * (mean_x - mean_y).T).sum(1)
    grad_theta, grad_free = torch.autograd.grad(loss.sum(), [theta, free])
    return grad_theta, grad_free, loss.detach().sum()


class _RowAdam:
    """Adam on the rows of a table of which each step updates some, and the running average of each row."""

    def __init__(self, table: Tensor) -> None:
        self.table, self.average = table, table.clone()
        self._mean, self._square = torch.zeros_like(table), torch.zeros_like(table)
        self._n = table.new_zeros(len(table))

    def update(self, rows: Tensor, grad: Tensor, lr: float) -> None:
        """Descend in these rows along their gradients (Kingma & Ba 2015, ICLR, alg. 1)."""
        grad = grad.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
        first, second = BETAS
        self._n[rows] += 1
        n = self._n[rows].unsqueeze(1)
        self._mean[rows] = torch.lerp(self._mean[rows], grad, 1 - first)
        self._square[rows] = torch.lerp(self._square[rows], grad.square(), 1 - second)
        size = (self._square[rows] / (1 - second**n)).sqrt().add(1e-8)
        self.table[rows] -= lr * self._mean[rows] / (1 - first**n) / size
        recent = (9 / (n + 9)).clamp_min(1 - AVERAGING)
        self.average[rows] = self.average[rows] + recent * (self.table[rows] - self.average[rows])

    def state(self) -> dict[str, Tensor]:
        """Return every tensor by name, without copies."""
        named = {"table": self.table, "average": self.average, "n": self._n}
        return named | {"mean": self._mean, "square": self._square}

    def load(self, state: dict[str, Tensor]) -> None:
        """Restore what ``state()`` returned."""
        for name, tensor in self.state().items():
            tensor.copy_(state[name])


class _Checks:
    """Checks on held-out cells of all conditions together: the best and the last state, and the history."""

    def __init__(self, cells: Conditions) -> None:
        self._cells, self._started = cells, time.perf_counter()
        self._best: dict[str, Tensor] = {}
        self._last: dict[str, Tensor] = {}
        self.history: dict[str, Array] = {}

    def check(self, network: Combination, theta: Tensor, coefficients: Tensor, step: int, loss: float) -> None:
        """Score a state by J minus that of the Gaussian map, of each condition."""
        gain = semi_duals(network, theta, coefficients, self._cells, (1.0,))[0][:, 0]
        state = {"theta": theta.clone(), "coefficients": coefficients.clone(), "gain": gain}
        is_sound = bool(gain.isfinite().all() and theta.isfinite().all())
        if is_sound and (not self._best or gain.mean() < self._best["gain"].mean()):
            self._best = state
        self._last = state
        row: dict[str, float] = {
            "step": step,
            "seconds": time.perf_counter() - self._started,
            "loss": loss,
            "J_minus_gaussian": float(gain.mean()),
        }
        before = self.history or {name: np.empty(0) for name in row}
        self.history = {name: np.append(before[name], value) for name, value in row.items()}

    def selected(self) -> tuple[Tensor, Tensor]:
        """Return the last state, or the best one if it is better by more than SLACK standard errors."""
        if not self._best:
            return torch.zeros_like(self._last["theta"]), torch.zeros_like(self._last["coefficients"])
        worse = self._last["gain"] - self._best["gain"]
        error = worse.std() / len(worse) ** 0.5 if len(worse) > 1 else worse.new_zeros(())
        chosen = self._last if worse.mean() <= SLACK * error else self._best
        return chosen["theta"], chosen["coefficients"]

    def state(self) -> dict[str, Any]:
        """Return everything that checks have changed."""
        return {"best": self._best, "last": self._last, "history": self.history}

    def load(self, state: dict[str, Any]) -> None:
        """Restore what ``state()`` returned."""
        self._best, self._last, self.history = dict(state["best"]), dict(state["last"]), dict(state["history"])


@torch.no_grad()
@full_precision()
def semi_duals(
    network: Combination, theta: Tensor, coefficients: Tensor, cells: Conditions, blends: tuple[float, ...]
) -> tuple[Tensor, Tensor]:
    """Return J minus that of the Gaussian map for each condition and blend, (K, B), and its standard error.

    They are in units of the common coordinates; a blend is the part of the combination, and the rest is the Gaussian
    map.
    """
    shared = network.network.weights(theta)
    gains, errors = [], []
    for rows in torch.arange(len(cells), device=theta.device).split(CHUNK):
        whole = Mixture.of(network, shared, coefficients, cells, rows)
        x = cells.balanced_sources(rows, cells.sources[cells.source_of[rows]])
        y, valid = cells.y[rows], cells.in_rows()[rows]
        at_x, start = whole.value(x) - 0.5 * x.square().sum(-1), y
        of_blends = []
        for blend in blends:
            part = replace(whole, v=blend * whole.v, s=1 - blend + blend * whole.s, w=blend * whole.w)
            start, *_ = ascend(part.gradient, y, start, n_steps=CHECK_REFINEMENTS)
            at_y = (start * y).sum(-1) - part.value(start) - 0.5 * y.square().sum(-1)
            n = valid.sum(1)
            mean = (at_y * valid).sum(1) / n
            variance = ((at_y - mean[:, None]).square() * valid).sum(1) / (n - 1)
            error = (variance / n + blend**2 * at_x.var(1) / at_x.shape[1]).sqrt()
            of_blends.append(((blend * at_x.mean(1) + mean) / cells.ratio[rows], error / cells.ratio[rows]))
        gains.append(torch.stack([gain for gain, _ in of_blends], 1))
        errors.append(torch.stack([error for _, error in of_blends], 1))
    return torch.cat(gains), torch.cat(errors)
