"""Fresh training cells for all members of some maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ._cells import Cells
from ._groups import Strata


@dataclass(frozen=True)
class Members:
    """Some members of a map.

    Parameters
    ----------
    number
        Of the map.
    cells
        Its cells.
    rows
        Which of its members.
    """

    number: int
    cells: Cells
    rows: range


class Draws:
    """Random training cells, drawn with replacement for each member.

    All maps draw the same random numbers, those that each would draw alone, and rows are drawn once for all clouds of
    one size. So a hundred maps take hardly more operations than one: a GPU waits for each to be launched.

    Parameters
    ----------
    members
        For whom.
    n_ensemble
        Members of a whole map: cells are drawn for all of them, also where some are elsewhere.
    size
        Cells of each cloud for each member.
    generator
        Source of randomness.
    """

    def __init__(self, members: Sequence[Members], n_ensemble: int, size: int, generator: torch.Generator) -> None:
        self._shape, self._generator = (n_ensemble, size), generator
        self._x = _Side.of([(own.cells.x, own.cells.strata_x, own.rows) for own in members], n_ensemble)
        self._y = _Side.of([(own.cells.y, own.cells.strata_y, own.rows) for own in members], n_ensemble)

    def __call__(self) -> tuple[Tensor, Tensor]:
        """Source and target cells, shape (members, size, d) each."""
        return self._x.draw(self._shape, self._generator), self._y.draw(self._shape, self._generator)


@dataclass(frozen=True)
class _Side:
    """The sources, or the targets, of all maps.

    Parameters
    ----------
    cells
        Of all maps, one below the other, shape (n, d).
    clouds
        Number of cells, or strata, of each different way to draw rows.
    way, first
        Of each member: where its rows are among those drawn, and where its map's cells begin, shape (members, 1).
    """

    cells: Tensor
    clouds: list[int | Strata]
    way: Tensor
    first: Tensor

    @classmethod
    def of(cls, maps: Sequence[tuple[Tensor, Strata | None, range]], n_ensemble: int) -> _Side:
        """From the cells of each map, their strata, and the members."""
        clouds: list[int | Strata] = []
        way: list[int] = []
        first: list[list[int]] = []
        n_before = 0
        for cells, strata, rows in maps:
            cloud = len(cells) if strata is None else strata
            if strata is not None or cloud not in clouds:
                clouds.append(cloud)
            place = len(clouds) - 1 if strata is not None else clouds.index(cloud)
            way += [place * n_ensemble + row for row in rows]
            first += [[n_before]] * len(rows)
            n_before += len(cells)
        all_cells = [cells for cells, *_ in maps]
        # Those of one map are there already.
        together = all_cells[0] if len(all_cells) == 1 else torch.cat(all_cells)
        device = together.device
        return cls(together, clouds, torch.tensor(way, device=device), torch.tensor(first, device=device))

    def draw(self, shape: tuple[int, int], generator: torch.Generator) -> Tensor:
        before = generator.get_state() if len(self.clouds) > 1 else None
        drawn = []
        for cloud in self.clouds:
            if before is not None:
                generator.set_state(before)
            drawn.append(
                cloud.draw(shape, generator)
                if isinstance(cloud, Strata)
                else torch.randint(cloud, shape, generator=generator, device=self.cells.device)
            )
        return self.cells[torch.cat(drawn)[self.way] + self.first]
