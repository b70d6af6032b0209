"""How far cells are from the training cells, and the fall-back on the Gaussian map there."""

from __future__ import annotations

import numpy as np
import pytest

from scot_hycnn.solver import TransportMap, fit
from scot_hycnn.solver.model._support import N_POINTS

QUICK = {"max_steps": 60, "hidden": (8, 8), "n_ensemble": 2, "batch_size": 64, "device": "cpu"}


def bent(seed, n):
    y = np.random.default_rng(seed).normal(size=(n, 3))
    return y + 2 * np.sign(y)


@pytest.fixture(scope="module")
def network():
    x = np.random.default_rng(0).normal(size=(3000, 3))
    fitted = fit(x, bent(1, 3000), **QUICK)
    assert fitted.blend > 0
    return fitted


@pytest.mark.parametrize("potential", ["hycnn", "gaussian"])
def test_one_in_twenty_unseen_cells_is_above_one(potential):
    x = np.random.default_rng(0).normal(size=(3000, 3)) * [1, 50, 1e-3]
    y = bent(1, 3000) * [1e-3, 1, 7]
    fitted = fit(x, y, potential=potential, **QUICK)
    unseen = fitted.out_of_support(np.random.default_rng(9).normal(size=(4000, 3)) * [1, 50, 1e-3])
    assert unseen.dtype == np.float32
    assert 0.03 < (unseen > 1).mean() < 0.08


def test_the_score_grows_with_the_distance_without_bound(network):
    far = network.out_of_support(np.outer([0, 3, 6, 12, 24], [1.0, 0, 0]))
    assert (np.diff(far) > 0).all()
    assert far[0] < 1
    assert far[2] > 2
    assert len(network.support.points) == N_POINTS


def test_fall_back_is_the_map_inside_and_the_gaussian_map_far_away(network):
    gaussian = network.gaussian_map()
    cells = np.outer(np.linspace(-30, 30, 400), [1.0, 0.3, -0.2])
    score = network.out_of_support(cells)
    (moved, std), plain = network.transport(cells, fallback=True, return_std=True), network.transport(cells)
    np.testing.assert_allclose(moved[score <= 1], plain[score <= 1], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(moved[score >= 2], gaussian.transport(cells)[score >= 2], rtol=1e-5, atol=1e-4)
    assert (std[score >= 2] == 0).all()
    assert (std[score <= 1] > 0).all()
    between = (score > 1.2) & (score < 1.8)
    assert between.any()
    share = np.linalg.norm(moved - gaussian.transport(cells), axis=1) / np.linalg.norm(
        plain - gaussian.transport(cells), axis=1
    )
    np.testing.assert_allclose(share[between], 2 - score[between], atol=1e-2)


def test_what_the_map_knows_survives_a_file(network, tmp_path):
    network.save(tmp_path / "map.safetensors")
    again = TransportMap.load(tmp_path / "map.safetensors", device="cpu")
    cells = bent(5, 50)
    np.testing.assert_array_equal(again.out_of_support(cells), network.out_of_support(cells))


@pytest.mark.parametrize(
    "change",
    [
        {"points": np.zeros((5, 2))},
        {"points": np.zeros((0, 3))},
        {"points": np.zeros(3)},
        {"points": np.full((5, 3), np.nan)},
        {"points": np.zeros((5, 3), dtype=int)},
        {"scale": 0.0},
        {"scale": np.inf},
    ],
)
def test_damaged_training_cells(network, change):
    state = network.to_dict()
    with pytest.raises(
        ValueError, match=r"training cells must be finite floats of shape \(n, 3\) with a positive scale"
    ):
        TransportMap.from_dict(state | {"support": state["support"] | change})


def test_one_point_many_times_is_its_own_support():
    fitted = fit(np.ones((40, 2)), np.ones((40, 2)) * 2, **QUICK)
    assert (fitted.out_of_support(np.ones((3, 2))) == 0).all()
    assert (fitted.out_of_support(np.ones((3, 2)) * 5) > 1).all()


# ---- a map that is not blended with the Gaussian one


def test_the_papers_loop_knows_the_gaussian_map_and_has_no_fall_back(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(300, 2)) * [1, 3], rng.normal(size=(300, 2)) * [4, 1] + 2
    fitted = fit(x, y, solver="paper", max_steps=10, hidden=(4, 4), device="cpu")
    gaussian = fit(x, y, potential="gaussian", device="cpu")
    fitted.save(tmp_path / "map.safetensors")
    for each in (fitted, TransportMap.load(tmp_path / "map.safetensors", device="cpu")):
        np.testing.assert_allclose(each.gaussian_map().transport(x), gaussian.transport(x), rtol=1e-5, atol=1e-5)
        with pytest.raises(ValueError, match="not blended with: solver='paper' trains without it"):
            each.transport(x, fallback=True)
    assert gaussian.gaussian_map().blend == 0
    np.testing.assert_array_equal(gaussian.gaussian_map().transport(x), gaussian.transport(x))
