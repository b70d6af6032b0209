"""Many maps in one loop: each is what it would be alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scot_hycnn import solver
from scot_hycnn.solver import Outcome, fit, fit_many
from scot_hycnn.solver.runtime import _batching as _maps
from scot_hycnn.solver.training import _parts
from scot_hycnn.solver.training._methods import RECIPES

QUICK = {"hidden": (8, 8), "max_steps": 40, "batch_size": 64, "n_ensemble": 2, "device": "cpu", "progress": False}


def normal(seed, n_cells=300, n_dims=2):
    return np.random.default_rng(seed).normal(size=(n_cells, n_dims))


def bent(seed, n_cells=300):
    y = normal(seed, n_cells)
    return y + 2 * np.sign(y)


def alike(fitted, alone, x):
    """The same map up to the rounding of products in batches of another size."""
    np.testing.assert_allclose(fitted.transport(x), alone.transport(x), rtol=1e-3, atol=1e-3)
    assert fitted.blend == alone.blend
    assert fitted.params | {"seconds": 0} == alone.params | {"seconds": 0}
    assert fitted.history["step"].tolist() == alone.history["step"].tolist()
    np.testing.assert_allclose(fitted.history["loss_f"], alone.history["loss_f"], atol=1e-3)
    assert fitted.status == alone.status


@pytest.mark.parametrize("method", RECIPES)
def test_each_map_is_what_it_is_alone(method):
    x, ys = normal(0), [bent(1), bent(2, 200) + 3, normal(3, 250) * 2]
    options = QUICK | {"solver": method}
    for fitted, y in zip(fit_many(x, ys, **options), ys, strict=True):
        alike(fitted, fit(x, y, **options), x)


def test_maps_with_other_defaults_train_apart_and_keep_their_order():
    """More cells are trained on for longer, in larger batches."""
    rng = np.random.default_rng(0)
    x, ys = rng.normal(size=(12_000, 1)), [rng.normal(size=(n, 1)) + 1 for n in (12_000, 100, 11_000, 3000, 150)]
    maps = fit_many(x, ys, potential="gaussian")
    assert [fitted.params["batch_size"] for fitted in maps] == [512, 128, 512, 256, 128]
    assert [fitted.params["max_steps"] for fitted in maps] == [1200, 600, 1200, 800, 600]
    for fitted, y in zip(maps, ys, strict=True):
        np.testing.assert_array_equal(fitted.transport(x), fit(x, y, potential="gaussian").transport(x))


def test_batches_are_of_bounded_size(fitted_batches):
    x, ys = normal(0), [bent(seed) for seed in range(1, 6)]
    options = QUICK | {"n_ensemble": 8, "max_steps": 2}
    maps = fit_many(x, ys, **options)
    assert fitted_batches == [2, 2, 1]
    for fitted, y in zip(maps, ys, strict=True):
        alike(fitted, fit(x, y, **options), x)


def test_groups_and_those_left_out_are_each_maps_own():
    rng = np.random.default_rng(0)
    of = np.repeat(["a", "b", "c"], 100)
    centres = np.repeat([[-6.0, 0.0], [6.0, 0.0], [0.0, 6.0]], 100, axis=0)
    x = centres + rng.normal(size=(300, 2))
    ys = [(y := centres + rng.normal(size=(300, 2))) + scale * np.sign(y) for scale in (2, 3)]
    others = np.where(np.arange(300) < 50, "d", of)
    options = QUICK | {"leave_out": "groups", "max_steps": 100}
    maps = fit_many(x, ys, groups=(of, [of, others]), **options)
    for fitted, y, own in zip(maps, ys, (of, others), strict=True):
        alone = fit(x, y, groups=(of, own), **options)
        alike(fitted, alone, x)
        for name in ("J_left_out_by_blend", "energy_distance_left_out_by_blend"):
            np.testing.assert_allclose(fitted.validation[name], alone.validation[name], atol=1e-3)


# ---- what befalls one map is its own


@pytest.mark.parametrize(
    ("method", "stopped"), [("amortized", (0,)), ("amortized", (1, 2)), ("minimax", (1,)), ("amortized", (0, 1, 2))]
)
def test_a_map_that_stops_early_does_not_touch_the_others(stop, method, stopped):
    x, ys = normal(0), [bent(1), bent(2), bent(3)]
    options = QUICK | {"solver": method}
    stop()
    alone = [fit(x, y, **options) for y in ys]
    stop(*stopped)
    maps = fit_many(x, ys, **options)
    for number, (fitted, own) in enumerate(zip(maps, alone, strict=True)):
        if number in stopped:
            assert (fitted.blend, fitted.params["n_steps"]) == (0, 20)
            assert "after 20 steps" in fitted.status
        else:
            alike(fitted, own, x)


def test_a_map_that_meets_infinite_gradients_is_reported_and_the_others_finish(monkeypatch):
    x, ys = normal(0), [bent(1), bent(2), bent(3)]
    alone = [fit(x, y, **QUICK) for y in ys]

    class Spoiled(_parts.Draws):
        def __init__(self, members, *args, **options):
            super().__init__(members, *args, **options)
            self.of_rows = np.repeat([own.number for own in members], [len(own.rows) for own in members])

        def __call__(self):
            x, *others = super().__call__()
            x[self.of_rows == 1] = torch.inf
            return x, *others

    monkeypatch.setattr(_parts, "Draws", Spoiled)
    maps = fit_many(x, ys, **QUICK)
    assert [fitted.outcome == Outcome.RECOVERED for fitted in maps] == [False, True, False]
    assert "40 non-finite gradients in 20 steps" in maps[1].status
    gaussian = fit(x, ys[1], potential="gaussian")
    assert maps[1].blend == 0
    np.testing.assert_array_equal(maps[1].transport(x), gaussian.transport(x))
    for number in (0, 2):
        alike(maps[number], alone[number], x)


def test_the_seed_is_each_maps():
    x, y = normal(0), bent(1)
    first, again = fit_many(x, [y, y], **QUICK)
    torch.testing.assert_close(first.theta, again.theta, rtol=0, atol=1e-4)
    (other,) = fit_many(x, [y], rng=1, **QUICK)
    assert not torch.allclose(first.theta, other.theta, atol=1e-2)


# ---- input


@pytest.mark.parametrize(
    ("ys", "groups", "options", "match"),
    [
        ([], None, {}, "ys is empty: give the cells of at least one target."),
        ([normal(1), normal(2, 5)], None, {}, r"ys\[1\] \(target\) has 5 cells in 2 dimensions; at least 20"),
        ([normal(1), normal(2, 50, 3)], None, {}, r"x \(source\) has 2 dimensions and ys\[1\] \(target\) 3"),
        ([normal(1), normal(2) * np.nan], None, {}, r"ys\[1\] \(target\) has NaN or infinite values in 300 of 300"),
        ([normal(1)], (["a"] * 300,), {}, "groups must be a pair: labels of the source cells, and a sequence"),
        ([normal(1)], (["a"] * 300, []), {}, "a sequence of labels for each of 1 targets"),
        ([normal(1)], (["a"] * 300, [["a"] * 3]), {}, "groups of the target cells have shape"),
        ([normal(1)], None, {"leave_out": "groups"}, "leave_out='groups' needs groups"),
        ([normal(1)], None, {"solver": "sgd"}, "solver='sgd' is unknown; choose one of"),
        ([normal(1)], None, {"device": "tpu"}, "device='tpu' is"),
    ],
)
def test_what_is_wrong_is_said_before_any_work(monkeypatch, ys, groups, options, match):
    monkeypatch.setattr(_maps, "_fit_batch", None)
    with pytest.raises(ValueError, match=match):
        fit_many(normal(0), ys, groups=groups, **options)


def test_an_unknown_option_is_a_type_error():
    with pytest.raises(TypeError, match="n_stepz"):
        fit_many(normal(0), [normal(1)], n_stepz=3)


# ---- the bar


def test_one_bar_over_maps_shows_what_they_gained(capsys):
    fit_many(normal(0), [bent(1), bent(2), bent(3)], **(QUICK | {"progress": True}))
    shown = capsys.readouterr().err
    assert "3.0/3 maps" in shown
    assert "J - J_Gauss" in shown


def test_the_bar_of_one_map_counts_steps(capsys):
    fit(normal(0), bent(1), **(QUICK | {"progress": True}))
    assert "40/40" in capsys.readouterr().err


@pytest.mark.parametrize("targets", [1, 3])
def test_without_a_bar_it_is_silent(capsys, targets):
    fit_many(normal(0), [bent(seed) for seed in range(targets)], **QUICK)
    assert capsys.readouterr() == ("", "")


def test_maps_that_stop_early_have_done_their_part_of_the_bar(stop, capsys):
    stop(0, 2)
    fit_many(normal(0), [bent(1), bent(2), bent(3)], **(QUICK | {"progress": True}))
    assert "3.0/3 maps" in capsys.readouterr().err


def test_solver_says_what_it_offers():
    assert "fit_many" in solver.__all__
