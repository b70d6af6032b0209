"""Checks during training: which state is kept, and when to give up."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from scot_hycnn.potentials import HyCNN
from scot_hycnn.solver.data._training_data import TrainingData as Cells
from scot_hycnn.solver.model._blended import Blended
from scot_hycnn.solver.selection._blend import CONVERGED, score_blends
from scot_hycnn.solver.training._early_stopping import SLACK, Monitor, Snapshot, snapshots

NETWORK = HyCNN(n_dims=2, hidden=(8, 8), strong_convexity=0.9, output_scale=0.3)
LOSSES = (torch.tensor([1.0, 3.0]), torch.tensor([2.0, 4.0]))


@pytest.fixture(scope="module")
def cells():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(500, 2)) * 3, rng.normal(size=(500, 2)) + 1
    return Cells.prepare(x, y, 0.4, rng=0, device="cpu")


@pytest.fixture
def monitor(cells):
    return Monitor(cells)


def drawn(strength, seed=0):
    """Two members that bend the Gaussian map, here the truth, the more the stronger they are."""
    network = HyCNN(n_dims=2, hidden=(8, 8), strong_convexity=1.0, output_scale=strength)
    return network.init(2, torch.Generator().manual_seed(seed))


GOOD, FAIR, POOR = drawn(0.01), drawn(0.3), drawn(1.0)


def check(monitor, step, theta):
    monitor.check(step, *snapshots(NETWORK, theta, theta, [monitor]), LOSSES)


def check_all(monitor, *thetas):
    for step, theta in enumerate(thetas):
        check(monitor, step + 1, theta)
    return monitor.history["J_minus_gaussian"]


@pytest.mark.parametrize("order", [(GOOD, FAIR, POOR), (FAIR, GOOD, POOR), (POOR, GOOD, FAIR), (POOR, FAIR, GOOD)])
def test_the_check_of_lowest_semi_dual_is_selected(monitor, order):
    j = check_all(monitor, *order)
    assert torch.equal(monitor.selected(), order[j.argmin()])
    assert order[j.argmin()] is GOOD


def test_the_semi_dual_is_the_ensembles_on_validation_cells(monitor, cells):
    (j,) = check_all(monitor, POOR)
    gaussian, network = score_blends(Blended(NETWORK, NETWORK.weights(POOR), 1.0), cells, [0.0, 1.0])
    assert j == pytest.approx(network.semi_dual - gaussian.semi_dual, rel=1e-3)
    assert monitor.history["residual"][0] < CONVERGED


def test_the_ensemble_is_judged_and_not_its_members(cells):
    """J is convex in f: the ensemble's lies below the mean of its members'."""
    j, *members = (check_all(Monitor(cells), theta)[0] for theta in (POOR, POOR[:1], POOR[1:]))
    assert j < np.mean(members)


def test_the_last_state_is_selected_where_it_is_as_good(monitor):
    """The same ensemble with its members in another order."""
    check_all(monitor, GOOD, POOR, GOOD.flip(0))
    assert torch.equal(monitor.selected(), GOOD.flip(0))


@pytest.mark.parametrize(("excess", "expected"), [(-5, FAIR), (0.9, FAIR), (1.1, GOOD)])
def test_as_good_is_within_the_slack_of_the_difference(monitor, excess, expected):
    noise = torch.linspace(-1, 1, 50)
    slack = SLACK * (noise.var() / 50).sqrt()
    monitor._best = Snapshot(GOOD, torch.zeros(50), torch.zeros(40), residual=0.0)
    monitor._last = Snapshot(FAIR, noise + excess * slack, torch.zeros(40), residual=0.0)
    assert torch.equal(monitor.selected(), expected)


def test_snapshots_do_not_follow_the_training(monitor):
    theta = GOOD.clone()
    check(monitor, 1, theta)
    theta.fill_(7)
    assert torch.equal(monitor.selected(), GOOD)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e4, 1e30])
@pytest.mark.parametrize("member", [0, slice(None)])
def test_after_a_blow_up_the_best_state_before_it_is_selected(monitor, bad, member):
    exploded = GOOD.clone()
    exploded[member] = bad
    j = check_all(monitor, FAIR, GOOD, exploded, exploded)
    assert torch.equal(monitor.selected(), GOOD)
    assert (j[2:] > j[1]).all()
    assert not monitor.clearly_worse_than_gaussian  # what is selected is not


@pytest.mark.parametrize("factor", [10, 30, 100])
def test_a_blow_up_whose_conjugates_do_not_converge_is_not_taken_for_the_best(monitor, factor):
    """Its J, too small by far, would be the lowest of all: -1e14 at a factor of 10."""
    j = check_all(monitor, GOOD, FAIR * factor, FAIR * factor)
    assert j.argmin() == 0
    assert torch.equal(monitor.selected(), GOOD)


def test_a_blow_up_at_the_first_check_is_forgotten(monitor):
    check_all(monitor, GOOD * math.nan, GOOD)
    assert torch.equal(monitor.selected(), GOOD)
    assert not monitor.clearly_worse_than_gaussian


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_if_every_check_failed_the_parameters_are_finite_and_the_gaussian_map_is_better(monitor, bad):
    check_all(monitor, GOOD * bad, GOOD * bad)
    selected = monitor.selected()
    assert selected.shape == GOOD.shape
    assert selected.isfinite().all()
    assert NETWORK.value(NETWORK.weights(selected), torch.ones(2, 5, 2)).isfinite().all()
    assert monitor.clearly_worse_than_gaussian


def test_only_what_is_clearly_worse_is_called_so(monitor):
    verdicts = []
    for theta in (GOOD * math.nan, POOR, POOR * math.nan, GOOD, POOR, GOOD * math.nan):
        check(monitor, 1, theta)
        verdicts.append(monitor.clearly_worse_than_gaussian)
    assert verdicts == [True, True, True, False, True, False]


def test_history_has_a_row_for_each_check(monitor, cells):
    assert monitor.history == {}
    for step in (3, 6, 8):
        check(monitor, step, FAIR)
    history = monitor.history
    assert history["step"].tolist() == [3, 6, 8]
    assert {len(column) for column in history.values()} == {3}
    assert (np.diff(history["seconds"]) > 0).all()
    np.testing.assert_allclose(history["loss_f"], 2 / cells.coordinates.scale)
    np.testing.assert_allclose(history["loss_g"], 3)
    assert (history["J_error"] > 0).all()
