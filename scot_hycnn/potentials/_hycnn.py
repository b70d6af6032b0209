"""Networks of maxout gates: the HyCNN, GroupMax without its input skips, and combinations of HyCNNs for a screen."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, final

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - PyTorch's own convention

from ._potential import Potential, Weights, inverse_softplus, log_normal, standard_normal, unpack

# The gate is a sharp maximum there. Weights are divided by temperatures, and slopes by their squares: a softplus that
# training drives towards 0 would make them infinite in float32.
_MIN_TEMPERATURE = 1e-6
_N_CYCLES = 25


class _Softplus(torch.autograd.Function):
    """z = log(1 + e^a) and its slope s = dz/da = sigmoid(a)."""

    @staticmethod
    def forward(a: Tensor) -> tuple[Tensor, Tensor]:
        # Both come from one exponential, where softplus and sigmoid of autograd take four: this is the innermost loop
        # of training and transport.
        s = a.sigmoid()
        # z = max(a, 0) - log max(s, 1 - s): the logarithm's argument is at least 1/2, so nothing cancels.
        other = 1 - s
        log_larger = torch.maximum(s, other, out=other).log_()
        return a.clamp_min(0).sub_(log_larger), s

    @staticmethod
    def setup_context(ctx: Any, _: tuple[Tensor], output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(output[1])

    @staticmethod
    def backward(ctx: Any, grad_z: Tensor, grad_s: Tensor) -> Tensor:
        # ds/da = s (1 - s)
        (s,) = ctx.saved_tensors
        along_a: Tensor = s * (grad_z + grad_s * (1 - s))
        return along_a


@dataclass(frozen=True)
class HyCNN(Potential):
    r"""Convex function :math:`R^d \to R` with maxout gates and input skips, for K parameter sets at once.

    With the gate :math:`m(a, b) = \max(a, b)`, or smoothly
    :math:`m(a, b) = \tau\log(e^{a/\tau} + e^{b/\tau})`,

    .. math::
        z_1     &= m(W^1_1 x + b^1_1 + (Q^1 x)^2,\; W^2_1 x + b^2_1 + (Q^2 x)^2) \\
        z_{l+1} &= m(V^1_l z_l + W^1_{l+1} x + b^1_{l+1},\; V^2_l z_l + W^2_{l+1} x + b^2_{l+1}) \\
        f(x)    &= v \cdot z_L + w \cdot x + \tfrac{q}{2}|x|^2

    where :math:`V, v, q > 0` are the softplus of free parameters: f is convex for every parameter value, since
    the gate is convex and non-decreasing in each argument. Q (the quadratic first skip), q and the learned
    temperatures are ours, all else is the paper's.

    Parameters
    ----------
    n_dims, hidden, quadratic_skip, monotone
        See :class:`Potential`.
    strong_convexity
        q at the start, or 0 for no such term; q stays positive, so that the convex conjugate has one maximiser.
    output_scale
        Factor of v and w at the start, 1 in the paper; with a smaller one, and q near 1, f starts near :math:`|x|^2/2`.
    temperature
        :math:`\tau` of the smooth gate at the start. It counts as 1e-6 where it is below.
    gate
        ``'smooth'`` or ``'max'``.
    annealing
        How the temperature changes in training: ``'learned'``, one for each layer; ``'fixed'``; or ``'cyclic'``, the
        paper's schedule for d = 2.

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
    >>> weights, x = f.weights(theta), torch.zeros(3, 100, 5)
    >>> f.value(weights, x).shape, f.gradient(weights, x).shape
    (torch.Size([3, 100]), torch.Size([3, 100, 5]))
    """

    branches: ClassVar[int] = 2
    choices: ClassVar[dict[str, tuple[str, ...]]] = {
        "gate": ("smooth", "max"),
        "annealing": ("learned", "fixed", "cyclic"),
    }

    quadratic_skip: bool = True
    gate: Literal["smooth", "max"] = "smooth"
    annealing: Literal["learned", "fixed", "cyclic"] = "learned"

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        shapes = super().shapes
        if self.gate == "smooth":
            # The temperatures stand before Q, as in the files of earlier versions.
            quadratic = {"Q": shapes.pop("Q")} if self.quadratic_skip else {}
            shapes |= {"tau": (1, len(self.hidden))} | quadratic
        return shapes

    def _draw(self, name: str, shape: tuple[int, ...], fan_in: int, generator: torch.Generator) -> Tensor:
        """Draw as in the paper's sec. 2.2 and app. C; Q is ours."""
        if name[0] in "WwQ":
            # Q is as strong as the later skips: at a tenth of that, T = 4x^3 stayed a linear map for 400 steps.
            scale = (1.0 if name == "W0" else 0.5) / math.sqrt(self.n_dims)
            return standard_normal(shape, generator) * scale
        h = fan_in
        if name[0] == "b":
            bias = -math.sqrt(h / (2 * math.pi * h + 2 * math.pi - 2)) if h else 0.0
            return torch.full(shape, bias, dtype=torch.float32, device=generator.device)
        mean = math.sqrt(1 / (h**2 + (1 - 1 / math.pi) * h))
        return log_normal(shape, mean, 1 / (4 * h), generator)

    def weights(self, theta: Tensor) -> Weights:
        # The weights contain no temperatures: tau m(a/tau, b/tau) is the gate of temperature tau if m is that of
        # temperature 1, so each layer's weights carry them as scales, once for all points.
        weights = super().weights(theta)
        if self.gate == "max":
            return _by_difference(weights, len(self.hidden))
        tau = weights.pop("tau").clamp_min(_MIN_TEMPERATURE)
        taus = (tau if self.annealing == "learned" else tau.detach()).split(1, dim=-1)
        # The layers pass z/tau on: each divides what enters it by its temperature, and V undoes the one below.
        for layer, t in enumerate(taus):
            for name in (f"W{layer}", f"b{layer}"):
                if name in weights:
                    weights[name] = weights[name] / t
            if layer:
                weights[f"V{layer}"] = weights[f"V{layer}"] * (taus[layer - 1] / t)
        weights["v"] = weights["v"] * taus[-1]
        if self.quadratic_skip:
            weights["Q"] = weights["Q"] / taus[0].sqrt()  # it is squared
        return _by_difference(weights, len(self.hidden))

    def _gate(self, a: Tensor) -> tuple[Tensor, Tensor]:
        # m(a, 0), at temperature 1
        if self.gate == "max":
            return a.clamp_min(0), (a >= 0).to(a.dtype)
        if torch.is_grad_enabled() and a.requires_grad:
            recorded: tuple[Tensor, Tensor] = _Softplus.apply(a)  # type: ignore[no-untyped-call]
            return recorded
        return _Softplus.forward(a)

    def _slope(self, a: Tensor) -> Tensor:
        return a.sigmoid() if self.gate == "smooth" else (a >= 0).to(a.dtype)

    def at_step(self, theta: Tensor, step: int, max_steps: int) -> None:
        # Large temperatures train all gates, small ones sharpen. In each of 25 cycles the temperature falls by a half
        # cosine to a tenth, which it reaches at 70 % of the cycle and keeps; each cycle starts at 0.8 times the last
        # one's start: arXiv:2604.26942, app. D.3 (d = 2), where a cycle is 100 of 2,500 steps.
        if self.gate == "smooth" and self.annealing == "cyclic":
            cycle, within = divmod(_N_CYCLES * step / max_steps, 1)
            fallen = 0.5 * (1 - math.cos(math.pi * min(within / 0.7, 1.0)))
            tau = torch.tensor(self.temperature * 0.8**cycle * (1 - 0.9 * fallen), dtype=torch.float32, device="cpu")
            with torch.no_grad():
                unpack(theta, self.shapes)["tau"].fill_(float(inverse_softplus(tau)))


def _by_difference(weights: Weights, n_layers: int) -> Weights:
    """Return the weights of the same function as a network of one branch a unit.

    A gate of two branches passes its second one on, m(a, b) = b + m(a - b, 0). ``W``, ``b`` and ``V`` of the result
    lead to the difference of the branches; ``P`` passes the second one on to the next layer, without its affine part
    in x, which ``w`` and ``c`` add to f.
    """
    # Affine parts are multiplied once for all points: a gradient in 50 dimensions has a fifth less products. That of z
    # of the layer below is x @ linear + constant.
    single: Weights = {name: weights[name] for name in ("v", "q", "Q") if name in weights}
    linear = constant = weights["v"].new_empty(0)  # no layer is below the first one
    for layer in range(n_layers):
        branches = {name: weights[f"{name}{layer}"].chunk(2, dim=-1) for name in "WbV" if f"{name}{layer}" in weights}
        second = {name: b for name, (_, b) in branches.items()}
        difference = {name: a - b for name, (a, b) in branches.items()}
        if layer:
            for part in (second, difference):
                passed = linear @ part["V"]
                part["W"] = part["W"] + passed if "W" in part else passed
                part["b"] = torch.baddbmm(part["b"], constant, part["V"])
            single[f"P{layer}"] = second["V"]
        single |= {f"{name}{layer}": weight for name, weight in difference.items()}
        linear, constant = second["W"], second["b"]
    skip = weights["v"] @ linear.mT
    return single | {"w": weights["w"] + skip if "w" in weights else skip, "c": weights["v"] @ constant.mT}


@final
@dataclass(frozen=True)
class GroupMax(HyCNN):
    r"""Convex function of maxout gates in which only the first layer sees x: a HyCNN without input skips.

    .. math::
        z_1     &= m(W^1 x + b^1_1,\; W^2 x + b^2_1), \\
        z_{l+1} &= m(V^1_l z_l + b^1_{l+1},\; V^2_l z_l + b^2_{l+1}), \\
        f(x)    &= v \cdot z_L + \tfrac{q}{2}|x|^2

    Parameters
    ----------
    n_dims, hidden, quadratic_skip, strong_convexity, output_scale, monotone, temperature, gate, annealing
        As for :class:`HyCNN`; here without quadratic skip unless asked for.

    References
    ----------
    Warin (2023), "The GroupMax neural network approximation of convex functions", IEEE Trans. Neural Netw. Learn.
    Syst.; initialisation: arXiv:2604.26942, app. D.2, as for HyCNN.

    Examples
    --------
    >>> import torch
    >>> from scot_hycnn.potentials import GroupMax
    >>> f = GroupMax(n_dims=5, hidden=(16, 16), gate="max")
    >>> weights = f.weights(f.init(1, torch.Generator().manual_seed(0)))
    >>> f.value(weights, torch.zeros(1, 100, 5)).shape
    torch.Size([1, 100])
    """

    input_skips: ClassVar[bool] = False

    quadratic_skip: bool = False


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
        if self.n_networks < 1 or self.monotone or self.annealing == "cyclic":
            raise ValueError(
                f"n_networks={self.n_networks}, monotone={self.monotone!r}, annealing={self.annealing!r}: a "
                "combination needs one network or more, and has no monotone dimensions and no cyclic temperatures."
            )

    @property
    def network(self) -> HyCNN:
        """Architecture of the shared networks."""
        return HyCNN(**{field.name: getattr(self, field.name) for field in fields(HyCNN)})

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        # What a condition has of its own comes before the parameters of the shared networks.
        d, networks = self.n_dims, (self.n_networks, self.network.n_parameters)
        return {"v": (1, self.n_networks), "w": (1, d), "s": (1, 1), "L": (d, d), "t": (1, d), "networks": networks}

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
