"""The cells of all conditions as tensors, and the potentials of some conditions side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - PyTorch's own convention
from torch.nn.utils.rnn import pad_sequence

from scot_hycnn.potentials._hycnn import Combination
from scot_hycnn.potentials._potential import Weights, inverse_softplus
from scot_hycnn.solver.data._coordinates import Array, Coordinates
from scot_hycnn.solver.data._training_data import TrainingData

# Source cells that are kept of each source, and conditions that are evaluated at once outside of training: memory does
# not grow with the number of conditions beyond their own cells.
MAX_SOURCE_CELLS, CHUNK = 2000, 32


@dataclass(frozen=True)
class Conditions:
    """Source cells in common coordinates, and target cells of each condition in its balanced coordinates."""

    # S sources, shape (S, n, d), and that of each condition, shape (K,).
    sources: Tensor
    source_of: Tensor
    # Target cells, padded with zeros, shape (K, m, d), and their numbers, shape (K,).
    y: Tensor
    n_y: Tensor
    # L and t of each condition, L^-1, and the factor scale_k / scale of its potential: (K, d, d), (K, 1, d) and (K,).
    to_common: Tensor
    shift: Tensor
    from_common: Tensor
    ratio: Tensor
    # Mean of |x|^2 / 2 over the balanced source cells of each condition, shape (K,).
    half_square: Tensor

    @classmethod
    def of(
        cls,
        common: Coordinates,
        own: Sequence[Coordinates],
        cells: Sequence[tuple[Any, Array, Array]],
        device: str,
    ) -> Conditions:
        """Take the cells of each condition: a key of its source, source cells (n, d) and target cells (m, d)."""
        keys = list(dict.fromkeys(key for key, _, _ in cells))
        sources = {key: x for key, x, _ in reversed(cells)}
        # Some cells of larger sources, and repeated ones of smaller sources, so that all have one shape.
        n = min(max(len(x) for x in sources.values()), MAX_SOURCE_CELLS)
        sources = {key: in_proportion(x, None, n) for key, x in sources.items()}
        matrices = np.stack([np.linalg.solve(one.matrix.T, common.matrix.T).T for one in own])
        shifts = np.stack([common.matrix @ (one.mean_x - common.mean_x) for one in own])
        balanced = [one.source(sources[key]) for one, (key, _, _) in zip(own, cells, strict=True)]
        half_squares = [0.5 * (x**2).sum(1).mean() for x in balanced]

        def tensor(values: Any) -> Tensor:
            return torch.as_tensor(np.asarray(values), dtype=torch.float32, device=device)

        return cls(
            tensor(np.stack([common.source(sources[key]) for key in keys])),
            torch.tensor([keys.index(key) for key, _, _ in cells], device=device),
            pad_sequence([tensor(one.target(y)) for one, (_, _, y) in zip(own, cells, strict=True)], batch_first=True),
            torch.tensor([len(y) for _, _, y in cells], device=device),
            tensor(matrices),
            tensor(shifts).unsqueeze(1),
            tensor(np.linalg.inv(matrices)),
            tensor([one.scale / common.scale for one in own]),
            tensor(half_squares),
        )

    @classmethod
    def split(
        cls, common: Coordinates, clouds: Sequence[TrainingData], keys: Sequence[Any], device: str
    ) -> tuple[Conditions, Conditions]:
        """Return the training and the validation cells."""
        own, pairs = [cells.coordinates for cells in clouds], list(zip(keys, clouds, strict=True))
        training = [(key, *training_cells(c)) for key, c in pairs]
        held_out = [(key, c.x_validation_original, c.y_validation_original) for key, c in pairs]
        return cls.of(common, own, training, device), cls.of(common, own, held_out, device)

    def __len__(self) -> int:
        return len(self.y)

    def balanced_sources(self, rows: Tensor, points: Tensor) -> Tensor:
        """Return source cells, (C, n, d), from common coordinates in those of the conditions."""
        return (points - self.shift[rows]) @ self.from_common[rows].mT

    def in_rows(self) -> Tensor:
        """Return which rows of `y` are cells and no padding, shape (K, m)."""
        return torch.arange(self.y.shape[1], device=self.y.device) < self.n_y.unsqueeze(1)


def in_proportion(cells: Array, weights: Array | None, n: int) -> Array:
    """Return n of some cells, (m, d) to (n, d), in proportion to their weights, some of them repeated."""
    share = np.full(len(cells), 1 / len(cells)) if weights is None else weights / weights.sum()
    # At even steps along the cumulative weights, so that each cell is taken as often as it should to within one time.
    places = np.searchsorted(np.cumsum(share), (np.arange(n) + 0.5) / n)
    return cells[np.minimum(places, len(cells) - 1)]


def training_cells(cells: TrainingData) -> tuple[Array, Array]:
    """Return source and target cells of training in the representation, with groups in their proportions."""
    x = cells.coordinates.invert_source(np.asarray(cells.x.cpu().double()))
    y = cells.coordinates.invert_target(np.asarray(cells.y.cpu().double()))
    if cells.weights_x is None:
        return x, y
    # Twice as many cells, so that weights are rounded to half a cell.
    return in_proportion(x, cells.weights_x, 2 * len(x)), in_proportion(y, cells.weights_y, 2 * len(y))


@dataclass(frozen=True)
class Mixture:
    """The potentials of C conditions, in their balanced coordinates, with shared weights of R networks."""

    network: Combination
    shared: Weights
    # v (C, R), s (C, 1, 1) and w (C, 1, d); L, t and the factor of each condition.
    v: Tensor
    s: Tensor
    w: Tensor
    to_common: Tensor
    shift: Tensor
    ratio: Tensor

    @classmethod
    def of(
        cls, network: Combination, shared: Weights, coefficients: Tensor, cells: Conditions, rows: Tensor | slice
    ) -> Mixture:
        """Take some conditions, from free coefficients, shape (K, R + 1 + d), of all."""
        v, s, w = unpacked(network, coefficients[rows])
        return cls(network, shared, v, s, w, cells.to_common[rows], cells.shift[rows], cells.ratio[rows])

    def networks(self, function: Callable[[Weights, Tensor], Tensor], points: Tensor) -> Tensor:
        """Apply a function of the networks to points in common coordinates, (C, m, d) to (R, C, m, ...)."""
        everywhere = points.flatten(0, 1).expand(self.network.n_networks, -1, -1)
        values: Tensor = function(self.shared, everywhere)
        return values.view(len(values), *points.shape[:2], *values.shape[2:])

    def gradient(self, x: Tensor) -> Tensor:
        """Return the gradients at balanced points, (C, m, d) to (C, m, d)."""
        points = torch.baddbmm(self.shift, x, self.to_common.mT)
        combined = torch.einsum(
            "cr,rcmd->cmd", self.v * self.ratio[:, None], self.networks(self.network.network.gradient, points)
        )
        return torch.baddbmm(self.s * x + self.w, combined, self.to_common)

    def value(self, x: Tensor) -> Tensor:
        """Return the values at balanced points, (C, m, d) to (C, m)."""
        points = torch.baddbmm(self.shift, x, self.to_common.mT)
        combined = torch.einsum("cr,rcm->cm", self.v, self.networks(self.network.network.value, points))
        simple = 0.5 * self.s.squeeze(2) * x.square().sum(-1) + (x @ self.w.mT).squeeze(-1)
        return simple + self.ratio[:, None] * combined


def unpacked(network: Combination, coefficients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return v (C, R), s (C, 1, 1) and w (C, 1, d) from free coefficients, shape (C, R + 1 + d)."""
    free_v, free_s, w = coefficients.split([network.n_networks, 1, network.n_dims], dim=1)
    return F.softplus(free_v), F.softplus(free_s).unsqueeze(2), w.unsqueeze(1)


def first_coefficients(network: Combination, n_conditions: int, device: str) -> Tensor:
    """Return free coefficients before the first step: half of the Gaussian map, and half of the networks."""
    half = torch.full((n_conditions, 1), 0.5, device=device)
    v = inverse_softplus(half / network.n_networks).expand(-1, network.n_networks)
    return torch.cat([v, inverse_softplus(half), half.new_zeros(n_conditions, network.n_dims)], 1)
