"""Every tensor says where it is made and of what type: PyTorch's defaults, whatever they are, change nothing."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest
import torch

from scot_hycnn.regression import ConvexRegressor
from scot_hycnn.solver import TransportMap, expected_seconds, fit, fit_many
from scot_hycnn.solver._options import Settings
from scot_hycnn.solver.training._methods import FAMILIES, RECIPES

QUICK = {"hidden": (4, 4), "max_steps": 10, "batch_size": 32, "n_ensemble": 2, "device": "cpu", "progress": False}
GROUPS = (np.repeat(list("abcd"), 50),) * 2


@contextmanager
def other_defaults():
    """Tensors on 'meta' have no values: whatever is made there by accident fails when it is read."""
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            yield
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def clouds():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 200, 2))
    return x, y + np.sign(y)


@pytest.mark.parametrize(
    "options",
    [
        *({"solver": name} for name in RECIPES),
        *({"potential": name} for name in FAMILIES),
        {"potential": "gaussian"},
        {"groups": GROUPS},
        {"groups": GROUPS, "leave_out": "groups", "solver": "minimax"},
    ],
    ids=lambda options: " ".join(map(str, options.values() if "groups" not in options else options)),
)
def test_a_fit_is_the_same_under_other_defaults(options):
    x, y = clouds()
    expected = fit(x, y, **QUICK | options)
    with other_defaults():
        fitted = fit(x, y, **QUICK | options)
        again = TransportMap.from_dict(fitted.to_dict(), device="cpu")
        for one in (fitted, again):
            np.testing.assert_array_equal(one.transport(x), expected.transport(x))
            one.transport(x, fallback="paper" not in options.values())
            one.inverse(y)
            one.out_of_support(x)
            one.certify(x, y)


def test_maps_that_stop_early_and_the_expected_time_are_the_same_too():
    x, y = clouds()
    with other_defaults():
        maps = fit_many(x, [y, x], **QUICK | {"max_steps": 40})
        options = {name: value for name, value in QUICK.items() if name != "progress"}
        assert expected_seconds(2, *[Settings.for_cells(200, 2, rng=0, **options)] * 3) > 0
    for fitted, expected in zip(maps, fit_many(x, [y, x], **QUICK | {"max_steps": 40}), strict=True):
        np.testing.assert_array_equal(fitted.transport(x), expected.transport(x))


@pytest.mark.parametrize("options", [{}, {"monotonic_cst": [1, 0]}, {"shape": "concave"}], ids=str)
def test_regression_is_the_same_under_other_defaults(options):
    x, y = clouds()
    expected = ConvexRegressor(max_steps=5, random_state=0, device="cpu", **options).fit(x, y[:, 0]).predict(x)
    with other_defaults():
        regressor = ConvexRegressor(max_steps=5, random_state=0, device="cpu", **options).fit(x, y[:, 0])
        np.testing.assert_array_equal(regressor.predict(x), expected)
        regressor.gradient(x)
