"""Every metric of arrays refuses input that does not fit, and names it."""

from __future__ import annotations

import inspect

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array, csr_matrix

from scot_hycnn import metrics

GOOD = np.random.default_rng(0).normal(size=(6, 3))
ALL = [getattr(metrics, name) for name in metrics.__all__ if name != "evaluate"]  # that one takes an AnnData


def with_values(value):
    bad = GOOD.copy()
    bad[[1, 4], 0] = value
    return bad


# Input, the class of the error, and what its message names besides the argument.
BAD = {
    "one dimension": (GOOD[:, 0], ValueError, r"\(6,\)"),
    "one row": (GOOD[:1], ValueError, r"\(1, 3\)"),
    "no rows": (GOOD[:0], ValueError, r"\(0, 3\)"),
    "no columns": (GOOD[:, :0], ValueError, r"\(6, 0\)"),
    "NaN": (with_values(np.nan), ValueError, "2 of 6 rows"),
    "infinite": (with_values(-np.inf), ValueError, "2 of 6 rows"),
    "masked": (np.ma.masked_array(GOOD, np.arange(6)[:, None] % 3 == np.ones(3)), ValueError, "2 of 6 rows"),
    "large": (1e160 * GOOD, ValueError, r"e\+160.*float64"),
    "small": (1e-160 * GOOD, ValueError, "e-160.*float64"),
    "fewer columns": (GOOD[:, :2], ValueError, " 2"),
    "sparse matrix": (csr_matrix(GOOD), TypeError, "sparse"),
    "sparse array": (csr_array(GOOD), TypeError, "sparse"),
    "strings": ([["a", "b", "c"]] * 6, TypeError, "numbers"),
}


def arguments(metric):
    parameters = inspect.signature(metric).parameters.values()
    return [parameter.name for parameter in parameters if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]


def run(metric, arrays):
    options = {"n_top": 2} if metric is metrics.deg_overlap else {}  # of three genes
    return metric(**arrays, **options)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_bad_input_is_refused_by_name(data):
    metric = data.draw(st.sampled_from(ALL), label="metric")
    name = data.draw(st.sampled_from(arguments(metric)), label="argument")
    values, error, message = BAD[data.draw(st.sampled_from(sorted(BAD)), label="input")]
    arrays = dict.fromkeys(arguments(metric), GOOD)
    with pytest.raises(error, match=f"{name}.*{message}"):
        run(metric, {**arrays, name: values})


@pytest.mark.parametrize("metric", [metrics.map_mse, metrics.l2_uvp])
def test_rows_of_paired_arrays_differ(metric):
    with pytest.raises(ValueError, match="predicted 5, truth 6"):
        metric(GOOD[:5], GOOD)


@pytest.mark.parametrize("metric", ALL)
def test_other_containers_and_input_stays_as_it_was(metric):
    arrays = {name: GOOD + i * np.arange(3.0) for i, name in enumerate(arguments(metric))}
    before = {name: array.copy() for name, array in arrays.items()}
    value = run(metric, arrays)
    assert type(value) is float
    assert all(np.array_equal(arrays[name], before[name]) for name in arrays)
    for convert in (pd.DataFrame, torch.from_numpy, np.ndarray.tolist):
        assert run(metric, {name: convert(array) for name, array in arrays.items()}) == value
