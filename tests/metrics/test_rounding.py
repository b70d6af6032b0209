"""Numbers at the edge of rounding: every statistic against exact arithmetic or linear programming."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment, linprog
from scipy.spatial.distance import cdist

from scot_hycnn import metrics
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
from scot_hycnn.metrics._bootstrap import Sums
from scot_hycnn.metrics._clouds import MAX_MMD
from scot_hycnn.metrics._scores import Resampling, cloud_scores, gene_scores
from scot_hycnn.metrics._welch import top_genes

N_CONSTANT, N_CHANGED = 25, 10


def normal(seed, n=40, d=3):
    return np.random.default_rng(seed).normal(size=(n, d))


# ---- genes


def conditions(dtype=np.float64, offset=0.0):
    """Predicted, observed and control cells; of 35 genes ten change, and the others are constants, .1 to 2.5."""
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
    """As decoding does it: what a map changes, by loadings of constant genes that are rounding of 0."""
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


@pytest.mark.parametrize("offset", [0.0, 1000.0])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_constant_genes_lead_no_list_and_a_perfect_prediction_is_perfect(prediction, dtype, offset):
    predicted, observed, control = conditions(dtype, offset)
    predicted = PREDICTIONS[prediction](predicted)
    assert deg_overlap(predicted, observed, control, n_top=N_CHANGED) == 1
    assert r2_mean(predicted, observed, control, n_top=N_CHANGED) == pytest.approx(1, abs=1e-4)
    assert pearson_delta(predicted, observed, control) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("prediction", [name for name in PREDICTIONS if name != "decoded"])
def test_no_change_but_rounding_is_no_change(prediction):
    _, observed, control = conditions()
    predicted = PREDICTIONS[prediction](control[::-1])
    assert np.isnan(pearson_delta(predicted, observed, control))
    assert deg_overlap(predicted, observed, control, n_top=N_CHANGED) == 0
    assert np.isnan(r2_mean(observed, predicted, control, n_top=N_CHANGED))


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


def exact_moments(cells):
    rows = [[Fraction(float(value)) for value in row] for row in cells]
    mean = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
    variance = [
        sum((value - center) ** 2 for value in column) / (len(rows) - 1)
        for column, center in zip(zip(*rows, strict=True), mean, strict=True)
    ]
    return mean, variance


def exact_correlation(a, b):
    a, b = ([value - sum(values) / len(values) for value in values] for values in (a, b))
    product = sum(p * q for p, q in zip(a, b, strict=True))
    return float(product) / (float(sum(p * p for p in a)) * float(sum(q * q for q in b))) ** 0.5


@pytest.mark.parametrize("offset", [0.0, 1e8])
def test_gene_scores_in_exact_arithmetic(offset):
    predicted, observed, control = (normal(seed, 12, 6) * 3 + offset for seed in (0, 1, 2))
    control[:, 0] = observed[:, 0] = 0.1
    means = [exact_moments(cells)[0] for cells in (predicted, observed, control)]
    variances = [exact_moments(cells)[1] for cells in (observed, control)]
    assert r2_mean(predicted, observed) == pytest.approx(exact_correlation(*means[:2]) ** 2, rel=1e-6)
    changes = [[value - base for value, base in zip(mean, means[2], strict=True)] for mean in means[:2]]
    assert pearson_delta(predicted, observed, control) == pytest.approx(exact_correlation(*changes), rel=1e-6)
    squared = [
        [change**2 / ((a + b) / 12) if a + b else Fraction(0) for change, a, b in zip(each, *variances, strict=True)]
        for each in changes
    ]
    tops = [set(sorted(range(6), key=lambda gene: -each[gene])[:3]) for each in squared]
    assert deg_overlap(predicted, observed, control, n_top=3) == pytest.approx(len(tops[0] & tops[1]) / 3)


def test_equal_genes_at_the_end_of_a_list_are_taken_in_order():
    t = np.array([[3.0, np.inf, 2.0, 2.0, -2.0, np.inf], [1.0, 1.0, 1.0, 1.0, 1.0, 1.0]])
    wanted = [[True, True, True, False, False, True], [True, True, True, True, False, False]]
    np.testing.assert_array_equal(top_genes(t, 4), wanted)


def test_all_replicates_of_the_evaluation_follow_the_same_rule():
    """Sums over blocks of cells: constants, and constants whose prediction is off by a unit in the last place."""
    predicted, observed, control = conditions(np.float32, 1000.0)
    predicted[:, :N_CONSTANT] = np.nextafter(predicted[:, :N_CONSTANT], np.float32(np.inf))
    draws = Resampling.draw(len(control), len(observed), 20, np.random.default_rng(0))
    sums = {
        name: Sums.of(counts, cells.astype(np.float64))
        for name, counts, cells in (
            ("control", draws.source, control),
            ("identity", draws.source, control[::-1]),
            ("observed", draws.target, observed),
        )
    }
    shifted = Sums.of(np.ones((21, len(predicted))), predicted.astype(np.float64))
    halves = Sums.of(draws.splits.astype(float), observed.astype(np.float64), sums["observed"].origin)
    genes = {"hycnn_ot": shifted, "identity": sums["control"]}
    padded = gene_scores(sums["control"], genes, sums["observed"], halves)
    assert np.isnan(padded["identity", "pearson_delta"]).all()
    assert (padded["identity", "deg_overlap_top20"] == 0).all()
    # Ten of the twenty change, and all ten are found, in every replicate and in every half.
    assert (padded["hycnn_ot", "deg_overlap_top20"] == 0.5).all()
    assert (padded["floor", "deg_overlap_top20"] == 0.5).all()
    assert padded["hycnn_ot", "r2_mean_top20"][0] == pytest.approx(1, abs=1e-6)


# ---- variances


@pytest.mark.parametrize("constant", [0.1, 1e8 + 0.1, np.float32(0.1), 1 / 3])
def test_rows_that_are_equal_have_no_variance(constant):
    cells, equal = normal(0, 7), np.full((7, 3), constant)
    with pytest.raises(ValueError, match="observed has no variance"):
        trace_ratio(cells, equal)
    with pytest.raises(ValueError, match="truth has no variance"):
        l2_uvp(cells, equal)
    with pytest.raises(ValueError, match="y with some variance"):
        sinkhorn_divergence(cells, equal)
    assert trace_ratio(equal, cells) == 0


def test_variances_in_exact_arithmetic():
    for offset in (0.0, 1e8):
        x, y = normal(0, 11) + offset, 2 * normal(1, 11) + offset
        variances = [sum(exact_moments(cells)[1]) for cells in (x, y)]
        squares = sum((Fraction(a) - Fraction(b)) ** 2 for a, b in zip(x.ravel(), y.ravel(), strict=True)) / 11
        assert trace_ratio(x, y) == pytest.approx(float(variances[0] / variances[1]), rel=1e-12)
        assert map_mse(x, y) == pytest.approx(float(squares), rel=1e-12)
        assert l2_uvp(x, y) == pytest.approx(float(100 * squares / variances[1]), rel=1e-12)


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
each_case = pytest.mark.parametrize("case", CLOUDS)


def wide(cells):
    return cells.astype(np.longdouble)


def exact_energy(x, y, distance=np.sqrt):
    def total(a, b):
        return distance(((wide(a)[:, None] - wide(b)) ** 2).sum(-1)).sum()

    n, m = len(x), len(y)
    return float(2 * total(x, y) / (n * m) - total(x, x) / (n * (n - 1)) - total(y, y) / (m * (m - 1)))


def size_of(x, y):
    """Mean distance: energy distances are differences of such."""
    return float(cdist(x, y).mean())


@each_case
def test_energy_distance_in_extended_precision(case):
    x, y = CLOUDS[case]
    assert energy_distance(x, y) == pytest.approx(exact_energy(x, y), rel=1e-12, abs=1e-14 * size_of(x, y))


@each_case
def test_mmd_in_extended_precision(case):
    x, y = CLOUDS[case]
    gamma = 1 / np.median(cdist(y, y, "sqeuclidean")[np.triu_indices(len(y), 1)]) if case != "points" else 1.0
    wanted = exact_energy(x, y, lambda squared: 1 - np.exp(-gamma * squared))
    assert mmd(x, y, gamma=gamma) == pytest.approx(wanted, rel=1e-9, abs=1e-13)


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


@each_case
def test_w2_by_linear_programming(case):
    pytest.importorskip("ot")
    x, y = CLOUDS[case]
    assert w2(x, y) == pytest.approx(exact_w2(x, y), rel=1e-9)


@pytest.mark.parametrize("case", ["as they are", "duplicates", "one far cell"])
def test_w2_of_unequal_numbers(case):
    pytest.importorskip("ot")
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


@pytest.mark.parametrize("case", [case for case in CLOUDS if case != "points"])
def test_the_evaluation_has_the_scores_of_the_plain_metrics(case):
    """Its distances are matrix products, which lose the digits of cells that are near to each other."""
    pytest.importorskip("ot")
    x, y = CLOUDS[case]
    gammas = 1 / np.median(cdist(y, y, "sqeuclidean")[np.triu_indices(len(y), 1)], keepdims=True)
    assert len(y) <= MAX_MMD
    draws = Resampling.draw(len(x), len(y), 0, np.random.default_rng(0))
    scores = cloud_scores({"identity": x}, y, draws, gammas=gammas, with_w2=True)
    found = {metric: scores["identity", metric][0] for metric in ("energy_distance", "mmd", "trace_ratio")}
    assert found["energy_distance"] == pytest.approx(exact_energy(x, y), rel=1e-8, abs=1e-11 * size_of(x, y))
    assert found["mmd"] == pytest.approx(mmd(x, y, gamma=gammas), rel=1e-8, abs=1e-11)
    assert found["trace_ratio"] == pytest.approx(trace_ratio(x, y), rel=1e-9)
    n = len(y) // 2
    few = x[draws.source_order[:n]], y[draws.target_order[:n]]
    assert scores["identity", "w2_squared"][0] == pytest.approx(w2(*few), rel=1e-8, abs=1e-12 * size_of(x, y) ** 2)


@pytest.mark.parametrize("name", [name for name in metrics.__all__ if name != "evaluate"])
@pytest.mark.parametrize("factor", [1e160, 1e-160])
def test_squares_that_float64_does_not_hold_are_refused(name, factor):
    metric = getattr(metrics, name)
    options = {"n_top": 2} if name == "deg_overlap" else {}
    arrays = [factor * normal(seed, 6) for seed in range(3 if name in ("deg_overlap", "pearson_delta") else 2)]
    with pytest.raises(ValueError, match="whose squares float64 does not hold"):
        metric(*arrays, **options)


# ---- what a kernel can tell


@pytest.mark.parametrize(("factor", "found"), [(1e4, "far apart"), (1e-4, "near to each other")])
def test_mmd_says_where_its_default_bandwidths_cannot_tell(factor, found):
    with pytest.raises(ValueError, match=rf"cannot tell.*{found}.*gamma="):
        mmd(factor * X, factor * Y)
    gamma = np.array([1.0, 0.1])
    assert mmd(factor * X, factor * Y, gamma=gamma / factor**2) == pytest.approx(mmd(X, Y, gamma=gamma), rel=1e-9)


def test_mmd_of_equal_points_is_zero():
    assert mmd(np.zeros((3, 2)), np.zeros((4, 2))) == 0
    # One cloud collapsed, the other not: the kernel tells, however far apart they are.
    assert mmd(np.full((3, 3), 1e6), X) > 0.5
