"""One step of each training method against its equations, point by point, in double precision."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch

from scot_hycnn.potentials import ICNN, HyCNN
from scot_hycnn.potentials._potential import unpack
from scot_hycnn.solver.baselines import enot_step, minimax_step, w2gn_step
from scot_hycnn.solver.model._blended import ascend
from scot_hycnn.solver.training._optimiser import CURVATURE_DECAY, RENEW_EVERY, Optimiser, cosine
from scot_hycnn.solver.training._semi_dual import ConjugateCache, semi_dual_step

N_MAPS, BATCH, LR = 2, 5, 0.01
HARD = HyCNN(2, (4, 3))
SOFT = ICNN(2, (4, 3), constraint="soft", quadratic_skip=True)


def normal(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def batch(seed=0, n=BATCH):
    rows = torch.arange(n).expand(N_MAPS, n)
    return normal(2 * seed, N_MAPS, n, 2), 2 * normal(2 * seed + 1, N_MAPS, n, 2) + 1, rows


def optimiser(network, seed, noise=0.5, **options):
    """Networks at some distance from their start, so that some weights of a soft one are negative."""
    theta = network.init(N_MAPS, torch.Generator().manual_seed(seed)).double()
    theta += noise * normal(seed, *theta.shape)
    # Without momentum the mean of the gradients is the last one.
    defaults = {"betas": (0.0, 0.9), "weight_decay": 0.0, "max_norm": math.inf, "averaging": 0.98}
    return Optimiser(network, theta, **defaults | options)


class Alone:
    """One map as a function of one point, with its gradient by autograd."""

    def __init__(self, network, theta):
        self.network, self.weights = network, network.weights(theta[None])
        self.fixed = {name: weight.detach() for name, weight in self.weights.items()}

    def value(self, x, weights=None):
        return self.network.value(self.weights if weights is None else weights, x.view(1, 1, -1)).squeeze()

    def gradient(self, x):
        x = x if x.requires_grad else x.clone().requires_grad_()
        return torch.autograd.grad(self.value(x), x, create_graph=True)[0]

    def penalty(self):
        if getattr(self.network, "constraint", "hard") == "hard":
            return 0.0
        return sum(w.clamp_max(0).square().sum() for name, w in self.weights.items() if name[0] in "Vv")


def mean(values):
    return torch.stack(list(values)).mean()


def refined(f, y, x, n_steps, size=1.0):
    """Barzilai-Borwein ascent of one point: the best iterate and the last step size."""
    r = y - f.gradient(x).detach()
    best, smallest = x, float(r.norm())
    for _ in range(n_steps):
        moved = x + size * r
        r_moved = y - f.gradient(moved).detach()
        if float(r_moved.norm()) < smallest:
            best, smallest = moved, float(r_moved.norm())
        c = r - r_moved
        ratio = float(r @ c / (c @ c).clamp_min(1e-12))
        size = min(max(size * min(max(ratio, 0), 10), 1e-3), 1e2)
        x, r = moved, r_moved
    return best, size


# Each function gives the losses of f and g as the docstrings have them, and what is descended on.


def amortized(f, g, x, y, n_refinements=8):
    predicted = [g.gradient(y_j) for y_j in y]
    x_hat = [refined(f, y_j, p.detach(), n_refinements)[0] for y_j, p in zip(y, predicted, strict=True)]
    loss_f = mean(f.value(x_i) for x_i in x) - mean(f.value(z) for z in x_hat)
    loss_g = mean((p - z).square().sum() for p, z in zip(predicted, x_hat, strict=True))
    return loss_f, loss_g, loss_f + loss_g


def w2gn(f, g, x, y, cycle_weight=3.0):
    x_hat = [g.gradient(y_j) for y_j in y]
    cycle = mean((f.gradient(z) - y_j).square().sum() for z, y_j in zip(x_hat, y, strict=True))
    loss_f = mean(f.value(x_i) for x_i in x) - mean(f.value(z.detach()) for z in x_hat)
    return loss_f, cycle, loss_f + cycle_weight / 2 * cycle


def enot(f, g, x, y, *, expectile=0.99, expectile_weight=0.1):
    x_hat = [g.gradient(y_j) for y_j in y]
    u = [z.detach() @ y_j - f.value(z.detach()) for z, y_j in zip(x_hat, y, strict=True)]
    loss_f = mean(f.value(x_i) for x_i in x) + mean(u)
    residuals = [x_i @ y_i - f.value(x_i) - u_i for x_i, y_i, u_i in zip(x, y, u, strict=True)]
    expectiles = mean(abs(expectile - float(r < 0)) * r**2 for r in residuals)
    loss_g = -mean(z @ y_j - f.value(z, f.fixed) for z, y_j in zip(x_hat, y, strict=True))
    return loss_f, loss_g, loss_f + expectile_weight * expectiles + loss_g


def minimax(f, g, x, y):
    """What f descends on after g has moved."""
    x_hat = [g.gradient(y_j).detach() for y_j in y]
    loss_f = mean(f.value(x_i) for x_i in x) - mean(f.value(z) for z in x_hat)
    return loss_f, torch.zeros(()), loss_f


def by_hand(equations, network, thetas, cells):
    """Losses of f and g, shape (K,) each, and the gradients of what is descended on."""
    thetas = [theta.detach().clone().requires_grad_() for theta in thetas]
    losses, total = [], 0.0
    for k in range(N_MAPS):
        f, g = (Alone(network, theta[k]) for theta in thetas)
        *of_map, descended = equations(f, g, *(cloud[k] for cloud in cells))
        losses.append([float(loss.detach()) for loss in of_map])
        total = total + descended + f.penalty() + g.penalty()
    return torch.tensor(losses, dtype=torch.float64).T, torch.autograd.grad(total, thetas, allow_unused=True)


STEPS = {
    "amortized": (semi_dual_step, amortized, {"n_refinements": 8}),
    "amortized, 1 refinement": (semi_dual_step, amortized, {"n_refinements": 1}),
    "w2gn": (w2gn_step, w2gn, {}),
    "w2gn, light cycle": (w2gn_step, w2gn, {"cycle_weight": 0.5}),
    "enot": (enot_step, enot, {}),
    "enot, low expectile": (enot_step, enot, {"expectile": 0.7, "expectile_weight": 2.0}),
}


@pytest.mark.parametrize("network", [HARD, SOFT], ids=["hard", "soft"])
@pytest.mark.parametrize("name", STEPS)
def test_a_joint_step_follows_its_equations(name, network):
    """Both gradients belong to the networks before the step, although f has moved when g does."""
    step, equations, options = STEPS[name]
    f, g, (x, y, rows) = optimiser(network, 1), optimiser(network, 2), batch()
    start = f.theta.detach().clone(), g.theta.detach().clone()
    losses = step(network, f, g, [(x, y, rows)], LR, **options)
    expected, gradients = by_hand(partial(equations, **options), network, start, (x, y))
    for loss, of_hand in zip(losses, expected, strict=True):
        assert not loss.requires_grad
        torch.testing.assert_close(loss, of_hand)
    for adam, before, gradient in zip((f, g), start, gradients, strict=True):
        torch.testing.assert_close(adam.state["mean"], gradient)
        assert not torch.equal(adam.theta, before)


@pytest.mark.parametrize(("network", "n_inner"), [(HARD, 1), (SOFT, 3)], ids=["hard", "soft"])
def test_a_minimax_step_moves_g_on_each_batch_but_the_last_and_then_f(network, n_inner):
    f, g, batches = optimiser(network, 1), optimiser(network, 2), [batch(seed) for seed in range(n_inner + 1)]
    alone = optimiser(network, 2)
    for _, y, _ in batches[:-1]:
        thetas = [theta.detach().clone().requires_grad_() for theta in (f.theta, alone.theta)]
        total, loss_g = 0.0, []
        for k in range(N_MAPS):
            of_f, of_g = (Alone(network, theta[k]) for theta in thetas)
            x_hat = [of_g.gradient(y_j) for y_j in y[k]]
            loss_g.append(mean(of_f.value(z) - y_j @ z for z, y_j in zip(x_hat, y[k], strict=True)))
            total = total + loss_g[-1] + of_g.penalty()
        alone.update(torch.autograd.grad(total, thetas[1])[0], LR)
    expected, gradients = by_hand(minimax, network, (f.theta, alone.theta), batches[-1][:2])
    losses = minimax_step(network, f, g, batches, LR)
    torch.testing.assert_close(g.theta, alone.theta)
    torch.testing.assert_close(f.state["mean"], gradients[0])
    torch.testing.assert_close(losses[0], expected[0])
    torch.testing.assert_close(losses[1], torch.stack(loss_g).detach())


def test_double_backward_gives_the_numbers_of_the_explicit_gradient():
    batches, found = [batch(seed) for seed in range(4)], []
    for double_backward in (False, True):
        f, g = optimiser(SOFT, 1), optimiser(SOFT, 2)
        losses = minimax_step(SOFT, f, g, batches, LR, double_backward=double_backward)
        found.append(torch.cat([*losses, f.theta.detach().flatten(), g.theta.detach().flatten()]))
    torch.testing.assert_close(*found, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("network", [HARD, SOFT], ids=["hard", "soft"])
def test_a_step_with_the_cache_follows_its_equations(network):
    """The second of two steps starts where the first one ended, with its step sizes."""
    x, y, _ = batch()
    rows = torch.tensor([[3, 0, 6, 2, 5], [1, 6, 4, 0, 2]])
    targets = torch.zeros(N_MAPS, 7, 2, dtype=torch.float64).scatter(1, rows.unsqueeze(-1).expand(-1, -1, 2), y)
    f, cache = optimiser(network, 1), ConjugateCache(targets.clone(), torch.ones_like(targets[..., 0]))
    starts = [[(y_j, 1.0) for y_j in y[k]] for k in range(N_MAPS)]
    for _ in range(2):
        theta = f.theta.detach().clone().requires_grad_()
        losses = semi_dual_step(network, f, cache, [(x, y, rows)], LR, n_refinements=3)
        total = 0.0
        for k in range(N_MAPS):
            alone = Alone(network, theta[k])
            ends = [refined(alone, y_j, z, 3, size) for y_j, (z, size) in zip(y[k], starts[k], strict=True)]
            loss = mean(alone.value(x_i) for x_i in x[k]) - mean(alone.value(z) for z, _ in ends)
            total = total + loss + alone.penalty()
            torch.testing.assert_close(losses[0][k], loss.detach())
            moved = mean((a - z).square().sum() for (a, _), (z, _) in zip(starts[k], ends, strict=True))
            torch.testing.assert_close(losses[1][k], moved)
            found, sizes = cache.maximisers[k, rows[k]], cache.sizes[k, rows[k]]
            torch.testing.assert_close(found, torch.stack([z for z, _ in ends]))
            torch.testing.assert_close(sizes, torch.tensor([size for _, size in ends], dtype=torch.float64))
            starts[k] = ends
        torch.testing.assert_close(f.state["mean"], torch.autograd.grad(total, theta)[0])


def test_the_cache_keeps_other_cells_and_stores_no_step_size_that_is_not_a_number():
    """Where the step is to infinity, the maximiser stays and the step size is that of the Gaussian map."""
    x, y, _ = batch()
    y = y.clone()
    y[0, 0] = torch.inf
    rows = torch.tensor([[4, 1, 0, 2, 6], [0, 3, 1, 2, 5]])
    maximisers, sizes = normal(0, N_MAPS, 7, 2), 0.5 * torch.ones(N_MAPS, 7, dtype=torch.float64)
    cache = ConjugateCache(maximisers.clone(), sizes.clone())
    semi_dual_step(HARD, optimiser(HARD, 1), cache, [(x, y, rows)], LR, n_refinements=3)
    assert cache.sizes.isfinite().all()
    assert cache.sizes[0, 4] == 1
    assert torch.equal(cache.maximisers[0, 4], maximisers[0, 4])
    for k, others in enumerate(([3, 5], [4, 6])):
        assert torch.equal(cache.maximisers[k, others], maximisers[k, others])
        assert torch.equal(cache.sizes[k, others], sizes[k, others])
        drawn = rows[k][torch.isfinite(y[k]).all(1)]
        assert not torch.isclose(cache.maximisers[k, drawn], maximisers[k, drawn]).all(1).any()


STEP_OF = {
    "amortized": (partial(semi_dual_step, n_refinements=8), 1),
    "minimax": (minimax_step, 6),
    "w2gn": (w2gn_step, 1),
    "enot": (enot_step, 1),
}


@pytest.mark.parametrize("name", STEP_OF)
def test_steps_lower_the_semi_dual_of_each_map_whatever_the_cells_of_the_other(name):
    """J = mean f(x) + mean f*(y), on one batch and with exact conjugates."""
    step, n_batches = STEP_OF[name]
    network = HyCNN(2, (4, 3), strong_convexity=0.9, output_scale=0.3)
    thetas = []
    for factor in (1.0, 100.0):
        x, y, rows = batch(n=200)
        scale = torch.tensor([1.0, factor]).view(-1, 1, 1)
        f, g = (optimiser(network, seed, noise=0.0, max_norm=1.0) for seed in (1, 2))

        def semi_dual(f=f, x=x, y=y):
            weights = {name: w.detach() for name, w in network.weights(f.theta).items()}
            z, residual, _ = ascend(lambda z: network.gradient(weights, z), y, y, n_steps=60)
            assert residual.max() < 1e-3
            return network.value(weights, x).mean(1) + (z * y).sum(-1).mean(1) - network.value(weights, z).mean(1)

        before = semi_dual()
        for _ in range(30):
            step(network, f, g, [(scale * x, scale * y, rows)] * n_batches, LR)
        thetas.append(f.theta[0].detach())
        if factor == 1:
            assert (semi_dual() < before - 0.05).all()
    torch.testing.assert_close(*thetas, rtol=1e-6, atol=1e-9)


# ---- the optimiser


@pytest.mark.parametrize("soap", [False, True])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_network_that_explodes_does_not_change_the_others(bad, soap):
    clean, spoiled = optimiser(HARD, 0, soap=soap), optimiser(HARD, 0, soap=soap)
    for step in range(12):
        for one in (clean, spoiled):
            one.renew(step)
        clean.update(clean.theta.detach().clone(), 0.01)
        gradient = spoiled.theta.detach().clone()
        gradient[1] *= bad if step == 2 else 1.0
        spoiled.update(gradient, 0.01)
    assert torch.equal(clean.theta[0], spoiled.theta[0])
    assert spoiled.theta.isfinite().all()
    assert spoiled.average.isfinite().all()
    assert spoiled.n_bad_gradients.tolist() == [0, 1]


def test_each_network_is_clipped_by_its_norm():
    """A huge gradient must not make the later steps of its network small through the second moment."""
    adam = optimiser(HARD, 0, max_norm=1.0)
    adam.update(torch.ones_like(adam.theta.detach()) * torch.tensor([[1e6], [1e-3]]), 0.01)
    assert adam.state["mean"].norm(dim=1).tolist() == pytest.approx([1, 1e-3 * math.sqrt(HARD.n_parameters)], rel=1e-3)


def test_decay_shrinks_the_weights_on_x_alone():
    adam, before = optimiser(HARD, 0, weight_decay=0.5), optimiser(HARD, 0).theta.detach()
    adam.update(torch.zeros_like(before), 0.1)
    first = 0
    for name, shape in HARD.shapes.items():
        columns = slice(first, first := first + math.prod(shape))
        factor = 0.95 if name[0] in "WQw" else 1.0
        torch.testing.assert_close(adam.theta.detach()[:, columns], before[:, columns] * factor, msg=name)


def test_the_average_follows_theta_and_leaves_its_start():
    adam = optimiser(HARD, 0, max_norm=1.0)
    for _ in range(300):
        adam.update(adam.theta.detach() - 5, 0.05)
    assert (adam.theta - 5).abs().max() < 0.1
    assert (adam.average - 5).abs().max() < 0.2


@pytest.mark.parametrize("soap", [False, True])
def test_a_restored_optimiser_takes_the_same_steps(soap):
    one, again = optimiser(HARD, 0, soap=soap), optimiser(HARD, 1, soap=soap)
    for step in range(7):
        one.renew(step)
        one.update(normal(step, *one.theta.shape), 0.1)
    again.load({name: tensor.numpy().copy() for name, tensor in one.state.items()})
    for step in range(7, 12):
        for each in (one, again):
            each.renew(step)
            each.update(normal(step, *one.theta.shape), 0.1)
    for name, tensor in one.state.items():
        assert torch.equal(tensor, again.state[name])


def soap_of_one_matrix(start, gradients, lr, betas):
    """SOAP of one matrix with NumPy, from the paper's algorithm; the squares turn with their coordinates."""
    theta, (m, n) = start.copy(), start.shape
    mean, square, left, right = np.zeros((m, n)), np.zeros((m, n)), np.zeros((m, m)), np.zeros((n, n))
    bases = np.eye(m), np.eye(n)
    for step, gradient in enumerate(gradients):
        if step and step % RENEW_EVERY == 0:
            if step == RENEW_EVERY:
                new = np.linalg.eigh(left).eigenvectors, np.linalg.eigh(right).eigenvectors
            else:
                new = np.linalg.qr(left @ bases[0]).Q, np.linalg.qr(right @ bases[1]).Q
            square = (new[0].T @ bases[0]) ** 2 @ square @ ((new[1].T @ bases[1]) ** 2).T
            bases = new
        mean = betas[0] * mean + (1 - betas[0]) * gradient
        left = CURVATURE_DECAY * left + (1 - CURVATURE_DECAY) * gradient @ gradient.T
        right = CURVATURE_DECAY * right + (1 - CURVATURE_DECAY) * gradient.T @ gradient
        square = betas[1] * square + (1 - betas[1]) * (bases[0].T @ gradient @ bases[1]) ** 2
        turned = bases[0].T @ mean @ bases[1] / (1 - betas[0] ** (step + 1))
        theta -= lr * bases[0] @ (turned / (np.sqrt(square / (1 - betas[1] ** (step + 1))) + 1e-8)) @ bases[1].T
    return theta


@pytest.mark.parametrize("name", ["W0", "V1", "Q", "b1", "w", "tau"])
def test_soap_takes_the_steps_of_its_paper_for_each_network(name):
    one = optimiser(HARD, 0, soap=True, betas=(0.8, 0.95))
    start = unpack(one.theta.detach().clone(), HARD.shapes)[name]
    gradients = [normal(step, *one.theta.shape) for step in range(2 * RENEW_EVERY + 3)]
    for step, gradient in enumerate(gradients):
        one.renew(step)
        one.update(gradient.clone(), LR)
    for k in range(N_MAPS):
        of_network = [unpack(gradient, HARD.shapes)[name][k].numpy() for gradient in gradients]
        if min(HARD.shapes[name]) > 1:
            expected = soap_of_one_matrix(start[k].numpy(), of_network, LR, (0.8, 0.95))
        else:  # Adam, as PyTorch has it
            parameter = start[k].clone().requires_grad_()
            adam = torch.optim.Adam([parameter], lr=LR, betas=(0.8, 0.95))
            for gradient in of_network:
                parameter.grad = torch.as_tensor(gradient.copy())
                adam.step()
            expected = parameter.detach().numpy()
        np.testing.assert_allclose(unpack(one.theta.detach(), HARD.shapes)[name][k].numpy(), expected, rtol=1e-9)


def test_no_step_of_soap_is_long_when_its_coordinates_change():
    """A gradient of rank one is a single number in the eigenbases, and small everywhere else before."""
    one = optimiser(HARD, 0, soap=True, betas=(0.8, 0.95))
    direction = normal(7, *one.theta.shape)
    for step in range(30):
        before = one.theta.detach().clone()
        one.renew(step)
        one.update(direction + 0.01 * normal(step, *one.theta.shape), LR)
        assert (one.theta.detach() - before).square().mean(1).sqrt().max() < 1.5 * LR


def test_the_learning_rate_warms_up_and_anneals():
    rates = [cosine(step, 1000) for step in range(1000)]
    assert rates[0] == pytest.approx(1 / 50, rel=0.01)
    assert (rates[500], rates[-1]) == pytest.approx((0.505, 0.01), abs=1e-3)
    peak = rates.index(max(rates))
    assert rates == sorted(rates[:peak]) + sorted(rates[peak:], reverse=True)
    assert 0 < cosine(0, 1) <= 1
