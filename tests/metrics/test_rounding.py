"""Numbers at the edge of rounding: every statistic against exact arithmetic or linear programming."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment, linprog
from scipy.spatial.distance import cdist

from scot_hycnn.metrics import (
    deg_overlap,
    energy_distance,
    l2_uvp,
    map_mse,
    mmd,
    pearson_delta,
    r2_mean,
    sinkhorn_divergence,
    trace_ratio,
    w2,
)
from scot_hycnn.metrics._cloud_scores import cloud_scores
from scot_hycnn.metrics._gene_scores import gene_scores
from scot_hycnn.metrics._resampling import Resampling, Sums

N_CONSTANT, N_CHANGED = 25, 10


def normal(seed, n=40, d=3):
    return np.random.default_rng(seed).normal(size=(n, d))


# ---- genes


def conditions(dtype=np.float64, offset=0.0):
    """Predicted, observed and control cells; of 35 genes ten change, and the others are constant, 0.1 to 2.5."""
    constants = 0.1 * np.arange(1, N_CONSTANT + 1)

    def cells(seed, n, change):
        varying = normal(seed, n, N_CHANGED) + change
        return (np.hstack([np.tile(constants, (n, 1)), varying]) + offset).astype(dtype)

    change = np.linspace(1, 3, N_CHANGED) * np.where(np.arange(N_CHANGED) % 2, 1, -1)
    observed = cells(1, 57, change)
    return observed[np.random.default_rng(2).permutation(57)], observed, cells(3, 41, 0.0)


def round_trip(cells):
    return cells.astype(np.float32).astype(np.float64)


def projected(cells):
    """Cells as they are decoded, where the loadings of constant genes are 0 but for rounding."""
    loadings = np.linalg.qr(normal(8, cells.shape[1], 4))[0].astype(np.float32)
    loadings[:N_CONSTANT] = 1e-8 * normal(9, N_CONSTANT, 4)
    return (cells.astype(np.float32) + 1e-3 * normal(10, len(cells), 4).astype(np.float32) @ loadings.T).astype(float)


PREDICTIONS = {
    "reordered": lambda cells: cells,
    "float32": lambda cells: cells.astype(np.float32),
    "round trip": round_trip,
    "sums in another order": lambda cells: cells + 0.3 - 0.3,
    "duplicated": lambda cells: np.repeat(cells, 3, axis=0),
    "decoded": projected,
}


@pytest.mark.parametrize(("dtype", "offset"), [(np.float64, 0.0), (np.float32, 0.0), (np.float32, 1000.0)])
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_constant_genes_lead_no_list_and_a_perfect_prediction_is_perfect(prediction, dtype, offset):
    predicted, observed, control = conditions(dtype, offset)
    predicted = PREDICTIONS[prediction](predicted)
    assert deg_overlap(predicted, observed, control, n_top=N_CHANGED) == 1
    assert r2_mean(predicted, observed, control, n_top=N_CHANGED) == pytest.approx(1, abs=1e-4)
    assert pearson_delta(predicted, observed, control) == pytest.approx(1, abs=1e-4)


def test_a_change_by_rounding_is_no_change():
    _, observed, control = conditions()
    for name, predict in PREDICTIONS.items():
        if name != "decoded":
            predicted = predict(control[::-1])
            assert np.isnan(pearson_delta(predicted, observed, control)), name
            assert deg_overlap(predicted, observed, control, n_top=N_CHANGED) == 0, name
            assert np.isnan(r2_mean(observed, predicted, control, n_top=N_CHANGED)), name


def test_means_that_are_equal_but_for_rounding_have_no_correlation():
    """The same values in each gene, in another order."""
    rng, values = np.random.default_rng(0), normal(0, 50, 1)[:, 0] + 0.1
    predicted = np.stack([rng.permutation(values) for _ in range(12)], axis=1)
    assert np.isnan(r2_mean(predicted, normal(1, 30, 12)))
    control = normal(2, 30, 12)
    assert np.isnan(
        pearson_delta(control.mean(axis=0) + predicted, normal(3, 30, 12), np.tile(control.mean(axis=0), (9, 1)))
    )


def test_a_common_offset_of_float64_leaves_real_changes():
    """A change of 1 beside 1e8, in cells that do not vary: what float32 could not hold, float64 can."""
    control, observed = np.full((30, 8), 1e8), np.full((40, 8), 1e8)
    observed[:, :2] += [1, 2]
    assert deg_overlap(observed, observed, control, n_top=2) == 1
    assert pearson_delta(observed, observed, control) == pytest.approx(1)
    varying = normal(0, 40, 8)
    wanted = deg_overlap(varying + observed - 1e8, varying[::-1] + observed - 1e8, normal(1, 30, 8), n_top=2)
    assert deg_overlap(varying + observed, varying[::-1] + observed, normal(1, 30, 8) + 1e8, n_top=2) == wanted


exact = np.vectorize(Fraction, otypes=[object])


def exact_moments(cells):
    rows = exact(cells)
    mean = rows.sum(axis=0) / len(rows)
    return mean, ((rows - mean) ** 2).sum(axis=0) / (len(rows) - 1)


def exact_correlation(a, b):
    a, b = (values - values.sum() / len(values) for values in (a, b))
    return float((a * b).sum()) / (float((a**2).sum()) * float((b**2).sum())) ** 0.5


@pytest.mark.parametrize("offset", [0.0, 1e8])
def test_gene_scores_in_exact_arithmetic(offset):
    predicted, observed, control = (normal(seed, 12, 6) * 3 + offset for seed in (0, 1, 2))
    control[:, 0] = observed[:, 0] = 0.1
    (p, _), (o, o_variance), (c, c_variance) = (exact_moments(cells) for cells in (predicted, observed, control))
    assert r2_mean(predicted, observed) == pytest.approx(exact_correlation(p, o) ** 2, rel=1e-6)
    assert pearson_delta(predicted, observed, control) == pytest.approx(exact_correlation(p - c, o - c), rel=1e-6)
    error = o_variance + c_variance
    error[0] = Fraction(10) ** 100  # neither condition varies, and the gene is in no list
    a, b = (set(np.argsort(-((mean - c) ** 2 / error))[:3]) for mean in (p, o))
    assert deg_overlap(predicted, observed, control, n_top=3) == pytest.approx(len(a & b) / 3)


def test_all_replicates_of_the_evaluation_follow_the_same_rule():
    """Sums over blocks of cells: constants, and constants whose prediction is off by a unit in the last place."""
    predicted, observed, control = conditions(np.float32, 1000.0)
    predicted[:, :N_CONSTANT] = np.nextafter(predicted[:, :N_CONSTANT], np.float32(np.inf))
    predicted, observed, control = (cells.astype(np.float64) for cells in (predicted, observed, control))
    draws = Resampling.draw(np.zeros(len(control), int), np.zeros(len(observed), int), 20, np.random.default_rng(0))
    sums = {"control": Sums.of(draws.source.counts, control), "observed": Sums.of(draws.target.counts, observed)}
    shifted = Sums.of(np.ones((21, len(predicted))), predicted)
    halves = Sums.of(draws.splits.astype(float), observed, sums["observed"].origin)
    genes = {"hycnn_ot": shifted, "identity": sums["control"]}
    padded = gene_scores(sums["control"], genes, sums["observed"], halves)
    assert np.isnan(padded["identity", "pearson_delta"]).all()
    assert (padded["identity", "deg_overlap_top20"] == 0).all()
    # Ten of the twenty change, and all ten are found, in every replicate and in every half.
    assert (padded["hycnn_ot", "deg_overlap_top20"] == 0.5).all()
    assert (padded["replicate", "deg_overlap_top20"] == 0.5).all()
    assert padded["hycnn_ot", "r2_mean_top20"][0] == pytest.approx(1, abs=1e-6)


# ---- variances


@pytest.mark.parametrize("constant", [0.1, 1e8 + 0.1, np.float32(0.1), 1 / 3])
def test_rows_that_are_equal_have_no_variance(constant):
    cells, equal = normal(0, 7), np.full((7, 3), constant)
    for metric in (trace_ratio, l2_uvp, sinkhorn_divergence):
        with pytest.raises(ValueError, match="variance"):
            metric(cells, equal)
    assert trace_ratio(equal, cells) == 0


@pytest.mark.parametrize("offset", [0.0, 1e8])
def test_variances_in_exact_arithmetic(offset):
    x, y = normal(0, 11) + offset, 2 * normal(1, 11) + offset
    x_variance, y_variance = (exact_moments(cells)[1].sum() for cells in (x, y))
    squares = ((exact(x) - exact(y)) ** 2).sum() / 11
    assert trace_ratio(x, y) == pytest.approx(float(x_variance / y_variance), rel=1e-12)
    assert map_mse(x, y) == pytest.approx(float(squares), rel=1e-12)
    assert l2_uvp(x, y) == pytest.approx(float(100 * squares / y_variance), rel=1e-12)


# ---- distances


def far_cell(cells, place, index=0):
    moved = cells.copy()
    moved[index] += place
    return moved


def far_half(cells):
    moved = cells.copy()
    moved[::2] += 1e8
    return moved


X, Y = normal(0), normal(1) + 1
CLOUDS = {
    "as they are": (X, Y),
    "offset": (X + 1e8, Y + 1e8),
    "one far pair": (far_cell(X, 1e8), far_cell(Y, 1e8, 7)),
    "far on both sides": (far_cell(X, 1e8), far_cell(Y, -1e8)),
    "one far cell": (far_cell(X, 1e6), Y),
    "two far clusters": (far_half(X), far_half(Y)),
    "duplicates": (np.repeat(X[:8], 5, axis=0), np.repeat(Y[:8], 5, axis=0)),
    "shared cells": (X, np.vstack([X[:20], Y[20:]])),
    "float32": (X, round_trip(X)[::-1]),
    "far apart": (X, Y + 1e8),
    "small units": (1e-12 * X, 1e-12 * Y),
    "large units": (1e12 * X, 1e12 * Y),
    "points": (np.full((5, 3), 0.1), np.full((4, 3), 0.3)),
}


def exact_energy(x, y, distance=np.sqrt):
    x, y = x.astype(np.longdouble), y.astype(np.longdouble)
    n, m = len(x), len(y)

    def total(a, b):
        return distance(((a[:, None] - b) ** 2).sum(-1)).sum()

    return float(2 * total(x, y) / (n * m) - total(x, x) / (n * (n - 1)) - total(y, y) / (m * (m - 1)))


def exact_w2(x, y):
    """Hungarian algorithm for equal numbers, else linear programming; the clusters of far halves one by one."""
    if len(x) == len(y):
        halves = [slice(0, None, 2), slice(1, None, 2)] if x is CLOUDS["two far clusters"][0] else [slice(None)]
        costs = [cdist(x[half], y[half], "sqeuclidean") for half in halves]
        return sum(cost[linear_sum_assignment(cost)].sum() for cost in costs) / len(x)
    cost = cdist(x, y, "sqeuclidean")
    n, m = cost.shape
    rows, columns = np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))
    masses = np.r_[np.full(n, 1 / n), np.full(m, 1 / m)]
    return linprog(cost.ravel(), A_eq=np.vstack([rows, columns]), b_eq=masses).fun


@pytest.mark.parametrize("case", CLOUDS)
def test_distances_in_extended_precision_and_by_linear_programming(case):
    x, y = CLOUDS[case]
    size = float(cdist(x, y).mean())  # energy distances are differences of mean distances
    assert energy_distance(x, y) == pytest.approx(exact_energy(x, y), rel=1e-12, abs=1e-14 * size)
    median = np.median(cdist(y, y, "sqeuclidean")[np.triu_indices(len(y), 1)])
    gammas = np.array([1 / median if median else 1.0])
    wanted = exact_energy(x, y, lambda squared: 1 - np.exp(-gammas[0] * squared))
    assert mmd(x, y, gamma=gammas) == pytest.approx(wanted, rel=1e-9, abs=1e-13)
    assert w2(x, y) == pytest.approx(exact_w2(x, y), rel=1e-9)
    if case == "points":
        return
    # The distances of the evaluation are matrix products, which lose the digits of cells that are near to each other.
    draws = Resampling.draw(np.zeros(len(x), int), np.zeros(len(y), int), 0, np.random.default_rng(0))
    scores = cloud_scores({"identity": x}, y, draws, gammas=gammas, with_w2=True)
    found = {metric: values[0] for (method, metric), values in scores.items() if method == "identity"}
    assert found["energy_distance"] == pytest.approx(exact_energy(x, y), rel=1e-8, abs=1e-11 * size)
    assert found["mmd"] == pytest.approx(wanted, rel=1e-8, abs=1e-11)
    assert found["trace_ratio"] == pytest.approx(trace_ratio(x, y), rel=1e-9)
    n = len(y) // 2
    few = x[draws.source.order[:n]], y[draws.target.order[:n]]
    assert found["w2_squared"] == pytest.approx(w2(*few), rel=1e-8, abs=1e-12 * size**2)
    if case == "as they are":
        epsilon = 0.1 * np.trace(np.cov(y.T))
        plain = sinkhorn_divergence(*few, epsilon=epsilon)
        assert found["sinkhorn_divergence"] == pytest.approx(plain, rel=1e-5)


@pytest.mark.parametrize("case", ["as they are", "duplicates", "one far cell"])
def test_w2_of_unequal_numbers(case):
    x, y = CLOUDS[case][0][:9], CLOUDS[case][1][:14]
    assert w2(x, y) == pytest.approx(exact_w2(x, y), rel=1e-6)


def test_sinkhorn_of_clouds_far_apart_and_of_duplicates():
    plain = sinkhorn_divergence(X, Y, epsilon=0.5)
    apart = np.array([3e7, 4e7, 0])
    moved = ((X.mean(axis=0) - (Y + apart).mean(axis=0)) ** 2).sum() - ((X.mean(axis=0) - Y.mean(axis=0)) ** 2).sum()
    assert sinkhorn_divergence(X, Y + apart, epsilon=0.5) == pytest.approx(plain + moved, rel=1e-12)
    assert sinkhorn_divergence(X + 1e8, Y + 1e8, epsilon=0.5) == pytest.approx(plain, rel=1e-6)
    twice = np.repeat(X, 2, axis=0), np.repeat(Y, 2, axis=0)
    assert sinkhorn_divergence(*twice, epsilon=0.5) == pytest.approx(plain, rel=1e-5)
    assert sinkhorn_divergence(X, X[::-1]) == pytest.approx(0, abs=1e-6)
    assert sinkhorn_divergence(1e-9 * X, 1e-9 * Y) == pytest.approx(1e-18 * sinkhorn_divergence(X, Y), rel=1e-5)


def test_the_default_bandwidths_of_mmd_do_not_suit_all_distances():
    gamma = np.array([1.0, 0.1])
    for factor, found in ((1e4, "about 0"), (1e-4, "about 1")):
        with pytest.raises(ValueError, match=found):
            mmd(factor * X, factor * Y)
        assert mmd(factor * X, factor * Y, gamma=gamma / factor**2) == pytest.approx(mmd(X, Y, gamma=gamma), rel=1e-9)
    assert mmd(np.zeros((3, 2)), np.zeros((4, 2))) == 0
    assert mmd(np.full((3, 3), 1e6), X) > 0.5  # one cloud is a point: the kernels within and between differ
