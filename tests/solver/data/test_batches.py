"""Fresh cells: each map draws what it would draw alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from scot_hycnn.solver import Settings
from scot_hycnn.solver.data._groups import Groups
from scot_hycnn.solver.data._training_data import Batches, TrainingData

N_ENSEMBLE = 3


def of_split(fraction, rng=0):
    """Settings of which the split of the cells reads the fraction and the seed."""
    return Settings.for_cells(100, 100, 2, device="cpu", rng=rng, validation_fraction=fraction)


def normal(seed, n):
    return np.random.default_rng(seed).normal(size=(n, 3))


def cells(n_source, n_target, *, grouped=False, seed=0):
    codes = [np.arange(n) % 3 for n in (n_source, n_target)]
    groups = Groups(*codes, tuple("abc"), np.full(3, 1 / 3)) if grouped else None
    return TrainingData.prepare(normal(seed, n_source), normal(seed + 1, n_target) + 1, of_split(0.2), groups)


def batches(*maps, size=20, one_table=None):
    return Batches(maps, (N_ENSEMBLE, size), torch.Generator().manual_seed(0), one_table=one_table)


def test_cells_are_training_cells_and_differ_from_member_to_member_and_step_to_step():
    one = cells(600, 400)
    source = batches(one)
    x, y, rows = source.draw()
    assert x.shape == y.shape == (N_ENSEMBLE, 20, 3)
    assert torch.equal(y, one.y[rows])
    assert torch.cdist(x.reshape(-1, 3), one.x).min(1).values.max() < 1e-2
    assert not torch.equal(x[0], x[1])
    assert not torch.equal(source.draw()[0], x)
    assert torch.equal(batches(one).draw()[0], x)


def test_batches_may_be_larger_than_the_cloud():
    one = cells(100, 100)
    x, *_ = batches(one, size=5000).draw()
    assert len(x[0].unique(dim=0)) == len(one.x)


MAPS = {
    "of one size": [cells(100, 80, seed=seed) for seed in range(3)],
    "of three sizes": [cells(100, n, seed=n) for n in (80, 300, 80, 50)],
    "with groups": [cells(100, n, seed=n, grouped=True) for n in (90, 60)],
}


@pytest.mark.parametrize("one_table", [True, False])
@pytest.mark.parametrize("maps", MAPS.values(), ids=MAPS)
def test_each_map_draws_what_it_would_alone(maps, one_table):
    together, alone = batches(*maps, one_table=one_table), [batches(one) for one in maps]
    for _ in range(3):
        drawn = together.draw()
        for k, one in enumerate(alone):
            members = slice(k * N_ENSEMBLE, (k + 1) * N_ENSEMBLE)
            for found, expected in zip(drawn, one.draw(), strict=True):
                assert torch.equal(found[members], expected)


class Counted(TorchDispatchMode):
    """Counts operations, each of which would be launched on a GPU."""

    n_operations = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.n_operations += 1
        return func(*args, **(kwargs or {}))


def test_in_one_table_the_number_of_operations_does_not_grow_with_maps_of_one_size():
    counts = []
    for n_maps in (2, 50):
        source = batches(*[MAPS["of one size"][0]] * n_maps, one_table=True)
        with Counted() as counted:
            source.draw()
        counts.append(counted.n_operations)
    assert counts[1] == counts[0] < 20
