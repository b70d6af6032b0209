"""Fresh training cells for all members of some maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ._strata import Strata
from ._training_data import TrainingData as Cells


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
    one size. With all cells in one table a hundred maps take hardly more operations than one, if their clouds have one
    size and no groups; otherwise one more for each size, or for each map.

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
    one_table
        Copy all cells into one table. None does so but on a CPU, which need not wait for operations to be launched.
    with_rows
        Also give the rows of the target cells.
    """

    def __init__(
        self,
        members: Sequence[Members],
        n_ensemble: int,
        size: int,
        *,
        generator: torch.Generator,
        one_table: bool | None = None,
        with_rows: bool = False,
    ) -> None:
        self._shape, self._generator, self._with_rows = (n_ensemble, size), generator, with_rows
        join = generator.device.type != "cpu" if one_table is None else one_table
        x, y = (
            [(getattr(own.cells, side), getattr(own.cells, f"strata_{side}"), own.rows) for own in members]
            for side in "xy"
        )
        self._x, self._y = _Side.of(x, n_ensemble, join=join), _Side.of(y, n_ensemble, join=join)

    def __call__(self) -> tuple[Tensor, ...]:
        """Source and target cells, shape (members, size, d) each; if wanted, the latter's rows, (members, size)."""
        (x, _), (y, rows) = (side.draw(self._shape, self._generator) for side in (self._x, self._y))
        return (x, y, rows) if self._with_rows else (x, y)


@dataclass(frozen=True)
class _Side:
    """The sources, or the targets, of all maps.

    Parameters
    ----------
    tables
        Cells of each map, shape (n, d); or of all, one below the other.
    n_members
        Of each table.
    clouds
        Number of cells, or strata, of each different way to draw rows.
    way, first
        Of each member: where its rows are among those drawn, and where its map's cells begin, shape (members, 1).
    """

    tables: list[Tensor]
    n_members: list[int]
    clouds: list[int | Strata]
    way: Tensor
    first: Tensor

    @classmethod
    def of(cls, maps: Sequence[tuple[Tensor, Strata | None, range]], n_ensemble: int, *, join: bool) -> _Side:
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
            first += [[n_before if join else 0]] * len(rows)
            n_before += len(cells)
        tables, n_members = [cells for cells, *_ in maps], [len(rows) for *_, rows in maps]
        if join and len(tables) > 1:
            tables, n_members = [torch.cat(tables)], [len(way)]
        device = tables[0].device
        return cls(tables, n_members, clouds, torch.tensor(way, device=device), torch.tensor(first, device=device))

    def draw(self, shape: tuple[int, int], generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Cells, and their rows among their map's."""
        before = generator.get_state() if len(self.clouds) > 1 else None
        drawn = []
        for cloud in self.clouds:
            if before is not None:
                generator.set_state(before)
            drawn.append(
                cloud.draw(shape, generator)
                if isinstance(cloud, Strata)
                else torch.randint(cloud, shape, generator=generator, device=generator.device)
            )
        rows = torch.cat(drawn)[self.way]
        of_tables = (rows + self.first).split(self.n_members)
        return torch.cat([table[own] for table, own in zip(self.tables, of_tables, strict=True)]), rows
