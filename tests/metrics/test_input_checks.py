"""Every metric refuses input that does not fit, and names it."""

from __future__ import annotations

import inspect

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csr_array, csr_matrix

from scot_hycnn import metrics

GOOD = np.random.default_rng(0).normal(size=(6, 3))
ALL = [getattr(metrics, name) for name in metrics.__all__ if name != "evaluate"]  # that one takes an AnnData
PAIRED = [metrics.map_mse, metrics.l2_uvp]


def arrays_of(metric):
    """Return names of a metric's array arguments: the positional ones."""
    return [
        name
        for name, parameter in inspect.signature(metric).parameters.items()
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    ]


def run(metric, **arrays):
    options = {"n_top": 2} if metric is metrics.deg_overlap else {}  # of three genes
    return metric(**arrays, **options)


def call(metric, name, value):
    return run(metric, **{**dict.fromkeys(arrays_of(metric), GOOD), name: value})


CASES = [(metric, name) for metric in ALL for name in arrays_of(metric)]
each_argument = pytest.mark.parametrize(("metric", "name"), CASES, ids=lambda v: getattr(v, "__name__", v))


@each_argument
def test_one_dimension(metric, name):
    message = rf"{name} has shape \(6,\); it needs two dimensions.*{name}\[:, None\]"
    with pytest.raises(ValueError, match=message):
        call(metric, name, GOOD[:, 0])


@each_argument
@pytest.mark.parametrize("shape", [(1, 3), (0, 3), (6, 0)])
def test_too_small(metric, name, shape):
    rows, columns = shape
    message = rf"{name} has shape \({rows}, {columns}\); at least 2 rows \(cells\) and 1 column"
    with pytest.raises(ValueError, match=message):
        call(metric, name, np.zeros(shape))


@each_argument
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_finite(metric, name, value):
    bad = GOOD.copy()
    bad[[1, 4], 0] = value
    with pytest.raises(ValueError, match=rf"{name} has NaN or infinite values in 2 of 6 rows; select the"):
        call(metric, name, bad)


@each_argument
def test_columns_differ(metric, name):
    with pytest.raises(ValueError, match=rf"numbers of columns differ: .*{name} 2.*same features"):
        call(metric, name, GOOD[:, :2])


@each_argument
@pytest.mark.parametrize("sparse", [csr_matrix, csr_array])
def test_sparse(metric, name, sparse):
    with pytest.raises(TypeError, match=rf"{name} is a sparse matrix; pass .* {name}.toarray\(\)"):
        call(metric, name, sparse(GOOD))


@each_argument
def test_not_numbers(metric, name):
    with pytest.raises(TypeError, match=rf"{name} does not convert to an array of numbers"):
        call(metric, name, [["a", "b", "c"]] * 6)


@pytest.mark.parametrize("metric", PAIRED)
def test_rows_differ(metric):
    with pytest.raises(ValueError, match=r"numbers of rows differ: predicted 5, truth 6\..*same cell"):
        call(metric, "predicted", GOOD[:5])


@pytest.mark.parametrize("metric", ALL)
def test_input_is_left_as_it_was_and_other_containers_do(metric):
    names = arrays_of(metric)
    given = {name: GOOD + index * np.arange(3.0) for index, name in enumerate(names)}
    before = {name: array.copy() for name, array in given.items()}
    value = run(metric, **given)
    assert type(value) is float
    assert all(np.array_equal(given[name], before[name]) for name in names)
    assert run(metric, **{name: pd.DataFrame(array) for name, array in given.items()}) == value
    assert run(metric, **{name: torch.from_numpy(array) for name, array in given.items()}) == value
