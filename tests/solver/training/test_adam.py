"""Optimising K maps side by side: each with its own clipping, decay, average and failures."""

from __future__ import annotations

import math

import pytest
import torch

from scot_hycnn.potentials import HyCNN
from scot_hycnn.potentials._potential import unpack
from scot_hycnn.solver.training._method import descend
from scot_hycnn.solver.training._optimiser import AveragedAdam

NETWORK = HyCNN(n_dims=2, hidden=(4, 4))


def optimiser(n_maps=3, **options):
    defaults = {"betas": (0.5, 0.9), "weight_decay": 0.0, "max_norm": 1.0, "averaging": 0.98}
    return AveragedAdam(NETWORK, NETWORK.init(n_maps, torch.Generator().manual_seed(0)), **(defaults | options))


def test_it_descends_to_the_minimum_of_each_maps_loss():
    adam = optimiser()
    target = torch.tensor([0.0, 1.0, -1.0]).unsqueeze(1)
    for _ in range(600):
        descend((adam.theta - target).square().mean(1), 0.01, adam)
    torch.testing.assert_close(adam.theta.detach(), target.expand_as(adam.theta), atol=0.05, rtol=0)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_map_that_explodes_does_not_touch_its_neighbours(bad):
    clean, spoiled = optimiser(), optimiser()
    for step in range(5):
        weight = torch.tensor([1.0, bad if step == 2 else 1.0, 1.0])
        descend(clean.theta.square().sum(1), 0.01, clean)
        descend(spoiled.theta.square().sum(1) * weight, 0.01, spoiled)
    assert spoiled.theta.isfinite().all()
    assert spoiled.average.isfinite().all()
    assert torch.equal(clean.theta[[0, 2]], spoiled.theta[[0, 2]])
    assert not torch.equal(clean.theta[1], spoiled.theta[1])
    assert spoiled.n_bad_gradients.tolist() == [0, 1, 0]


def test_clipping_is_each_maps_own():
    """The second moment remembers the clipped gradient: a huge loss must not silence later steps of its map."""
    adam = optimiser(n_maps=2)
    slopes = torch.ones_like(adam.theta) * torch.tensor([[1e6], [1e-3]])
    descend((adam.theta * slopes).sum(1), 0.01, adam)
    norms = adam.theta.grad.norm(dim=1)
    assert float(norms[0]) == pytest.approx(1, rel=1e-3)
    assert float(norms[1]) == pytest.approx(1e-3 * math.sqrt(NETWORK.n_parameters), rel=1e-3)


def test_decay_shrinks_the_weights_on_x_and_no_others():
    adam = optimiser(weight_decay=0.5)
    before = {name: value.clone() for name, value in unpack(adam.theta.detach(), NETWORK.shapes).items()}
    descend((adam.theta * 0).sum(1), 0.1, adam)
    for name, value in unpack(adam.theta.detach(), NETWORK.shapes).items():
        factor = 0.95 if name[0] in "WQw" else 1.0
        torch.testing.assert_close(value, before[name] * factor, msg=name)


def test_the_average_forgets_the_start_and_follows_the_iterates():
    adam = optimiser(n_maps=1)
    start = adam.average.clone()
    for _ in range(300):
        descend((adam.theta - 5).square().mean(1), 0.05, adam)
    settled = adam.theta.detach()
    assert (adam.average - settled).abs().max() < 0.2
    assert (adam.average - start).abs().min() > 1
    assert not adam.average.requires_grad
