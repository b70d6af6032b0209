"""The training loop: known answers, what it leaves alone, and what it does when things go wrong."""

from __future__ import annotations

import json
import math
import random
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from scot_hycnn.datasets import brenier_pair, gaussian_pair
from scot_hycnn.metrics import map_mse
from scot_hycnn.potentials import ICNN, MLP, Gaussian, HyCNN
from scot_hycnn.solver import Outcome, TrainingOptions, TransportMap, fit
from scot_hycnn.solver.training._optimiser import Optimiser

QUICK = {"hidden": (16, 16), "max_steps": 40, "batch_size": 64, "lr": 0.1, "n_ensemble": 2, "device": "cpu"}
TRAINED = QUICK | {"hidden": (8, 8), "max_steps": 150, "batch_size": 128, "lr": 0.02}


def normal(seed, n_cells=300, n_dims=2):
    return np.random.default_rng(seed).normal(size=(n_cells, n_dims))


def moved_apart(seed, n_cells=300, n_dims=2):
    """Cells whose optimal map from normal ones is far from linear."""
    x = normal(seed, n_cells, n_dims)
    return x + 2 * np.sign(x)


def mean_shift(pair):
    return pair.x_test + pair.y.mean(0) - pair.x.mean(0)


# ---- known answers


def test_a_translation_is_found():
    shift = [5.0, -3.0]
    fitted = fit(normal(0, 600), normal(1, 600) + shift, **TRAINED)
    x = normal(2, 1000)
    assert map_mse(fitted.transport(x), x + shift) < map_mse(x, x + shift) / 100
    assert fitted.w2_squared == pytest.approx(34, rel=0.1)


@pytest.mark.parametrize("n_dims", [1, 3])
def test_between_gaussians_it_finds_the_closed_form(n_dims):
    pair = gaussian_pair(n_dims, 1000)
    error = map_mse(fit(pair.x, pair.y, **TRAINED).transport(pair.x_test), pair.y_test)
    assert error < map_mse(pair.x_test, pair.y_test) / 5
    assert error < map_mse(mean_shift(pair), pair.y_test) / 5


def test_a_stretch_of_each_axis_is_found():
    pair = brenier_pair("scale", 5, 1000)
    error = map_mse(fit(pair.x, pair.y, **TRAINED).transport(pair.x_test), pair.y_test)
    assert error < map_mse(pair.x_test, pair.y_test) / 5
    assert error < map_mse(mean_shift(pair), pair.y_test) / 5


@pytest.mark.parametrize("name", ["sign", "cubic", "logsumexp"])
def test_a_nonlinear_map_is_found_where_the_gaussian_one_fails(name):
    pair = brenier_pair(name, 2, 1000)
    options = TRAINED | {"hidden": (16, 16), "max_steps": 300}
    fitted = fit(pair.x, pair.y, **options)
    error = map_mse(fitted.transport(pair.x_test), pair.y_test)
    assert fitted.ok
    assert error < map_mse(pair.x_test, pair.y_test) / 5
    assert error < map_mse(mean_shift(pair), pair.y_test) / 5
    assert error < map_mse(Gaussian.fit(pair.x, pair.y).gradient(pair.x_test), pair.y_test) / 2


def test_on_validation_cells_it_is_never_worse_than_the_gaussian_map():
    fitted = fit(normal(0, 60), moved_apart(10, 60), **QUICK)
    assert fitted.validation["J"] <= fitted.validation["J_gaussian"]
    assert fitted.validation["n_source"] == fitted.validation["n_target"] == 6


def test_the_gaussian_potential_is_the_closed_form_on_all_cells():
    x, y = normal(0), moved_apart(1)
    fitted = fit(x, y, potential="gaussian", rng=3)
    expected = Gaussian.fit(x, y)
    np.testing.assert_allclose(fitted.transport(x), expected.gradient(x), rtol=1e-5, atol=1e-5)
    assert (fitted.status, fitted.blend, fitted.params["n_steps"], fitted.history) == ("ok", 0, 0, {})


@pytest.mark.slow
def test_as_many_cells_as_a_fit_reads_are_not_worse_than_few():
    """A hundred thousand cells are the default limit of ``tl.hycnn_ot``; cached conjugates would be too old then."""
    pair = brenier_pair("cubic", 20, 100_000)
    few, many = (fit(pair.x[:n], pair.y[:n], n_ensemble=1, progress=False) for n in (5000, 100_000))
    of_few, of_many = (map_mse(fitted.transport(pair.x_test), pair.y_test) for fitted in (few, many))
    assert of_many < of_few / 3


# ---- randomness and inputs


def test_the_same_seed_gives_the_same_bits_and_another_does_not():
    x, y = normal(0, 3000), moved_apart(1, 3000)
    first, again, other = (fit(x, y, rng=seed, **QUICK) for seed in (0, 0, 1))
    assert torch.equal(first.theta, again.theta)
    assert np.array_equal(first.transport(x), again.transport(x))
    assert (first.blend, first.w2_squared) == (again.blend, again.w2_squared)
    assert first.blend > 0  # or the networks would not show
    assert not torch.equal(first.theta, other.theta)


def test_global_random_states_are_neither_used_nor_changed():
    x, y = normal(0), moved_apart(1)
    thetas = []
    for seed in (1, 2):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        before = random.getstate(), np.random.get_state(), torch.get_rng_state()
        thetas.append(fit(x, y, **QUICK).theta)
        assert random.getstate() == before[0]
        assert all(np.array_equal(a, b) for a, b in zip(np.random.get_state(), before[1], strict=True))
        assert torch.equal(torch.get_rng_state(), before[2])
    assert torch.equal(*thetas)


def test_inputs_stay_untouched_and_may_be_read_only():
    x, y = normal(0), moved_apart(1)
    copies = x.copy(), y.copy()
    for cells in (x, y):
        cells.flags.writeable = False
    fit(x, y, **QUICK)
    assert np.array_equal(x, copies[0])
    assert np.array_equal(y, copies[1])


def test_any_array_of_numbers_gives_the_same_map():
    x, y = np.round(5 * normal(0)) + 50, np.round(5 * moved_apart(1)) + 60
    options = QUICK | {"max_steps": 2}
    plain = fit(x, y, **options)
    conversions = {
        "lists": lambda cells: cells.tolist(),
        "float32": lambda cells: cells.astype(np.float32),
        "small integers": lambda cells: cells.astype(np.uint8),
        "column order": np.asfortranarray,
        "strided": lambda cells: np.repeat(cells, 2, axis=0)[::2],
        "frames": pd.DataFrame,
        "tensors": torch.tensor,
    }
    for name, convert in conversions.items():
        assert torch.equal(plain.theta, fit(convert(x), convert(y), **options).theta), name


# ---- input errors

WITH_NAN = normal(0)
WITH_NAN[7, 1] = np.nan
WITH_INFINITY = normal(0)
WITH_INFINITY[[9, 11], 0] = -np.inf


def test_cells_that_cannot_be_fitted_are_named_with_what_is_wrong():
    for x, y, match in (
        (normal(0)[0], normal(1), r"x \(source\) .* shape \(2,\)"),
        (normal(0), normal(1)[None], r"y \(target\) .* shape \(1, 300, 2\)"),
        (normal(0).astype(str), normal(1), r"x \(source\) .* dtype <U"),
        (normal(0), normal(1, 300, 3), r"x \(source\) has 2 dimensions and y \(target\) 3"),
        (normal(0, 19), normal(1), r"x \(source\) has 19 cells in 2 dimensions; at least 20"),
        (normal(0, 50, 20), normal(1, 39, 20), r"y \(target\) has 39 cells in 20 dimensions; at least 40"),
        (WITH_NAN, normal(1), r"x \(source\) .* 1 of 300 rows, the first in row 7"),
        (normal(1), WITH_INFINITY, r"y \(target\) .* 2 of 300 rows, the first in row 9"),
        (normal(0), 1e200 * normal(1), r"y \(target\) .*e\+200"),
    ):
        with pytest.raises(ValueError, match=match):
            fit(x, y, **QUICK)


# ---- the Gaussian map is kept


@pytest.mark.parametrize(("n_cells", "seed"), [(25, 7), (500, 1)])
def test_between_a_gaussian_cloud_and_itself_the_gaussian_map_is_kept(n_cells, seed):
    """With seeds where every blend is visibly worse; with others validation noise may prefer one about as good."""
    x = normal(seed, n_cells)
    fitted = fit(x, x, **TRAINED)
    assert fitted.outcome == Outcome.NO_RESPONSE
    assert not fitted.outcome.is_trouble
    assert not fitted.ok
    assert fitted.blend == 0
    assert fitted.validation["J"] == fitted.validation["J_gaussian"]
    assert np.array_equal(fitted.transport(x), fit(x, x, potential="gaussian").transport(x))


# ---- the divergence guard


def is_the_gaussian_map(fitted, x, y):
    x_far = 100 * x
    same = np.array_equal(fitted.transport(x_far), fit(x, y, potential="gaussian").transport(x_far))
    return same and fitted.blend == 0


@pytest.mark.parametrize("lr", [1e3, 1e30])
def test_an_absurd_learning_rate_falls_back_on_the_gaussian_map(lr):
    x, y = normal(0), moved_apart(1)
    fitted = fit(x, y, **(QUICK | {"lr": lr}))
    assert fitted.outcome == Outcome.RECOVERED
    assert "Gaussian map was kept" in fitted.status
    assert is_the_gaussian_map(fitted, x, y)
    assert all(math.isfinite(value) for value in (fitted.w2_squared, *fitted.certificate.values()))
    # The fit can be stored and read, which needs finite parameters.
    assert np.array_equal(TransportMap.from_dict(fitted.to_dict()).transport(x), fitted.transport(x))


@pytest.mark.parametrize("options", [{"lr": 100.0}, {"weight_decay": 1e6}])
def test_whatever_the_options_the_map_is_finite_and_does_not_explode(options):
    x, y = normal(0), moved_apart(1)
    fitted = fit(x, y, **(QUICK | options))
    moved = fitted.transport(x)
    assert np.isfinite(moved).all()
    assert map_mse(moved, x + 2 * np.sign(x)) < map_mse(x, x + 2 * np.sign(x))
    assert fitted.certificate["convexity_gap"] < 1e-4
    assert fitted.theta.isfinite().all()


@pytest.mark.parametrize(("bad", "every"), [(math.nan, 1), (math.inf, 7)])
def test_non_finite_gradients_are_skipped_and_counted(monkeypatch, bad, every):
    calls, grad = [], torch.autograd.grad

    def failing(*args):
        calls.append(None)
        gradients = grad(*args)
        return tuple(torch.full_like(g, bad) for g in gradients) if len(calls) % every == 0 else gradients

    monkeypatch.setattr(torch.autograd, "grad", failing)
    x, y = normal(0), moved_apart(1)
    fitted = fit(x, y, **QUICK)
    assert fitted.outcome == Outcome.RECOVERED
    assert "non-finite gradients" in fitted.status
    assert fitted.theta.isfinite().all()
    moved = fitted.transport(x)
    assert map_mse(moved, x + 2 * np.sign(x)) < map_mse(x, x + 2 * np.sign(x))


def explode(monkeypatch, value, after):
    """Set the parameters of the first member to this after each update from this number on."""
    update, updates = Optimiser.update, []

    def exploding(optimiser, *arguments):
        update(optimiser, *arguments)
        updates.append(None)
        if len(updates) > after:
            optimiser.theta.data[0] = value

    monkeypatch.setattr(Optimiser, "update", exploding)


@pytest.mark.parametrize("bad", [math.nan, 1e30])
def test_parameters_that_explode_at_once_leave_the_gaussian_map(monkeypatch, bad):
    x, y = normal(0), moved_apart(1)
    explode(monkeypatch, bad, after=0)
    fitted = fit(x, y, **QUICK)
    assert is_the_gaussian_map(fitted, x, y)
    assert fitted.theta.isfinite().all()


@pytest.mark.parametrize("bad", [math.nan, 1e30])
def test_parameters_that_explode_later_leave_the_best_network(monkeypatch, bad):
    x, y = normal(0, 3000), moved_apart(1, 3000)
    before = fit(x, y, **QUICK)
    explode(monkeypatch, bad, after=36)  # only the last check comes after it
    fitted = fit(x, y, **QUICK)
    assert not math.isfinite(fitted.history["J_minus_gaussian"][-1])
    assert fitted.history["J_minus_gaussian"][:-1].min() == before.history["J_minus_gaussian"][:-1].min()
    assert fitted.blend > 0
    assert map_mse(fitted.transport(x), before.transport(x)) < map_mse(x, before.transport(x)) / 5


# ---- clouds at the edge of what numbers hold


@pytest.fixture(scope="module")
def plain():
    """Cells of ordinary size, and a fit in which the network is better than the Gaussian map."""
    pair = brenier_pair("logsumexp", 3, 400)
    x, y = pair.x.astype(np.float64), pair.y.astype(np.float64)
    return x, y, fit(x, y, **TRAINED | {"max_steps": 60})


@pytest.mark.parametrize(("scale", "shift"), [(1e-30, 0), (1e30, 0), (1, 1e6)])
def test_units_and_origin_of_the_cells_do_not_show(plain, scale, shift):
    x, y, expected = plain
    fitted = fit(x * scale + shift, y * scale + shift, **TRAINED | {"max_steps": 60})
    moved = (fitted.transport(x * scale + shift).astype(np.float64) - shift) / scale
    # What is left is the rounding of float32 at that distance from the origin.
    assert np.abs(moved - expected.transport(x)).max() < 0.01 + abs(shift) / scale * 1e-7
    assert fitted.w2_squared == pytest.approx(expected.w2_squared * scale**2, rel=0.01)
    assert fitted.blend == expected.blend > 0


def test_a_column_that_is_constant_in_both_stays_constant():
    x, y = normal(0, 300, 3), moved_apart(1, 300, 3)
    x[:, 1] = y[:, 1] = -1e6
    moved = fit(x, y, **QUICK).transport(x)
    spread = np.sqrt(((moved - y.mean(0)) ** 2).mean(0))
    assert spread[1] < spread[[0, 2]].min() / 10


def test_clouds_of_one_point_are_translated():
    x = np.full((40, 3), 2.0)
    fitted = fit(x, x + 1, **QUICK)
    assert fitted.blend == 0
    np.testing.assert_allclose(fitted.transport(x), x + 1, rtol=1e-6)
    assert fitted.w2_squared == pytest.approx(3)


def test_the_fewest_cells_and_batches_larger_than_the_cloud():
    fitted = fit(normal(0, 20, 10), normal(1, 20, 10) + 1, **(QUICK | {"batch_size": 500, "validation_fraction": 0.5}))
    assert np.isfinite(fitted.transport(normal(2, 50, 10))).all()


# ---- what is reported


@pytest.mark.parametrize("max_steps", [1, 25])
def test_history_has_one_row_for_each_check(max_steps):
    fitted = fit(normal(0), moved_apart(1), **(QUICK | {"max_steps": max_steps}))
    steps = fitted.history["step"]
    assert {"step", "seconds", "loss_f", "loss_g", "J_minus_gaussian", "J_error", "residual"} == set(fitted.history)
    assert {len(column) for column in fitted.history.values()} == {len(steps)}
    assert (np.diff(steps) > 0).all()
    assert steps[-1] == fitted.params["n_steps"] <= max_steps
    assert (np.diff(fitted.history["seconds"]) >= 0).all()


@pytest.mark.parametrize("potential", ["hycnn", "gaussian"])
def test_params_hold_every_option_and_the_cost(potential):
    started = time.perf_counter()
    fitted = fit(
        normal(0), moved_apart(1), potential=potential, **(QUICK | {"device": "auto", "hidden": [8, 4], "rng": 5})
    )
    assert set(fitted.params) == {*TrainingOptions.__annotations__, "device", "rng", "n_steps", "seconds"}
    assert fitted.params["hidden"] == (8, 4)
    assert fitted.params["rng"] == 5
    assert fitted.params["device"] == fitted.device != "auto"
    assert 0 < fitted.params["seconds"] <= time.perf_counter() - started


def test_validation_has_the_score_of_every_blend_and_of_the_one_that_is_taken():
    fitted = fit(normal(0, 3000), moved_apart(1, 3000), **QUICK)
    validation = fitted.validation
    blends = validation["blends"].tolist()
    assert (blends[0], blends[-1]) == (0, 1)
    taken = blends.index(fitted.blend)
    assert taken > 0
    assert validation["J"] == validation["J_by_blend"][taken]
    assert validation["J_gaussian"] == validation["J_by_blend"][0]
    assert validation["energy_distance"] == validation["energy_distance_by_blend"][taken]
    assert validation["energy_distance_gaussian"] == validation["energy_distance_by_blend"][0]
    assert {len(column) for name, column in validation.items() if name.endswith("_by_blend")} == {len(blends)}


def test_the_certificate_is_measured():
    certificate = fit(normal(0), moved_apart(1), **QUICK).certificate
    assert certificate["convexity_gap"] <= 1e-5
    assert certificate["monotonicity"] > 0
    assert max(certificate["fenchel_residual"], certificate["cycle_error"]) < 0.01


# ---- early stopping


def test_training_stops_after_half_of_the_steps_where_the_gaussian_map_is_clearly_better():
    fitted = fit(normal(0), 2 * normal(1), **QUICK | {"lr": 3.0})
    assert fitted.params["n_steps"] == fitted.history["step"][-1] == 20
    assert "20 steps" in fitted.status
    assert fitted.blend == 0


def test_with_few_target_cells_no_second_network_is_trained(monkeypatch):
    """One update a step of training; how far cached maximisers move is reported, and it falls."""
    counted, update = [], Optimiser.update
    monkeypatch.setattr(Optimiser, "update", lambda *arguments: counted.append(update(*arguments)))
    pair = brenier_pair("logsumexp", 4, 500, rng=2)
    options = QUICK | {"lr": None, "max_steps": 200, "batch_size": None}
    moved = fit(pair.x, pair.y, conjugates="cached", **options).history["loss_g"]
    assert len(counted) == 200
    assert (moved > 0).all()
    assert moved[-1] < moved[1] / 5


@pytest.mark.parametrize("kind", ["cubic", pytest.param("logsumexp", marks=pytest.mark.slow)])
def test_the_cache_finds_what_predictions_find(kind):
    """In the mean of four seeds: the error of one is .85 to 1.2 times that of the other."""
    pair = brenier_pair(kind, 4, 800, rng=1)
    options = QUICK | {"lr": None, "max_steps": 200}

    def error(fitted):
        return map_mse(fitted.transport(pair.x), pair.transport(pair.x))

    fits = {
        name: [fit(pair.x, pair.y, conjugates=name, rng=seed, **options) for seed in range(4)]
        for name in ("amortized", "cached")
    }
    cached, amortised = (np.mean([error(one) for one in fits[name]]) for name in ("cached", "amortized"))
    assert cached < min(1.1 * amortised, 0.8 * error(fits["cached"][0].gaussian_map()))


# ---- solvers and potentials

SOLVERS = ("amortized", "minimax", "w2gn", "enot", "paper")
FAMILIES = (
    *("hycnn", "hycnn-max", "hycnn-fixed", "hycnn-cyclic", "groupmax", "icnn", "icnn-relu", "icnn-leaky-relu"),
    *("icnn-soft", "icnn-quadratic", "mlp"),
)
# Steps in which each solver finds a nonlinear map with its default rate.
STEPS = {"amortized": 250, "minimax": 250, "w2gn": 600, "enot": 500, "paper": 500}


@pytest.mark.parametrize(
    "solver", [pytest.param(name, marks=[pytest.mark.slow] if name != "amortized" else []) for name in SOLVERS]
)
def test_every_solver_finds_a_nonlinear_map(solver):
    pair = brenier_pair("sign", 3, 1000)
    options = {"hidden": (16, 16), "max_steps": STEPS[solver], "batch_size": 128, "n_ensemble": 1, "device": "cpu"}
    fitted = fit(pair.x, pair.y, solver=solver, **options)
    error = map_mse(fitted.transport(pair.x_test), pair.y_test)
    assert fitted.ok
    assert error < map_mse(mean_shift(pair), pair.y_test) / 2
    assert error < map_mse(Gaussian.fit(pair.x, pair.y).gradient(pair.x_test), pair.y_test)
    assert fitted.params["solver"] == solver
    assert fitted.certificate["convexity_gap"] < 1e-4


@pytest.mark.parametrize(
    "potential",
    [
        pytest.param(name, marks=[] if name in ("groupmax", "icnn", "mlp") else [pytest.mark.slow])
        for name in FAMILIES
        if name != "hycnn"
    ],
)
def test_every_family_finds_a_nonlinear_map(potential):
    pair = brenier_pair("sign", 2, 1000)
    options = {"hidden": (16, 16), "max_steps": 250, "batch_size": 128, "n_ensemble": 1, "device": "cpu"}
    fitted = fit(pair.x, pair.y, potential=potential, **options)
    assert map_mse(fitted.transport(pair.x_test), pair.y_test) < map_mse(mean_shift(pair), pair.y_test) / 2
    assert fitted.params["potential"] == potential


@pytest.mark.parametrize(("number", "potential"), list(enumerate((*FAMILIES, "gaussian"))))
def test_potentials_and_solvers_give_finite_maps_that_survive_files(number, potential, tmp_path):
    """Each potential with two of the solvers, each solver with several potentials."""
    x, y = normal(0, 100), normal(1, 100) ** 3 + 2
    for solver in (SOLVERS[number % 5], SOLVERS[(number + 2) % 5]):
        # The blend is set, so that the networks change what the map does.
        fitted = fit(x, y, potential=potential, solver=solver, **QUICK | {"max_steps": 4, "lr": None})
        assert fitted.theta.isfinite().all()
        assert all(np.isfinite(value) for value in (fitted.w2_squared, *fitted.certificate.values()))
        if fitted.network.convex or not fitted.blend:
            assert fitted.certificate["convexity_gap"] <= 1e-4
        assert json.loads(json.dumps(fitted.params)) == fitted.params | {"hidden": [16, 16]}
        blended = replace(fitted, blend=0.5)
        blended.save(tmp_path / "map")
        loaded = TransportMap.load(tmp_path / "map", device="cpu")
        assert loaded.network == fitted.network
        assert np.isfinite(loaded.transport(x)).all()
        assert np.array_equal(loaded.transport(x), blended.transport(x))


@pytest.mark.parametrize(
    ("solver", "potential"),
    [
        ("amortized", ICNN(2, (6, 5), constraint="soft", temperature=0.5)),
        ("amortized", MLP(2, (6, 5))),
        ("paper", HyCNN(2, (6, 5), gate="max")),
    ],
    ids=str,
)
def test_a_potential_of_the_user_is_trained_as_it_is(potential, solver):
    options = {name: value for name, value in QUICK.items() if name != "hidden"}
    fitted = fit(normal(0), moved_apart(1), potential=potential, solver=solver, **options)
    assert fitted.network is potential
    assert (fitted.params["hidden"], fitted.params["potential"]) == ((6, 5), str(potential))


def test_the_same_potential_by_name_and_by_hand_is_the_same_fit():
    x, y = normal(0), moved_apart(1)
    by_name = fit(x, y, potential="icnn-relu", **QUICK)
    options = {name: value for name, value in QUICK.items() if name != "hidden"}
    assert torch.equal(by_name.theta, fit(x, y, potential=by_name.network, **options).theta)
