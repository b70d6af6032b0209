"""Random cells of a cloud whose groups have fixed proportions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Strata:
    """Draws cells of one cloud: first a group by its proportion and then one of its cells."""

    # Cumulative proportions, shape (K,). Those of millions of single cells would be beyond the precision of float32.
    cumulative: Tensor
    # Where the cells of each group begin in `order`, and how many they are, shape (K,).
    start: Tensor
    size: Tensor
    # Row numbers of the cells ordered by group, shape (n,), and the number of each cell's group.
    order: Tensor
    codes: NDArray[np.intp]

    @classmethod
    def of(cls, codes: NDArray[np.intp], proportions: NDArray[np.float64], device: str) -> Strata:
        """Prepare for drawing; groups without a cell leave their proportion to the others."""
        size = np.bincount(codes, minlength=len(proportions))
        share = np.cumsum(np.where(size > 0, proportions, 0))
        start, sizes, order = (
            torch.as_tensor(rows, device=device) for rows in (np.cumsum(size) - size, size, np.argsort(codes))
        )
        cumulative = torch.as_tensor(share / share[-1], dtype=torch.float32, device=device)
        return cls(cumulative, start, sizes, order, codes)

    def draw(self, shape: tuple[int, int], generator: torch.Generator) -> Tensor:
        """Return row numbers, with replacement."""
        group, within = (
            torch.rand(shape, generator=generator, dtype=torch.float32, device=generator.device) for _ in range(2)
        )
        k = torch.searchsorted(self.cumulative, group, right=True).clamp(max=len(self.size) - 1)
        return self.order[self.start[k] + (within * self.size[k]).long().clamp(max=self.size[k] - 1)]
