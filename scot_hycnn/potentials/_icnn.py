"""Input convex neural network (ICNN)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor

from ._one_branch import OneBranch
from ._parameters import log_normal, standard_normal
from ._potential import Weights


@final
@dataclass(frozen=True)
class ICNN(OneBranch):
    r"""Convex function of one-branch layers with input skips.

    .. math::
        z_1 = \sigma(W_1 x + b_1 + (Qx)^2), \qquad
        z_{l+1} = \sigma(V_l z_l + W_{l+1} x + b_{l+1}), \qquad
        f(x) = v \cdot z_L + w \cdot x + \tfrac{q}{2}|x|^2

    With the hard constraint :math:`V, v > 0` are the softplus of free parameters. With the soft one they are free
    and training penalises their negative parts: f is then close to convex at best.

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
        free; empty for no constraint.
    activation
        ``'softplus'``, ``'relu'`` or ``'leaky_relu'`` (0.2 below zero).
    temperature
        :math:`\tau` of softplus, :math:`\tau\log(1 + e^{a/\tau})`. The weights learn the scale of a, and with it
        the rest.
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

    constraint: Literal["hard", "soft"] = "hard"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.constraint not in ("hard", "soft"):
            raise ValueError(f"constraint={self.constraint!r} is unknown; choose 'hard' or 'soft'.")

    @property
    def convex(self) -> bool:
        return self.constraint == "hard"

    def _positive(self, name: str) -> bool:
        return name == "q" or (name[0] in "Vv" and self.constraint == "hard")

    def _draw(self, name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Hoedt & Klambauer (2023), prop. 1: signals keep mean and variance from layer to layer."""
        if name[0] in "WwQ":
            return standard_normal(shape, generator) / math.sqrt(self.n_dims)
        n = self._fan_in(name)
        if name[0] == "b" and not n:
            return torch.zeros(shape, dtype=torch.float32, device=generator.device)
        denominator = 6 * (math.pi - 1) + (n - 1) * (3 * math.sqrt(3) + 2 * math.pi - 6)
        if name[0] == "b":
            return torch.full(shape, -math.sqrt(3 * n / denominator), dtype=torch.float32, device=generator.device)
        return log_normal(shape, math.sqrt(6 * math.pi / (n * denominator)), 1 / n, generator)

    def penalty(self, weights: Weights) -> Tensor:
        r""":math:`\|(V)_-\|_F^2 + \|(v)_-\|^2` of each map with the soft constraint, else 0.

        Parameters
        ----------
        weights
            From :meth:`weights`, for K maps.

        Returns
        -------
        shape (K,).
        """
        negative = [w.clamp_max(0).square().sum((1, 2)) for name, w in weights.items() if name[0] in "Vv"]
        return torch.stack(negative).sum(0)
