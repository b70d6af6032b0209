"""Minimax training of two convex potentials, also as the HyCNN paper does it."""

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
