"""AnnDatas as people have them: every public function gives the result for the plain one, or one sentence.

Each case spoils a plain AnnData, before or after the fit, and every function runs on it. The result must be that of the
plain AnnData, or a ValueError or TypeError that names what is wrong. Any other error, and any warning, ends the test.
"""

from __future__ import annotations

import json
import re
import warnings
from itertools import cycle
from typing import Any

import anndata
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.colors import to_hex, to_rgb
from matplotlib.text import Text

import scot_hycnn as sh

N, N_GENES = 120, 8
# The two conditions and the two groups, by names that stand nowhere else in a text.
WORDS = ("c0", "c1", "g0", "g1")
REPORT = re.compile(r'<script type="application/json" id="content">(.*?)</script>', re.DOTALL)


def plain() -> AnnData:
    """Two conditions of two groups each, training and test cells of all four."""
    rng = np.random.default_rng(0)
    condition, group = rng.permutation(np.repeat([[0, 0], [0, 1], [1, 0], [1, 1]], N // 4, axis=0)).T
    obs = pd.DataFrame(index=[f"cell{i}" for i in range(N)])
    obs["condition"] = pd.Categorical.from_codes(condition, WORDS[:2])
    obs["group"] = pd.Categorical.from_codes(group, WORDS[2:])
    train = np.zeros(N, dtype=bool)
    for both in range(4):
        train[rng.permutation(np.flatnonzero(2 * condition + group == both))[:18]] = True
    obs["split"] = pd.Categorical(np.where(train, "train", "test"), categories=["train", "test"])
    obs["mask"] = True
    values = rng.gamma(2, size=(N, 3)) @ rng.normal(size=(3, N_GENES)) + 2 * condition[:, None] + group[:, None] + 9
    values += rng.normal(scale=0.1, size=values.shape)
    adata = AnnData(values.astype(np.float32), obs=obs, var=pd.DataFrame(index=[f"gene{i}" for i in range(N_GENES)]))
    adata.var["highly_variable"] = np.arange(N_GENES) > 0
    sh.pp.pca(adata, 3, mask_var=np.ones(N_GENES, dtype=bool))
    del adata.uns["pca"]  # made of all cells, of which a fit on some warns
    adata.obsm["X_umap"] = np.tanh(adata.obsm["X_pca"][:, :2])
    return adata


def fit(adata: AnnData, source: Any = "c0", target: Any = "c1") -> None:
    options = {"groupby": "condition", "group_key": "group", "split_key": "split", "mask_obs": "mask"}
    sh.tl.hycnn_ot(adata, source, target, potential="gaussian", **options)


# ---- every public function, and its result in numbers and words


def drawn(figure: Any) -> tuple[Any, list[str]]:
    """Numbers and texts of a figure."""
    figure.set_layout_engine("none")  # it takes half of the time, and moves what tests/pl looks at
    figure.draw_without_rendering()
    texts = [text.get_text() for text in figure.findobj(Text) if text.get_text()]
    axes = [ax for ax in figure.axes if ax.get_label() != "<colorbar>"]
    numbers = [np.ravel(artist.get_offsets()) for ax in axes for artist in ax.collections]
    numbers += [np.ravel(image.get_array()) for ax in axes for image in ax.images]
    numbers += [np.ravel(line.get_xydata()) for ax in axes for line in ax.lines]
    return np.concatenate([np.asarray(part, dtype=float) for part in numbers]), texts


def table(frame: pd.DataFrame) -> tuple[Any, list[str]]:
    numbers = frame.select_dtypes("number")
    return numbers.to_numpy(dtype=float), frame.drop(columns=numbers.columns).to_numpy(dtype=str).ravel().tolist()


def stacked(cells: AnnData) -> tuple[Any, list[str]]:
    return cells.X, [*cells.obs_names, *cells.obs["hycnn_ot_role"], *cells.obs["group"].astype(str)]


def written(adata: AnnData, slot: str, key: str, call: Any) -> tuple[Any, list[str]]:
    assert call() is None
    values = getattr(adata, slot)[key]
    return (np.zeros(0), values.astype(str).tolist()) if slot == "obs" else (np.asarray(values), [])


def reported(path: Any) -> tuple[Any, list[str]]:
    page = json.loads(REPORT.search(path.read_text(encoding="utf-8"))[1])
    (found,) = page["targets"]
    if "missing" in found:
        raise ValueError(found["missing"])  # a page of what there is, and this sentence
    numbers = [[*row["n"], *row["quantiles"]] for row in found["groups"]] + [found["cells"]["displacement"]]
    numbers += [[value for value in row if isinstance(value, (int, float))] for row in found["genes"]["rows"]]
    return np.concatenate(numbers), [page["title"], *found["cells"]["group"]["labels"]]


def steps(adata: AnnData, source: Any, target: Any, path: Any, dimension: str = "PC1") -> dict[str, Any]:
    """Every public function, in an order that they can be called in; one call each, but for pp.split."""
    groups, scored = {"groupby": "group"}, {"target": target, "split_key": "split", "n_bootstrap": 0}
    figure = {"return_fig": True, "target": target}
    strata, holdout = {"stratify": ["condition", "group"]}, {"groupby": "condition", "holdout": [target]}

    def fit_once() -> None:
        if "hycnn_ot" not in adata.uns:
            fit(adata, source, target)

    return {
        "pp.pca": lambda: written(adata, "obsm", "fresh", lambda: sh.pp.pca(adata, 3, key_added="fresh")),
        "pp.split": lambda: written(adata, "obs", "again", lambda: sh.pp.split(adata, key_added="again", **strata)),
        "pp.split of groups": lambda: written(
            adata, "obs", "held out", lambda: sh.pp.split(adata, key_added="held out", **holdout)
        ),
        "tl.hycnn_ot": lambda: written(adata, "obsm", "X_hycnn_ot", fit_once),
        "tl.hycnn_screen": lambda: written(
            adata,
            "obsm",
            "X_hycnn_screen",
            lambda: sh.tl.hycnn_screen(adata, source, target, groupby="condition", potential="gaussian"),
        ),
        "tl.transport": lambda: written(
            adata, "obsm", "X_moved", lambda: sh.tl.transport(adata, target=target, mask_obs="mask", key_added="moved")
        ),
        "tl.decode": lambda: written(adata, "layers", "hycnn_ot", lambda: sh.tl.decode(adata, target=target)),
        "tl.evaluate": lambda: (np.zeros(0), [str(sh.tl.evaluate(adata, **groups, **scored))]),
        "tl.project": lambda: written(
            adata, "obsm", "X_umap_hycnn_ot", lambda: sh.tl.project(adata, "umap", target=target)
        ),
        "get.evaluation": lambda: table(sh.get.evaluation(adata)),
        "get.history": lambda: table(sh.get.history(adata, target=target)),
        "get.model": lambda: (sh.get.model(adata, target=target).transport(np.ones((2, 3))), []),
        "get.transported": lambda: stacked(sh.get.transported(adata, target=target)),
        "get.predicted": lambda: stacked(sh.get.predicted(adata, target=target)),
        "get.deg": lambda: table(sh.get.deg(adata, target=target, **groups)),
        "get.summary": lambda: table(sh.get.summary(adata, "hycnn_ot")),
        "get.similarity": lambda: (sh.get.similarity(adata, "hycnn_ot")["distance"].to_numpy(), []),
        "pl.screen": lambda: drawn(sh.pl.screen(adata, "hycnn_ot", return_fig=True)),
        "pl.similarity": lambda: drawn(sh.pl.similarity(adata, "hycnn_ot", shown="all", return_fig=True)),
        "pl.transport": lambda: drawn(sh.pl.transport(adata, color="group", basis="umap", **figure)),
        "pl.embedding": lambda: drawn(sh.pl.embedding(adata, color="group", **figure)),
        "pl.history": lambda: drawn(sh.pl.history(adata, **figure)),
        "pl.marginals": lambda: drawn(sh.pl.marginals(adata, names=[dimension, str(adata.var_names[1])], **figure)),
        "pl.mean_scatter": lambda: drawn(sh.pl.mean_scatter(adata, n_labels=1, **groups, **figure)),
        "pl.displacement": lambda: drawn(sh.pl.displacement(adata, **groups, **figure)),
        "pl.deg": lambda: drawn(sh.pl.deg(adata, **groups, **figure)),
        "pl.growth": lambda: drawn(sh.pl.growth(adata, **groups, **figure)),
        "pl.evaluation": lambda: drawn(sh.pl.evaluation(adata, group=None, metrics="energy_distance", **figure)),
        "pl.report": lambda: reported(sh.pl.report(adata, path, **groups)),
    }


def outcomes(adata: AnnData, source: Any, target: Any, path: Any) -> dict[str, Any]:
    """Result of every function, or the error that it ended in."""
    found: dict[str, Any] = {}
    for name, call in steps(adata, source, target, path / "report.html").items():
        try:
            found[name] = call()
        except (ValueError, TypeError) as error:
            found[name] = error
        plt.close("all")
    return found


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    found = outcomes(plain(), "c0", "c1", tmp_path_factory.mktemp("plain"))
    assert [name for name, result in found.items() if isinstance(result, Exception)] == ["pl.history", "pl.growth"]
    public = {f"{package}.{name}" for package in ("pp", "tl", "get", "pl") for name in getattr(sh, package).__all__}
    assert {name.split()[0] for name in found} == public
    return found


@pytest.fixture
def check(expected, tmp_path):
    """Compare every function on a spoilt AnnData with the plain one."""

    def compare(adata, words=WORDS, asked=None, says=None):
        """``says``: functions, by how their names begin, to what their sentences say; all others are as if plain."""
        says = {"pl.history": "There is no history|no fits", "pl.growth": "no growth|no fits", **(says or {})}
        for name, result in outcomes(adata, *(words[:2] if asked is None else asked), tmp_path).items():
            start = next((start for start in says if name.startswith(start)), None)
            sentence = says.get(start)
            if start is not None and sentence is None:
                continue
            if sentence is None:
                assert not isinstance(result, Exception), f"{name}: {type(result).__name__}: {result}"
                numbers, texts = expected[name]
                np.testing.assert_allclose(result[0], numbers, rtol=1e-4, atol=1e-4, err_msg=name)
                if not (name in ("pl.transport", "pl.embedding") and is_number(adata.obs["group"])):  # a colour bar
                    for word, new in zip(WORDS, words, strict=True):
                        texts = [text.replace(word, new) for text in texts]
                    assert sorted(texts) == sorted(result[1]), name
            else:
                assert isinstance(result, Exception), f"{name} does not say {sentence!r}"
                assert re.search(sentence, str(result)), f"{name} says: {result}"
                assert len(str(result)) < 1500, name

    return compare


def is_number(values):
    return pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)


# ---- labels of any type


def column(codes, kind, words):
    """Labels as another type: words, or the numbers 0 and 1, or .1 and .2, or booleans."""
    if kind.startswith("category of "):
        return pd.Categorical(column(codes, kind.removeprefix("category of "), words))
    if kind == "ordered":
        return pd.Categorical.from_codes(codes, words, ordered=True)
    values = np.array(labels_of(kind, words), dtype=object)[codes]
    if kind.startswith("arrow "):
        pa = pytest.importorskip("pyarrow")
        of = {"string": pa.string(), "int": pa.int64(), "bool": pa.bool_(), "float": pa.float32()}[kind[6:]]
        return pd.array(pa.array(values).cast(of), dtype=pd.ArrowDtype(of))
    if kind == "with a hole":  # pandas turns whole numbers into floats where one is missing
        return values.astype(float)
    numbers = values.astype(kind.lower()) if "float" in kind.lower() else values
    return values if kind == "object" else pd.array(numbers, dtype=kind)


KINDS = ["object", "string", "ordered", "int64", "int8", "Int64", "bool", "boolean", "float64", "float32"]
KINDS += ["Float32", "with a hole", "category of int64", "category of bool", "category of float32"]
KINDS += ["category of Int64", "category of boolean", "arrow string", "arrow int", "arrow bool", "arrow float"]


def labels_of(kind, words):
    """The two labels as Python has them."""
    if "bool" in kind:
        return False, True
    if "hole" in kind:
        return 0, 1
    return (0.1, 0.2) if "float" in kind.lower() else (0, 1) if "int" in kind.lower() else words


@pytest.mark.parametrize("place", range(0, len(KINDS), 4))
def test_labels_of_any_type(place, check):
    """Some types as conditions, others as groups; labels are passed as they are, or as text of a shell."""
    kinds = KINDS[place], KINDS[(place + 11) % len(KINDS)]
    adata, pairs, printed = plain(), [], []
    for name, kind, words in zip(("condition", "group"), kinds, (WORDS[:2], WORDS[2:]), strict=True):
        adata.obs[name] = column(adata.obs[name].cat.codes.to_numpy().astype(int), kind, words)
        pairs.append(labels_of(kind, words))
        printed += map(str, (0.0, 1.0) if kind == "with a hole" else pairs[-1])
    adata.obs["split"] = adata.obs["split"].astype(["object", "string", "category"][place % 3])
    holes = [pd.array([True] * N, dtype="boolean"), pd.array([True] * N, dtype=object), pd.Categorical([True] * N)]
    adata.obs["mask"] = holes[place % 3]
    asked = [str(label) for label in pairs[0]] if place % 8 else pairs[0]
    refused = (
        ("pl.mean_scatter", "pl.displacement", "pl.deg", "pl.report")
        if pd.api.types.is_float_dtype(adata.obs["group"])
        else ()
    )
    check(adata, printed, asked, dict.fromkeys(refused, "groupby='group' holds numbers; .*astype"))


# ---- AnnDatas that are spoilt in other ways


def twice(adata, name):
    obs = adata.obs.assign(batch="a")
    adata.obs = pd.concat([obs, obs[[name]]], axis=1)


def forms_of_pandas(adata):
    """Tables of pandas' numbers, booleans with a hole, and a name of the index."""
    values = adata.obsm["X_pca"]
    names = ["PC1", "PC2", "PC3"]
    adata.obsm["X_pca"] = pd.DataFrame(values, index=adata.obs_names, columns=names).astype("Float32")
    umap = pd.DataFrame(adata.obsm["X_umap"], index=adata.obs_names, columns=["a", "b"])
    adata.obsm["X_umap"] = umap.astype({"a": "Float64", "b": "float32"})
    adata.var["highly_variable"] = adata.var["highly_variable"].astype("boolean").mask(adata.var_names == "gene0")
    adata.obs.index.name = "barcode"


def masked_tables(adata):
    for name in ("X_pca", "X_umap"):
        adata.obsm[name] = np.ma.masked_array(adata.obsm[name])
    adata.X = np.ma.masked_array(adata.X)
    adata.var["highly_variable"] = adata.var["highly_variable"].astype(object).where(adata.var_names != "gene0", np.nan)


def masked_cell(adata):
    """A cell whose coordinates are masked: numbers that are wrong lie beneath."""
    row = np.flatnonzero((adata.obs["condition"] == "c0") & (adata.obs["split"] == "train"))[0]
    values = np.ma.masked_array(adata.obsm["X_pca"])
    values[row, 1] = 1e6
    values[row, 1] = np.ma.masked
    adata.obsm["X_pca"] = values


def masked_expression(adata):
    values = np.ma.masked_array(adata.X)
    values[np.flatnonzero(adata.obs["condition"] == "c0")[3], 2] = np.ma.masked
    adata.X = values


def missing_integer(adata):
    values = pd.DataFrame(adata.obsm["X_pca"], index=adata.obs_names).round().astype("Int64")
    values.iloc[np.flatnonzero((adata.obs["condition"] == "c1") & (adata.obs["split"] == "train"))[0], 0] = pd.NA
    adata.obsm["X_pca"] = values


def words_for_genes(adata):
    adata.var["highly_variable"] = ["yes", "no"] * (N_GENES // 2)


def objects_as_values(adata):
    adata.X = adata.X.astype(object)


def renamed_genes(adata):
    adata.var_names = [f"ENSG{i}" for i in range(N_GENES)]


def lists_as_groups(adata):
    adata.obs["group"] = pd.Series([[label] for label in adata.obs["group"]], index=adata.obs_names, dtype=object)


def alike_in_print(adata):
    values = np.array([1, "1"], dtype=object)
    adata.obs["group"] = values[adata.obs["group"].cat.codes.to_numpy()]


# What functions say, by how their names begin; None is anything.
Says = dict[str, str | None]
NO_FIT: Says = dict.fromkeys(("tl", "metrics", "get", "pl"), "no fits?|no evaluation")
TWICE = {name: f"adata.obs has 2 columns called '{name}'" for name in ("condition", "group")}
STACKED: Says = dict.fromkeys(("get.transported", "get.predicted"), "adata.obs has several columns called .'batch'")
NOT_FINITE: Says = {"tl.hycnn_ot": "'X_pca' has NaN or infinite values in 1 of 36 cells"}
NOT_FINITE |= {"tl.hycnn_screen": "'X_pca' has NaN or infinite values in 1 of 60 cells"}
NO_SCORES: Says = dict.fromkeys(("get.evaluation", "pl.evaluation"), "no evaluation")
NO_GENES: Says = {"pp.pca": "NaN or infinity in 1 of 120 cells", "pl.report": "NaN, masked or infinite"}
NO_GENES |= dict.fromkeys(("tl.decode", "tl.evaluate", "metrics", "get.predicted"), "adata.X has NaN or infinite")
NO_GENES |= dict.fromkeys(("get.deg", "pl.deg", "pl.mean", "pl.marginals"), "NaN, masked or infinite|NaN or infinite")
RENAMED: Says = dict.fromkeys(("tl.transport", "tl.decode", "tl.evaluate", "tl.project", "metrics"), "were renamed")
RENAMED |= NO_SCORES | dict.fromkeys(
    ("get.summary", "get.similarity", "get.transported", "get.predicted", "get.deg", "pl"), "were renamed"
)
BY_GROUP = (
    "tl.decode",
    "get.summary",
    "get.similarity",
    "pl.screen",
    "pl.similarity",
    "pl.marginals",
    "get.deg",
    "tl.evaluate",
    "metrics",
    "pl.transport",
    "pl.embedding",
    "pl.mean",
    "pl.disp",
    "pl.deg",
    "pl.report",
)
NUMBERS_IN_X: Says = {"pp.pca": "adata.X holds values of dtype object; pca needs numbers"}
NUMBERS_IN_X |= dict.fromkeys(("tl.decode", "tl.evaluate", "metrics", "get.predicted"), "of dtype object")
NUMBERS_IN_X |= dict.fromkeys(("get.deg", "pl.deg", "pl.mean", "pl.marginals", "pl.report"), "of dtype object")

# How to spoil, whether after the fit, and what is said.
CASES: dict[str, tuple[Any, bool, Says]] = {
    "another column stands twice": (lambda adata: twice(adata, "batch"), False, STACKED),
    "the conditions stand twice": (
        lambda adata: twice(adata, "condition"),
        False,
        dict.fromkeys(("pp.split", "tl.hycnn_ot", "tl.hycnn_screen"), TWICE["condition"]) | NO_FIT,
    ),
    "the conditions stand twice after the fit": (
        lambda adata: twice(adata, "condition"),
        True,
        {"get.history": None, "get.model": None, "tl.hycnn_ot": None, "pp.pca": None, "tl.transport": None}
        | NO_SCORES
        | dict.fromkeys(("pp.split", "tl", "metrics", "get", "pl"), TWICE["condition"]),
    ),
    "the groups stand twice": (
        lambda adata: twice(adata, "group"),
        True,
        {"pp.split of groups": None, "pp.split": TWICE["group"], "pl.history": None}
        | dict.fromkeys(BY_GROUP, TWICE["group"])
        | NO_SCORES
        | dict.fromkeys(("get.transported", "get.predicted"), "adata.obs has (several|2) columns called .*'group'"),
    ),
    "forms of pandas": (forms_of_pandas, False, {}),
    "masked arrays, nothing masked": (masked_tables, False, {}),
    "a masked coordinate": (masked_cell, False, NOT_FINITE | NO_FIT),
    "a masked expression": (masked_expression, False, NO_GENES | NO_SCORES),
    "a missing integer": (missing_integer, False, NOT_FINITE | NO_FIT),
    "genes by words": (words_for_genes, False, {"pp.pca": "mask_var='highly_variable' is not"}),
    "expression of objects": (objects_as_values, False, NUMBERS_IN_X | NO_SCORES),
    "groups that are lists": (
        lists_as_groups,
        True,
        {"pp.split of groups": None, "pp.split": None, "get.transported": None, "get.predicted": None}
        | dict.fromkeys(BY_GROUP, "group.* holds values that are no labels .*list")
        | NO_SCORES,
    ),
    "groups that print alike": (
        alike_in_print,
        True,
        {"pp.split": None, "get": None, **NO_SCORES, **dict.fromkeys(BY_GROUP, "different labels that print alike")},
    ),
    "renamed genes": (renamed_genes, True, RENAMED),
}


@pytest.mark.parametrize("name", CASES)
def test_spoilt_anndatas(name, check):
    spoil, fitted, says = CASES[name]
    adata = plain()
    if fitted:
        fit(adata)
    spoil(adata)
    check(adata, says=says)


def test_expression_that_is_masked_after_the_fit():
    """Genes were decoded from whole values; a mean over masked ones would be none."""
    adata = plain()
    fit(adata)
    sh.tl.decode(adata)
    masked_expression(adata)
    for draw in (sh.pl.deg, sh.pl.mean_scatter):
        with pytest.raises(ValueError, match="NaN, masked or infinite values"):
            draw(adata, show=False)


def test_names_that_matplotlib_takes_for_mathematics(expected, tmp_path):
    """'$' begins mathematics, and '_' hides an entry of a legend: every figure shows the names as they are."""
    words = ("$\\frac{0$", "_c$1$^", "$g0$$", "_g1$_$")
    adata = plain()
    for name, labels in zip(("condition", "group"), (words[:2], words[2:]), strict=True):
        adata.obs[name] = adata.obs[name].cat.rename_categories(labels)
    adata.var_names = [f"$gene${i}^" for i in range(N_GENES)]
    del adata.varm["PCs"]  # or the names of the genes would be those of the components
    sh.pp.pca(adata, 3, mask_var=np.ones(N_GENES, dtype=bool), split_key="split", key_added="$PC$")
    adata.obs["$\\a$"] = adata.obs["group"]
    options = {"hidden": (4,), "max_steps": 4, "n_ensemble": 1, "groupby": "condition", "split_key": "split"}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "solver.fit", UserWarning)  # so short a fit may keep the Gaussian map
        sh.tl.hycnn_ot(adata, *words[:2], use_rep="$PC$", **options)
    shown = {}
    for name, call in steps(adata, *words[:2], tmp_path / "report.html", dimension="$PC$1").items():
        assert name in expected
        if name == "pl.growth":  # this fit has no weights of cells
            continue
        result = call()
        if name.startswith("pl.") and name != "pl.report":
            shown[name] = " ".join(result[1])
            named = [text for text in plt.gcf().findobj(Text) if any(word in text.get_text() for word in words)]
            assert named, name
            assert not any(text.get_parse_math() for text in named), name
        plt.close("all")
    assert "R²" in shown["pl.mean_scatter"]
    for name, word in {"pl.history": words[1], "pl.transport": words[3], "pl.displacement": words[3]}.items():
        assert word in shown[name].split(), name
    assert {"$PC$1", "$gene$1^"} <= set(shown["pl.marginals"].split())
    ax = sh.pl.transport(adata, color="$\\a$", show=False)
    texts = [ax.yaxis.label, ax.get_legend().get_title()]
    assert [text.get_text() for text in texts] == ["$PC$2", "$\\a$"]
    assert not any(text.get_parse_math() for text in texts)
    plt.close("all")


# ---- palettes


PALETTES = {
    "of R": ["grey50", "red"],
    "a dict": {"g0": "red", "g1": "blue"},
    "with NaN": ["red", np.nan],
}


@pytest.mark.parametrize("name", PALETTES)
def test_palettes_that_matplotlib_does_not_know(name, tmp_path, fitted):
    adata = fitted.copy()
    adata.uns["group_colors"] = PALETTES[name]
    calls = {
        "transport": lambda: sh.pl.transport(adata, color="group", show=False).get_legend().legend_handles[:2],
        "displacement": lambda: sh.pl.displacement(adata, groupby="group", show=False).patches,
        "report": lambda: sh.pl.report(adata, tmp_path / "report.html", groupby="group"),
    }
    for figure, call in calls.items():
        with pytest.warns(UserWarning, match=r"'group_colors'.* other colours") as record:
            drawn = call()
        assert [warning.filename for warning in record] == [__file__], figure
        if figure != "report":
            found = [bar.get_facecolor() if figure == "displacement" else bar.get_color() for bar in drawn]
            assert {to_hex(color) for color in found} == {"#0072b2", "#e69f00"}
        plt.close("all")


def test_colours_by_a_number_of_any_type(fitted):
    adata, values, found = fitted.copy(), np.arange(N, dtype=float), []
    values[np.flatnonzero(adata.obs["condition"] == "c0")[3]] = np.nan
    for kind in ("float64", "float32", "Float64", "Int64"):
        adata.obs["number"] = pd.array(values, dtype=kind)
        found.append(sh.pl.transport(adata, color="number", show=False).collections[1].get_facecolors())
        np.testing.assert_allclose(found[-1], found[0], atol=1e-6)
    is_grey = np.isclose(found[0][:, :3], to_rgb("#D9D9D9")).all(axis=1)
    assert is_grey.sum() == 1  # the cell without a number
    plt.close("all")


# ---- lists, arrays and names that do not fit


@pytest.fixture(scope="module")
def fitted():
    adata = plain()
    fit(adata)
    sh.tl.decode(adata)
    return adata


# Functions that take the name of a column of groups.
BY_COLUMN = {
    "tl.hycnn_ot": lambda adata, name: sh.tl.hycnn_ot(adata, "c0", "c1", group_key=name, groupby="condition"),
    "tl.evaluate": lambda adata, name: sh.tl.evaluate(adata, groupby=name),
    "metrics.evaluate": lambda adata, name: sh.metrics.evaluate(adata, groupby=name),
    "pl.transport": lambda adata, name: sh.pl.transport(adata, color=name, show=False),
    "pl.embedding": lambda adata, name: sh.pl.embedding(adata, color=name, show=False),
    "pl.mean_scatter": lambda adata, name: sh.pl.mean_scatter(adata, groupby=name, show=False),
    "pl.displacement": lambda adata, name: sh.pl.displacement(adata, groupby=name, show=False),
    "pl.deg": lambda adata, name: sh.pl.deg(adata, groupby=name, show=False),
    "pl.report": lambda adata, name: sh.pl.report(adata, "report.html", groupby=name),
}
# Functions that take the name of another column.
OF_ONE_COLUMN = BY_COLUMN | {
    "tl.hycnn_ot, conditions": lambda adata, name: sh.tl.hycnn_ot(adata, "c0", "c1", groupby=name),
    "tl.hycnn_ot, split": lambda adata, name: sh.tl.hycnn_ot(adata, "c0", "c1", split_key=name),
    "tl.evaluate, split": lambda adata, name: sh.tl.evaluate(adata, split_key=name),
    "pp.split": lambda adata, name: sh.pp.split(adata, groupby=name),
    "pp.pca, split": lambda adata, name: sh.pp.pca(adata, split_key=name),
}


def test_a_list_where_one_column_is_meant(unchanged, fitted):
    lists = cycle([["group"], ["group", "condition"], np.array(["group"]), pd.Index(["group"])])
    for call, some in zip(OF_ONE_COLUMN.values(), lists, strict=False):
        with unchanged(fitted), pytest.raises(TypeError, match=r"is of type \w+; it takes the name of one column"):
            call(fitted, some)


def test_targets_in_any_list():
    for kind in (list, tuple, np.array, pd.Index, pd.Series, pd.Categorical):
        adata = plain()
        sh.tl.hycnn_ot(adata, "c0", kind(["c1"]), potential="gaussian")
        assert adata.uns["hycnn_ot"]["targets"] == {"c1": "c1"}
        sh.pp.split(adata, groupby="condition", holdout=kind(["c1"]), key_added="held out")
        assert (adata.obs["held out"] == "test").sum() == N // 2


# ---- values


def test_components_where_only_held_out_cells_or_other_genes_vary(unchanged):
    adata = plain()
    train = (adata.obs["split"] == "train").to_numpy()
    adata.X[np.ix_(train, np.arange(N_GENES) > 0)] = 2  # gene0 is not highly variable
    with unchanged(adata), pytest.raises(ValueError, match="all 72 training cells are the same in the 7 genes"):
        sh.pp.pca(adata, 3, split_key="split")
    sh.pp.pca(adata, 3, key_added="all cells")


@pytest.mark.parametrize("kind", [object, "boolean"])
def test_booleans_with_holes_are_false_there(kind):
    adata = plain()
    holes = pd.Series([True, False, None] * (N // 3), index=adata.obs_names, dtype=object)
    adata.obs["some"] = holes.astype(kind)
    wanted = np.array([True, False, False] * (N // 3))
    del adata.obsm["X_pca"], adata.varm["PCs"], adata.var["pca_mean"]
    by_array = sh.pp.pca(adata, 3, mask_obs=wanted, copy=True).obsm["X_pca"]
    for mask in ("some", adata.obs["some"]):
        np.testing.assert_array_equal(sh.pp.pca(adata, 3, mask_obs=mask, copy=True).obsm["X_pca"], by_array)
    genes = pd.Series([True, True, None, True] * (N_GENES // 4), index=adata.var_names, dtype=object).astype(kind)
    by_array = sh.pp.pca(adata, 3, mask_var=np.array([True, True, False, True] * (N_GENES // 4)), copy=True)
    np.testing.assert_array_equal(sh.pp.pca(adata, 3, mask_var=genes, copy=True).varm["PCs"], by_array.varm["PCs"])


def masked(values):
    hidden = np.zeros(values.shape, dtype=bool)
    hidden[1, 0] = True
    return np.ma.masked_array(values, hidden)


def test_masked_arguments():
    """What a mask hides is no value: NumPy would take the number beneath it."""
    x, y = np.random.default_rng(0).normal(size=(2, 40, 3))
    for metric in (sh.metrics.energy_distance, sh.metrics.mmd, sh.metrics.r2_mean, sh.metrics.trace_ratio):
        with pytest.raises(ValueError, match="NaN or infinite values in 1 of 40 rows"):
            metric(masked(x), y)
        assert metric(np.ma.masked_array(x), y) == metric(x, y)
    moved = sh.solver.fit(x, y, potential="gaussian")
    calls = (
        lambda: sh.solver.fit(masked(x), y, potential="gaussian"),
        lambda: sh.solver.fit_many(x, [y, masked(y)], potential="gaussian"),
        lambda: moved.transport(masked(x)),
    )
    for call in calls:
        with pytest.raises(ValueError, match="NaN or infinite values in 1 of 40 rows"):
            call()
    with pytest.raises(ValueError, match="contains NaN"):
        sh.regression.ConvexRegressor().fit(masked(x), y[:, 0])
    mask = np.ma.masked_array(np.ones(N, dtype=bool), np.arange(N) < 30)
    options = {"key_added": "fresh", "copy": True}
    by_mask, by_array = (sh.pp.pca(plain(), 3, mask_obs=rows, **options) for rows in (mask, np.arange(N) >= 30))
    np.testing.assert_array_equal(by_mask.obsm["fresh"], by_array.obsm["fresh"])


# ---- groups with thousands of values


@pytest.fixture(scope="module")
def many():
    """2,400 cells in 2,400 groups."""
    adata = anndata.concat([plain()] * 20, index_unique="-")
    adata.varm["PCs"] = plain().varm["PCs"]
    sh.tl.hycnn_ot(adata, "c0", "c1", groupby="condition", potential="gaussian")
    sh.tl.decode(adata)
    adata.obs["many"] = pd.Categorical([f"group {i}" for i in range(adata.n_obs)])
    return adata


@pytest.mark.filterwarnings("ignore:All cells are evaluated:UserWarning")
def test_a_column_of_thousands_of_values_is_no_column_of_groups(many, unchanged):
    for call in BY_COLUMN.values():
        with unchanged(many), pytest.raises(ValueError, match=r"'many'.*2,400.*categories") as error:
            call(many, "many")
        assert len(str(error.value)) < 1000


@pytest.mark.filterwarnings("ignore:All cells are evaluated:UserWarning", "ignore:Left out:UserWarning")
def test_hundreds_of_groups_are_evaluated_and_not_drawn(many):
    """Every group has 5 cells, and is left out; the message names 20 of them."""
    adata = many.copy()
    adata.obs["many"] = pd.Categorical(np.arange(adata.n_obs) % 480)
    scores = sh.metrics.evaluate(adata, groupby="many", n_bootstrap=0)
    assert set(scores["group"]) == {"all"}
    with pytest.raises(ValueError, match="has 240 distinct values among the cells of the fit"):
        sh.pl.displacement(adata, groupby="many", show=False)
    rows = {name: np.resize(np.array(column), 300) for name, column in scores.to_dict("list").items()}
    names = {"group": np.array([f"group {i}" for i in range(300)]), "method": np.array(["identity"] * 300)}
    adata.uns["hycnn_ot_evaluation"] = rows | names
    metric = str(rows["metric"][0])
    with pytest.raises(ValueError, match=r"makes 300 entries, and a figure shows at most 200"):
        sh.pl.evaluation(adata, group=None, metrics=metric, show=False)


def test_more_genes_and_panels_than_a_figure_can_hold(many):
    adata = many.copy()
    with pytest.raises(ValueError, match="1,001 entries, and a figure shows at most 1,000"):
        sh.pl.deg(adata, names=["gene0"] * 1001, show=False)
    adata.obs["group"] = pd.Categorical(adata.obs.groupby("condition", observed=True).cumcount() % 120)
    with pytest.raises(ValueError, match="at most 100 panels, and these are 120"):
        sh.pl.mean_scatter(adata, groupby="group", show=False)
