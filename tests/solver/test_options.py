"""Training options: their checks, their defaults, and what is reported of them."""

from __future__ import annotations

import json
import math
from typing import get_type_hints

import numpy as np
import pytest

from scot_hycnn.potentials import ICNN, HyCNN
from scot_hycnn.solver import Settings, TrainingOptions, fit, fit_many

OWN = ICNN(n_dims=3, hidden=(7, 5), activation="relu")


def settings_for(n_source=100, n_target=None, n_dims=3, **options):
    n_target = n_source if n_target is None else n_target
    return Settings.for_cells(n_source, n_target, n_dims, **{"device": "cpu", "rng": 0} | options)


CHOICES = {
    "potential": [
        *("hycnn", "hycnn-max", "hycnn-fixed", "hycnn-cyclic", "groupmax"),
        *("icnn", "icnn-relu", "icnn-leaky-relu", "icnn-soft", "icnn-quadratic", "mlp", "gaussian"),
    ],
    "solver": ["amortized", "minimax", "w2gn", "enot", "paper"],
    "group_weights": ["sqrt", "equal", "observed"],
    "leave_out": ["cells", "groups"],
    "conjugates": ["amortized", "cached"],
    "cuda_graph": ["auto", "never"],
}


def test_an_unknown_name_lists_the_choices():
    for name, choices in CHOICES.items():
        for value in choices:
            assert getattr(settings_for(**{name: value}), name) == value
        for wrong in ("cnn", "", 3, *(() if name == "conjugates" else (None,))):
            with pytest.raises(ValueError, match=f"{name}={wrong!r}") as error:
                settings_for(**{name: wrong})
            assert str(choices) in str(error.value)


WRONG = {
    "max_steps": [0, -1, 1.5, "10", True, math.nan],
    "batch_size": [0, 0.5],
    "n_ensemble": [0, -1],
    "rng": [-1, 0.5, "0", None, True],
    "hidden": [(), (0,), (8, -1), (8, 2.5), ("8",), (True,), 48],
    "lr": [0.0, -1, math.nan, math.inf, 1e39, "a"],
    "weight_decay": [-0.1, math.nan, math.inf, "a"],
    "validation_fraction": [0, -0.1, 0.51, 1, math.nan, None],
}


def test_a_number_out_of_range_is_named():
    for name, values in WRONG.items():
        for value in values:
            with pytest.raises(ValueError, match=name) as error:
                settings_for(**{name: value})
            assert f"{name}={value!r}" in str(error.value)


def test_fit_checks_options_before_any_work():
    x = np.zeros((30, 2))
    for options in ({"max_steps": 0}, {"potential": "cnn"}, {"device": "abacus"}):
        with pytest.raises(ValueError, match=next(iter(options))):
            fit(x, x, **options)
    # Without any cells.
    for name, values in WRONG.items():
        for call in (fit, lambda x, y, **options: fit_many(x, [y], **options)):
            with pytest.raises(ValueError, match=f"{name}="):
                call(None, None, **{name: values[0]})


def test_an_unknown_option_names_the_nearest_one():
    x = np.zeros((30, 2))
    for given, meant in {"n_stepz": "max_steps", "batchsize": "batch_size", "learning_rate": None}.items():
        for call in (fit, lambda x, y, **options: fit_many(x, [y], **options)):
            with pytest.raises(TypeError, match=f"'{given}'") as error:
                call(x, x, **{given: 3})
            assert "'validation_fraction'" in str(error.value)  # all are listed
            assert meant is None or f"'{meant}'?" in str(error.value)


def test_a_keyword_of_fit_many_that_is_misspelt_is_named_too():
    with pytest.raises(TypeError, match="'checkpoint_dir'"):
        fit_many(np.zeros((30, 2)), [np.zeros((30, 2))], checkpointdir=None)


@pytest.mark.parametrize(
    ("n_source", "n_target", "expected"),
    [
        (20, 20, (250, 128, (32,) * 3, "cached")),
        (1000, 1000, (250, 128, (32,) * 3, "cached")),
        (1001, 1001, (250, 256, (48,) * 3, "cached")),
        (500, 1001, (250, 128, (32,) * 3, "cached")),
        (5000, 5000, (450, 256, (48,) * 3, "cached")),
        (10_000, 20_000, (650, 512, (48,) * 3, "cached")),
        (50_000, 50_000, (650, 512, (48,) * 3, "cached")),
        (100_000, 100_000, (650, 512, (48,) * 3, "amortized")),
        (5000, 200_000, (450, 256, (48,) * 3, "amortized")),
        (10**7, 10**7, (650, 512, (48,) * 3, "amortized")),
    ],
)
def test_defaults_suit_the_number_of_cells(n_source, n_target, expected):
    settings = settings_for(n_source, n_target)
    assert (settings.max_steps, settings.batch_size, settings.hidden, settings.conjugates) == expected
    assert settings.n_ensemble == 4


@pytest.mark.parametrize(("n_cells", "n_dims", "expected"), [(1000, 30, 1), (9000, 30, 1), (20_000, 16, 1 / 4)])
def test_weight_decay_is_weaker_where_cells_are_many_for_their_dimensions(n_cells, n_dims, expected):
    assert Settings.for_cells(n_cells, n_cells, n_dims, device="cpu", rng=0).weight_decay == expected


def test_options_of_the_user_stay():
    options = {"hidden": (7,), "n_ensemble": 3, "max_steps": 7, "batch_size": 9, "lr": 0.5, "weight_decay": 2.0}
    for solver in ("amortized", "paper"):
        settings = settings_for(solver=solver, **options)
        assert {name: getattr(settings, name) for name in options} == options
    assert settings_for(conjugates="amortized").conjugates == "amortized"


@pytest.mark.parametrize(
    ("solver", "lr", "weight_decay"),
    [("amortized", 0.04, 1.0), ("minimax", 0.04, 1.0), ("w2gn", 0.04, 1.0), ("enot", 0.005, 0.0), ("paper", 0.01, 0.0)],
)
def test_a_solver_has_its_rates_and_only_the_default_one_a_cache(solver, lr, weight_decay):
    settings = settings_for(solver=solver)
    assert (settings.lr, settings.weight_decay) == (lr, weight_decay)
    if solver != "amortized":
        assert settings.conjugates == "amortized"
        with pytest.raises(ValueError, match=rf"'cached'.*\['amortized'\].*{solver}"):
            settings_for(solver=solver, conjugates="cached")


def test_the_solver_of_the_paper_has_its_defaults_and_no_fallback():
    settings = settings_for(20_000, solver="paper")
    assert (settings.max_steps, settings.n_ensemble, settings.batch_size) == (1000, 1, 256)
    assert settings.hidden == (48, 48, 48, 48)
    assert (settings.balanced, settings_for().balanced) == (False, True)
    with pytest.raises(ValueError, match="leave_out='groups'"):
        settings_for(solver="paper", leave_out="groups")


@pytest.mark.parametrize(
    ("sizes", "given", "taken"),
    [
        ((60, 60), 50_000, 256),
        ((60, 3000), 50_000, 4096),
        ((60, 100_000), 50_000, 50_000),
        ((3000, 3000), 4096, 4096),
        ((60, 60), 100, 100),
    ],
)
def test_a_batch_does_not_repeat_the_same_cells_again_and_again(sizes, given, taken):
    assert settings_for(*sizes, batch_size=given).batch_size == taken


def test_a_potential_brings_its_widths_and_needs_the_dimension_of_the_cells():
    assert settings_for(potential=OWN).hidden == (7, 5)
    with pytest.raises(ValueError, match=r"n_dims=3.* 2 dimensions"):
        settings_for(n_dims=2, potential=OWN)
    for hidden in ((7, 5), [8], ()):
        with pytest.raises(ValueError, match="hidden"):
            settings_for(potential=OWN, hidden=hidden)
    for thing in (HyCNN, object()):
        with pytest.raises(ValueError, match="potential="):
            settings_for(potential=thing)


@pytest.mark.parametrize("potential", ["hycnn", OWN])
def test_the_report_is_every_option_as_plain_numbers_and_strings(potential):
    settings = settings_for(potential=potential, max_steps=np.int64(5), lr=np.float32(0.5))
    report = settings.report()
    assert set(report) == set(TrainingOptions.__annotations__) | {"device", "rng"}
    assert report["potential"] == str(potential)
    assert settings.potential == potential
    assert json.loads(json.dumps(report)) == report | {"hidden": list(settings.hidden)}


def test_every_option_has_a_line_of_help():
    for hint in get_type_hints(TrainingOptions, include_extras=True).values():
        (text,) = hint.__metadata__
        assert text.endswith(".")
