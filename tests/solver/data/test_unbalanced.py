"""Weights of cells where mass changes: the discrete plan, its choice of penalty, and fits with weights."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.spatial.distance import cdist
from scipy.stats import norm

from scot_hycnn import datasets, solver
from scot_hycnn.solver.data import _unbalanced
from scot_hycnn.solver.data._unbalanced import unbalanced_plan

QUICK = {"potential": "gaussian", "progress": False}


def clusters(n, shares, seed, *, d=5):
    """Cells of three separate clusters, (n, d), and the cluster of each."""
    rng = np.random.default_rng(seed)
    of = rng.permutation(np.repeat([0, 1, 2], np.round(np.multiply(shares, n)).astype(int)))
    return 12 * np.eye(3, d)[of] + rng.normal(size=(len(of), d)), of


def clusters_that_grow(n=300, seed=0, shares=(1 / 6, 1 / 6, 2 / 3)):
    """Source cells of three clusters, and target cells of the same, moved by 2 in the last component."""
    (x, of_x), (y, of_y) = clusters(n, (1 / 3, 1 / 3, 1 / 3), seed), clusters(n, shares, seed + 1)
    return x, y + 2 * np.eye(5)[4], of_x, of_y


@pytest.mark.parametrize("penalty", [0.1, 1.0, 10.0])
def test_gaussian_clouds_have_the_marginals_of_the_closed_form(penalty):
    # Janati, Muzellec, Peyré & Cuturi (2020), "Entropic optimal transport between unbalanced Gaussian measures has a
    # closed form", NeurIPS. In one dimension, without entropy and with equal means, the plan is y = t x, on which
    # f(x) + g(y) <= (x - y)^2 is an equality: f = (1 - t) x^2 + c, g = (1 - 1/t) y^2 - c. Its marginals are
    # exp(-f/lam) and exp(-g/lam) times the clouds, so Gaussians of the precisions u and v, and v t^2 = u.
    s, r = 1.0, 1.5
    unit = s**2 + r**2  # the mean cost
    lam = penalty * unit

    def precisions(t):
        return 1 / s**2 + 2 * (1 - t) / lam, 1 / r**2 + 2 * (1 - 1 / t) / lam

    u, v = precisions(brentq(lambda t: precisions(t)[1] * t**2 - precisions(t)[0], 0.3, 3.0))
    # Quantiles of the two clouds in place of random cells.
    z = norm.ppf((np.arange(1500) + 0.5) / 1500)
    x, y = s * z[:, None], r * z[:, None]
    plan = unbalanced_plan(cdist(x, y, "sqeuclidean") / unit, penalty, penalty, epsilon=0.003)
    found_x = np.average(x[:, 0] ** 2, weights=plan.x)
    found_y = np.average(y[:, 0] ** 2, weights=plan.y)
    np.testing.assert_allclose([found_x, found_y], [1 / u, 1 / v], rtol=0.03)
    # Both marginals have one mass, from which c cancels. Its entropic bias grows with 1/penalty.
    if penalty >= 1:
        assert plan.mass == pytest.approx((u * v) ** -0.25 / np.sqrt(s * r), rel=0.02)


@pytest.mark.parametrize("penalties", [(0.03, 0.03), (1.0, 1.0), (10.0, 10.0), (0.3, math.inf), (math.inf, 0.3)])
def test_the_plan_is_that_of_a_long_plain_iteration(penalties):
    x, y, _, _ = clusters_that_grow(60)
    cost = cdist(x, y, "sqeuclidean")
    cost /= cost.mean()
    epsilon = 0.05
    f, g = np.zeros(len(x)), np.zeros(len(y))
    rates = [1.0 if math.isinf(lam) else lam / (lam + epsilon) for lam in penalties]
    for _ in range(3000):
        f = -rates[0] * epsilon * np.log(np.exp((g - cost) / epsilon).mean(1))
        g = -rates[1] * epsilon * np.log(np.exp((f[:, None] - cost) / epsilon).mean(0))
    plan = np.exp((f[:, None] + g - cost) / epsilon)
    found = unbalanced_plan(cost, *penalties, epsilon=epsilon)
    np.testing.assert_allclose(found.x, plan.mean(1), rtol=0.01)
    np.testing.assert_allclose(found.y, plan.mean(0), rtol=0.01)
    assert found.mass == pytest.approx(plan.mean(), rel=2e-3)
    if math.isinf(penalties[1]):
        np.testing.assert_allclose(found.y, 1, atol=2e-3)


@pytest.mark.parametrize("penalty", [1e-4, 1e-2, 90.0])
def test_extreme_penalties_end_and_are_finite(penalty):
    x, y, _, _ = clusters_that_grow(120)
    cost = cdist(x, y, "sqeuclidean")
    plan = unbalanced_plan(cost / cost.mean(), penalty, penalty)
    assert np.isfinite(plan.x).all()
    assert np.isfinite(plan.y).all()
    assert np.isfinite(plan.y_of_x).all()
    assert 0 <= plan.mass < 1.1
    assert plan.mass > 0.9 or penalty < 1


@pytest.mark.parametrize("unbalanced", [1.0, 0.3, "auto"])
def test_growth_of_separate_clusters_is_found_and_the_map_keeps_them_apart(unbalanced):
    x, y, of_x, _ = clusters_that_grow(600)
    fitted = solver.fit(x, y, unbalanced=unbalanced, **QUICK)
    growth, weight = fitted.validation["source_growth"], fitted.validation["source_weight"]
    for group, true in enumerate((0.5, 0.5, 2.0)):
        assert growth[of_x == group].mean() == pytest.approx(true, rel=0.25)
    assert weight.mean() == pytest.approx(1, abs=1e-3)
    assert fitted.validation["target_weight"].mean() == pytest.approx(1, abs=1e-3)
    # All cells move by 2 in the last component, and by nothing else.
    moved = fitted.transport(x)
    error = ((moved - x - 2 * np.eye(5)[4]) ** 2).sum(1).mean()
    plain = ((solver.fit(x, y, **QUICK).transport(x) - x - 2 * np.eye(5)[4]) ** 2).sum(1).mean()
    assert error < 0.3 < plain
    assert fitted.validation["unbalanced"] == (0.3 if unbalanced == "auto" else unbalanced)
    assert 0.5 < fitted.validation["transported_mass"] <= 1


@pytest.mark.parametrize("seed", range(3))
def test_auto_is_the_balanced_fit_without_growth(seed):
    x, y, _, _ = clusters_that_grow(600, seed=seed, shares=(1 / 3, 1 / 3, 1 / 3))
    balanced, fitted = (solver.fit(x, y, unbalanced=unbalanced, **QUICK) for unbalanced in (None, "auto"))
    assert fitted.validation["unbalanced"] == math.inf
    np.testing.assert_array_equal(fitted.transport(x), balanced.transport(x))
    assert "source_weight" not in fitted.validation


@pytest.mark.parametrize("change", ["shift", "scale", "sign", "tails", "logsumexp"])
def test_auto_does_not_take_a_response_for_growth(change):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 800, 6))
    if change == "tails":
        x, y = rng.standard_t(3, size=(2, 800, 6))
    elif change == "logsumexp":
        pair = datasets.brenier_pair(change, 6, 800)
        x, y = pair.x, pair.y
    else:
        y = {"shift": y + 2, "scale": 2 * y, "sign": y + np.sign(y)}[change]
    validation = solver.fit(x, y, unbalanced="auto", **QUICK).validation
    assert validation["unbalanced"] == math.inf
    # A smooth response saves about 2 for each unit of penalty, whatever it is; growth saves more than 5.
    assert 1.5 < validation["unbalanced_savings"] < 4.5


def noisy_clusters(seed, growth, *, n=1000, d=50, moved=0.0):
    """Four clusters 9 standard deviations apart; the largest one grows, and its cells are ``moved`` more."""
    rng, fixed = np.random.default_rng(seed), np.random.default_rng(1)
    centres, common = 9 / np.sqrt(2 * d) * fixed.normal(size=(4, d)), fixed.normal(size=d) / np.sqrt(d)
    shares = np.array([0.4, 0.3, 0.2, 0.1])
    later = shares * [growth, 1, 1, 1]
    of_x, of_y = (rng.choice(4, n, p=part / part.sum()) for part in (shares, later))
    y = centres[of_y] + rng.normal(size=(n, d)) + common
    y[of_y == 0] += moved * np.eye(d)[0]
    return centres[of_x] + rng.normal(size=(n, d)), y


@pytest.mark.parametrize(("growth", "moved"), [(0.1, 0), (0.25, 4), (4, 0), (1, 4)])
def test_auto_sees_populations_through_the_noise_of_many_components(growth, moved):
    x, y = noisy_clusters(0, growth, moved=moved)
    validation = solver.fit(x, y, unbalanced="auto", **QUICK).validation
    assert np.isfinite(validation["unbalanced"]) == (growth != 1)


@pytest.mark.slow
@pytest.mark.parametrize("moved", [0, 4])
def test_auto_is_right_in_19_of_20_samples(moved):
    right = dict.fromkeys((1, 0.25), 0)
    for growth in right:
        for seed in range(20):
            x, y = noisy_clusters(seed, growth, moved=moved)
            validation = solver.fit(x, y, unbalanced="auto", **QUICK).validation
            right[growth] += np.isfinite(validation["unbalanced"]) == (growth != 1)
    assert min(right.values()) >= 19


@pytest.mark.parametrize(("side", "varies"), [("source", (True, False)), ("target", (False, True))])
def test_one_side_can_be_fixed(side, varies):
    x, y, _, _ = clusters_that_grow(300)
    validation = solver.fit(x, y, unbalanced=0.3, unbalanced_side=side, **QUICK).validation
    spread = validation["source_weight"].std(), validation["target_weight"].std()
    assert (spread[0] > 0.1, spread[1] > 0.1) == varies


def test_the_growth_of_the_population_is_the_unit():
    x, y, _, _ = clusters_that_grow(300)
    one, other = (
        solver.fit(x, y, unbalanced=0.3, growth=growth, **QUICK).validation["source_growth"] for growth in (None, 0.6)
    )
    np.testing.assert_allclose(other, 0.6 * one, rtol=1e-5)


def test_weights_within_groups_leave_the_proportions_of_groups():
    x, y, of_x, of_y = clusters_that_grow(600)
    # The two halves of group 'a' grow differently; the third cluster is group 'b'.
    groups = np.where(of_x < 2, "a", "b"), np.where(of_y < 2, "a", "b")
    keep = ~((of_y == 0) & (np.arange(len(y)) % 4 > 0))
    fitted = solver.fit(x, y[keep], groups=(groups[0], groups[1][keep]), unbalanced=0.3, **QUICK)
    weight, growth = fitted.validation["source_weight"], fitted.validation["source_growth"]
    for group in ("a", "b"):
        assert weight[groups[0] == group].mean() == pytest.approx(1, abs=1e-3)
    assert growth[of_x == 0].mean() == pytest.approx((of_y[keep] == 0).mean() / (of_x == 0).mean(), rel=0.25)
    assert growth[of_x == 2].mean() == pytest.approx((of_y[keep] == 2).mean() / (of_x == 2).mean(), rel=0.25)
    moved = fitted.transport(x)
    assert ((moved - x - 2 * np.eye(5)[4]) ** 2).sum(1).mean() < 0.5


def test_tiny_groups_keep_equal_weights():
    x, y, _, _ = clusters_that_grow(300)
    groups = [np.where(np.arange(len(cloud)) < 8, "tiny", "large") for cloud in (x, y)]
    validation = solver.fit(x, y, groups=groups, unbalanced=0.3, **QUICK).validation
    np.testing.assert_allclose(validation["source_weight"][:8], 1)


def test_duplicated_cells_get_one_weight():
    x, y, _, _ = clusters_that_grow(150)
    x, y = np.repeat(x, 4, axis=0), np.repeat(y, 4, axis=0)
    weight = solver.fit(x, y, unbalanced=0.3, **QUICK).validation["source_weight"].reshape(-1, 4)
    np.testing.assert_allclose(weight, weight[:, :1].repeat(4, 1), rtol=1e-4)
    same = np.ones((50, 2))
    validation = solver.fit(same, same, unbalanced=0.3, **QUICK).validation
    np.testing.assert_allclose(validation["source_weight"], 1)


def test_weights_of_cells_beyond_the_plan_are_those_of_their_neighbours(monkeypatch):
    monkeypatch.setattr(_unbalanced, "MAX_CELLS", 600)
    x, y, of_x, _ = clusters_that_grow(1500)
    growth = solver.fit(x, y, unbalanced=0.3, **QUICK).validation["source_growth"]
    assert [growth[of_x == group].mean() for group in range(3)] == pytest.approx([0.5, 0.5, 2], rel=0.25)


def test_too_little_mass_is_an_error_that_names_the_target():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 100, 5))
    with pytest.raises(ValueError, match=r"unbalanced=0\.03 transports .* % of the mass to ys\[1\]"):
        solver.fit_many(x, [x + 0.1, y + 5], unbalanced=0.03, **QUICK)


def test_far_cells_have_no_weight():
    x, y, _, _ = clusters_that_grow(300)
    x[7] = 1e4
    validation = solver.fit(x, y, unbalanced=0.3, **QUICK).validation
    assert np.flatnonzero(np.isnan(validation["source_weight"])).tolist() == [7] == validation["far_source"].tolist()


def test_weights_do_not_depend_on_the_order_of_rows():
    x, y, _, _ = clusters_that_grow(300)
    order = np.random.default_rng(3).permutation(len(x))
    weight = solver.fit(x, y, unbalanced=0.3, **QUICK).validation["source_weight"]
    shuffled = solver.fit(x[order], y, unbalanced=0.3, **QUICK).validation["source_weight"]
    np.testing.assert_allclose(shuffled, weight[order], rtol=1e-3)


@pytest.mark.parametrize("value", [0, -1.0, "often", True, math.nan])
def test_a_wrong_penalty_is_refused(value):
    with pytest.raises(ValueError, match="unbalanced"):
        solver.fit(np.zeros((30, 2)), np.zeros((30, 2)), unbalanced=value)


def test_networks_train_and_are_scored_on_weighted_cells():
    x, y, _, _ = clusters_that_grow(600)
    fitted = solver.fit(x, y, unbalanced=0.3, max_steps=100, n_ensemble=2, progress=False)
    moved = fitted.transport(x)
    error = ((moved - x - 2 * np.eye(5)[4]) ** 2).sum(1).mean()
    assert error < 0.5
    # The squared distance of the transported mass, which moves by 2, and not that of clusters that swap cells.
    assert fitted.w2_squared == pytest.approx(4, abs=1.5)
    # Of all cells it is 2.3. Weights make the composition of both samples equal, not only that of what they were
    # drawn from, so that an unbiased estimate is below 0: by the mean distance over the number of validation cells.
    assert -0.5 < fitted.validation["energy_distance"] < 0.1
