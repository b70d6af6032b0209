"""Wasserstein-2 generative networks: one minimisation over two potentials with a penalty on the cycle."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from scot_hycnn.potentials import Potential
from scot_hycnn.solver.training._optimiser import Optimiser, descend


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
