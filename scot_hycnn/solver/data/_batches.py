"""Fresh training cells for all members of some maps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ._strata import Strata
from ._training_data import TrainingData


class Batches:
    """Random training cells, drawn with replacement: ``shape`` is members of each map, and cells for each member."""

    def __init__(
        self,
        maps: Sequence[TrainingData],
        shape: tuple[int, int],
        generator: torch.Generator,
        *,
        one_table: bool | None = None,
    ) -> None:
        self._generator = generator
        # One table of the cells of all maps: a hundred maps then take hardly more operations than one, if their clouds
        # have one size and no groups. On a CPU, where launching is cheap, the copy is not worth its memory.
        join = generator.device.type != "cpu" if one_table is None else one_table
        self._x = _Side([(cells.x, cells.strata_x) for cells in maps], shape, join=join)
        self._y = _Side([(cells.y, cells.strata_y) for cells in maps], shape, join=join)

    def draw(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return source and target cells, (members, n, d), and the rows of the latter in their cloud, (members, n)."""
        x, _ = self._x.draw(self._generator)
        return x, *self._y.draw(self._generator)


class _Side:
    """The source clouds, or the target clouds, of all maps."""

    def __init__(self, clouds: Sequence[tuple[Tensor, Strata | None]], shape: tuple[int, int], *, join: bool) -> None:
        self._shape = shape
        sizes = [len(cells) for cells, _ in clouds]
        # Maps whose clouds have one size and no groups share their row numbers, which are then drawn once.
        sources = {(len(cells), id(strata)): len(cells) if strata is None else strata for cells, strata in clouds}
        which = [list(sources).index((len(cells), id(strata))) for cells, strata in clouds]
        self._sources: list[int | Strata] = list(sources.values())
        device = clouds[0][0].device
        self._which = torch.tensor(which, device=device)
        self._tables = [cells for cells, _ in clouds]
        self._first = None
        if join and len(clouds) > 1:
            self._tables = [torch.cat(self._tables)]
            first = torch.tensor([sum(sizes[:k]) for k in range(len(sizes))], device=device)
            self._first = first.repeat_interleave(shape[0]).unsqueeze(1)

    def draw(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return cells and their rows."""
        before = generator.get_state() if len(self._sources) > 1 else None
        drawn = []
        for source in self._sources:
            if before is not None:
                # Each map gets the numbers that it would draw alone.
                generator.set_state(before)
            drawn.append(
                source.draw(self._shape, generator)
                if isinstance(source, Strata)
                else torch.randint(source, self._shape, generator=generator, device=generator.device)
            )
        rows = torch.stack(drawn)[self._which].flatten(0, 1)
        in_tables = (rows if self._first is None else rows + self._first).chunk(len(self._tables))
        return torch.cat([table[wanted] for table, wanted in zip(self._tables, in_tables, strict=True)]), rows
