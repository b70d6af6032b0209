"""Temperatures: the paper's cycles, and what of a temperature training may move."""

from __future__ import annotations

import itertools

import pytest
import torch

from scot_hycnn.potentials import ICNN, MLP, GroupMax, HyCNN
from scot_hycnn.potentials._parameters import unpack
from scot_hycnn.potentials._temperature import N_CYCLES, cyclic

# The paper's: 25 cycles of 100 steps.
STEPS = 2500
FAMILIES = [HyCNN, GroupMax]


def taus(f, theta):
    """Temperatures by layer, shape (K, 1, L)."""
    return torch.nn.functional.softplus(unpack(theta, f.shapes)["tau"])


# ---- the schedule


def test_it_starts_at_one():
    assert cyclic(0, STEPS) == 1


@pytest.mark.parametrize("cycle", [0, 1, 7, 24])
def test_each_cycle_starts_at_four_fifths_of_the_last_ones_start(cycle):
    assert cyclic(100 * cycle, STEPS) == pytest.approx(0.8**cycle, rel=1e-9)


@pytest.mark.parametrize("cycle", [0, 1, 7, 24])
def test_a_tenth_is_reached_at_seventy_percent_of_a_cycle_and_kept(cycle):
    start = cyclic(100 * cycle, STEPS)
    assert cyclic(100 * cycle + 69, STEPS) > 0.1 * start * 1.001
    for within in (70, 71, 85, 99):
        assert cyclic(100 * cycle + within, STEPS) == pytest.approx(0.1 * start, rel=1e-9)


def test_it_falls_by_a_half_cosine():
    assert cyclic(35, STEPS) == pytest.approx(0.55)
    quarter = 1 - 0.9 * (1 - 2**-0.5) / 2  # cos(pi/4)
    assert cyclic(70, 4 * STEPS) == pytest.approx(quarter)


def test_there_are_twenty_five_cycles_however_many_steps():
    assert N_CYCLES == 25
    for max_steps in (25, 100, 1000, 2500, 4000):
        factors = [cyclic(step, max_steps) for step in range(max_steps)]
        jumps = sum(later > earlier for earlier, later in itertools.pairwise(factors))
        # With a step a cycle there is the start of each alone.
        assert jumps == (24 if max_steps > 25 else 0)
        assert all(0 < factor <= 1 for factor in factors)
        assert min(factors) >= 0.1 * 0.8**24 * (1 - 1e-9)


@pytest.mark.parametrize("max_steps", [1, 3, 24])
def test_fits_of_fewer_steps_than_cycles_have_a_temperature(max_steps):
    factors = [cyclic(step, max_steps) for step in range(max_steps)]
    assert factors[0] == 1
    assert all(0 < factor <= 1 for factor in factors)


# ---- what it sets


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("start", [1.0, 0.3, 10.0])
def test_cycles_set_the_temperature_in_place_and_nothing_else(family, start):
    f = family(n_dims=2, hidden=(5, 4, 3), annealing="cyclic", temperature=start)
    theta = f.init(2, torch.Generator().manual_seed(0)).requires_grad_()
    address, before = (
        theta.data_ptr(),
        {name: value.clone() for name, value in unpack(theta.detach(), f.shapes).items()},
    )
    for step in (0, 50, 70, 130, 2499):
        f.at_step(theta, step, STEPS)
        torch.testing.assert_close(
            taus(f, theta), torch.full((2, 1, 3), start * cyclic(step, STEPS)), rtol=1e-4, atol=0
        )
    assert theta.data_ptr() == address
    assert theta.is_leaf
    assert theta.requires_grad
    for name, value in unpack(theta.detach(), f.shapes).items():
        assert torch.equal(value, before[name]) == (name != "tau"), name


@pytest.mark.parametrize(
    "f",
    [
        *(
            family(n_dims=2, hidden=(5, 4), annealing=annealing)
            for family in FAMILIES
            for annealing in ("learned", "fixed")
        ),
        *(family(n_dims=2, hidden=(5, 4), gate="max", annealing="cyclic") for family in FAMILIES),
        ICNN(n_dims=2, hidden=(5, 4)),
        MLP(n_dims=2, hidden=(5, 4)),
    ],
    ids=str,
)
def test_no_others_have_anything_set(f):
    theta = f.init(2, torch.Generator().manual_seed(0))
    before = theta.clone()
    f.at_step(theta, 70, STEPS)
    assert torch.equal(theta, before)


# ---- what training moves


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("annealing", "moved"), [("learned", True), ("fixed", False), ("cyclic", False)])
def test_only_a_learned_temperature_gets_a_gradient(family, annealing, moved):
    f = family(n_dims=2, hidden=(5, 4, 3), annealing=annealing)
    theta = f.init(2, torch.Generator().manual_seed(0)).requires_grad_()
    weights, x = f.weights(theta), torch.ones(2, 10, 2)
    loss = f.value(weights, x).square().sum() + f.gradient(weights, x).square().sum()
    (grad,) = torch.autograd.grad(loss, theta)
    slopes = unpack(grad, f.shapes)
    assert (slopes["tau"] != 0).all() == moved
    assert (slopes["tau"] != 0).any() == moved
    assert all(slopes[name].any() for name in slopes if name != "tau")


@pytest.mark.parametrize("family", FAMILIES)
def test_what_becomes_of_a_temperature_does_not_change_the_function(family):
    learned, *others = (
        family(n_dims=2, hidden=(5, 4), annealing=a, temperature=0.4) for a in ("learned", "fixed", "cyclic")
    )
    theta = learned.init(2, torch.Generator().manual_seed(0))
    x = torch.randn(2, 10, 2, generator=torch.Generator().manual_seed(1))
    for f in others:
        assert torch.equal(f.init(2, torch.Generator().manual_seed(0)), theta)
        assert torch.equal(f.value(f.weights(theta), x), learned.value(learned.weights(theta), x))
        assert torch.equal(f.gradient(f.weights(theta), x), learned.gradient(learned.weights(theta), x))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_max_gate_has_no_temperature(family):
    assert "tau" not in family(n_dims=2, hidden=(5, 4), gate="max").shapes


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("free", [-20.0, -50.0, -105.0, -1e4])
def test_a_temperature_that_training_drives_to_zero_leaves_the_sharp_maximum(family, free):
    """From -105 on its softplus is 0 in float32, and from -50 on the slopes are infinite, but for the floor."""
    f, sharp = (family(n_dims=3, hidden=(5, 4), gate=gate) for gate in ("smooth", "max"))
    theta = f.init(2, torch.Generator().manual_seed(0))
    named = unpack(theta, f.shapes)
    named["tau"].fill_(free)
    of_sharp = sharp.weights(torch.cat([value.flatten(1) for name, value in named.items() if name != "tau"], dim=1))
    x = torch.randn(2, 20, 3, generator=torch.Generator().manual_seed(1))
    weights = f.weights(theta.requires_grad_())
    value, gradient = f.value(weights, x), f.gradient(weights, x)
    torch.testing.assert_close(value, sharp.value(of_sharp, x), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(gradient, sharp.gradient(of_sharp, x), rtol=1e-4, atol=1e-4)
    (slopes,) = torch.autograd.grad(value.sum() + gradient.square().sum(), theta)
    assert slopes.isfinite().all()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_temperature_starts_where_it_is_told(family):
    f = family(n_dims=3, hidden=(5, 4), temperature=0.3)
    torch.testing.assert_close(taus(f, f.init(2, torch.Generator().manual_seed(0))), torch.full((2, 1, 2), 0.3))
