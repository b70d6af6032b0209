"""Semi-dual whose conjugates start where they were last: what trains maps of few cells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from scot_hycnn.potentials import Potential, Weights
from scot_hycnn.solver.model._conjugate import ascend

from ._cache import Memory
from ._compiled import compiled
from ._method import Draw, Losses, Method, State, descend, semi_dual


def ascended(
    potential: Potential, f: Weights, y: Tensor, start: tuple[Tensor, Tensor], n_steps: int
) -> tuple[Tensor, Tensor]:
    """Maximisers of <x, y> - f(x) from earlier ones, (K, n, d), and their step sizes, (K, n)."""
    found, _, sizes = ascend(lambda x: potential.gradient(f, x), y, *start, n_steps=n_steps)
    return found, sizes


@dataclass(frozen=True)
class Remembered(Method):
    r"""Minimise the semi-dual as :class:`Amortized` does, but from memory instead of by a second network.

    With few target cells each is drawn again within a few steps, in which f has hardly changed: the maximiser
    :math:`\hat x` of :math:`\langle x, y\rangle - f(x)` that was found the last time is a better start than any
    prediction, and so is the step size there. The network g is not trained, and

    .. math::
        \ell_g = \mathrm{mean}\,|\hat x_{\mathrm{before}} - \hat x|^2

    is how far the maximisers have moved since.

    Parameters
    ----------
    lr, weight_decay, betas, max_norm, averaging, warm_up
        As for every method.
    n_refinements
        Barzilai-Borwein steps from each remembered maximiser. Three leave the errors of Amortized's eight, in half its
        time (benchmarks/screen.py); without the step sizes five were needed.
    ascended
        How they are computed.

    References
    ----------
    Amos (2023), "On amortizing convex conjugates for optimal transport", ICLR, for the loss of f. Barzilai & Borwein
    (1988), IMA J. Numer. Anal. 8, 141-148. The memory is ours.
    """

    gradients_per_step: ClassVar[int] = 10
    remembers: ClassVar[bool] = True

    n_refinements: int = 3
    ascended: Callable[..., tuple[Tensor, Tensor]] = ascended

    def compiled(self) -> Remembered:
        return replace(self, ascended=compiled(self.ascended))

    def step(self, potential: Potential, state: State, draw: Draw, lr: float | Tensor) -> Losses:
        x, y, rows = draw()
        memory: Memory = state.memory  # type: ignore[assignment]  # whoever remembers has one
        f = potential.weights(state.f.theta)
        fixed_f = {name: weight.detach() for name, weight in f.items()}
        before, sizes = memory.recall(rows)
        with torch.no_grad():
            x_hat, sizes = self.ascended(potential, fixed_f, y, (before, sizes), self.n_refinements)
        memory.note(rows, x_hat, sizes)
        loss = semi_dual(potential, f, x, x_hat)
        descend(loss + potential.penalty(f), lr, state.f)
        return loss.detach(), (before - x_hat).square().sum(-1).mean(1)
