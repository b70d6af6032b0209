"""Fresh training cells for all members of some maps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ._training_data import Strata, TrainingData


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
        self._shape, self._generator = shape, generator
        # One table of the cells of all maps: a hundred maps then take hardly more operations than one, if their clouds
        # have one size and no groups. On a CPU, where launching is cheap, the copy is not worth its memory.
        join = len(maps) > 1 and (generator.device.type != "cpu" if one_table is None else one_table)
        # For the source and for the target: what is drawn from, the number of it for each map, the tables of cells, and
        # the row of each member's first cell in its table.
        self._sides: list[tuple[list[int | Strata], Tensor, list[Tensor], Tensor]] = []
        for clouds in ([(cells.x, cells.strata_x) for cells in maps], [(cells.y, cells.strata_y) for cells in maps]):
            # Maps whose clouds have one size and no groups share their row numbers, which are then drawn once.
            keys = [(len(cells), id(strata)) for cells, strata in clouds]
            sources = {key: key[0] if strata is None else strata for key, (_, strata) in zip(keys, clouds, strict=True)}
            which = torch.tensor([list(sources).index(key) for key in keys], device=clouds[0][0].device)
            tables = [cells for cells, _ in clouds]
            first = torch.zeros(len(maps), dtype=torch.long, device=which.device)
            if join:
                sizes = torch.tensor([len(cells) for cells in tables], device=which.device)
                tables, first = [torch.cat(tables)], sizes.cumsum(0) - sizes
            self._sides.append((list(sources.values()), which, tables, first.repeat_interleave(shape[0]).unsqueeze(1)))

    def draw(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return source and target cells, (members, n, d), and the rows of the latter in their cloud, (members, n)."""
        generator, drawn_cells = self._generator, []
        for sources, which, tables, first in self._sides:
            before = generator.get_state() if len(sources) > 1 else None
            drawn = []
            for source in sources:
                if before is not None:
                    # Each map gets the numbers that it would draw alone.
                    generator.set_state(before)
                drawn.append(
                    source.draw(self._shape, generator)
                    if isinstance(source, Strata)
                    else torch.randint(source, self._shape, generator=generator, device=generator.device)
                )
            rows = torch.stack(drawn)[which].flatten(0, 1)
            parts = (rows + first).chunk(len(tables))
            drawn_cells.append(torch.cat([table[wanted] for table, wanted in zip(tables, parts, strict=True)]))
        x, y = drawn_cells
        return x, y, rows
