"""The split into training and validation cells, and their coordinates."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scot_hycnn.solver import Settings, fit
from scot_hycnn.solver.data._training_data import MAX_VALIDATION_CELLS, TrainingData


def of_split(fraction, rng=0):
    """Settings of which the split of the cells reads the fraction and the seed."""
    return Settings.for_cells(100, 100, 2, device="cpu", rng=rng, validation_fraction=fraction)


def normal(seed, n_cells, n_dims):
    return np.random.default_rng(seed).normal(size=(n_cells, n_dims))


def prepare(x, y, fraction=0.1, rng=0):
    return TrainingData.prepare(x, y, of_split(fraction, rng=rng))


def in_order(cells):
    return cells[np.lexsort(cells.T)]


@settings(max_examples=20, deadline=None)
@given(st.integers(20, 400), st.floats(0.01, 0.5), st.integers(0, 1000))
def test_every_cell_is_in_exactly_one_part(n, fraction, seed):
    x, y = (np.random.default_rng(seed).permutation(m)[:, None] * [1.0, 2.0] for m in (n, n + 7))
    x[:, 1] += np.arange(n) % 3
    before = x.copy()
    data = prepare(x, y, fraction, seed)
    for cells, part, held, back in (
        (x, data.x, data.x_validation_original, data.coordinates.invert_source),
        (y, data.y, data.y_validation_original, data.coordinates.invert_target),
    ):
        assert len(held) == min(max(round(fraction * len(cells)), 5), MAX_VALIDATION_CELLS)
        together = np.concatenate([back(part.double().numpy()), held])
        np.testing.assert_array_equal(in_order(np.rint(together)), in_order(cells))
    assert np.array_equal(x, before)


def test_validation_is_capped():
    fitted = fit(normal(0, 9000, 2), normal(1, 9000, 2), validation_fraction=0.5, potential="gaussian")
    assert fitted.validation["n_source"] == fitted.validation["n_target"] == MAX_VALIDATION_CELLS


@pytest.mark.parametrize("seed", range(3))
def test_planted_clusters_keep_their_proportions(seed):
    """Each of four far clusters sends its share, give or take one cell: a random split would miss by several."""
    sizes = np.array([400, 300, 200, 100])
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(4), sizes))
    cells = 0.1 * normal(seed, 1000, 2) + 10 * np.array([[0, 0], [1, 0], [0, 1], [1, 1]])[labels]
    held = prepare(cells, cells + 1, rng=seed).x_validation_original
    counts = np.bincount((np.rint(held / 10) @ [1, 2]).astype(int), minlength=4)
    assert np.abs(counts - sizes / 10).max() <= 1


def test_the_seed_decides():
    x = normal(0, 200, 3)
    first, again, other = (prepare(x, x + 1, rng=seed).x_validation for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    "cells",
    [
        pytest.param(np.full((50, 2), 3.0), id="constant"),
        pytest.param(np.repeat([[0.0, 0.0], [1.0, 1.0]], 25, axis=0), id="two distinct points"),
        pytest.param(normal(0, 50, 2) * 1e8, id="large"),
        pytest.param(normal(0, 50, 2) * 1e-8, id="small"),
        pytest.param(normal(0, 20, 1), id="fewest"),
    ],
)
def test_clouds_that_are_hard_to_cluster(cells):
    fitted = fit(cells, cells, potential="gaussian")
    assert fitted.validation["n_source"] == 5
    np.testing.assert_allclose(fitted.transport(cells), cells, rtol=1e-4, atol=1e-6 * np.abs(cells).max())


@pytest.fixture(scope="module")
def data():
    return prepare(normal(0, 600, 3) * [1, 2, 3] + 5, normal(1, 400, 3) - 2, 0.25)


def test_validation_cells_take_no_part_in_the_coordinates(data):
    """Means of the training cells are at the origin exactly; those of the validation cells are not."""
    for training, validation in ((data.x, data.x_validation), (data.y, data.y_validation)):
        assert training.mean(0).abs().max() < 1e-6
        assert validation.mean(0).abs().max() > 1e-3
    assert [len(part) for part in (data.x, data.y, data.x_validation, data.y_validation)] == [450, 300, 150, 100]


def test_centred_data_are_the_same_cells_with_the_same_gaussian_potential(data):
    centred = data.centred()
    np.testing.assert_allclose(centred.x_validation, data.x_validation_original - data.coordinates.mean_x, atol=1e-4)
    np.testing.assert_allclose(centred.y_validation, data.y_validation_original - data.coordinates.mean_y, atol=1e-4)
    # f(x) = |B (x - m)|^2 / 2c, with B the balanced coordinates.
    by_hand = (data.coordinates.source(data.x_validation_original) ** 2).sum(1) / 2 / data.coordinates.scale
    np.testing.assert_allclose(centred.gaussian_x, by_hand, rtol=1e-4)
