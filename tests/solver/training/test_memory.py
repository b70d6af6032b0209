"""What is remembered of target cells' conjugates."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from scot_hycnn import solver
from scot_hycnn.datasets import brenier_pair
from scot_hycnn.metrics import map_mse
from scot_hycnn.solver.training._cache import Memory

N_MEMBERS = 2


def normal(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def memory(*sizes):
    return Memory.of([normal(seed, n, 3) for seed, n in enumerate(sizes)], N_MEMBERS)


def test_before_the_first_step_it_is_the_gaussian_maps_answer():
    own = memory(5, 4)
    for number, n in ((0, 5), (3, 4)):  # the first member of the first map, the last of the second
        rows = torch.arange(n).expand(2 * N_MEMBERS, -1)
        maximisers, sizes = own.recall(rows)
        assert torch.equal(maximisers[number], normal(number // N_MEMBERS, n, 3))
        assert (sizes == 1).all()


def test_what_was_noted_is_recalled_and_the_rest_stays():
    own, before = memory(6), memory(6)
    rows = torch.tensor([[4, 1, 4], [0, 5, 2]])
    found, sizes = normal(7, 2, 6, 3), normal(8, 2, 6).abs()
    own.note(rows, found.gather(1, rows.unsqueeze(-1).expand(-1, -1, 3)), sizes.gather(1, rows))
    for k in range(2):
        for row in range(6):
            of, size = (found, sizes) if row in rows[k] else (before.maximisers, before.sizes)
            assert torch.equal(own.maximisers[k, row], of[k, row])
            assert own.sizes[k, row] == size[k, row]


def test_a_step_to_nowhere_is_not_remembered():
    own, rows = memory(6), torch.tensor([[0, 1], [2, 3]])
    own.note(rows, normal(1, 2, 2, 3), torch.tensor([[torch.nan, 0.5], [2.0, torch.nan]]))
    assert own.recall(rows)[1].tolist() == [[1.0, 0.5], [2.0, 1.0]]


@pytest.mark.parametrize("kept", [False, True])
def test_some_networks_have_their_own_afterwards(kept):
    own = memory(5, 4)
    some = replace(own) if kept else own.rows(slice(1, 3))
    if kept:
        some.keep(torch.tensor([False, True, True, False]))
    assert torch.equal(some.maximisers, own.maximisers[1:3])
    some.note(torch.zeros(2, 1, dtype=torch.long), normal(9, 2, 1, 3), torch.full((2, 1), 0.3))
    assert (own.sizes == 1).all()
    again = memory(5, 4).rows(slice(1, 3))
    again.load({name: value.numpy() for name, value in some.state().items()})
    assert torch.equal(again.maximisers, some.maximisers)
    assert torch.equal(again.sizes, some.sizes)


QUICK = {"hidden": (16, 16), "max_steps": 200, "n_ensemble": 2, "progress": False, "device": "cpu"}


@pytest.mark.parametrize("kind", ["cubic", "logsumexp"])
def test_memory_finds_what_prediction_finds(kind):
    pair = brenier_pair(kind, 4, 800, rng=1)
    errors = {}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "solver.fit", UserWarning)
        for conjugates in ("predicted", "remembered"):
            fitted = solver.fit(pair.x, pair.y, conjugates=conjugates, **QUICK | {"max_steps": 600})
            assert fitted.params["conjugates"] == conjugates
            assert fitted.blend > 0
            errors[conjugates] = map_mse(fitted.transport(pair.x), pair.transport(pair.x))
    assert errors["remembered"] < 1.1 * errors["predicted"]
    assert errors["remembered"] < 0.8 * map_mse(fitted.gaussian_map().transport(pair.x), pair.transport(pair.x))


def test_how_far_maximisers_move_between_steps_is_told():
    """They move less and less as the learning rate falls."""
    pair = brenier_pair("logsumexp", 4, 500, rng=2)
    moved = solver.fit(pair.x, pair.y, conjugates="remembered", **QUICK).history["loss_g"]
    assert (moved > 0).all()
    assert moved[-1] < moved[1] / 5


def test_without_being_asked_it_is_used_for_few_target_cells_alone():
    x, y = (np.random.default_rng(seed).normal(size=(1200, 2)) for seed in range(2))
    options = QUICK | {"max_steps": 2}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "solver.fit", UserWarning)
        used = [solver.fit(x, y[:n], **options).params["conjugates"] for n in (900, 1200)]
        used += [one.params["conjugates"] for one in solver.fit_many(x[:600], [y, y[:500]], **options)]
    assert used == ["remembered", "predicted", "predicted", "remembered"]
