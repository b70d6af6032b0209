"""Whether predicted cells lie among treated cells of their own group."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from ._checks import Samples
from ._resampling import REPLICATE, Codes, Resampling, Scores

N_NEIGHBORS = 15
# Treated cells to be neighbours, and cells of each side whose neighbours are found: some of each group, and others.
_MAX_CELLS, _MAX_OF_GROUP = 10_000, 200


@dataclass(frozen=True)
class KeptGroups:
    """Whether cells lie among treated cells of their group: 1 or 0, and the weights of the cells that were looked at.

    A cell is kept if no other group has more cells than its own among the 15 nearest treated cells. Cells that were not
    looked at have the weight 0.
    """

    predicted: dict[str, tuple[Samples, Samples]]  # by method, both (k,)
    observed: tuple[Samples, Samples]  # treated cells among the other treated cells, both (m,)

    @classmethod
    def find(
        cls, clouds: Mapping[str, tuple[Samples, Codes]], y: Samples, target: Codes, rng: np.random.Generator
    ) -> KeptGroups | None:
        """Look at the neighbours of predicted cells (k, d) among treated cells (m, d); codes are -1 without a group."""
        labelled = rng.permutation(np.flatnonzero(target >= 0))[:_MAX_CELLS]
        codes, n_groups = target[labelled], int(target.max()) + 1
        # Within one group all cells are kept, and cells of groups without treated cells cannot be.
        if len(np.unique(codes)) < 2 or not any(np.isin(own, codes).any() for _, own in clouds.values()):
            return None
        origin = np.median(y, axis=0)  # far from it, the search would lose the digits of small distances
        search = NearestNeighbors(n_neighbors=min(N_NEIGHBORS, len(labelled) - 1)).fit(y[labelled] - origin)

        def are_kept(own: Codes, cells: Samples | None) -> Samples:
            # Without cells the search leaves each treated cell out of its own neighbours.
            neighbors = codes[search.kneighbors(cells, return_distance=False)]
            most = (neighbors[:, :, None] == neighbors[:, None]).sum(axis=2).max(axis=1)
            return np.asarray((neighbors == own[:, None]).sum(axis=1) == most, dtype=np.float64)

        seed, predicted = int(rng.integers(2**63)), {}
        for method, (cells, own) in clouds.items():
            # The same seed chooses the same cells of all methods. A group without treated cells has no neighbours.
            weights = _weights(np.where(np.isin(own, codes), own, -1), np.random.default_rng(seed))
            chosen, kept = np.flatnonzero(weights), np.zeros(len(own))
            if len(chosen):
                kept[chosen] = are_kept(own[chosen], cells[chosen] - origin)
                predicted[method] = kept, weights
        observed, target_weights = np.zeros(len(target)), np.zeros(len(target))
        observed[labelled] = are_kept(codes, None)
        sizes, drawn = (np.bincount(of[of >= 0], minlength=n_groups) for of in (target, codes))
        target_weights[labelled] = (sizes / np.maximum(drawn, 1))[codes]
        return cls(predicted, (observed, target_weights))

    def scores(self, cells: Mapping[str, NDArray[np.bool_]], target: NDArray[np.bool_], draws: Resampling) -> Scores:
        """Return the shares of kept cells among some of the cells, boolean arrays (k,) and (m,), by replicate."""
        # The replicate is the share of all observed cells; its spread is that of shares of their halves.
        rows = np.concatenate([np.ones((1, len(draws.target.codes))), draws.splits])
        shares: Scores = {}
        for method in [name for name in self.predicted if name in cells] + [REPLICATE]:
            if method == REPLICATE:
                (kept, weights), chosen, counts = self.observed, target, rows * draws.target.weights
            else:
                of_method = draws.of(method)
                (kept, weights), chosen = self.predicted[method], cells[method]
                counts = of_method.counts * of_method.weights
            counts = counts * weights[chosen]
            shares[method, "kept_group"] = counts @ kept[chosen] / counts.sum(axis=1)
        return shares


def _weights(codes: Codes, rng: np.random.Generator) -> Samples:
    """Choose cells to look at, and return their weights, (n,): each group counts as if all of its cells were chosen."""
    weights = np.zeros(len(codes))
    first = np.zeros(len(codes), dtype=bool)
    first[rng.permutation(len(codes))[:_MAX_CELLS]] = True
    for group in np.unique(codes[codes >= 0]):
        members = np.flatnonzero(codes == group)
        chosen = members[first[members]]
        if len(chosen) < min(_MAX_OF_GROUP, len(members)):
            chosen = rng.permutation(members)[:_MAX_OF_GROUP]
        weights[chosen] = len(members) / len(chosen)
    return weights
