"""Networks of one branch a unit: the input convex neural network (ICNN), and the multilayer perceptron (MLP)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, final

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - PyTorch's own convention

from ._potential import Potential, Weights, log_normal, standard_normal

# Slope of leaky_relu below zero (arXiv:2604.26942, app. D.3).
_LEAK = 0.2


@dataclass(frozen=True)
class _OneBranch(Potential):
    """A network whose gate is an activation: convex and non-decreasing, applied to each unit."""

    choices: ClassVar[dict[str, tuple[str, ...]]] = {"activation": ("relu", "leaky_relu", "softplus")}

    activation: Literal["softplus", "relu", "leaky_relu"] = "softplus"

    def _gate(self, a: Tensor) -> tuple[Tensor, Tensor]:
        if self.activation == "softplus":
            # PyTorch's threshold of 20 makes a step of 2e-9 in the function, which shows in double precision.
            return F.softplus(a, beta=1 / self.temperature, threshold=50), torch.sigmoid(a / self.temperature)
        leak = _LEAK if self.activation == "leaky_relu" else 0.0
        slope = torch.full_like(a, leak).masked_fill_(a > 0, 1.0)
        return a * slope, slope


@final
@dataclass(frozen=True)
class ICNN(_OneBranch):
    r"""Convex function of one-branch layers with input skips.

    .. math::
        z_1     &= \sigma(W_1 x + b_1 + (Qx)^2), \\
        z_{l+1} &= \sigma(V_l z_l + W_{l+1} x + b_{l+1}), \\
        f(x)    &= v \cdot z_L + w \cdot x + \tfrac{q}{2}|x|^2

    With the hard constraint :math:`V, v > 0` are the softplus of free parameters. With the soft one they are free
    and training penalises their negative parts: f is then close to convex at best.

    Parameters
    ----------
    n_dims, hidden, quadratic_skip, strong_convexity, output_scale, monotone
        See :class:`Potential`.
    activation
        ``'softplus'``, ``'relu'`` or ``'leaky_relu'`` (0.2 below zero).
    temperature
        :math:`\tau` of softplus, :math:`\tau\log(1 + e^{a/\tau})`. The scale of a is learned, by the weights.
    constraint
        ``'hard'`` or ``'soft'``.

    References
    ----------
    Amos, Xu & Kolter (2017), "Input convex neural networks", ICML, eq. 2. Hoedt & Klambauer (2023), "Principled
    weight initialisation for input-convex neural networks", NeurIPS. Soft constraint: Makkuva et al. (2020), ICML,
    sec. 4. Quadratic first layer: Korotin et al. (2021), ICLR, app. B.2.

    Examples
    --------
    >>> import torch
    >>> from scot_hycnn.potentials import ICNN
    >>> f = ICNN(n_dims=5, hidden=(16, 16), activation="relu")
    >>> weights = f.weights(f.init(1, torch.Generator().manual_seed(0)))
    >>> f.gradient(weights, torch.zeros(1, 100, 5)).shape
    torch.Size([1, 100, 5])
    """

    choices: ClassVar[dict[str, tuple[str, ...]]] = _OneBranch.choices | {"constraint": ("hard", "soft")}

    constraint: Literal["hard", "soft"] = "hard"

    @property
    def convex(self) -> bool:
        return self.constraint == "hard"

    def _draw(self, name: str, shape: tuple[int, ...], fan_in: int, generator: torch.Generator) -> Tensor:
        """Draw as in Hoedt & Klambauer (2023), prop. 1: signals keep mean and variance from layer to layer."""
        if name[0] in "WwQ":
            return standard_normal(shape, generator) / math.sqrt(self.n_dims)
        n = fan_in
        denominator = 6 * (math.pi - 1) + (n - 1) * (3 * math.sqrt(3) + 2 * math.pi - 6)
        if name[0] == "b":
            bias = -math.sqrt(3 * n / denominator) if n else 0.0
            return torch.full(shape, bias, dtype=torch.float32, device=generator.device)
        return log_normal(shape, math.sqrt(6 * math.pi / (n * denominator)), 1 / n, generator)

    def penalty(self, weights: Weights) -> Tensor:
        # |V_-|^2 + |v_-|^2 of each map; there are no negative weights with the hard constraint.
        negative = [w.clamp_max(0).square().sum((1, 2)) for name, w in weights.items() if name[0] in "Vv"]
        return torch.stack(negative).sum(0)


@final
@dataclass(frozen=True)
class MLP(_OneBranch):
    r"""Function :math:`f(x) = v \cdot z_L + \tfrac{q}{2}|x|^2`, :math:`z_{l+1} = \sigma(V_l z_l + b_{l+1})`.

    It is not convex: its gradient is no optimal transport map in general, and conjugates have many local maximisers.
    It is here because papers compare with it.

    Parameters
    ----------
    n_dims, hidden, quadratic_skip, strong_convexity, output_scale, monotone
        See :class:`Potential`. ``monotone`` must be empty: the weights between layers have no sign.
    activation
        ``'softplus'``, ``'relu'`` or ``'leaky_relu'`` (0.2 below zero).
    temperature
        :math:`\tau` of softplus.

    References
    ----------
    arXiv:2604.26942, app. D.2 (baseline). Initialisation: PyTorch's default for linear layers, uniform within
    :math:`\pm 1/\sqrt{\text{fan-in}}`.

    Examples
    --------
    >>> import torch
    >>> from scot_hycnn.potentials import MLP
    >>> f = MLP(n_dims=5, hidden=(64, 64), activation="relu")
    >>> f.convex
    False
    """

    input_skips: ClassVar[bool] = False

    @property
    def convex(self) -> bool:
        return False

    def decays(self, name: str) -> bool:
        return name[0] in "WVvQ"

    def _draw(self, name: str, shape: tuple[int, ...], fan_in: int, generator: torch.Generator) -> Tensor:
        if name == "Q":
            return standard_normal(shape, generator) / math.sqrt(self.n_dims)
        bound = 1 / math.sqrt(fan_in or self.n_dims)
        return (2 * torch.rand(shape, generator=generator, dtype=torch.float32, device=generator.device) - 1) * bound
