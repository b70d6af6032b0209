"""Conjugates against closed forms, and what refinement promises for any function."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scot_hycnn.potentials import HyCNN
from scot_hycnn.solver.model._blended import ascend, solve


def normal(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def quadratic(n_dims, condition):
    """P with the given condition number, for f = x'Px/2, whose maximiser is P^-1 y."""
    axes, _ = torch.linalg.qr(normal(0, n_dims, n_dims))
    return (axes * torch.logspace(0, float(np.log10(condition)), n_dims, dtype=torch.float64)) @ axes.T


class LogSumExp:
    """f(x) = log sum_i e^<a_i, x> + |x|^2/2, strictly convex and not quadratic."""

    def __init__(self, n_dims=3, n_vectors=6):
        self.vectors = 2 * normal(5, n_vectors, n_dims)

    def value(self, x):
        return torch.logsumexp(x @ self.vectors.T, -1) + x.square().sum(-1) / 2

    def gradient(self, x):
        return torch.softmax(x @ self.vectors.T, -1) @ self.vectors + x


@pytest.mark.parametrize("condition", [1, 10, 100])
def test_solve_inverts_a_quadratic(condition):
    P, y = quadratic(4, condition), normal(1, 50, 4)
    x, residual = solve(lambda z: z @ P, y, y, tolerance=1e-5)
    torch.testing.assert_close(x, torch.linalg.solve(P, y.T).T, atol=1e-5, rtol=1e-5)
    assert (residual <= 1e-5).all()


def test_solve_finds_points_whose_gradients_were_given():
    f, x = LogSumExp(), 2 * normal(2, 100, 3)
    found, residual = solve(f.gradient, f.gradient(x), torch.zeros_like(x), tolerance=1e-5)
    torch.testing.assert_close(found, x, atol=1e-4, rtol=1e-4)
    assert (residual <= 1e-5).all()


def test_in_one_dimension_the_conjugate_is_the_entropy():
    """f = log(1 + e^x) has f*(y) = y log y + (1 - y) log(1 - y) on (0, 1)."""
    y = torch.linspace(0.02, 0.98, 49, dtype=torch.float64).view(-1, 1)
    x, _ = solve(torch.sigmoid, y, torch.zeros_like(y), tolerance=1e-10)
    conjugate = (x * y - torch.nn.functional.softplus(x)).squeeze(-1)
    expected = (torch.special.xlogy(y, y) + torch.special.xlogy(1 - y, 1 - y)).squeeze(-1)
    torch.testing.assert_close(conjugate, expected, atol=1e-8, rtol=1e-8)


def test_fenchel_young_holds_with_equality_at_the_maximisers():
    f, x, y = LogSumExp(), normal(3, 40, 3), normal(4, 30, 3)
    best, _ = solve(f.gradient, y, y, tolerance=1e-10)
    conjugate = (best * y).sum(-1) - f.value(best)
    slack = f.value(x)[:, None] + conjugate[None, :] - x @ y.T
    assert slack.min() > 0
    at_maximisers = f.value(best) + conjugate - (best * y).sum(-1)
    torch.testing.assert_close(at_maximisers, torch.zeros_like(at_maximisers), atol=1e-9, rtol=0)
    # No nearby point is better: these are maxima.
    for seed in range(5):
        moved = best + 0.01 * normal(seed, *best.shape)
        assert ((moved * y).sum(-1) - f.value(moved) <= conjugate).all()


def test_a_network_is_inverted_to_tolerance():
    network = HyCNN(n_dims=3, hidden=(8, 8), strong_convexity=0.5)
    weights = network.weights(network.init(1, torch.Generator().manual_seed(0)))
    y = normal(1, 200, 3).float()
    x, residual = solve(lambda z: network.gradient(weights, z[None])[0], y, y)
    torch.testing.assert_close(residual, (y - network.gradient(weights, x[None])[0]).norm(dim=-1))
    assert residual.max() <= 1e-3


def test_points_that_did_not_converge_say_so():
    P, y = quadratic(4, 1e6), normal(1, 20, 4)
    _, residual = solve(lambda z: z @ P, y, y, tolerance=1e-12, max_steps=10)
    assert (residual > 1e-12).all()


def test_solved_points_stop_and_slow_ones_go_on():
    """Points in easy and hard directions: later calls see the hard ones alone."""
    P, calls = torch.diag(torch.linspace(1, 40, 20, dtype=torch.float64)), []
    easy = normal(0, 30, 20) * torch.eye(20)[0]
    y = torch.cat([easy, normal(1, 5, 20)])

    def gradient(z):
        calls.append(len(z))
        return z @ P

    _, residual = solve(gradient, y, y, tolerance=1e-5)
    assert (residual <= 1e-5).all()
    assert calls[0] == 35
    assert calls[11:]
    assert max(calls[11:]) <= 5


# ---- refinement


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.floats(0.01, 100), st.integers(0, 12))
def test_the_residual_never_grows_and_is_the_true_one(seed, stiffness, n_steps):
    f, y = LogSumExp(), 3 * normal(seed, 2, 10, 3)
    start = 5 * normal(seed + 1, 2, 10, 3)

    def gradient(z):
        return stiffness * f.gradient(z)

    previous = (y - gradient(start)).norm(dim=-1)
    for steps in (n_steps, n_steps + 1, n_steps + 3):
        best, residual, _ = ascend(gradient, y, start, n_steps=steps)
        assert (residual <= previous + 1e-12).all()
        torch.testing.assert_close(residual, (y - gradient(best)).norm(dim=-1))
        previous = residual


def test_no_steps_return_the_start():
    y, start = normal(0, 1, 5, 3), normal(1, 1, 5, 3)
    best, residual, _ = ascend(lambda z: 2 * z, y, start, n_steps=0)
    assert torch.equal(best, start)
    torch.testing.assert_close(residual, (y - 2 * start).norm(dim=-1))


def test_for_half_the_squared_norm_one_step_is_exact():
    y = normal(0, 1, 5, 3)
    best, residual, _ = ascend(lambda z: z, y, torch.zeros_like(y), n_steps=1)
    torch.testing.assert_close(best, y)
    assert residual.max() < 1e-12


def test_maps_do_not_disturb_each_other():
    P = torch.stack([quadratic(3, 10), 3 * quadratic(3, 2)])
    y = normal(0, 2, 10, 3)
    together, *_ = ascend(lambda z: z @ P, y, y, n_steps=6)
    for k in range(2):
        alone, *_ = ascend(lambda z, P=P[k]: z @ P, y[k : k + 1], y[k : k + 1], n_steps=6)
        torch.testing.assert_close(together[k : k + 1], alone)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_point_without_an_answer_does_not_touch_its_neighbours(bad):
    f, y = LogSumExp(), normal(0, 6, 3)
    start = y.clone()
    clean, _ = solve(f.gradient, y, start)
    y[2, 1] = bad
    spoiled, residual = solve(f.gradient, y, start)
    others = [0, 1, 3, 4, 5]
    torch.testing.assert_close(spoiled[others], clean[others])
    assert spoiled.isfinite().all()
    assert not residual[2] <= 1e-3


def test_a_gradient_that_overflows_leaves_the_best_point_so_far():
    def gradient(z):
        return torch.exp(20 * z) - 1

    y = torch.full((1, 1, 1), 50.0)
    start = torch.zeros(1, 1, 1)
    best, residual, _ = ascend(gradient, y, start, n_steps=20)
    assert best.isfinite().all()
    assert residual <= 50
    # The first step lands where the gradient is infinite.
    assert gradient(start + y).isinf().all()


def test_a_flat_function_does_not_divide_by_zero():
    y = normal(0, 1, 4, 2)
    best, residual, _ = ascend(torch.zeros_like, y, y, n_steps=10)
    assert best.isfinite().all()
    torch.testing.assert_close(residual, y.norm(dim=-1))


def test_inputs_stay_untouched():
    f, y, start = LogSumExp(), normal(0, 10, 3), normal(1, 10, 3)
    copies = y.clone(), start.clone()
    solve(f.gradient, y, start)
    assert torch.equal(y, copies[0])
    assert torch.equal(start, copies[1])
