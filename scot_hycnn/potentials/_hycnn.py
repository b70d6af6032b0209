"""Hyper input convex neural network (HyCNN)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - PyTorch's own convention

from ._gate import smooth_max
from ._parameters import inverse_softplus, log_normal, unpack


@dataclass(frozen=True)
class HyCNN:
    r"""Convex function :math:`R^d \to R` with maxout gates and input skips, for K parameter sets at once.

    With the gate :math:`m(a, b) = \max(a, b)`, or smoothly
    :math:`m(a, b) = \tau\log(e^{a/\tau} + e^{b/\tau})`,

    .. math::
        z_1     &= m(W^1_1 x + b^1_1 + (Q^1 x)^2,\; W^2_1 x + b^2_1 + (Q^2 x)^2) \\
        z_{l+1} &= m(V^1_l z_l + W^1_{l+1} x + b^1_{l+1},\; V^2_l z_l + W^2_{l+1} x + b^2_{l+1}) \\
        f(x)    &= v \cdot z_L + w \cdot x + \tfrac{q}{2}|x|^2

    where :math:`V, v, q > 0` are the softplus of free parameters: f is convex for every parameter value, since
    the gate is convex and non-decreasing in each argument. Q (the quadratic first skip), q and the learned
    temperatures are ours, the rest is the paper's.

    A HyCNN describes the function and holds no weights. They are one tensor ``theta`` of shape (K, P), one row a
    map, which :meth:`init` draws: an optimiser, an average or a file then handles a single array, and K maps
    cost one batched product a layer.

    Parameters
    ----------
    n_dims
        Dimension d of the cells' representation.
    hidden
        Width of each hidden layer.
    gate
        ``'smooth'`` or ``'max'``.
    temperature
        :math:`\tau` of the smooth gate at the start. It is learned, one for each layer.
    quadratic_skip
        Whether the first layer has the terms :math:`(Qx)^2`.
    strong_convexity
        q at the start. It is learned and stays positive, so the convex conjugate is finite and has one maximiser.
    output_scale
        Factor of v and w at the start. 1 is the paper's initialisation; with a smaller one, and q near 1, f starts
        near :math:`|x|^2/2`.

    References
    ----------
    Hundrieser, Kong & Schmidt-Hieber (2026), arXiv:2604.26942, sec. 2 (network), sec. 2.2 and app. C
    (initialisation).

    Examples
    --------
    >>> import torch
    >>> from scot_hycnn.potentials import HyCNN
    >>> f = HyCNN(n_dims=5, hidden=(16, 16))
    >>> theta = f.init(3, torch.Generator().manual_seed(0))
    >>> x = torch.zeros(3, 100, 5)
    >>> weights = f.weights(theta)
    >>> f.value(weights, x).shape, f.gradient(weights, x).shape
    (torch.Size([3, 100]), torch.Size([3, 100, 5]))
    """

    n_dims: int
    hidden: tuple[int, ...] = (48, 48, 48, 48)
    gate: Literal["smooth", "max"] = "smooth"
    temperature: float = 1.0
    quadratic_skip: bool = True
    strong_convexity: float = 0.1
    output_scale: float = 1.0

    def __post_init__(self) -> None:
        if self.n_dims < 1 or not self.hidden or min(self.hidden) < 1:
            raise ValueError(
                f"n_dims={self.n_dims}, hidden={self.hidden}: HyCNN needs at least one dimension and one hidden "
                "layer, each of width 1 or more."
            )
        if self.gate not in ("smooth", "max"):
            raise ValueError(f"gate={self.gate!r} is unknown; choose 'smooth' or 'max'.")
        if min(self.temperature, self.strong_convexity, self.output_scale) <= 0:
            raise ValueError(
                f"temperature={self.temperature}, strong_convexity={self.strong_convexity} and "
                f"output_scale={self.output_scale} must be positive."
            )

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of each parameter of one map, in the order in which theta holds them.

        Layer l has W_l (skip from x), b_l and, from the second on, V_l; the columns of a gate's first branch come
        before its second's.
        """
        shapes: dict[str, tuple[int, ...]] = {}
        for layer, width in enumerate(self.hidden):
            shapes[f"W{layer}"] = (self.n_dims, 2 * width)
            shapes[f"b{layer}"] = (1, 2 * width)
            if layer:
                shapes[f"V{layer}"] = (self.hidden[layer - 1], 2 * width)
        shapes |= {"v": (1, self.hidden[-1]), "w": (1, self.n_dims), "q": (1, 1)}
        if self.gate == "smooth":
            shapes["tau"] = (1, len(self.hidden))
        if self.quadratic_skip:
            shapes["Q"] = (self.n_dims, 2 * self.hidden[0])
        return shapes

    @property
    def n_parameters(self) -> int:
        """Number P of parameters of one map."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    def init(self, n_maps: int, generator: torch.Generator) -> Tensor:
        """Draw the parameters of K maps.

        Parameters
        ----------
        n_maps
            K.
        generator
            Source of randomness; its device is where the parameters are made.

        Returns
        -------
        theta, shape (K, P), float32.
        """
        drawn = {
            name: self._init_parameter(name, (n_maps, *shape), generator).flatten(1)
            for name, shape in self.shapes.items()
        }
        return torch.cat(list(drawn.values()), dim=1)

    def _init_parameter(self, name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Paper, sec. 2.2 and app. C; output_scale, Q, q and tau are ours."""
        device = generator.device
        if name[0] in "WwQ":
            # Q is as strong as the later skips: at a tenth of that, T = 4x^3 stayed a linear map for 400 steps.
            scale = (1.0 if name == "W0" else 0.5) / math.sqrt(self.n_dims)
            normal = torch.randn(shape, generator=generator, device=device)
            return normal * scale * (self.output_scale if name == "w" else 1.0)
        if name[0] == "b":
            h = self._fan_in(name)
            bias = -math.sqrt(h / (2 * math.pi * h + 2 * math.pi - 2)) if h else 0.0
            return torch.full(shape, bias, device=device)
        if name[0] in "Vv":
            h = self._fan_in(name)
            mean = math.sqrt(1 / (h**2 + (1 - 1 / math.pi) * h))
            drawn = log_normal(shape, mean, 1 / (4 * h), generator)
            return inverse_softplus(drawn * (self.output_scale if name == "v" else 1.0))
        start = self.strong_convexity if name == "q" else self.temperature
        return inverse_softplus(torch.full(shape, start, device=device))

    def _fan_in(self, name: str) -> int:
        """Width of the layer below the parameter's; 0 for the first layer."""
        if name == "v":
            return self.hidden[-1]
        layer = int(name[1:])
        return self.hidden[layer - 1] if layer else 0

    def weights(self, theta: Tensor) -> dict[str, Tensor]:
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
        free = unpack(theta, self.shapes)
        weights = {name: F.softplus(w) if name[0] in "Vvq" else w for name, w in free.items()}
        if self.gate == "smooth":
            self._absorb_temperatures(weights, F.softplus(weights.pop("tau")))
        return weights

    def _absorb_temperatures(self, weights: dict[str, Tensor], tau: Tensor) -> None:
        taus = tau.split(1, dim=-1)
        for layer, t in enumerate(taus):
            weights[f"W{layer}"] = weights[f"W{layer}"] / t
            weights[f"b{layer}"] = weights[f"b{layer}"] / t
            if layer:
                weights[f"V{layer}"] = weights[f"V{layer}"] * (taus[layer - 1] / t)
        weights["v"] = weights["v"] * taus[-1]
        if self.quadratic_skip:
            weights["Q"] = weights["Q"] / taus[0].sqrt()

    def value(self, weights: dict[str, Tensor], x: Tensor) -> Tensor:
        """f(x).

        Parameters
        ----------
        weights
            From :meth:`weights`, for K maps.
        x
            Points, shape (K, n, d): each map has its own.

        Returns
        -------
        shape (K, n).
        """
        z, _, _ = self._layers(weights, x)
        linear = z @ weights["v"].mT + x @ weights["w"].mT
        return linear.squeeze(-1) + 0.5 * weights["q"].squeeze(-1) * x.square().sum(-1)

    def gradient(self, weights: dict[str, Tensor], x: Tensor) -> Tensor:
        r"""Gradient of f at x, written out as a forward computation.

        It is one reverse pass by hand: training through the gradient then needs a single autograd pass instead
        of two nested ones.

        Parameters
        ----------
        weights
            From :meth:`weights`, for K maps.
        x
            Points, shape (K, n, d).

        Returns
        -------
        shape (K, n, d).
        """
        _, slopes, quadratic = self._layers(weights, x)
        out = weights["w"] + weights["q"] * x
        # u is df/dz_l and grad is df/da_l, from the last layer to the first.
        u = weights["v"]
        for layer in range(len(self.hidden) - 1, -1, -1):
            first = u * slopes[layer]
            grad = torch.cat([first, u - first], dim=-1)
            out = out.baddbmm_(grad, weights[f"W{layer}"].mT)
            if layer:
                u = grad @ weights[f"V{layer}"].mT
        if quadratic is not None:
            out = out.baddbmm_(grad * quadratic, weights["Q"].mT, alpha=2)
        return out

    def _layers(self, weights: dict[str, Tensor], x: Tensor) -> tuple[Tensor, list[Tensor], Tensor | None]:
        """Last hidden layer z_L, the slope of each gate in its first argument, and Qx."""
        quadratic = x @ weights["Q"] if self.quadratic_skip else None
        slopes: list[Tensor] = []
        z = x
        for layer in range(len(self.hidden)):
            a = torch.baddbmm(weights[f"b{layer}"], x, weights[f"W{layer}"])
            if layer:
                a = a.baddbmm_(z, weights[f"V{layer}"])
            elif quadratic is not None:
                a = a.addcmul_(quadratic, quadratic)
            z, slope = self._gate(*a.chunk(2, dim=-1))
            slopes.append(slope)
        return z, slopes, quadratic

    def _gate(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        if self.gate == "max":
            return torch.maximum(a, b), (a >= b).to(a.dtype)
        return smooth_max(a, b)
