"""Multilayer perceptron: the potential without convexity, for comparison."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from ._one_branch import OneBranch
from ._parameters import standard_normal


@final
@dataclass(frozen=True)
class MLP(OneBranch):
    r"""Function :math:`f(x) = v \cdot z_L + \tfrac{q}{2}|x|^2`, :math:`z_{l+1} = \sigma(V_l z_l + b_{l+1})`.

    Not convex: its gradient is no optimal transport map in general, and conjugates have many local maximisers. It is
    here because papers compare with it.

    Parameters
    ----------
    n_dims
        Dimension d of the cells' representation.
    hidden
        Width of each hidden layer.
    quadratic_skip
        Whether the first layer has the terms :math:`(Qx)^2`.
    strong_convexity
        q at the start; 0 for no such term.
    output_scale
        Factor of v at the start.
    monotone
        Must be empty: the weights between layers have no sign.
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

    def _positive(self, name: str) -> bool:
        return name == "q"

    def decays(self, name: str) -> bool:
        return name[0] in "WVvQ"

    def _draw(self, name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        if name == "Q":
            return standard_normal(shape, generator) / math.sqrt(self.n_dims)
        bound = 1 / math.sqrt(self._fan_in(name) if name[0] != "W" and self._fan_in(name) else self.n_dims)
        return (2 * torch.rand(shape, generator=generator, dtype=torch.float32, device=generator.device) - 1) * bound
