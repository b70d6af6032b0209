"""Expectile-regularised neural optimal transport."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from scot_hycnn.potentials import Potential
from scot_hycnn.solver.training._optimiser import Optimiser, descend


def enot_step(
    potential: Potential,
    f: Optimiser,
    g: Optimiser,
    batches: Sequence[tuple[Tensor, ...]],
    lr: float | Tensor,
    *,
    expectile: float = 0.99,
    expectile_weight: float = 0.1,
) -> tuple[Tensor, Tensor]:
    r"""Descend on the semi-dual while an expectile keeps the conjugate above every pair (x, y) of the batch.

    With :math:`\hat x = \nabla g(y)` and :math:`u(y) = \langle \hat x, y\rangle - f(\hat x)`, the estimate of
    :math:`f^*(y)`, the losses are

    .. math::
        \ell_f = \mathrm{mean}\,f(x) + \mathrm{mean}\,u(y)
        + \lambda\,\mathrm{mean}\,L_\tau(\langle x, y\rangle - f(x) - u(y)), \qquad
        \ell_g = -\mathrm{mean}\,u(y)

    with :math:`L_\tau(r) = |\tau - 1_{r < 0}|\,r^2`. By Fenchel-Young :math:`f^*(y)` is the largest of
    :math:`\langle x, y\rangle - f(x)` over x, which is their expectile for :math:`\tau \to 1`: the regulariser
    penalises :math:`\hat x` where an x of the batch is better, and no inner maximisation is needed.

    Source: Buzun, Bobrin & Dylov (2024), "Expectile regularization for fast and accurate training of neural optimal
    transport", NeurIPS (arXiv:2403.03777), algorithm 1, here for :math:`c = \frac12|x - y|^2` in terms of the convex
    potentials.
    """
    ((x, y, _),) = batches
    weights_f, weights_g = potential.weights(f.theta), potential.weights(g.theta)
    fixed_f = {name: weight.detach() for name, weight in weights_f.items()}
    x_hat = potential.gradient(weights_g, y)
    loss_g = potential.value(fixed_f, x_hat).mean(1) - (y * x_hat).sum(-1).mean(1)
    # u(y), in which g is held fixed.
    fixed_x_hat = x_hat.detach()
    values, conjugates = (
        potential.value(weights_f, x),
        (fixed_x_hat * y).sum(-1) - potential.value(weights_f, fixed_x_hat),
    )
    loss_f = values.mean(1) + conjugates.mean(1)
    r = (x * y).sum(-1) - values - conjugates
    regulariser = (torch.full_like(r, expectile).masked_fill_(r < 0, 1 - expectile) * r.square()).mean(1)
    losses = loss_f + expectile_weight * regulariser + loss_g
    descend(losses + potential.penalty(weights_f) + potential.penalty(weights_g), lr, f, g)
    return loss_f.detach(), loss_g.detach()
