"""Activations of one branch, and their slopes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - PyTorch's own convention

ACTIVATIONS = ("relu", "leaky_relu", "softplus")
# Slope of leaky_relu below zero (arXiv:2604.26942, app. D.3).
LEAK = 0.2


def activate(name: str, temperature: float, a: Tensor) -> tuple[Tensor, Tensor]:
    r"""Convex, non-decreasing activation and its derivative.

    Parameters
    ----------
    name
        ``'relu'``, ``'leaky_relu'`` (0.2 below zero) or ``'softplus'``,
        :math:`\tau\log(1 + e^{a/\tau})`.
    temperature
        :math:`\tau` of softplus.
    a
        Any shape.

    Returns
    -------
    The value and the slope, each of a's shape; for softplus both are differentiable, for the others the slope is
    constant almost everywhere.
    """
    if name == "softplus":
        # PyTorch's own threshold of 20 puts a step of 2e-9 into the function, which double precision sees.
        return F.softplus(a, beta=1 / temperature, threshold=50), torch.sigmoid(a / temperature)
    leak = LEAK if name == "leaky_relu" else 0.0
    slope = torch.full_like(a, leak).masked_fill_(a > 0, 1.0)
    return a * slope, slope
