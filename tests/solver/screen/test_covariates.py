"""Conditions that were not seen: known answers, units of covariates, and refusals."""

from __future__ import annotations

import numpy as np
import pytest

from scot_hycnn.solver import fit_screen

RNG = np.random.default_rng(0)
X = RNG.normal(size=(300, 2))
MINUTES = (5.0, 15.0, 30.0, 60.0)


def screen_of(covariates, shifts, **options):
    ys = [RNG.normal(size=(200, 2)) + shift for shift in shifts]
    return fit_screen(X, ys, covariates=covariates, potential="gaussian", device="cpu", **options)


def mean_shift(fitted):
    return fitted.transport(X).mean(0) - X.mean(0)


def test_a_dose_between_two_seen_ones_is_interpolated():
    screen = screen_of({"dose": [1, 2, 3, 4]}, [[dose, 0.0] for dose in (1, 2, 3, 4)])
    unseen, distance = screen.at({"dose": 2.5})
    np.testing.assert_allclose(mean_shift(unseen), [2.5, 0], atol=0.25)
    assert 0 < distance < 1
    assert screen.at({"dose": 2})[1] == 0
    # Nothing happens at dose 0.
    assert np.abs(mean_shift(screen.at({"dose": 0.0})[0])).max() < 0.2


def test_the_unit_of_a_dose_does_not_matter():
    shifts = [[np.log1p(dose), 0.0] for dose in (1, 10, 100)]
    ys = [np.random.default_rng(k).normal(size=(200, 2)) + shift for k, shift in enumerate(shifts)]
    one, other = (
        fit_screen(X, ys, covariates={"dose": [unit * dose for dose in (1, 10, 100)]}, potential="gaussian")
        for unit in (1, 1e-9)
    )
    moved = one.at({"dose": 30})[0].transport(X)
    np.testing.assert_allclose(other.at({"dose": 30e-9})[0].transport(X), moved, atol=1e-3)


def test_the_course_of_other_categories_is_used():
    """At 15 minutes all proteins peak; the one that lacks this time gets the peak from the others."""
    course = dict(zip(MINUTES, (1.0, 4.0, 2.0, 1.0), strict=True))
    strength = {"A": 0.8, "B": 1.0, "C": 1.2, "D": 1.0}
    seen = [(name, time) for name in strength for time in MINUTES if (name, time) != ("D", 15.0)]
    screen = screen_of(
        {"protein": [name for name, _ in seen], "minutes": [time for _, time in seen]},
        [[strength[name] * course[time], 0.0] for name, time in seen],
    )
    assert screen.errors["kriging"] < screen.errors["interpolation"]
    shift = mean_shift(screen.at({"protein": "D", "minutes": 15})[0])[0]
    assert abs(shift - 4.0) < abs(1.5 - 4.0) / 3


def test_effects_of_two_drugs_add_up():
    drugs = [("none", "b"), ("none", "c"), ("a", "none"), ("d", "none"), ("a", "b"), ("d", "c"), ("d", "b")]
    effect = {"none": np.zeros(2), "a": np.array([2.0, 0]), "b": np.array([0, 2.0]), "c": np.array([0, -2.0]),
              "d": np.array([-2.0, 0])}  # fmt: skip
    screen = screen_of(
        {"first": [one for one, _ in drugs], "second": [other for _, other in drugs]},
        [effect[one] + effect[other] for one, other in drugs],
    )
    shift = mean_shift(screen.at({"first": "a", "second": "c"}, rule="additive")[0])
    np.testing.assert_allclose(shift, [2.0, -2.0], atol=0.6)


def test_an_embedding_is_a_covariate():
    vectors = np.linspace(0, 1, 6)[:, None] * np.array([[1.0, 2.0]])
    ys = [np.random.default_rng(k).normal(size=(200, 2)) + 3 * k / 5 for k in range(6)]
    screen = fit_screen(X, ys, embedding=vectors, potential="gaussian")
    np.testing.assert_allclose(mean_shift(screen.at({"embedding": [0.5, 1.0]})[0]), [1.5, 1.5], atol=0.5)


@pytest.mark.parametrize(
    ("query", "what"),
    [
        ({"minutes": 1e9, "protein": "A"}, "far"),
        ({"minutes": 15, "protein": "Z"}, "'Z'"),
        ({"minutes": 15}, "protein"),
        ({"minutes": float("nan"), "protein": "A"}, "nan"),
        ({"minutes": -3, "protein": "A"}, "negative"),
    ],
)
def test_what_cannot_be_predicted_is_refused(query, what):
    screen = screen_of({"minutes": [5, 15, 5, 60], "protein": ["A", "A", "B", "B"]}, [[1.0, k] for k in range(4)])
    with pytest.raises(ValueError, match=what):
        screen.at(query)


def test_the_rule_may_be_chosen():
    screen = screen_of({"dose": [1, 2, 4]}, [[dose, 0.0] for dose in (1, 2, 4)])
    np.testing.assert_allclose(mean_shift(screen.at({"dose": 2.2}, rule="nearest")[0]), [2, 0], atol=0.25)
    with pytest.raises(ValueError, match=r"'nix'.*'nearest'"):
        screen.at({"dose": 2.2}, rule="nix")


def test_covariates_are_checked():
    with pytest.raises(ValueError, match="3 values for 2"):
        screen_of({"dose": [1, 2, 3]}, [[1.0, 0], [2.0, 0]])
    with pytest.raises(ValueError, match="covariates"):
        screen_of(None, [[1.0, 0], [2.0, 0]]).at({"dose": 1})
    with pytest.raises(ValueError, match=r"'dose'.*finite"):
        screen_of({"dose": [1, np.inf]}, [[1.0, 0], [2.0, 0]])
    with pytest.raises(ValueError, match=r"embedding.*\(2, p\).*\(3, 1\)"):
        screen_of(None, [[1.0, 0], [2.0, 0]], embedding=np.ones((3, 1)))
