"""Options of a fit, each checked before anything is computed."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest

from scot_hycnn.potentials import ICNN
from scot_hycnn.solver._options import Settings

GOOD = {
    "potential": "hycnn",
    "solver": "amortized",
    "hidden": (8, 8),
    "max_steps": 10,
    "batch_size": 32,
    "lr": 0.01,
    "weight_decay": 0.0,
    "n_ensemble": 2,
    "validation_fraction": 0.1,
    "group_weights": "sqrt",
    "leave_out": "cells",
    "conjugates": "predicted",
    "compilation": "auto",
    "device": "cpu",
    "rng": 0,
}


def for_cells(n_cells, n_dims, **options):
    return Settings.for_cells(n_cells, n_dims, **(GOOD | options))


def test_good_options_pass():
    assert Settings(**GOOD).hidden == (8, 8)


CHOICES = {
    "potential": [
        *("hycnn", "hycnn-max", "hycnn-fixed", "hycnn-cyclic", "groupmax"),
        *("icnn", "icnn-relu", "icnn-leaky-relu", "icnn-soft", "icnn-quadratic", "mlp", "gaussian"),
    ],
    "solver": ["amortized", "minimax", "w2gn", "enot", "paper"],
    "group_weights": ["sqrt", "equal", "observed"],
    "leave_out": ["cells", "groups"],
    "compilation": ["auto", "always", "never"],
}


@pytest.mark.parametrize("name", CHOICES)
@pytest.mark.parametrize("value", ["cnn", "HyCNN", "", None, 3])
def test_an_unknown_name_lists_the_choices(name, value):
    sentence = f"{name}={value!r} is unknown; choose one of {CHOICES[name]}."
    for make in (lambda: Settings(**(GOOD | {name: value})), lambda: for_cells(100, 2, **{name: value})):
        with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
            make()


@pytest.mark.parametrize("name", CHOICES)
def test_every_choice_is_one(name):
    for value in CHOICES[name]:
        assert getattr(Settings(**(GOOD | {name: value})), name) == value


@pytest.mark.parametrize("name", ["max_steps", "batch_size", "n_ensemble"])
@pytest.mark.parametrize("value", [0, -1, 1.5, "10", True, None, math.nan])
def test_counts_are_whole_numbers_of_one_or_more(name, value):
    with pytest.raises(ValueError, match=rf"{name}={value!r} must be a whole number of 1 or more"):
        Settings(**(GOOD | {name: value}))


@pytest.mark.parametrize("value", [(), (0,), (8, -1), (8, 2.5), ("8",), (True,), 48])
def test_hidden_is_widths(value):
    with pytest.raises(ValueError, match=r"hidden=.* must be one or more widths"):
        Settings(**(GOOD | {"hidden": value}))


@pytest.mark.parametrize(
    "options",
    [{"lr": value} for value in (0.0, -1, math.nan, math.inf, 1e39, "a", None)]
    + [{"weight_decay": value} for value in (-0.1, math.nan, math.inf, "a", None)],
)
def test_rates_are_positive_and_finite(options):
    with pytest.raises(ValueError, match=r"lr=.* must be a positive number|weight_decay=.* must be a number, not neg"):
        Settings(**(GOOD | options))


def test_numbers_of_numpy_become_plain():
    settings = Settings(**(GOOD | {"hidden": np.array([8, 8]), "max_steps": np.int64(5), "lr": np.float32(0.5)}))
    assert settings.hidden == (8, 8)
    assert [type(value) for value in (*settings.hidden, settings.max_steps, settings.lr)] == [int, int, int, float]


@pytest.mark.parametrize("value", [0, -0.1, 0.51, 1, math.nan])
def test_the_validation_fraction_lies_between_zero_and_a_half(value):
    with pytest.raises(ValueError, match=rf"validation_fraction={value!r} must lie in \(0, 0.5\]"):
        Settings(**(GOOD | {"validation_fraction": value}))


@pytest.mark.parametrize("value", [-1, 0.5, "0", None, True])
def test_the_seed_is_a_whole_number(value):
    with pytest.raises(ValueError, match=rf"rng={value!r} must be a whole number of 0 or more, the seed"):
        Settings(**(GOOD | {"rng": value}))


@pytest.mark.parametrize(("n_cells", "max_steps"), [(20, 600), (1800, 600), (5000, 990), (20_000, 1200), (10**7, 1200)])
@pytest.mark.parametrize("n_dims", [1, 50])
def test_more_cells_are_trained_on_for_longer(n_cells, n_dims, max_steps):
    settings = for_cells(n_cells, n_dims, n_ensemble=None, max_steps=None)
    assert (settings.n_ensemble, settings.max_steps) == (4, pytest.approx(max_steps, abs=15))


@pytest.mark.parametrize(
    ("n_cells", "batch_size"), [(20, 128), (1000, 128), (1001, 256), (9999, 256), (10_000, 512), (10**7, 512)]
)
def test_many_cells_are_taken_in_larger_batches(n_cells, batch_size):
    assert for_cells(n_cells, 5, batch_size=None).batch_size == batch_size


@pytest.mark.parametrize(("n_cells", "hidden"), [(20, (32,) * 3), (1000, (32,) * 3), (1001, (48,) * 4)])
def test_few_cells_have_smaller_networks(n_cells, hidden):
    assert for_cells(n_cells, 5, hidden=None).hidden == hidden
    assert for_cells(n_cells, 5, hidden=(7,)).hidden == (7,)
    assert for_cells(n_cells, 5, hidden=None, solver="paper").hidden == (48,) * 4


@pytest.mark.parametrize(
    ("n_cells", "n_targets", "conjugates"),
    [
        (20, None, "remembered"),
        (1000, None, "remembered"),
        (1001, None, "predicted"),
        (500, 1000, "remembered"),
        (500, 1001, "predicted"),  # the source has few cells, the target many
    ],
)
def test_conjugates_of_few_target_cells_are_remembered(n_cells, n_targets, conjugates):
    options = {"conjugates": None, "n_targets": n_targets}
    assert for_cells(n_cells, 5, **options).conjugates == conjugates
    for solver in ("minimax", "w2gn", "enot", "paper"):
        assert for_cells(n_cells, 5, solver=solver, **options).conjugates == "predicted"
    for said in ("predicted", "remembered"):
        assert for_cells(n_cells, 5, n_targets=n_targets, conjugates=said).conjugates == said


@pytest.mark.parametrize("value", ["none", "Predicted", "", 3])
def test_conjugates_have_two_names(value):
    sentence = f"conjugates={value!r} is unknown; choose one of ['predicted', 'remembered']."
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        for_cells(100, 2, conjugates=value)


@pytest.mark.parametrize("solver", ["minimax", "w2gn", "enot", "paper"])
def test_conjugates_of_other_methods_cannot_be_remembered(solver):
    sentence = f"conjugates='remembered' goes with the solvers ['amortized'], not with {solver!r}; leave it out."
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        for_cells(100, 2, solver=solver, conjugates="remembered")


def test_what_the_user_says_stays():
    assert for_cells(100, 1, n_ensemble=3, max_steps=7).max_steps == 7
    assert for_cells(100, 1, n_ensemble=1, max_steps=None).max_steps == 600
    assert for_cells(20, 10, n_ensemble=None, max_steps=7).n_ensemble == 4
    with pytest.raises(ValueError, match="n_ensemble=0 must be a whole number"):
        for_cells(100, 1, n_ensemble=0, max_steps=None)


def test_the_papers_preset_brings_its_own_steps_and_rates():
    preset = Settings.for_cells(20_000, 16, solver="paper", validation_fraction=0.1, device="cpu", rng=0)
    assert (preset.max_steps, preset.n_ensemble, preset.batch_size) == (1000, 1, 256)
    assert (preset.lr, preset.weight_decay) == (1e-2, 0.0)
    assert preset.hidden == (48, 48, 48, 48)


def test_a_training_method_has_its_own_rates():
    """None takes the method's, and a number stays."""
    usual = for_cells(100, 2, solver="minimax", lr=None, weight_decay=None)
    paper = for_cells(100, 2, solver="paper", lr=None, weight_decay=None)
    assert (usual.lr, usual.weight_decay) == (0.02, 1.0)
    assert (paper.lr, paper.weight_decay) == (0.01, 0.0)
    assert for_cells(100, 2, solver="paper", lr=0.5, weight_decay=2.0).lr == 0.5
    assert for_cells(100, 2, solver="paper", lr=0.5, weight_decay=2.0).weight_decay == 2


# ---- a potential of the user's


OWN = ICNN(n_dims=3, hidden=(7, 5), activation="relu")


def test_a_potential_brings_its_widths():
    settings = for_cells(100, 3, potential=OWN, hidden=None)
    assert settings.potential is OWN
    assert settings.hidden == (7, 5)


def test_a_potential_of_other_dimensions_is_an_error():
    with pytest.raises(ValueError, match=r"^potential has n_dims=3, and the cells have 2 dimensions\.$"):
        for_cells(100, 2, potential=OWN, hidden=None)


@pytest.mark.parametrize("hidden", [(7, 5), [8], ()])
def test_widths_beside_a_potential_are_an_error(hidden):
    sentence = f"hidden={hidden!r} goes with a potential's name; {OWN} has its own. Leave hidden out."
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        for_cells(100, 3, potential=OWN, hidden=hidden)


@pytest.mark.parametrize("potential", ["hycnn", OWN])
def test_the_report_is_every_option_as_plain_numbers_and_strings(potential):
    settings = for_cells(100, 3, potential=potential, hidden=None)
    report = settings.report()
    assert set(report) == set(settings.options()) == set(GOOD)
    assert report["potential"] == str(potential)
    assert settings.options()["potential"] == potential
    assert json.loads(json.dumps(report)) == report | {"hidden": list(settings.hidden)}
