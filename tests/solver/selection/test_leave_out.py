"""The choice of the blend by groups that were left out."""

from __future__ import annotations

import numpy as np
import pytest

from scot_hycnn.solver import fit
from scot_hycnn.solver.data._groups import Groups
from scot_hycnn.solver.selection._blend import BLENDS, Score
from scot_hycnn.solver.selection._groups_left_out import MOST_FOLDS, LeftOut, folds

QUICK = {"max_steps": 150, "hidden": (16, 16), "n_ensemble": 2, "batch_size": 128, "device": "cpu"}


def score(j, energy, residual=0.01):
    return Score(np.full(4, j), np.zeros(4), np.zeros(4), np.zeros(4), energy, residual)


def left_out(rows):
    """Each row: J and energy distance of every blend, in one group."""
    return LeftOut(tuple("abcdef"[: len(rows)]), tuple([score(*pair) for pair in row] for row in rows))


def groups_of(sizes):
    cloud = np.repeat([f"{k:02}" for k in range(len(sizes))], sizes)
    return Groups.of(cloud, cloud, "sqrt")


@pytest.mark.parametrize("n_groups", [3, 5, 8, 13])
def test_every_group_is_left_out_once_and_the_largest_ones_apart(n_groups):
    sizes = np.arange(n_groups, 0, -1) * 10
    dealt = folds(groups_of(sizes))
    assert sorted(np.concatenate(dealt).tolist()) == list(range(n_groups))
    assert len(dealt) == min(MOST_FOLDS, n_groups)
    assert [fold[0] for fold in dealt] == list(range(len(dealt)))


def test_a_blend_that_is_better_on_every_group_is_taken():
    assert (
        left_out(
            [[(0, 1), (-1, 0.5), (-2, 0.4)], [(5, 1), (4.1, 0.5), (3, 0.4)], [(2, 1), (0.9, 0.5), (0.2, 0.4)]]
        ).choose()
        == 2
    )


def test_groups_that_disagree_keep_the_gaussian_map():
    assert left_out([[(0, 1), (-5, 0.5)], [(0, 1), (4, 0.9)], [(0, 1), (0.5, 1)]]).choose() == 0


def test_a_larger_energy_distance_on_average_keeps_the_gaussian_map():
    assert left_out([[(0, 1), (-1, 1.3)], [(0, 1), (-1.1, 0.9)], [(0, 1), (-0.9, 0.9)]]).choose() == 0


def test_blends_that_did_not_converge_or_are_not_finite_are_out():
    rows = [[score(0, 1), score(-1, 0.5), score(-9, 0.1, residual=0.5), score(-np.inf, 0.1)] for _ in range(3)]
    assert LeftOut(("a", "b", "c"), tuple(rows)).choose() == 1


# ---- in a fit


def clusters(seed, move):
    rng = np.random.default_rng(seed)
    centres = np.array([[-6.0, 0.0], [6.0, 0.0], [0.0, 6.0], [0.0, -6.0]])
    of = np.repeat(np.arange(4), 150)
    x, y = (centres[of] + rng.normal(size=(600, 2)) for _ in range(2))
    return x, move(y), (of, of)


def bent(y):
    return y + 2 * np.sign(y)


def test_a_fit_reports_what_left_out_groups_say_and_follows_them():
    x, y, groups = clusters(0, bent)
    fitted = fit(x, y, groups=groups, leave_out="groups", **QUICK)
    validation = fitted.validation
    assert fitted.params["leave_out"] == "groups"
    for name in ("J_left_out", "J_left_out_error", "energy_distance_left_out", "energy_left_out_error"):
        assert len(validation[f"{name}_by_blend"]) == len(BLENDS)
        assert validation[f"{name}_by_blend"][0] == 0
    mean = validation["J_left_out_by_blend"] + np.where(validation["energy_distance_left_out_by_blend"] > 0, np.inf, 0)
    assert fitted.blend in (0, BLENDS[int(np.argmin(mean))])
    # On cells like those that were seen the network would have been taken (with this seed by a wide margin).
    assert fit(x, y, groups=groups, rng=2, **QUICK).blend > 0


def test_the_gaussian_map_alone_leaves_nothing_to_choose():
    x, y, groups = clusters(0, bent)
    fitted = fit(x, y, groups=groups, leave_out="groups", potential="gaussian")
    assert "J_left_out_by_blend" not in fitted.validation
    assert (fitted.blend, fitted.status) == (0, "ok")


def test_what_is_left_out_is_not_seen(monkeypatch):
    """Each fold's coordinates come from cells without the groups that it is judged on."""
    from scot_hycnn.solver import _leave_out

    x, y, groups = clusters(1, bent)
    seen = []

    def scored(_, cells):
        held = cells.x_validation_original
        centre = held.mean(0)
        training = cells.coordinates.invert_source(np.asarray(cells.x.double()))
        seen.append((centre, np.linalg.norm(training - centre, axis=1).min()))
        return [score(0, 1)] * len(BLENDS)

    monkeypatch.setattr(_leave_out, "score_blends", scored)
    fitted = fit(x, y, groups=groups, leave_out="groups", **QUICK)
    assert "groups left out" in fitted.status
    seen = seen[-4:]  # the first is that of the fit itself
    assert len(seen) == 4
    assert min(distance for _, distance in seen) > 2


def test_messages():
    x, y, groups = clusters(0, bent)
    with pytest.raises(ValueError, match="leave_out='groups' needs groups: the group of each source and each target"):
        fit(x, y, leave_out="groups", **QUICK)
    two = tuple(np.where(cloud < 2, "a", "b") for cloud in groups)
    with pytest.raises(ValueError, match=r"at least 3 groups with 10 cells .* there are \['a', 'b'\]"):
        fit(x, y, groups=two, leave_out="groups", **QUICK)
    with pytest.raises(ValueError, match="solver='paper' keeps the network always; choose another solver"):
        fit(x, y, groups=groups, leave_out="groups", solver="paper", device="cpu")
