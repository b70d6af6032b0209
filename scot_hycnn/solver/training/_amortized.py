"""Amortised semi-dual with refined conjugates: the default way to train."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from scot_hycnn.potentials import Potential, Weights
from scot_hycnn.solver.model._conjugate import refine

from ._compiled import compiled
from ._method import Draw, Losses, Method, State, descend, semi_dual


def refined(potential: Potential, f: Weights, y: Tensor, start: Tensor, n_steps: int) -> Tensor:
    """Maximisers of <x, y> - f(x) from their predictions, (K, n, d)."""
    return refine(lambda x: potential.gradient(f, x), y, start, n_steps)[0]


@dataclass(frozen=True)
class Amortized(Method):
    r"""Minimise the semi-dual :math:`J(f) = E f(X) + E f^*(Y)`, with conjugates that a second network predicts.

    Each step predicts the maximisers :math:`\hat x = \nabla g(y)` of :math:`\langle x, y\rangle - f(x)`, refines
    them by a few Barzilai-Borwein steps, and descends on

    .. math::
        \ell_f = \mathrm{mean}\,f(x) - \mathrm{mean}\,f(\hat x), \qquad
        \ell_g = \mathrm{mean}\,|\nabla g(y) - \hat x|^2

    with :math:`\hat x` held fixed: by the envelope theorem :math:`\ell_f` has the gradient of J.

    Parameters
    ----------
    lr, weight_decay, betas, max_norm, averaging, warm_up
        As for every method.
    n_refinements
        Barzilai-Borwein steps on each prediction. With 3 the W2 benchmark (D = 16) stalled at 10 % error; 8 have a
        tenth less error than 5 there and on T = 4x^3 (d = 50), for 15 % more time.
    refined
        How they are computed.

    References
    ----------
    Amos (2023), "On amortizing convex conjugates for optimal transport", ICLR: amortised prediction, then
    refinement, with a regression loss for g. Makkuva et al. (2020), ICML: the semi-dual over two convex networks.
    """

    gradients_per_step: ClassVar[int] = 20

    n_refinements: int = 8
    refined: Callable[[Potential, Weights, Tensor, Tensor, int], Tensor] = refined

    def compiled(self) -> Amortized:
        return replace(self, refined=compiled(self.refined))

    def step(self, potential: Potential, state: State, draw: Draw, lr: float | Tensor) -> Losses:
        x, y = draw()
        f, g = potential.weights(state.f.theta), potential.weights(state.g.theta)
        fixed_f = {name: weight.detach() for name, weight in f.items()}
        predicted = potential.gradient(g, y)
        with torch.no_grad():
            x_hat = self.refined(potential, fixed_f, y, predicted.detach(), self.n_refinements)
        loss_f = semi_dual(potential, f, x, x_hat)
        loss_g = (predicted - x_hat).square().sum(-1).mean(1)
        descend(loss_f + loss_g + potential.penalty(f) + potential.penalty(g), lr, state.f, state.g)
        return loss_f.detach(), loss_g.detach()
