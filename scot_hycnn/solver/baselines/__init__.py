"""Training methods that the papers compare: minimax, also as the HyCNN paper runs it, W2GN and ENOT."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from scot_hycnn.potentials import Potential
from scot_hycnn.solver.training._optimiser import Optimiser, descend

# Steps on g for each step on f, the S of the paper.
N_INNER = 5


def minimax_step(
    potential: Potential,
    f: Optimiser,
    g: Optimiser,
    batches: Sequence[tuple[Tensor, ...]],
    lr: float | Tensor,
    *,
    double_backward: bool = False,
) -> tuple[Tensor, Tensor]:
    r"""Solve :math:`\min_f \max_g E f(X) + E[\langle Y, \nabla g(Y)\rangle - f(\nabla g(Y))]` by one step on f.

    Before it, g takes a step on each batch but the last. The losses are

    .. math::
        \ell_g = \mathrm{mean}\,[f(\nabla g(y)) - \langle y, \nabla g(y)\rangle], \qquad
        \ell_f = \mathrm{mean}\,f(x) - \mathrm{mean}\,f(\nabla g(y))

    For fixed f the inner maximum over g is the conjugate, so the outer problem is the semi-dual. ``double_backward``
    takes the gradient of g by autograd, as is common: the numbers are the same, for comparisons of speed.

    Source: Makkuva, Taghvaei, Oh & Lee (2020), "Optimal transport mapping via input convex neural networks", ICML,
    theorem 3.3 and algorithm 1; arXiv:2604.26942, app. D.3, algorithm 1 (with the signs of both updates exchanged).
    """
    *inner, (x, y, _) = batches
    weights_f = potential.weights(f.theta)
    fixed_f = {name: weight.detach() for name, weight in weights_f.items()}
    for _, y_inner, _ in inner:
        weights_g = potential.weights(g.theta)
        if double_backward:
            y_inner = y_inner.detach().requires_grad_()  # noqa: PLW2901
            value = potential.value(weights_g, y_inner).sum()
            (x_hat,) = torch.autograd.grad(value, y_inner, create_graph=True)
        else:
            x_hat = potential.gradient(weights_g, y_inner)
        loss_g = potential.value(fixed_f, x_hat).mean(1) - (y_inner * x_hat).sum(-1).mean(1)
        descend(loss_g + potential.penalty(weights_g), lr, g)
    with torch.no_grad():
        x_hat = potential.gradient(potential.weights(g.theta), y)
    loss_f = potential.value(weights_f, x).mean(1) - potential.value(weights_f, x_hat).mean(1)
    descend(loss_f + potential.penalty(weights_f), lr, f)
    return loss_f.detach(), loss_g.detach()


def w2gn_step(
    potential: Potential,
    f: Optimiser,
    g: Optimiser,
    batches: Sequence[tuple[Tensor, ...]],
    lr: float | Tensor,
    *,
    cycle_weight: float = 3.0,
) -> tuple[Tensor, Tensor]:
    r"""Descend on the semi-dual together with a penalty on the cycle, over f and g at once.

    .. math::
        \mathrm{mean}\,f(x) + \mathrm{mean}\,[\langle y, \hat x\rangle - f(\hat x)]
        + \tfrac{\lambda}{2}\,\mathrm{mean}\,|\nabla f(\nabla g(y)) - y|^2, \qquad \hat x = \nabla g(y)

    There is no inner maximisation: the cycle makes :math:`\nabla g` the inverse of :math:`\nabla f`. It returns the
    loss of f without the penalty, and the mean squared cycle.

    Source: Korotin, Egiazarian, Asadulaev, Safin & Burnaev (2021), "Wasserstein-2 generative networks", ICLR, the
    cycle-regularised dual of sec. 4.
    """
    ((x, y, _),) = batches
    weights_f, weights_g = potential.weights(f.theta), potential.weights(g.theta)
    x_hat = potential.gradient(weights_g, y)
    cycle = (potential.gradient(weights_f, x_hat) - y).square().sum(-1).mean(1)
    # x_hat is held fixed here (envelope theorem), so that g cannot lower this loss by leaving the maximum.
    loss_f = potential.value(weights_f, x).mean(1) - potential.value(weights_f, x_hat.detach()).mean(1)
    regularised = loss_f + 0.5 * cycle_weight * cycle
    descend(regularised + potential.penalty(weights_f) + potential.penalty(weights_g), lr, f, g)
    return loss_f.detach(), cycle.detach()


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
