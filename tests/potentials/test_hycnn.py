"""What is the HyCNN's own: its temperature, and how it starts."""

from __future__ import annotations

import math

import pytest
import torch

from scot_hycnn.potentials import HyCNN
from scot_hycnn.potentials._parameters import inverse_softplus, log_normal, unpack


def draw(f, n_maps=1, seed=0, noise=0.3):
    """Parameters near the initial ones, but with temperatures and biases that differ from layer to layer."""
    generator = torch.Generator().manual_seed(seed)
    theta = f.init(n_maps, generator).double()
    return theta + noise * torch.randn(theta.shape, generator=generator, dtype=torch.float64)


def points(f, n_maps=1, n=40, seed=1, scale=2.0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(n_maps, n, f.n_dims, generator=generator, dtype=torch.float64)


# ---- temperature


def with_temperature(f, theta, tau):
    named = unpack(theta, f.shapes)
    named["tau"] = inverse_softplus(torch.full_like(named["tau"], tau))
    return torch.cat([value.flatten(1) for value in named.values()], dim=1)


def test_a_vanishing_temperature_gives_the_max_gate():
    smooth, sharp = (HyCNN(n_dims=3, hidden=(5, 4), gate=gate) for gate in ("smooth", "max"))
    theta, x = draw(smooth), points(smooth)
    same = torch.cat([value.flatten(1) for name, value in unpack(theta, smooth.shapes).items() if name != "tau"], dim=1)
    limit = sharp.value(sharp.weights(same), x)
    gaps = [
        smooth.value(smooth.weights(with_temperature(smooth, theta, tau)), x) - limit for tau in (1, 0.1, 0.01, 1e-4)
    ]
    assert all((gap >= -1e-9).all() for gap in gaps)
    largest = [float(gap.max()) for gap in gaps]
    assert largest == sorted(largest, reverse=True)
    assert largest[-1] < 1e-2 * largest[0]
    slope = smooth.gradient(smooth.weights(with_temperature(smooth, theta, 1e-7)), x)
    torch.testing.assert_close(slope, sharp.gradient(sharp.weights(same), x), rtol=1e-4, atol=1e-4)


# ---- initialisation


def softplus_of(f, name, n_maps, seed=0):
    free = unpack(f.init(n_maps, torch.Generator().manual_seed(seed)), f.shapes)[name]
    return torch.nn.functional.softplus(free.double())


@pytest.mark.parametrize("name", ["V1", "v"])
def test_positive_weights_start_log_normal_with_the_papers_moments(name):
    h = 16
    f = HyCNN(n_dims=2, hidden=(h, h), quadratic_skip=False)
    drawn = softplus_of(f, name, n_maps=2000 if name == "V1" else 40_000)
    assert float(drawn.mean()) == pytest.approx(math.sqrt(1 / (h**2 + (1 - 1 / math.pi) * h)), rel=0.01)
    assert float(drawn.var()) == pytest.approx(1 / (4 * h), rel=0.1)
    logs = drawn.log()
    skewness = float(((logs - logs.mean()) ** 3).mean() / logs.std() ** 3)
    assert skewness == pytest.approx(0, abs=0.02)


def test_a_wide_networks_linear_weights_and_biases_have_the_papers_moments():
    d, h = 50, 256
    f = HyCNN(n_dims=d, hidden=(h, h, h))
    free = unpack(f.init(2, torch.Generator().manual_seed(0)), f.shapes)
    for name, variance in {"W0": 1 / d, "W1": 1 / (4 * d), "W2": 1 / (4 * d), "Q": 1 / (4 * d)}.items():
        assert float(free[name].mean()) == pytest.approx(0, abs=0.02 * math.sqrt(variance)), name
        assert float(free[name].var()) == pytest.approx(variance, rel=0.03), name
    assert not free["b0"].any()
    for name in ("b1", "b2"):
        expected = torch.full((2, 1, 2 * h), -math.sqrt(h / (2 * math.pi * h + 2 * math.pi - 2)))
        torch.testing.assert_close(free[name], expected)
    logs = softplus_of(f, "V1", n_maps=2).log()
    mean = math.sqrt(1 / (h**2 + (1 - 1 / math.pi) * h))
    log_variance = math.log1p(1 / (4 * h) / mean**2)
    assert float(logs.var()) == pytest.approx(log_variance, rel=0.02)
    assert float(logs.mean()) == pytest.approx(math.log(mean) - log_variance / 2, abs=0.02)


def test_the_fan_in_of_unequal_widths_is_the_layer_below():
    f = HyCNN(n_dims=2, hidden=(8, 32))
    assert float(softplus_of(f, "V1", 2000).mean()) == pytest.approx(1 / 8, rel=0.1)
    assert float(softplus_of(f, "v", 20_000).mean()) == pytest.approx(1 / 32, rel=0.1)


def test_softplus_and_its_inverse_meet():
    values = torch.tensor([1e-6, 1e-3, 0.5, 1.0, 10.0, 80.0], dtype=torch.float64)
    torch.testing.assert_close(torch.nn.functional.softplus(inverse_softplus(values)), values)


def test_log_normal_draws_have_the_mean_and_variance_asked_for():
    drawn = log_normal((200_000,), 2.0, 0.5, torch.Generator().manual_seed(0))
    assert float(drawn.mean()) == pytest.approx(2, rel=0.01)
    assert float(drawn.var()) == pytest.approx(0.5, rel=0.02)
