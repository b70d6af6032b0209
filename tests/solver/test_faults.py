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


def moved_apart(y):
    return y + np.sign(y)


def with_outliers(cells, n):
    return np.vstack([cells[n:], 1e6 * np.abs(normal(n, cells.shape[1]))])


CLOUDS = {
    "one outlier in the source": (with_outliers(normal(N, 4), 1), moved_apart(normal(N, 4))),
    "outliers in both": (with_outliers(normal(N, 4), 5), with_outliers(moved_apart(normal(N, 4)), 5)),
    "rank 2 of 4": (normal(N, 2) @ normal(2, 4), moved_apart(normal(N, 2)) @ normal(2, 4)),
    "nearly as many dimensions as cells": (normal(80, 40), moved_apart(normal(80, 40))),
    "a constant column that moves": (
        np.c_[normal(N, 3), np.full(N, 7.0)],
        np.c_[moved_apart(normal(N, 3)), np.full(N, 9.0)],
    ),
    "columns of 1e8 and 1e-8": (normal(N, 3) * [1e8, 1, 1e-8], moved_apart(normal(N, 3)) * [1e8, 1, 1e-8]),
    "far from the origin": (normal(N, 4) + 1e8, moved_apart(normal(N, 4)) + 1e8),
    "the smallest numbers": (1e-300 * normal(N, 4), 1e-300 * normal(N, 4)),
    "heavy tails": (RNG.standard_cauchy((N, 4)), 2 * RNG.standard_cauchy((N, 4))),
    "one cloud 100 times as large": (normal(N, 4), 100 * moved_apart(normal(N, 4))),
    "one condition with 100 times the cells": (normal(6000, 4), moved_apart(normal(60, 4))),
    "all cells equal": (np.ones((N, 3)), np.ones((N, 3))),
    "a target of one point": (normal(N, 3), np.ones((N, 3))),
    "a source of one point": (np.ones((N, 3)), normal(N, 3)),
    "half precision": (normal(N, 4).astype(np.float16), moved_apart(normal(N, 4)).astype(np.float16)),
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


def test_a_rotation_of_both_clouds_rotates_the_map():
    """Not to the bit, since the networks start at random: to the error that both have."""
    rng = np.random.default_rng(0)
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    x, y = rng.normal(size=(2, 1000, 3))
    y = moved_apart(y)
    options = QUICK | {"max_steps": 200}
    plain = fit(x, y, **options).transport(x)
    turned = fit(x @ rotation, y @ rotation, **options).transport(x @ rotation) @ rotation.T
    errors = [np.square(moved - moved_apart(x)).sum(1).mean() for moved in (plain, turned)]
    assert max(errors) < 1.2 * min(errors)
    assert np.square(plain - turned).sum(1).mean() < min(errors) / 2
