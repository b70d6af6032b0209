"""Names to potentials and training methods, with what goes with them."""

from __future__ import annotations

import math

import pytest
import torch

from scot_hycnn.potentials import ICNN, MLP, GroupMax, HyCNN
from scot_hycnn.solver.baselines._enot import ENOT
from scot_hycnn.solver.baselines._minimax import Minimax
from scot_hycnn.solver.baselines._w2gn import W2GN
from scot_hycnn.solver.training._amortized import Amortized
from scot_hycnn.solver.training._cached import Remembered
from scot_hycnn.solver.training._methods import FAMILIES, GAUSSIAN, POTENTIALS, RECIPES, make_method, make_network

HIDDEN = (8, 6)
SHARP = {"temperature": 0.1}
NEAR = {"strong_convexity": 0.9, "output_scale": 0.3}
BALANCED = [name for name in RECIPES if name != "paper"]


@pytest.mark.parametrize("solver", BALANCED)
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("hycnn", HyCNN(3, HIDDEN, **NEAR)),
        ("hycnn-max", HyCNN(3, HIDDEN, gate="max", **NEAR)),
        ("hycnn-fixed", HyCNN(3, HIDDEN, annealing="fixed", **SHARP, **NEAR)),
        ("hycnn-cyclic", HyCNN(3, HIDDEN, annealing="cyclic", **NEAR)),
        ("groupmax", GroupMax(3, HIDDEN, **NEAR)),
        ("icnn", ICNN(3, HIDDEN, **SHARP, **NEAR)),
        ("icnn-relu", ICNN(3, HIDDEN, activation="relu", **NEAR)),
        ("icnn-leaky-relu", ICNN(3, HIDDEN, activation="leaky_relu", **NEAR)),
        ("icnn-soft", ICNN(3, HIDDEN, constraint="soft", **SHARP, **NEAR)),
        ("icnn-quadratic", ICNN(3, HIDDEN, quadratic_skip=True, **SHARP, **(NEAR | {"output_scale": 0.05}))),
        ("mlp", MLP(3, HIDDEN, **SHARP, **NEAR)),
    ],
)
def test_names_are_these_potentials(name, expected, solver):
    assert make_network(name, solver, 3, HIDDEN) == expected


def test_every_name_is_tested_above():
    (names,) = [
        mark.args[1] for mark in test_names_are_these_potentials.pytestmark if mark.args[0] == ("name", "expected")
    ]
    assert {name for name, _ in names} == set(FAMILIES)
    assert set(POTENTIALS) == set(FAMILIES) | {GAUSSIAN}


@pytest.mark.parametrize("name", FAMILIES)
def test_in_balanced_coordinates_training_starts_close_to_the_gaussian_map(name):
    network = make_network(name, "amortized", 5, (48, 48, 48, 48))
    x = torch.randn(2, 300, 5, generator=torch.Generator().manual_seed(1))
    moved = network.gradient(network.weights(network.init(2, torch.Generator().manual_seed(0))), x)
    # Up to a translation.
    off = moved - x
    assert (off - off.mean(1, keepdim=True)).square().mean() < x.square().mean() / 5


@pytest.mark.parametrize("name", FAMILIES)
def test_the_papers_preset_starts_as_published(name):
    network = make_network(name, "paper", 3, HIDDEN)
    assert (network.strong_convexity, network.output_scale) == (0, 1)
    assert type(network) is FAMILIES[name][0]


def test_the_papers_hycnn_has_a_fixed_temperature_of_one_and_no_quadratic_skip():
    assert make_network("hycnn", "paper", 3, HIDDEN) == HyCNN(
        3,
        HIDDEN,
        annealing="fixed",
        temperature=1.0,
        gate="smooth",
        quadratic_skip=False,
        strong_convexity=0.0,
        output_scale=1.0,
    )


@pytest.mark.parametrize("solver", RECIPES)
def test_a_potential_of_the_users_stays_as_it_is(solver):
    own = ICNN(3, (5,), activation="relu", strong_convexity=0.3)
    assert make_network(own, solver, 3, (5,)) is own


@pytest.mark.parametrize("solver", RECIPES)
def test_the_gaussian_map_has_a_network_that_can_be_stored(solver):
    network = make_network(GAUSSIAN, solver, 3, HIDDEN)
    assert network == make_network("hycnn", "amortized", 3, HIDDEN)


@pytest.mark.parametrize(
    ("solver", "method"), [("amortized", Amortized), ("minimax", Minimax), ("w2gn", W2GN), ("enot", ENOT)]
)
def test_names_are_these_methods(solver, method):
    assert make_method(solver, None, None) == method()
    assert make_method(solver, 0.5, 2.0) == method(lr=0.5, weight_decay=2.0)
    assert make_method(solver, 0.5, 2.0, conjugates="predicted") == method(lr=0.5, weight_decay=2.0)
    assert RECIPES[solver].balanced
    assert not RECIPES[solver].options


def test_one_method_can_remember_conjugates():
    assert make_method("amortized", 0.5, 2.0, conjugates="remembered") == Remembered(lr=0.5, weight_decay=2.0)
    assert [name for name, recipe in RECIPES.items() if recipe.remembering] == ["amortized"]


def test_the_papers_method_is_its_minimax():
    """arXiv:2604.26942, app. D.3, d >= 10."""
    method = make_method("paper", None, None)
    assert isinstance(method, Minimax)
    assert (method.lr, method.betas, method.n_inner) == (1e-2, (0.5, 0.9), 5)
    assert (method.weight_decay, method.max_norm, method.averaging) == (0.0, math.inf, 0.0)
    assert method.double_backward
    assert not RECIPES["paper"].balanced
    expected = {"max_steps": 1000, "n_ensemble": 1, "batch_size": 256, "hidden": (48, 48, 48, 48)}
    assert RECIPES["paper"].options == expected


def test_the_papers_rate_falls_by_cosine_from_a_hundredth_without_warm_up():
    rates = [make_method("paper", None, None).rate(step, 1000) for step in range(1001)]
    expected = [1e-4 + (1e-2 - 1e-4) * (1 + math.cos(math.pi * step / 1000)) / 2 for step in range(1001)]
    assert rates == pytest.approx(expected, rel=1e-9)
    assert rates[0] == pytest.approx(1e-2)
    assert rates[1000] == pytest.approx(1e-4)


def test_what_the_user_sets_of_the_papers_method_is_taken_and_the_rest_stays():
    method = make_method("paper", 0.5, 2.0)
    assert (method.lr, method.weight_decay, method.warm_up, method.averaging) == (0.5, 2.0, 1, 0.0)
    assert make_method("paper", None, None).lr == 1e-2  # the recipe itself is not touched
