"""What tl.hycnn_ot reads: labels, representations, masks, splits, groups and screens; or one sentence."""

from __future__ import annotations

import io
import string
import warnings

import anndata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp
from anndata import AnnData
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

import scot_hycnn as sh
from scot_hycnn import solver

GAUSSIAN = {"potential": "gaussian", "device": "cpu"}
LABELS = ("control", "IFN-beta")


def fitted(adata, *labels, **options):
    sh.tl.hycnn_ot(adata, *(labels or LABELS), **(GAUSSIAN | options))
    return adata


@pytest.fixture
def log():
    """Return the lines of scanpy's log at the level of warnings since the last call."""
    before = sc.settings.verbosity, sc.settings.logfile
    stream = io.StringIO()

    def lines():
        # At scanpy's default verbosity a fit also says in one line what runs, and in one what came out.
        said = [line for line in stream.getvalue().splitlines() if line.startswith("WARNING")]
        stream.seek(0)
        stream.truncate()
        return said

    sc.settings.verbosity, sc.settings.logfile = 1, stream
    yield lines
    sc.settings.verbosity, sc.settings.logfile = before


# ---- bad input: a sentence with the value and the choices, and the AnnData as it was


def bad_cells(value):
    def spoil(adata):
        rows = np.flatnonzero(adata.obs["condition"] == "control")[:7]
        adata.obsm["X_pca"][rows, 1] = value
        adata.obs_names = [f"bad{i}" if i in rows else f"good{i}" for i in range(adata.n_obs)]

    return spoil


def few_cells(adata):
    rows = np.flatnonzero(adata.obs["condition"] == "control")[5:]
    adata.obs["condition"] = adata.obs["condition"].mask(np.isin(np.arange(adata.n_obs), rows))


def no_pca(adata):
    del adata.obsm["X_pca"]


def two_columns(adata):
    adata.obs["stim"] = adata.obs["condition"]


def no_columns(adata):
    adata.obs = adata.obs[["n_counts"]]


def other_columns(adata):
    adata.obs["batch"] = pd.Categorical(["a", "b"] * (adata.n_obs // 2))
    adata.obs["donor"] = pd.Categorical(["x", "y"] * (adata.n_obs // 2))
    del adata.obs["condition"]


def overlapping_masks(adata):
    adata.obs["m1"] = np.arange(adata.n_obs) < 70
    adata.obs["m2"] = np.arange(adata.n_obs) > 60


def no_expression(adata):
    adata.X = None


def words(adata):
    adata.obsm["words"] = pd.DataFrame({"a": ["x"] * adata.n_obs}, index=adata.obs_names)


def foreign(adata):
    adata.uns["mine"] = {"a": 1}


def foreign_slots(adata):
    adata.obsm["X_mine"] = np.zeros((adata.n_obs, 2))
    adata.obs["mine_std"] = 1.0


def cube(adata):
    adata.obsm["cube"] = np.zeros((adata.n_obs, 3, 2))


def many_labels(adata):
    adata.obs["condition"] = pd.Categorical([f"c{i}" for i in range(adata.n_obs)])


def with_split(adata):
    adata.obs["split"] = "test"


CATEGORIES = r"\['control', 'IFN-beta'\]"
# What is spoilt, the options, and the values in the message.
CASES = {
    "unknown source": (None, {"source_key": "ctrl"}, rf"source_key='ctrl' .*'condition'.* has {CATEGORIES}"),
    "unknown target": (None, {"target_key": ["IFN-beta", "x"]}, rf"target_key='x' .* has {CATEGORIES}"),
    "many labels": (many_labels, {}, r"\['c0', .* and 110 more"),
    "one label twice": (None, {"target_key": "control"}, "source_key and target_key are both 'control'"),
    "target twice": (None, {"target_key": ["IFN-beta", "IFN-beta"]}, "'IFN-beta' more than once"),
    "no target": (None, {"target_key": []}, "target_key is an empty list"),
    "unknown groupby": (None, {"groupby": "stim"}, r"groupby='stim' .* has \['condition'"),
    "ambiguous groupby": (two_columns, {}, r"groupby= one of \['condition', 'stim'\]"),
    "no label column": (no_columns, {}, "no categorical or string columns"),
    "labels nowhere": (other_columns, {}, r"'batch' with \['a', 'b'\], 'donor' with \['x', 'y'\]"),
    "masks overlap": (overlapping_masks, {"source_key": "m1", "target_key": "m2"}, r"'m1'.*'m2'.* 9 cells"),
    "no pca": (no_pca, {}, r"run sc.pp.pca\(adata\) first"),
    "no pca, named": (no_pca, {"use_rep": "X_pca"}, r"'X_pca' is not in adata.obsm; run sc.pp.pca\(adata\) first"),
    "unknown rep": (None, {"use_rep": "X_scVI"}, r"use_rep='X_scVI' .* has \['X_pca'\]"),
    "no X": (no_expression, {"use_rep": "X"}, "adata.X is empty"),
    "words": (words, {"use_rep": "words"}, "'words' holds values of dtype"),
    "cube": (cube, {"use_rep": "cube"}, r"'cube'.* has shape \(130, 3, 2\)"),
    "too many pcs": (None, {"n_pcs": 4}, r"n_pcs=4 .* 1 to 3.*'X_pca'"),
    "half a pc": (None, {"n_pcs": 2.5}, "n_pcs=2.5 .* 1 to 3"),
    "true pcs": (None, {"n_pcs": True}, "n_pcs=True .* 1 to 3"),
    "pcs of X": (None, {"n_pcs": 2, "use_rep": "X"}, "n_pcs=2 .*use_rep='X'"),
    "NaN": (bad_cells(np.nan), {}, r"in 7 of 60 cells: ('bad\d+', ){4}'bad\d+' \.\.\."),
    "infinite": (bad_cells(np.inf), {}, "in 7 of 60 cells"),
    "few cells": (few_cells, {}, r"'condition'.*'control' .5.; at least 20"),
    "masked to few": (None, {"mask_obs": np.arange(130) < 10}, "'control' .2., 'IFN-beta' .5.; at least 20"),
    "too small a sample": (None, {"max_cells": 19}, r"max_cells=19 .* at least 20"),
    "sample of a word": (None, {"max_cells": "all"}, r"max_cells='all' .* at least 20"),
    "mask of wrong length": (None, {"mask_obs": np.ones(3, dtype=bool)}, r"shape \(3,\).* 130 cells"),
    "mask of numbers": (None, {"mask_obs": np.ones(130)}, "dtype float64"),
    "mask column": (None, {"mask_obs": "n_counts"}, "mask_obs='n_counts' is not a boolean column"),
    "shuffled mask": (None, {"mask_obs": pd.Series(True, index=["a"] * 130)}, "index is not adata.obs_names"),
    "unknown split": (None, {"split_key": "fold"}, r"split_key='fold' .*sh.pp.split\(adata\)"),
    "split without train": (with_split, {"split_key": "split"}, r"labelled 'train'; it has \['test'\]"),
    "unknown group_key": (None, {"group_key": "kind"}, r"group_key='kind' .* has \['condition'"),
    "conditions as groups": (None, {"group_key": "condition"}, "no group has 5 cells or more"),
    "no groups to leave out": (None, {"leave_out": "groups"}, "leave_out='groups' needs group_key"),
    "what to leave out": (None, {"leave_out": "types"}, r"leave_out='types' .* \['cells', 'groups'\]"),
    "fill": (None, {"fill": "zero"}, r"fill='zero' .* \['nan', 'identity'\]"),
    "key": (None, {"key_added": "a/b"}, "key_added='a/b' is no valid key"),
    "no string as key": (None, {"key_added": 3}, "key_added=3 is no valid key"),
    "key of the rep": (None, {"key_added": "pca"}, "key_added='pca' would replace the representation 'X_pca'"),
    "foreign key": (foreign, {"key_added": "mine"}, r"would replace adata.uns\['mine'\]"),
    "foreign slots": (foreign_slots, {"key_added": "mine"}, r"'X_mine' \(adata.obsm\), 'mine_std' \(adata.obs\)"),
    "nothing to move back": (None, {"inverse": True, "predict": False}, "inverse=True .*predict=False"),
    "fallback without a blend": (None, {"fallback": True, "solver": "paper"}, "fallback=True .*solver=.paper"),
    "potential": (None, {"potential": "forest"}, "potential='forest' is unknown"),
    "device": (None, {"device": "tpu"}, "device='tpu'"),
    "steps": (None, {"max_steps": 0}, "max_steps=0"),
}


def test_a_sentence_and_no_trace(cells, unchanged):
    for spoil, options, message in CASES.values():
        spoilt = cells.copy()
        if spoil:
            spoil(spoilt)
        arguments = {"source_key": "control", "target_key": "IFN-beta", "max_steps": 2, "hidden": (4,)} | options
        with unchanged(spoilt), pytest.raises(ValueError, match=message):
            sh.tl.hycnn_ot(spoilt, **arguments)


def test_arguments_of_another_type(cells, unchanged):
    with unchanged(cells), pytest.raises(TypeError, match=r"1\.5"):
        fitted(cells, rng=1.5)
    with pytest.raises(TypeError, match="list"):
        fitted(cells, rng=[1, 2])
    with pytest.raises(TypeError, match="adata is of type ndarray; an AnnData is needed"):
        fitted(np.zeros((3, 3)))


def test_a_label_that_is_none(cells, unchanged):
    """The same names stand in another column as strings."""
    cells.obs["others"] = pd.Categorical(["nan", "None", "<NA>", "b", "object"] * 26)
    for label in (np.nan, None, float("inf"), pd.NA, ["control"], ("a", "b"), b"control", object()):
        with unchanged(cells), pytest.raises(ValueError, match=rf"source_key=.*has {CATEGORIES}"):
            fitted(cells, label, "IFN-beta")


# ---- labels and tables of any type give the map of the same cells as arrays

N, D, N_OTHERS = 25, 2, 7
FUZZ = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=25
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

# Labels of one type: two labels of one column that are equal, such as 1 and True, are one label.
texts = st.one_of(st.sampled_from(AWKWARD), st.text(max_size=12))
numbers = st.one_of(st.integers(-(2**31), 2**31), st.floats(allow_nan=False, allow_infinity=False, width=32))
labels = st.one_of(
    st.lists(texts, min_size=3, max_size=3, unique=True),
    st.lists(st.integers(-(2**53), 2**53), min_size=3, max_size=3, unique=True),
    st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=3, max_size=3, unique_by=str),
    st.just([True, False, None]),
    st.lists(st.one_of(texts, numbers), min_size=3, max_size=3, unique_by=(str, lambda label: label)),
)
columns = st.sampled_from(["category", "object", "string", "pandas", "ordered"])
layouts = st.sampled_from(["C", "F", "frame", "csr", "csc", "strided"])
dtypes = st.sampled_from(["float16", "float32", "float64", ">f8", "int8", "uint16", "int64"])


def column_of(values, kind):
    if kind == "ordered":
        known = list(dict.fromkeys(value for value in values if not pd.isna(value)))
        return pd.Categorical(values, categories=known[::-1], ordered=True)
    if kind == "pandas":  # the dtype that pandas chooses
        return pd.Series(values)
    if kind == "string":
        return pd.Series([None if pd.isna(value) else str(value) for value in values], dtype="string")
    return pd.Series(values, dtype=object).astype(kind)


def table_of(values, layout, dtype, index):
    # SciPy has no sparse matrices of 16-bit floats; it and pandas take the machine's order of bytes only.
    dtype = np.dtype("float32" if dtype == "float16" and layout.startswith("cs") else dtype)
    values = values.astype(dtype if layout in ("C", "F", "strided") else dtype.newbyteorder("="))
    if layout == "frame":
        return pd.DataFrame(values, index=index, columns=list(string.ascii_lowercase[:D]))
    if layout == "strided":
        return np.repeat(values, 2, axis=1)[:, ::2]
    return getattr(sp, f"{layout}_matrix")(values) if layout.startswith("cs") else np.asarray(values, order=layout)


@st.composite
def anndatas(draw):
    """An AnnData, its two labels, and the rows of the cells that have them."""
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
        adata = AnnData(obs=obs, obsm={"X_rep": table_of(np.clip(x, 0, 120), draw(layouts), draw(dtypes), obs.index)})
        if draw(st.booleans()):
            kept = np.sort(rng.permutation(len(place))[:-2])
            adata, place = adata[kept], place[kept]
    return adata, found[:2], [np.flatnonzero(place == k) for k in (0, 1)]


@pytest.mark.filterwarnings("ignore:Observation names are not unique|Transforming to str index")
@pytest.mark.filterwarnings("ignore:.* looks like counts")  # its values are integers
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
    expected = solver.fit(x[rows], x[others], potential="gaussian", device="cpu").transport(x[rows])
    moved = result.obsm["X_hycnn_ot"]
    np.testing.assert_allclose(moved[rows], expected, rtol=1e-4, atol=1e-2)
    assert np.isnan(np.delete(moved, rows, axis=0)).all()
    # Labels are stored as the column has them: pandas turns 1 into 1.0 where a value is missing.
    assert result.uns["hycnn_ot"]["source"] == str(before.obs["which cells"].iloc[rows[0]])
    assert list(result.uns["hycnn_ot"]["targets"].values()) == [str(before.obs["which cells"].iloc[others[0]])]


@given(found=st.lists(texts, min_size=3, max_size=5, unique=True))
@example(found=["a/b", "a_b", ""])
@example(found=["A", "a", "a_2"])
@settings(FUZZ, max_examples=3)
def test_any_labels_survive_a_file(found, tmp_path_factory):
    """The maps of several targets, of any name, move cells as they did."""
    assume(not any("\0" in label for label in found))  # HDF5 cannot hold it, in obs neither
    condition = np.repeat(np.arange(len(found)), N)
    obs = pd.DataFrame({"condition": pd.Categorical.from_codes(condition, found)})
    x = np.random.default_rng(0).normal(size=(len(obs), D)) + 3 * condition[:, None]
    adata = AnnData(obs=obs.set_axis([f"c{i}" for i in range(len(obs))]), obsm={"X_pca": x})
    fitted(adata, found[0], found[1:])
    path = tmp_path_factory.mktemp("file") / "cells.h5ad"
    adata.write_h5ad(path)
    read = anndata.read_h5ad(path)
    assert set(read.obsm) == set(adata.obsm)
    assert sorted(read.uns["hycnn_ot"]["targets"].values()) == sorted(found[1:])
    for slug, label in adata.uns["hycnn_ot"]["targets"].items():
        again, before = (sh.tl.transport(a, target=label, key_added="again", copy=True) for a in (read, adata))
        np.testing.assert_array_equal(again.obsm[f"X_again_{slug}"], before.obsm[f"X_again_{slug}"])


def test_boolean_columns_are_masks(cells):
    expected = fitted(cells.copy()).obsm["X_hycnn_ot"]
    cells.obs["resting"] = (cells.obs["condition"] == "control").to_numpy()
    cells.obs["treated"] = pd.array((cells.obs["condition"] == "IFN-beta").to_numpy(), dtype="boolean")
    fitted(cells, "resting", "treated")
    np.testing.assert_array_equal(cells.obsm["X_hycnn_ot"], expected)
    assert "groupby" not in cells.uns["hycnn_ot"]
    assert len(sh.get.transported(cells)) == 180


@pytest.mark.parametrize("kind", ["int64", "Int64", "float64", "bool", "boolean"])
def test_a_column_of_numbers_that_has_the_labels_must_be_named(cells, unchanged, kind):
    """Even if another column is the only one of categories, which has none of the labels."""
    codes = (cells.obs["condition"] == "IFN-beta").to_numpy()
    cells.obs = cells.obs[[]].assign(group=pd.Categorical(["a"] * cells.n_obs))
    cells.obs["dose"] = pd.array(codes if "bool" in kind else codes.astype(int), dtype=kind)
    source, target = (False, True) if "bool" in kind else (0, 1)
    with unchanged(cells), pytest.raises(ValueError, match="pass groupby='dose'"):
        fitted(cells, source, target)
    with unchanged(cells), pytest.raises(ValueError, match=r"'dose' with \["):
        fitted(cells, source, 7)


@pytest.mark.parametrize(
    ("asked", "dtype"),
    [
        (0.1, "float32"),
        ("0.1", "category"),
        (np.float32(0.1), "float64"),
        ("0.100", "category"),
        (float(np.float32(0.1)), "float64"),
        ("0.10000000149011612", "float32"),
    ],
)
def test_a_dose_is_found_however_it_is_written(cells, asked, dtype):
    dose = pd.Series(np.where(cells.obs["condition"] == "control", 0.1, 0.2), index=cells.obs_names)
    cells.obs["dose"] = dose.astype("float32" if dtype == "category" else dtype).astype(dtype)
    fitted(cells, asked, 0.2, groupby="dose")
    assert (cells.uns["hycnn_ot"]["source"], cells.uns["hycnn_ot"]["targets"]) == ("0.1", {"0.2": "0.2"})
    for target in (0.2, "0.2", np.float32(0.2), ".20"):
        sh.get.transported(cells, target=target)
    with pytest.raises(ValueError, match=r"target=0.21 .* \['0.2'\]"):
        sh.get.transported(cells, target=0.21)


def test_near_numbers_are_not_the_same(cells):
    """16777217 and 16777219 differ, although both are near one number of 32 bits."""
    cells.obs["dose"] = np.where(cells.obs["condition"] == "control", 16777217, 5)
    with pytest.raises(ValueError, match="source_key=16777219 is not a category"):
        fitted(cells, 16777219, 5, groupby="dose")


@pytest.mark.parametrize("convert", [np.asarray, sp.csr_matrix, sp.csc_array])
def test_expression_as_representation(cells, convert):
    cells.obsm["same"] = cells.X.copy()
    expected = fitted(cells.copy(), use_rep="same").obsm["X_hycnn_ot"]
    cells.X = convert(cells.X)
    np.testing.assert_array_equal(fitted(cells, use_rep="X").obsm["X_hycnn_ot"], expected)


def test_names_and_columns_of_representations(cells):
    expected = fitted(cells.copy()).obsm["X_hycnn_ot"]
    # A table keeps the names of its columns.
    cells.obsm["proteins"] = pd.DataFrame(cells.obsm["X_pca"], columns=["CD3", "CD4", "CD8"], index=cells.obs_names)
    np.testing.assert_array_equal(fitted(cells, use_rep="proteins", key_added="p").obsm["X_p"], expected)
    assert list(sh.get.transported(cells, key="p").var_names) == ["CD3", "CD4", "CD8"]
    # The first components are those of a narrower table.
    narrow = cells.copy()
    narrow.obsm["X_pca"] = cells.obsm["X_pca"][:, :2]
    np.testing.assert_array_equal(fitted(narrow).obsm["X_hycnn_ot"], fitted(cells, n_pcs=2).obsm["X_hycnn_ot"])
    # Newer versions of scanpy call the components 'pca'.
    newer = cells.copy()
    newer.obsm["pca"], newer.varm["pca"] = newer.obsm.pop("X_pca"), newer.varm.pop("PCs")
    rep = fitted(newer, key_added="newer").uns["newer"]["rep"]
    assert rep["name"] == "pca"
    assert rep["fingerprint"]


@pytest.mark.filterwarnings("ignore:Observation names are not unique", "ignore:Variable names are not unique")
def test_duplicated_names_do_not_matter(cells):
    expected = fitted(cells.copy()).obsm["X_hycnn_ot"]
    cells.obs_names = ["same"] * cells.n_obs
    cells.var_names = ["gene"] * cells.n_vars
    np.testing.assert_array_equal(fitted(cells).obsm["X_hycnn_ot"], expected)
    assert len(sh.get.transported(cells)) == 180


# ---- held-out cells are never used


@pytest.fixture
def genes():
    """400 cells of two conditions and three types, with logarithms of counts and no representation."""
    rng = np.random.default_rng(0)
    condition, kind = rng.permutation(np.repeat(["control", "drug"], 200)), rng.choice(["B", "T", "NK"], 400)
    level = 2 + (kind == "T")[:, None] * np.arange(20) / 5 + (condition == "drug")[:, None] * np.arange(20)[::-1] / 10
    x = np.log1p(rng.poisson(level)).astype(np.float32)
    obs = pd.DataFrame({"condition": condition, "cell_type": pd.Categorical(kind)}, index=[f"c{i}" for i in range(400)])
    return AnnData(x, obs=obs)


PAIR = {"source_key": "control", "target_key": "drug", "groupby": "condition"}
FAST = {"max_steps": 12, "hidden": (8, 8), "n_ensemble": 2, "progress": False, "device": "cpu"}


def numbers_of(adata):
    model, reports = adata.uns["hycnn_ot"]["models"]["drug"], []
    for name in ("history", "validation"):
        report = adata.uns["hycnn_ot"][name]["drug"]
        reports += [report[key] for key in sorted(report) if key != "seconds"]
    return model["theta"], model["blend"], *(value for _, value in sorted(model["coordinates"].items())), *reports


def test_poisoned_held_out_cells_change_nothing(genes):
    """Neither the components, the maps, the choice of the blend nor the prediction of training cells changes."""
    sh.pp.split(genes, stratify=["condition", "cell_type"])
    held = (genes.obs["split"] == "test").to_numpy()
    poisoned = genes.copy()
    poisoned.X[held] = 1000 * poisoned.X[held][:, ::-1] + 7
    for adata in (genes, poisoned):
        sh.pp.pca(adata, n_comps=5, split_key="split")
        sh.tl.hycnn_ot(adata, split_key="split", group_key="cell_type", **PAIR, **FAST)
    for clean, dirty in zip(numbers_of(genes), numbers_of(poisoned), strict=True):
        np.testing.assert_array_equal(clean, dirty)
    np.testing.assert_array_equal(genes.obsm["X_hycnn_ot"][~held], poisoned.obsm["X_hycnn_ot"][~held])
    held_control = held & (genes.obs["condition"] == "control").to_numpy()
    assert np.isfinite(genes.obsm["X_hycnn_ot"][held_control]).all()  # they are moved too
    params = genes.uns["hycnn_ot"]["params"]
    assert (params["split_key"], params["group_key"]) == ("split", "cell_type")
    # Without the split, the poison shows.
    with pytest.warns(UserWarning, match="Replacing"):
        sh.tl.hycnn_ot(poisoned, **PAIR, **FAST)
    assert (numbers_of(poisoned)[0] != numbers_of(genes)[0]).any()


def test_components_that_held_out_cells_went_into_are_warned_of(genes):
    """Our pp.pca records its training cells, by column or by mask; another split under the same name has others."""
    fit = {**PAIR, **GAUSSIAN, "split_key": "split"}
    sh.pp.split(genes, stratify="condition")
    sh.pp.pca(genes, n_comps=5, mask_obs=(genes.obs["split"] == "train").to_numpy())
    sh.tl.hycnn_ot(genes, key_added="first", **fit)  # without a warning
    with pytest.warns(UserWarning, match="Replacing"):
        sh.pp.split(genes, stratify="condition", rng=1)
    with pytest.warns(UserWarning, match=r"'X_pca' .*sh.pp.pca\(adata, split_key='split'\)") as caught:
        sh.tl.hycnn_ot(genes, key_added="second", **fit)
    assert caught[0].filename == __file__
    sc.pp.pca(genes, n_comps=5)
    with pytest.warns(UserWarning, match="'X_pca' was not fitted"):
        sh.tl.hycnn_ot(genes, key_added="third", **fit)


def test_split_and_mask_leave_cells_in_both(genes):
    sh.pp.split(genes, stratify="condition")
    mask = np.arange(400) % 3 > 0
    sh.tl.hycnn_ot(genes, use_rep="X", split_key="split", mask_obs=mask, **PAIR, **GAUSSIAN)
    rows = mask & (genes.obs["split"] == "train").to_numpy() & (genes.obs["condition"] == "control").to_numpy()
    assert genes.uns["hycnn_ot"]["n_training"]["source"] == rows.sum()
    mean = genes.uns["hycnn_ot"]["models"]["drug"]["coordinates"]["mean_x"]
    np.testing.assert_allclose(mean, genes.X[rows].mean(0), rtol=1e-5)


def test_held_out_cells_may_lack_coordinates(cells):
    is_control = (cells.obs["condition"] == "control").to_numpy()
    first = np.flatnonzero(is_control)[0]
    cells.obsm["X_pca"][first] = np.nan
    fitted(cells, mask_obs=np.arange(cells.n_obs) != first)
    assert np.isnan(cells.obsm["X_hycnn_ot"][first]).all()
    assert np.isfinite(cells.obsm["X_hycnn_ot"][is_control]).all(1).sum() == is_control.sum() - 1


# ---- groups


def test_a_shift_of_proportions_is_not_taken_for_a_response():
    """Cell types do not respond at all here, and one is more frequent among the treated cells."""
    adata = sh.datasets.pbmc_planted(n_cells=1000)
    adata = adata[(adata.obs["condition"] == "control").to_numpy()].copy()
    kinds = adata.obs["cell_type"].astype(str).to_numpy()
    common = kinds == pd.Series(kinds).value_counts().index[0]
    treated = np.random.default_rng(0).random(adata.n_obs) < np.where(common, 0.8, 0.3)
    adata.obs["condition"] = np.where(treated, "drug", "control")
    displacement = []
    for key, group_key in (("plain", None), ("grouped", "cell_type")):
        sh.tl.hycnn_ot(adata, n_pcs=5, key_added=key, group_key=group_key, **PAIR, **GAUSSIAN)
        displacement.append(np.nanmean(adata.obs[f"{key}_displacement"]))
    assert displacement[1] < 0.5 * displacement[0]


def test_too_few_groups_to_leave_out_are_named_before_training(genes):
    genes.obs["half"] = np.where(genes.obs["cell_type"] == "B", "a", "b")
    options = {"use_rep": "X", "group_key": "half", "leave_out": "groups", "max_steps": 10**6}
    with pytest.raises(ValueError, match=r"at least 3 groups with 10 cells"):
        sh.tl.hycnn_ot(genes, **PAIR, **options)


# ---- options that are refused

REFUSED = {
    "steps": {"max_steps": 0},
    "widths": {"hidden": (0,)},
    "rate": {"lr": "fast"},
    "solver": {"solver": "sgd"},
    "seed": {"rng": -1},
    "conjugates": {"solver": "w2gn", "conjugates": "cached"},
    "potential of other cells": {"potential": sh.potentials.ICNN(n_dims=5)},
    "device": {"device": "abacus"},
    "client": {"client": object()},
    "file as folder": {"checkpoint_dir": __file__},
    "folder in a file": {"checkpoint_dir": f"{__file__}/maps"},
    "no seed to continue with": {"rng": None, "checkpoint_dir": "maps"},
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_an_option_is_refused_before_anything_is_said_or_done(cells, unchanged, log, folder):
    """The slots of a fit would be replaced, of which there is a warning, which is an error here."""
    fitted(cells, "control", "IFN-beta")
    log()
    for options in REFUSED.values():
        with unchanged(cells), pytest.raises((ValueError, TypeError), match="|".join(options)):
            sh.tl.hycnn_ot(cells, "control", "IFN-beta", **options)
        assert log() == []
        assert list(folder.iterdir()) == []


def test_most_options_are_refused_before_any_cell_is_read(cells):
    for options in REFUSED.values():
        if not isinstance(options.get("potential"), sh.potentials.ICNN):
            # The message is of the option, although there is no such condition either.
            with pytest.raises((ValueError, TypeError)) as caught:
                sh.tl.hycnn_ot(cells, "nix", "IFN-beta", **options)
            assert "source_key" not in str(caught.value)


def test_without_a_seed_every_map_is_fitted_anew_on_request(cells, tmp_path):
    for _ in range(2):
        options = {"rng": None, "checkpoint_dir": tmp_path / "maps", "resume": False}
        sh.tl.hycnn_ot(cells, "control", "IFN-beta", copy=True, **options, **GAUSSIAN)
    assert len(list((tmp_path / "maps").iterdir())) == 2


# ---- screens: many targets in one call


def screen(sizes, kinds=None):
    """Cells of a control and of targets 'd0', 'd1' ... in shuffled order, and the labels of the targets."""
    rng, names = np.random.default_rng(0), [f"d{k}" for k in range(len(sizes))]
    drug = np.repeat(["control", *names], [60, *sizes])
    order = rng.permutation(len(drug))
    obs = pd.DataFrame({"drug": drug, "kind": rng.choice(["B", "T"], len(drug)) if kinds is None else kinds})
    adata = AnnData(obs=obs.iloc[order].set_index(obs.index[order].astype(str)))
    adata.obs["drug"] = pd.Categorical(adata.obs["drug"], categories=["control", *names])
    adata.obsm["X_pca"] = rng.normal(size=(len(drug), 3))
    return adata, names


def kinds_of(sizes, of_target):
    """Kinds of the control cells, a third of each of three, and of the cells of each target."""
    targets = [np.resize(found, n) for found, n in zip(of_target, sizes, strict=True)]
    return np.concatenate([np.tile(["B", "T", "NK"], 20), *targets])


SCREEN = {"groupby": "drug", "progress": False}
SIZES = (30, 5, 40, 19, 0, 25)


def test_small_targets_are_all_named_or_skipped(log, unchanged):
    adata, names = screen(SIZES)
    with unchanged(adata), pytest.raises(ValueError, match=r"'d1' .5., 'd3' .19., 'd4' .0.; .*skip_small=True"):
        fitted(adata, "control", names, **SCREEN)
    fitted(adata, "control", names, skip_small=True, **SCREEN)
    assert list(adata.uns["hycnn_ot"]["targets"]) == ["d0", "d2", "d5"]
    (said,) = log()
    assert all(named in said for named in ("3 targets", "'d1' (5)", "'d3' (19)", "'d4' (0)"))
    alone, _ = screen(SIZES)
    fitted(alone, "control", ["d0", "d2", "d5"], skip_small=True, **SCREEN)
    assert log() == []
    for name in ("X_hycnn_ot_d0", "X_hycnn_ot_d2", "X_hycnn_ot_d5"):
        np.testing.assert_array_equal(adata.obsm[name], alone.obsm[name])


def test_one_of_a_kind_is_counted_in_the_singular(log, cells):
    adata, names = screen((30, 5), ["B", "T"] * 47 + ["rare"])
    with pytest.raises(ValueError, match=r"^1 condition of .* has too few cells"):
        fitted(adata, "control", names, **SCREEN)
    fitted(adata, "control", names, skip_small=True, group_key="kind", predict=False, n_pcs=1, **SCREEN)
    assert "1 target has too few cells and is not fitted" in "".join(log())
    cells.obs["m1"], cells.obs["m2"] = np.arange(130) < 70, np.arange(130) > 68
    with pytest.raises(ValueError, match=r"share 1 cell;"):
        fitted(cells, "m1", "m2")
    with pytest.raises(ValueError, match=r"has 1 cell in 1 dimension;.* 20 are needed"):
        sh.solver.fit(np.zeros((30, 1)), np.zeros((1, 1)))


def test_hundreds_of_small_targets_are_named_in_a_short_message():
    adata, names = screen([30, *[5] * 200])
    with pytest.raises(ValueError, match=r"200 conditions .* and 180 more") as caught:
        fitted(adata, "control", names, **SCREEN)
    assert len(str(caught.value)) < 1000


def test_one_target_that_is_left_has_the_slots_of_one_target():
    adata, names = screen((30, 5))
    other = adata.copy()
    fitted(adata, "control", names, skip_small=True, **SCREEN)
    assert "X_hycnn_ot" in adata.obsm
    other.obsm["X_hycnn_ot"] = other.obsm["X_pca"].copy()
    with pytest.raises(ValueError, match=r"would replace 'X_hycnn_ot' \(adata.obsm\)"):
        fitted(other, "control", names, skip_small=True, **SCREEN)


@pytest.mark.parametrize(("source", "names"), [("d1", ["d0", "d2"]), ("d0", ["d1", "d3"])])
def test_without_a_source_or_any_target_there_is_no_fit(source, names):
    for skip_small in (True, False):
        with pytest.raises(ValueError, match="at least 20 are needed") as caught:
            fitted(screen(SIZES)[0], source, names, skip_small=skip_small, **SCREEN)
        assert "skip_small" not in str(caught.value)


def test_targets_with_too_few_cells_in_shared_groups_are_named_or_skipped(log):
    sizes = (30, 40, 30, 30)
    adata, names = screen(sizes, kinds_of(sizes, [["B", "T"], ["B"], ["plasma"], ["T", "NK"]]))
    alone, call = adata.copy(), {"group_key": "kind", **SCREEN}
    with pytest.raises(ValueError, match=r"2 of 4 targets .*'d1' .one group., 'd2' .no group..*skip_small=True"):
        fitted(adata, "control", names, **call)
    assert not adata.uns
    log()
    fitted(adata, "control", names, skip_small=True, **call)
    assert list(adata.uns["hycnn_ot"]["targets"]) == ["d0", "d3"]
    lacking, skipped = log()
    assert "2 targets" in skipped
    assert "'d1' (one group)" in skipped
    assert "'NK' (1 of 2 maps)" in lacking
    fitted(alone, "control", ["d0", "d3"], **call)
    np.testing.assert_array_equal(adata.obsm["X_hycnn_ot_d3"], alone.obsm["X_hycnn_ot_d3"])


def test_far_cells_do_not_count_for_their_groups(unchanged, log):
    """Without its far cell the group of d1 has four cells, which is found before anything is replaced."""
    sizes = (30, 35)
    adata, names = screen(sizes, kinds_of(sizes, [["B", "T"], ["B"] * 30 + ["T"] * 5]))
    row = np.flatnonzero((adata.obs["drug"] == "d1") & (adata.obs["kind"] == "T"))[2]
    adata.obsm["X_pca"][row] = 500.0
    fitted(adata, "control", names, **SCREEN)
    call = {"group_key": "kind", **SCREEN}
    with unchanged(adata), pytest.raises(ValueError, match=r"1 of 2 targets|'d1'.*skip_small=True"):
        fitted(adata, "control", names, **call)
    with pytest.warns(UserWarning, match="Replacing"):
        fitted(adata, "control", names, skip_small=True, **call)
    assert list(adata.uns["hycnn_ot"]["targets"]) == ["d0"]
    assert "'d1' (one group)" in "".join(log())


def test_one_line_names_the_groups_that_many_maps_lack(log):
    """Every target lacks another of forty rare groups."""
    sizes = [60] * 40
    kinds = kinds_of(sizes, [["B", "T", "NK", *["B"] * 9, f"rare {k}"] for k in range(40)])
    adata, names = screen(sizes, kinds)
    fitted(adata, "control", names, group_key="kind", predict=False, **SCREEN)
    (said,) = log()
    assert "'rare 0' (1 of 40 maps)" in said
    assert "and 20 more" in said
    assert len(said) < 1000


def test_a_column_of_numbers_is_no_group_key():
    adata, _ = screen((2500, 100))
    adata.obs["counts"] = np.random.default_rng(0).random(adata.n_obs)
    with pytest.raises(ValueError, match=r"group_key='counts'.* at most 2,000 .*pandas.cut") as caught:
        fitted(adata, "control", "d1", group_key="counts", **SCREEN)
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize(
    ("missing", "dtype"), [("", object), ("nan", "category"), ("<NA>", object), (None, object), (np.nan, "category")]
)
def test_a_missing_group_is_found_however_it_is_written(missing, dtype):
    adata, names = screen((30, 30))
    kinds = adata.obs["kind"].astype(object)
    kinds.iloc[7] = missing
    adata.obs["kind"] = kinds.astype(dtype)
    with pytest.raises(ValueError, match=rf"'kind'.* empty for 1 of 120 cells .*'{adata.obs_names[7]}'"):
        fitted(adata, "control", names, group_key="kind", **SCREEN)
    fitted(adata, "control", names, group_key="kind", mask_obs=np.arange(adata.n_obs) != 7, **SCREEN)


@pytest.mark.parametrize("dtype", ["int", "float32", "bool", "string"])
def test_groups_of_any_dtype_are_those_of_strings(dtype):
    adata, names = screen((40, 40), np.resize([0, 1], 140))
    expected = adata.copy()
    expected.obs["kind"] = expected.obs["kind"].map({0: "a", 1: "b"})
    adata.obs["kind"] = adata.obs["kind"].astype(dtype)
    for cells in (adata, expected):
        fitted(cells, "control", names, group_key="kind", **SCREEN)
    np.testing.assert_array_equal(adata.obsm["X_hycnn_ot_d1"], expected.obsm["X_hycnn_ot_d1"])


@pytest.mark.filterwarnings("ignore:.* fingerprint")
def test_cells_of_many_maps_are_warned_of_once():
    adata, names = screen((30, 30, 30))
    fitted(adata, "control", names, **SCREEN)
    others, _ = screen((30,))
    others.obs["drug"] = "new"
    with pytest.warns(UserWarning, match="has no label 'control'") as caught:
        sh.tl.transport(others, model=adata)
    assert sum("has no label" in str(warning.message) for warning in caught) == 1
    assert {"X_hycnn_ot_d0", "X_hycnn_ot_d1", "X_hycnn_ot_d2"} <= set(others.obsm)


def test_numbers_and_what_prints_like_them_are_found_as_labels():
    adata, _ = screen((30, 30))
    adata.obs["drug"] = adata.obs["drug"].astype(object).map({"control": 0, "d0": 1, "d1": 2}).astype(int)
    for source, names in ((0, [1, 2]), ("0", ["1", "2"]), (0.0, [1.0, "2.0"])):
        result = sh.tl.hycnn_ot(adata, source, names, predict=False, copy=True, **SCREEN, **GAUSSIAN)
        assert list(result.uns["hycnn_ot"]["targets"].values()) == ["1", "2"]


@pytest.mark.parametrize(
    ("call", "meant"),
    [
        (lambda adata: sh.tl.hycnn_ot(adata, "ctrl", "IFN-beta"), "control"),
        (lambda adata: sh.tl.hycnn_ot(adata, "Control", "IFN-beta", groupby="condition"), "control"),
        (lambda adata: sh.tl.hycnn_ot(adata, "control", ["ifnb"], groupby="condition"), "IFN-beta"),
        (lambda adata: sh.tl.hycnn_ot(adata, "control", "IFN-beta", groupby="Conditions"), "condition"),
        (lambda adata: sh.tl.hycnn_ot(adata, "control", "IFN-beta", use_rep="PCA"), "X_pca"),
        (lambda adata: sh.get.model(adata, target="ifn"), "IFN-beta"),
        (lambda adata: sh.pl.transport(adata, basis="umpa"), "X_umap"),
        (lambda adata: sh.pl.transport(adata, color="GENE3"), "gene3"),
        (lambda adata: sh.pl.transport(adata, color="conditon"), "condition"),
    ],
)
def test_a_message_ends_with_the_name_that_was_probably_meant(cells, call, meant):
    cells.var_names = [f"gene{k}" for k in range(cells.n_vars)]
    cells.obsm["X_umap"] = cells.obsm["X_pca"][:, :2].copy()
    sh.tl.hycnn_ot(cells, "control", "IFN-beta", potential="gaussian")
    with pytest.raises(ValueError, match=rf"{meant!r}\?$"):
        call(cells)
