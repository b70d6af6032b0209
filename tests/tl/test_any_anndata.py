"""Whatever the labels, types, order and layout of an AnnData: the map of the same cells as arrays, or a sentence."""

from __future__ import annotations

import string
import warnings

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

import scot_hycnn as sh
from scot_hycnn import solver

N, D = 25, 2
N_OTHERS = 7
FUZZ = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=40
)
AWKWARD = [
    "",
    " ",
    "/",
    "a/b",
    "..",
    "control",
    "0",
    "0.0",
    "nan",
    "None",
    "True",
    "β-IFN",
    "é",
    "\N{ZERO WIDTH SPACE}",
]

# Labels of one type: two of one column that are equal, such as 1 and True, are one label.
words = st.one_of(st.sampled_from(AWKWARD), st.text(max_size=12))
numbers = st.one_of(st.integers(-(2**31), 2**31), st.floats(allow_nan=False, allow_infinity=False, width=32))
labels = st.one_of(
    st.lists(words, min_size=3, max_size=3, unique=True),
    st.lists(st.integers(-(2**53), 2**53), min_size=3, max_size=3, unique=True),
    st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=3, max_size=3, unique_by=str),
    st.just([True, False, None]),
    st.lists(st.one_of(words, numbers), min_size=3, max_size=3, unique_by=(str, lambda label: label)),
)
columns = st.sampled_from(["category", "object", "string", "own", "ordered"])
layouts = st.sampled_from(["C", "F", "frame", "csr", "csc", "strided"])
kinds = st.sampled_from(["float16", "float32", "float64", ">f8", "int8", "uint16", "int64"])


def column_of(values, kind):
    if kind == "ordered":
        known = list(dict.fromkeys(value for value in values if not pd.isna(value)))
        return pd.Categorical(values, categories=known[::-1], ordered=True)
    if kind == "own":  # what pandas makes of them
        return pd.Series(values)
    if kind == "string":
        return pd.Series([None if pd.isna(value) else str(value) for value in values], dtype="string")
    return pd.Series(values, dtype=object).astype(kind)


def table_of(values, layout, kind, index):
    # Sparse matrices know no halves; they and pandas, the machine's order of bytes alone.
    kind = np.dtype("float32" if kind == "float16" and layout.startswith("cs") else kind)
    values = values.astype(kind if layout in ("C", "F", "strided") else kind.newbyteorder("="))
    if layout == "frame":
        return pd.DataFrame(values, index=index, columns=list(string.ascii_lowercase[:D]))
    if layout == "strided":
        return np.repeat(values, 2, axis=1)[:, ::2]
    return getattr(sp, f"{layout}_matrix")(values) if layout.startswith("cs") else np.asarray(values, order=layout)


@st.composite
def anndatas(draw):
    """An AnnData, its two labels, and rows of the cells that have them."""
    found = draw(labels)
    missing = draw(st.booleans())
    others = None if missing or found[2] is None else found[2]
    place = np.array(draw(st.permutations([*[0] * N, *[1] * N, *[2] * N_OTHERS])))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    x = np.round(rng.normal(size=(len(place), D)) * 20 + 50 * place[:, None] + 60)
    names = [f"cell{i % draw(st.sampled_from([5, 1000]))}" for i in range(len(place))]
    obs = pd.DataFrame(index=pd.Index(names))
    values = [[found[0], found[1], others][k] for k in place]
    column = column_of(values, draw(columns))
    obs["which cells"] = column.to_numpy() if column.dtype == object else getattr(column, "array", column)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Observation names are not unique", UserWarning)
        adata = AnnData(obs=obs, obsm={"X_rep": table_of(np.clip(x, 0, 120), draw(layouts), draw(kinds), obs.index)})
        if draw(st.booleans()):
            kept = np.sort(rng.permutation(len(place))[:-2])
            adata, place = adata[kept], place[kept]
    return adata, found[:2], [np.flatnonzero(place == k) for k in (0, 1)]


@pytest.mark.filterwarnings("ignore:Observation names are not unique|Transforming to str index")
@pytest.mark.filterwarnings("ignore:.* looks like counts")  # its values are whole numbers
@given(case=anndatas(), named=st.booleans())
@FUZZ
def test_any_labels_types_and_layouts(case, named, unchanged):
    adata, (source, target), (rows, others) = case
    before = adata.copy()
    options = {"use_rep": "X_rep", "potential": "gaussian"} | ({"groupby": "which cells"} if named else {})
    try:
        with unchanged(before):
            result = sh.tl.hycnn_ot(before, source, target, copy=True, **options)
    except ValueError as error:
        # A column of numbers must be named.
        if named or not str(error).startswith("No column of adata.obs holds all of"):
            raise
        return
    x = before.obsm["X_rep"]
    x = np.asarray(x.toarray() if sp.issparse(x) else x, dtype=np.float64)
    fitted = solver.fit(x[rows], x[others], potential="gaussian", device="cpu")
    moved = result.obsm["X_hycnn_ot"]
    np.testing.assert_allclose(moved[rows], fitted.transport(x[rows]), rtol=1e-4, atol=1e-2)
    assert np.isnan(np.delete(moved, rows, axis=0)).all()
    # As the column has them: pandas turns 1 into 1.0 where a value is missing.
    assert result.uns["hycnn_ot"]["source"] == str(before.obs["which cells"].iloc[rows[0]])
    assert list(result.uns["hycnn_ot"]["targets"].values()) == [str(before.obs["which cells"].iloc[others[0]])]


@given(found=st.lists(words, min_size=3, max_size=9, unique=True))
@example(found=["a/b", "a_b", ""])
@example(found=["A", "a", "a_2"])
@settings(FUZZ, max_examples=5)
def test_any_labels_survive_a_file(found, tmp_path_factory):
    """The maps of several targets, of any name, move cells as they did."""
    assume(not any("\0" in label for label in found))  # which HDF5 cannot hold, in obs neither
    rng = np.random.default_rng(0)
    condition = np.repeat(np.arange(len(found)), N)
    obs = pd.DataFrame({"condition": pd.Categorical.from_codes(condition, found)})
    x = rng.normal(size=(len(obs), D)) + 3 * condition[:, None]
    adata = AnnData(obs=obs.set_axis([f"c{i}" for i in range(len(obs))]), obsm={"X_pca": x})
    sh.tl.hycnn_ot(adata, found[0], found[1:], potential="gaussian")
    path = tmp_path_factory.mktemp("file") / "cells.h5ad"
    adata.write_h5ad(path)
    read = anndata.read_h5ad(path)
    assert set(read.obsm) == set(adata.obsm)
    assert sorted(read.uns["hycnn_ot"]["targets"].values()) == sorted(found[1:])
    for slug, label in adata.uns["hycnn_ot"]["targets"].items():
        again, before = (sh.tl.transport(own, target=label, key_added="again", copy=True) for own in (read, adata))
        np.testing.assert_array_equal(again.obsm[f"X_again_{slug}"], before.obsm[f"X_again_{slug}"])


@pytest.mark.parametrize("label", [np.nan, None, float("inf"), pd.NA, ["control"], ("a", "b"), b"control", object()])
def test_a_label_that_is_none(cells, unchanged, label):
    cells.obs["others"] = pd.Categorical(["nan", "None", "<NA>", "b", "object"] * 26)
    with unchanged(cells), pytest.raises(ValueError, match=r"source_key=.* is not a category of .*it has \['control'"):
        sh.tl.hycnn_ot(cells, label, "IFN-beta")
