"""Fresh cells: each map draws what it would draw alone, and many maps take no more operations than one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from scot_hycnn.solver.data._batches import Draws, Members
from scot_hycnn.solver.data._groups import group_cells, pair_of_labels
from scot_hycnn.solver.data._training_data import TrainingData as Cells

N_ENSEMBLE = 3


def normal(seed, n):
    return np.random.default_rng(seed).normal(size=(n, 3))


def cells(n_source, n_target, *, grouped=False, seed=0):
    x, y, groups = normal(seed, n_source), normal(seed + 1, n_target) + 1, None
    if grouped:
        labels = pair_of_labels(
            tuple(np.array(list("abc"))[np.arange(n) % 3] for n in (n_source, n_target)), len(x), len(y)
        )
        x, y, groups = group_cells(x, y, labels, "sqrt")
    return Cells.prepare(x, y, 0.2, rng=0, device="cpu", groups=groups)


def draws(*clouds, size=20, rows=range(N_ENSEMBLE), one_table=None):
    members = [Members(number, own, rows) for number, own in enumerate(clouds)]
    return Draws(members, N_ENSEMBLE, size, generator=torch.Generator().manual_seed(0), one_table=one_table)


def test_cells_are_training_cells_and_differ_from_member_to_member_and_step_to_step():
    own = cells(600, 400)
    draw = draws(own)
    x, y = draw()
    assert x.shape == y.shape == (N_ENSEMBLE, 20, 3)
    for batch, cloud in ((x, own.x), (y, own.y)):
        assert torch.cdist(batch.reshape(-1, 3), cloud).min(1).values.max() < 1e-2
        assert not torch.equal(batch[0], batch[1])
    assert not torch.equal(draw()[0], x)
    assert torch.equal(draws(own)()[0], x)


def test_batches_may_be_larger_than_the_cloud():
    own = cells(100, 100)
    x, _ = draws(own, size=5000)()
    assert len(x[0].unique(dim=0)) == len(own.x)


MAPS = {
    "of one size": [cells(100, 80, seed=seed) for seed in range(3)],
    "of three sizes": [cells(100, n, seed=n) for n in (80, 300, 80, 50)],
    "with groups": [cells(100, n, seed=n, grouped=True) for n in (90, 60)],
}


@pytest.mark.parametrize("one_table", [True, False])
@pytest.mark.parametrize("maps", MAPS.values(), ids=MAPS)
def test_each_map_draws_what_it_would_alone(maps, one_table):
    together, alone = draws(*maps, one_table=one_table), [draws(own) for own in maps]
    for _ in range(3):
        x, y = together()
        for k, draw in enumerate(alone):
            own = slice(k * N_ENSEMBLE, (k + 1) * N_ENSEMBLE)
            for drawn, expected in zip((x[own], y[own]), draw(), strict=True):
                assert torch.equal(drawn, expected)


def test_some_members_draw_what_all_would():
    for drawn, expected in zip(
        draws(*MAPS["of three sizes"], rows=range(1, 3))(), draws(*MAPS["of three sizes"])(), strict=True
    ):
        assert torch.equal(drawn, expected.unflatten(0, (4, N_ENSEMBLE))[:, 1:].flatten(0, 1))


class Counted(TorchDispatchMode):
    """Counts operations, each of which would be launched on a GPU."""

    n_operations = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.n_operations += 1
        return func(*args, **(kwargs or {}))


def test_in_one_table_the_number_of_operations_does_not_grow_with_maps_of_one_size():
    counts = []
    for n_maps in (2, 50):
        draw = draws(*[MAPS["of one size"][0]] * n_maps, one_table=True)
        with Counted() as counted:
            draw()
        counts.append(counted.n_operations)
    assert counts[1] == counts[0] < 15
