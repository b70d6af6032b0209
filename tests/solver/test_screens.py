"""Many targets in one call: what is wrong is said of all of them, and what they share is held once."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pandas as pd
import pytest
import torch

from scot_hycnn.solver import Settings, _fit_many, check_groups, fit, fit_many
from scot_hycnn.solver.data._groups import group_cells, pair_of_labels
from scot_hycnn.solver.runtime import _batching as _maps

GAUSSIAN = {"potential": "gaussian", "device": "cpu", "progress": False}
QUICK = {"hidden": (8, 8), "max_steps": 20, "batch_size": 32, "n_ensemble": 2, "device": "cpu", "progress": False}
pytestmark = pytest.mark.filterwarnings("ignore:solver.fit")


def normal(seed, n_cells=60, n_dims=2):
    return np.random.default_rng(seed).normal(size=(n_cells, n_dims))


# ---- tensors


@pytest.mark.parametrize(
    "kind",
    [
        torch.tensor,
        lambda cells: torch.tensor(cells, dtype=torch.float32),
        lambda cells: torch.tensor(cells, requires_grad=True),
        lambda cells: torch.tensor(cells).to(torch.bfloat16),
    ],
    ids=["float64", "float32", "with gradient", "bfloat16"],
)
def test_tensors_are_cells(kind):
    x, ys = kind(normal(0)), [kind(normal(1) + 3), kind(normal(2))]
    as_arrays = [
        np.asarray(cells.detach().float() if cells.dtype == torch.bfloat16 else cells.detach()) for cells in ys
    ]
    source = np.asarray(x.detach().float() if x.dtype == torch.bfloat16 else x.detach())
    for fitted, tensor, array in zip(fit_many(x, ys, **GAUSSIAN), ys, as_arrays, strict=True):
        expected = fit(source, array, **GAUSSIAN).transport(source)
        np.testing.assert_array_equal(fitted.transport(source), expected)
        np.testing.assert_array_equal(fit(x, tensor, **GAUSSIAN).transport(source), expected)


# ---- options


@pytest.mark.parametrize(
    ("given", "meant"),
    [("n_stepz", "max_steps"), ("batchsize", "batch_size"), ("learning_rate", None), ("weight_deacy", "weight_decay")],
)
def test_an_unknown_option_is_told_with_the_nearest_one(monkeypatch, given, meant):
    monkeypatch.setattr(_maps, "_fit_batch", None)
    calls = [
        lambda: fit_many(normal(0), [normal(1)], **{given: 3}),
        lambda: Settings.for_cells(60, 2, device="cpu", rng=0, **{given: 3}),
    ]
    for call in calls:
        with pytest.raises(TypeError, match=f"'{given}' is not an option") as told:
            call()
        assert "'validation_fraction'" in str(told.value)  # all are listed
        if meant:
            assert f"did you mean '{meant}'?" in str(told.value)


@pytest.mark.parametrize(("given", "meant"), [("checkpointdir", "checkpoint_dir"), ("group", "groups")])
def test_keywords_of_fit_many_itself_are_meant_too(given, meant):
    with pytest.raises(TypeError, match=f"did you mean '{meant}'"):
        fit_many(normal(0), [normal(1)], **{given: None})


@pytest.mark.parametrize("name", ["n_targets", "labels", "n_cells"])
def test_names_of_our_own_parameters_are_no_options(name):
    with pytest.raises(TypeError, match=f"'{name}' is not an option"):
        fit_many(normal(0), [normal(1)], **{name: 3})


# ---- targets that no map can be fitted to


def refused(x, ys, **options):
    with pytest.raises(ValueError, match="targets") as told:
        fit_many(x, ys, **GAUSSIAN, **options)
    return str(told.value)


def test_all_targets_that_are_too_small_are_named():
    said = refused(normal(0), [normal(1), normal(2, 5), normal(3), normal(4, 19), normal(5, 1)])
    assert "3 of 5" in said
    for named in ("ys[1] (target) (5 cells)", "ys[3] (target) (19 cells)", "ys[4] (target) (1 cells)", "at least 20"):
        assert named in said
    assert "ys[0]" not in said


def test_other_kinds_are_named_beside_them():
    bad = normal(1)
    bad[:2] = np.nan
    said = refused(normal(0), [bad, normal(2, 5), bad, normal(3, 6), normal(3, 60, 3)])
    for named in ("ys[0] (target) (2 rows)", "ys[2] (target) (2 rows)", "ys[1] (target) (5 cells)", "(6 cells)"):
        assert named in said
    assert "ys[4] (target) 3; both need the same representation" in said


def test_hundreds_of_names_are_cut():
    said = refused(normal(0), [normal(seed, 5) for seed in range(300)])
    assert "and 280 more" in said
    assert len(said) < 2000


def test_targets_whose_groups_are_too_small_are_named():
    x, of_x = normal(0), ["a", "b"] * 30
    ys, of_y = [normal(k) for k in range(4)], [["a", "b"] * 30, ["a"] * 60, ["c"] * 60, ["b", "a"] * 30]
    said = refused(x, ys, groups=(of_x, of_y))
    assert "2 of 4" in said
    assert "ys[1]" in said
    assert "ys[2]" in said
    assert "ys[0]" not in said
    with pytest.raises(ValueError, match=r"ys\[1\] \(target\): groups of the target cells have shape \(3,\)"):
        fit_many(x, ys[:2], groups=(of_x, [of_y[0], ["a"] * 3]), **GAUSSIAN)


# ---- groups


MISSING = {
    "nan": np.array(["a", "b", np.nan] * 20, dtype=object),
    "None": ["a", "b", None] * 20,
    "empty": ["a", "b", ""] * 20,
    "printed nan": ["a", "b", np.nan] * 20,  # NumPy makes strings of it
    "pandas' missing value": pd.array(["a", "b", pd.NA] * 20, dtype="string"),
    "numbers": np.array([1.0, 2.0, np.nan] * 20),
    "dates": np.array(["2020-01-01", "2020-01-02", "NaT"] * 20, dtype="datetime64[D]"),
    "category": pd.Categorical(["a", "b", None] * 20),
    "column of categories": pd.Series(["a", "b", None] * 20, dtype="category"),
    "category that was printed": pd.Categorical(["a", "b", "nan"] * 20),
    "mask": np.ma.masked_array([1, 2, 3] * 20, [False, False, True] * 20),
}


@pytest.mark.parametrize("labels", MISSING.values(), ids=MISSING)
def test_a_missing_label_is_no_group(labels):
    good = ["a", "b", "b"] * 20
    sides = {"source": (labels, good), "target": (good, labels)}
    for side, groups in sides.items():
        for call in (
            lambda pair=groups: check_groups(pair, (60, 2), (60, 2)),
            lambda pair=groups: fit(normal(0), normal(1), groups=pair, **GAUSSIAN),
            lambda pair=groups: fit_many(normal(0), [normal(1)], groups=(pair[0], [pair[1]]), **GAUSSIAN),
        ):
            with pytest.raises(
                ValueError, match=f"groups of the {side} cells are missing .* 20 of 60 .* first in row 2"
            ):
                call()


GIVEN = {
    "list": list,
    "categories": pd.Categorical,
    "categories with others": lambda labels: pd.Categorical(labels, categories=["z", "c", "b", "a", "0"]),
    "column": lambda labels: pd.Series(labels, dtype="category", index=range(5, 65)),
    "objects": lambda labels: np.array(labels, dtype=object),
}


@pytest.mark.parametrize("given", GIVEN.values(), ids=GIVEN)
def test_labels_of_any_kind_are_the_same_groups(given):
    rng = np.random.default_rng(0)
    of_x, of_y = (rng.choice(["a", "b", "c"], 60, p=p) for p in ([0.3, 0.4, 0.3], [0.5, 0.4, 0.1]))
    groups = given(of_x), given(of_y)
    assert check_groups(groups, (60, 2), (60, 2)) == check_groups((of_x, of_y), (60, 2), (60, 2))
    expected = fit(normal(0), normal(1), groups=(of_x, of_y), **GAUSSIAN).transport(normal(0))
    np.testing.assert_array_equal(fit(normal(0), normal(1), groups=groups, **GAUSSIAN).transport(normal(0)), expected)


def test_numbers_and_what_prints_like_them_are_one_group():
    mixed = np.array([1, "1", 2] * 20, dtype=object)
    assert check_groups((mixed, pd.Categorical(mixed)), (60, 2), (60, 2)) == ["1", "2"]


def test_a_thousand_groups_have_their_cells_and_proportions():
    rng = np.random.default_rng(0)
    names = np.array([f"g{k:04}" for k in range(1500)])
    numbers = [rng.permutation(np.arange(n) % 1500) for n in (15_000, 9000)]
    x, y = (np.zeros((len(own), 1)) for own in numbers)
    labels = pair_of_labels(tuple(names[own] for own in numbers), len(x), len(y))
    *_, groups = group_cells(x, y, labels, "observed")
    assert groups.labels == tuple(names)
    for own, number in zip((groups.x, groups.y), numbers, strict=True):
        np.testing.assert_array_equal(own, number)
    np.testing.assert_allclose(groups.proportions, 1 / 1500)
    held = groups.hold_out(0.2, 10_000, np.random.default_rng(0))
    for own, chosen in zip((groups.x, groups.y), held, strict=True):
        np.testing.assert_array_equal(np.bincount(own[chosen], minlength=1500), np.ones(1500))


@pytest.mark.parametrize("kind", [np.asarray, pd.Categorical], ids=["numbers", "categories"])
def test_a_measured_number_is_no_group(kind):
    measured = np.random.default_rng(0).normal(size=3000)
    with pytest.raises(ValueError, match=r"3000 different labels, .* at most 2000 .*pandas.cut") as told:
        check_groups((kind(measured), kind(measured)), (3000, 2), (3000, 2))
    assert len(str(told.value)) < 1000


def test_messages_list_some_of_many_groups():
    x, y, many = normal(0, 1000), normal(1, 1000), [f"rare {k}" for k in range(500)]
    labels = ["a"] * 250 + ["b"] * 250 + many
    fitted = fit(x, y, groups=(labels, labels), **GAUSSIAN)
    assert set(fitted.validation["groups_left_out"]) == set(many)
    with pytest.raises(ValueError, match="no group has 5 cells or more") as refusal:
        check_groups((many * 2, many * 2), (1000, 2), (1000, 2))
    assert len(str(refusal.value)) < 1500


# ---- what maps share


def test_source_labels_are_held_once(monkeypatch):
    """400 targets of a source of 20,000 cells: a copy for each would take 500 MB, and more as strings."""
    given = []
    monkeypatch.setattr(_fit_many, "fit_tasks", lambda tasks, *_: given.extend(tasks) or [])
    x, of_x = normal(0, 20_000), np.array(["monocyte", "B cell"] * 10_000)
    ys, of_y = [normal(1)] * 400, [["monocyte", "B cell"] * 30] * 400
    tracemalloc.start()
    try:
        with pytest.raises(KeyError):  # nothing was fitted
            fit_many(x, ys, groups=(of_x, of_y), **GAUSSIAN)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(given) == 400
    assert peak < 2e7


def test_a_checkpoint_is_found_by_what_the_labels_say(tmp_path, monkeypatch):
    labels = ["a", "b"] * 30
    call = {"x": normal(0), "ys": [normal(1)], "checkpoint_dir": tmp_path, **QUICK}
    (first,) = fit_many(groups=(labels, [labels]), **call)
    with monkeypatch.context() as patch:
        patch.setattr(_maps, "_fit_batch", None)
        (again,) = fit_many(groups=(pd.Categorical(labels), [np.array(labels, dtype=object)]), **call)
    assert torch.equal(first.theta, again.theta)
    (tmp_path / "other.safetensors").write_bytes(b"")
    fit_many(groups=(labels, [["b", "a"] * 30]), **call)
    assert len(list(tmp_path.iterdir())) == 3
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    fit_many(groups=(labels, [labels]), resume=False, **call)
    after = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert before.keys() == after.keys()
    assert sum(before[name] != after[name] for name in before) == 1


# ---- batches


@pytest.mark.parametrize(
    ("sizes", "given", "taken"),
    [
        ((60, None), 50_000, 256),
        ((60, 60), 50_000, 256),
        ((60, 3000), 50_000, 4096),
        ((60, 100_000), 50_000, 50_000),
        ((3000, 3000), 4096, 4096),
        ((60, None), 100, 100),
        ((60, None), None, 128),
        ((20_000, None), None, 512),
    ],
)
def test_a_batch_is_no_larger_than_makes_sense(sizes, given, taken):
    settings = Settings.for_cells(sizes[0], 2, most_cells=sizes[1], batch_size=given, device="cpu", rng=0)
    assert settings.batch_size == taken


def test_a_huge_batch_of_few_cells_is_the_largest_that_makes_sense():
    huge = fit(normal(0), normal(1) * 2, **QUICK | {"batch_size": 10**6})
    assert huge.params["batch_size"] == 256
    assert torch.equal(huge.theta, fit(normal(0), normal(1) * 2, **QUICK | {"batch_size": 256}).theta)


def test_the_default_of_the_published_method_is_as_published():
    assert Settings.for_cells(60, 2, solver="paper", device="cpu", rng=0).batch_size == 256
