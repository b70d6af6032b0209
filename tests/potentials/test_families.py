"""Every family with every option: against a plain implementation of its equations, autograd, and itself in a batch."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
import torch

from scot_hycnn.potentials import ICNN, MLP, GroupMax, HyCNN
from scot_hycnn.potentials._parameters import unpack

SHAPES = [(5,), (7, 3), (4, 6, 5)]
ACTIVATIONS = ("softplus", "relu", "leaky_relu")


def every_network():
    """Each family with each combination of what changes its equations."""
    for hidden, skip, q in itertools.product(SHAPES, (True, False), (0.1, 0.0)):
        common = {"n_dims": 3, "hidden": hidden, "quadratic_skip": skip, "strong_convexity": q}
        for family, gate in itertools.product((HyCNN, GroupMax), ("smooth", "max")):
            yield family(**common, gate=gate, temperature=0.5)
        for activation in ACTIVATIONS:
            for constraint in ("hard", "soft"):
                yield ICNN(**common, activation=activation, constraint=constraint, temperature=0.5)
            yield MLP(**common, activation=activation, temperature=0.5)
        for family in (HyCNN, GroupMax, ICNN):
            yield family(**common, monotone="+0-")


def label(f):
    skip, q = "-Q" if f.quadratic_skip else "", "-q" if f.strong_convexity else ""
    gate = getattr(f, "gate", "") or f"{f.activation}-{getattr(f, 'constraint', '')}"
    return f"{type(f).__name__}-{f.hidden}-{gate}{skip}{q}{f.monotone}"


NETWORKS = list(every_network())
every = pytest.mark.parametrize("f", NETWORKS, ids=label)
# For what has nothing to do with single options.
SOME = [
    HyCNN(n_dims=3, hidden=(5, 4)),
    GroupMax(n_dims=3, hidden=(5, 4), quadratic_skip=True),
    ICNN(n_dims=3, hidden=(5, 4), quadratic_skip=True),
    ICNN(n_dims=3, hidden=(5, 4), constraint="soft"),
    MLP(n_dims=3, hidden=(5, 4), quadratic_skip=True),
]
some = pytest.mark.parametrize("f", SOME, ids=label)


def draw(f, n_maps=1, seed=0, noise=0.3):
    """Parameters near the initial ones, but with temperatures and biases that differ from layer to layer."""
    generator = torch.Generator().manual_seed(seed)
    theta = f.init(n_maps, generator).double()
    return theta + noise * torch.randn(theta.shape, generator=generator, dtype=torch.float64)


def points(f, n_maps=1, n=40, seed=1, scale=2.0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(n_maps, n, f.n_dims, generator=generator, dtype=torch.float64)


class Plain:
    """One map at one point, one unit after the other, by the equations of the families' docstrings."""

    def __init__(self, f, theta):
        self.f = f
        self.p = {name: value[0].numpy().copy() for name, value in unpack(theta[None], f.shapes).items()}
        free = isinstance(f, MLP) or getattr(f, "constraint", "hard") == "soft"
        for name in self.p:
            if name in ("q", "tau") or (name[0] in "Vv" and not free):
                self.p[name] = np.logaddexp(0, self.p[name])
        self.input_skips = isinstance(f, (HyCNN, ICNN))
        self.signs = {index: {"+": 1, "-": -1}[sign] for index, sign in enumerate(f.monotone) if sign != "0"}
        self.constrain()

    def constrain(self):
        """What multiplies a monotone dimension has its sign, and is 0 where the slope would change its sign."""
        for index, sign in self.signs.items():
            for name in self.p:
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
        if isinstance(self.f, (HyCNN, GroupMax)):
            a, b = (self.branch(layer, column, x, z) for column in (j, self.f.hidden[layer] + j))
            tau = self.p["tau"][0, layer] if self.f.gate == "smooth" else 0
            return tau * np.logaddexp(a / tau, b / tau) if tau else max(a, b)
        a, tau = self.branch(layer, j, x, z), self.f.temperature
        return {"relu": max(a, 0), "leaky_relu": max(a, 0.2 * a), "softplus": tau * np.logaddexp(0, a / tau)}[
            self.f.activation
        ]

    def branch(self, layer, column, x, z):
        a = self.p[f"b{layer}"][0, column]
        if not layer or self.input_skips:
            a = a + self.p[f"W{layer}"][:, column] @ x
        if layer:
            return a + self.p[f"V{layer}"][:, column] @ z
        return a + (self.p["Q"][:, column] @ x) ** 2 if self.f.quadratic_skip else a


# ---- value and gradient


@every
def test_value_follows_the_equations(f):
    theta, x = draw(f, n_maps=2), points(f, n_maps=2, n=15)
    expected = [[Plain(f, row).value(x_i) for x_i in cloud.numpy()] for row, cloud in zip(theta, x, strict=True)]
    np.testing.assert_allclose(f.value(f.weights(theta), x), expected, rtol=1e-12, atol=1e-12)


@every
def test_explicit_gradient_is_autograds(f):
    weights, x = f.weights(draw(f, n_maps=2)), points(f, n_maps=2).requires_grad_()
    (expected,) = torch.autograd.grad(f.value(weights, x).sum(), x)
    torch.testing.assert_close(f.gradient(weights, x), expected, rtol=1e-11, atol=1e-11)


@every
def test_training_through_the_explicit_gradient_is_double_backward(f):
    theta, x = draw(f, n_maps=2).requires_grad_(), points(f, n_maps=2).requires_grad_()
    (inner,) = torch.autograd.grad(f.value(f.weights(theta), x).sum(), x, create_graph=True)
    (twice,) = torch.autograd.grad(inner.square().sum(), theta, materialize_grads=True)
    (once,) = torch.autograd.grad(f.gradient(f.weights(theta), x).square().sum(), theta)
    torch.testing.assert_close(once, twice, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("family", [HyCNN, GroupMax, ICNN, MLP])
def test_explicit_gradient_passes_gradcheck_in_parameters_and_points(family):
    f = family(n_dims=2, hidden=(3, 2), quadratic_skip=True)
    theta, x = draw(f, n_maps=2).requires_grad_(), points(f, n_maps=2, n=3).requires_grad_()
    assert torch.autograd.gradcheck(lambda t, z: f.gradient(f.weights(t), z), (theta, x))
    assert torch.autograd.gradcheck(lambda t, z: f.value(f.weights(t), z), (theta, x))


# ---- K maps at once


@every
def test_maps_in_a_batch_equal_each_map_alone(f):
    theta, x = draw(f, n_maps=3), points(f, n_maps=3)
    together = f.value(f.weights(theta), x), f.gradient(f.weights(theta), x)
    for k in range(3):
        alone = f.weights(theta[k : k + 1])
        torch.testing.assert_close(f.value(alone, x[k : k + 1])[0], together[0][k], rtol=1e-13, atol=1e-13)
        torch.testing.assert_close(f.gradient(alone, x[k : k + 1])[0], together[1][k], rtol=1e-13, atol=1e-13)


@some
def test_a_maps_loss_reaches_only_its_own_parameters(f):
    theta = draw(f, n_maps=3).requires_grad_()
    (grad,) = torch.autograd.grad(f.gradient(f.weights(theta), points(f, n_maps=3))[1].square().sum(), theta)
    assert not grad[[0, 2]].any()
    assert grad[1].any()


@every
def test_every_parameter_matters(f):
    """Each parameter moves the value somewhere: none is drawn and then forgotten. (Single maps may have dead units.)"""
    theta, x = draw(f, n_maps=20).requires_grad_(), points(f, n_maps=20)
    (grad,) = torch.autograd.grad(f.value(f.weights(theta), x).square().sum(), theta)
    for name, slope in unpack((grad != 0).any(0, keepdim=True), f.shapes).items():
        # A monotone dimension has no squares.
        of_free = [sign not in "+-" for sign in f.monotone or "000"]
        assert torch.equal(slope[0].all(1), torch.tensor(of_free)) if name == "Q" else slope.all(), name


@every
def test_gradient_leaves_weights_and_points_untouched(f):
    weights, x = f.weights(draw(f)), points(f)
    copies = {name: weight.clone() for name, weight in weights.items()}, x.clone()
    f.value(weights, x), f.gradient(weights, x), f.penalty(weights)
    assert all(torch.equal(weight, copies[0][name]) for name, weight in weights.items())
    assert torch.equal(x, copies[1])


@some
def test_a_cloud_shared_by_all_maps_may_be_expanded(f):
    weights, x = f.weights(draw(f, n_maps=3)), points(f)
    torch.testing.assert_close(f.gradient(weights, x.expand(3, -1, -1)), f.gradient(weights, x.repeat(3, 1, 1)))


@some
def test_no_points_give_empty_results(f):
    weights, x = f.weights(draw(f)), torch.empty(1, 0, 3, dtype=torch.float64)
    assert f.value(weights, x).shape == (1, 0)
    assert f.gradient(weights, x).shape == (1, 0, 3)


# ---- what a family says of itself


@every
def test_convex_is_what_no_parameters_can_spoil(f):
    assert f.convex == (not isinstance(f, MLP) and getattr(f, "constraint", "hard") == "hard")


@every
def test_shapes_are_those_of_the_parameters(f):
    theta = f.init(2, torch.Generator().manual_seed(0))
    assert theta.shape == (2, f.n_parameters)
    assert {name: tuple(value.shape[1:]) for name, value in unpack(theta, f.shapes).items()} == f.shapes
    assert ("q" in f.shapes) == bool(f.strong_convexity)
    assert ("Q" in f.shapes) == f.quadratic_skip
    assert ("w" in f.shapes) == isinstance(f, (HyCNN, ICNN))
    assert ("tau" in f.shapes) == (getattr(f, "gate", "") == "smooth")


@every
def test_the_penalty_takes_the_negative_weights_between_layers_alone(f):
    weights = f.weights(draw(f, n_maps=3, noise=1.0))
    penalty = f.penalty(weights)
    assert penalty.shape == (3,)
    if getattr(f, "constraint", "hard") == "hard":
        assert not penalty.any()
        return
    by_hand = [
        sum(min(v, 0) ** 2 for name in weights if name[0] in "Vv" for v in weights[name][k].ravel().tolist())
        for k in range(3)
    ]
    assert min(by_hand) > 0
    np.testing.assert_allclose(penalty, by_hand, rtol=1e-12)


def test_the_penalty_pulls_negative_weights_up_and_leaves_others():
    f = ICNN(n_dims=3, hidden=(5, 4), constraint="soft")
    theta = draw(f, n_maps=2, noise=1.0).requires_grad_()
    (grad,) = torch.autograd.grad(f.penalty(f.weights(theta)).sum(), theta)
    free = unpack(theta.detach(), f.shapes)
    for name, slope in unpack(grad, f.shapes).items():
        torch.testing.assert_close(slope, 2 * free[name].clamp_max(0) if name[0] in "Vv" else torch.zeros_like(slope))


DECAYING = {HyCNN: "WQw", GroupMax: "WQw", ICNN: "WQw", MLP: "WVvQ"}


@some
def test_decay_takes_what_makes_the_map_nonlinear_and_no_free_parameter_of_a_positive_weight(f):
    for name in f.shapes:
        assert f.decays(name) == (name[0] in DECAYING[type(f)]), name


# ---- how it starts


@some
def test_the_generator_decides(f):
    first, again, other = (f.init(2, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[0], first[1])
    assert first.dtype == torch.float32


@some
def test_the_global_random_state_is_left_alone(f):
    before = torch.get_rng_state()
    f.init(2, torch.Generator().manual_seed(0))
    assert torch.equal(torch.get_rng_state(), before)


@every
def test_output_scale_shrinks_the_last_layer_alone(f):
    small = type(f)(**{**vars(f), "output_scale": 0.25})
    weights, shrunk = (g.weights(g.init(2, torch.Generator().manual_seed(0)).double()) for g in (f, small))
    for name, value in weights.items():
        torch.testing.assert_close(
            # Slopes with a sign stay a little above zero, which has no inverse softplus.
            shrunk[name],
            value / 4 if name in ("v", "w") else value,
            rtol=1e-4,
            atol=2e-6 if f.monotone else 1e-7,
        )


@every
def test_strong_convexity_starts_as_told(f):
    weights = f.weights(f.init(2, torch.Generator().manual_seed(0)))
    if f.strong_convexity:
        free = [0.0 if sign in "+-" else f.strong_convexity for sign in f.monotone] or [f.strong_convexity]
        torch.testing.assert_close(weights["q"], torch.tensor(free).expand(2, 1, -1))


@every
def test_a_unit_more_of_strong_convexity_is_a_unit_slope_more(f):
    """Two networks that differ in q alone differ by the quadratic."""
    weak, strong = (type(f)(**{**vars(f), "strong_convexity": q}) for q in (0.5, 1.5))
    x = points(f).float()
    at_weak, at_strong = (g.gradient(g.weights(g.init(1, torch.Generator().manual_seed(0))), x) for g in (weak, strong))
    free = torch.tensor([sign not in "+-" for sign in f.monotone or "000"])
    torch.testing.assert_close(at_strong - at_weak, x * free, rtol=1e-5, atol=1e-5)


@some
def test_a_small_output_scale_with_q_near_one_starts_near_the_identity(f):
    near = type(f)(**{**vars(f), "strong_convexity": 0.99, "output_scale": 1e-3})
    x = points(f).float()
    at_x = near.gradient(near.weights(near.init(1, torch.Generator().manual_seed(0))), x)
    torch.testing.assert_close(at_x, x, rtol=0.05, atol=0.05)


@some
def test_what_it_starts_with_is_finite_at_any_width(f):
    wide = type(f)(**{**vars(f), "hidden": (1, 512, 1)})
    theta = wide.init(1, torch.Generator().manual_seed(0))
    assert theta.isfinite().all()
    assert wide.value(wide.weights(theta), points(f).float()).isfinite().all()


# ---- bad architectures


@pytest.mark.parametrize("family", [HyCNN, GroupMax, ICNN, MLP])
@pytest.mark.parametrize(
    "options",
    [{"n_dims": 0}, {"n_dims": 2, "hidden": ()}, {"n_dims": 2, "hidden": (4, 0)}, {"n_dims": -1}],
)
def test_it_needs_a_dimension_and_a_hidden_layer(family, options):
    with pytest.raises(ValueError, match=rf"{family.__name__} needs at least one dimension and one hidden layer"):
        family(**options)


@pytest.mark.parametrize("family", [HyCNN, GroupMax, ICNN, MLP])
@pytest.mark.parametrize("name", ["temperature", "output_scale"])
@pytest.mark.parametrize("value", [0.0, -1.0])
def test_scales_must_be_positive(family, name, value):
    with pytest.raises(ValueError, match=rf"{name}={value}.* must be positive"):
        family(n_dims=2, **{name: value})


@pytest.mark.parametrize("family", [HyCNN, GroupMax, ICNN, MLP])
def test_strong_convexity_is_not_negative(family):
    with pytest.raises(ValueError, match=r"strong_convexity=-1\.0 not negative"):
        family(n_dims=2, strong_convexity=-1.0)


@pytest.mark.parametrize("family", [HyCNN, GroupMax])
def test_an_unknown_gate_or_annealing_lists_the_choices(family):
    with pytest.raises(ValueError, match=r"^gate='mean' is unknown; choose 'smooth' or 'max'\.$"):
        family(n_dims=2, gate="mean")
    with pytest.raises(ValueError, match=r"^annealing='slow' is unknown; choose 'learned', 'fixed' or 'cyclic'\.$"):
        family(n_dims=2, annealing="slow")


@pytest.mark.parametrize("family", [ICNN, MLP])
def test_an_unknown_activation_lists_the_choices(family):
    with pytest.raises(
        ValueError, match=r"^activation='elu' is unknown; choose one of \['relu', 'leaky_relu', 'softplus'\]\.$"
    ):
        family(n_dims=2, activation="elu")


@pytest.mark.parametrize("family", [HyCNN, GroupMax, ICNN])
@pytest.mark.parametrize("monotone", ["+", "+-0", "+x", "  "])
def test_monotone_has_a_sign_for_each_dimension(family, monotone):
    sentence = f"monotone={monotone!r} must be empty, or one of '+', '-' and '0' for each of the 2 dimensions."
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        family(n_dims=2, monotone=monotone)


@pytest.mark.parametrize(("family", "options"), [(MLP, {}), (ICNN, {"constraint": "soft"})])
def test_only_positive_weights_between_layers_can_be_monotone(family, options):
    match = rf"^monotone='\+0' needs positive weights between layers; {family.__name__} has others\.$"
    with pytest.raises(ValueError, match=match):
        family(n_dims=2, monotone="+0", **options)


def test_an_unknown_constraint_lists_the_choices():
    with pytest.raises(ValueError, match=r"^constraint='firm' is unknown; choose 'hard' or 'soft'\.$"):
        ICNN(n_dims=2, constraint="firm")
