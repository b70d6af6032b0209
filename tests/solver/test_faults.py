"""Clouds that break naive arithmetic: a map that is not worse than the Gaussian one on validation, or a sentence."""

from __future__ import annotations

import numpy as np
import pytest

from scot_hycnn.solver import fit

QUICK = {"hidden": (8, 8), "max_steps": 60, "batch_size": 64, "n_ensemble": 2, "device": "cpu", "progress": False}
RNG = np.random.default_rng(0)
N = 300


def normal(*shape):
    return RNG.normal(size=shape)


def bent(y):
    return y + np.sign(y)


def with_outliers(cells, n):
    return np.vstack([cells[n:], 1e6 * np.abs(normal(n, cells.shape[1]))])


CLOUDS = {
    "one outlier in the source": (with_outliers(normal(N, 4), 1), bent(normal(N, 4))),
    "one outlier in the target": (normal(N, 4), with_outliers(bent(normal(N, 4)), 1)),
    "outliers in both": (with_outliers(normal(N, 4), 5), with_outliers(bent(normal(N, 4)), 5)),
    "duplicated cells": (np.repeat(normal(15, 4), 20, axis=0), bent(np.repeat(normal(15, 4), 20, axis=0))),
    "rank 2 of 4": (normal(N, 2) @ normal(2, 4), bent(normal(N, 2)) @ normal(2, 4)),
    "nearly as many dimensions as cells": (normal(80, 40), bent(normal(80, 40))),
    "a constant column": (np.c_[normal(N, 3), np.full(N, 7.0)], np.c_[bent(normal(N, 3)), np.full(N, 7.0)]),
    "a constant column that moves": (np.c_[normal(N, 3), np.full(N, 7.0)], np.c_[bent(normal(N, 3)), np.full(N, 9.0)]),
    "values of 1e8": (1e8 * normal(N, 4), 1e8 * bent(normal(N, 4))),
    "values of 1e-8": (1e-8 * normal(N, 4), 1e-8 * bent(normal(N, 4))),
    "columns of 1e8 and 1e-8": (normal(N, 3) * [1e8, 1, 1e-8], bent(normal(N, 3)) * [1e8, 1, 1e-8]),
    "far from the origin": (normal(N, 4) + 1e8, bent(normal(N, 4)) + 1e8),
    "the smallest numbers": (1e-300 * normal(N, 4), 1e-300 * normal(N, 4)),
    "heavy tails": (RNG.standard_cauchy((N, 4)), 2 * RNG.standard_cauchy((N, 4))),
    "one cloud 100 times as large": (normal(N, 4), 100 * bent(normal(N, 4))),
    "one condition with 100 times the cells": (normal(6000, 4), bent(normal(60, 4))),
    "all cells equal": (np.ones((N, 3)), np.ones((N, 3))),
    "a target of one point": (normal(N, 3), np.ones((N, 3))),
    "a source of one point": (np.ones((N, 3)), normal(N, 3)),
    "whole numbers": (RNG.integers(0, 3, (N, 4)), RNG.integers(0, 5, (N, 4))),
    "booleans": (RNG.random((N, 4)) < 0.3, RNG.random((N, 4)) < 0.6),
    "half precision": (normal(N, 4).astype(np.float16), bent(normal(N, 4)).astype(np.float16)),
    "one dimension": (normal(N, 1), bent(normal(N, 1))),
}


@pytest.mark.parametrize("name", CLOUDS)
def test_the_map_is_finite_and_not_worse_than_the_gaussian_map(name):
    x, y = CLOUDS[name]
    fitted = fit(x, y, **QUICK)
    for cells in (fitted.transport(x), fitted.inverse(y), fitted.out_of_support(x)):
        assert np.isfinite(cells).all()
    scores = fitted.validation
    chosen = scores["blends"].tolist().index(fitted.blend)
    assert scores["J"] <= scores["J_gaussian"]
    excess = scores["energy_distance"] - scores["energy_distance_gaussian"]
    assert excess <= 2 * scores["energy_error_by_blend"][chosen]
    assert (fitted.blend == 0) == ("Gaussian map was kept" in fitted.status)


def test_cells_that_do_not_move_stay():
    """Source and target the same: the network may not invent a response."""
    x = normal(N, 4)
    moved = fit(x, x, **QUICK).transport(x)
    assert np.sqrt(np.square(moved - x).sum(1).mean()) < 0.3 * np.sqrt(x.var(0).sum())


@pytest.mark.parametrize("seed", range(2))
def test_a_rotation_of_both_clouds_rotates_the_map(seed):
    """Not to the bit, since the networks start at random: to the error that both have."""
    rng = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    x, y = rng.normal(size=(2, 1000, 3))
    y = bent(y)
    plain = fit(x, y, **QUICK | {"max_steps": 300}).transport(x)
    turned = fit(x @ rotation, y @ rotation, **QUICK | {"max_steps": 300}).transport(x @ rotation) @ rotation.T
    errors = [np.square(moved - bent(x)).sum(1).mean() for moved in (plain, turned)]
    assert max(errors) < 1.2 * min(errors)
    assert np.square(plain - turned).sum(1).mean() < min(errors) / 2


@pytest.mark.parametrize(
    ("x", "y", "sentence"),
    [
        (normal(3, 2), normal(100, 2), r"x \(source\) has 3 cells in 2 dimensions; at least 20 are needed"),
        (normal(60, 100), normal(60, 100), r"x \(source\) has 60 cells in 100 dimensions; at least 200 are needed"),
        (normal(N, 2), 1e200 * normal(N, 2), r"y \(target\) has values up to \de\+200, and 1e\+100 is the most"),
        (np.full((N, 2), -1e300), normal(N, 2), r"x \(source\) has values up to 1e\+300, and 1e\+100 is the most"),
    ],
    ids=["three cells", "more dimensions than cells", "large target", "large negative source"],
)
def test_what_cannot_be_fitted_is_said(x, y, sentence):
    with pytest.raises(ValueError, match=sentence):
        fit(x, y, **QUICK)
