"""Fit potentials to values by least squares, side by side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from scot_hycnn.potentials import Potential
from scot_hycnn.solver.training._optimiser import AveragedAdam, cosine


@dataclass(frozen=True)
class LeastSquares:
    """How the members are trained.

    Parameters
    ----------
    max_steps
        Steps of Adam.
    batch_size
        Points in each step, for each member.
    lr
        Learning rate at the top of its schedule.
    weight_decay
        Decoupled decay of each member, a unit of learning rate, of the weights on x that have no sign.
    """

    max_steps: int
    batch_size: int
    lr: float
    weight_decay: tuple[float, ...]

    def train(self, network: Potential, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Minimise the variance of f(x) - y, which is the mean square at the best intercept.

        Solved for, the intercept costs no steps: learned, it is what holds the networks up, since they are positive
        sums and must lower all biases to offset the mean of a quadratic.

        Parameters
        ----------
        network
            The function f of each member.
        x
            Standardised points, shape (n, d).
        y
            Standardised values, shape (n,).
        generator
            Draws the start and the batches.

        Returns
        -------
        Free parameters of the members, shape (K, P), averaged over the last steps; and the number of steps of each
        that met non-finite gradients, shape (K,).
        """
        adam = AveragedAdam(
            network,
            network.init(len(self.weight_decay), generator),
            betas=(0.9, 0.999),
            weight_decay=0.0,
            # With 32 layers (f1, d = 50) Adam's first full step moves every weight by lr at once: loss rises from 1.3
            # to 20, the gradient's norm from 1 to 89 (first layer: .04 to 27). The second moment remembers that for a
            # thousand steps, and the lower layers, whose gradients are .003 by then, stand still. After 60 steps the
            # test error was 2.87, with clipping alone 1.12, with warm-up alone 2.08.
            max_norm=1.0,
            averaging=0.98,
        )
        decay = self._decay(network, adam.theta)
        draw = _batches(len(self.weight_decay), len(x), self.batch_size, generator)
        for step in range(self.max_steps):
            network.at_step(adam.theta, step, self.max_steps)
            batch = draw()
            error = network.value(network.weights(adam.theta), x[batch]) - y[batch]
            (gradient,) = torch.autograd.grad(error.var(1, correction=0).sum(), [adam.theta])
            lr = self.lr * cosine(step, self.max_steps)
            adam.update(gradient, lr)
            with torch.no_grad():
                # Below 1 / lr everything shrinks; above, it would change its sign.
                adam.theta *= (1 - lr * decay).clamp_min(0.0)
        return adam.average, adam.n_bad_gradients

    def _decay(self, network: Potential, theta: Tensor) -> Tensor:
        """Decay of each parameter, shape (K, P)."""
        share = [_decaying(network, name, shape, theta.device).flatten() for name, shape in network.shapes.items()]
        return torch.tensor(self.weight_decay, dtype=theta.dtype, device=theta.device).unsqueeze(1) * torch.cat(
            share
        ).to(theta)


def _decaying(network: Potential, name: str, shape: tuple[int, ...], device: torch.device) -> Tensor:
    """1 where a parameter decays, else 0. Those of a monotone dimension do not: zero is no softplus of zero."""
    decaying = torch.full(shape, float(network.decays(name)), dtype=torch.float32, device=device)
    monotone = getattr(network, "monotone", "")
    if monotone and name[0] in "Ww":
        free = torch.tensor([sign == "0" for sign in monotone], device=device)
        decaying *= free if name == "w" else free.unsqueeze(1)
    return decaying


def _batches(n_members: int, n: int, size: int, generator: torch.Generator) -> Callable[[], Tensor]:
    """Draw batches of row numbers, shape (K, size): each member passes over all rows in orders of its own."""
    left: list[Tensor] = []

    def draw() -> Tensor:
        if not left:
            order = torch.rand(n_members, n, generator=generator, dtype=torch.float32, device=generator.device).argsort(
                1
            )
            # What is left over at the end of a pass is too few for a batch.
            left.extend(order.split(min(size, n), dim=1)[: max(n // size, 1)])
        return left.pop()

    return draw
