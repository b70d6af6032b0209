"""What all families of potentials share: layers with input skips, with value and explicit gradient."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - PyTorch's own convention

Weights = dict[str, Tensor]

_SIGNS = {"+": 1.0, "-": -1.0, "0": 0.0}
# First letters of the weights (t is tau) that are the softplus of a free parameter, by whether the family is convex.
_POSITIVE = {True: "Vvqt", False: "q"}
# It keeps the free parameter of a weight finite that starts near zero.
_MIN_SLOPE = 1e-6


@dataclass(frozen=True)
class Potential(ABC):
    r"""Function :math:`R^d \to R` of many parameters, for K parameter sets at once.

    Layers :math:`a_l = V_l z_l + W_l x + b_l`, :math:`z_{l+1} = \mathrm{gate}(a_l) + P_l z_l` end in

    .. math::
        f(x) = v \cdot z_L + w \cdot x + c + \tfrac{q}{2}|x|^2

    with :math:`(Qx)^2` added to the first a if ``quadratic_skip``. Only families with two branches a unit have P and c:
    their a is the difference of the branches, and P passes the second one on. A family defines its gate, whether V and
    v are positive, whether it has the skips W_l (l > 0) and w from the input, and how it starts.

    A potential holds no weights. They are one tensor ``theta``, shape (K, P), one row a map, which :meth:`init` draws:
    an optimiser, an average or a file then handles a single array, and K maps cost one batched product a layer.

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
        Factor of v and w at the start.
    monotone
        One character a dimension: ``'+'`` where f must not fall, ``'-'`` where it must not rise, ``'0'`` where it is
        free; empty for no constraint. All weights on a monotone dimension are softpluses with its sign, and it takes no
        part in Q and q, whose slopes change their sign.
    temperature
        :math:`\tau` of the gate, at the start.

    Examples
    --------
    Three maps at once, of a family:

    >>> import torch
    >>> from scot_hycnn.potentials import ICNN, Potential
    >>> f = ICNN(n_dims=2, hidden=(8,))
    >>> isinstance(f, Potential), f.convex
    (True, True)
    >>> theta = f.init(3, torch.Generator().manual_seed(0))
    >>> f.at_step(theta, 0, 1000)  # a training method calls it before each step
    >>> theta.shape == (3, f.n_parameters), len(f.shapes)
    (True, 5)
    >>> weights, x = f.weights(theta), torch.zeros(3, 100, 2)
    >>> f.value(weights, x).shape, f.gradient(weights, x).shape, f.penalty(weights).shape
    (torch.Size([3, 100]), torch.Size([3, 100, 2]), torch.Size([3]))
    >>> [name for name in f.shapes if f.decays(name)]
    ['W0', 'w']
    """

    # Columns of W, b, V and Q for each unit: a maxout gate has two branches.
    branches: ClassVar[int] = 1
    input_skips: ClassVar[bool] = True
    # Options that are one of some words.
    choices: ClassVar[dict[str, tuple[str, ...]]] = {}

    n_dims: int
    hidden: tuple[int, ...] = (48, 48, 48, 48)
    quadratic_skip: bool = False
    strong_convexity: float = 0.1
    output_scale: float = 1.0
    monotone: str = ""
    temperature: float = 1.0

    def __post_init__(self) -> None:
        name = type(self).__name__
        if self.n_dims < 1 or not self.hidden or min(self.hidden) < 1:
            raise ValueError(
                f"n_dims={self.n_dims}, hidden={self.hidden}: {name} needs at least one dimension and one hidden "
                "layer, each of width 1 or more."
            )
        for option, choices in self.choices.items():
            if getattr(self, option) not in choices:
                raise ValueError(f"{option}={getattr(self, option)!r} is unknown; choose one of {list(choices)}.")
        for option in ("temperature", "output_scale"):
            if not 0 < getattr(self, option) < math.inf:
                raise ValueError(f"{option}={getattr(self, option)} must be positive.")
        if not 0 <= self.strong_convexity < math.inf:
            raise ValueError(f"strong_convexity={self.strong_convexity} must be 0 or more.")
        if self.monotone and (len(self.monotone) != self.n_dims or not set(self.monotone) <= set(_SIGNS)):
            raise ValueError(
                f"monotone={self.monotone!r} must be empty, or one of '+', '-' and '0' for each of the {self.n_dims} "
                "dimensions."
            )
        if self.monotone and not self.convex:
            raise ValueError(f"monotone={self.monotone!r} needs positive weights between layers; {name} has others.")

    @property
    def convex(self) -> bool:
        """Whether f is convex for every parameter value."""
        return True

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of each parameter of one map, in the order of theta; a gate's first branch comes first."""
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
        if self.quadratic_skip:
            shapes["Q"] = (self.n_dims, self.branches * self.hidden[0])
        return shapes

    @property
    def n_parameters(self) -> int:
        """Number P of parameters of one map."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    def init(self, n_maps: int, generator: torch.Generator) -> Tensor:
        """Draw the parameters theta of K maps, shape (K, P), float32, on the device of the generator."""
        parameters = []
        for name, shape in self.shapes.items():
            if name in ("q", "tau"):
                value = self.strong_convexity if name == "q" else self.temperature
                start = torch.full((n_maps, *shape), value, dtype=torch.float32, device=generator.device)
            else:
                # The fan-in is the width of the layer below; v is above the last layer, and 0 is below the first.
                layer = int(name[1:]) if name[0] in "WVb" else len(self.hidden)
                fan_in = self.hidden[layer - 1] if layer else 0
                start = self._draw(name, (n_maps, *shape), fan_in, generator)
            if name in ("v", "w"):
                start = start * self.output_scale
            if name[0] in _POSITIVE[self.convex]:
                start = inverse_softplus(start)
            elif self.monotone and name[0] in "Ww":
                is_free = self._signs(name, start) == 0
                start = torch.where(is_free, start, inverse_softplus(start.abs() + _MIN_SLOPE))
            parameters.append(start.flatten(1))
        return torch.cat(parameters, dim=1)

    @abstractmethod
    def _draw(self, name: str, shape: tuple[int, ...], fan_in: int, generator: torch.Generator) -> Tensor:
        """Draw the first value of a weight, shape (K, ...), as the family's source has it."""

    def weights(self, theta: Tensor) -> Weights:
        """Return the weights by name, each (K, ...), from free parameters theta, (K, P), as :meth:`init` draws them.

        Those that must be positive for convexity are so here. Two branches of a unit are given as their difference and
        what is passed on. Autograd leads back to theta.
        """
        positive = _POSITIVE[self.convex]
        weights = {
            name: F.softplus(free) if name[0] in positive else free for name, free in unpack(theta, self.shapes).items()
        }
        if self.monotone:
            for name, weight in weights.items():
                if name[0] in "Ww":
                    signs = self._signs(name, weight)
                    weights[name] = torch.where(signs == 0, weight, signs * F.softplus(weight))
                elif name[0] in "Qq":
                    weights[name] = weight * (self._signs(name, weight) == 0)
        return weights

    def _signs(self, name: str, weight: Tensor) -> Tensor:
        """Return the sign for each dimension, along the weight's axis of dimensions: the last one of w and q."""
        signs = torch.tensor([_SIGNS[sign] for sign in self.monotone], dtype=weight.dtype, device=weight.device)
        return signs if name in ("w", "q") else signs.unsqueeze(1)

    def value(self, weights: Weights, x: Tensor) -> Tensor:
        """Return f(x), shape (K, n), by the :meth:`weights` of K maps, at points x of each map, shape (K, n, d)."""
        z, _, _ = self._layers(weights, x, with_value=True)
        out = z @ weights["v"].mT
        if "w" in weights:
            out = out + x @ weights["w"].mT
        if "c" in weights:
            out = out + weights["c"]
        if self.strong_convexity:
            out = out + 0.5 * (weights["q"] * x.square()).sum(-1, keepdim=True)
        return out.squeeze(-1)

    def gradient(self, weights: Weights, x: Tensor) -> Tensor:
        """Return the gradient of f, shape (K, n, d), by the :meth:`weights` of K maps, at points x, (K, n, d)."""
        # One reverse pass by hand: training through the gradient then needs one autograd pass, not two nested ones.
        _, slopes, quadratic = self._layers(weights, x, with_value=False)
        out = weights["q"] * x if self.strong_convexity else torch.zeros_like(x)
        if "w" in weights:
            out = out + weights["w"]
        # u is df/dz_l and grad is df/da_l, from the last layer to the first; above the last one u is v everywhere.
        u = weights["v"]
        for layer in range(len(self.hidden) - 1, -1, -1):
            grad = u * slopes[layer]
            if f"W{layer}" in weights:
                out = out.baddbmm_(grad, weights[f"W{layer}"].mT)
            if f"P{layer}" in weights:
                u = torch.baddbmm(u @ weights[f"P{layer}"].mT, grad, weights[f"V{layer}"].mT)
            elif layer:
                u = grad @ weights[f"V{layer}"].mT
        if quadratic is not None:
            # grad and u are those of the first layer; u - grad is the derivative along its second branch.
            if self.branches == 2:
                grad = torch.cat([grad, u - grad], dim=-1)
            # The derivative of (Qx)^2 is 2 (Qx) Q.
            out = out.baddbmm_(grad * quadratic, weights["Q"].mT, alpha=2)
        return out

    def _layers(self, weights: Weights, x: Tensor, *, with_value: bool) -> tuple[Tensor, list[Tensor], Tensor | None]:
        """Return z of the last layer (of the one below without value), the slopes of each gate, and Qx."""
        quadratic = x @ weights["Q"] if self.quadratic_skip else None
        slopes: list[Tensor] = []
        z = x
        for layer, width in enumerate(self.hidden):
            # In place from the second term on: one tensor of the layer's size instead of three.
            if f"W{layer}" in weights:
                a = torch.baddbmm(weights[f"b{layer}"], x, weights[f"W{layer}"])
                if layer:
                    a = a.baddbmm_(z, weights[f"V{layer}"])
            else:
                a = torch.baddbmm(weights[f"b{layer}"], z, weights[f"V{layer}"])
            # Qx of each branch. Of two, m(a1 + r1^2, a2 + r2^2) = a2 + r2^2 + m(a1 - a2 + r1^2 - r2^2, 0).
            roots = quadratic.split(width, dim=-1) if quadratic is not None and not layer else ()
            for root, sign in zip(roots, (1, -1), strict=False):
                a = a.addcmul_(root, root, value=sign)
            if layer == len(self.hidden) - 1 and not with_value:
                slopes.append(self._slope(a))
                break
            gate, slope = self._gate(a)
            slopes.append(slope)
            for root in roots[1:]:
                gate = torch.addcmul(gate, root, root)
            z = torch.baddbmm(gate, z, weights[f"P{layer}"]) if f"P{layer}" in weights else gate
        return z, slopes, quadratic

    @abstractmethod
    def _gate(self, a: Tensor) -> tuple[Tensor, Tensor]:
        """Return gate(a) and its slope, of the shape of a."""

    def _slope(self, a: Tensor) -> Tensor:
        """Return the slope of the gate alone."""
        return self._gate(a)[1]

    def decays(self, name: str) -> bool:
        """Return whether weight decay takes the parameter of that name: it takes those that multiply x."""
        # Without these weights the potential is q|x|^2/2. Decay of the free parameters of V and v would pull these away
        # from zero, since softplus(0) = 0.69.
        return name[0] in "WQw"

    def penalty(self, weights: Weights) -> Tensor:
        """Return what training adds to the loss of each map, (K,), to make f convex: 0 where it is by construction."""
        return weights["v"].new_zeros(len(weights["v"]))

    def at_step(self, theta: Tensor, step: int, max_steps: int) -> None:  # noqa: B027 - most families have no schedule
        """Set those parameters theta, (K, P), in place that follow a schedule, after some of all steps."""


def unpack(theta: Tensor, shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Return views of theta, shape (K, P), by name: each has shape (K, *shape)."""
    pieces = theta.split([math.prod(shape) for shape in shapes.values()], dim=1)
    return {name: piece.view(len(theta), *shape) for (name, shape), piece in zip(shapes.items(), pieces, strict=True)}


def inverse_softplus(value: Tensor) -> Tensor:
    """Return r with log(1 + e^r) = value, for value > 0."""
    return value + torch.log(-torch.expm1(-value))


def standard_normal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Return draws in single precision, whatever PyTorch's default type is: the same seed gives the same network."""
    return torch.randn(shape, generator=generator, dtype=torch.float32, device=generator.device)


def log_normal(shape: tuple[int, ...], mean: float, variance: float, generator: torch.Generator) -> Tensor:
    """Return draws from the log-normal distribution with this mean and variance."""
    log_variance = math.log1p(variance / mean**2)
    return torch.exp(math.log(mean) - log_variance / 2 + math.sqrt(log_variance) * standard_normal(shape, generator))
