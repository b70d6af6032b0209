"""Simple maps that are compared on groups left out, and centred maps, against responses that are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, DotProduct

from scot_hycnn.metrics import energy_distance
from scot_hycnn.solver import Outcome, TransportMap, fit
from scot_hycnn.solver.data._groups import Groups
from scot_hycnn.solver.selection._ladder import Ladder, choose, closed_forms

N_GROUPS, N_CELLS, N_DIMS = 6, 150, 4
SHIFT = np.array([1.0, 0.5, -0.5, 0.0])
SCALE = np.array([1.5, 1.0, 0.7, 1.0])
LADDER = {"leave_out": "groups", "potential": "gaussian"}


def response(kind, cells, baseline):
    """Return what a treatment does to the cells of a group with this baseline."""
    moved = {
        "none": cells,
        "shift": cells + SHIFT,
        # Around the baseline of each donor.
        "centred": baseline + (cells - baseline) * SCALE + SHIFT,
        # One map for all types.
        "affine": cells * SCALE + SHIFT,
        # Along one direction, by where the group is; its own cells keep their spread.
        "by baseline": cells + baseline.mean() * SHIFT,
        "sign": cells + 2 * np.sign(cells - baseline),
    }
    return moved[kind]


def groups_of(kind, seed=0, n_groups=N_GROUPS):
    """Return source and target cells and their groups; every group has its own baseline."""
    rng = np.random.default_rng(seed)
    x, y = [], []
    for _ in range(n_groups):
        baseline = 3 * rng.normal(size=N_DIMS)
        source, other = baseline + rng.normal(size=(2, N_CELLS, N_DIMS))
        x.append(source)
        y.append(response(kind, other, baseline))
    labels = np.repeat([f"donor/{k}" for k in range(n_groups)], N_CELLS)
    return np.concatenate(x), np.concatenate(y), labels


def fitted_without_last(kind, seed=0, **options):
    """Return a fit to all groups but the last, and the source and target cells of that one."""
    x, y, labels = groups_of(kind, seed)
    is_last = labels == labels[-1]
    groups = labels[~is_last], labels[~is_last]
    return fit(x[~is_last], y[~is_last], groups=groups, **(LADDER | options)), x[is_last], y[is_last]


def moved_by(fitted, x):
    return fitted.around(x.mean(0)).transport(x) if fitted.centres else fitted.transport(x)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("kind", "winners"),
    [
        ("none", {"no change", "half of the Gaussian map"}),
        ("shift", None),  # all maps but no change are about the same
        ("centred", {"centred Gaussian map"}),
        ("affine", {"Gaussian map", "Gaussian map with regression over groups"}),
    ],
)
def test_the_map_that_the_response_is_wins_and_predicts_a_new_group(kind, winners, seed):
    fitted, x, y = fitted_without_last(kind, seed)
    validation = fitted.validation
    largest, winner = validation["ladder"][int(np.argmax(validation["ladder_share"]))], validation["winner"]
    assert largest in winners if winners else largest != "no change"
    assert winner == largest or winner.startswith("average of")
    # Means of 150 cells of unit variance are off by 1/12 in each dimension, and energy distances by as little.
    assert energy_distance(moved_by(fitted, x), y) < 0.15
    outcomes = {"no change": Outcome.NO_CHANGE, "Gaussian map": Outcome.GAUSSIAN}
    assert fitted.outcome == outcomes.get(winner, Outcome.SIMPLE)
    if winner == largest:
        assert bool(fitted.centres) == winner.startswith(("centred G", "regr", "Gaussian map with"))
    if winner == "no change":
        assert np.allclose(moved_by(fitted, x), x, atol=1e-5)
    if kind == "none":  # also if the test for a response sees one by chance, as for the first seed (p = .025)
        assert energy_distance(moved_by(fitted, x), x) < 0.02


def test_the_table_has_every_map_and_group_left_out():
    validation = fitted_without_last("affine")[0].validation
    table = validation["ladder_energy_distance"]
    assert table.shape == (len(validation["ladder"]), len(validation["ladder_groups"])) == (12, N_GROUPS - 1)
    assert np.allclose(validation["ladder_mean"], table.mean(1))
    assert validation["ladder"][int(np.argmin(table.mean(1)))] == validation["winner"] == "Gaussian map"


def test_energy_distances_are_those_of_fits_without_the_group():
    x, y, labels = groups_of("affine")
    validation = fit(x, y, groups=(labels, labels), **LADDER).validation
    table = dict(zip(validation["ladder"], validation["ladder_energy_distance"], strict=True))
    for number, group in enumerate(validation["ladder_groups"][:2]):
        held = labels == group
        without = fit(x[~held], y[~held], groups=(labels[~held],) * 2, potential="gaussian")
        assert table["Gaussian map"][number] == pytest.approx(energy_distance(without.transport(x[held]), y[held]))
        assert table["no change"][number] == pytest.approx(energy_distance(x[held], y[held]))
        shifted = x[held] + y[~held].mean(0) - x[~held].mean(0)
        assert table["shift"][number] == pytest.approx(energy_distance(shifted, y[held]))


def test_networks_are_a_rung():
    """x + 2 sign(x) around each donor's own baseline: a nonlinear response that all donors share."""
    quick = {"max_steps": 100, "n_ensemble": 2, "hidden": (16, 16), "batch_size": 128}
    fitted, x, y = fitted_without_last("sign", potential="hycnn", **quick)
    validation = fitted.validation
    assert validation["ladder"][-1] == "centred networks"
    assert set(fitted.centres) == {f"donor/{k}" for k in range(N_GROUPS - 1)}
    assert (fitted.blend > 0) == (validation["winner"] == "centred networks") == (fitted.outcome == Outcome.NETWORKS)
    assert energy_distance(moved_by(fitted, x), y) < 0.2
    # Far from all cells the best of the shifts takes over.
    around = fitted.around(x.mean(0)) if fitted.centres else fitted
    simple = replace(around, blend=0.0, coordinates=around.far)
    assert np.allclose(around.transport(x + 100, fallback=True), simple.transport(x + 100))


def test_networks_need_a_clear_gain():
    x, y, labels = groups_of("affine")
    codes = np.unique(labels, return_inverse=True)[1]
    groups = Groups(codes, codes, tuple(np.unique(labels)), np.full(N_GROUPS, 1 / N_GROUPS))
    ladder = Ladder.compare(x, y, groups, rng=0, response_seen=True)
    for spread, blend in ((0.0, 0.5), (0.5, 0.0)):
        gain = -0.1 + spread * np.tile([-1.0, 1.0], N_GROUPS // 2)
        assert ladder.with_networks(np.stack([0 * gain, gain]), 1, (0.0, 0.5)).blend == blend


# ---- the choice


def shares_of(*rows):
    """Return the shares of maps with these energy distances on groups left out, no change first."""
    return choose(np.array(rows, dtype=float), np.random.default_rng(0))


def test_the_share_of_a_map_is_its_probability_of_being_nearest():
    still = np.full(6, 10.0)
    assert shares_of(still, [1, 2, 1, 2, 1, 2], [3, 4, 3, 4, 3, 4]).tolist() == [0, 1, 0]
    # Two maps, each nearer in half of the groups, by as much.
    shares = shares_of(still, [1, 5, 1, 5, 1, 5], [5, 1, 5, 1, 5, 1])
    assert shares[0] == 0
    assert shares[1] == pytest.approx(0.5, abs=0.06)
    # Of two that are as near, the simpler one, which comes first.
    assert shares_of(still, still / 2, still / 2 - 0.01).tolist() == [0, 1, 0]


def test_a_map_that_is_not_nearer_than_no_change_has_no_share():
    # The second is nearer in most groups, but not on average.
    assert shares_of([1.0] * 6, [0.5, 0.5, 0.5, 0.5, 0.5, 5], [0.9] * 6).tolist() == [0, 0, 1]
    assert shares_of([1.0] * 6, [1.1] * 6, [2, 0.1, 2, 0.1, 2, 0.1]).tolist() == [1, 0, 0]
    # The nearest one is nearer by chance only.
    assert shares_of([1.0] * 6, [0.5, 1.4, 0.6, 1.5, 0.4, 1.5]).tolist() == [1, 0]


# ---- maps by regression over groups


@pytest.fixture(scope="module")
def regression():
    """A map of which the groups move along one direction, in proportion to the mean of their baseline."""
    x, y, labels = groups_of("by baseline", n_groups=10)
    fitted = fit(x, y, groups=(labels, labels), **LADDER)
    assert fitted.validation["winner"].endswith("regression over groups")
    return fitted, x, labels


def test_the_move_of_a_group_is_that_of_a_gaussian_process(regression):
    """Against scikit-learn, with the prior of one mean move for all groups and a slope, and noise by the cells."""
    _, x, labels = regression
    y = response("by baseline", x + 0, x)
    names, codes = np.unique(labels, return_inverse=True)
    few = codes > 0
    few[np.flatnonzero(codes == 0)[:30]] = True
    x, y, codes = x[few], y[few], codes[few]
    groups = Groups(codes, codes, tuple(names), np.full(len(names), 1 / len(names)))
    rung = next(one for one in closed_forms(x, y, groups) if one.name == "regression over groups")

    centres, ends = (np.stack([cells[codes == k].mean(0) for k in range(len(names))]) for cells in (x, y))
    apart, moves = centres - centres.mean(0), ends - centres
    kernel = ConstantKernel(1.0) + ConstantKernel(1 / (apart**2).sum(1).mean()) * DotProduct(sigma_0=1e-9)
    counts = np.bincount(codes)
    process = GaussianProcessRegressor(kernel, alpha=np.median(counts) / counts, optimizer=None)
    process.fit(apart, moves - moves.mean(0))
    new = centres[3] + 0.5
    expected = new + moves.mean(0) + process.predict((new - centres.mean(0))[None])[0]
    assert np.allclose(rung.move_centre(new), expected)


def test_regression_is_nearer_than_any_shift_where_groups_move_by_their_baseline(regression):
    validation = regression[0].validation
    mean = dict(zip(validation["ladder"], validation["ladder_mean"], strict=True))
    assert mean["regression over groups"] < 0.5 * min(mean["shift"], mean["centred shift"], mean["no change"])


def test_a_group_far_from_all_others_moves_less(regression):
    fitted, _, _ = regression
    centres = np.stack(list(fitted.centres.values()))
    apart = np.linalg.norm(centres[:, None] - centres, axis=2) + np.diag(np.full(len(centres), np.inf))
    far = centres.mean(0) + 40 * np.ones(N_DIMS)
    free = replace(fitted, centres=dict.fromkeys(fitted.centres, far)).around(far)
    ratio = apart.min(1).max() / np.linalg.norm(centres - far, axis=1).min()
    moved = fitted.around(far).transport(far[None]) - far
    assert ratio < 0.5
    # Shifts and the centred Gaussian map, if they are part of the average, hold everywhere.
    steady = fitted.between[:, -1]
    assert np.allclose(moved - steady, ratio * (free.transport(far[None]) - far - steady), rtol=1e-3)


def test_cells_far_before_centring_are_out_of_support_where_groups_move_by_their_baseline(regression):
    fitted, x, labels = regression
    cells = x[labels == labels[0]]
    score = fitted.around(cells.mean(0)).out_of_support(cells)
    assert np.median(score) < 1
    assert (fitted.around(cells.mean(0) + 50).out_of_support(cells + 50) > 5).all()


def test_a_map_by_regression_comes_back_from_files_and_damaged_ones_are_refused(regression, tmp_path):
    fitted, x, _ = regression
    fitted.save(tmp_path / "map.safetensors")
    loaded = TransportMap.load(tmp_path / "map.safetensors", device="cpu")
    assert (loaded.around(x[0]).transport(x) == fitted.around(x[0]).transport(x)).all()
    assert fitted.certificate["monotonicity"] > 0
    for between in (np.eye(N_DIMS), np.full((N_DIMS, N_DIMS + 1), np.nan), "no matrix"):
        state = fitted.to_dict()
        state["centres"] = state["centres"] | {"between": between}
        with pytest.raises(ValueError, match="between"):
            TransportMap.from_dict(state)


def test_fallback_moves_far_cells_by_a_shift_also_where_a_simple_map_won():
    fitted, x, _ = fitted_without_last("affine")
    assert fitted.validation["winner"] == "Gaussian map"
    far = x + 100
    moved = fitted.transport(far, fallback=True) - far
    assert np.allclose(moved, moved[0], atol=1e-3)
    # The shift of groups whose mean is scaled by their position is less than what the Gaussian map does there.
    assert np.linalg.norm(moved[0]) < 0.5 * np.linalg.norm(fitted.transport(far) - far, axis=1).min()
    near = x[fitted.out_of_support(x) < 1]
    assert np.allclose(fitted.transport(near, fallback=True), fitted.transport(near))


# ---- centred maps


@pytest.fixture(scope="module")
def centred():
    fitted, x, _ = fitted_without_last("centred", seed=1)
    return fitted, x


def test_a_centred_map_acts_around_the_mean_of_each_group(centred):
    fitted, x = centred
    (cells, _, labels), centre = groups_of("centred", seed=1), x.mean(0)
    assert np.allclose(fitted.centres["donor/0"], cells[labels == "donor/0"].mean(0))
    around, still = fitted.around(centre), fitted.around(np.zeros(N_DIMS))
    assert np.allclose(around.transport(x), centre + still.transport(x - centre), atol=1e-5)
    assert np.allclose(around.inverse(around.transport(x)), x, atol=1e-4)
    assert around.centres == {}
    certificate = fitted.certificate
    assert certificate["monotonicity"] > 0
    assert certificate["cycle_error"] < 1e-4
    # The baseline is the Gaussian map of the cells as they are, which needs no groups.
    assert fitted.gaussian_map().transport(x).shape == x.shape


def test_a_centred_map_comes_back_from_files(centred, tmp_path):
    fitted, x = centred
    fitted.save(tmp_path / "map.safetensors")
    for loaded in (
        TransportMap.load(tmp_path / "map.safetensors", device="cpu"),
        TransportMap.from_dict(fitted.to_dict(), device="cpu"),
    ):
        assert list(loaded.centres) == list(fitted.centres)
        assert (loaded.around(x[0]).transport(x) == fitted.around(x[0]).transport(x)).all()
        assert loaded.validation["winner"] == "centred Gaussian map"


def test_a_centred_map_without_a_centre_is_refused(centred):
    fitted, x = centred
    for call in (fitted.transport, fitted.inverse, fitted.potential, fitted.conjugate, fitted.out_of_support):
        with pytest.raises(ValueError, match=r"around\(centre\)"):
            call(x)
    with pytest.raises(ValueError, match=r"around\(centre\)"):
        fitted.certify(x, x)
    with pytest.raises(ValueError, match=r"\(3,\)"):
        fitted.around(np.zeros(3))
    with pytest.raises(ValueError, match="not centred"):
        fitted.around(np.zeros(N_DIMS)).around(np.zeros(N_DIMS))


@pytest.mark.parametrize(
    ("groups", "points"),
    [
        (np.array(["a", "a"]), np.zeros((2, N_DIMS))),
        (np.array(["a"]), np.zeros((2, N_DIMS))),
        (np.array(["a"]), np.full((1, N_DIMS), np.nan)),
        (np.broadcast_to(np.array("a"), 10**12), np.broadcast_to(np.zeros(N_DIMS), (10**12, N_DIMS))),
        (np.array([1]), np.zeros((1, N_DIMS))),
    ],
)
def test_damaged_centres_are_refused(centred, groups, points):
    state = centred[0].to_dict() | {"centres": {"groups": groups, "points": points}}
    with pytest.raises(ValueError, match="centres must be"):
        TransportMap.from_dict(state)
