"""The choice of the blend by groups that were left out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scot_hycnn.potentials import HyCNN
from scot_hycnn.solver import Settings, fit
from scot_hycnn.solver._options import WEIGHTINGS
from scot_hycnn.solver.data._groups import Labels, group_cells
from scot_hycnn.solver.data._training_data import Trained
from scot_hycnn.solver.selection._blend import BLENDS, Score, choose_blend_by_groups, leave_groups_out

QUICK = {"max_steps": 150, "hidden": (16, 16), "n_ensemble": 2, "batch_size": 128, "device": "cpu"}


def score(j, energy, residual=0.01):
    return Score(np.full(4, j), np.zeros(4), np.zeros(4), np.zeros(4), energy, residual)


def chosen(*rows):
    """Return the choice; a row has J and energy distance of every blend, in one group."""
    return choose_blend_by_groups([[score(*entry) for entry in row] for row in rows])


def test_a_blend_that_is_better_on_every_group_is_taken():
    first, second = [(0, 1), (-1, 0.5), (-2, 0.4)], [(5, 1), (4.1, 0.5), (3, 0.4)]
    assert chosen(first, second, [(2, 1), (0.9, 0.5), (0.2, 0.4)]) == 2


def test_groups_that_disagree_and_a_larger_mean_energy_distance_keep_the_gaussian_map():
    assert chosen([(0, 1), (-5, 0.5)], [(0, 1), (4, 0.9)], [(0, 1), (0.5, 1)]) == 0
    assert chosen([(0, 1), (-1, 1.3)], [(0, 1), (-1.1, 0.9)], [(0, 1), (-0.9, 0.9)]) == 0


def test_blends_that_did_not_converge_or_are_not_finite_are_out():
    row = [(0, 1), (-1, 0.5), (-9, 0.1, 0.5), (-np.inf, 0.1)]
    assert chosen(row, row, row) == 1


# ---- in a fit


def clusters(seed, move):
    rng = np.random.default_rng(seed)
    centres = np.array([[-6.0, 0.0], [6.0, 0.0], [0.0, 6.0], [0.0, -6.0]])
    of = np.repeat(np.arange(4), 150)
    x, y = (centres[of] + rng.normal(size=(600, 2)) for _ in range(2))
    return x, move(y), (of, of)


def split(y):
    return y + 2 * np.sign(y)


def test_a_fit_reports_scores_on_groups_left_out_and_follows_them():
    x, y, groups = clusters(0, split)
    fitted = fit(x, y, groups=groups, leave_out="groups", **QUICK | {"max_steps": 30})
    validation = fitted.validation
    assert fitted.params["leave_out"] == "groups"
    for name in ("J_left_out", "J_left_out_error", "energy_distance_left_out", "energy_left_out_error"):
        assert len(validation[f"{name}_by_blend"]) == len(BLENDS)
        assert validation[f"{name}_by_blend"][0] == 0
    mean = validation["J_left_out_by_blend"] + np.where(validation["energy_distance_left_out_by_blend"] > 0, np.inf, 0)
    assert fitted.blend in (0, BLENDS[int(np.argmin(mean))])
    # On cells like the training cells the network is taken (with this seed by a wide margin).
    assert fit(x, y, groups=groups, rng=2, **QUICK).blend > 0


def test_without_networks_the_maps_with_a_closed_form_are_compared():
    x, y, groups = clusters(0, split)
    fitted = fit(x, y, groups=groups, leave_out="groups", potential="gaussian")
    assert "J_left_out_by_blend" not in fitted.validation
    assert fitted.blend == 0
    assert fitted.validation["winner"] in fitted.validation["ladder"]


@pytest.mark.parametrize("n_groups", [3, 7])
def test_every_group_is_left_out_once_of_at_most_four_fits(n_groups):
    """Each fold's coordinates come from cells without the groups that it is scored on."""
    of_cells = np.repeat(np.arange(n_groups), 10 + 2 * np.arange(n_groups))
    x = np.random.default_rng(0).normal(size=(len(of_cells), 2)) + 100 * of_cells[:, None]
    labels = tuple(of_cells.astype(str) for _ in range(2))
    *clouds, groups = group_cells(x, x + 1, tuple(map(Labels.of, labels)), WEIGHTINGS["sqrt"])
    network, seen = HyCNN(2, (4,)), []

    def train(settings, folds):
        seen.extend(
            set(np.rint(cells.coordinates.invert_source(cells.x.double().numpy())[:, 0] / 100)) for cells in folds
        )
        theta = network.init(settings.n_ensemble, torch.Generator().manual_seed(0))
        return [Trained(theta, cells, keep_gaussian=False) for cells in folds]

    settings = Settings.for_cells(len(x), len(x), 2, device="cpu", rng=0)
    scores = leave_groups_out(*clouds, groups, settings, network, train=train)
    without = [set(range(n_groups)) - groups_seen for groups_seen in seen]
    assert len(without) == min(n_groups, 4)
    assert sorted(group for fold in without for group in fold) == list(range(n_groups))
    # The largest groups are in different folds.
    assert [max(fold) for fold in without] == list(range(n_groups - 1, n_groups - 1 - len(without), -1))
    assert len(scores) == n_groups
    assert {len(row) for row in scores} == {len(BLENDS)}


def test_settings_that_do_not_go_with_leave_out_are_named():
    x, y, groups = clusters(0, split)
    two = tuple(np.where(cloud < 2, "a", "b") for cloud in groups)
    for options, match in (
        ({}, "leave_out='groups'"),
        ({"groups": two}, r"3 groups with 10 cells .* \['a', 'b'\]"),
        ({"groups": groups, "solver": "paper"}, "solver='paper'"),
    ):
        with pytest.raises(ValueError, match=match):
            fit(x, y, leave_out="groups", **QUICK, **options)
