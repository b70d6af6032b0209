"""Activations of one branch: known values, slopes, and their limits."""

from __future__ import annotations

import math

import pytest
import torch

from scot_hycnn.potentials._activation import ACTIVATIONS, LEAK, activate

A = torch.tensor([-3.0, -0.5, 0.0, 0.25, 2.0], dtype=torch.float64)


@pytest.mark.parametrize(
    ("name", "values", "slopes"),
    [
        ("relu", [0, 0, 0, 0.25, 2], [0, 0, 0, 1, 1]),
        ("leaky_relu", [-0.6, -0.1, 0, 0.25, 2], [0.2, 0.2, 0.2, 1, 1]),
    ],
)
def test_piecewise_linear_ones_by_hand(name, values, slopes):
    z, slope = activate(name, 1.0, A)
    torch.testing.assert_close(z, torch.tensor(values, dtype=torch.float64))
    torch.testing.assert_close(slope, torch.tensor(slopes, dtype=torch.float64))


@pytest.mark.parametrize("temperature", [0.1, 1.0, 10.0])
def test_softplus_by_hand(temperature):
    z, slope = activate("softplus", temperature, A)
    expected = [temperature * math.log1p(math.exp(a / temperature)) for a in A.tolist()]
    torch.testing.assert_close(z, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(slope, torch.tensor([1 / (1 + math.exp(-a / temperature)) for a in A.tolist()]).double())


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("temperature", [0.1, 2.0])
def test_the_slope_is_the_derivative(name, temperature):
    a = torch.linspace(-4.9, 5.1, 60, dtype=torch.float64).requires_grad_()  # 0 is not among them
    z, slope = activate(name, temperature, a)
    (derivative,) = torch.autograd.grad(z.sum(), a)
    torch.testing.assert_close(slope, derivative)
    assert ((slope >= 0) & (slope <= 1)).all()


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_softplus_and_its_slope_have_the_right_derivatives(temperature):
    a = torch.linspace(-1, 1, 7, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda a: activate("softplus", temperature, a), a)
    assert torch.autograd.gradgradcheck(lambda a: activate("softplus", temperature, a), a)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_far_from_zero_all_are_linear_and_finite(name, dtype):
    a = torch.tensor([-1e4, 1e4, -1e30, 1e30], dtype=dtype)
    z, slope = activate(name, 0.1, a)
    below = LEAK if name == "leaky_relu" else 0.0
    torch.testing.assert_close(z, torch.where(a > 0, a, below * a))
    torch.testing.assert_close(slope, torch.where(a > 0, 1.0, below).to(dtype))


@pytest.mark.parametrize("temperature", [0.1, 1.0, 10.0])
def test_softplus_has_no_step(temperature):
    """It never falls below the ramp, and follows the exact formula to double precision all along."""
    a = temperature * torch.linspace(-40, 40, 8001, dtype=torch.float64)
    z, _ = activate("softplus", temperature, a)
    torch.testing.assert_close(
        z, temperature * torch.logaddexp(a / temperature, torch.zeros_like(a)), rtol=1e-13, atol=0
    )


def test_a_vanishing_temperature_gives_relu():
    gaps = [(activate("softplus", tau, A)[0] - activate("relu", tau, A)[0]).max() for tau in (1.0, 0.1, 1e-4)]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[-1] < 1e-4


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_inputs_stay_untouched(name):
    a = A.clone()
    activate(name, 0.5, a)
    assert torch.equal(a, A)
