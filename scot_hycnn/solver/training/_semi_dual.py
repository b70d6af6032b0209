r"""The semi-dual loss, whose conjugates start from a second network ("amortised") or from a cache ("cached").

.. math::
    J(f) = E f(X) + E f^*(Y), \qquad f^*(y) = \max_{\hat x} \langle\hat x, y\rangle - f(\hat x)

By Brenier's theorem the gradient of the convex f that minimises J is the optimal transport map from X to Y.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from scot_hycnn.potentials import Potential
from scot_hycnn.solver.model._blended import ascend

from ._optimiser import Optimiser, descend


class ConjugateCache:
    """Maximisers of <x, y> - f(x), one for each target cell y, from the step in which the cell was drawn before."""

    # With few target cells every one is drawn again within a few steps, in which f has hardly changed: its last
    # maximiser is a better start than any prediction, and so is the step size there, about the inverse curvature of f.
    def __init__(self, maximisers: Tensor, sizes: Tensor) -> None:
        # Of each network and target cell: maximisers, (K, m, d), and step sizes, (K, m). They change in place.
        self.maximisers, self.sizes = maximisers, sizes
        self.state = {"maximisers": maximisers, "sizes": sizes}
        # With the rows of drawn cells, (K, n), an index into both.
        self.networks = torch.arange(len(sizes), device=sizes.device).unsqueeze(1)


def semi_dual_step(
    potential: Potential,
    f: Optimiser,
    start: Optimiser | ConjugateCache,
    batches: Sequence[tuple[Tensor, Tensor, Tensor]],
    lr: float | Tensor,
    *,
    n_refinements: int,
) -> tuple[Tensor, Tensor]:
    r"""Descend on the semi-dual by one step, with conjugates that start from a second network g or from a cache.

    .. math::
        \ell_f = \mathrm{mean}\,f(x) - \mathrm{mean}\,f(\hat x), \qquad
        \ell_g = \mathrm{mean}\,|\hat x_0 - \hat x|^2

    Source: Amos (2023), "On amortizing convex conjugates for optimal transport", ICLR (amortised prediction, refinement
    and regression); Makkuva et al. (2020), ICML (the semi-dual over two convex networks). The cache is ours.
    """
    ((x, y, rows),) = batches
    weights_f = potential.weights(f.theta)
    fixed_f = {name: weight.detach() for name, weight in weights_f.items()}
    if isinstance(start, ConjugateCache):
        drawn = start.networks, rows
        x_0, size = start.maximisers[drawn], start.sizes[drawn]
    else:
        weights_g = potential.weights(start.theta)
        x_0, size = potential.gradient(weights_g, y), torch.ones_like(y[..., 0])
    with torch.no_grad():
        x_hat, _, size = ascend(lambda z: potential.gradient(fixed_f, z), y, x_0.detach(), size, n_steps=n_refinements)
    # By the envelope theorem loss_f has the gradient of J, with x_hat held fixed. One product for both clouds.
    values, conjugate_values = potential.value(weights_f, torch.cat([x, x_hat], 1)).split([x.shape[1], y.shape[1]], 1)
    loss_f = values.mean(1) - conjugate_values.mean(1)
    # x_0 is grad g(y), which is trained on loss_g, or the cached maximiser: loss_g is then how far it has moved since.
    loss_g = (x_0 - x_hat).square().sum(-1).mean(1)
    if isinstance(start, ConjugateCache):
        start.maximisers[drawn] = x_hat
        # A step to infinity leaves the maximiser as it was and gives no step size; 1 is that of the Gaussian map.
        start.sizes[drawn] = size.nan_to_num(nan=1.0)
        descend(loss_f + potential.penalty(weights_f), lr, f)
    else:
        penalty = potential.penalty(weights_f) + potential.penalty(weights_g)
        descend(loss_f + loss_g + penalty, lr, f, start)
    return loss_f.detach(), loss_g.detach()
