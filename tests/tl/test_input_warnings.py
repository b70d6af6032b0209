"""tl.hycnn_ot warns, before it begins, of representations on raw scales or of neighbours, and of no others."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from warnings import catch_warnings, simplefilter

import anndata
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from anndata import AnnData
from anndata.experimental import read_lazy
from scipy import sparse

import scot_hycnn as sh

LABELS = ("control", "treated")
DATA = os.environ.get("SCOT_HYCNN_DATA")


def labelled(values, **names):
    """Cells in file order of their condition, the first half control."""
    n_cells = values.shape[0]
    obs = pd.DataFrame({"condition": np.repeat(LABELS, [n_cells // 2, n_cells - n_cells // 2])})
    obs.index = [f"cell{i}" for i in range(len(obs))]
    return AnnData(values, obs=obs, **names)


@pytest.fixture(scope="module")
def counts():
    """300 cells of 60 genes of very different abundance."""
    rng = np.random.default_rng(0)
    program = np.exp(rng.normal(size=(300, 4)) @ rng.normal(size=(4, 60)) / 2)
    mean = np.exp(rng.normal(-1, 1.8, 60)) * program * rng.gamma(4, 1 / 4, (300, 1))
    return labelled(sparse.csr_matrix(rng.poisson(mean).astype(np.float32)))


def log_normalised(counts, *, log=True):
    adata = counts.copy()
    sc.pp.normalize_total(adata, target_sum=1e4)
    if log:
        sc.pp.log1p(adata)
    return adata


def with_pca(adata, **options):
    adata = adata.copy()
    sc.pp.pca(adata, n_comps=10, **options)
    return adata


def with_embedding(counts, name, params=None):
    adata = with_pca(log_normalised(counts))
    adata.obsm[name] = adata.obsm["X_pca"][:, :2]
    if params is not None:
        adata.uns[name] = {"params": params}
    return adata


def features(widths, n_cells=400, d=85, seed=0):
    """Correlated features of a microscope, in different units."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n_cells, 6)) @ rng.normal(size=(6, d)) + rng.normal(size=(n_cells, d))
    adata = labelled((values + 3) * np.concatenate([widths, np.ones(d - len(widths))]))
    adata.var_names = [f"area {i}" if i < len(widths) else f"texture {i}" for i in range(d)]
    return adata


def of_layer(counts):
    adata = log_normalised(counts)
    adata.layers["umis"] = counts.X.copy()
    return with_pca(adata, layer="umis")


def in_table(adata):
    adata = adata.copy()
    adata.obsm["morphology"] = pd.DataFrame(adata.X, index=adata.obs_names, columns=list(adata.var_names))
    return adata


def of_another_program(counts):
    """Components without loadings, the first far wider than the others: of intensities, say."""
    adata = with_pca(features([400, 0.2, 0.2]))
    del adata.varm["PCs"]
    return adata


# The AnnData, the representation, and words of the warning.
WRONG = {
    "counts": (lambda c: c, "X", r"adata\.X looks like counts.*log1p"),
    "no logarithm": (lambda c: log_normalised(c, log=False), "X", "looks like counts, or counts divided by a cell's"),
    "components of counts": (with_pca, None, r"'X_pca'\] are principal components of adata\.X, which looks like cou"),
    "components of a layer": (of_layer, None, r"components of adata\.layers\['umis'\], which looks like counts"),
    "components, no logarithm": (lambda c: with_pca(log_normalised(c, log=False)), None, "which looks like counts"),
    "three of 85": (lambda _: features([900, 700, 500]), "X", r"of the 85 .* hold .*'area 0'.*sc\.pp\.scale"),
    "one of two": (lambda _: features([300], d=2), "X", r"1 of the 2 varying .* holds .*'area 0'"),
    "their components": (lambda _: with_pca(features([900, 700, 500])), None, r"behind .*'X_pca'\] hold .*'area 0'"),
    "a table": (lambda _: in_table(features([900, 700, 500])), "morphology", r"'morphology'\] hold .*'area 0'"),
    "components alone": (of_another_program, None, r"1 of the 10 .* holds .*'PC1'"),
    "umap": (lambda c: with_embedding(c, "X_umap"), "X_umap", r"embedding of neighbours.*sh\.tl\.project"),
    "graph": (lambda c: with_embedding(c, "X_draw_graph_fa"), "X_draw_graph_fa", "embedding of neighbours"),
    "umap by uns": (lambda c: with_embedding(c, "seen", {"a": 0.6, "b": 1.3}), "seen", "embedding of neighbours"),
    "tsne by uns": (lambda c: with_embedding(c, "seen", {"perplexity": 30}), "seen", "embedding of neighbours"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_raw_scale_is_warned_of_once_before_any_work(counts, unchanged, case):
    make, use_rep, words = WRONG[case]
    adata = make(counts)
    with pytest.warns(UserWarning, match=words) as caught:
        sh.tl.hycnn_ot(adata.copy(), *LABELS, use_rep=use_rep, potential="gaussian")
    assert len(caught) == 1
    assert caught[0].filename == __file__
    with unchanged(adata), catch_warnings():
        simplefilter("error", UserWarning)
        with pytest.raises(UserWarning, match=words):
            sh.tl.hycnn_ot(adata, *LABELS, use_rep=use_rep, max_steps=10**9)


def counts_in_x(counts):
    """Components of log-normalised values, and counts put into X afterwards, as many files have them."""
    adata = with_pca(log_normalised(counts))
    adata.X = counts.X.copy()
    return adata


def scaled(counts):
    adata = log_normalised(counts)
    adata.X = adata.X.toarray()
    sc.pp.scale(adata, max_value=10)
    return adata


def wide(counts):
    """Two dimensions, one five times as wide."""
    rng = np.random.default_rng(0)
    return labelled(rng.normal(size=(200, 2)) * [5, 1])


def far_cell(counts):
    """One cell of an artefact, on one feature of 20."""
    adata = labelled(np.random.default_rng(0).normal(size=(200, 20)))
    adata.X[7, 3] = 1e4
    return adata


def response(counts):
    """A response a hundred times as long as cells differ, on one feature of 20."""
    adata = labelled(np.random.default_rng(0).normal(size=(200, 20)))
    adata.X[100:, 3] += 100
    return adata


def yes_or_no(counts):
    return labelled(np.random.default_rng(0).integers(2, size=(200, 9)).astype(np.float32))


def pair(counts):
    cells = sh.datasets.gaussian_pair(5, 150, rng=1)
    return labelled(np.concatenate([cells.x, cells.y]))


def narrow_responses(counts):
    """Components of which one is much wider, of many genes."""
    rng = np.random.default_rng(0)
    program = rng.normal(size=(200, 1)) * 5 @ rng.normal(size=(1, 100))
    return with_pca(labelled(program + 0.1 * rng.normal(size=(200, 100))))


SOUND = {
    "logarithms": (log_normalised, "X", {}),
    "components of logarithms": (lambda c: with_pca(log_normalised(c)), None, {}),
    "the first two components": (lambda c: with_pca(log_normalised(c)), None, {"n_pcs": 2}),
    "counts put into X later": (counts_in_x, None, {}),
    "scaled genes": (scaled, "X", {}),
    "85 features scaled": (lambda _: features([]), "X", {}),
    "one wide program of many genes": (narrow_responses, None, {}),
    "two dimensions": (wide, "X", {}),
    "a far cell": (far_cell, "X", {}),
    "a response": (response, "X", {}),
    "yes or no": (yes_or_no, "X", {}),
    "gaussian_pair": (pair, "X", {}),
}


@pytest.mark.parametrize("case", SOUND)
def test_a_sound_scale_is_not_warned_of(counts, case):
    make, use_rep, options = SOUND[case]
    sh.tl.hycnn_ot(make(counts), *LABELS, use_rep=use_rep, potential="gaussian", **options)  # a warning is an error


def test_the_data_set_of_the_examples_is_not_warned_of():
    adata = sh.datasets.pbmc_planted(n_cells=600)[:, :150].copy()
    for use_rep in ("X_pca", "X"):
        sh.tl.hycnn_ot(adata, "control", "IFN-beta", use_rep=use_rep, key_added=f"fit {use_rep}", potential="gaussian")


REAL = {
    "kang_ifnb": ("control", "IFN-beta"),
    "bodenmiller_cytof": ("unstimulated", ["BCR/FcR-XL", "vanadate"]),
    "adnet_egf": None,
}


@pytest.mark.real_data
@pytest.mark.skipif(DATA is None, reason="SCOT_HYCNN_DATA does not name the folder of the real data")
@pytest.mark.parametrize("name", REAL)
def test_real_data_as_scanpy_prepares_them_are_not_warned_of(name):
    adata = anndata.read_h5ad(Path(DATA) / f"{name}.h5ad")
    adata = adata[np.random.default_rng(0).permutation(adata.n_obs)[:4000]].copy()
    labels = REAL[name] or adata.obs["condition"].value_counts().index[:2].astype(str)
    if name == "kang_ifnb":
        with pytest.warns(UserWarning, match="components of adata.X, which looks like counts"):
            sh.tl.hycnn_ot(with_pca(adata), *labels, groupby="condition", potential="gaussian")
        adata = log_normalised(adata)
    else:
        sh.tl.hycnn_ot(adata.copy(), *labels, groupby="condition", use_rep="X", potential="gaussian")
    if name == "bodenmiller_cytof":
        intensities = AnnData(np.sinh(adata.X) * 5, obs=adata.obs[["condition"]], var=adata.var)
        with pytest.warns(UserWarning, match=r"of the \d+ varying columns of adata.X hold"):
            sh.tl.hycnn_ot(intensities, *labels, groupby="condition", use_rep="X", potential="gaussian")
    sh.tl.hycnn_ot(with_pca(adata), *labels, groupby="condition", potential="gaussian")


def test_the_sample_is_random():
    """The first thousand cells of each condition are of another kind than the rest."""
    adata = features([], n_cells=6000, d=10)
    rows = np.arange(6000) % 3000 >= 1000
    adata.X[np.ix_(rows, [4])] *= 1000
    with pytest.warns(UserWarning, match=r"1 of the 10 .*'texture 4'"):
        sh.tl.hycnn_ot(adata, *LABELS, use_rep="X", potential="gaussian")


def test_cells_outside_the_mask_do_not_count():
    """Without a mask these cells are on raw scales."""
    adata = features([], d=10)
    seen = np.arange(adata.n_obs) % 3 > 0
    adata.X[~seen, 4] *= 10_000
    with pytest.warns(UserWarning, match=r"1 of the 10 .*'texture 4'"):
        sh.tl.hycnn_ot(adata.copy(), *LABELS, use_rep="X", potential="gaussian")
    sh.tl.hycnn_ot(adata, *LABELS, use_rep="X", mask_obs=seen, potential="gaussian")


def backed(adata, path):
    adata.write_h5ad(path / "cells.h5ad")
    return anndata.read_h5ad(path / "cells.h5ad", backed="r")


def lazy(adata, path):
    adata.write_h5ad(path / "cells.h5ad")
    return read_lazy(path / "cells.h5ad")


@pytest.mark.parametrize("kind", [backed, lazy])
def test_cells_in_files(counts, tmp_path, kind):
    other = tmp_path / "other"
    other.mkdir()
    options = {"groupby": "condition", "potential": "gaussian", "predict": False}
    sh.tl.hycnn_ot(kind(with_pca(log_normalised(counts)), tmp_path), *LABELS, **options)
    with pytest.warns(UserWarning, match=r"components of adata\.X"):
        sh.tl.hycnn_ot(kind(with_pca(counts), other), *LABELS, **options)


def test_expression_that_can_only_be_read_whole_is_not_read(counts, tmp_path):
    """A file of genes, each with all its cells: components of it are taken as they are."""
    adata = with_pca(counts)
    adata.X = adata.X.tocsc()
    sh.tl.hycnn_ot(backed(adata, tmp_path), *LABELS, groupby="condition", potential="gaussian", predict=False)


def test_components_without_expression(counts, tmp_path):
    adata = with_pca(log_normalised(counts))
    adata.X = None
    for form in (adata, backed(adata, tmp_path)):
        sh.tl.hycnn_ot(form, *LABELS, groupby="condition", potential="gaussian", predict=False)


def test_few_rows_of_expression_are_read():
    """Of 20,000 cells in a file, those of X that are read are few."""
    read = []

    def block(values):
        read.append(len(values))
        return values

    adata = features([], n_cells=20_000, d=12)
    adata = with_pca(adata)
    whole = da.from_array(np.round(np.abs(adata.X)), chunks=(1, -1))
    adata.X = whole.map_blocks(block, dtype=whole.dtype, meta=np.empty((0, 0)))
    sh.tl.hycnn_ot(adata, *LABELS, groupby="condition", potential="gaussian", predict=False)
    assert 0 < sum(read) <= 100


# ---- proportions of groups


def two_proportions(first, second, n=400, seed=0, **columns):
    """Cells of two conditions whose labels have these shares, drawn at random."""
    rng = np.random.default_rng(seed)
    labels = [rng.choice(list(shares), size=n, p=list(shares.values())) for shares in (first, second)]
    obs = pd.DataFrame({"condition": np.repeat(LABELS, n), "type": np.concatenate(labels)}).assign(**columns)
    obs.index = [f"cell{i}" for i in range(2 * n)]
    return AnnData(obs=obs, obsm={"X_pca": rng.normal(size=(2 * n, 3)).astype(np.float32)})


def log_of(adata, capsys, **options):
    before, sc.settings.logfile = sc.settings.logfile, sys.stderr
    try:
        sh.tl.hycnn_ot(adata, *LABELS, potential="gaussian", groupby="condition", **options)
    finally:
        sc.settings.logfile = before
    return [line for line in capsys.readouterr().err.splitlines() if "proportions of" in line]


HALF, THIRD = {"a": 0.5, "b": 0.3, "c": 0.2}, {"a": 0.3, "b": 0.5, "c": 0.2}


def test_proportions_that_differ_are_logged_in_one_line(capsys):
    (line,) = log_of(two_proportions(HALF, THIRD), capsys)
    assert line.startswith("WARNING")
    assert "group_key='type'" in line
    shares = {name: [int(share) for share in found] for name, *found in re.findall(r"'(\w)' (\d+)% → (\d+)%", line)}
    assert shares["a"] == pytest.approx([50, 30], abs=6)
    assert shares["b"] == pytest.approx([30, 50], abs=6)


@pytest.mark.parametrize(
    "case", ["group_key", "same shares", "small difference", "few cells", "batch", "hundreds", "numbers", "the split"]
)
def test_nothing_is_said(capsys, case):
    adata, options = two_proportions(HALF, THIRD), {}
    rng = np.random.default_rng(1)
    if case == "group_key":
        options["group_key"] = "type"
    elif case == "same shares":
        adata = two_proportions(HALF, HALF)
    elif case == "small difference":  # beyond chance, and of no consequence
        adata = two_proportions({"a": 0.5, "b": 0.5}, {"a": 0.53, "b": 0.47}, n=20_000)
    elif case == "few cells":  # large, and not beyond chance
        adata = two_proportions({"a": 0.5, "b": 0.5}, {"a": 0.6, "b": 0.4}, n=30)
    elif case == "batch":  # one or two for each condition
        adata.obs["type"] = adata.obs["condition"].astype(str) + rng.choice(["1", "2"], size=adata.n_obs)
    elif case == "hundreds":
        adata.obs["type"] = [f"clone{i}" for i in rng.integers(300, size=400)] + [f"clone{i}" for i in range(400)]
    elif case == "numbers":
        adata.obs["type"] = np.where(adata.obs["type"] == "a", 1, 2)
    elif case == "the split":
        adata.obs["type"] = np.where(adata.obs["type"] == "a", "train", "test")
        options["split_key"] = "type"
    assert log_of(adata, capsys, **options) == []


def test_types_are_named_rather_than_their_subtypes(capsys):
    adata = two_proportions(HALF, THIRD)
    subtype = np.random.default_rng(0).choice(["1", "2"], size=adata.n_obs)
    adata.obs["subtype"] = pd.Categorical(adata.obs["type"].astype(str) + subtype)
    (line,) = log_of(adata, capsys)
    assert "group_key='type'" in line
    assert "'subtype'" in line


def test_a_type_that_is_held_out_of_one_condition_is_seen(capsys):
    adata = two_proportions(HALF, HALF)
    held_out = (adata.obs["type"] == "c") & (adata.obs["condition"] == LABELS[1])
    adata.obs["split"] = np.where(held_out, "test", "train")
    assert "'c' " in log_of(adata, capsys, split_key="split")[0]


def test_one_of_several_targets(capsys):
    adata = two_proportions(HALF, HALF)
    other = two_proportions(THIRD, THIRD, seed=1)
    other.obs["condition"] = np.repeat(["other", "rest"], 400)
    both = anndata.concat([adata, other], index_unique="-")
    before, sc.settings.logfile = sc.settings.logfile, sys.stderr
    try:
        sh.tl.hycnn_ot(both, LABELS[0], [LABELS[1], "other"], potential="gaussian", groupby="condition")
    finally:
        sc.settings.logfile = before
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "proportions of" in line]
    assert "1 of 2 targets" in line
    assert "'other'" in line


def test_random_divisions_give_no_alarm(capsys):
    """Of 40 random divisions of one population, none is said to differ; 1 of 1,100 was where more were tried."""
    shares = {"a": 0.4, "b": 0.3, "c": 0.2, "d": 0.07, "e": 0.03}
    assert [seed for seed in range(40) if log_of(two_proportions(shares, shares, n=150, seed=seed), capsys)] == []
