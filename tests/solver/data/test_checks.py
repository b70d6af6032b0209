"""Checks of the cells of a fit: what is refused, and cells that lie far from all others."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from scot_hycnn.solver import fit, fit_many

QUICK = {"max_steps": 60, "hidden": (16, 16), "n_ensemble": 2, "device": "cpu"}


def normal(seed, n_cells, n_dims):
    return np.random.default_rng(seed).normal(size=(n_cells, n_dims))


# ---- cells that are refused


def with_bad_values(value):
    cells = normal(1, 30, 2)
    cells[[7, 12], [0, 1]] = value
    return cells


@pytest.mark.parametrize("side", [0, 1], ids=["source", "target"])
def test_cells_that_cannot_be_fitted_are_named(side):
    for cells, match in (
        (np.zeros(30), r"shape \(30,\)"),
        (np.zeros((30, 0)), r"shape \(30, 0\)"),
        (np.full((30, 2), "a"), "dtype <U1"),
        (np.zeros((30, 2), dtype=complex), "dtype complex128"),
        (np.zeros((19, 2)), r"19 cells in 2 dimensions; at least 20"),
        (normal(0, 59, 30), r"\b30\b"),
        (normal(0, 30, 3), r"\b3\b"),
        (with_bad_values(np.nan), "2 of 30 rows, the first in row 7"),
        (with_bad_values(-np.inf), "2 of 30 rows, the first in row 7"),
        (np.ma.masked_greater(normal(0, 30, 2), 1.5), "NaN"),
        (normal(0, 30, 2) * 1e120, r"1e\+100"),
    ):
        pair = [normal(0, 30, 2), normal(1, 30, 2)]
        pair[side] = cells
        with pytest.raises(ValueError, match=match) as error:
            fit(*pair, potential="gaussian")
        assert ["x (source)", "y (target)"][side] in str(error.value)
        # Errors of the workers of a cluster travel as pickles. That of a target is the cause of what is raised.
        problem = error.value.__cause__ or error.value
        again = pickle.loads(pickle.dumps(problem))
        assert (str(again), again.kind) == (str(problem), problem.kind)


def test_problems_of_many_targets_are_told_together():
    ys = [normal(1, 30, 2), normal(2, 10, 2), with_bad_values(np.nan), normal(3, 12, 2)]
    with pytest.raises(ValueError, match=r"2 of 4 targets have too few cells.*10 cells.*12 cells.* in 2 of 30 rows"):
        fit_many(normal(0, 30, 2), ys, potential="gaussian")


def test_lists_integers_and_tensors_are_cells():
    x, y = np.round(5 * normal(0, 30, 2)), np.round(5 * normal(1, 30, 2))
    expected = fit(x, y, potential="gaussian").transport(x)
    for kind in (np.ndarray.tolist, np.int32, torch.tensor, lambda cells: torch.tensor(cells).bfloat16()):
        same = fit(kind(x), kind(y), potential="gaussian").transport(x)
        np.testing.assert_allclose(same, expected, rtol=1e-6, atol=1e-6)


# ---- cells that lie far from all others


def clouds(seed, n_dims=5, n_cells=400):
    """Return a Gaussian cloud, its image under a linear map, and test cells with their true image."""
    rng = np.random.default_rng(seed)
    matrix, shift = np.diag(np.linspace(0.7, 1.5, n_dims)), np.arange(n_dims) / 2
    x, y = rng.normal(size=(n_cells, n_dims)), rng.normal(size=(n_cells, n_dims)) @ matrix + shift
    test = rng.normal(size=(1000, n_dims))
    return x, y, test, test @ matrix + shift


def error(fitted, test, truth):
    return ((fitted.transport(test) - truth) ** 2).sum(1).mean() / truth.var(0).sum()


def away(n_dims, distance, seed=0):
    direction = np.random.default_rng(seed).normal(size=n_dims)
    return direction / np.linalg.norm(direction) * distance


@pytest.mark.parametrize(
    ("side", "distance", "potential"),
    [("source", 30, "hycnn"), ("target", 1e6, "hycnn"), ("target", 30, "gaussian"), ("source", 1e6, "gaussian")],
)
def test_one_far_cell_changes_nothing(side, distance, potential):
    x, y, test, truth = clouds(0)
    clean = error(fit(x, y, potential=potential, **QUICK), test, truth)
    {"source": x, "target": y}[side][7] = away(5, distance)
    fitted = fit(x, y, potential=potential, **QUICK)
    assert fitted.validation[f"far_{side}"].tolist() == [7]
    assert error(fitted, test, truth) < clean + 0.005
    assert error(fitted.gaussian_map(), test, truth) < 0.03
    # The far source cell is moved too, and its score is high.
    assert np.isfinite(fitted.transport(x)).all()
    assert side == "target" or fitted.out_of_support(x[7:8])[0] > 2


@pytest.mark.parametrize("n_dims", [1, 20, 50])
def test_several_far_cells_are_named_in_any_order_of_rows(n_dims):
    x, y, *_ = clouds(1, n_dims, 300)
    rows = [3, 50, 299]
    for k, row in enumerate(rows):
        y[row] = away(n_dims, 1000 * (k + 1), seed=k)
    order = np.random.default_rng(0).permutation(300)
    assert fit(x, y, potential="gaussian").validation["far_target"].tolist() == rows
    assert order[fit(x, y[order], potential="gaussian").validation["far_target"]].tolist() == [
        row for row in order if row in rows
    ]


@pytest.mark.parametrize(("n_cells", "n_dims"), [(20, 10), (20, 1), (100, 2), (2000, 10)])
def test_clean_clouds_keep_all_cells(n_cells, n_dims):
    for seed in range(5):
        x, y, *_ = clouds(seed, n_dims, n_cells)
        validation = fit(x, y, potential="gaussian").validation
        assert not len(validation["far_source"])
        assert not len(validation["far_target"])


def test_a_rare_type_is_no_outlier():
    x, y, *_ = clouds(0)
    y[:6] += 50
    assert not len(fit(x, y, potential="gaussian").validation["far_target"])


def test_many_cells_are_searched_by_samples_first():
    """With 30,000 cells of heavy tails, distances to all cells are taken for few of them."""
    x = np.random.default_rng(0).standard_t(3, size=(30_000, 2))
    x[7] = 1e4
    y = np.random.default_rng(1).normal(size=(100, 2))
    validation = fit(x, y, potential="gaussian").validation
    assert 7 in validation["far_source"]
    assert len(validation["far_source"]) < 30


def test_broad_tails_and_duplicates_are_no_outliers():
    rng = np.random.default_rng(0)
    x = rng.standard_t(5, size=(2000, 20))
    y = np.repeat(rng.normal(size=(40, 20)), 25, axis=0)
    validation = fit(x, y, potential="gaussian").validation
    assert len(validation["far_source"]) <= 2
    assert not len(validation["far_target"])


def test_a_constant_component_and_one_value_in_it():
    x, y, _test, _truth = clouds(0)
    x[:, 2] = y[:, 2] = 1.0
    y[11, 2] = 500.0
    fitted = fit(x, y, potential="gaussian")
    assert fitted.validation["far_target"].tolist() == [11]
    assert np.abs(fitted.transport(x)[:, 2] - 1).max() < 0.01


def test_in_groups_too():
    x, y, test, truth = clouds(0)
    groups = np.resize(["a", "b"], 400), np.resize(["a", "b"], 400)
    clean = error(fit(x, y, groups=groups, potential="gaussian"), test, truth)
    y[7] = away(5, 300)
    fitted = fit(x, y, groups=groups, potential="gaussian")
    assert fitted.validation["far_target"].tolist() == [7]
    assert error(fitted, test, truth) < clean + 0.005
