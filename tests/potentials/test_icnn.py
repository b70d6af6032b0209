"""How an ICNN starts: the moments of Hoedt & Klambauer, and what they are for."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from scot_hycnn.potentials import ICNN
from scot_hycnn.potentials._parameters import unpack


def moments(n):
    """Mean and variance of a positive weight and value of a bias, for fan-in n: arXiv:2312.12474, prop. 1."""
    denominator = 6 * (math.pi - 1) + (n - 1) * (3 * math.sqrt(3) + 2 * math.pi - 6)
    return math.sqrt(6 * math.pi / (n * denominator)), 1 / n, -math.sqrt(3 * n / denominator)


def start(f, n_maps, seed=0):
    """Weights of a fresh network, and its free parameters."""
    theta = f.init(n_maps, torch.Generator().manual_seed(seed)).double()
    return f.weights(theta), unpack(theta, f.shapes)


@pytest.mark.parametrize("constraint", ["hard", "soft"])
@pytest.mark.parametrize("name", ["V1", "v"])
def test_weights_between_layers_start_log_normal_with_the_moments_of_their_fan_in(constraint, name):
    h = 16
    weights, _ = start(ICNN(n_dims=2, hidden=(h, h), constraint=constraint), n_maps=2000 if name == "V1" else 40_000)
    mean, variance, _ = moments(h)
    assert (weights[name] > 0).all()
    assert float(weights[name].mean()) == pytest.approx(mean, rel=0.01)
    assert float(weights[name].var()) == pytest.approx(variance, rel=0.1)
    logs = weights[name].log()
    assert float(((logs - logs.mean()) ** 3).mean() / logs.std() ** 3) == pytest.approx(0, abs=0.02)


def test_the_fan_in_of_unequal_widths_is_the_layer_below():
    f = ICNN(n_dims=2, hidden=(8, 32))
    weights, free = start(f, 4000)
    assert float(weights["V1"].mean()) == pytest.approx(moments(8)[0], rel=0.02)
    assert float(weights["v"].mean()) == pytest.approx(moments(32)[0], rel=0.02)
    torch.testing.assert_close(free["b1"], torch.full((4000, 1, 32), moments(8)[2]).double())


def test_biases_are_those_of_the_source_and_zero_in_the_first_layer():
    _, free = start(ICNN(n_dims=2, hidden=(16, 16, 16)), 2)
    assert not free["b0"].any()
    for name in ("b1", "b2"):
        torch.testing.assert_close(free[name], torch.full((2, 1, 16), moments(16)[2]).double())


def test_weights_on_the_cells_start_as_lecuns():
    """Normal, of variance one over the dimension."""
    d, h = 50, 256
    _, free = start(ICNN(n_dims=d, hidden=(h, h), quadratic_skip=True), 2)
    for name in ("W0", "W1", "Q"):
        assert float(free[name].mean()) == pytest.approx(0, abs=0.02 / math.sqrt(d)), name
        assert float(free[name].var()) == pytest.approx(1 / d, rel=0.03), name
    _, many = start(ICNN(n_dims=d, hidden=(4,)), 2000)
    assert float(many["w"].var()) == pytest.approx(1 / d, rel=0.03)


def test_the_start_keeps_the_signals_size_from_layer_to_layer():
    """What the moments are for: relu layers of one fan-in neither blow up nor die out."""
    f = ICNN(n_dims=64, hidden=(64,) * 8, activation="relu")
    theta = f.init(1, torch.Generator().manual_seed(0))
    weights = f.weights(theta)
    x = torch.randn(1, 2000, 64, generator=torch.Generator().manual_seed(1))
    z, sizes = x, []
    for layer in range(len(f.hidden)):
        a = weights[f"b{layer}"] + (z @ weights[f"V{layer}"] if layer else x @ weights["W0"])
        z = torch.relu(a)
        sizes.append(float(a.square().mean().sqrt()))
    assert np.all(np.array(sizes) < 4)
    assert np.all(np.array(sizes) > 0.25)


def test_defaults_are_hard_softplus():
    f = ICNN(n_dims=2)
    assert (f.activation, f.temperature, f.constraint, f.quadratic_skip) == ("softplus", 1.0, "hard", False)
    assert f.convex
