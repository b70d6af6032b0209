"""Groups of cells: their proportions, how they are drawn and held out, and what that does to a map."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scot_hycnn.potentials import Gaussian
from scot_hycnn.solver import check_groups, fit
from scot_hycnn.solver.data._cells import Cells
from scot_hycnn.solver.data._groups import Groups, Strata, group_cells, pair_of_labels

SIZES = st.lists(st.tuples(st.integers(5, 60), st.integers(5, 60)), min_size=2, max_size=6)
QUICK = {"max_steps": 40, "hidden": (8, 8), "n_ensemble": 2, "batch_size": 64, "device": "cpu"}


def labels(sizes, side):
    return np.repeat([f"type {k}" for k in range(len(sizes))], [size[side] for size in sizes])


def groups_of(sizes, weighting="sqrt"):
    return Groups.of(labels(sizes, 0), labels(sizes, 1), weighting)


@settings(max_examples=30, deadline=None)
@given(SIZES, st.sampled_from(["sqrt", "equal", "observed"]))
def test_weights_give_every_group_the_same_proportion_in_both_clouds(sizes, weighting):
    groups = groups_of(sizes, weighting)
    for cloud, weights in zip((groups.x, groups.y), groups.weights, strict=True):
        mass = np.bincount(cloud, weights)
        np.testing.assert_allclose(mass, groups.proportions, rtol=1e-12)
    assert groups.proportions.sum() == pytest.approx(1)


def test_proportions_are_the_named_function_of_the_share():
    sizes = [(80, 10), (10, 30), (10, 60)]  # shares (.8 + .1) / 2, (.1 + .3) / 2, (.1 + .6) / 2
    shares = np.array([0.45, 0.2, 0.35])
    np.testing.assert_allclose(groups_of(sizes, "observed").proportions, shares)
    np.testing.assert_allclose(groups_of(sizes, "equal").proportions, [1 / 3] * 3)
    np.testing.assert_allclose(groups_of(sizes, "sqrt").proportions, np.sqrt(shares) / np.sqrt(shares).sum())


@settings(max_examples=30, deadline=None)
@given(SIZES, st.floats(0.05, 0.5), st.integers(0, 99))
def test_held_out_cells_are_as_many_of_each_group_in_both_clouds(sizes, fraction, seed):
    groups = groups_of(sizes)
    held = groups.hold_out(fraction, 1000, np.random.default_rng(seed))
    counts = [
        np.bincount(cloud[rows], minlength=len(sizes)) for cloud, rows in zip((groups.x, groups.y), held, strict=True)
    ]
    assert counts[0].tolist() == counts[1].tolist()
    assert (counts[0] >= 1).all()
    assert (counts[0] <= np.array(sizes).min(1) // 2).all()


@settings(max_examples=20, deadline=None)
@given(SIZES, st.integers(0, 99))
def test_batches_have_the_proportions_whatever_the_sizes(sizes, seed):
    groups = groups_of(sizes)
    strata = Strata.of(groups.x, groups.proportions, "cpu")
    rows = strata.draw((4, 5000), torch.Generator().manual_seed(seed))
    drawn = np.bincount(groups.x[rows.numpy().ravel()], minlength=len(sizes)) / rows.numel()
    np.testing.assert_allclose(drawn, groups.proportions, atol=5 * np.sqrt(0.25 / rows.numel()))
    within = np.bincount(rows.numpy().ravel(), minlength=len(groups.x))
    assert (within > 0).all()  # every cell is drawn


def test_a_group_without_cells_leaves_its_proportion_to_the_others():
    groups = groups_of([(30, 30), (30, 30), (30, 30)], "equal")
    rest = groups.take(groups.x != 1, groups.y != 1)
    np.testing.assert_allclose(np.bincount(rest.x, rest.weights[0], minlength=3), [0.5, 0, 0.5])
    rows = Strata.of(rest.x, rest.proportions, "cpu").draw((1, 4000), torch.Generator().manual_seed(0))
    drawn = np.bincount(rest.x[rows.numpy().ravel()], minlength=3) / 4000
    np.testing.assert_allclose(drawn, [0.5, 0, 0.5], atol=0.04)


def test_the_gaussian_map_of_weighted_cells_is_that_of_repeated_cells():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(3000, 2)), rng.normal(size=(3000, 2)) * [1, 3] + 2
    times = rng.integers(1, 4, size=3000)
    weighted = Gaussian.fit(x, y, weights_x=times, weights_y=times[::-1])
    repeated = Gaussian.fit(np.repeat(x, times, axis=0), np.repeat(y, times[::-1], axis=0))
    np.testing.assert_allclose(weighted.mean_x, repeated.mean_x)
    np.testing.assert_allclose(
        weighted.covariance_y, repeated.covariance_y, rtol=1e-2, atol=1e-2
    )  # but for the shrinkage
    constant = Gaussian.fit(x, y, weights_x=np.full(3000, 7.0))
    np.testing.assert_allclose(constant.covariance_x, Gaussian.fit(x, y).covariance_x)


# ---- composition


def three_types(n_x, n_y, seed):
    """Three clusters that do not move, in other proportions: plain transport would move cells between them."""
    rng = np.random.default_rng(seed)
    centres = np.array([[0.0, 0.0], [8.0, 0.0], [0.0, 8.0]])
    of_x, of_y = np.repeat(np.arange(3), n_x), np.repeat(np.arange(3), n_y)
    return centres[of_x] + rng.normal(size=(sum(n_x), 2)), centres[of_y] + rng.normal(size=(sum(n_y), 2)), of_x, of_y


@pytest.mark.parametrize("weighting", ["sqrt", "equal", "observed"])
def test_a_shift_of_proportions_is_no_response(weighting):
    x, y, of_x, of_y = three_types((600, 200, 200), (200, 200, 600), 0)
    plain = fit(x, y, potential="gaussian")
    grouped = fit(x, y, potential="gaussian", groups=(of_x, of_y), group_weights=weighting)
    moved = [np.linalg.norm(f.transport(x) - x, axis=1).mean() for f in (plain, grouped)]
    assert moved[1] < 0.15 < 3 * moved[1] + 3 < 5 < moved[0] + 3
    assert moved[0] > 10 * moved[1]


def test_the_network_is_not_misled_by_proportions_either():
    x, y, of_x, of_y = three_types((600, 200, 200), (200, 200, 600), 1)
    grouped = fit(x, y, groups=(of_x, of_y), **QUICK)
    plain = fit(x, y, **QUICK)
    assert (
        np.linalg.norm(grouped.transport(x) - x, axis=1).mean()
        < 0.3 * np.linalg.norm(plain.transport(x) - x, axis=1).mean()
    )


def test_validation_cells_have_the_proportions():
    x, y, of_x, of_y = three_types((600, 100, 50), (50, 100, 600), 0)
    x, y, groups = group_cells(x, y, pair_of_labels((of_x, of_y), len(x), len(y)), "equal")
    cells = Cells.prepare(x, y, 0.1, rng=0, device="cpu", groups=groups)
    for validation in (cells.x_validation_original, cells.y_validation_original):
        nearest = np.argmin(((validation[:, None] - [[0, 0], [8, 0], [0, 8]]) ** 2).sum(-1), axis=1)
        assert len(set(np.bincount(nearest, minlength=3))) == 1
    assert len(cells.x) + len(cells.x_validation) == len(x)


def test_the_same_seed_gives_the_same_bits():
    x, y, of_x, of_y = three_types((60, 60, 60), (60, 60, 60), 2)
    y = y + 2 * np.sign(y)
    first, again = (fit(x, y, groups=(of_x, of_y), **(QUICK | {"max_steps": 150})) for _ in range(2))
    assert torch.equal(first.theta, again.theta)


# ---- messages


def normal(n):
    return np.random.default_rng(n).normal(size=(n, 2))


@pytest.mark.parametrize(
    ("groups", "match"),
    [
        ("ab", r"groups must be a pair: labels of the source cells and of the target cells; it is 'ab'"),
        ((["a"] * 30,), "groups must be a pair"),
        ((["a"] * 29, ["a"] * 40), r"groups of the source cells have shape \(29,\); there are 30 cells"),
        ((["a"] * 30, [["a"]] * 40), r"groups of the target cells have shape \(40, 1\); there are 40 cells"),
        (
            (["a"] * 26 + ["b"] * 4, ["a"] * 20 + ["b"] * 20),
            r"groups: \['a'\] has 5 cells or more in both .* The source has \{'a': 26, 'b': 4\} and the target",
        ),
        ((["a"] * 30, ["b"] * 40), "groups: no group has 5 cells or more in both clouds"),
        (
            (["a"] * 6 + ["b"] * 6 + ["c"] * 18, ["a"] * 20 + ["b"] * 20),
            r"The groups \['a', 'b'\] that source and target share have 12 and 40 cells; at least 20 of each",
        ),
    ],
)
def test_groups_that_cannot_be_used(groups, match):
    for call in (
        lambda: fit(normal(30), normal(40), potential="gaussian", groups=groups),
        lambda: check_groups(groups, (30, 2), (40, 2)),
    ):
        with pytest.raises(ValueError, match=match):
            call()


def test_cells_of_a_group_that_one_side_lacks_are_left_out():
    x, y, of_x, of_y = three_types((100, 100, 100), (100, 100, 3), 0)
    fitted = fit(x, y, potential="gaussian", groups=(of_x, of_y))
    assert fitted.validation["groups_left_out"].tolist() == ["2"]
    same = fit(x[of_x < 2], y[of_y < 2], potential="gaussian", groups=(of_x[of_x < 2], of_y[of_y < 2]))
    np.testing.assert_array_equal(fitted.transport(x), same.transport(x))
