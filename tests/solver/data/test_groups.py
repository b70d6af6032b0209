"""Groups of cells: their labels, their proportions, how they are drawn and held out, and their effect on a map."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scot_hycnn.solver import check_groups, fit
from scot_hycnn.solver._options import WEIGHTINGS
from scot_hycnn.solver.data._groups import Labels, group_cells
from scot_hycnn.solver.data._training_data import Strata

SIZES = st.lists(st.tuples(st.integers(5, 60), st.integers(5, 60)), min_size=2, max_size=6)
QUICK = {"max_steps": 40, "hidden": (8, 8), "n_ensemble": 2, "batch_size": 64, "device": "cpu"}


def labels(sizes, side):
    return np.repeat([f"type {k}" for k in range(len(sizes))], [size[side] for size in sizes])


def groups_of(sizes, weighting="sqrt"):
    of_x, of_y = labels(sizes, 0), labels(sizes, 1)
    pair = Labels.of(of_x), Labels.of(of_y)
    return group_cells(np.zeros((len(of_x), 1)), np.zeros((len(of_y), 1)), pair, WEIGHTINGS[weighting])[2]


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


def test_the_held_out_part_is_as_large_as_asked():
    labels = Labels.of(np.repeat(["a", "b"], [300, 100]))
    _, _, groups = group_cells(np.zeros((400, 2)), np.zeros((400, 2)), (labels, labels), WEIGHTINGS["observed"])
    for held in groups.hold_out(0.1, 1000, np.random.default_rng(0)):
        assert np.bincount(groups.x[held]).tolist() == [30, 10]


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
    others = groups.take(groups.x != 1, groups.y != 1)
    np.testing.assert_allclose(np.bincount(others.x, others.weights[0], minlength=3), [0.5, 0, 0.5])
    rows = Strata.of(others.x, others.proportions, "cpu").draw((1, 4000), torch.Generator().manual_seed(0))
    drawn = np.bincount(others.x[rows.numpy().ravel()], minlength=3) / 4000
    np.testing.assert_allclose(drawn, [0.5, 0, 0.5], atol=0.04)


# ---- composition


def three_types(n_x, n_y, seed):
    """Three clusters that do not move, in other proportions: plain transport would move cells between them."""
    rng = np.random.default_rng(seed)
    centres = np.array([[0.0, 0.0], [8.0, 0.0], [0.0, 8.0]])
    of_x, of_y = np.repeat(np.arange(3), n_x), np.repeat(np.arange(3), n_y)
    return centres[of_x] + rng.normal(size=(sum(n_x), 2)), centres[of_y] + rng.normal(size=(sum(n_y), 2)), of_x, of_y


@pytest.mark.parametrize("weighting", ["sqrt", "observed"])
def test_a_shift_of_proportions_is_no_response(weighting):
    x, y, of_x, of_y = three_types((600, 200, 200), (200, 200, 600), 0)
    plain = fit(x, y, potential="gaussian")
    grouped = fit(x, y, potential="gaussian", groups=(of_x, of_y), group_weights=weighting)
    moved = [np.linalg.norm(f.transport(x) - x, axis=1).mean() for f in (plain, grouped)]
    assert moved[1] < 0.15
    assert moved[0] > 10 * moved[1]


def test_networks_do_not_follow_proportions_either():
    x, y, of_x, of_y = three_types((600, 200, 200), (200, 200, 600), 1)
    grouped = fit(x, y, groups=(of_x, of_y), **QUICK)
    plain = fit(x, y, **QUICK)
    assert (
        np.linalg.norm(grouped.transport(x) - x, axis=1).mean()
        < 0.3 * np.linalg.norm(plain.transport(x) - x, axis=1).mean()
    )


def test_the_same_seed_gives_the_same_bits():
    x, y, of_x, of_y = three_types((60, 60, 60), (60, 60, 60), 2)
    y = y + 2 * np.sign(y)
    first, again = (fit(x, y, groups=(of_x, of_y), **(QUICK | {"max_steps": 10})) for _ in range(2))
    assert torch.equal(first.theta, again.theta)


# ---- labels


def normal(n):
    return np.random.default_rng(n).normal(size=(n, 2))


@pytest.mark.parametrize(
    ("groups", "match"),
    [
        ("ab", "it is 'ab'"),
        ((["a"] * 30,), "groups must be a pair"),
        ((["a"] * 29, ["a"] * 40), r"source cells have shape \(29,\); there are 30 cells"),
        ((["a"] * 30, [["a"]] * 40), r"target cells have shape \(40, 1\); there are 40 cells"),
        ((["a"] * 26 + ["b"] * 4, ["a"] * 20 + ["b"] * 20), r"\['a'\] .*\{'a': 26, 'b': 4\}.*\{'a': 20, 'b': 20\}"),
        ((["a"] * 30, ["b"] * 40), "no group has 5 cells"),
        (
            (["a"] * 6 + ["b"] * 6 + ["c"] * 18, ["a"] * 20 + ["b"] * 20),
            r"\['a', 'b'\] .* 12 and 40 cells; at least 20",
        ),
        ((["a", None] * 15, ["a"] * 40), r"source cells are missing .* 15 of 30 cells, the first in row 1"),
        ((np.ma.masked_equal(["a"] * 20 + ["b"] * 10, "b"), ["a"] * 40), "10 of 30 cells, the first in row 20"),
        ((pd.Categorical(["a"] * 29 + [None]), ["a"] * 40), "1 of 30 cells, the first in row 29"),
        ((np.arange(30) / 7, np.linspace(0, 1, 40)), "no group has 5 cells.*pandas.cut"),
    ],
)
def test_groups_that_cannot_be_used_are_named(groups, match):
    for call in (
        lambda: fit(normal(30), normal(40), potential="gaussian", groups=groups),
        lambda: check_groups(groups, (30, 2), (40, 2)),
    ):
        with pytest.raises(ValueError, match=match):
            call()


def test_labels_may_be_of_any_kind_and_categories_may_be_unused():
    numbers = np.resize([1, 2, 3], 60)
    other = pd.Series(pd.Categorical(numbers.astype(str), categories=["0", "3", "2", "1"]))
    for same in (numbers, numbers.tolist(), numbers.astype(object), pd.Series(numbers), pd.Categorical(numbers), other):
        assert check_groups((same, other), (60, 2), (60, 2)) == ["1", "2", "3"]


def test_cells_of_a_group_that_one_side_lacks_are_left_out():
    x, y, of_x, of_y = three_types((100, 100, 100), (100, 100, 3), 0)
    fitted = fit(x, y, potential="gaussian", groups=(of_x, of_y))
    assert fitted.validation["groups_left_out"].tolist() == ["2"]
    same = fit(x[of_x < 2], y[of_y < 2], potential="gaussian", groups=(of_x[of_x < 2], of_y[of_y < 2]))
    np.testing.assert_array_equal(fitted.transport(x), same.transport(x))


@pytest.mark.parametrize("side", ["source", "target"])
def test_far_cells_do_not_count_for_their_groups(side):
    """A group of five cells, of which one lies far from all others, is one of four, and is left out."""
    x, y, of_x, of_y = three_types((60, 60, 60), (60, 60, 60), 0)
    cells, codes = (x, of_x) if side == "source" else (y, of_y)
    few = np.r_[0:125]
    cells, codes = cells[few], codes[few]
    cells[122] = 500.0
    x, y, of_x, of_y = (cells, y, codes, of_y) if side == "source" else (x, cells, of_x, codes)
    fitted = fit(x, y, potential="gaussian", groups=(of_x, of_y))
    assert fitted.validation[f"far_{side}"].tolist() == [122]
    assert fitted.validation["groups_left_out"].tolist() == ["2"]
    # With too few groups, or cells, for any fit the call is refused, as it is without the far cell.
    two = [np.where(codes == 1, 0, codes) for codes in (of_x, of_y)]
    with pytest.raises(ValueError, match="at least two groups"):
        fit(x, y, potential="gaussian", groups=two)
    with pytest.raises(ValueError, match="leave_out='groups'"):
        fit(x, y, groups=(of_x, of_y), leave_out="groups", **QUICK)
