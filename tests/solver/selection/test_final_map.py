"""The map that a fit returns: its outcome, the test for a response, and the mean of the moved cells."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from scot_hycnn.metrics import energy_distance
from scot_hycnn.solver import Outcome, TransportMap, fit, fit_many

QUICK = {"max_steps": 40, "hidden": (8, 8), "n_ensemble": 1, "device": "cpu"}
FORWARD = {"max_steps": 60, "hidden": (16, 16), "n_ensemble": 2, "lr": 0.05}
# Networks that are worse than the Gaussian map.
TOO_FAST = {"lr": 50.0, "weight_decay": 0.0}


def normal(seed, n_cells=400, n_dims=3):
    return np.random.default_rng(seed).normal(size=(n_cells, n_dims))


# ---- is there a response?


def response(x, y, groups=None, rng=0):
    """Return the energy distance of the training cells and its p value."""
    validation = fit(x, y, groups=groups, rng=rng, potential="gaussian").validation
    return validation["energy_distance_no_change"], validation["p_no_change"]


def test_p_values_are_uniform_where_there_is_none():
    values = np.array([response(normal(seed, 60), normal(1000 + seed, 60))[1] for seed in range(60)])
    assert np.mean(values < 0.25) == pytest.approx(0.25, abs=0.15)
    assert min(values) > 0


def test_a_shift_is_a_response_with_the_unbiased_energy_distance():
    x, y = normal(0, 1000), normal(1, 1000) + np.array([1.0, 0, 0])
    distance, p = response(x, y)
    assert 0 < p <= 1e-5  # much less than one of 199 permutations can show
    assert distance == pytest.approx(energy_distance(x, y), abs=0.1)


def test_other_proportions_of_groups_are_no_response():
    rng = np.random.default_rng(0)
    groups = [rng.permutation(np.repeat([0, 1], sizes)) for sizes in ((250, 50), (50, 250))]
    x, y = (normal(seed, 300) + 6 * of_cells[:, None] for seed, of_cells in zip((1, 2), groups, strict=True))
    assert response(x, y)[1] < 0.01
    assert response(x, y, groups)[1] > 0.05
    assert response(x, y + np.array([1, 0, 0]), groups)[1] < 0.01


def test_other_proportions_of_groups_hide_no_response():
    """Where most treated cells of a group were lost, all permutations within groups are as far apart as the data."""
    rng = np.random.default_rng(0)
    groups = [rng.permutation(np.repeat([0, 1], sizes)) for sizes in ((200, 200), (380, 20))]
    x, y = (normal(seed, 400) + 20 * of_cells[:, None] for seed, of_cells in zip((1, 2), groups, strict=True))
    distance, p = response(x, y + np.array([1, 0, 0]), groups)
    assert p < 0.001
    # The distance is that within groups, not the one between them.
    assert distance == pytest.approx(energy_distance(normal(1), normal(2) + np.array([1, 0, 0])), abs=0.15)


# ---- outcomes


@cache
def fits(outcome):
    """Return a fit that leads to this outcome."""
    x, y = normal(0), normal(1)
    groups = {"groups": (np.arange(len(x)) % 4,) * 2, "leave_out": "groups", "potential": "gaussian"}
    flat = normal(2, n_dims=15), normal(3, n_dims=15) ** 3
    return {
        Outcome.NETWORKS: lambda: fit(x, y + 3 * np.sign(y), **(QUICK | {"max_steps": 150, "lr": 0.05})),
        Outcome.REQUESTED: lambda: fit(x, y + 3, potential="gaussian"),
        Outcome.NO_RESPONSE: lambda: fit(x, normal(2), **(QUICK | TOO_FAST)),
        Outcome.NOT_TRAINED: lambda: fit(x, y + 3, **(QUICK | TOO_FAST)),
        Outcome.GAUSSIAN: lambda: fit(x, y + 3, **(QUICK | TOO_FAST | {"max_steps": 300})),
        Outcome.SIMPLE: lambda: fit(x, y + 3, **groups),
        Outcome.NO_CHANGE: lambda: fit(x, normal(5), **groups),
        Outcome.RECOVERED: lambda: fit(x, y + 3, **(QUICK | {"lr": 1e30})),
        # A potential of flat pieces, whose gradient does not reach every target cell.
        Outcome.UNSOLVED: lambda: fit(
            *flat,
            potential="icnn-relu",
            **(QUICK | {"max_steps": 100, "hidden": (16, 16), "lr": 0.3, "weight_decay": 0}),
        ),
        Outcome.WORSE: lambda: fit(x, 3 * y + 5, solver="paper", **(QUICK | {"max_steps": 1})),
    }[outcome]()


@pytest.mark.parametrize("outcome", Outcome)
def test_outcomes_differ_and_are_stored(outcome, tmp_path):
    """All tests run with -W error: the map is returned whatever happens."""
    fitted = fits(outcome)
    assert fitted.outcome == outcome
    assert (fitted.status == "ok") == (outcome in (Outcome.NETWORKS, Outcome.REQUESTED))
    fitted.save(tmp_path / "map.safetensors")
    loaded = TransportMap.load(tmp_path / "map.safetensors")
    assert (loaded.outcome, loaded.status) == (fitted.outcome, fitted.status)


def test_whether_conjugates_are_solved_is_read_from_the_networks_that_are_kept():
    """A check during training takes few steps, which do not suffice for a sharp and sound potential."""
    x, y = normal(0, n_dims=15), normal(1, n_dims=15) ** 3
    options = {"max_steps": 300, "hidden": (16, 16), "lr": 0.1, "weight_decay": 0.0}
    sharp, unsolved = fit(x, y, **(QUICK | options)), fits(Outcome.UNSOLVED)
    assert sharp.history["residual"][-1] > 0.1
    assert (sharp.outcome, sharp.status) == (Outcome.NETWORKS, "ok")
    for fitted, is_solved in ((sharp, True), (unsolved, False)):
        residuals = dict(zip(fitted.validation["blends"], fitted.validation["residual_by_blend"], strict=True))
        assert fitted.blend > 0
        assert residuals[fitted.blend] == fitted.validation["residual"] < 0.1
        assert (residuals[1.0] < 0.1) == is_solved


def test_outcomes_of_many_fits():
    x = normal(0)
    maps = fit_many(x, [normal(2), normal(1) + 3], **(QUICK | TOO_FAST))
    assert [fitted.outcome for fitted in maps] == [Outcome.NO_RESPONSE, Outcome.NOT_TRAINED]


def test_an_older_map_has_none():
    state = fits(Outcome.REQUESTED).to_dict()
    assert TransportMap.from_dict({name: value for name, value in state.items() if name != "outcome"}).outcome == ""


# ---- the Gaussian map beside networks


def test_the_gaussian_map_is_fitted_on_all_cells():
    x, y = normal(0, 100), normal(1, 100)
    y = y + 3 * np.sign(y)
    fitted = fit(x, y, **(QUICK | {"max_steps": 150, "lr": 0.05}))
    assert fitted.blend > 0
    alone = fit(x, y, potential="gaussian").transport(x)
    np.testing.assert_allclose(fitted.gaussian_map().transport(x), alone, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(fitted.gaussian_map().transport(x).mean(0), y.mean(0), atol=1e-5)


@pytest.mark.parametrize("solver", ["amortized", "paper"])
def test_the_gaussian_map_beside_networks_reports_itself(solver, tmp_path):
    x, y = normal(0), normal(1)
    paper = {"max_steps": 5, "solver": solver}
    fitted = fits(Outcome.NETWORKS) if solver == "amortized" else fit(x, y + 3 * np.sign(y), **(QUICK | paper))
    alone = fit(x, y + 3 * np.sign(y), potential="gaussian", device="cpu")
    assert fitted.blend > 0
    fitted.save(tmp_path / "map.safetensors")
    for one in (fitted, TransportMap.load(tmp_path / "map.safetensors", device="cpu")):
        gaussian = one.gaussian_map()
        assert (gaussian.outcome, gaussian.status) == (Outcome.REQUESTED, "ok")
        assert not gaussian.history
        assert not gaussian.validation
        assert not gaussian.certificate
        assert gaussian.w2_squared == pytest.approx(alone.w2_squared, rel=1e-6)
        assert gaussian.w2_squared != one.w2_squared
        # The Gaussian map is its own fallback.
        np.testing.assert_array_equal(gaussian.transport(x, fallback=True), gaussian.transport(x))
        assert TransportMap.from_dict(gaussian.to_dict()).outcome == Outcome.REQUESTED
        assert gaussian.gaussian_map() is gaussian


def test_a_map_that_is_the_gaussian_one_is_its_own_baseline():
    for outcome in (Outcome.REQUESTED, Outcome.NO_RESPONSE, Outcome.GAUSSIAN):
        fitted = fits(outcome)
        assert fitted.gaussian_map() is fitted


# ---- the mean of the moved cells is that of the target, whatever training has reached


def split_in_two(seed, n_cells=600, n_dims=5):
    """Return clouds between which no linear map is right."""
    x, y = np.random.default_rng(seed).normal(size=(2, n_cells, n_dims))
    return x, y + 3 * np.sign(y)


@pytest.fixture(scope="module")
def fitted():
    x, y = split_in_two(0)
    fitted = fit(x, y, **(QUICK | FORWARD))
    assert fitted.blend > 0
    return fitted, x, y


def test_weighted_means_agree_with_groups():
    x, y = split_in_two(1)
    groups = np.resize(["a", "a", "b"], 600), np.resize(["a", "b", "b"], 600)
    fitted = fit(x, y, groups=groups, **(QUICK | FORWARD | {"max_steps": 150}))
    moved, of_x, of_y = fitted.transport(x), *groups
    assert fitted.blend > 0
    # Of all cells, so up to the tenth of them that is held out.
    share = {label: np.sqrt(((of_x == label).mean() + (of_y == label).mean()) / 2) for label in "ab"}
    means = [
        sum(share[label] * cloud[of_cloud == label].mean(0) for label in "ab") / sum(share.values())
        for cloud, of_cloud in ((moved, of_x), (y, of_y))
    ]
    assert np.linalg.norm(means[0] - means[1]) < 0.05 * np.sqrt(y.var(0).sum())


def test_the_map_is_still_the_gradient_of_its_potential(fitted):
    fitted, x, _y = fitted
    points, step = x[:5].astype(np.float64), 1e-3
    for axis in range(3):
        ends = [fitted.potential(points + sign * step * np.eye(5)[axis]) for sign in (-1, 1)]
        np.testing.assert_allclose((ends[1] - ends[0]) / (2 * step), fitted.transport(points)[:, axis], atol=0.02)
    moved = fitted.transport(x)
    young = fitted.potential(x) + fitted.conjugate(moved) - (x * moved).sum(1)
    assert np.abs(young).max() < 1e-3 * np.abs(fitted.potential(x)).max()
    assert fitted.certificate["convexity_gap"] < 1e-4


def test_mean_and_variance_are_reported(fitted):
    fitted, x, y = fitted
    validation = fitted.validation
    assert validation["mean_error"] < 0.5
    assert 0.5 < validation["variance_ratio"] < 2
    assert validation["residual"] < 0.1
    # Nine of ten cells are training cells, whose means agree up to rounding.
    assert np.linalg.norm(fitted.transport(x).mean(0) - y.mean(0)) < 0.03 * np.sqrt(y.var(0).sum())
    # A constant that is added to the map is a linear term of its potential, which the Gaussian map lacks.
    alone = fit(x, y, potential="gaussian").transport(x)
    np.testing.assert_allclose(fitted.gaussian_map().transport(x), alone, rtol=1e-4, atol=1e-4)
