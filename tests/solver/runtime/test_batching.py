"""Maps that train together: how many, and which."""

from __future__ import annotations

import numpy as np
import pytest

from scot_hycnn.solver import Settings
from scot_hycnn.solver.data._training_data import Task
from scot_hycnn.solver.runtime._batching import MAX_VALUES, batches

NONE = np.empty(0, dtype=np.intp)


def task(n_cells, n_dims, **options):
    """Cells that take no memory, however many they are."""
    cells = np.broadcast_to(0.0, (n_cells, n_dims))
    settings = Settings.for_cells(n_cells, n_cells, n_dims, device="cpu", rng=0, **options)
    return Task(cells, cells, None, None, settings, (), NONE, NONE)


@pytest.mark.parametrize(("n_cells", "n_dims"), [(2_000, 2_500), (10_000, 500), (100_000, 50), (10_000_000, 2)])
def test_the_cells_of_a_batch_stay_within_memory(n_cells, n_dims):
    tasks = [task(n_cells, n_dims, n_ensemble=1)] * 9
    found = batches(tasks, n_threads=1)
    assert sorted(number for batch in found for number in batch) == list(range(9))
    values = [sum(tasks[number].x.size + tasks[number].y.size for number in batch) for batch in found]
    assert max(values) <= MAX_VALUES or max(map(len, found)) == 1
    # There is room for several maps of the first sizes, and none for two of the last.
    assert (max(map(len, found)) > 1) == (2 * values[0] / len(found[0]) <= MAX_VALUES)
