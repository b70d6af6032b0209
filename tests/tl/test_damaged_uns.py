"""Entries of uns may have been edited by hand, or damaged: a reader then works, or raises one ValueError."""

from __future__ import annotations

import random
import warnings
from contextlib import redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path

import anndata
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import scot_hycnn as sh
from scot_hycnn.cli._commands import info

SLOTS = ("hycnn_ot", "hycnn_ot_evaluation", "umap_hycnn_ot", "umap_hycnn_ot_IFN-beta", "pca")
NEW = {"key_added": "new"}
N_DAMAGED = 25

# Values that no entry expects; some are what another entry holds.
STRANGE = [
    *(None, True, False, -1, 0, 1, 3, 10**9, 10**30, 2.5, -0.5, 1e-320, 1e308, float("nan"), float("inf"), 1 + 2j),
    *("", " ", "x", "1", "a/b", "IFN-beta", "X", "X_hycnn_ot", "max", "relu", "HyCNN", "ICNN", "MLP", b"bytes"),
    *([], [1], [[1], [2, 3]], ["a", None], (1, 2), {}, {"a": {}}, {1: 2}, {"IFN-beta": {}}, {None: None}, object()),
    *(np.int64(10**9), np.float32("nan"), np.bool_(True), np.str_("text"), np.array("text"), np.array(5)),
    *(np.array([]), np.array([None, "a"], object), np.array([{}, []], object), np.array(["a", "b"])),
    *(np.array([10**9, 10**9]), np.full(3, 2**62), np.ones(100_000, int), np.zeros((2, 2)), np.zeros((0, 3))),
    *(np.full(3, np.nan), np.array([1 + 1j]), np.array(["2020-01-01"], "datetime64[D]"), np.zeros(3, "i4,f8")),
    *(pd.DataFrame({"a": [1]}), pd.Series([1.0]), sparse.csr_matrix(np.eye(3)), np.broadcast_to(0.5, (10**12, 3))),
]  # fmt: skip
NAMES = ["", "a/b", "source", "inverse", "theta", 3, None, ("a", 1), b"key", 1.5, "β", "x" * 1000]


def copied(value):
    """Dicts anew; nothing changes an array in place."""
    return {key: copied(inner) for key, inner in value.items()} if isinstance(value, dict) else value


def damaged(uns, draw):
    """One to three entries, anywhere, are not what they were."""
    uns = copied(uns)
    for _ in range(draw.choice([1, 1, 1, 2, 3])):
        path = [draw.choice(["hycnn_ot"] * 9 + [slot for slot in SLOTS if slot in uns])]
        if draw.random() < 0.5:  # any entry, most of which are deep inside
            path = draw.choice([*_paths(uns.get(path[0]), path), path])
        else:
            while isinstance(inner := _at(uns, path), dict) and inner and (len(path) == 1 or draw.random() < 0.8):
                path.append(draw.choice(list(inner)))
        if isinstance(_at(uns, path[:-1]), dict) and path[-1] in _at(uns, path[:-1]):
            draw.choice(MUTATIONS)(_at(uns, path[:-1]), path[-1], draw)
    return uns


def _paths(value, path):
    for key, inner in value.items() if isinstance(value, dict) else ():
        yield [*path, key]
        yield from _paths(inner, [*path, key])


def _at(uns, path):
    for key in path:
        uns = uns.get(key) if isinstance(uns, dict) else None
    return uns


def removed(inner, key, _):
    del inner[key]


def renamed(inner, key, draw):
    value = inner.pop(key)
    inner[draw.choice([*NAMES, *(f"{key}x", f" {key}", str(key).upper())])] = value


def added(inner, _, draw):
    inner[draw.choice(NAMES)] = draw.choice(STRANGE)


def replaced(inner, key, draw):
    inner[key] = draw.choice(STRANGE)


def swapped(inner, key, draw):
    other = draw.choice(list(inner))
    inner[key], inner[other] = inner[other], inner[key]


def distorted(inner, key, draw):
    """A value of the same kind, but of another type, shape or size."""
    value = inner[key]
    if isinstance(value, dict):
        inner[key] = draw.choice([dict(list(value.items())[:-1]), list(value.items()), {key: value}, str(value)])
    elif isinstance(value, str):
        inner[key] = draw.choice([value.encode(), value + " ", value.upper(), np.array([value]), "x" * 10**5, [value]])
    else:
        array = np.asarray(value) if not isinstance(value, (list, tuple)) else np.array([str(value)])
        array = array if array.size < 10**6 else np.ones(3)  # one that says so only
        kinds = [object, str, complex, bool, np.float16, np.int64]
        number = draw.choice([np.nan, np.inf, 0, -1, 1e38, 1e-38, 1e300])
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            inner[key] = draw.choice(
                [
                    lambda: array.astype(draw.choice(kinds)) if array.dtype.kind in "biuf" else array,
                    lambda: array[None],
                    lambda: array.T[: len(array) // 2] if array.ndim else array[None, None],
                    lambda: array.ravel()[:0],
                    lambda: np.full(array.shape, number),
                    lambda: np.where(np.arange(array.size).reshape(array.shape) == 0, number, 1.0),
                    lambda: np.repeat(array, 3),
                    array.tolist,
                    lambda: array[()] * 1e30 if array.dtype.kind == "f" else array,
                    lambda: -array[()] if array.dtype.kind in "if" else array,
                ]
            )()


MUTATIONS = [removed, renamed, added, replaced, replaced, replaced, swapped, distorted, distorted, distorted]


def check_map(adata, **target):
    fitted = sh.get.model(adata, **target)
    x = np.zeros((3, fitted.n_dims), np.float32)
    assert np.isfinite(fitted.transport(x)).all()
    assert np.isfinite(fitted.inverse(x)).all()


def check_moved(adata, **target):
    sh.tl.transport(adata, **NEW, **target)
    moved = [table for name, table in adata.obsm.items() if name.startswith("X_new")]
    assert moved
    for table in moved:
        finite = np.isfinite(table).all(axis=1)
        assert finite.any()
        assert np.isnan(table[~finite]).all()


def drawn(plot):
    def check(adata, **target):
        try:
            plot(adata, show=False, **target)
        finally:
            plt.close("all")

    return check


# Function to how often it is called: those that cost more, less often.
READERS = {
    "tl.transport": (check_moved, 0.7),
    "tl.transport back": (lambda adata, **target: sh.tl.transport(adata, direction="inverse", **NEW, **target), 0.1),
    "tl.decode": (lambda adata, **target: sh.tl.decode(adata, **NEW, **target), 0.2),
    "tl.project": (lambda adata, **target: sh.tl.project(adata, key_added="place", **target), 0.1),
    "tl.project again": (sh.tl.project, 0.1),
    "tl.evaluate": (lambda adata, **target: sh.tl.evaluate(adata, n_bootstrap=0, **target), 0.05),
    "tl.hycnn_ot": (lambda adata, **_: sh.tl.hycnn_ot(adata, "control", "IFN-beta", potential="gaussian"), 0.02),
    "tl.hycnn_screen": (
        lambda adata, **_: sh.tl.hycnn_screen(adata, "control", groupby="condition", potential="gaussian"),
        0.02,
    ),
    "get.summary": (lambda adata, **_: sh.get.summary(adata), 0.1),
    "get.similarity": (lambda adata, **_: sh.get.similarity(adata), 0.1),
    "get.model": (check_map, 0.7),
    "get.history": (lambda adata, **target: sh.get.history(adata, **target).to_numpy(dtype=object), 0.7),
    "get.transported": (sh.get.transported, 0.15),
    "get.predicted": (sh.get.predicted, 0.1),
    "get.deg": (sh.get.deg, 0.1),
    "get.evaluation": (lambda adata, **_: sh.get.evaluation(adata), 0.7),
    "metrics.evaluate": (lambda adata, **target: sh.metrics.evaluate(adata, n_bootstrap=0, **target), 0.05),
    "cli.info": (lambda *_, **__: info(Path("cells.h5ad")), 0.7),
    "cli.info --json": (lambda *_, **__: info(Path("cells.h5ad"), json=True), 0.7),
    "pl.history": (drawn(sh.pl.history), 0.05),
    "pl.evaluation": (drawn(sh.pl.evaluation), 0.02),
    "pl.embedding": (drawn(partial(sh.pl.embedding, basis="umap")), 0.03),
    "pl.mean_scatter": (drawn(sh.pl.mean_scatter), 0.02),
}


def test_all_readers_are_here():
    public = {f"{package.__name__[11:]}.{name}" for package in (sh.tl, sh.get) for name in package.__all__}
    assert public <= set(READERS)


def fit(adata, kind, fast):
    rng = np.random.default_rng(1)
    adata.obs["cell_type"] = rng.choice(["B", "T"], adata.n_obs)
    adata.obsm["X_umap"] = adata.obsm["X_pca"][:, :2].copy()
    targets, options = "IFN-beta", {}
    if kind == "several targets":
        labels = adata.obs["condition"].astype(object)
        labels.iloc[np.flatnonzero(labels.notna())[::3]] = "other"
        adata.obs["condition"], targets = labels.astype("category"), ["IFN-beta", "other"]
        options = {"potential": "gaussian"}
    if kind == "split and groups":
        sh.pp.split(adata, rng=3)
        options = {"split_key": "split", "group_key": "cell_type"}
    sh.tl.hycnn_ot(adata, "control", targets, **fast, **options)
    sh.tl.project(adata)
    sh.tl.evaluate(adata, n_bootstrap=0)


class Watched:
    """An AnnData whose slots can be compared and put back, without a copy of their values."""

    def __init__(self, adata):
        self.adata, self.before = adata, None

    def slots(self):
        """Return obs, and the values of other slots by their identity, in their order."""
        slots = {name: list(getattr(self.adata, name).items()) for name in ("obsm", "layers", "uns")}
        return self.adata.obs, {name: [(key, id(value)) for key, value in items] for name, items in slots.items()}

    def begin(self, uns):
        """Replace uns."""
        self.adata.uns.clear()
        self.adata.uns.update(copied(uns))
        kept = {name: dict(getattr(self.adata, name)) for name in ("obsm", "layers")}
        self.before = self.slots(), kept

    def is_unchanged(self):
        (obs, slots), _ = self.before
        now_obs, now = self.slots()
        return now_obs is obs and now == slots

    def end(self):
        (obs, _), kept = self.before
        self.adata.obs = obs
        for name, items in kept.items():
            mapping = getattr(self.adata, name)
            for key in [key for key in mapping if key is not None]:
                del mapping[key]
            mapping.update({key: value for key, value in items.items() if key is not None})


@pytest.fixture(params=["several targets", "split and groups", "file"])
def kind(request):
    return request.param


@pytest.fixture
def spoilable(kind, new_cells, fast, tmp_path, monkeypatch):
    adata = new_cells(60)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        fit(adata, kind, fast)
    if kind == "file":
        adata.write_h5ad(tmp_path / "fit.h5ad")
        adata = anndata.read_h5ad(tmp_path / "fit.h5ad")
    monkeypatch.setattr("scot_hycnn._anndata._files.read_uns", lambda _: adata)
    return adata


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("n_damaged", [N_DAMAGED, pytest.param(100 * N_DAMAGED, marks=pytest.mark.slow)])
def test_damage_gives_an_error_and_no_change_or_finite_numbers(spoilable, kind, n_damaged):
    draw, watched, uns = random.Random(f"{kind} {n_damaged}"), Watched(spoilable), dict(spoilable.uns)
    targets = [{}, {"target": "IFN-beta"}] if kind == "several targets" else [{}]
    counts = {"worked": 0, "refused": 0}
    for _ in range(n_damaged):
        spoilt = damaged(uns, draw)
        for name, (call, share) in READERS.items():
            if draw.random() > share:
                continue
            watched.begin(spoilt)
            outcome = "worked"
            try:
                with redirect_stdout(StringIO()):
                    call(spoilable, **draw.choice(targets))
            except ValueError:  # any other error fails the test
                outcome = "refused"
            assert outcome == "worked" or watched.is_unchanged(), name
            counts[outcome] += 1
            watched.end()
    assert min(counts.values()) > n_damaged, counts


def test_entries_that_nobody_reads_do_no_harm_and_reports_hold_no_dicts(new_cells, fast):
    adata = new_cells(60)
    fit(adata, "several targets", fast)
    adata.uns["hycnn_ot"]["notes"] = ["seen by me"]
    sh.tl.transport(adata, target="IFN-beta", key_added="again")
    for name in ("validation", "certificate"):
        slug = next(iter(adata.uns["hycnn_ot"][name]))
        spoilt = adata.copy()
        spoilt.uns["hycnn_ot"][name][slug]["blend"] = {}
        with pytest.raises(ValueError, match="'blend'"):
            sh.get.history(spoilt)


@pytest.mark.parametrize(
    ("path", "value", "what"),
    [
        (("rep", "n_dims"), 0, "n_dims"),
        (("models", "IFN-beta"), {1: 2.0}, "key 1"),
        (("history", "IFN-beta"), {"step": np.arange(3), "J": np.arange(4.0)}, "history"),
        (("history", "IFN-beta"), {"step": np.array(["a", "b"])}, "history"),
        (("history", "IFN-beta"), {"step": np.arange(3), "J_minus_gaussian": np.zeros(3)}, "J_error"),
        (("certificate", "IFN-beta"), "none", "certificate"),
        (("training_cells",), np.arange(3.0), "training_cells"),
        (("models", "IFN-beta"), 3, "models"),
    ],
)
def test_an_error_names_the_damaged_entry(new_cells, unchanged, path, value, what):
    adata = new_cells(60)
    sh.tl.hycnn_ot(adata, "control", "IFN-beta", max_steps=2, hidden=(8, 8), n_ensemble=2)
    entry = adata.uns["hycnn_ot"]
    for key in path[:-1]:
        entry = entry[key]
    entry[path[-1]] = value
    with unchanged(adata), pytest.raises(ValueError, match=what):
        sh.tl.transport(adata)
