"""Feed-forward potentials with input skips: value and explicit gradient, once for all families."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - PyTorch's own convention

from ._parameters import inverse_softplus, unpack
from ._potential import Potential, Weights

_SIGNS = {"+": 1.0, "-": -1.0, "0": 0.0}
# Keeps the free parameter of a weight that starts near zero finite.
_LEAST_SLOPE = 1e-6


@dataclass(frozen=True)
class Network(Potential):
    r"""Layers :math:`a_l = V_l z_l + W_l x + b_l`, :math:`z_{l+1} = \mathrm{gate}(a_l)`, and their sum.

    .. math::
        f(x) = v \cdot z_L + w \cdot x + \tfrac{q}{2}|x|^2

    with :math:`(Qx)^2` added to the first layer's :math:`a`, if asked for. A family says what its gate is, whether V
    and v are positive, whether it has the skips W_l (l > 0) and w from the input, and how it starts.

    Options: see :class:`HyCNN`. All weights on a monotone dimension are softpluses with its sign, and it is left out of
    Q and q, whose slopes change their sign. (The option is a string, since that is what every file format keeps.)
    """

    # Columns of a for each unit: a maxout gate has two branches.
    branches: ClassVar[int] = 1
    input_skips: ClassVar[bool] = True

    quadratic_skip: bool = False
    strong_convexity: float = 0.1
    output_scale: float = 1.0
    monotone: str = ""

    def __post_init__(self) -> None:
        name = type(self).__name__
        if self.n_dims < 1 or not self.hidden or min(self.hidden) < 1:
            raise ValueError(
                f"n_dims={self.n_dims}, hidden={self.hidden}: {name} needs at least one dimension and one hidden "
                "layer, each of width 1 or more."
            )
        if not (0 <= self.strong_convexity < math.inf and 0 < self.output_scale < math.inf):
            raise ValueError(
                f"output_scale={self.output_scale} must be positive, and strong_convexity={self.strong_convexity} "
                "not negative."
            )
        if self.monotone and (len(self.monotone) != self.n_dims or not set(self.monotone) <= set(_SIGNS)):
            raise ValueError(
                f"monotone={self.monotone!r} must be empty, or one of '+', '-' and '0' for each of the {self.n_dims} "
                "dimensions."
            )
        if self.monotone and not self.convex:
            raise ValueError(f"monotone={self.monotone!r} needs positive weights between layers; {name} has others.")

    @abstractmethod
    def _gate(self, a: Tensor) -> tuple[Tensor, Tensor]:
        """z = gate(a), and the slopes that :meth:`_back` needs."""

    @abstractmethod
    def _back(self, u: Tensor, slopes: Tensor) -> Tensor:
        """df/da, from u = df/dz."""

    def _positive(self, name: str) -> bool:
        """Whether a weight is the softplus of its free parameter."""
        return name[0] in "Vvq"

    @property
    def convex(self) -> bool:
        """Whether f is convex for every parameter value."""
        return True

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of each parameter of one map, in the order in which theta holds them.

        Layer l has W_l (from x), b_l and, from the second on, V_l; the columns of a gate's first branch come before
        its second's.
        """
        shapes: dict[str, tuple[int, ...]] = {}
        for layer, width in enumerate(self.hidden):
            if not layer or self.input_skips:
                shapes[f"W{layer}"] = (self.n_dims, self.branches * width)
            shapes[f"b{layer}"] = (1, self.branches * width)
            if layer:
                shapes[f"V{layer}"] = (self.hidden[layer - 1], self.branches * width)
        shapes["v"] = (1, self.hidden[-1])
        if self.input_skips:
            shapes["w"] = (1, self.n_dims)
        if self.strong_convexity:
            shapes["q"] = (1, 1)
        return shapes | self._more_shapes()

    def _more_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"Q": (self.n_dims, self.branches * self.hidden[0])} if self.quadratic_skip else {}

    def _init_parameter(self, name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        if name == "q":
            return inverse_softplus(
                torch.full(shape, self.strong_convexity, dtype=torch.float32, device=generator.device)
            )
        drawn = self._draw(name, shape, generator)
        scaled = drawn * self.output_scale if name in ("v", "w") else drawn
        if self._positive(name):
            return inverse_softplus(scaled)
        if self.monotone and name[0] in "Ww":
            return torch.where(self._signs(name, drawn) == 0, scaled, inverse_softplus(scaled.abs() + _LEAST_SLOPE))
        return scaled

    @abstractmethod
    def _draw(self, name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """First value of a weight, as the family's source has it."""

    def _fan_in(self, name: str) -> int:
        """Width of the layer below the parameter's; 0 for the first layer."""
        if name == "v":
            return self.hidden[-1]
        layer = int(name[1:])
        return self.hidden[layer - 1] if layer else 0

    def decays(self, name: str) -> bool:
        """Decay takes the weights that multiply x: without them the potential is q|x|^2/2.

        Decaying the free parameters of V and v instead would pull these away from zero, since softplus(0) = 0.69.

        Parameters
        ----------
        name
            Name of a parameter.

        Returns
        -------
        Whether it decays.
        """
        return name[0] in "WQw"

    def weights(self, theta: Tensor) -> Weights:
        weights = {name: F.softplus(w) if self._positive(name) else w for name, w in unpack(theta, self.shapes).items()}
        return {name: self._with_sign(name, w) for name, w in weights.items()} if self.monotone else weights

    def _with_sign(self, name: str, w: Tensor) -> Tensor:
        """A weight as the monotone dimensions let it be."""
        signs = self._signs(name, w)
        if name[0] in "Ww":
            return torch.where(signs == 0, w, signs * F.softplus(w))
        return w * (signs == 0) if name[0] in "Qq" else w

    def _signs(self, name: str, w: Tensor) -> Tensor:
        """Sign that each dimension asks for, along the axis of w that runs over dimensions: the last of w and q."""
        signs = torch.tensor([_SIGNS[sign] for sign in self.monotone], dtype=w.dtype, device=w.device)
        return signs if name in ("w", "q") else signs.unsqueeze(1)

    def value(self, weights: Weights, x: Tensor) -> Tensor:
        z, _, _ = self._layers(weights, x)
        out = z @ weights["v"].mT
        if self.input_skips:
            out = out + x @ weights["w"].mT
        if self.strong_convexity:
            out = out + 0.5 * (weights["q"] * x.square()).sum(-1, keepdim=True)
        return out.squeeze(-1)

    def gradient(self, weights: Weights, x: Tensor) -> Tensor:
        _, slopes, quadratic = self._layers(weights, x)
        out = weights["q"] * x if self.strong_convexity else torch.zeros_like(x)
        if self.input_skips:
            out = out + weights["w"]
        # u is df/dz_l and grad is df/da_l, from the last layer to the first.
        u = weights["v"]
        for layer in range(len(self.hidden) - 1, -1, -1):
            grad = self._back(u, slopes[layer])
            if f"W{layer}" in weights:
                out = out.baddbmm_(grad, weights[f"W{layer}"].mT)
            if layer:
                u = grad @ weights[f"V{layer}"].mT
        if quadratic is not None:
            out = out.baddbmm_(grad * quadratic, weights["Q"].mT, alpha=2)
        return out

    def _layers(self, weights: Weights, x: Tensor) -> tuple[Tensor, list[Tensor], Tensor | None]:
        """Last hidden layer z_L, the slopes of each gate, and Qx."""
        quadratic = x @ weights["Q"] if self.quadratic_skip else None
        slopes: list[Tensor] = []
        z = x
        for layer in range(len(self.hidden)):
            if f"W{layer}" in weights:
                a = torch.baddbmm(weights[f"b{layer}"], x, weights[f"W{layer}"])
                if layer:
                    a = a.baddbmm_(z, weights[f"V{layer}"])
                elif quadratic is not None:
                    a = a.addcmul_(quadratic, quadratic)
            else:
                a = torch.baddbmm(weights[f"b{layer}"], z, weights[f"V{layer}"])
            z, slope = self._gate(a)
            slopes.append(slope)
        return z, slopes, quadratic
