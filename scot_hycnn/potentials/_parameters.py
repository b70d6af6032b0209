"""How a potential's parameters lie in one tensor, and how they are drawn."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def unpack(theta: Tensor, shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Views of theta, shape (K, P), by name: each has shape (K, *shape)."""
    pieces = theta.split([math.prod(shape) for shape in shapes.values()], dim=1)
    return {name: piece.view(len(theta), *shape) for (name, shape), piece in zip(shapes.items(), pieces, strict=True)}


def inverse_softplus(value: Tensor) -> Tensor:
    """r with log(1 + e^r) = value, for value > 0."""
    return value + torch.log(-torch.expm1(-value))


def standard_normal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draws in single precision, whatever PyTorch's default type is: the same seed, the same network."""
    return torch.randn(shape, generator=generator, dtype=torch.float32, device=generator.device)


def log_normal(shape: tuple[int, ...], mean: float, variance: float, generator: torch.Generator) -> Tensor:
    """Draws from the log-normal distribution that has the given mean and variance."""
    log_variance = math.log1p(variance / mean**2)
    return torch.exp(math.log(mean) - log_variance / 2 + math.sqrt(log_variance) * standard_normal(shape, generator))
