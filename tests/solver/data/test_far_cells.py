"""Cells that lie far from all others do not carry a fit away."""

from __future__ import annotations

import numpy as np
import pytest

from scot_hycnn.solver import fit

QUICK = {"max_steps": 60, "hidden": (16, 16), "n_ensemble": 2, "device": "cpu"}


def clouds(seed, n_dims=5, n_cells=400):
    """A Gaussian cloud, its image under a linear map, and cells to judge by with their true image."""
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


@pytest.mark.parametrize("side", ["source", "target"])
@pytest.mark.parametrize("distance", [30, 100, 1000, 1e6])
@pytest.mark.parametrize("potential", ["gaussian", "hycnn"])
def test_one_far_cell_changes_nothing(side, distance, potential):
    x, y, test, truth = clouds(0)
    clean = error(fit(x, y, potential=potential, **QUICK), test, truth)
    {"source": x, "target": y}[side][7] = away(5, distance)
    fitted = fit(x, y, potential=potential, **QUICK)
    assert fitted.validation[f"far_{side}"].tolist() == [7]
    assert error(fitted, test, truth) < clean + 0.005
    assert error(fitted.gaussian_map(), test, truth) < 0.03
    # The far source cell moves too, and is known as one that the map says little about.
    assert np.isfinite(fitted.transport(x)).all()
    assert side == "target" or fitted.out_of_support(x[7:8])[0] > 2


@pytest.mark.parametrize("n_dims", [1, 2, 20, 50])
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


@pytest.mark.parametrize("n_cells", [20, 100, 2000])
@pytest.mark.parametrize("n_dims", [1, 2, 10])
def test_clean_clouds_keep_all_cells(n_cells, n_dims):
    for seed in range(10):
        x, y, *_ = clouds(seed, n_dims, n_cells)
        validation = fit(x, y, potential="gaussian").validation
        assert not len(validation["far_source"])
        assert not len(validation["far_target"])


def test_a_rare_type_is_no_outlier():
    x, y, *_ = clouds(0)
    y[:6] += 50
    assert not len(fit(x, y, potential="gaussian").validation["far_target"])


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
