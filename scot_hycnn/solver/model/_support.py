"""How far a cell is from the source cells that a map was trained on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Training cells that are kept to measure distances to: enough to cover a cloud, few enough to store with every map.
N_POINTS = 1000
NEIGHBOURS = 10
# Of unseen cells of the same kind so many are to score below 1.
QUANTILE = 0.95


@dataclass(frozen=True)
class Support:
    """Training source cells, and the distance that is usual between them and unseen cells of the same kind.

    Parameters
    ----------
    points
        Some of the training source cells in balanced coordinates, shape (s, d), float32.
    scale
        The QUANTILE of the validation source cells' mean distance to their NEIGHBOURS nearest points.
    """

    points: Tensor
    scale: float

    @classmethod
    def of(cls, points: Tensor, validation: Tensor) -> Support:
        """Measure the usual distance on validation cells."""
        usual = float(torch.quantile(_distance(validation, points), QUANTILE))
        return cls(points, usual if usual > 0 else 1.0)

    def score(self, x: Tensor) -> Tensor:
        """Distance in units of the usual one, (n, d) to (n,): above 1 for one in twenty cells of the same kind."""
        return _distance(x, self.points.to(x.device)) / self.scale

    def trust(self, x: Tensor) -> Tensor:
        """How much of the network to use, (n, d) to (n,): 1 up to a score of 1, then less, 0 from a score of 2."""
        return (2 - self.score(x)).clamp(0, 1)


def _distance(x: Tensor, points: Tensor) -> Tensor:
    distances, k = torch.cdist(x, points), min(NEIGHBOURS, len(points))
    if distances.device.type != "cpu":
        return distances.topk(k, dim=1, largest=False).values.mean(1)
    # NumPy's selection uses the processor's vectors, and takes half of topk's time.
    distances.numpy().partition(k - 1, axis=1)  # in place
    return distances[:, :k].mean(1)
