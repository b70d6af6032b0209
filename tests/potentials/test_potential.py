"""All families: their equations, their gradients, convexity for every parameter, K maps at once, and how they start."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from scot_hycnn.potentials import ICNN, MLP, GroupMax, HyCNN

SHAPES = [(5,), (7, 3), (4, 6, 5)]
VARIANTS = [
    *((family, {"gate": gate}) for family in (HyCNN, GroupMax) for gate in ("smooth", "max")),
    *(
        (ICNN, {"activation": activation, "constraint": constraint})
        for activation in ("softplus", "relu", "leaky_relu")
        for constraint in ("hard", "soft")
    ),
    *((MLP, {"activation": activation}) for activation in ("softplus", "relu", "leaky_relu")),
    *((family, {"monotone": "+0-"}) for family in (HyCNN, GroupMax, ICNN)),
]


def networks():
    """Yield each variant with and without the quadratic skip and with and without q; the shapes take turns."""
    for number, (family, options) in enumerate(VARIANTS):
        for half in (0, 1):
            yield family(
                n_dims=3,
                hidden=SHAPES[(2 * number + half) % 3],
                quadratic_skip=bool(half),
                strong_convexity=0.1 if (number + half) % 2 else 0.0,
                temperature=0.5,
                **options,
            )


def label(f):
    skip, q = "-Q" if f.quadratic_skip else "", "-q" if f.strong_convexity else ""
    gate = getattr(f, "gate", "") or f"{f.activation}-{getattr(f, 'constraint', '')}"
    return f"{type(f).__name__}-{f.hidden}-{gate}{skip}{q}{f.monotone}"


# For what does not depend on single options.
some = pytest.mark.parametrize(
    "f",
    [
        HyCNN(3, (5, 4)),
        GroupMax(3, (5, 4), quadratic_skip=True, monotone="+0-"),
        ICNN(3, (5, 4), quadratic_skip=True),
        ICNN(3, (5, 4), constraint="soft"),
        MLP(3, (5, 4), quadratic_skip=True),
    ],
    ids=label,
)
families = pytest.mark.parametrize("family", [HyCNN, GroupMax, ICNN, MLP])


def by_name(f, theta):
    """Return views of theta, shape (K, P), by the names of the parameters."""
    pieces = theta.split([int(np.prod(shape)) for shape in f.shapes.values()], dim=1)
    return {name: piece.view(-1, *shape) for piece, (name, shape) in zip(pieces, f.shapes.items(), strict=True)}


def draw(f, n_maps=1, noise=0.3):
    """Return parameters near the initial ones, with temperatures and biases that differ from layer to layer."""
    generator = torch.Generator().manual_seed(0)
    theta = f.init(n_maps, generator).double()
    return theta + noise * torch.randn(theta.shape, generator=generator, dtype=torch.float64)


def points(f, n_maps=1, n=40):
    generator = torch.Generator().manual_seed(1)
    return 2 * torch.randn(n_maps, n, f.n_dims, generator=generator, dtype=torch.float64)


class Plain:
    """One map at one point, one unit after the other, by the equations of the families' docstrings."""

    def __init__(self, f, theta):
        self.f = f
        self.p = {name: value[0].numpy().copy() for name, value in by_name(f, theta[None]).items()}
        for name in self.p:
            if name in ("q", "tau") or (name[0] in "Vv" and f.convex):
                self.p[name] = np.logaddexp(0, self.p[name])
        self.input_skips = isinstance(f, ICNN) or type(f) is HyCNN
        self.signs = {index: {"+": 1, "-": -1}[sign] for index, sign in enumerate(f.monotone) if sign != "0"}
        # What multiplies a monotone dimension has its sign, and is 0 where the slope would change its sign.
        for (index, sign), name in itertools.product(self.signs.items(), self.p):
            row = self.p[name][..., index] if name == "w" else self.p[name][index : index + 1]
            if name[0] in "Ww":
                row[:] = sign * np.logaddexp(0, row)
            elif name == "Q":
                row[:] = 0

    def value(self, x):
        f, p, z = self.f, self.p, x
        for layer, width in enumerate(f.hidden):
            z = np.array([self.unit(layer, j, x, z) for j in range(width)])
        out = p["v"][0] @ z
        if self.input_skips:
            out += p["w"][0] @ x
        if f.strong_convexity:
            out += p["q"][0, 0] / 2 * sum(x_i**2 for index, x_i in enumerate(x) if index not in self.signs)
        return out

    def unit(self, layer, j, x, z):
        if isinstance(self.f, HyCNN):
            a, b = (self.branch(layer, column, x, z) for column in (j, self.f.hidden[layer] + j))
            tau = self.p["tau"][0, layer] if self.f.gate == "smooth" else 0
            return tau * np.logaddexp(a / tau, b / tau) if tau else max(a, b)
        a, tau = self.branch(layer, j, x, z), self.f.temperature
        values = {"relu": max(a, 0), "leaky_relu": max(a, 0.2 * a), "softplus": tau * np.logaddexp(0, a / tau)}
        return values[self.f.activation]

    def branch(self, layer, column, x, z):
        a = self.p[f"b{layer}"][0, column]
        if not layer or self.input_skips:
            a = a + self.p[f"W{layer}"][:, column] @ x
        if layer:
            return a + self.p[f"V{layer}"][:, column] @ z
        return a + (self.p["Q"][:, column] @ x) ** 2 if self.f.quadratic_skip else a


# ---- value and gradient


def test_the_value_follows_the_equations():
    for f in networks():
        theta, x = draw(f, n_maps=2), points(f, n_maps=2, n=6)
        expected = [[Plain(f, row).value(x_i) for x_i in cloud.numpy()] for row, cloud in zip(theta, x, strict=True)]
        np.testing.assert_allclose(f.value(f.weights(theta), x), expected, rtol=1e-12, atol=1e-12, err_msg=label(f))


def test_the_explicit_gradient_is_that_of_autograd_once_and_twice():
    for f in networks():
        theta, x = draw(f, n_maps=2).requires_grad_(), points(f, n_maps=2).requires_grad_()
        (expected,) = torch.autograd.grad(f.value(f.weights(theta), x).sum(), x, create_graph=True)
        explicit = f.gradient(f.weights(theta), x)
        torch.testing.assert_close(explicit, expected, rtol=1e-11, atol=1e-11, msg=label(f))
        (twice,) = torch.autograd.grad(expected.square().sum(), theta, materialize_grads=True)
        (once,) = torch.autograd.grad(explicit.square().sum(), theta)
        torch.testing.assert_close(once, twice, rtol=1e-10, atol=1e-10, msg=label(f))
        # Without autograd the gate takes another path, with the same bits.
        with torch.no_grad():
            assert torch.equal(f.gradient(f.weights(theta), x), explicit), label(f)


def test_every_parameter_has_its_shape_and_an_effect():
    """Single maps may have units without an effect: so many maps are drawn."""
    for f in networks():
        theta, x = draw(f, n_maps=20).requires_grad_(), points(f, n_maps=20)
        assert theta.shape == (20, f.n_parameters)
        assert ("q" in f.shapes, "Q" in f.shapes) == (bool(f.strong_convexity), f.quadratic_skip)
        (grad,) = torch.autograd.grad(f.value(f.weights(theta), x).square().sum(), theta)
        for name, slope in by_name(f, (grad != 0).any(0, keepdim=True)).items():
            # A monotone dimension has no squares.
            is_free = torch.tensor([sign == "0" for sign in f.monotone or "000"])
            assert torch.equal(slope[0].all(1), is_free) if name == "Q" else slope.all(), (label(f), name)


@families
def test_the_gradients_pass_gradcheck_in_parameters_and_points(family):
    f = family(n_dims=2, hidden=(3, 2), quadratic_skip=True)
    theta, x = draw(f, n_maps=2).requires_grad_(), points(f, n_maps=2, n=3).requires_grad_()
    assert torch.autograd.gradcheck(lambda t, z: f.gradient(f.weights(t), z), (theta, x))
    assert torch.autograd.gradcheck(lambda t, z: f.value(f.weights(t), z), (theta, x))


# ---- K maps at once


@some
def test_maps_in_a_batch_equal_each_map_alone(f):
    theta, x = draw(f, n_maps=3).requires_grad_(), points(f, n_maps=3)
    value, gradient = f.value(f.weights(theta), x), f.gradient(f.weights(theta), x)
    for k in range(3):
        alone = f.weights(theta[k : k + 1])
        torch.testing.assert_close(f.value(alone, x[k : k + 1])[0], value[k], rtol=1e-13, atol=1e-13)
        torch.testing.assert_close(f.gradient(alone, x[k : k + 1])[0], gradient[k], rtol=1e-13, atol=1e-13)
    (grad,) = torch.autograd.grad(gradient[1].square().sum(), theta)
    assert not grad[[0, 2]].any()
    assert grad[1].any()


@some
def test_weights_and_points_are_not_changed_and_clouds_may_be_expanded_or_empty(f):
    weights, x = f.weights(draw(f, n_maps=3)), points(f)
    copies = {name: weight.clone() for name, weight in weights.items()}, x.clone()
    expanded = f.gradient(weights, x.expand(3, -1, -1))
    torch.testing.assert_close(expanded, f.gradient(weights, x.repeat(3, 1, 1)))
    f.value(weights, x.expand(3, -1, -1)), f.penalty(weights)
    assert all(torch.equal(weight, copies[0][name]) for name, weight in weights.items())
    assert torch.equal(x, copies[1])
    empty = torch.empty(3, 0, 3, dtype=torch.float64)
    assert f.value(weights, empty).shape == (3, 0)
    assert f.gradient(weights, empty).shape == (3, 0, 3)


# ---- convexity, for whatever the parameters are


CONVEX = [
    family(n_dims=2, hidden=(3, 2), quadratic_skip=skip, strong_convexity=q, **option)
    for number, (family, option) in enumerate(
        [
            *((family, {"gate": gate}) for family in (HyCNN, GroupMax) for gate in ("smooth", "max")),
            *((ICNN, {"activation": activation}) for activation in ("softplus", "relu", "leaky_relu")),
            *((family, {"monotone": monotone}) for family in (HyCNN, ICNN) for monotone in ("+-", "-0")),
        ]
    )
    for skip, q in ((True, 0.1 * (number % 2)), (False, 0.1 * (1 - number % 2)))
]


def functions(size=30, of=tuple(CONVEX)):
    """Return a network of a convex family, with parameters from tiny to very large."""
    return st.sampled_from(of).flatmap(
        lambda f: st.tuples(st.just(f), arrays(np.float64, (1, f.n_parameters), elements=st.floats(-size, size)))
    )


segment_ends = arrays(np.float64, (2, 8, 2), elements=st.floats(-10, 10))


def largest_terms(f, weights, x):
    """Return a bound on all terms that are added up in f and its gradient at x, so on their rounding."""
    return f.value({name: weight.abs() for name, weight in weights.items()}, x.abs() + 1)


@settings(max_examples=200, deadline=None)
@given(functions(), segment_ends, st.floats(0.05, 0.95))
def test_convex_on_segments_with_a_monotone_gradient_of_modulus_q(function, ends, t):
    """f - q|x|^2/2 is convex as well: <grad f(a) - grad f(b), a - b> >= q |a - b|^2."""
    f, weights = function[0], function[0].weights(torch.from_numpy(function[1]))
    a, b = torch.from_numpy(ends)[:, None]
    rounding = 1e-12 * (largest_terms(f, weights, a) + largest_terms(f, weights, b))
    chord = (1 - t) * f.value(weights, a) + t * f.value(weights, b)
    assert (f.value(weights, (1 - t) * a + t * b) <= chord + rounding).all()
    product = ((f.gradient(weights, a) - f.gradient(weights, b)) * (a - b)).sum(-1)
    modulus = weights["q"] if f.strong_convexity else torch.zeros(1)
    assert (product >= (modulus * (a - b).square()).sum(-1) - rounding * (a - b).norm(dim=-1)).all()


@settings(max_examples=100, deadline=None)
@given(functions(), segment_ends)
def test_the_gradient_is_a_subgradient_at_kinks_too(function, ends):
    """f(b) - f(a) >= <grad f(a), b - a>; whole numbers meet the kinks."""
    f, weights = function[0], function[0].weights(torch.from_numpy(function[1]))
    a, b = torch.from_numpy(np.round(ends))[:, None]
    rise = f.value(weights, b) - f.value(weights, a)
    rounding = 1e-12 * (largest_terms(f, weights, a) + largest_terms(f, weights, b)) * (1 + (b - a).norm(dim=-1))
    assert (rise >= (f.gradient(weights, a) * (b - a)).sum(-1) - rounding).all()


@settings(max_examples=100, deadline=None)
@given(functions(of=[f for f in CONVEX if f.monotone]), segment_ends)
def test_monotone_dimensions_are_monotone(function, ends):
    f, weights = function[0], function[0].weights(torch.from_numpy(function[1]))
    slope = f.gradient(weights, torch.from_numpy(ends[:1]))
    for index, sign in enumerate(f.monotone):
        if sign != "0":
            assert (slope[..., index] * (1 if sign == "+" else -1) >= 0).all()


@settings(max_examples=100, deadline=None)
@given(functions(size=1e30))
def test_weights_that_carry_convexity_are_never_negative(function):
    """In single precision, at sizes where softplus underflows to zero or is the number itself."""
    f, theta = function
    weights = f.weights(torch.from_numpy(theta).float())
    # Of two branches V1 is the difference, and P1 the second one.
    carrying = {"P1" if isinstance(f, HyCNN) else "V1", "v", "q"} & set(weights)
    assert all((weights[name] >= 0).all() for name in carrying)
    if "P1" in weights:
        first, second = weights["P1"] + weights["V1"], weights["P1"]
        assert ((first >= -torch.finfo(torch.float32).eps * second) | second.isinf()).all()


@pytest.mark.parametrize("f", [MLP(2, (3, 2), strong_convexity=0.0), ICNN(2, (3, 2), constraint="soft")], ids=label)
def test_families_that_do_not_promise_convexity_are_not_always_convex(f):
    """A negative output weight turns them concave: the tests above would find it."""
    theta = f.init(1, torch.Generator().manual_seed(0)).double()
    named = by_name(f, theta)
    named["v"].fill_(-10.0)
    named["V1"].abs_()
    weights = f.weights(theta)
    a, b = 3 * torch.randn(2, 1, 200, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert not f.convex
    assert (f.value(weights, (a + b) / 2) > (f.value(weights, a) + f.value(weights, b)) / 2 + 1e-3).any()


# ---- penalty and decay


@some
def test_the_penalty_is_the_squared_norm_of_the_negative_weights_of_a_soft_network(f):
    theta = draw(f, n_maps=3, noise=1.0).requires_grad_()
    weights = f.weights(theta)
    penalty = f.penalty(weights)
    if getattr(f, "constraint", "hard") == "hard":
        assert penalty.tolist() == [0, 0, 0]
        return
    negative = [weights[name].detach().clamp_max(0).square().sum((1, 2)) for name in ("V1", "v")]
    assert (sum(negative) > 0).all()
    torch.testing.assert_close(penalty, sum(negative))
    (grad,) = torch.autograd.grad(penalty.sum(), theta)
    for name, slope in by_name(f, grad).items():
        free = by_name(f, theta.detach())[name]
        torch.testing.assert_close(slope, 2 * free.clamp_max(0) if name in ("V1", "v") else torch.zeros_like(free))


@some
def test_decay_takes_the_weights_on_x_and_of_an_mlp_all_weights(f):
    decaying = "WVvQ" if isinstance(f, MLP) else "WQw"
    assert {name for name in f.shapes if f.decays(name)} == {name for name in f.shapes if name[0] in decaying}


# ---- how a network starts


@some
def test_the_generator_decides_and_the_global_random_state_is_left_alone(f):
    before = torch.get_rng_state()
    first, again, other = (f.init(2, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[0], first[1])
    assert first.dtype == torch.float32
    assert torch.equal(torch.get_rng_state(), before)


@some
def test_output_scale_shrinks_the_last_layer_alone(f):
    small = replace(f, output_scale=0.25)
    weights, shrunk = (g.weights(g.init(2, torch.Generator().manual_seed(0)).double()) for g in (f, small))
    for name, value in weights.items():
        # Slopes with a sign stay a little above zero, which has no inverse softplus.
        expected = value / 4 if name in ("v", "w", "c") else value
        torch.testing.assert_close(shrunk[name], expected, rtol=1e-4, atol=2e-6 if f.monotone else 1e-7)


@some
def test_strong_convexity_is_the_slope_of_the_quadratic_and_starts_as_asked(f):
    """Two networks that differ in q alone differ by the quadratic."""
    weak, strong = (replace(f, strong_convexity=q) for q in (0.5, 1.5))
    x = points(f).float()
    at_weak, at_strong = (g.gradient(g.weights(g.init(1, torch.Generator().manual_seed(0))), x) for g in (weak, strong))
    is_free = torch.tensor([sign == "0" for sign in f.monotone or "000"])
    torch.testing.assert_close(at_strong - at_weak, x * is_free, rtol=1e-5, atol=1e-5)


@some
def test_networks_of_extreme_widths_start_finite(f):
    wide = replace(f, hidden=(1, 512, 1))
    theta = wide.init(1, torch.Generator().manual_seed(0))
    assert theta.isfinite().all()
    assert wide.value(wide.weights(theta), points(f).float()).isfinite().all()


# ---- options that are refused


@families
def test_options_out_of_range_are_named(family):
    for option in (
        {"n_dims": 0},
        {"n_dims": -1},
        {"hidden": ()},
        {"hidden": (4, 0)},
        {"temperature": 0.0},
        {"output_scale": -1.0},
        {"strong_convexity": -1.0},
        {"strong_convexity": float("nan")},
        {"monotone": "+"},
        {"monotone": "+x"},
    ):
        ((name, value),) = option.items()
        with pytest.raises(ValueError, match=re.escape(f"{name}={value!r}")):
            family(**({"n_dims": 2} | option))


def test_unknown_words_list_the_choices():
    for family, option, choice in (
        (HyCNN, {"gate": "mean"}, "smooth"),
        (GroupMax, {"annealing": "slow"}, "cyclic"),
        (ICNN, {"activation": "elu"}, "leaky_relu"),
        (ICNN, {"constraint": "firm"}, "soft"),
        (MLP, {"activation": "elu"}, "relu"),
        (MLP, {"monotone": "+0"}, "MLP"),
        (ICNN, {"constraint": "soft", "monotone": "+0"}, "ICNN"),
    ):
        *_, (name, value) = option.items()
        with pytest.raises(ValueError, match=rf"{name}='{value[0]}?.*{choice}".replace("+", r"\+")):
            family(n_dims=2, **option)
