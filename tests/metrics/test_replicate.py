"""The replicate: the score of one half of the observed cells against the other half, and how much it varies."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.spatial.distance import cdist

import scot_hycnn as sh
from scot_hycnn import metrics
from scot_hycnn.metrics._cloud_scores import cloud_scores
from scot_hycnn.metrics._gene_scores import gene_scores
from scot_hycnn.metrics._resampling import Resampling, Sums, interval

N_GENES = 30
OF_CLOUDS = ["energy_distance", "mmd", "w2_squared", "sinkhorn_divergence", "trace_ratio"]


def new_cells(n=160, *, scale=1.0, seed=0, rounding=False):
    """n control and n treated cells held out, and as many for training; five genes are constant up to rounding."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(4 * n, 3)) * [3, 2, 1]
    scores[2 * n :] += [2, 0, -1]
    loadings = np.linalg.qr(np.random.default_rng(1).normal(size=(N_GENES, 3)))[0]
    loadings[:5] = 1e-9 * np.random.default_rng(3).normal(size=(5, 3)) if rounding else 0
    expression = scores @ loadings.T + 0.3 * rng.normal(size=(4 * n, N_GENES))
    expression[:, :5] = [0.1, 3.3, 17.9, 70.7, 1000.3]
    obs = pd.DataFrame({"condition": np.repeat(["control", "drug"], 2 * n)}, index=[str(i) for i in range(4 * n)])
    obs["held_out"] = np.tile(np.repeat([False, True], n), 2)
    obs["cell_type"] = np.where(np.arange(4 * n) % 2, "a", "b")
    expression = expression.astype(np.float32)
    if rounding:  # the treated cells were processed apart, and the last digit differs
        expression[2 * n :, :5] = np.nextafter(expression[2 * n :, :5], np.float32(np.inf))
    adata = AnnData(expression, obs=obs)
    adata.obsm["X_pca"], adata.varm["PCs"] = scale * scores, loadings / scale
    sh.tl.hycnn_ot(adata, "control", "drug", mask_obs=~obs["held_out"].to_numpy(), potential="gaussian")
    return adata


@pytest.fixture(scope="module")
def fit():
    return new_cells()


def evaluate(adata, **options):
    return metrics.evaluate(adata, mask_obs="held_out", **options)


def replicate_of(table):
    return table[table["method"] == "replicate"].set_index("metric").drop(columns=["target", "group", "method"])


# ---- its value and interval depend on the observed cells only


def test_the_replicate_does_not_depend_on_the_bootstrap(fit):
    replicates = [replicate_of(evaluate(fit, n_bootstrap=n)) for n in (0, 30)]
    assert replicates[0][["value", "low", "high", "vs_gaussian_low"]].notna().all(axis=None)
    pd.testing.assert_frame_equal(*replicates)


def test_another_seed_changes_the_replicate_by_a_fraction_of_its_interval(fit):
    replicates = [replicate_of(evaluate(fit, n_bootstrap=0, rng=seed)) for seed in range(8)]
    values = pd.DataFrame([replicate["value"] for replicate in replicates])
    halves = pd.DataFrame([(replicate["high"] - replicate["low"]) / 2 for replicate in replicates])
    assert (values.std() < 0.25 * halves.mean()).all()
    known = halves.mean() > 0
    assert (halves.std()[known] < 0.5 * halves.mean()[known]).all()
    assert (values[["energy_distance", "mmd"]] == 0).all(axis=None)


def test_scores_do_not_depend_on_which_others_are_scored(fit):
    alone = evaluate(fit, n_bootstrap=3)
    beside = evaluate(fit, groupby="cell_type", n_bootstrap=3)
    beside = beside[(beside["group"] == "all") & (beside["metric"] != "kept_group")].reset_index(drop=True)
    pd.testing.assert_frame_equal(*(table.drop(columns="kept_group") for table in (alone, beside)))


@pytest.mark.parametrize("order", ["shuffled", "sorted"])
def test_scores_do_not_depend_on_the_order_of_cells(fit, order):
    shuffled, by_value = np.random.default_rng(0).permutation(fit.n_obs), np.argsort(fit.obsm["X_pca"][:, 0])
    rows = shuffled if order == "shuffled" else by_value
    tables = [evaluate(cells, n_bootstrap=0) for cells in (fit, fit[rows].copy())]
    drawn = tables[0]["metric"].isin(["w2_squared", "sinkhorn_divergence"]) | tables[0]["method"].isin(
        ["replicate", "ceiling"]
    )
    np.testing.assert_allclose(*(table["value"][~drawn] for table in tables), rtol=1e-4, atol=1e-6)
    replicates = [replicate_of(table) for table in tables]
    apart = (replicates[0]["value"] - replicates[1]["value"]).abs()
    assert (apart <= (replicates[0]["high"] - replicates[0]["low"]) / 4 + 1e-12).all()


# ---- its value and interval


def test_the_mean_over_all_halves_is_zero():
    """Of ten cells there are 252 halves; the energy distance and the MMD of all of them are 0 on average."""
    cells = np.random.default_rng(0).normal(size=(10, 2)) ** 3
    first = [np.isin(np.arange(10), chosen) for chosen in combinations(range(10), 5)]
    for distance in (metrics.energy_distance, lambda x, y: metrics.mmd(x, y, gamma=0.5)):
        values = [distance(cells[half], cells[~half]) for half in first]
        assert np.mean(values) == pytest.approx(0, abs=1e-12)
        assert np.std(values) > 0.05


def test_splits_are_scored_as_the_metrics_of_arrays_score_them():
    """All halves at once, by sums, against one by one."""
    rng = np.random.default_rng(0)
    y, genes, source = rng.normal(size=(31, 2)) * [3, 1], rng.normal(size=(31, 25)), rng.normal(size=(20, 25))
    genes[:, 0], source[:, 0] = 0.1, 0.1
    draws = Resampling.draw(np.zeros(20, int), np.zeros(31, int), 0, np.random.default_rng(1))
    gammas = np.array([0.5, 0.1])
    traces = cloud_scores({}, y, draws, gammas=gammas, with_w2=False)["replicate", "trace_ratio"]
    observed = Sums.of(draws.target.counts, genes)
    halves = Sums.of(draws.splits.astype(float), genes, observed.origin)
    of_genes = gene_scores(Sums.of(draws.source.counts, source), {}, observed, halves)
    for split in (0, 17):
        half = draws.splits[split]
        assert half.sum() == 15
        a, b = genes[half], genes[~half]
        wanted = {
            "r2_mean": metrics.r2_mean(a, b),
            "pearson_delta": metrics.pearson_delta(a, b, source),
            "deg_overlap_top20": metrics.deg_overlap(a, b, source, n_top=20),
        }
        for metric, value in wanted.items():
            assert of_genes["replicate", metric][1 + split] == pytest.approx(value), metric
        assert traces[1 + split] == pytest.approx(metrics.trace_ratio(y[half], y[~half]))


@pytest.mark.parametrize("n_dims", [2, 15])
def test_the_interval_contains_the_score_of_another_experiment_of_half_the_cells(n_dims):
    n, scale, n_experiments = 50, np.linspace(3, 1, n_dims), 50
    rng = np.random.default_rng(0)
    reference = scale * rng.normal(size=(200, n_dims))
    gammas = np.array([2, 1, 0.5]) / np.median(cdist(reference, reference, "sqeuclidean"))
    covered = {metric: [] for metric in OF_CLOUDS}
    for seed in range(n_experiments):
        y, other = scale * rng.normal(size=(2, n, n_dims))
        draws = Resampling.draw(np.zeros(n, int), np.zeros(n, int), 0, np.random.default_rng(seed))
        scores = cloud_scores({}, y, draws, gammas=gammas, with_w2=True)
        a, b = other[: n // 2], other[n // 2 :]
        another = {
            "energy_distance": metrics.energy_distance(a, b),
            "mmd": metrics.mmd(a, b, gamma=gammas),
            "w2_squared": metrics.w2(a, b),
            "sinkhorn_divergence": metrics.sinkhorn_divergence(a, b, epsilon=0.1 * np.trace(np.cov(y.T))),
            "trace_ratio": metrics.trace_ratio(a, b),
        }
        for metric, value in another.items():
            _, low, high = interval(scores["replicate", metric], -np.inf, np.inf, of_replicate=True)
            covered[metric].append(low <= value <= high)
    for metric, each in covered.items():
        assert 0.88 <= np.mean(each) <= 1, metric


# ---- bandwidths


def test_mmd_does_not_depend_on_units(fit):
    """Fixed bandwidths gave 0.000 for every method where features have sizes of 10,000."""
    plain, large = (evaluate(cells, n_bootstrap=0) for cells in (fit, new_cells(scale=1e4)))
    chosen = plain["metric"] == "mmd"
    np.testing.assert_allclose(large["value"][chosen], plain["value"][chosen], rtol=1e-3, atol=1e-5)
    assert plain["value"][chosen].iloc[0] > 0.01


def test_bandwidths_follow_the_rule(fit):
    table = evaluate(fit, groupby="cell_type", n_bootstrap=0)
    bandwidths = table.attrs["mmd_gamma"]["drug"]
    assert list(bandwidths) == ["all, same composition", "all", "a", "b"]
    for group in ("all", "a", "b"):
        gammas = bandwidths[group]
        rows = (fit.obs["condition"] == "drug") & fit.obs["held_out"]
        y = fit.obsm["X_pca"][rows if group == "all" else rows & (fit.obs["cell_type"] == group)]
        median = np.median(cdist(y, y, "sqeuclidean")[np.triu_indices(len(y), 1)])
        np.testing.assert_allclose(gammas, np.array([4, 2, 1, 0.5, 0.25]) / median, rtol=1e-3)


def test_constant_genes_lead_no_list_of_the_evaluation(fit):
    """Of 25 genes that vary, 20 are taken; the mean shift, which is the truth here, finds nearly all of them."""
    tables = [evaluate(cells, n_bootstrap=20) for cells in (fit, new_cells(rounding=True))]
    first, second = (table.set_index(["method", "metric"])["value"] for table in tables)
    for method in ("mean_shift", "gaussian", "replicate"):
        for metric in ("deg_overlap_top20", "pearson_delta", "r2_mean_top20"):
            assert second[method, metric] == pytest.approx(first[method, metric], abs=1e-6)
        assert second[method, "deg_overlap_top20"] > 0.75
