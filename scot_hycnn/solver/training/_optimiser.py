"""SOAP or Adam for the networks of all maps side by side, with clipping, decay and an average for each network."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scot_hycnn.potentials import Potential
from scot_hycnn.potentials._potential import unpack

# Decay rate of the averages of G G^T and G^T G.
CURVATURE_DECAY = 0.9
# Steps between two renewals of the eigenvectors.
RENEW_EVERY = 5
EPSILON = 1e-8


def cosine(step: int, max_steps: int, *, warm_up: int = 50) -> float:
    """Return the fraction of the highest learning rate: linear warm-up, then a half cosine down to a hundredth.

    Source: Loshchilov & Hutter (2017), ICLR, eq. 5, without restarts.
    """
    annealed = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / max_steps))
    return min(1.0, (step + 1) / warm_up) * annealed


class Eigenbases:
    """The coordinates of SOAP, in which Adam takes its steps: an eigenbasis on both sides of each weight matrix.

    For the gradient G of a matrix, shape (m, n), they are the eigenvectors of running averages of :math:`G G^T` and
    :math:`G^T G`. Vectors have none. Matrices of one shape, of all networks, are S in one tensor, shape (K, S, m, n).

    Source: Vyas et al. (2025), "SOAP: Improving and stabilizing Shampoo using Adam", ICLR, arXiv:2409.11321, alg. 3.
    """

    def __init__(self, potential: Potential, theta: Tensor) -> None:
        self._shapes = potential.shapes
        self._alike: dict[tuple[int, ...], list[str]] = {}
        for name, shape in self._shapes.items():
            if min(shape) > 1:
                self._alike.setdefault(shape, []).append(name)
        # By side and shape of the matrices: averages and eigenvectors, (K, S, m, m) on the left, (K, S, n, n) on the
        # right. Adam's own coordinates are the start.
        self._averages: dict[str, Tensor] = {}
        self._vectors: dict[str, Tensor] = {}
        for (m, n), names in self._alike.items():
            for key, size in ((f"left_{m}_{n}", m), (f"right_{m}_{n}", n)):
                self._averages[key] = theta.new_zeros(len(theta), len(names), size, size)
                identity = torch.eye(size, dtype=theta.dtype, device=theta.device)
                self._vectors[key] = identity.expand_as(self._averages[key]).clone()
        # Factors of `turn`: views of the vectors, which change in place.
        self.forward, self.back = {key: vectors.mT for key, vectors in self._vectors.items()}, self._vectors
        named = {"average": self._averages, "vectors": self._vectors}
        self.state = {f"{name}_{key}": tensor for name, tensors in named.items() for key, tensor in tensors.items()}

    def observe(self, gradient: Tensor) -> None:
        """Add a gradient, shape (K, P), to the averages."""
        named = unpack(gradient, self._shapes)
        for (m, n), names in self._alike.items():
            matrices = torch.stack([named[name] for name in names], 1)
            self._averages[f"left_{m}_{n}"].lerp_(matrices @ matrices.mT, 1 - CURVATURE_DECAY)
            self._averages[f"right_{m}_{n}"].lerp_(matrices.mT @ matrices, 1 - CURVATURE_DECAY)

    def turn(self, flat: Tensor, factors: dict[str, Tensor]) -> Tensor:
        """Return parameters, shape (K, P), with every matrix multiplied from both sides; vectors stay as they are.

        The factors ``forward`` lead into the eigenbases, and ``back`` out of them.
        """
        product = flat.clone()
        named = unpack(product, self._shapes)
        for (m, n), names in self._alike.items():
            matrices = torch.stack([named[name] for name in names], 1)
            turned = factors[f"left_{m}_{n}"] @ matrices @ factors[f"right_{m}_{n}"].mT
            for name, matrix in zip(names, turned.unbind(1), strict=True):
                named[name].copy_(matrix)
        return product

    def renew(self, squares: Tensor, *, first: bool) -> None:
        """Renew the eigenvectors, and turn ``squares``, averages of squared gradients in the old ones, in place."""
        # One QR decomposition is a step of power iteration, which is enough after the first time, since the averages
        # change slowly: it takes a fifth of the time of an eigendecomposition.
        turns = {}
        for key, average in self._averages.items():
            old = self._vectors[key]
            new = torch.linalg.eigh(average).eigenvectors if first else torch.linalg.qr(average @ old).Q
            # The square of a sum of uncorrelated numbers is the sum of their squares. Where the squares stayed those of
            # the old coordinates, steps were up to 25 times too long and one network in fifty was lost.
            turns[key] = (new.mT @ old).square()
            self._vectors[key].copy_(new)
        squares.copy_(self.turn(squares, turns))


class Optimiser:
    """Parameters theta of K networks, shape (K, P), that are optimised side by side, and their running average.

    Clipping, decay and failures are separate for each network, so that one that explodes does not change the others.
    ``soap`` takes Adam's steps in the eigenbases of SOAP; ``max_norm`` limits the gradient of one network;
    ``averaging`` is the decay rate of the average (Polyak & Juditsky 1992).
    """

    def __init__(
        self,
        potential: Potential,
        theta: Tensor,
        *,
        betas: tuple[float, float],
        weight_decay: float,
        max_norm: float,
        averaging: float,
        soap: bool = False,
    ) -> None:
        self.theta = theta.requires_grad_()
        self.average = theta.detach().clone()
        self.n_bad_gradients = theta.new_zeros(len(theta))
        self._n_updates = theta.new_zeros(())
        # Running averages of the gradient, and of its square in the eigenbases.
        self._mean, self._square = torch.zeros_like(self.average), torch.zeros_like(self.average)
        self._bases = Eigenbases(potential, self.average) if soap else None
        self._betas, self._max_norm, self._averaging = betas, max_norm, averaging
        # Decoupled decay, a unit of learning rate, of the weights that multiply x. Without these weights the potential
        # is q|x|^2/2, the Gaussian map up to scale: decay pulls towards the simple answer.
        decays = [
            theta.new_full((math.prod(shape),), weight_decay if potential.decays(name) else 0.0)
            for name, shape in potential.shapes.items()
        ]
        self._decay = torch.cat(decays)
        # Every tensor that updates change, by name. They change in place, so that these are always the present ones.
        self.state = {"theta": theta.detach(), "average": self.average, "n_bad_gradients": self.n_bad_gradients}
        self.state |= {"n_updates": self._n_updates, "mean": self._mean, "square": self._square}
        if self._bases is not None:
            self.state |= self._bases.state

    @torch.no_grad()
    def renew(self, n_done: int) -> None:
        """Renew the eigenbases, if it is their turn after ``n_done`` steps. It waits for a GPU."""
        if self._bases is not None and n_done and n_done % RENEW_EVERY == 0:
            self._bases.renew(self._square, first=n_done == RENEW_EVERY)

    @torch.no_grad()
    def update(self, grad: Tensor, lr: float | Tensor) -> None:
        """Descend by one step along the gradient ``grad``, shape (K, P), which is overwritten."""
        norm = grad.norm(dim=1, keepdim=True)
        grad *= (self._max_norm / (norm + 1e-9)).clamp_max(1.0)
        # A gradient that is not finite is counted and skipped.
        bad = ~norm.isfinite()
        self.n_bad_gradients += bad.squeeze(1)
        grad.masked_fill_(bad, 0.0)
        self.theta *= 1 - lr * self._decay

        # Adam (Kingma & Ba 2015, ICLR, alg. 1), whose square root is taken in the eigenbases.
        first, second = self._betas
        self._n_updates += 1
        self._mean.lerp_(grad, 1 - first)
        turned_grad, turned_mean = grad, self._mean
        if self._bases is not None:
            self._bases.observe(grad)
            turned_grad, turned_mean = (self._bases.turn(part, self._bases.forward) for part in (grad, self._mean))
        self._square.lerp_(turned_grad.square(), 1 - second)
        unbiased = self._square / (1 - second**self._n_updates)
        step = turned_mean / (1 - first**self._n_updates) / unbiased.sqrt_().add_(EPSILON)
        self.theta -= lr * (step if self._bases is None else self._bases.turn(step, self._bases.back))

        # The first averages weigh recent steps more, so that the start leaves the average.
        self.average.lerp_(self.theta, (9 / (self._n_updates + 9)).clamp_min(1 - self._averaging))

    @torch.no_grad()
    def load(self, state: dict[str, Tensor]) -> None:
        """Restore a ``state``."""
        for name, tensor in self.state.items():
            # The device is named, since the default device may be another one.
            tensor.copy_(torch.as_tensor(state[name], device=tensor.device))


def descend(loss: Tensor, lr: float | Tensor, *optimisers: Optimiser) -> None:
    """Take one step on the loss, shape (K,), for each of the optimisers: all gradients first, then all updates."""
    gradients = torch.autograd.grad(loss.sum(), [optimiser.theta for optimiser in optimisers])
    for optimiser, gradient in zip(optimisers, gradients, strict=True):
        optimiser.update(gradient, lr)
