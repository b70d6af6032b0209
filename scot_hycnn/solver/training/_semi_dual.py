r"""The semi-dual loss, whose conjugates start from a second network ("amortised") or from a cache ("cached").

.. math::
    J(f) = E f(X) + E f^*(Y), \qquad f^*(y) = \max_{\hat x} \langle\hat x, y\rangle - f(\hat x)

By Brenier's theorem the gradient of the convex f that minimises J is the optimal transport map from X to Y.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from scot_hycnn.potentials import Potential
from scot_hycnn.solver.model._blended import ascend

from ._optimiser import Optimiser, descend


class ConjugateCache:
    """Maximisers of <x, y> - f(x), one for each target cell y, from the step in which the cell was drawn before."""

    # With few target cells every one is drawn again within a few steps, in which f has hardly changed: its last
    # maximiser is a better start than any prediction, and so is the step size there, about the inverse curvature of f.
    def __init__(self, maximisers: Tensor, sizes: Tensor) -> None:
        self._maximisers, self._sizes = maximisers, sizes
        self._networks = torch.arange(len(sizes), device=sizes.device).unsqueeze(1)

    @staticmethod
    def first_state(targets: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return the tensors of a cache before the first step, from the target cells of each network, (m, d)."""
        # In balanced coordinates the Gaussian map is the identity: its maximiser for y is y. All networks have as many
        # rows as the largest target, also after it has stopped; rows beyond a network's own target are never drawn.
        maximisers = pad_sequence(list(targets), batch_first=True)
        return {"maximisers": maximisers, "sizes": torch.ones_like(maximisers[..., 0])}

    def read(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return maximisers, (K, n, d), and step sizes, (K, n), of the cells in these rows, (K, n)."""
        return self._maximisers[self._networks, rows], self._sizes[self._networks, rows]

    def write(self, rows: Tensor, maximisers: Tensor, sizes: Tensor) -> None:
        """Store what was found for the cells in these rows."""
        self._maximisers[self._networks, rows] = maximisers
        # A step to infinity leaves the maximiser as it was and gives no step size; 1 is that of the Gaussian map.
        self._sizes[self._networks, rows] = sizes.nan_to_num(nan=1.0)

    def state(self) -> dict[str, Tensor]:
        """Return all tensors by name, without copies."""
        return {"maximisers": self._maximisers, "sizes": self._sizes}


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
        x_0, size = start.read(rows)
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
        start.write(rows, x_hat, size)
        descend(loss_f + potential.penalty(weights_f), lr, f)
    else:
        penalty = potential.penalty(weights_f) + potential.penalty(weights_g)
        descend(loss_f + loss_g + penalty, lr, f, start)
    return loss_f.detach(), loss_g.detach()
