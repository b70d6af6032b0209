"""The order of rows has no effect beyond that of a seed."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest

import scot_hycnn as sh
from scot_hycnn.solver import fit, fit_many

# More than 512 validation cells: no more are looked at during training.
QUICK = {
    "max_steps": 100,
    "n_ensemble": 1,
    "hidden": (16, 16),
    "lr": 0.05,
    "batch_size": 128,
    "validation_fraction": 0.25,
}
N = 2400
CENTRES = np.array([[-6.0, 0.0], [0.0, 0.0], [6.0, 0.0]])
SHIFTS = np.array([[0.0, 0.0], [2.5, 0.0], [0.0, 0.0]])


def cells(seed=0):
    """Three types, one below the other, of which one responds."""
    rng = np.random.default_rng(seed)
    kind = np.repeat([0, 1, 2], N // 3)
    x, y = (CENTRES[kind] + 0.7 * rng.normal(size=(N, 2)) for _ in range(2))
    return x, y + SHIFTS[kind], kind


def ordered(order, x, y, kind):
    """Rows of source and target in this order, and the type of each source cell."""
    rng = np.random.default_rng(5)
    same, back, shuffled, other = np.arange(N), np.arange(N)[::-1], rng.permutation(N), rng.permutation(N)
    of_x, of_y = {
        "sorted": (same, same), "shuffled": (shuffled, other),
        "target reversed": (same, back), "target shuffled": (same, other),
    }[order]  # fmt: skip
    return x[of_x], y[of_y], kind[of_x], kind[of_y]


def error(moved, x, kind):
    return float(((moved - x - SHIFTS[kind]) ** 2).sum(1).mean())


def check_what_was_watched(fitted):
    """J at the last check, of 512 cells of each kind, is that of all validation cells up to its standard error."""
    watched, error = (fitted.history[name][-1] for name in ("J_minus_gaussian", "J_error"))
    final = fitted.validation["J_by_blend"][-1] - fitted.validation["J_gaussian"]
    assert abs(watched - final) < 4 * error


@pytest.fixture(scope="module")
def usual():
    """Largest error over seeds of the shuffled cells."""
    x, y, of_x, _ = ordered("shuffled", *cells())
    maps = [fit(x, y, rng=seed, **QUICK) for seed in range(2)]
    assert {fitted.outcome for fitted in maps} == {"networks"}
    errors = [error(fitted.transport(x), x, of_x) for fitted in maps]
    gaussian = error(maps[0].gaussian_map().transport(x), x, of_x)
    assert 2 * max(errors) < gaussian  # or there is nothing to lose
    return 1.5 * max(errors)


def test_of_a_fit(usual):
    x, y, of_x, _ = ordered("target shuffled", *cells())
    fitted = fit(x, y, **QUICK)
    assert (fitted.outcome, fitted.params["n_steps"]) == ("networks", QUICK["max_steps"])
    check_what_was_watched(fitted)
    assert error(fitted.transport(x), x, of_x) < usual


def test_of_many_fits(usual):
    x, y, kind = cells()
    maps = fit_many(
        x, [ordered(order, x, y, kind)[1] for order in ("sorted", "target reversed", "target shuffled")], **QUICK
    )
    for fitted in maps:
        assert fitted.outcome == "networks"
        check_what_was_watched(fitted)
        assert error(fitted.transport(x), x, kind) < usual


@pytest.mark.parametrize(("order", "with_groups"), [("sorted", True), ("target reversed", False)])
def test_of_an_anndata(order, with_groups, usual):
    x, y, of_x, of_y = ordered(order, *cells())
    obs = pd.DataFrame({"condition": np.repeat(["control", "drug"], N), "type": np.r_[of_x, of_y].astype(str)})
    adata = anndata.AnnData(obs=obs.set_index(obs.index.astype(str)), obsm={"X_pca": np.concatenate([x, y])})
    options = {"groupby": "condition", "group_key": "type" if with_groups else None}
    sh.tl.hycnn_ot(adata, "control", "drug", **options, **QUICK)
    assert adata.uns["hycnn_ot"]["outcome"] == {"drug": "networks"}
    check_what_was_watched(sh.get.model(adata))
    assert error(adata.obsm["X_hycnn_ot"][:N], x, of_x) < usual


def test_of_a_sample_from_a_file(usual, tmp_path):
    x, y, of_x, _of_y = ordered("target reversed", *cells())
    obs = pd.DataFrame({"condition": np.repeat(["control", "drug"], N)})
    adata = anndata.AnnData(obs=obs.set_index(obs.index.astype(str)), obsm={"X_pca": np.concatenate([x, y])})
    adata.write_h5ad(tmp_path / "cells.h5ad")
    lazy = anndata.experimental.read_lazy(tmp_path / "cells.h5ad")
    sh.tl.hycnn_ot(lazy, "control", "drug", groupby="condition", max_cells=2200, predict=False, **QUICK)
    fitted = sh.get.model(lazy)
    assert fitted.outcome == "networks"
    check_what_was_watched(fitted)
    assert error(fitted.transport(x), x, of_x) < usual
