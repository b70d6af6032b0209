"""Convexity by construction: for whatever the parameters are, not only for those that training finds."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from scot_hycnn.potentials import ICNN, MLP, GroupMax, HyCNN
from scot_hycnn.potentials._parameters import inverse_softplus, unpack

CONVEX = [
    family(n_dims=2, hidden=(3, 2), quadratic_skip=skip, strong_convexity=q, **option)
    for skip, q, (family, option) in itertools.product(
        (True, False),
        (0.1, 0.0),
        [
            *((family, {"gate": gate}) for family in (HyCNN, GroupMax) for gate in ("smooth", "max")),
            *((ICNN, {"activation": activation}) for activation in ("softplus", "relu", "leaky_relu")),
            *((family, {"monotone": monotone}) for family in (HyCNN, ICNN) for monotone in ("+-", "-0")),
        ],
    )
]


def functions(size=30, of=tuple(CONVEX)):
    """A network of a convex family, with parameters from tiny to very large: training could reach no others."""
    return st.sampled_from(of).flatmap(
        lambda f: st.tuples(st.just(f), arrays(np.float64, (1, f.n_parameters), elements=st.floats(-size, size)))
    )


segment_ends = arrays(np.float64, (2, 8, 2), elements=st.floats(-10, 10))


def largest_terms(f, weights, x):
    """Bound on all terms that are added up in f and its gradient at x, so on their rounding: nothing cancels here."""
    return f.value({name: weight.abs() for name, weight in weights.items()}, x.abs() + 1)


@settings(max_examples=400, deadline=None)
@given(functions(), segment_ends, st.floats(0.05, 0.95))
def test_convex_on_segments(function, ends, t):
    f, weights = function[0], function[0].weights(torch.from_numpy(function[1]))
    a, b = torch.from_numpy(ends)[:, None]
    chord = (1 - t) * f.value(weights, a) + t * f.value(weights, b)
    rounding = 1e-12 * (largest_terms(f, weights, a) + largest_terms(f, weights, b))
    assert (f.value(weights, (1 - t) * a + t * b) <= chord + rounding).all()


@settings(max_examples=400, deadline=None)
@given(functions(), segment_ends)
def test_gradient_is_monotone_with_modulus_q(function, ends):
    """f - q|x|^2/2 is convex as well: <grad f(a) - grad f(b), a - b> >= q |a - b|^2."""
    f, weights = function[0], function[0].weights(torch.from_numpy(function[1]))
    a, b = torch.from_numpy(ends)[:, None]
    apart = a - b
    product = ((f.gradient(weights, a) - f.gradient(weights, b)) * apart).sum(-1)
    modulus = weights["q"] if f.strong_convexity else torch.zeros(1)
    rounding = 1e-12 * (largest_terms(f, weights, a) + largest_terms(f, weights, b)) * apart.norm(dim=-1)
    assert (product >= (modulus * apart.square()).sum(-1) - rounding).all()


@settings(max_examples=200, deadline=None)
@given(functions(), segment_ends)
def test_the_gradient_is_a_subgradient(function, ends):
    """At kinks as well: f(b) - f(a) >= <grad f(a), b - a>."""
    f, weights = function[0], function[0].weights(torch.from_numpy(function[1]))
    a, b = torch.from_numpy(np.round(ends))[:, None]
    rise = f.value(weights, b) - f.value(weights, a)
    rounding = 1e-12 * (largest_terms(f, weights, a) + largest_terms(f, weights, b)) * (1 + (b - a).norm(dim=-1))
    assert (rise >= (f.gradient(weights, a) * (b - a)).sum(-1) - rounding).all()


@settings(max_examples=200, deadline=None)
@given(functions(of=[f for f in CONVEX if f.monotone]), segment_ends)
def test_monotone_dimensions_are_monotone(function, ends):
    f, weights = function[0], function[0].weights(torch.from_numpy(function[1]))
    slope = f.gradient(weights, torch.from_numpy(ends[:1]))
    for index, sign in enumerate(f.monotone):
        if sign != "0":
            assert (slope[..., index] * (1 if sign == "+" else -1) >= 0).all()


@settings(max_examples=100, deadline=None)
@given(functions())
def test_weights_that_carry_convexity_are_positive(function):
    f, theta = function
    weights = f.weights(torch.from_numpy(theta))
    for name in {"V1", "v", "q"} & set(weights):
        assert ((weights[name] > 0) | (f.monotone != "" and name == "q")).all(), name
    assert all(weight.isfinite().all() for weight in weights.values())


@settings(max_examples=100, deadline=None)
@given(functions(size=1e30))
def test_weights_that_carry_convexity_are_never_negative(function):
    """In single precision, at sizes where softplus underflows to zero or is the number itself."""
    f, theta = function
    free = unpack(torch.from_numpy(theta).float(), f.shapes)
    if "tau" in free:
        free["tau"].clamp_(-80, 80)  # a temperature that underflows to 0 is none
    weights = f.weights(torch.cat([value.flatten(1) for value in free.values()], dim=1))
    for name in {"V1", "v", "q"} & set(weights):
        assert (weights[name] >= 0).all(), name


@pytest.mark.parametrize(
    "f",
    [
        MLP(n_dims=2, hidden=(3, 2), strong_convexity=0.0),
        MLP(n_dims=2, hidden=(3, 2), activation="relu", strong_convexity=0.0),
        ICNN(n_dims=2, hidden=(3, 2), constraint="soft", strong_convexity=0.0),
    ],
    ids=["MLP", "MLP-relu", "ICNN-soft"],
)
def test_families_that_do_not_promise_convexity_need_not_be(f):
    """A negative output weight turns them concave: the tests above would find out."""
    theta = f.init(1, torch.Generator().manual_seed(0)).double()
    unpack(theta, f.shapes)["v"].fill_(-1.0)
    unpack(theta, f.shapes)["V1"].abs_()
    weights = f.weights(theta)
    a, b = torch.randn(2, 1, 200, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 3
    middle, chord = f.value(weights, (a + b) / 2), (f.value(weights, a) + f.value(weights, b)) / 2
    assert not f.convex
    assert (middle > chord + 1e-3).any()


def test_a_soft_network_without_negative_weights_is_the_hard_one():
    soft, hard = (ICNN(n_dims=2, hidden=(3, 2), constraint=constraint) for constraint in ("soft", "hard"))
    theta = soft.init(1, torch.Generator().manual_seed(0)).double()
    same = theta.clone()
    for name, value in unpack(same, hard.shapes).items():
        if name[0] in "Vv":
            value.copy_(inverse_softplus(value))
    x = torch.randn(1, 20, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(soft.value(soft.weights(theta), x), hard.value(hard.weights(same), x))
    assert not soft.penalty(soft.weights(theta)).any()
