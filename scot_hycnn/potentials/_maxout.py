"""Convex networks of maxout gates: two branches a unit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - PyTorch's own convention

from ._gate import smooth_max
from ._network import Network
from ._parameters import inverse_softplus, log_normal, standard_normal, unpack
from ._potential import Weights
from ._temperature import cyclic

# The gate is a sharp maximum there. Weights are divided by temperatures, and slopes by their squares: a softplus that
# training drives towards 0 would make them infinite in float32.
_LEAST_TEMPERATURE = 1e-6


@dataclass(frozen=True)
class Maxout(Network):
    """Its gate is the larger of two branches, or smoothly so. Options: see :class:`HyCNN`."""

    branches: ClassVar[int] = 2

    gate: Literal["smooth", "max"] = "smooth"
    temperature: float = 1.0
    annealing: Literal["learned", "fixed", "cyclic"] = "learned"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.gate not in ("smooth", "max"):
            raise ValueError(f"gate={self.gate!r} is unknown; choose 'smooth' or 'max'.")
        if self.annealing not in ("learned", "fixed", "cyclic"):
            raise ValueError(f"annealing={self.annealing!r} is unknown; choose 'learned', 'fixed' or 'cyclic'.")
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature={self.temperature} must be positive.")

    def _more_shapes(self) -> dict[str, tuple[int, ...]]:
        tau = {"tau": (1, len(self.hidden))} if self.gate == "smooth" else {}
        return tau | super()._more_shapes()

    def _draw(self, name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Paper, sec. 2.2 and app. C; Q and tau are ours."""
        device = generator.device
        if name == "tau":
            return inverse_softplus(torch.full(shape, self.temperature, dtype=torch.float32, device=device))
        if name[0] in "WwQ":
            # Q is as strong as the later skips: at a tenth of that, T = 4x^3 stayed a linear map for 400 steps.
            scale = (1.0 if name == "W0" else 0.5) / math.sqrt(self.n_dims)
            return standard_normal(shape, generator) * scale
        h = self._fan_in(name)
        if name[0] == "b":
            bias = -math.sqrt(h / (2 * math.pi * h + 2 * math.pi - 2)) if h else 0.0
            return torch.full(shape, bias, dtype=torch.float32, device=device)
        mean = math.sqrt(1 / (h**2 + (1 - 1 / math.pi) * h))
        return log_normal(shape, mean, 1 / (4 * h), generator)

    def weights(self, theta: Tensor) -> Weights:
        r"""Named weights of the function: those that must be positive for convexity are so here.

        Temperatures are gone from them: :math:`\tau\,m(a/\tau, b/\tau)` is the gate of temperature
        :math:`\tau` if m is that of temperature 1, so each layer's weights carry them as scales, once for all points.

        Parameters
        ----------
        theta
            Free parameters, shape (K, P), as :meth:`init` draws them.

        Returns
        -------
        Tensors by name, each with leading dimension K. Autograd leads back to theta.
        """
        weights = super().weights(theta)
        if self.gate == "smooth":
            tau = F.softplus(weights.pop("tau")).clamp_min(_LEAST_TEMPERATURE)
            self._absorb_temperatures(weights, tau if self.annealing == "learned" else tau.detach())
        return weights

    def _absorb_temperatures(self, weights: Weights, tau: Tensor) -> None:
        taus = tau.split(1, dim=-1)
        for layer, t in enumerate(taus):
            for name in (f"W{layer}", f"b{layer}"):
                if name in weights:
                    weights[name] = weights[name] / t
            if layer:
                weights[f"V{layer}"] = weights[f"V{layer}"] * (taus[layer - 1] / t)
        weights["v"] = weights["v"] * taus[-1]
        if self.quadratic_skip:
            weights["Q"] = weights["Q"] / taus[0].sqrt()

    def at_step(self, theta: Tensor, step: int, max_steps: int) -> None:
        if self.gate == "smooth" and self.annealing == "cyclic":
            tau = torch.tensor(self.temperature * cyclic(step, max_steps), dtype=torch.float32, device="cpu")
            with torch.no_grad():
                unpack(theta, self.shapes)["tau"].fill_(float(inverse_softplus(tau)))

    def _gate(self, a: Tensor) -> tuple[Tensor, Tensor]:
        first, second = a.chunk(2, dim=-1)
        if self.gate == "max":
            return torch.maximum(first, second), (first >= second).to(a.dtype)
        return smooth_max(first, second)

    def _back(self, u: Tensor, slopes: Tensor) -> Tensor:
        first = u * slopes
        return torch.cat([first, u - first], dim=-1)
