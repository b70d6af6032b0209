"""Weights of conditions for fixed networks: a small convex problem for each, solved for many at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from scot_hycnn.potentials._hycnn import Combination
from scot_hycnn.solver.data._coordinates import Array
from scot_hycnn.solver.model._blended import ascend

from ._conditions import CHUNK, Conditions, Mixture

# Source cells on which the gradients of the networks are compared.
N_SOURCE = 256
N_ITERATIONS, DAMPING = 20, 0.7
FLOOR = 1e-4


@dataclass(frozen=True)
class Prior:
    """Normal distribution of the weights (s, v) over the conditions of a screen, shape (R + 1,) and its square."""

    mean: Array
    precision: Array

    @classmethod
    def of(cls, s: ArrayLike, v: ArrayLike) -> Prior:
        """Estimate it from the weights of the trained conditions, shape (K,) and (K, R)."""
        table = np.column_stack([np.asarray(s, dtype=np.float64), np.asarray(v, dtype=np.float64)])
        variance = table.var(0) if len(table) > 1 else np.zeros(table.shape[1])
        # Few conditions do not show how weights go together, so that these are independent; the floor is a tenth of the
        # weight itself.
        floor = (0.1 * np.abs(table).mean(0)) ** 2 + FLOOR**2
        return cls(table.mean(0), np.diag(1 / np.maximum(variance, floor)))


@torch.no_grad()
def fit_weights(network: Combination, theta: Tensor, cells: Conditions, prior: Prior) -> tuple[Tensor, Tensor]:
    r"""Return s, shape (K,), and v, shape (K, R), that minimise :math:`J_k + \frac{1}{2m_k}|u - \bar u|^2_\Sigma`.

    With fixed networks J is convex in (s, v). Its Hessian is close to the Gram matrix P of the gradients of the terms,
    since f is close to :math:`|x|^2/2`, and the noise of its gradient is at most P/m: so m J is a log likelihood, to
    which the prior of the screen's conditions is added. Projected Newton steps (Bertsekas 1982, SIAM J. Control Optim.
    20, 221-246) keep the weights non-negative.
    """
    shared = network.network.weights(theta)
    everything = torch.arange(len(cells), device=theta.device).split(CHUNK)
    parts = [_fit_some(network, shared, cells, rows, prior) for rows in everything]
    return torch.cat([u[:, 0] for u in parts]), torch.cat([u[:, 1:] for u in parts])


def _fit_some(network: Combination, shared: Any, cells: Conditions, rows: Tensor, prior: Prior) -> Tensor:
    """Return (s, v) of some conditions, shape (C, R + 1)."""
    d, ratio = network.n_dims, cells.ratio[rows]
    mean, precision = (torch.tensor(a, dtype=torch.float32, device=ratio.device) for a in (prior.mean, prior.precision))
    u = mean.expand(len(rows), -1).clone()
    place = cells.to_common[rows], cells.shift[rows], ratio

    def mixture(u: Tensor) -> Mixture:
        # w makes the mean of the moved source cells that of the target, 0 in balanced coordinates.
        w = -torch.einsum("cr,crd->cd", u[:, 1:], centre)
        return Mixture(network, shared, u[:, 1:], u[:, :1].unsqueeze(2), w.unsqueeze(1), *place)

    # Terms of the potential at source cells: |x|^2/2, and each network less its mean gradient.
    start = Mixture(network, shared, u[:, 1:], u[:, :1, None], u.new_zeros(len(rows), 1, d), *place)
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
        f = mixture(u)
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
