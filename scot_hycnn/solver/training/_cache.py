"""Where the maximiser of each target cell was last: few cells are drawn again soon."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


@dataclass
class Memory:
    """What each of K networks knows of its target cells' conjugates.

    Parameters
    ----------
    maximisers
        Where <x, y> - f(x) was largest when y was drawn last, shape (K, m, d). Maps with fewer target cells than m have
        rows that are never drawn.
    sizes
        The step size there, about the inverse of f's curvature, shape (K, m).
    """

    maximisers: Tensor
    sizes: Tensor

    @classmethod
    def of(cls, targets: Sequence[Tensor], n_members: int) -> Memory:
        """Before the first step, in balanced coordinates: the Gaussian map's maximiser of y is y.

        Parameters
        ----------
        targets
            Target cells of each map, shape (m_k, d).
        n_members
            Networks of each map.
        """
        maximisers = pad_sequence(list(targets), batch_first=True).repeat_interleave(n_members, 0)
        return cls(maximisers, torch.ones_like(maximisers[..., 0]))

    def recall(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Maximisers, (K, n, d), and step sizes, (K, n), of the cells in these rows, (K, n)."""
        return self.maximisers.gather(1, self._in_all_dimensions(rows)), self.sizes.gather(1, rows)

    def note(self, rows: Tensor, maximisers: Tensor, sizes: Tensor) -> None:
        """Remember what was found for them. A cell that was drawn twice was found twice in the same place."""
        self.maximisers.scatter_(1, self._in_all_dimensions(rows), maximisers)
        # A step into infinity leaves the maximiser where it was, and must not leave the cell without a step size.
        self.sizes.scatter_(1, rows, sizes.nan_to_num(nan=1.0))

    def rows(self, rows: slice) -> Memory:
        """Some of the networks', before the first step."""
        return Memory(self.maximisers[rows].clone(), self.sizes[rows].clone())

    def keep(self, rows: Tensor) -> None:
        """Go on with some of the networks, shape (K,) of booleans."""
        self.maximisers, self.sizes = self.maximisers[rows], self.sizes[rows]

    def state(self) -> dict[str, Tensor]:
        """All of it by name; the tensors themselves."""
        return {"maximisers": self.maximisers, "sizes": self.sizes}

    def load(self, state: dict[str, Tensor]) -> None:
        """Become what had this state."""
        for name, tensor in self.state().items():
            tensor.copy_(torch.as_tensor(state[name]))

    def _in_all_dimensions(self, rows: Tensor) -> Tensor:
        return rows.unsqueeze(-1).expand(-1, -1, self.maximisers.shape[-1])
