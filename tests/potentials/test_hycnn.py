"""Maxout networks: the smooth gate, temperatures, the paper's initialisation, and the theory's construction of x^2."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from scot_hycnn.potentials import Combination, GroupMax, HyCNN

softplus = torch.nn.functional.softplus
X = torch.randn(2, 20, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
families = pytest.mark.parametrize("family", [HyCNN, GroupMax])


def by_name(f, theta):
    pieces = theta.split([math.prod(shape) for shape in f.shapes.values()], dim=1)
    return {name: piece.view(-1, *shape) for piece, (name, shape) in zip(pieces, f.shapes.items(), strict=True)}


def start(f, n_maps=1):
    return f.init(n_maps, torch.Generator().manual_seed(0))


def joined(values):
    return torch.cat([value.flatten(1) for value in values], dim=1)


# ---- the gate


def gate_of(a, b):
    """Return the smooth maximum of a and b, shape (n,), with its slope in a: one unit whose branches are x_0 and x_1.

    The quadratic, the skips and the temperature are out of the way: f(x) = log(e^a + e^b).
    """
    f = GroupMax(2, (1,), strong_convexity=0.0, annealing="fixed")
    theta = start(f).double()
    named = by_name(f, theta)
    named["W0"].copy_(torch.eye(2)[None])
    named["b0"].zero_()
    named["v"].fill_(math.log(math.expm1(1)))
    x = torch.stack([a, b], dim=-1)[None].double()
    weights = f.weights(theta)
    return f.value(weights, x)[0], f.gradient(weights, x)[0]


def test_the_gate_is_logaddexp_with_the_sigmoid_as_slope_also_at_extreme_differences():
    a = torch.tensor([0.3, -2.0, 1e4, -1e4, 0.0, 1e4, -1e4, 80.0, -80.0])
    b = torch.tensor([0.1, 5.0, -1e4, 1e4, 1e4, 1e4, -1e4, 0.0, 0.0])
    z, slopes = gate_of(a, b)
    # The temperature is a softplus that float32 draws: it is 1 up to 1e-7.
    torch.testing.assert_close(z, torch.logaddexp(a.double(), b.double()), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(slopes[:, 0], torch.sigmoid(a - b).double(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(slopes.sum(1), torch.ones(len(a)).double(), rtol=1e-6, atol=1e-6)


def test_derivatives_stay_finite_where_one_branch_is_far_ahead():
    f = HyCNN(3, (5, 4))
    theta = start(f).requires_grad_()
    x = 1e4 * X[:1].float()
    weights = f.weights(theta)
    (slopes,) = torch.autograd.grad(f.value(weights, x).sum() + f.gradient(weights, x).sum(), theta)
    assert slopes.isfinite().all()


@pytest.mark.parametrize("gate", ["smooth", "max"])
@pytest.mark.parametrize("skip", [True, False])
def test_groupmax_is_a_hycnn_whose_input_skips_are_zero(gate, skip):
    options = {"n_dims": 3, "hidden": (5, 4, 3), "gate": gate, "quadratic_skip": skip}
    hycnn, groupmax = HyCNN(**options), GroupMax(**options)
    named = by_name(hycnn, start(hycnn, 2).double())
    skips = set(hycnn.shapes) - set(groupmax.shapes)
    assert skips == {"W1", "W2", "w"}
    for name in skips:
        named[name].zero_()
    of_hycnn = hycnn.weights(joined(named[name] for name in hycnn.shapes))
    of_groupmax = groupmax.weights(joined(named[name] for name in groupmax.shapes))
    torch.testing.assert_close(groupmax.value(of_groupmax, X), hycnn.value(of_hycnn, X))
    torch.testing.assert_close(groupmax.gradient(of_groupmax, X), hycnn.gradient(of_hycnn, X))


def test_the_quadratic_skip_is_the_default_of_a_hycnn_alone():
    assert HyCNN(n_dims=2).quadratic_skip
    assert not GroupMax(n_dims=2).quadratic_skip


# ---- temperatures


@families
@pytest.mark.parametrize("free", [-7.0, -20.0, -105.0, -1e4])
def test_a_temperature_that_training_drives_to_zero_leaves_the_sharp_maximum(family, free):
    """From -105 on its softplus is 0 in float32, and from -50 on slopes would be infinite, but for the floor."""
    f, sharp = (family(n_dims=3, hidden=(5, 4), gate=gate) for gate in ("smooth", "max"))
    theta = start(f, 2)
    named = by_name(f, theta)
    named["tau"].fill_(free)
    of_sharp = sharp.weights(joined(value for name, value in named.items() if name != "tau"))
    weights, x = f.weights(theta.requires_grad_()), X.float()
    value, gradient = f.value(weights, x), f.gradient(weights, x)
    torch.testing.assert_close(value, sharp.value(of_sharp, x), rtol=1e-2, atol=1e-2 if free == -7 else 1e-4)
    if free < -7:
        torch.testing.assert_close(gradient, sharp.gradient(of_sharp, x), rtol=1e-4, atol=1e-4)
    (slopes,) = torch.autograd.grad(value.sum() + gradient.square().sum(), theta)
    assert slopes.isfinite().all()


@families
@pytest.mark.parametrize(("annealing", "moved"), [("learned", True), ("fixed", False), ("cyclic", False)])
def test_only_a_learned_temperature_gets_a_gradient_and_none_changes_the_function(family, annealing, moved):
    f, learned = (family(2, (5, 4, 3), annealing=option, temperature=0.3) for option in (annealing, "learned"))
    theta, x = start(f, 2).requires_grad_(), torch.ones(2, 10, 2)
    torch.testing.assert_close(softplus(by_name(f, theta)["tau"]), torch.full((2, 1, 3), 0.3))
    weights = f.weights(theta)
    loss = f.value(weights, x).square().sum() + f.gradient(weights, x).square().sum()
    slopes = by_name(f, torch.autograd.grad(loss, theta)[0])
    assert (slopes["tau"] != 0).all() == (slopes["tau"] != 0).any() == moved
    assert all(slopes[name].any() for name in slopes if name != "tau")
    assert torch.equal(start(learned, 2), theta)
    assert torch.equal(learned.value(learned.weights(theta), x), f.value(weights, x))


def factor(step, max_steps, start_at=1.0):
    """Return the cyclic temperature at a step, in units of the starting one; nothing else may change."""
    f = HyCNN(2, (5, 4), annealing="cyclic", temperature=start_at)
    theta = start(f, 2).requires_grad_()
    before, address = theta.detach().clone(), theta.data_ptr()
    f.at_step(theta, step, max_steps)
    assert (theta.data_ptr(), theta.is_leaf, theta.requires_grad) == (address, True, True)
    for name, value in by_name(f, theta.detach()).items():
        assert name == "tau" or torch.equal(value, by_name(f, before)[name])
    (tau,) = softplus(by_name(f, theta.detach())["tau"]).unique().tolist()
    return tau / start_at


@pytest.mark.parametrize("temperature", [0.3, 10.0])
def test_a_cycle_falls_by_a_half_cosine_to_a_tenth_at_seventy_percent(temperature):
    """The paper's cycles: 25 of 100 steps, and each starts at 0.8 times the start of the one before."""
    for cycle in (0, 1, 7, 24):
        height = 0.8**cycle
        for within, share in ((0, 1), (35, 0.55), (69, None), (70, 0.1), (99, 0.1)):
            found = factor(100 * cycle + within, 2500, temperature) / height
            assert found > 0.1001 if share is None else found == pytest.approx(share, rel=1e-4)
    quarter = 1 - 0.9 * (1 - 2**-0.5) / 2  # cos(pi/4)
    assert factor(70, 10_000) == pytest.approx(quarter, rel=1e-4)


@pytest.mark.parametrize("max_steps", [1, 24, 26, 400])
def test_there_are_at_most_25_cycles_however_many_steps(max_steps):
    factors = [factor(step, max_steps) for step in range(max_steps)]
    assert factors[0] == pytest.approx(1, rel=1e-6)
    assert 0 < min(factors) <= max(factors) <= 1.000001
    if max_steps == 400:
        assert int((np.diff(factors) > 1e-6).sum()) == 24


@pytest.mark.parametrize(
    "f", [HyCNN(2, (5,)), GroupMax(2, (5,), annealing="fixed"), HyCNN(2, (5,), gate="max", annealing="cyclic")], ids=str
)
def test_other_temperatures_follow_no_schedule(f):
    theta = start(f, 2)
    before = theta.clone()
    f.at_step(theta, 70, 2500)
    assert torch.equal(theta, before)


# ---- initialisation


@families
@pytest.mark.parametrize(("name", "h"), [("V1", 16), ("v", 8)])
def test_positive_weights_start_log_normal_with_the_papers_moments(family, name, h):
    f = family(n_dims=2, hidden=(16, 8))
    drawn = softplus(by_name(f, start(f, 3000 if name == "V1" else 60_000))[name].double())
    assert float(drawn.mean()) == pytest.approx(math.sqrt(1 / (h**2 + (1 - 1 / math.pi) * h)), rel=0.01)
    assert float(drawn.var()) == pytest.approx(1 / (4 * h), rel=0.1)
    logs = drawn.log()
    assert float(((logs - logs.mean()) ** 3).mean() / logs.std() ** 3) == pytest.approx(0, abs=0.02)


def test_weights_on_x_and_biases_start_with_the_papers_moments():
    d, h = 50, 256
    f = HyCNN(n_dims=d, hidden=(h, h, h))
    free = by_name(f, start(f, 2))
    for name, variance in {"W0": 1 / d, "W1": 1 / (4 * d), "W2": 1 / (4 * d), "Q": 1 / (4 * d)}.items():
        assert float(free[name].mean()) == pytest.approx(0, abs=0.02 * math.sqrt(variance)), name
        assert float(free[name].var()) == pytest.approx(variance, rel=0.03), name
    assert not free["b0"].any()
    for name in ("b1", "b2"):
        expected = torch.full((2, 1, 2 * h), -math.sqrt(h / (2 * math.pi * h + 2 * math.pi - 2)))
        torch.testing.assert_close(free[name], expected)


# ---- the theory's construction of x^2, with weights set by hand

PATH = Path(__file__).parents[2] / "benchmarks"
PATH = next(
    (
        path
        for path in (PATH / "_lib" / "_square.py", PATH / "_lib" / "square.py", PATH / "_square.py")
        if path.exists()
    ),
    None,
)


@pytest.mark.skipif(PATH is None, reason="benchmarks are not part of this distribution")
@pytest.mark.parametrize("widths", [(2,), (8,), (4, 2), (4, 6, 2), (2,) * 8], ids=str)
def test_the_construction_of_the_square_has_the_error_of_the_theorem(widths):
    spec = importlib.util.spec_from_file_location("_square", PATH)
    square = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(square)
    f = square.hycnn(widths)
    weights = f.weights(square.square(widths))
    # Of two branches V is the difference, and P the second one.
    branches = [(weights[f"P{n}"], weights[f"P{n}"] + weights[f"V{n}"]) for n in range(1, len(widths))]
    assert all((w >= 0).all() for w in (weights["v"], *(second for second, _ in branches)))
    assert all((first >= -torch.finfo(first.dtype).eps * second).all() for second, first in branches)
    n_pieces = int(np.prod(widths))
    x = torch.linspace(0, 1, 8 * n_pieces + 1, dtype=torch.float64)  # meets the ends and the middle of every piece
    value = f.value(weights, x[None, :, None])[0]
    assert float((value - x**2).abs().max()) == pytest.approx(square.error_bound(widths), rel=1e-6)
    # Pieces multiply with depth: each has the slope of the square in its middle.
    middles = (torch.arange(n_pieces, dtype=torch.float64) + 0.5) / n_pieces
    slopes = f.gradient(weights, middles[None, :, None])[0, :, 0]
    torch.testing.assert_close(slopes, 2 * middles, rtol=0, atol=1e-9)


@pytest.mark.parametrize("options", [{"n_networks": 0}, {"monotone": (0,)}, {"annealing": "cyclic"}])
def test_a_combination_needs_networks_and_has_no_monotone_dimensions_or_cyclic_temperatures(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        Combination(n_dims=2, **options)
