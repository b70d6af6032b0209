"""Scores of a predicted cloud of cells against an observed one, with all bootstrap replicates at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ._bootstrap import mean_between, mean_of, mean_within
from ._checks import Samples
from ._mmd import mean_rbf
from ._pairwise import row_blocks, squared_distances
from ._sinkhorn import entropic_within
from ._sinkhorn_divergence import entropic_between
from ._w2 import exact

# Cells of a cloud that go into energy distance, MMD (5 kernels), and optimal couplings.
MAX_ENERGY, MAX_MMD, MAX_COUPLED = 2000, 1000, 500


@dataclass(frozen=True)
class Cloud:
    """Cells in random order, and what scores need of them alone.

    Parameters
    ----------
    points
        Shape (n, d), n at most ``MAX_ENERGY``.
    counts
        How often each was drawn, shape (replicates, n).
    distance, kernel
        Mean distance and kernel of different cells, by replicate.
    potential
        Entropic potential of the cloud's first cells and themselves.
    """

    points: Samples
    counts: Samples
    distance: Samples
    kernel: Samples
    potential: Samples

    @classmethod
    def of(
        cls,
        points: Samples,
        counts: Samples,
        order: NDArray[np.intp],
        *,
        n_coupled: int,
        epsilon: float,
        gammas: Samples,
    ) -> Cloud:
        """Cloud of cells in the random order given; more than ``MAX_ENERGY`` are left out."""
        order = order[:MAX_ENERGY]
        points, counts = points[order].astype(np.float64), counts[:, order]
        squared = squared_distances(points, points)
        potential = entropic_within(squared[:n_coupled, :n_coupled], epsilon)
        kernel = mean_within(_kernel(squared, gammas), counts[:, :MAX_MMD])
        return cls(points, counts, mean_within(np.sqrt(squared, out=squared), counts), kernel, potential)


def compare(x: Cloud, y: Cloud, *, epsilon: float, gammas: Samples, with_w2: bool) -> dict[str, Samples]:
    r"""Energy distance, MMD², Sinkhorn divergence and W2² by replicate; row 0 is the value.

    Replicates of the last two hold the dual potentials fixed, which is exact to first order in the counts (envelope
    theorem): del Barrio & Loubes (2019), Ann. Probab. 47, 926-951. Solving again would be biased upwards, because a
    replicate has fewer different cells.

    Parameters
    ----------
    x, y
        Predicted and observed cells.
    epsilon
        Of the Sinkhorn divergence; that of both clouds.
    gammas
        Of the MMD; those of both clouds.
    with_w2
        Whether POT is there.
    """
    squared = squared_distances(x.points, y.points)
    n = len(x.potential)
    x_first, y_first = x.counts[:, :n], y.counts[:, :n]
    f, g = entropic_between(x.points[:n], y.points[:n], epsilon)
    between = mean_between(_kernel(squared, gammas), x.counts[:, :MAX_MMD], y.counts[:, :MAX_MMD])
    scores = {
        "mmd": x.kernel + y.kernel - 2 * between,
        "sinkhorn_divergence": mean_of(f - x.potential, x_first) + mean_of(g - y.potential, y_first),
    }
    if with_w2:
        _, u, v = exact(squared[:n, :n])
        scores["w2_squared"] = mean_of(u, x_first) + mean_of(v, y_first)
    distance = mean_between(np.sqrt(squared, out=squared), x.counts, y.counts)
    return {"energy_distance": 2 * distance - x.distance - y.distance, **scores}


def _kernel(squared: Samples, gammas: Samples) -> Samples:
    """Mean of the kernels of the first cells."""
    first = squared[:MAX_MMD, :MAX_MMD].copy()
    kernel = mean_rbf(gammas)
    for rows in row_blocks(*first.shape):
        first[rows] = kernel(first[rows])
    return first
