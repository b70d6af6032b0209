"""Minimax training of two convex potentials."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from scot_hycnn.potentials import Potential, Weights
from scot_hycnn.solver.training._method import Draw, Losses, Method, State, descend, inner


@dataclass(frozen=True)
class Minimax(Method):
    r"""Solve :math:`\min_f \max_g E f(X) + E[\langle Y, \nabla g(Y)\rangle - f(\nabla g(Y))]`.

    Each step descends S times on :math:`\ell_g`, with fresh cells, and then once on :math:`\ell_f`:

    .. math::
        \ell_g = \mathrm{mean}\,[f(\nabla g(y)) - \langle y, \nabla g(y)\rangle], \qquad
        \ell_f = \mathrm{mean}\,f(x) - \mathrm{mean}\,f(\nabla g(y))

    For fixed f the inner maximum over g is the conjugate, so the outer problem is the semi-dual.

    Parameters
    ----------
    lr, weight_decay, betas, max_norm, averaging, warm_up
        As for every method.
    n_inner
        S.
    double_backward
        Take :math:`\nabla g` by autograd instead of its explicit form, and train through it by a second backward
        pass, as is common. The numbers are the same; it is here for comparisons of speed.

    References
    ----------
    Makkuva, Taghvaei, Oh & Lee (2020), "Optimal transport mapping via input convex neural networks", ICML, theorem
    3.3 and algorithm 1; arXiv:2604.26942, app. D.3, algorithm 1 (with the signs of the two updates exchanged there).
    """

    gradients_per_step: ClassVar[int] = 38

    n_inner: int = 5
    double_backward: bool = False

    def step(self, potential: Potential, state: State, draw: Draw, lr: float | Tensor) -> Losses:
        f = potential.weights(state.f.theta)
        fixed_f = {name: weight.detach() for name, weight in f.items()}
        for _ in range(self.n_inner):
            _, y = draw()
            g = potential.weights(state.g.theta)
            x_hat = self._gradient(potential, g, y)
            loss_g = potential.value(fixed_f, x_hat).mean(1) - inner(y, x_hat)
            descend(loss_g + potential.penalty(g), lr, state.g)
        x, y = draw()
        with torch.no_grad():
            x_hat = potential.gradient(potential.weights(state.g.theta), y)
        loss_f = potential.value(f, x).mean(1) - potential.value(f, x_hat).mean(1)
        descend(loss_f + potential.penalty(f), lr, state.f)
        return loss_f.detach(), loss_g.detach()

    def _gradient(self, potential: Potential, weights: Weights, y: Tensor) -> Tensor:
        if not self.double_backward:
            return potential.gradient(weights, y)
        y = y.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(potential.value(weights, y).sum(), y, create_graph=True)
        return gradient
