"""Checks during training: which state is selected, and when the Gaussian map is clearly better."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from scot_hycnn._response import NoChange
from scot_hycnn.potentials import HyCNN
from scot_hycnn.solver import Settings
from scot_hycnn.solver.data._training_data import TrainingData
from scot_hycnn.solver.model._blended import Blended
from scot_hycnn.solver.selection._blend import CONVERGED, score_blends
from scot_hycnn.solver.training._early_stopping import SLACK, Monitor, Snapshot, score_ensembles

NETWORK = HyCNN(n_dims=2, hidden=(8, 8), strong_convexity=0.9, output_scale=0.3)
LOSSES = (torch.tensor([1.0, 3.0]), torch.tensor([2.0, 4.0]))


def of_split(fraction, rng=0):
    """Settings of which the split of the cells reads the fraction and the seed."""
    return Settings.for_cells(100, 100, 2, device="cpu", rng=rng, validation_fraction=fraction)


@pytest.fixture(scope="module")
def cells():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(500, 2)) * 3, rng.normal(size=(500, 2)) + 1
    return TrainingData.prepare(x, y, of_split(0.4))


@pytest.fixture
def monitor(cells):
    return Monitor(cells)


def ensemble(strength):
    """Two members whose distance from the Gaussian map, here the true one, grows with the strength."""
    network = HyCNN(n_dims=2, hidden=(8, 8), strong_convexity=1.0, output_scale=strength)
    return network.init(2, torch.Generator().manual_seed(0))


GOOD, FAIR, POOR = ensemble(0.01), ensemble(0.3), ensemble(1.0)


def check_all(monitor, *thetas, second_network=True):
    for step, theta in enumerate(thetas):
        (snapshot,) = score_ensembles(NETWORK, theta, theta if second_network else None, [monitor])
        monitor.check(step + 1, snapshot, LOSSES)
    return monitor.history["J_minus_gaussian"]


@pytest.mark.parametrize("order", [(FAIR, GOOD, POOR), (POOR, FAIR, GOOD)])
def test_the_check_of_lowest_semi_dual_is_selected(monitor, order):
    j = check_all(monitor, *order)
    assert order[j.argmin()] is GOOD
    assert torch.equal(monitor.selected(), GOOD)
    assert torch.equal(monitor.last(), order[-1])


@pytest.mark.parametrize("second_network", [True, False])
def test_the_semi_dual_is_that_of_the_ensemble_on_validation_cells(monitor, cells, second_network):
    """J is convex in f: that of the ensemble is below the mean of its members'."""
    (j,) = check_all(monitor, POOR, second_network=second_network)
    gaussian, network = score_blends(Blended(NETWORK, NETWORK.weights(POOR), 1.0), cells, [0.0, 1.0])
    assert j == pytest.approx(network.semi_dual - gaussian.semi_dual, rel=1e-3)
    assert monitor.history["residual"][0] < CONVERGED
    assert j < np.mean([check_all(Monitor(cells), theta)[0] for theta in (POOR[:1], POOR[1:])])


@pytest.mark.parametrize(("excess", "expected"), [(-5, FAIR), (0.9, FAIR), (1.1, GOOD)])
def test_the_last_state_is_selected_within_the_slack(monitor, excess, expected):
    noise = torch.linspace(-1, 1, 50)
    slack = SLACK * (noise.var() / 50).sqrt()
    gaussian = torch.zeros(50), torch.zeros(40)
    monitor._gaussian = Snapshot(GOOD, *gaussian, residual=0.0)
    monitor.check(1, Snapshot(GOOD, *gaussian, residual=0.0), LOSSES)
    monitor.check(2, Snapshot(FAIR, noise + excess * slack, torch.zeros(40), residual=0.0), LOSSES)
    # The lower J is the best one; the later one is taken where it is as good.
    assert torch.equal(monitor.selected(), expected)


def test_what_two_checks_have_in_common_is_no_error_of_their_difference():
    """Cells that are far out have a large potential in both, which says nothing of which check is better."""
    noise = torch.Generator().manual_seed(0)
    common_x, common_y, more_x, more_y = (torch.randn(n, generator=noise) for n in (50, 40, 50, 40))
    before = Snapshot(GOOD, 100 * common_x, 100 * common_y, residual=0.0)
    after = Snapshot(FAIR, 100 * common_x + more_x, 100 * common_y + more_y, residual=0.0)
    difference, error = after.minus(before)
    assert float(difference) == pytest.approx(float(more_x.mean() + more_y.mean()), abs=1e-4)
    assert float(error) == pytest.approx(math.sqrt(more_x.var() / 50 + more_y.var() / 40), rel=1e-4)


def test_snapshots_do_not_change_with_the_training(monitor):
    theta = GOOD.clone()
    check_all(monitor, theta)
    theta.fill_(7)
    assert torch.equal(monitor.selected(), GOOD)


@pytest.mark.parametrize(("bad", "member"), [(math.nan, 0), (math.inf, slice(None)), (1e4, 0), (1e30, slice(None))])
def test_after_a_blow_up_the_best_state_before_it_is_selected(monitor, bad, member):
    """Conjugates that do not converge make J too small by far: -1e14 with ten times the parameters."""
    exploded = GOOD.clone()
    exploded[member] = bad
    j = check_all(monitor, FAIR, GOOD, exploded, 10 * FAIR)
    assert torch.equal(monitor.selected(), GOOD)
    assert (j[2:] > j[1]).all()
    assert not monitor.is_hopeless(1.0)  # the selected state is not


def test_if_every_check_failed_the_parameters_are_finite_and_the_gaussian_map_is_better(monitor):
    check_all(monitor, GOOD * math.nan, GOOD * math.inf)
    assert torch.equal(monitor.selected(), torch.zeros_like(GOOD))
    assert monitor.is_hopeless(1.0)
    check_all(monitor, GOOD)
    assert torch.equal(monitor.selected(), GOOD)


def test_only_what_is_clearly_worse_is_called_so(monitor):
    verdicts = []
    for theta in (GOOD * math.nan, POOR, POOR * math.nan, GOOD, POOR, GOOD * math.nan):
        check_all(monitor, theta)
        verdicts.append(monitor.is_hopeless(0.5))
        assert not monitor.is_hopeless(0.4)
    assert verdicts == [True, True, True, False, True, False]


@pytest.mark.parametrize(("gain", "stops"), [(-3, False), (-1, True), (1, True)])
def test_without_a_visible_response_training_stops_early_unless_j_is_clearly_lower(cells, gain, stops):
    no_response = replace(cells, no_change=NoChange(0.0, 0.5))
    noise, zeros = torch.linspace(-1, 1, 200), torch.zeros(200)
    for one, expected in ((Monitor(no_response), stops), (Monitor(cells), False)):
        potential = noise + gain * (noise.var() / 200).sqrt()
        one.check(1, Snapshot(GOOD, potential, zeros, residual=0.0), LOSSES)
        assert one.is_hopeless(0.3) == expected
        assert not one.is_hopeless(0.2)


def test_history_has_a_row_for_each_check(monitor, cells):
    assert monitor.history == {}
    check_all(monitor, FAIR, FAIR, FAIR)
    history = monitor.history
    assert history["step"].tolist() == [1, 2, 3]
    assert {len(column) for column in history.values()} == {3}
    assert (np.diff(history["seconds"]) >= 0).all()
    np.testing.assert_allclose(history["loss_f"], 2 / cells.coordinates.scale)
    np.testing.assert_allclose(history["loss_g"], 3)
    assert (history["J_error"] > 0).all()
