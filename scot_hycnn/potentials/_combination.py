"""Non-negative combinations of shared HyCNNs: the potentials of the conditions of a screen."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import final

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - PyTorch's own convention

from ._hycnn import HyCNN
from ._potential import Weights, inverse_softplus, unpack

# Prefix of the weights of the shared networks.
_SHARED = "shared_"


@final
@dataclass(frozen=True)
class Combination(HyCNN):
    r"""Convex function that combines R shared HyCNNs :math:`f_r` with non-negative weights.

    .. math::
        f(x) = \tfrac{s}{2}|x|^2 + w \cdot x + \sum_{r=1}^R v_r\, f_r(L x + t)

    s and v are the softplus of free parameters, so that f is convex for every parameter value. The first term is the
    Gaussian map of a condition in its balanced coordinates, and :math:`L x + t` leads from these to the coordinates
    that all conditions share. :func:`scot_hycnn.solver.fit_screen` makes such potentials; the parameters of the shared
    networks are a part of theta.

    Parameters
    ----------
    n_dims, hidden, quadratic_skip, strong_convexity, output_scale, monotone, temperature, gate, annealing
        Of the shared networks; see :class:`HyCNN`.
    n_networks
        R.

    References
    ----------
    Boyd & Vandenberghe (2004), Convex Optimization, sec. 3.2.1: non-negative sums of convex functions are convex;
    Hundrieser, Kong & Schmidt-Hieber (2026), arXiv:2604.26942, for the networks. The combination is ours.

    Examples
    --------
    >>> import torch
    >>> from scot_hycnn.potentials import Combination
    >>> f = Combination(n_dims=5, hidden=(16, 16), n_networks=3)
    >>> weights = f.weights(f.init(2, torch.Generator().manual_seed(0)))
    >>> x = torch.zeros(2, 100, 5)
    >>> f.value(weights, x).shape, f.gradient(weights, x).shape
    (torch.Size([2, 100]), torch.Size([2, 100, 5]))
    """

    n_networks: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_networks < 1 or self.monotone:
            raise ValueError(
                f"n_networks={self.n_networks}, monotone={self.monotone!r}: a combination needs one network or more, "
                "and has no monotone dimensions."
            )

    @property
    def network(self) -> HyCNN:
        """Architecture of the shared networks."""
        return HyCNN(**{field.name: getattr(self, field.name) for field in fields(HyCNN)})

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        d = self.n_dims
        own: dict[str, tuple[int, ...]] = {
            "v": (1, self.n_networks),
            "w": (1, d),
            "s": (1, 1),
            "L": (d, d),
            "t": (1, d),
        }
        # What a condition has of its own comes before the parameters of the shared networks.
        return own | {"networks": (self.n_networks, self.network.n_parameters)}

    @property
    def n_own(self) -> int:
        """Number of parameters that a condition does not share, which come first in theta."""
        return self.n_parameters - math.prod(self.shapes["networks"])

    def init(self, n_maps: int, generator: torch.Generator) -> Tensor:
        networks = self.network.init(n_maps * self.n_networks, generator)
        # Half of the Gaussian map and half of the networks, which start near |x|^2/2: the pathways are learned in half
        # of the steps that a start at the Gaussian map takes.
        half = networks.new_full((n_maps, 1, 1), 0.5)
        parameters = {
            "v": inverse_softplus(half / self.n_networks).expand(-1, -1, self.n_networks),
            "w": networks.new_zeros(n_maps, self.n_dims),
            "s": inverse_softplus(half),
            "L": torch.eye(self.n_dims, device=networks.device).expand(n_maps, -1, -1),
            "t": networks.new_zeros(n_maps, self.n_dims),
            "networks": networks.view(n_maps, self.n_networks, -1),
        }
        return torch.cat([parameters[name].flatten(1) for name in self.shapes], dim=1)

    def weights(self, theta: Tensor) -> Weights:
        weights = unpack(theta, self.shapes)
        shared = self.network.weights(weights.pop("networks").flatten(0, 1))
        weights |= {"v": F.softplus(weights["v"]), "s": F.softplus(weights["s"])}
        return weights | {_SHARED + name: weight for name, weight in shared.items()}

    def value(self, weights: Weights, x: Tensor) -> Tensor:
        out = 0.5 * weights["s"].squeeze(2) * x.square().sum(-1) + (x @ weights["w"].mT).squeeze(-1)
        of_networks = self.network.value(*self._shared(weights, x)).view(len(x), self.n_networks, -1)
        return out + (weights["v"] @ of_networks).squeeze(1)

    def gradient(self, weights: Weights, x: Tensor) -> Tensor:
        gradients = self.network.gradient(*self._shared(weights, x)).view(len(x), self.n_networks, -1)
        # d/dx f_r(Lx + t) = L' grad f_r
        combined = (weights["v"] @ gradients).view(x.shape)
        return weights["s"] * x + weights["w"] + combined @ weights["L"]

    def _shared(self, weights: Weights, x: Tensor) -> tuple[Weights, Tensor]:
        """Return the weights of the K R shared networks, and the points of each, (K R, n, d)."""
        shared = {name.removeprefix(_SHARED): weight for name, weight in weights.items() if name.startswith(_SHARED)}
        points = torch.baddbmm(weights["t"], x, weights["L"].mT)
        return shared, points.repeat_interleave(self.n_networks, 0)
