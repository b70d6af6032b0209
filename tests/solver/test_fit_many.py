"""Many maps in one loop: each is what it would be alone, and their input is checked together."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pandas as pd
import pytest
import torch

from scot_hycnn.solver import Outcome, check_groups, fit, fit_many
from scot_hycnn.solver.training._optimiser import Optimiser

QUICK = {"hidden": (8, 8), "max_steps": 20, "batch_size": 64, "n_ensemble": 2, "device": "cpu", "progress": False}
GAUSSIAN = {"potential": "gaussian", "device": "cpu", "progress": False}


def normal(seed, n_cells=300, n_dims=2):
    return np.random.default_rng(seed).normal(size=(n_cells, n_dims))


def moved_apart(seed, n_cells=300):
    y = normal(seed, n_cells)
    return y + 2 * np.sign(y)


def alike(fitted, alone, x):
    """The same map up to the rounding of products in batches of another size."""
    # A centred map is compared around one centre.
    both = [one.around(np.zeros(x.shape[1])) if one.centres else one for one in (fitted, alone)]
    np.testing.assert_allclose(*(one.transport(x) for one in both), rtol=1e-3, atol=1e-3)
    assert fitted.blend == alone.blend
    assert fitted.params | {"seconds": 0} == alone.params | {"seconds": 0}
    assert fitted.history["step"].tolist() == alone.history["step"].tolist()
    np.testing.assert_allclose(fitted.history["loss_f"], alone.history["loss_f"], atol=1e-3)
    assert fitted.status == alone.status


@pytest.mark.parametrize(
    "options",
    [*({"solver": name} for name in ("minimax", "w2gn", "enot", "paper")), {"conjugates": "amortized"}, {}],
    ids=str,
)
def test_each_map_is_what_it_is_alone(options):
    x, ys = normal(0), [moved_apart(1), moved_apart(2, 200) + 3, normal(3, 250) * 2]
    for fitted, y in zip(fit_many(x, ys, **QUICK, **options), ys, strict=True):
        alike(fitted, fit(x, y, **QUICK, **options), x)


def test_maps_with_other_defaults_train_apart_and_keep_their_order():
    """More cells are trained on for longer, in larger batches."""
    rng = np.random.default_rng(0)
    x, ys = rng.normal(size=(12_000, 1)), [rng.normal(size=(n, 1)) + 1 for n in (12_000, 100, 11_000, 3000, 150)]
    maps = fit_many(x, ys, **GAUSSIAN)
    assert [fitted.params["batch_size"] for fitted in maps] == [512, 128, 512, 256, 128]
    assert [fitted.params["max_steps"] for fitted in maps] == [650, 250, 650, 350, 250]
    for fitted, y in zip(maps, ys, strict=True):
        np.testing.assert_array_equal(fitted.transport(x), fit(x, y, **GAUSSIAN).transport(x))


def test_more_maps_than_train_together_are_what_they_are_alone():
    x, ys = normal(0), [moved_apart(seed) for seed in range(1, 6)]
    options = QUICK | {"n_ensemble": 8, "max_steps": 2}
    for fitted, y in zip(fit_many(x, ys, **options), ys, strict=True):
        alike(fitted, fit(x, y, **options), x)


def test_groups_and_those_left_out_are_separate_for_each_map():
    rng = np.random.default_rng(0)
    of = np.repeat(["a", "b", "c"], 100)
    centres = np.repeat([[-6.0, 0.0], [6.0, 0.0], [0.0, 6.0]], 100, axis=0)
    x = centres + rng.normal(size=(300, 2))
    ys = [(y := centres + rng.normal(size=(300, 2))) + scale * np.sign(y) for scale in (2, 3)]
    others = np.where(np.arange(300) < 50, "d", of)
    options = QUICK | {"leave_out": "groups", "max_steps": 100}
    maps = fit_many(x, ys, groups=(of, [of, others]), **options)
    for fitted, y, labels in zip(maps, ys, (of, others), strict=True):
        alone = fit(x, y, groups=(of, labels), **options)
        alike(fitted, alone, x)
        for name in ("J_left_out_by_blend", "energy_distance_left_out_by_blend"):
            np.testing.assert_allclose(fitted.validation[name], alone.validation[name], atol=1e-3)


def test_groups_of_targets_may_be_one_array():
    x, y, of = normal(0), normal(1) + 3, np.repeat(["a", "b"], 150)
    (fitted, other) = fit_many(x, [y, y], groups=(of, np.stack([of, of])), potential="gaussian")
    np.testing.assert_array_equal(fitted.transport(x), other.transport(x))


def test_a_map_that_explodes_stops_early_and_does_not_change_the_others(monkeypatch):
    """Its checks fail, so that the Gaussian map is clearly better after half of the steps; it has the most cells."""
    x, ys = normal(0), [moved_apart(1), moved_apart(2, n_cells=400), moved_apart(3)]
    alone, update = [fit(x, y, **QUICK) for y in ys], Optimiser.update

    def exploding(optimiser, *arguments):
        update(optimiser, *arguments)
        if len(optimiser.theta) == 6:
            optimiser.theta.data[2:4] = torch.nan

    monkeypatch.setattr(Optimiser, "update", exploding)
    maps = fit_many(x, ys, **QUICK)
    assert (maps[1].blend, maps[1].params["n_steps"], maps[1].history["step"][-1]) == (0, 10, 10)
    for number in (0, 2):
        alike(maps[number], alone[number], x)


def test_a_map_that_meets_infinite_gradients_is_reported_and_the_others_finish(monkeypatch):
    x, ys = normal(0), [moved_apart(1), moved_apart(2), moved_apart(3)]
    alone, grad = [fit(x, y, **QUICK) for y in ys], torch.autograd.grad

    def spoiled(*args):
        (gradient,) = grad(*args)
        if len(gradient) == 6:
            gradient[2:4] = torch.inf
        return (gradient,)

    monkeypatch.setattr(torch.autograd, "grad", spoiled)
    maps = fit_many(x, ys, **QUICK)
    assert [fitted.outcome == Outcome.RECOVERED for fitted in maps] == [False, True, False]
    steps = maps[1].params["n_steps"]
    assert f"{2 * steps} non-finite gradients in {steps} steps" in maps[1].status
    for number in (0, 2):
        alike(maps[number], alone[number], x)


def test_all_maps_have_the_same_seed():
    x, y = normal(0), moved_apart(1)
    first, again = fit_many(x, [y, y], **QUICK)
    torch.testing.assert_close(first.theta, again.theta, rtol=0, atol=1e-4)
    (other,) = fit_many(x, [y], rng=1, **QUICK)
    assert not torch.allclose(first.theta, other.theta, atol=1e-2)


# ---- input


@pytest.mark.parametrize(
    ("ys", "groups", "options", "match"),
    [
        ([], None, {}, "ys is empty"),
        ([normal(1), normal(2, 5)], None, {}, r"ys\[1\] \(target\) has 5 cells in 2 dimensions; at least 20"),
        ([normal(1), normal(2, 50, 3)], None, {}, r"x \(source\) has 2 dimensions and ys\[1\] \(target\) 3"),
        ([normal(1), normal(2) * np.nan], None, {}, r"ys\[1\] \(target\) has NaN or infinite values in 300 of 300"),
        ([normal(1)], (["a"] * 300,), {}, "groups must be a pair"),
        ([normal(1)], (["a"] * 300, []), {}, "1 targets"),
        ([normal(1)], (["a"] * 300, [["a"] * 3]), {}, "groups of the target cells have shape"),
        ([normal(1)], None, {"leave_out": "groups"}, "leave_out='groups' needs groups"),
        ([normal(1)], None, {"device": "tpu"}, "device='tpu'"),
    ],
)
def test_wrong_input_is_refused_before_any_fit(ys, groups, options, match):
    with pytest.raises(ValueError, match=match):
        fit_many(normal(0), ys, groups=groups, **options)


def test_groups_that_are_no_pair_of_labels():
    a = ["a"] * 300
    for groups in (a, 3, (a,), (a, ["a"] * 3), (["a"] * 3, a)):
        with pytest.raises(ValueError, match="groups"):
            fit(normal(0), normal(1), groups=groups, **GAUSSIAN)


def refused(x, ys, **options):
    with pytest.raises(ValueError, match="targets") as error:
        fit_many(x, ys, **GAUSSIAN, **options)
    return str(error.value)


def test_all_targets_with_a_problem_are_named_in_one_message():
    bad = normal(1)
    bad[:2] = np.nan
    message = refused(normal(0), [bad, normal(2, 5), bad, normal(3, 6), normal(3, 60, 3), normal(5)])
    for named in ("ys[0] (target) (2 rows)", "ys[2] (target) (2 rows)", "ys[1] (target) (5 cells)", "(6 cells)"):
        assert named in message
    assert "ys[4] (target) 3" in message
    assert "ys[5]" not in message
    many = refused(normal(0), [normal(seed, 5) for seed in range(300)])
    assert "and 280 more" in many
    assert len(many) < 2000


def test_targets_whose_groups_are_too_small_are_named():
    x, of_x = normal(0, 60), ["a", "b"] * 30
    ys, of_y = [normal(k, 60) for k in range(4)], [["a", "b"] * 30, ["a"] * 60, ["c"] * 60, ["b", "a"] * 30]
    message = refused(x, ys, groups=(of_x, of_y))
    assert "2 of 4" in message
    assert [f"ys[{k}]" in message for k in range(4)] == [False, True, True, False]


@pytest.mark.parametrize(
    "kind",
    [
        torch.tensor,
        lambda cells: torch.tensor(cells, requires_grad=True),
        lambda cells: torch.tensor(cells).to(torch.bfloat16),
    ],
    ids=["float64", "with gradient", "bfloat16"],
)
def test_tensors_are_cells(kind):
    x, y = kind(normal(0)), kind(normal(1) + 3)
    arrays = [np.asarray(cells.detach().double()) for cells in (x, y)]
    expected = fit(*arrays, **GAUSSIAN).transport(arrays[0])
    for fitted in (fit(x, y, **GAUSSIAN), *fit_many(x, [y], **GAUSSIAN)):
        np.testing.assert_array_equal(fitted.transport(arrays[0]), expected)


# ---- labels

MISSING = {
    "nan": np.array(["a", "b", np.nan] * 20, dtype=object),
    "None": ["a", "b", None] * 20,
    "empty": ["a", "b", ""] * 20,
    "pandas' missing value": pd.array(["a", "b", pd.NA] * 20, dtype="string"),
    "numbers": np.array([1.0, 2.0, np.nan] * 20),
    "dates": np.array(["2020-01-01", "2020-01-02", "NaT"] * 20, dtype="datetime64[D]"),
    "category": pd.Categorical(["a", "b", None] * 20),
    "column of categories": pd.Series(["a", "b", None] * 20, dtype="category"),
    "mask": np.ma.masked_array([1, 2, 3] * 20, [False, False, True] * 20),
}


def test_a_missing_label_is_no_group():
    good, x = ["a", "b", "b"] * 20, normal(0, 60)
    for labels in MISSING.values():
        for side, pair in {"source": (labels, good), "target": (good, labels)}.items():
            with pytest.raises(ValueError, match=f"{side} cells .* 20 of 60 .* row 2"):
                fit_many(x, [x], groups=(pair[0], [pair[1]]), **GAUSSIAN)
            with pytest.raises(ValueError, match=f"{side} cells .* 20 of 60 .* row 2"):
                check_groups(pair, (60, 2), (60, 2))


def test_labels_of_any_kind_are_the_same_groups():
    rng, x, y = np.random.default_rng(0), normal(0, 60), normal(1, 60)
    labels = [rng.choice(["a", "b", "c"], 60, p=p) for p in ([0.3, 0.4, 0.3], [0.5, 0.4, 0.1])]
    expected = fit(x, y, groups=labels, **GAUSSIAN).transport(x)
    for kind in (
        list,
        lambda labels: pd.Categorical(labels, categories=["z", "c", "b", "a", "0"]),
        lambda labels: pd.Series(labels, dtype="category", index=range(5, 65)),
        lambda labels: np.array(labels, dtype=object),
    ):
        fitted = fit(x, y, groups=[kind(of_cloud) for of_cloud in labels], **GAUSSIAN)
        np.testing.assert_array_equal(fitted.transport(x), expected)


def test_labels_that_print_alike_are_one_group_and_measured_numbers_are_none():
    mixed = np.array([1, "1", 2] * 20, dtype=object)
    assert check_groups((mixed, pd.Categorical(mixed)), (60, 2), (60, 2)) == ["1", "2"]
    measured = np.random.default_rng(0).normal(size=3000)
    for kind in (np.asarray, pd.Categorical):
        with pytest.raises(ValueError, match=r"3000 different labels, .* at most 2000 ") as error:
            check_groups((kind(measured), kind(measured)), (3000, 2), (3000, 2))
        assert len(str(error.value)) < 1000


def test_source_cells_and_labels_are_held_once():
    """400 targets of a source of 20,000 cells: a copy of the labels for each would take 500 MB.

    The last target stops the call after all others were checked.
    """
    x, of_x = normal(0, 20_000), np.array(["monocyte", "B cell"] * 10_000)
    ys, of_y = [*[normal(1, 60)] * 399, normal(1, 5)], [*[["monocyte", "B cell"] * 30] * 399, ["B cell"] * 5]
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"ys\[399\]"):
            fit_many(x, ys, groups=(of_x, of_y), **GAUSSIAN)
        assert tracemalloc.get_traced_memory()[1] < 2e7
    finally:
        tracemalloc.stop()


# ---- the progress bar


def test_one_bar_over_maps_shows_their_gain(capsys):
    fit_many(normal(0), [moved_apart(seed) for seed in (1, 2, 3)], **QUICK | {"progress": True})
    shown = capsys.readouterr().err
    assert "3.0/3 maps" in shown
    assert "gain over the Gaussian map" in shown
    fit(normal(0), moved_apart(1), **QUICK | {"progress": True})
    assert "100%" in capsys.readouterr().err
    fit_many(normal(0), [moved_apart(1)], **QUICK)
    assert capsys.readouterr() == ("", "")
