"""How a multilayer perceptron starts: as PyTorch's linear layers do."""

from __future__ import annotations

import math

import pytest
import torch

from scot_hycnn.potentials import MLP
from scot_hycnn.potentials._parameters import unpack

D, H = 9, (16, 64)
FAN_IN = {"W0": D, "b0": D, "V1": 16, "b1": 16, "v": 64}


@pytest.fixture(scope="module")
def free():
    f = MLP(n_dims=D, hidden=H, quadratic_skip=True)
    return unpack(f.init(400, torch.Generator().manual_seed(0)).double(), f.shapes)


@pytest.mark.parametrize("name", FAN_IN)
def test_parameters_start_uniform_within_one_over_the_root_of_the_fan_in(free, name):
    bound = 1 / math.sqrt(FAN_IN[name])
    drawn = free[name]
    assert float(drawn.abs().max()) == pytest.approx(bound, rel=0.01)
    assert drawn.abs().max() <= bound * (1 + 1e-6)
    assert float(drawn.mean()) == pytest.approx(0, abs=0.03 * bound)
    assert float(drawn.var()) == pytest.approx(bound**2 / 3, rel=0.03)


@pytest.mark.parametrize(("name", "fan_in", "width"), [("W0", D, 16), ("V1", 16, 64)])
def test_the_bounds_are_those_of_pytorchs_linear_layers(free, name, fan_in, width):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [torch.nn.Linear(fan_in, width) for _ in range(400)]
    for ours, theirs in ((free[name], "weight"), (free[f"b{name[1]}"], "bias")):
        drawn = torch.stack([getattr(layer, theirs).detach() for layer in layers])
        assert float(ours.std()) == pytest.approx(float(drawn.std()), rel=0.03)
        assert float(ours.abs().max()) == pytest.approx(float(drawn.abs().max()), rel=0.01)


def test_the_quadratic_skip_is_normal(free):
    assert float(free["Q"].var()) == pytest.approx(1 / D, rel=0.03)


def test_it_has_no_skips_and_no_constraint():
    f = MLP(n_dims=3, hidden=(5, 4))
    assert set(f.shapes) == {"W0", "b0", "V1", "b1", "v", "q"}
    theta = f.init(1, torch.Generator().manual_seed(0))
    weights, free = f.weights(theta), unpack(theta, f.shapes)
    assert all(torch.equal(weights[name], free[name]) for name in free if name != "q")
    assert (weights["V1"] < 0).any()
    assert not f.convex
