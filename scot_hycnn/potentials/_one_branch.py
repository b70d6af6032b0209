"""Networks of one branch a unit, each with the same activation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from ._activation import ACTIVATIONS, activate
from ._network import Network


@dataclass(frozen=True)
class OneBranch(Network):
    """Its gate is the activation. Options: see :class:`ICNN`."""

    activation: Literal["softplus", "relu", "leaky_relu"] = "softplus"
    temperature: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation={self.activation!r} is unknown; choose one of {list(ACTIVATIONS)}.")
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature={self.temperature} must be positive.")

    def _gate(self, a: Tensor) -> tuple[Tensor, Tensor]:
        return activate(self.activation, self.temperature, a)

    def _back(self, u: Tensor, slopes: Tensor) -> Tensor:
        return u * slopes
