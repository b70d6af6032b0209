"""What a map evaluates: the blend of its networks with the Gaussian map, and where it was trained."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scot_hycnn.potentials import Potential

from ._conjugate import solve

# Training cells that are kept to measure distances to: enough to cover a cloud, few enough to store with every map.
N_POINTS = 1000
NEIGHBOURS = 10
# This share of unseen cells of the same kind scores below 1.
QUANTILE = 0.95


@dataclass(frozen=True)
class Blended:
    r"""The potential (1 - a) |x|^2/2 + a (mean_k f_k(x) + <s, x>) in balanced coordinates.

    It is convex, and its gradient is the blend of the Gaussian map (here the identity) with the ensemble's mean map,
    shifted by a constant.
    """

    # The K members, a in [0, 1], and s, shape (d,); None is no shift.
    network: Potential
    weights: dict[str, Tensor]
    blend: float
    shift: Tensor | None = None

    def member_gradients(self, x: Tensor) -> Tensor:
        """Return the gradients of the K members at the same points, (n, d) to (K, n, d)."""
        return self.network.gradient(self.weights, x.expand(len(self.weights["v"]), -1, -1))

    def gradient(self, x: Tensor) -> Tensor:
        """Return its gradient, (n, d) to (n, d)."""
        if self.blend == 0:
            return x
        mean = self.member_gradients(x).mean(0)
        return torch.lerp(x, mean if self.shift is None else mean + self.shift, self.blend)

    def value(self, x: Tensor) -> Tensor:
        """Return its values, (n, d) to (n,)."""
        gaussian = 0.5 * x.square().sum(-1)
        if self.blend == 0:
            return gaussian
        mean = self.network.value(self.weights, x.expand(len(self.weights["v"]), -1, -1)).mean(0)
        return torch.lerp(gaussian, mean if self.shift is None else mean + x @ self.shift, self.blend)

    def maximisers(self, y: Tensor, start: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return points x with gradient y, (m, d), and their residuals, (m,)."""
        start = y if start is None else start
        x, residual = solve(lambda z: self.gradient(z[0]).unsqueeze(0), y.unsqueeze(0), start.unsqueeze(0))
        return x[0], residual[0]


@dataclass(frozen=True)
class Support:
    """Training source cells, and the distance that is usual between them and unseen cells of the same kind."""

    # Some of the training source cells in balanced coordinates, shape (s, d), float32.
    points: Tensor
    # The QUANTILE of the validation source cells' mean distance to their NEIGHBOURS nearest points.
    scale: float

    @classmethod
    def of(cls, points: Tensor, validation: Tensor) -> Support:
        """Measure the usual distance on validation cells."""
        usual = float(torch.quantile(cls(points, 1.0).score(validation), QUANTILE))
        return cls(points, usual if usual > 0 else 1.0)

    def score(self, x: Tensor) -> Tensor:
        """Return the mean distance to the nearest points in units of the usual one, (n, d) to (n,)."""
        distances, k = torch.cdist(x, self.points.to(x.device)), min(NEIGHBOURS, len(self.points))
        if distances.device.type != "cpu":
            return distances.topk(k, dim=1, largest=False).values.mean(1) / self.scale
        # NumPy's selection uses the processor's vectors, and takes half of topk's time.
        distances.numpy().partition(k - 1, axis=1)  # in place
        return distances[:, :k].mean(1) / self.scale


def as_numpy(values: Tensor) -> NDArray[np.float64]:
    """Return the values in double precision, on the CPU."""
    return np.asarray(values.cpu().double())  # in this order: MPS has no doubles
