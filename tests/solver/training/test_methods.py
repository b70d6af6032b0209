"""One step of each training method against its equations, point by point, and what it moves."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch

from scot_hycnn.potentials import ICNN, HyCNN, Potential
from scot_hycnn.potentials._potential import inverse_softplus, unpack
from scot_hycnn.solver.baselines._enot import ENOT
from scot_hycnn.solver.baselines._minimax import Minimax
from scot_hycnn.solver.baselines._w2gn import W2GN
from scot_hycnn.solver.model._conjugate import refine
from scot_hycnn.solver.training._amortized import Amortized
from scot_hycnn.solver.training._cache import Memory
from scot_hycnn.solver.training._cached import Remembered
from scot_hycnn.solver.training._method import descend
from scot_hycnn.solver.training._optimiser import AveragedAdam

N_MAPS, BATCH, LR = 2, 5, 0.01
NETWORKS = [HyCNN(2, (4, 3)), ICNN(2, (4, 3), constraint="soft", quadratic_skip=True)]
networks = pytest.mark.parametrize("network", NETWORKS, ids=["hard", "soft"])


@pytest.fixture(autouse=True)
def double_precision(monkeypatch):
    """Equations hold to more digits."""
    monkeypatch.setattr(Potential, "init", lambda *own, init=Potential.init: init(*own).double())
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def normal(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def batch(seed=0, n=BATCH):
    return normal(2 * seed, N_MAPS, n, 2), 2 * normal(2 * seed + 1, N_MAPS, n, 2) + 1


def state_of(method, network, noise=0.5):
    """Networks some way from their start, so that weights of a soft one are negative."""
    state = method.init(network, N_MAPS, torch.Generator().manual_seed(1))
    with torch.no_grad():
        for seed, adam in enumerate((state.f, state.g)):
            adam.theta += noise * normal(seed, *adam.theta.shape)
    return state


@dataclass
class Update:
    """A call of AveragedAdam.update, and both networks just before it."""

    network: str
    gradient: torch.Tensor
    lr: float
    theta_f: torch.Tensor
    theta_g: torch.Tensor


@pytest.fixture
def updates_of(monkeypatch):
    """Called with a state it returns a list that fills with its updates."""
    update = AveragedAdam.update

    def watch(state):
        seen = []

        def watched(adam, gradient, lr):
            name = {id(state.f): "f", id(state.g): "g"}[id(adam)]
            thetas = (network.theta.detach().clone() for network in (state.f, state.g))
            seen.append(Update(name, gradient.clone(), lr, *thetas))
            update(adam, gradient, lr)

        monkeypatch.setattr(AveragedAdam, "update", watched)
        return seen

    return watch


class Alone:
    """One map as a function of one point, its gradient by autograd."""

    def __init__(self, network, theta):
        self.network, self.theta, self.weights = network, theta, network.weights(theta[None])

    def value(self, x):
        return self.network.value(self.weights, x.view(1, 1, -1)).squeeze()

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
    """Barzilai-Borwein ascent of one point; the best of all iterates, and the last step size."""
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


# Each gives the losses of f and g as the docstrings have them, and what is descended on.


def amortized(method, f, g, x, y):
    predicted = [g.gradient(y_j) for y_j in y]
    x_hat = [refined(f, y_j, p.detach(), method.n_refinements)[0] for y_j, p in zip(y, predicted, strict=True)]
    loss_f = mean(f.value(x_i) for x_i in x) - mean(f.value(z) for z in x_hat)
    loss_g = mean((p - z).square().sum() for p, z in zip(predicted, x_hat, strict=True))
    return loss_f, loss_g, loss_f + loss_g


def w2gn(method, f, g, x, y):
    x_hat = [g.gradient(y_j) for y_j in y]
    cycle = mean((f.gradient(z) - y_j).square().sum() for z, y_j in zip(x_hat, y, strict=True))
    loss_f = mean(f.value(x_i) for x_i in x) - mean(f.value(z.detach()) for z in x_hat)
    return loss_f, cycle, loss_f + method.cycle_weight / 2 * cycle


def enot(method, f, g, x, y):
    x_hat = [g.gradient(y_j) for y_j in y]
    fixed = [z.detach() for z in x_hat]
    u = [z @ y_j - f.value(z) for z, y_j in zip(fixed, y, strict=True)]
    loss_f = mean(f.value(x_i) for x_i in x) + mean(u)
    expectiles = []
    for x_i, y_i, u_i in zip(x, y, u, strict=True):
        r = x_i @ y_i - f.value(x_i) - u_i
        expectiles.append(abs(method.expectile - float(r < 0)) * r**2)
    at_fixed_f = Alone(f.network, f.theta.detach())
    loss_g = -mean(z @ y_j - at_fixed_f.value(z) for z, y_j in zip(x_hat, y, strict=True))
    return loss_f, loss_g, loss_f + method.expectile_weight * mean(expectiles) + loss_g


def by_hand(equations, method, network, thetas, cells):
    """Losses of f and g, shape (K,) each, and the gradients of what is descended on."""
    thetas = [theta.detach().clone().requires_grad_() for theta in thetas]
    losses, total = [], 0.0
    for k in range(N_MAPS):
        f, g = (Alone(network, theta[k]) for theta in thetas)
        *of_map, descended = equations(method, f, g, *(cloud[k] for cloud in cells))
        losses.append([float(loss.detach()) for loss in of_map])
        total = total + descended + f.penalty() + g.penalty()
    return torch.tensor(losses).T, torch.autograd.grad(total, thetas)


@networks
@pytest.mark.parametrize(
    ("method", "equations"),
    [
        (Amortized(), amortized),
        (Amortized(n_refinements=1), amortized),
        (W2GN(), w2gn),
        (W2GN(cycle_weight=0.5), w2gn),
        (ENOT(), enot),
        (ENOT(expectile=0.7, expectile_weight=2.0), enot),
    ],
    ids=["amortized", "amortized-1", "w2gn", "w2gn-0.5", "enot", "enot-0.7"],
)
def test_a_joint_step_follows_its_equations(method, equations, network, updates_of):
    state, (x, y) = state_of(method, network), batch()
    start = state.f.theta.detach().clone(), state.g.theta.detach().clone()
    updates = updates_of(state)
    losses = method.step(network, state, lambda: (x, y), LR)
    expected, gradients = by_hand(equations, method, network, start, (x, y))
    for loss, of_hand in zip(losses, expected, strict=True):
        assert loss.shape == (N_MAPS,)
        assert not loss.requires_grad
        torch.testing.assert_close(loss, of_hand)
    # Both gradients belong to the networks before the step, though f had moved when g did.
    assert [update.network for update in updates] == ["f", "g"]
    assert not torch.equal(updates[1].theta_f, start[0])
    for update, gradient in zip(updates, gradients, strict=True):
        torch.testing.assert_close(update.gradient, gradient)
        assert update.gradient.any()
        assert update.lr == LR


@networks
@pytest.mark.parametrize("double_backward", [False, True])
@pytest.mark.parametrize("n_inner", [1, 3])
def test_a_minimax_step_moves_g_s_times_and_then_f(network, n_inner, double_backward, updates_of):
    method = Minimax(n_inner=n_inner, double_backward=double_backward)
    state, batches = state_of(method, network), [batch(seed) for seed in range(n_inner + 1)]
    start = state.f.theta.detach().clone()
    updates, draws = updates_of(state), iter(batches)
    loss_f, loss_g = method.step(network, state, lambda: next(draws), LR)
    assert next(draws, None) is None  # fresh cells each time
    assert [update.network for update in updates] == ["g"] * n_inner + ["f"]
    by_hand = []
    for update, (x, y) in zip(updates, batches, strict=True):
        assert torch.equal(update.theta_f, start)
        losses, total = [], 0.0
        thetas = [theta.clone().requires_grad_() for theta in (update.theta_f, update.theta_g)]
        for k in range(N_MAPS):
            f, g = (Alone(network, theta[k]) for theta in thetas)
            x_hat = [g.gradient(y_j) for y_j in y[k]]
            if update.network == "g":
                loss = mean(f.value(z) - y_j @ z for z, y_j in zip(x_hat, y[k], strict=True))
                total = total + loss + g.penalty()
            else:
                loss = mean(f.value(x_i) for x_i in x[k]) - mean(f.value(z.detach()) for z in x_hat)
                total = total + loss + f.penalty()
            losses.append(float(loss.detach()))
        (gradient,) = torch.autograd.grad(total, thetas["fg".index(update.network)])
        torch.testing.assert_close(update.gradient, gradient)
        by_hand.append(torch.tensor(losses))
    torch.testing.assert_close(loss_g, by_hand[-2])
    torch.testing.assert_close(loss_f, by_hand[-1])


@networks
@pytest.mark.parametrize("n_refinements", [1, 3])
def test_a_step_from_memory_follows_its_equations(network, n_refinements, updates_of):
    """Two steps: the second starts where the first one ended, with its step sizes."""
    method, rows = Remembered(n_refinements=n_refinements), torch.tensor([[3, 0, 6, 2, 5], [1, 6, 4, 0, 2]])
    x, y = batch()
    memory = Memory.of([torch.zeros(7, 2)] * N_MAPS, 1)
    memory.note(rows, y, torch.ones(rows.shape))
    state = replace(state_of(method, network), memory=memory)
    updates, starts = updates_of(state), [[(y_j, 1.0) for y_j in y[k]] for k in range(N_MAPS)]
    for _ in range(2):
        theta = state.f.theta.detach().clone().requires_grad_()
        losses = method.step(network, state, lambda: (x, y, rows), LR)
        update, total = updates.pop(), 0.0
        assert update.network == "f"
        assert not updates
        for k in range(N_MAPS):
            f = Alone(network, theta[k])
            ends = [refined(f, y_j, z, n_refinements, size) for y_j, (z, size) in zip(y[k], starts[k], strict=True)]
            loss = mean(f.value(x_i) for x_i in x[k]) - mean(f.value(z) for z, _ in ends)
            total = total + loss + f.penalty()
            torch.testing.assert_close(losses[0][k], loss.detach())
            moved = mean((a - z).square().sum() for (a, _), (z, _) in zip(starts[k], ends, strict=True))
            torch.testing.assert_close(losses[1][k], moved)
            found, sizes = memory.recall(rows)
            torch.testing.assert_close(found[k], torch.stack([z for z, _ in ends]))
            torch.testing.assert_close(sizes[k], torch.tensor([size for _, size in ends]))
            starts[k] = ends
        torch.testing.assert_close(update.gradient, torch.autograd.grad(total, theta)[0])


@networks
def test_double_backward_gives_the_numbers_of_the_explicit_gradient(network):
    plain = Minimax()
    states, losses = [], []
    for method in (plain, replace(plain, double_backward=True)):
        state, draws = state_of(method, network), iter([batch(seed) for seed in range(12)])
        losses.append([torch.stack(method.step(network, state, lambda d=draws: next(d), LR)) for _ in range(2)])
        states.append(state)
    torch.testing.assert_close(torch.stack(losses[0]), torch.stack(losses[1]))
    for name in ("f", "g"):
        torch.testing.assert_close(*(getattr(state, name).theta.detach() for state in states), rtol=1e-6, atol=1e-9)


# ---- closed forms: both potentials |x|^2/2 and a constant, whose maps are the identity


def at_the_identity(method, network):
    state = method.init(network, N_MAPS, torch.Generator().manual_seed(1))
    with torch.no_grad():
        for adam in (state.f, state.g):
            for name, value in unpack(adam.theta, network.shapes).items():
                if name[0] in "WwQ":
                    value.zero_()
                if name == "q":
                    value.copy_(inverse_softplus(torch.ones(1)))
    return state


def half_squares(points):
    return points.square().sum(-1).mean(1) / 2


def losses_at_the_identity(method, x, y):
    network = NETWORKS[0]
    state = at_the_identity(method, network)
    constant = network.value(network.weights(state.f.theta), torch.zeros(N_MAPS, 1, 2))[:, 0].detach()
    return constant, *method.step(network, state, lambda: (x, y), LR)


def test_the_cycle_of_the_identity_is_zero():
    x, y = batch()
    _, loss_f, cycle = losses_at_the_identity(W2GN(), x, y)
    torch.testing.assert_close(cycle, torch.zeros(N_MAPS), atol=1e-12, rtol=0)
    torch.testing.assert_close(loss_f, half_squares(x) - half_squares(y))


def test_an_exact_prediction_leaves_nothing_to_learn():
    x, y = batch()
    _, loss_f, loss_g = losses_at_the_identity(Amortized(), x, y)
    torch.testing.assert_close(loss_g, torch.zeros(N_MAPS), atol=1e-12, rtol=0)
    torch.testing.assert_close(loss_f, half_squares(x) - half_squares(y))


def test_minimax_of_the_identity_is_half_the_squared_norm():
    """f(y) - <y, y> = c - |y|^2/2, the minimum over all predictions."""
    x, y = batch()
    constant, _, loss_g = losses_at_the_identity(Minimax(n_inner=1), x, y)
    torch.testing.assert_close(loss_g, constant - half_squares(y))


def test_enot_of_the_identity_is_the_semi_dual():
    x, y = batch()
    constant, loss_f, loss_g = losses_at_the_identity(ENOT(), x, y)
    torch.testing.assert_close(loss_f, half_squares(x) + half_squares(y))
    torch.testing.assert_close(loss_g, constant - half_squares(y))


def test_a_true_pair_is_a_fixed_point_of_every_method(updates_of):
    """x = y, map by map: no method moves f or g away from the identity, whose every loss is at its minimum."""
    x, _ = batch(n=200)
    for method in (Amortized(), Minimax(), W2GN(), ENOT()):
        state = at_the_identity(method, NETWORKS[0])
        updates = updates_of(state)
        method.step(NETWORKS[0], state, lambda: (x, x), 0.0)
        assert len(updates) == (6 if isinstance(method, Minimax) else 2)
        for update in updates:
            assert update.gradient.abs().max() < 1e-6


def test_expectiles_weigh_what_is_above_and_below():
    r = torch.tensor([[-2.0, 3.0], [0.0, -1.0]])
    for tau in (0.5, 0.9, 0.99):
        expected = torch.tensor([((1 - tau) * 4 + tau * 9) / 2, (1 - tau) / 2])
        torch.testing.assert_close(ENOT(expectile=tau)._expectile_loss(r), expected)


# ---- what all share


METHODS = [Amortized(), Minimax(), W2GN(), ENOT()]
methods = pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)


@methods
def test_both_networks_are_drawn_from_the_generator(method):
    network = NETWORKS[0]
    first, again, other = (method.init(network, 3, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(first.f.theta, again.f.theta)
    assert torch.equal(first.g.theta, again.g.theta)
    assert not torch.equal(first.f.theta, first.g.theta)
    assert not torch.equal(first.f.theta, other.f.theta)
    assert torch.equal(first.f.theta, network.init(3, torch.Generator().manual_seed(0)))


@methods
def test_a_step_of_no_length_moves_nothing(method):
    state = state_of(method, NETWORKS[0])
    before = state.f.theta.detach().clone(), state.g.theta.detach().clone()
    method.step(NETWORKS[0], state, batch, 0.0)
    assert torch.equal(state.f.theta, before[0])
    assert torch.equal(state.g.theta, before[1])


@methods
def test_maps_do_not_disturb_each_other(method):
    """The other map's cells change, and the first map's step does not."""
    thetas = []
    for factor in (1.0, 100.0):
        state, scale = state_of(method, NETWORKS[0]), torch.tensor([1.0, factor]).view(-1, 1, 1)
        losses = method.step(NETWORKS[0], state, lambda s=scale: tuple(s * cells for cells in batch()), LR)
        thetas.append(torch.cat([state.f.theta[0], state.g.theta[0], losses[0][:1], losses[1][:1]]).detach())
    torch.testing.assert_close(*thetas, rtol=1e-9, atol=1e-9)


@methods
def test_steps_lower_the_semi_dual(method):
    """On one batch and with exact conjugates: J = mean f(x) + mean f*(y)."""
    network = HyCNN(2, (4, 3), strong_convexity=0.9, output_scale=0.3)
    x, y = batch(n=200)
    state = method.init(network, N_MAPS, torch.Generator().manual_seed(1))

    def semi_dual():
        weights = {name: w.detach() for name, w in network.weights(state.f.theta).items()}
        x_hat, residual = refine(lambda z: network.gradient(weights, z), y, y, 60)
        assert residual.max() < 1e-3
        return network.value(weights, x).mean(1) + (x_hat * y).sum(-1).mean(1) - network.value(weights, x_hat).mean(1)

    before = semi_dual()
    for _ in range(30):
        method.step(network, state, lambda: (x, y), LR)
    assert (semi_dual() < before - 0.05).all()


def test_rates_warm_up_and_end_at_a_hundredth():
    method = Amortized(lr=0.5)
    rates = [method.rate(step, 1000) for step in range(1000)]
    assert rates[0] == pytest.approx(0.5 / 50, rel=1e-3)
    assert max(rates) == pytest.approx(0.5, rel=0.01)
    assert rates[-1] == pytest.approx(0.005, rel=1e-3)


def test_descend_takes_all_gradients_before_it_updates():
    """A loss of both: with one update before the other gradient the second would see the moved network."""
    network = NETWORKS[0]
    first, second = (
        AveragedAdam(
            network,
            network.init(1, torch.Generator().manual_seed(seed)),
            betas=(0.5, 0.9),
            weight_decay=0.0,
            max_norm=1e9,
            averaging=0.0,
        )
        for seed in (0, 1)
    )
    at_start = first.theta.detach().clone()
    descend((first.theta * second.theta).sum(1), 1.0, first, second)
    torch.testing.assert_close(second.theta.grad, at_start)
