"""Wasserstein-2 generative networks: one minimisation, held together by a cycle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from scot_hycnn.potentials import Potential
from scot_hycnn.solver.training._method import Draw, Losses, Method, State, descend


@dataclass(frozen=True)
class W2GN(Method):
    r"""Minimise the semi-dual together with a penalty on the cycle, over f and g at once.

    .. math::
        \mathrm{mean}\,f(x) + \mathrm{mean}\,[\langle y, \hat x\rangle - f(\hat x)]
        + \tfrac{\lambda}{2}\,\mathrm{mean}\,|\nabla f(\nabla g(y)) - y|^2, \qquad \hat x = \nabla g(y)

    There is no inner maximisation: the cycle makes :math:`\nabla g` the inverse of :math:`\nabla f`. In the first two
    terms :math:`\hat x` is held fixed (envelope theorem), so that g cannot lower them by leaving the maximum.

    Parameters
    ----------
    lr, weight_decay, betas, max_norm, averaging, warm_up
        As for every method.
    cycle_weight
        :math:`\lambda`.

    References
    ----------
    Korotin, Egiazarian, Asadulaev, Safin & Burnaev (2021), "Wasserstein-2 generative networks", ICLR: the cycle
    regularised dual of sec. 4.
    """

    gradients_per_step: ClassVar[int] = 14

    cycle_weight: float = 3.0

    def step(self, potential: Potential, state: State, draw: Draw, lr: float | Tensor) -> Losses:
        x, y = draw()
        f, g = potential.weights(state.f.theta), potential.weights(state.g.theta)
        x_hat = potential.gradient(g, y)
        cycle = (potential.gradient(f, x_hat) - y).square().sum(-1).mean(1)
        loss_f = potential.value(f, x).mean(1) - potential.value(f, x_hat.detach()).mean(1)
        regularised = loss_f + 0.5 * self.cycle_weight * cycle
        descend(regularised + potential.penalty(f) + potential.penalty(g), lr, state.f, state.g)
        return loss_f.detach(), cycle.detach()
