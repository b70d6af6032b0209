"""Fit potentials to values by least squares, side by side."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from scot_hycnn.potentials import Potential
from scot_hycnn.solver.training._optimiser import Optimiser, cosine


def fit_least_squares(
    network: Potential,
    x: Tensor,
    y: Tensor,
    generator: torch.Generator,
    *,
    max_steps: int,
    batch_size: int,
    lr: float,
    weight_decay: tuple[float, ...],
) -> tuple[Tensor, Tensor]:
    """Minimise the variance of f(x) - y, with one ``weight_decay`` a member, of the weights on x that have no sign.

    Return the parameters, shape (K, P), averaged over the last steps, and the non-finite gradients met, shape (K,).
    """
    # The variance is the mean square at the best intercept, which costs no steps. A learned intercept would: the
    # networks are positive sums, which must lower all biases to offset the mean of a quadratic.
    n_members = len(weight_decay)
    adam = Optimiser(
        network,
        network.init(n_members, generator),
        betas=(0.9, 0.999),
        weight_decay=0.0,
        # With 32 layers (f1, d = 50) Adam's first full step moves every weight by lr at once: loss rises from 1.3 to
        # 20, the gradient's norm from 1 to 89 (first layer: .04 to 27). The second moment keeps that for a thousand
        # steps, and the lower layers, whose gradients are .003 by then, stand still. After 60 steps the test error was
        # 2.87, with clipping alone 1.12, with warm-up alone 2.08.
        max_norm=1.0,
        averaging=0.98,
    )
    share = torch.cat([_decaying(network, name, shape).flatten() for name, shape in network.shapes.items()])
    decay = torch.tensor(weight_decay, dtype=torch.float32, device="cpu").unsqueeze(1) * share
    decay = decay.to(adam.theta)
    batches = _batches(n_members, len(x), batch_size, generator)
    for step in range(max_steps):
        network.at_step(adam.theta, step, max_steps)
        batch = next(batches)
        error = network.value(network.weights(adam.theta), x[batch]) - y[batch]
        (gradient,) = torch.autograd.grad(error.var(1, correction=0).sum(), [adam.theta])
        rate = lr * cosine(step, max_steps)
        adam.update(gradient, rate)
        with torch.no_grad():
            # Below 1 / lr everything shrinks; above, it would change its sign.
            adam.theta *= (1 - rate * decay).clamp_min(0.0)
    return adam.average, adam.n_bad_gradients


def _decaying(network: Potential, name: str, shape: tuple[int, ...]) -> Tensor:
    """Return 1 where a parameter decays, else 0: not in a monotone dimension, since zero is no softplus of zero."""
    decaying = torch.full(shape, float(network.decays(name)), dtype=torch.float32, device="cpu")
    if network.monotone and name[0] in "Ww":
        is_free = torch.tensor([sign == "0" for sign in network.monotone], device="cpu")
        decaying *= is_free if name == "w" else is_free.unsqueeze(1)
    return decaying


def _batches(n_members: int, n: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Return batches of row numbers, shape (K, size): each member passes over all rows in random orders."""
    while True:
        order = torch.rand(n_members, n, generator=generator, dtype=torch.float32, device=generator.device).argsort(1)
        # What is left over at the end of a pass is too few for a batch.
        yield from reversed(order.split(min(size, n), dim=1)[: max(n // size, 1)])
