"""HyCNN against a plain implementation of the paper's equations, and as a convex function."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from scot_hycnn.potentials import HyCNN
from scot_hycnn.potentials._parameters import inverse_softplus, log_normal, unpack

SHAPES = [(5,), (7, 3), (4, 6, 5)]
EVERY = [
    pytest.param({"hidden": hidden, "gate": gate, "quadratic_skip": skip}, id=f"{hidden}-{gate}-{skip}")
    for hidden, gate, skip in itertools.product(SHAPES, ("smooth", "max"), (True, False))
]


def draw(f, n_maps=1, seed=0, noise=0.3):
    """Parameters near the initial ones, but with temperatures and biases that differ from layer to layer."""
    generator = torch.Generator().manual_seed(seed)
    theta = f.init(n_maps, generator).double()
    return theta + noise * torch.randn(theta.shape, generator=generator, dtype=torch.float64)


def points(f, n_maps=1, n=40, seed=1, scale=2.0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(n_maps, n, f.n_dims, generator=generator, dtype=torch.float64)


def plain_value(f, theta, x):
    """One map at one point by the equations of arXiv:2604.26942, sec. 2, with an explicit temperature."""
    p = {name: value[0].numpy() for name, value in unpack(theta[None], f.shapes).items()}

    def softplus(r):
        return np.log1p(np.exp(-np.abs(r))) + np.maximum(r, 0)

    def gate(a, b, layer):
        if f.gate == "max":
            return np.maximum(a, b)
        tau = softplus(p["tau"][0, layer])
        return tau * np.logaddexp(a / tau, b / tau)

    z = x
    for layer, width in enumerate(f.hidden):
        branches = []
        for branch in (slice(0, width), slice(width, 2 * width)):
            a = np.array([p[f"W{layer}"][:, branch][:, j] @ x for j in range(width)]) + p[f"b{layer}"][0, branch]
            if layer:
                a += softplus(p[f"V{layer}"][:, branch]).T @ z
            elif f.quadratic_skip:
                a += (p["Q"][:, branch].T @ x) ** 2
            branches.append(a)
        z = gate(*branches, layer)
    return softplus(p["v"][0]) @ z + p["w"][0] @ x + softplus(p["q"][0, 0]) / 2 * (x @ x)


# ---- value and gradient


@pytest.mark.parametrize("options", EVERY)
def test_value_follows_the_papers_equations(options):
    f = HyCNN(n_dims=3, **options)
    theta, x = draw(f, n_maps=2), points(f, n_maps=2)
    expected = [[plain_value(f, row, point.numpy()) for point in cloud] for row, cloud in zip(theta, x, strict=True)]
    np.testing.assert_allclose(f.value(f.weights(theta), x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("options", EVERY)
def test_explicit_gradient_is_autograds(options):
    f = HyCNN(n_dims=3, **options)
    weights, x = f.weights(draw(f, n_maps=2)), points(f, n_maps=2).requires_grad_()
    (expected,) = torch.autograd.grad(f.value(weights, x).sum(), x)
    torch.testing.assert_close(f.gradient(weights, x), expected, rtol=1e-11, atol=1e-11)


def test_explicit_gradient_passes_gradcheck_in_parameters_and_points():
    f = HyCNN(n_dims=2, hidden=(3, 2))
    theta, x = draw(f, n_maps=2).requires_grad_(), points(f, n_maps=2, n=3).requires_grad_()
    assert torch.autograd.gradcheck(lambda t, z: f.gradient(f.weights(t), z), (theta, x))
    assert torch.autograd.gradcheck(lambda t, z: f.value(f.weights(t), z), (theta, x))


@pytest.mark.parametrize("options", EVERY)
def test_training_through_the_explicit_gradient_is_double_backward(options):
    f = HyCNN(n_dims=3, **options)
    theta, x = draw(f, n_maps=2).requires_grad_(), points(f, n_maps=2).requires_grad_()
    (inner,) = torch.autograd.grad(f.value(f.weights(theta), x).sum(), x, create_graph=True)
    (twice,) = torch.autograd.grad(inner.square().sum(), theta, materialize_grads=True)
    (once,) = torch.autograd.grad(f.gradient(f.weights(theta), x).square().sum(), theta)
    torch.testing.assert_close(once, twice, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("gate", ["smooth", "max"])
def test_maps_in_a_batch_equal_each_map_alone(gate):
    f = HyCNN(n_dims=3, hidden=(5, 4), gate=gate)
    theta, x = draw(f, n_maps=3), points(f, n_maps=3)
    together = f.value(f.weights(theta), x), f.gradient(f.weights(theta), x)
    for k in range(3):
        alone = f.weights(theta[k : k + 1])
        torch.testing.assert_close(f.value(alone, x[k : k + 1])[0], together[0][k], rtol=1e-13, atol=1e-13)
        torch.testing.assert_close(f.gradient(alone, x[k : k + 1])[0], together[1][k], rtol=1e-13, atol=1e-13)


def test_a_maps_loss_reaches_only_its_own_parameters():
    f = HyCNN(n_dims=3, hidden=(5, 4))
    theta = draw(f, n_maps=3).requires_grad_()
    (grad,) = torch.autograd.grad(f.gradient(f.weights(theta), points(f, n_maps=3))[1].square().sum(), theta)
    assert not grad[[0, 2]].any()
    assert grad[1].any()


def test_every_parameter_matters():
    """Each parameter moves the value somewhere: none is drawn and then forgotten."""
    f = HyCNN(n_dims=3, hidden=(5, 4))
    theta = draw(f).requires_grad_()
    (grad,) = torch.autograd.grad(f.value(f.weights(theta), points(f, n=200)).square().sum(), theta)
    assert (grad != 0).all()


def test_gradient_leaves_weights_and_points_untouched():
    f = HyCNN(n_dims=3, hidden=(5, 4))
    weights, x = f.weights(draw(f)), points(f)
    copies = {name: weight.clone() for name, weight in weights.items()}, x.clone()
    f.value(weights, x), f.gradient(weights, x)
    assert all(torch.equal(weight, copies[0][name]) for name, weight in weights.items())
    assert torch.equal(x, copies[1])


def test_a_cloud_shared_by_all_maps_may_be_expanded():
    f = HyCNN(n_dims=3, hidden=(5, 4))
    weights, x = f.weights(draw(f, n_maps=3)), points(f)
    shared = f.gradient(weights, x.expand(3, -1, -1))
    torch.testing.assert_close(shared, f.gradient(weights, x.repeat(3, 1, 1)))


def test_no_points_give_empty_results():
    f = HyCNN(n_dims=3, hidden=(5, 4))
    weights, x = f.weights(draw(f)), torch.empty(1, 0, 3, dtype=torch.float64)
    assert f.value(weights, x).shape == (1, 0)
    assert f.gradient(weights, x).shape == (1, 0, 3)


# ---- convexity, for whatever the parameters are

SMALL = {
    (gate, skip): HyCNN(n_dims=2, hidden=(3, 2), gate=gate, quadratic_skip=skip)
    for gate, skip in itertools.product(("smooth", "max"), (True, False))
}


@st.composite
def functions(draw_from):
    """A HyCNN with parameters from tiny to very large: nothing that training could reach is excluded."""
    f = SMALL[draw_from(st.sampled_from(sorted(SMALL)))]
    theta = draw_from(arrays(np.float64, f.n_parameters, elements=st.floats(-30, 30)))
    return f, torch.from_numpy(theta)[None]


segment_ends = arrays(np.float64, (2, 8, 2), elements=st.floats(-10, 10))


@settings(max_examples=150, deadline=None)
@given(functions(), segment_ends, st.floats(0.05, 0.95))
def test_convex_on_segments_for_any_parameters(function, ends, t):
    f, theta = function
    weights = f.weights(theta)
    a, b = torch.from_numpy(ends)[:, None]
    left, right = f.value(weights, a), f.value(weights, b)
    between = f.value(weights, (1 - t) * a + t * b)
    rounding = 1e-8 * (1 + left.abs() + right.abs())
    assert (between <= (1 - t) * left + t * right + rounding).all()


@settings(max_examples=150, deadline=None)
@given(functions(), segment_ends)
def test_gradient_is_monotone_with_modulus_q_for_any_parameters(function, ends):
    """f - q|x|^2/2 is convex as well: <grad f(a) - grad f(b), a - b> >= q |a - b|^2."""
    f, theta = function
    weights = f.weights(theta)
    a, b = torch.from_numpy(ends)[:, None]
    at_a, at_b = f.gradient(weights, a), f.gradient(weights, b)
    apart = a - b
    product = ((at_a - at_b) * apart).sum(-1)
    rounding = 1e-9 * (1 + at_a.norm(dim=-1) + at_b.norm(dim=-1)) * apart.norm(dim=-1)
    assert (product >= weights["q"].squeeze() * apart.square().sum(-1) - rounding).all()


@settings(max_examples=100, deadline=None)
@given(functions())
def test_weights_that_carry_convexity_are_positive_for_any_parameters(function):
    f, theta = function
    weights = f.weights(theta)
    for name in ("V1", "v", "q"):
        assert (weights[name] > 0).all(), name
    assert all(weight.isfinite().all() for weight in weights.values())


def test_a_strong_convexity_of_one_is_a_unit_slope_more():
    """Two HyCNNs that differ in q alone differ by the quadratic."""
    weak, strong = (HyCNN(n_dims=3, hidden=(5, 4), strong_convexity=q) for q in (0.5, 1.5))
    x = points(weak).float()
    at_weak, at_strong = (f.gradient(f.weights(f.init(1, torch.Generator().manual_seed(0))), x) for f in (weak, strong))
    torch.testing.assert_close(at_strong - at_weak, x, rtol=1e-5, atol=1e-5)


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


def test_the_temperature_starts_where_it_is_told():
    f = HyCNN(n_dims=3, hidden=(5, 4), temperature=0.3)
    free = unpack(f.init(2, torch.Generator().manual_seed(0)), f.shapes)
    torch.testing.assert_close(torch.nn.functional.softplus(free["tau"]), torch.full((2, 1, 2), 0.3))


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


def test_output_scale_shrinks_the_last_layer_alone():
    paper, small = (HyCNN(n_dims=3, hidden=(5, 4), output_scale=scale) for scale in (1.0, 0.25))
    free, shrunk = (unpack(f.init(2, torch.Generator().manual_seed(0)), f.shapes) for f in (paper, small))
    for name, value in free.items():
        if name == "v":
            a, b = (torch.nn.functional.softplus(v) for v in (value, shrunk[name]))
            torch.testing.assert_close(b, a / 4, rtol=1e-4, atol=1e-7)
        else:
            assert torch.equal(shrunk[name], value / 4 if name == "w" else value), name


def test_a_small_output_scale_with_q_near_one_starts_near_the_identity():
    f = HyCNN(n_dims=5, hidden=(16, 16), strong_convexity=0.99, output_scale=1e-3)
    x = points(f).float()
    at_x = f.gradient(f.weights(f.init(1, torch.Generator().manual_seed(0))), x)
    torch.testing.assert_close(at_x, x, rtol=0.05, atol=0.05)


def test_the_generator_decides():
    f = HyCNN(n_dims=3, hidden=(5, 4))
    first, again, other = (f.init(2, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[0], first[1])
    assert first.shape == (2, f.n_parameters)
    assert first.dtype == torch.float32


def test_the_global_random_state_is_left_alone():
    before = torch.get_rng_state()
    HyCNN(n_dims=3).init(2, torch.Generator().manual_seed(0))
    assert torch.equal(torch.get_rng_state(), before)


def test_softplus_and_its_inverse_meet():
    values = torch.tensor([1e-6, 1e-3, 0.5, 1.0, 10.0, 80.0], dtype=torch.float64)
    torch.testing.assert_close(torch.nn.functional.softplus(inverse_softplus(values)), values)


def test_log_normal_draws_have_the_mean_and_variance_asked_for():
    drawn = log_normal((200_000,), 2.0, 0.5, torch.Generator().manual_seed(0))
    assert float(drawn.mean()) == pytest.approx(2, rel=0.01)
    assert float(drawn.var()) == pytest.approx(0.5, rel=0.02)


# ---- bad architectures


@pytest.mark.parametrize(
    "options",
    [{"n_dims": 0}, {"n_dims": 2, "hidden": ()}, {"n_dims": 2, "hidden": (4, 0)}, {"n_dims": -1}],
)
def test_it_needs_a_dimension_and_a_hidden_layer(options):
    with pytest.raises(ValueError, match="at least one dimension and one hidden layer"):
        HyCNN(**options)


def test_an_unknown_gate_lists_the_choices():
    with pytest.raises(ValueError, match=r"gate='mean' is unknown; choose 'smooth' or 'max'"):
        HyCNN(n_dims=2, gate="mean")


@pytest.mark.parametrize("name", ["temperature", "output_scale"])
@pytest.mark.parametrize("value", [0.0, -1.0])
def test_scales_must_be_positive(name, value):
    with pytest.raises(ValueError, match=rf"{name}={value}.* must be positive"):
        HyCNN(n_dims=2, **{name: value})


def test_strong_convexity_is_not_negative_and_zero_leaves_it_out():
    with pytest.raises(ValueError, match=r"strong_convexity=-1\.0 not negative"):
        HyCNN(n_dims=2, strong_convexity=-1.0)
    assert "q" not in HyCNN(n_dims=2, strong_convexity=0.0).shapes


def test_an_unknown_annealing_lists_the_choices():
    with pytest.raises(ValueError, match="annealing='slow' is unknown; choose 'learned', 'fixed' or 'cyclic'"):
        HyCNN(n_dims=2, annealing="slow")
