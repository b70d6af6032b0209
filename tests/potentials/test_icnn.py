"""One-branch networks: activations, and how ICNN (Hoedt & Klambauer) and MLP (PyTorch's linear layers) start."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from scot_hycnn.potentials import ICNN, MLP


def by_name(f, theta):
    pieces = theta.split([math.prod(shape) for shape in f.shapes.values()], dim=1)
    return {name: piece.view(-1, *shape) for piece, (name, shape) in zip(pieces, f.shapes.items(), strict=True)}


def start(f, n_maps):
    """Return the weights of fresh networks, and their free parameters by name."""
    theta = f.init(n_maps, torch.Generator().manual_seed(0)).double()
    return f.weights(theta), by_name(f, theta)


# ---- activations


def activated(activation, temperature, a):
    """Return the activation at these points and its slope: an MLP of one unit with weights 1 and bias 0."""
    f = MLP(1, (1,), strong_convexity=0.0, activation=activation, temperature=temperature)
    weights = f.weights(torch.tensor([[1.0, 0.0, 1.0]], dtype=torch.float64))
    x = a.double()[None, :, None]
    return f.value(weights, x)[0], f.gradient(weights, x)[0, :, 0]


@pytest.mark.parametrize(
    ("name", "values", "slopes"),
    [
        ("relu", [0, 0, 0, 0.25, 2], [0, 0, 0, 1, 1]),
        ("leaky_relu", [-0.6, -0.1, 0, 0.25, 2], [0.2, 0.2, 0.2, 1, 1]),
    ],
)
def test_piecewise_linear_activations_by_hand(name, values, slopes):
    found = activated(name, 1.0, torch.tensor([-3.0, -0.5, 0.0, 0.25, 2.0]))
    torch.testing.assert_close(found, (torch.tensor(values).double(), torch.tensor(slopes).double()))


@pytest.mark.parametrize("temperature", [0.1, 1.0, 10.0])
def test_softplus_follows_the_exact_formula_without_a_step(temperature):
    a = temperature * torch.linspace(-40, 40, 8001, dtype=torch.float64)
    value, slope = activated("softplus", temperature, a)
    exact = temperature * torch.logaddexp(a / temperature, torch.zeros_like(a))
    torch.testing.assert_close(value, exact, rtol=1e-13, atol=0)
    torch.testing.assert_close(slope, torch.sigmoid(a / temperature))


@pytest.mark.parametrize("name", ["softplus", "relu", "leaky_relu"])
def test_far_from_zero_all_are_linear_and_finite(name):
    a = torch.tensor([-1e4, 1e4, -1e30, 1e30], dtype=torch.float64)
    value, slope = activated(name, 0.1, a)
    below = 0.2 if name == "leaky_relu" else 0.0
    torch.testing.assert_close(value, torch.where(a > 0, a, below * a))
    torch.testing.assert_close(slope, torch.where(a > 0, 1.0, below).double())


# ---- ICNN


def moments(n):
    """Return mean and variance of a positive weight and the bias, for fan-in n: arXiv:2312.12474, prop. 1."""
    denominator = 6 * (math.pi - 1) + (n - 1) * (3 * math.sqrt(3) + 2 * math.pi - 6)
    return math.sqrt(6 * math.pi / (n * denominator)), 1 / n, -math.sqrt(3 * n / denominator)


@pytest.mark.parametrize("constraint", ["hard", "soft"])
@pytest.mark.parametrize(("name", "fan_in"), [("V1", 16), ("v", 8)])
def test_weights_between_layers_start_log_normal_with_the_moments_of_their_fan_in(constraint, name, fan_in):
    weights, free = start(ICNN(2, (16, 8), constraint=constraint), n_maps=4000 if name == "V1" else 60_000)
    mean, variance, _ = moments(fan_in)
    assert (weights[name] > 0).all()
    assert float(weights[name].mean()) == pytest.approx(mean, rel=0.01)
    assert float(weights[name].var()) == pytest.approx(variance, rel=0.1)
    logs = weights[name].log()
    assert float(((logs - logs.mean()) ** 3).mean() / logs.std() ** 3) == pytest.approx(0, abs=0.02)
    assert not free["b0"].any()
    torch.testing.assert_close(free["b1"], torch.full_like(free["b1"], moments(16)[2]))


def test_weights_on_the_cells_start_normal_with_variance_one_over_the_dimension():
    d = 50
    _, free = start(ICNN(d, (256, 256), quadratic_skip=True), 2)
    for name in ("W0", "W1", "Q"):
        assert float(free[name].mean()) == pytest.approx(0, abs=0.02 / math.sqrt(d)), name
        assert float(free[name].var()) == pytest.approx(1 / d, rel=0.03), name


def test_the_start_keeps_the_size_of_signals_from_layer_to_layer():
    """The moments are for this: relu layers of one fan-in neither blow up nor die out."""
    f = ICNN(n_dims=64, hidden=(64,) * 8, activation="relu")
    weights, _ = start(f, 1)
    x = torch.randn(1, 2000, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    z, sizes = x, []
    for layer in range(8):
        a = weights[f"b{layer}"] + (z @ weights[f"V{layer}"] if layer else x @ weights["W0"])
        z = torch.relu(a)
        sizes.append(float(a.square().mean().sqrt()))
    assert 0.25 < min(sizes) < max(sizes) < 4


def test_a_soft_network_without_negative_weights_is_the_hard_one():
    soft, hard = (ICNN(2, (3, 2), constraint=constraint) for constraint in ("soft", "hard"))
    weights, _ = start(soft, 1)
    same = by_name(hard, soft.init(1, torch.Generator().manual_seed(0)).double())
    for name in ("V1", "v"):
        same[name] = torch.log(torch.expm1(same[name]))
    of_hard = hard.weights(torch.cat([value.flatten(1) for value in same.values()], dim=1))
    x = torch.randn(1, 20, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(soft.value(weights, x), hard.value(of_hard, x))
    assert not soft.penalty(weights).any()


# ---- MLP


@pytest.mark.parametrize(("name", "fan_in"), [("W0", 9), ("b0", 9), ("V1", 16), ("b1", 16), ("v", 64)])
def test_an_mlp_starts_as_linear_layers_of_pytorch_do(name, fan_in):
    """Uniform within one over the root of the fan-in."""
    _, free = start(MLP(9, (16, 64), quadratic_skip=True), 400)
    bound = 1 / math.sqrt(fan_in)
    assert float(free[name].abs().max()) == pytest.approx(bound, rel=0.01)
    assert float(free[name].mean()) == pytest.approx(0, abs=0.03 * bound)
    assert float(free[name].var()) == pytest.approx(bound**2 / 3, rel=0.03)
    assert float(free["Q"].var()) == pytest.approx(1 / 9, rel=0.03)


def test_an_mlp_has_neither_input_skips_nor_a_constraint():
    f = MLP(3, (5, 4))
    assert set(f.shapes) == {"W0", "b0", "V1", "b1", "v", "q"}
    weights, free = start(f, 1)
    assert all(torch.equal(weights[name], free[name]) for name in free if name != "q")
    assert np.any(weights["V1"].numpy() < 0)
