"""Simple maps that are compared on groups left out, and centred maps, against responses that are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from scot_hycnn.metrics import energy_distance
from scot_hycnn.solver import Outcome, TransportMap, fit

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
        ("none", {"no change"}),
        ("shift", None),  # all maps but no change are about the same
        ("centred", {"centred Gaussian map"}),
        ("affine", {"Gaussian map"}),
    ],
)
def test_the_map_that_the_response_is_wins_and_predicts_a_new_group(kind, winners, seed):
    fitted, x, y = fitted_without_last(kind, seed)
    winner = fitted.validation["winner"]
    assert winner in winners if winners else winner != "no change"
    # Means of 150 cells of unit variance are off by 1/12 in each dimension, and energy distances by as little.
    assert energy_distance(moved_by(fitted, x), y) < 0.15
    outcomes = {"no change": Outcome.NO_CHANGE, "Gaussian map": Outcome.GAUSSIAN}
    assert fitted.outcome == outcomes.get(winner, Outcome.SIMPLE)
    assert bool(fitted.centres) == winner.startswith("centred G")
    if kind == "none":
        assert np.allclose(moved_by(fitted, x), x, atol=1e-5)


def test_the_table_has_every_map_and_group_left_out():
    validation = fitted_without_last("affine")[0].validation
    table = validation["ladder_energy_distance"]
    assert table.shape == (len(validation["ladder"]), len(validation["ladder_groups"])) == (10, N_GROUPS - 1)
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
    quick = {"max_steps": 200, "n_ensemble": 2, "hidden": (16, 16), "batch_size": 128}
    fitted, x, y = fitted_without_last("sign", potential="hycnn", **quick)
    validation = fitted.validation
    assert validation["ladder"][-1] == "centred networks"
    assert set(fitted.centres) == {f"donor/{k}" for k in range(N_GROUPS - 1)}
    assert (fitted.blend > 0) == (validation["winner"] == "centred networks") == (fitted.outcome == Outcome.NETWORKS)
    assert energy_distance(moved_by(fitted, x), y) < 0.2
    # Far from all cells the best of the other maps takes over.
    around = fitted.around(x.mean(0))
    simple = replace(around, blend=0.0, coordinates=around.far)
    assert np.allclose(around.transport(x + 100, fallback=True), simple.transport(x + 100))


# ---- centred maps


@pytest.fixture(scope="module")
def centred():
    fitted, x, _ = fitted_without_last("centred")
    return fitted, x


def test_a_centred_map_acts_around_the_mean_of_each_group(centred):
    fitted, x = centred
    cells, labels, centre = groups_of("centred")[0], groups_of("centred")[2], x.mean(0)
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
