"""Expectile-regularised neural optimal transport."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from scot_hycnn.potentials import Potential
from scot_hycnn.solver.training._method import Draw, Losses, Method, State, descend, inner


@dataclass(frozen=True)
class ENOT(Method):
    r"""Minimise the semi-dual while an expectile keeps the conjugate above every pair of the batch.

    With :math:`\hat x = \nabla g(y)` and :math:`u(y) = \langle \hat x, y\rangle - f(\hat x)`, the estimate of
    :math:`f^*(y)`, each step descends on

    .. math::
        \ell_f = \mathrm{mean}\,f(x) + \mathrm{mean}\,u(y)
        + \lambda\,\mathrm{mean}\,L_\tau(\langle x, y\rangle - f(x) - u(y)), \qquad
        \ell_g = -\mathrm{mean}\,u(y)

    with :math:`L_\tau(r) = |\tau - 1_{r < 0}|\,r^2`. By Fenchel-Young :math:`f^*(y)` is the largest of
    :math:`\langle x, y\rangle - f(x)` over x, which is their expectile for :math:`\tau \to 1`: where an x of the batch
    beats :math:`\hat x`, the regulariser says so, and no inner maximisation is needed.

    Parameters
    ----------
    lr, weight_decay, betas, max_norm, averaging, warm_up
        As for every method.
    expectile
        :math:`\tau` in [0.5, 1).
    expectile_weight
        :math:`\lambda`.

    References
    ----------
    Buzun, Bobrin & Dylov (2024), "Expectile regularization for fast and accurate training of neural optimal
    transport", NeurIPS (arXiv:2403.03777), the expectile-regularised dual and its algorithm 1, here for
    :math:`c = \frac12|x - y|^2` and in terms of the convex potentials.
    """

    gradients_per_step: ClassVar[int] = 11

    # Faster, or clipped harder, the regulariser's noise wins: W2 benchmark D = 16, 63 % error against 7.6.
    lr: float = 5e-3
    weight_decay: float = 0.0
    max_norm: float = 10.0
    expectile: float = 0.99
    expectile_weight: float = 0.1

    def step(self, potential: Potential, state: State, draw: Draw, lr: float | Tensor) -> Losses:
        x, y = draw()
        f, g = potential.weights(state.f.theta), potential.weights(state.g.theta)
        fixed_f = {name: weight.detach() for name, weight in f.items()}
        x_hat = potential.gradient(g, y)
        loss_g = potential.value(fixed_f, x_hat).mean(1) - inner(y, x_hat)
        values, conjugates = potential.value(f, x), (x_hat.detach() * y).sum(-1) - potential.value(f, x_hat.detach())
        loss_f = values.mean(1) + conjugates.mean(1)
        regulariser = self._expectile_loss((x * y).sum(-1) - values - conjugates)
        losses = loss_f + self.expectile_weight * regulariser + loss_g
        descend(losses + potential.penalty(f) + potential.penalty(g), lr, state.f, state.g)
        return loss_f.detach(), loss_g.detach()

    def _expectile_loss(self, r: Tensor) -> Tensor:
        weight = torch.full_like(r, self.expectile).masked_fill_(r < 0, 1 - self.expectile)
        return (weight * r.square()).mean(1)
