"""pl.report: one file that needs nothing else, shows what is stored, and names what is missing."""

from __future__ import annotations

import json
import re

import anndata
import numpy as np
import pandas as pd
import pytest

import scot_hycnn as sh

HOSTILE = '<script>alert(1)</script> & "quotes" \'</textarea>@SCRIPT@'


@pytest.fixture
def page(tmp_path):
    """Write a report and return it as text."""

    def write(adata, **options):
        path = sh.pl.report(adata, tmp_path / "report.html", **options)
        assert sorted(each.name for each in tmp_path.iterdir()) == ["report.html"]
        return path.read_text(encoding="utf-8")

    return write


def content(text):
    return json.loads(re.search(r'<script type="application/json" id="content">(.*?)</script>', text, re.DOTALL)[1])


def test_one_file_without_network(adata, page):
    text = page(adata, groupby="cell_type")
    assert not re.search(r"https?:|//\w|\bsrc=|@import|url\(|<link(?! rel=\"icon\" href=\"data:,\")", text)
    assert re.search(r"Content-Security-Policy\" content=\"default-src 'none'", text)
    assert len(text.encode()) < 3_000_000
    assert page(adata, groupby="cell_type") == text
    assert "@" not in re.sub(r"@media", "", text.split("<body>")[0])


def test_what_the_page_shows(adata, page):
    found = content(page(adata, groupby="cell_type", n_genes=7))
    (target,) = found["targets"]
    assert found["title"] == "control → IFN-beta"
    assert target["cells"]["n"] == target["cells"]["shown"] == [200, 200]
    assert [plane["axes"] for plane in target["cells"]["planes"]] == [["UMAP1", "UMAP2"], ["PC1", "PC2"]]
    lengths = np.linalg.norm(adata.obsm["X_hycnn_ot"] - adata.obsm["X_pca"][:, :5], axis=1)[:200]
    assert target["cells"]["displacement"] == pytest.approx(lengths, rel=1e-3)
    by_type = pd.Series(lengths).groupby(adata.obs["cell_type"].to_numpy()[:200]).median().sort_values()
    assert [group["label"] for group in target["groups"]] == by_type.index[::-1].tolist()
    assert [group["quantiles"][2] for group in target["groups"]] == pytest.approx(by_type[::-1], rel=1e-3)
    assert len(target["genes"]["rows"]) == 7
    assert target["history"]["step"][-1] == 20
    assert {row[0] for row in target["certificate"]} >= {"convexity gap", "monotonicity"}
    assert dict(found["parameters"])["hidden"] == "8, 8"
    assert dict(found["versions"])["this page"] == sh.__version__
    assert target["scores"]["groups"] == ["all", "B cells", "T cells"]


def test_held_out_cells_are_shown_if_the_fit_has_a_split(adata, page):
    test = np.arange(400) % 4 == 0
    adata.obs["split"] = pd.Categorical(np.where(test, "test", "train"))
    adata.uns["hycnn_ot"]["params"]["split_key"] = "split"
    (target,) = content(page(adata, groupby="cell_type"))["targets"]
    assert target["which"] == "held-out cells: 50 control, 50 IFN-beta"
    assert target["cells"]["n"] == [50, 50]
    lengths = np.linalg.norm(adata.obsm["X_hycnn_ot"] - adata.obsm["X_pca"][:, :5], axis=1)[:200][test[:200]]
    assert target["cells"]["displacement"] == pytest.approx(lengths, rel=1e-3)
    assert target["median"] == pytest.approx(np.median(lengths), rel=1e-3)
    assert sum(group["n"][0] for group in target["groups"]) == 50
    genes = {row[0]: row for row in target["genes"]["rows"]}
    name = next(iter(genes))
    values = adata[:, name].X.toarray().ravel()
    assert genes[name][1] == pytest.approx(values[:200][test[:200]].mean(), rel=1e-3)
    assert genes[name][2] == pytest.approx(values[200:][test[200:]].mean() - genes[name][1], rel=1e-2, abs=1e-4)


def test_the_planted_response_is_seen_in_the_types_that_have_it(adata, page):
    (target,) = content(page(adata, groupby="cell_type"))["targets"]
    responding = {group["label"] for group in target["groups"] if group["responds"]}
    assert "CD14+ Monocyte" in responding
    assert responding <= {"CD14+ Monocyte", "CD56+ NK", "Dendritic"}


def test_predicted_cells_between_islands_are_left_out(adata, page):
    control = (adata.obs["condition"] == "control").to_numpy()
    adata.obsm["X_umap"] = np.random.default_rng(0).normal(size=(400, 2)) + np.where(control, 0, 50)[:, None]
    sh.tl.project(adata)
    adata.obsm["X_umap_hycnn_ot"][control] = adata.obsm["X_umap"][~control]
    adata.obsm["X_umap_hycnn_ot"][:30] = 25.0
    plane = content(page(adata))["targets"][0]["cells"]["planes"][0]
    predicted = np.array(plane["predicted"]).reshape(-1, 2)
    assert (predicted[:30] < 0).all()
    assert (predicted[30:] >= 0).all()
    assert " 30." in plane["note"]


def test_groups_are_those_that_were_evaluated(adata, page):
    """Of two columns of labels, the second one has the groups of the scores."""
    adata.obs.insert(0, "other", pd.Categorical(np.resize(["a", "b", "c"], 400)))
    kinds = np.where(adata.obs["cell_type"].astype(str).str.contains("B"), "B cells", "T cells")
    adata.obs["kind"] = pd.Categorical(kinds)
    assert content(page(adata))["group"] == "kind"
    del adata.uns["hycnn_ot_evaluation"]
    assert content(page(adata))["group"] == "other"


def test_genes_without_a_layer_are_those_of_decode(adata, page):
    del adata.layers["hycnn_ot"]
    linear = content(page(adata))["targets"][0]["genes"]["rows"]
    sh.tl.decode(adata)
    decoded = content(page(adata))["targets"][0]["genes"]["rows"]
    assert [row[0] for row in linear] == [row[0] for row in decoded]
    np.testing.assert_allclose([row[1:] for row in linear], [row[1:] for row in decoded], rtol=2e-3, atol=1e-4)
    adata.varm.pop("PCs")
    del adata.layers["hycnn_ot"]
    assert "no way from 'X_pca' to genes" in content(page(adata))["targets"][0]["genes"]


def test_the_certificate_is_explained_and_judged(adata, page):
    text = page(adata)
    rows = {row[0]: row for row in content(text)["targets"][0]["certificate"]}
    assert rows["monotonicity"][3] is True
    assert "chose the blend" in re.search(r'<section id="certificate".*?</section>', text, re.DOTALL)[0]
    (certificate,) = adata.uns["hycnn_ot"]["certificate"].values()
    certificate["monotonicity"] = np.nan  # all cells are the same
    rows = {row[0]: row for row in content(page(adata))["targets"][0]["certificate"]}
    assert (rows["monotonicity"][1], rows["monotonicity"][3]) == (None, None)
    assert rows["convexity gap"][3] is True


def test_labels_are_text(adata, page):
    adata.obs["cell_type"] = adata.obs["cell_type"].astype(str).replace("CD14+ Monocyte", HOSTILE)
    text = page(adata, groupby="cell_type", title=HOSTILE)
    assert "alert(1)</script>" not in text
    assert HOSTILE in content(text)["targets"][0]["cells"]["group"]["labels"]
    assert content(text)["title"] == HOSTILE
    assert text.count("<script") == 2
    assert "<title>&lt;script&gt;alert(1)&lt;/script&gt;" in text


def test_a_sample_of_the_cells_is_drawn(adata, page):
    cells = content(page(adata, max_cells=50))["targets"][0]["cells"]
    assert cells["n"] == [200, 200]
    assert cells["shown"] == [25, 25]
    assert len(cells["displacement"]) == 25
    assert all(len(plane[kind]) == 50 for plane in cells["planes"] for kind in ("source", "predicted", "observed"))


def test_many_cells_stay_below_three_megabytes(page):
    rng = np.random.default_rng(0)
    n, labels = 40_000, ["control", *(f"drug {i}" for i in range(39))]
    obs = pd.DataFrame({"condition": pd.Categorical(np.repeat(labels, 1000))}, index=[f"c{i}" for i in range(n)])
    obs["kind"] = pd.Categorical(rng.choice(["a", "b", "c"], n))
    adata = anndata.AnnData(obs=obs, obsm={"X_pca": rng.normal(size=(n, 3)).astype(np.float32)})
    sh.tl.hycnn_ot(adata, "control", labels[1:], potential="gaussian")
    found = page(adata)
    assert len(found.encode()) < 3_000_000
    assert len(content(found)["targets"]) == 39


def test_several_targets_have_an_index(adata, page):
    assert content(page(adata))["index"] is None
    screen = sh.datasets.screen_planted(12, 60)
    sh.tl.hycnn_screen(screen, "control", groupby="condition", n_pcs=5, potential="gaussian")
    table = sh.get.summary(screen, "hycnn_screen")
    found = content(page(screen, key="hycnn_screen"))
    columns, rows = [name for name, _ in found["index"]["columns"]], found["index"]["rows"]
    assert [row[0] for row in rows] == [target["label"] for target in found["targets"]] == table["condition"].tolist()
    assert [row[columns.index("verdict")] for row in rows] == table["verdict"].tolist()
    values = [row[columns.index("no change")] for row in rows]
    assert values == pytest.approx(table["no_change"].tolist(), rel=1e-3)
    by_type = sh.get.summary(screen, "hycnn_screen", groupby="cell_type").query("group == 'all'")
    rows = content(page(screen, key="hycnn_screen", groupby="cell_type"))["index"]["rows"]
    assert [row[columns.index("verdict")] for row in rows] == by_type["verdict"].tolist()
    some = table["condition"].tolist()[:2]
    assert [row[0] for row in content(page(screen, key="hycnn_screen", target=some))["index"]["rows"]] == some


def test_the_page_names_what_is_missing(adata, page):
    del adata.uns["hycnn_ot_evaluation"], adata.obsm["X_hycnn_ot"], adata.obsm["X_umap"]
    (target,) = content(page(adata, groupby="cell_type"))["targets"]
    assert "sh.tl.transport(adata, 'hycnn_ot')" in target["missing"]
    assert "cells" not in target
    assert target["scores"] is None
    run = "Run sh.tl.evaluate(adata, groupby='cell_type') or scot-hycnn evaluate --groupby cell_type."
    assert target["verdict"]["sentences"][0].endswith(run)
    assert target["verdict"]["level"] == "open"


@pytest.mark.parametrize(
    ("outcome", "status", "is_shown"),
    [
        ("networks", "ok", False),
        ("gaussian kept", "The Gaussian map was kept.", False),
        ("gaussian kept: few steps", "The Gaussian map was kept.", False),
        ("recovered", "The Gaussian map was kept, and the fit met 3 non-finite gradients.", True),
        (None, "The Gaussian map was kept.", True),  # fits of earlier versions have no outcome
    ],
)
def test_what_went_wrong_in_the_fit_is_shown(adata, page, outcome, status, is_shown):
    """The verdict explains that the Gaussian map was kept; a second sentence could contradict it."""
    fit = adata.uns["hycnn_ot"]
    fit["status"] = {"IFN-beta": status}
    fit["outcome"] = {"IFN-beta": outcome}
    if outcome is None:
        del fit["outcome"]
    assert content(page(adata))["targets"][0]["status"] == (status if is_shown else "")


def test_groups_are_found(adata, page):
    assert content(page(adata))["group"] == "cell_type"
    adata.obs["batch"] = pd.Categorical(np.tile(["one", "two"], 200))
    adata.obs = adata.obs[["condition", "batch", "cell_type"]]
    assert content(page(adata))["group"] == "batch"
    adata.uns["hycnn_ot"]["params"]["group_key"] = "cell_type"
    assert content(page(adata))["group"] == "cell_type"


def test_several_targets_and_a_choice_of_them(adata, page):
    labels = adata.obs["condition"].astype(str)
    labels.iloc[300:] = "a/b"
    adata.obs["condition"] = labels
    sh.tl.hycnn_ot(adata, "control", ["IFN-beta", "a/b"], potential="gaussian", n_pcs=4, key_added="two")
    found = content(page(adata, key="two"))
    assert [target["label"] for target in found["targets"]] == ["IFN-beta", "a/b"]
    assert found["title"] == "control → 2 conditions"
    assert found["targets"][1]["history"] is None
    assert "sh.tl.evaluate(adata, 'two', groupby='cell_type')" in found["evaluate"]
    assert [target["label"] for target in content(page(adata, key="two", target="a/b"))["targets"]] == ["a/b"]
    assert len(content(page(adata, key="two", target=["a/b", "IFN-beta"]))["targets"]) == 2


def test_wrong_options(adata, tmp_path, unchanged):
    adata.obs["unique"] = pd.Categorical([f"cell {i}" for i in range(adata.n_obs)])
    for options, message in (
        ({"key": "nix"}, "'nix'"),
        ({"target": "nix"}, "target='nix'"),
        ({"target": []}, "these are 0: "),
        ({"basis": "nix"}, "basis='nix'"),
        ({"groupby": "nix"}, "groupby='nix'"),
        ({"groupby": "unique"}, "'unique' has 400 "),
        ({"n_genes": 0}, "n_genes=0"),
        ({"max_cells": 1}, "max_cells=1"),
        ({"layer": "nix"}, "layer='nix'"),
    ):
        with unchanged(adata), pytest.raises(ValueError, match=re.escape(message)):
            sh.pl.report(adata, tmp_path / "report.html", **options)
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [("report.pdf", ValueError, r"\.html"), ("nix/report.html", FileNotFoundError, "nix")],
)
def test_wrong_paths(adata, tmp_path, path, error, message):
    with pytest.raises(error, match=message):
        sh.pl.report(adata, tmp_path / path)


def test_the_page_opens_with_the_same_composition(adata, page):
    """Groups are scored by default, and an uncorrected fit that kept the Gaussian map stands once."""
    sh.tl.hycnn_ot(
        adata, "control", "IFN-beta", n_pcs=3, potential="gaussian", group_key="cell_type", key_added="closed"
    )
    sh.tl.evaluate(adata, "closed", n_bootstrap=2, correction=None)
    (target,) = content(page(adata, key="closed"))["targets"]
    assert target["scores"]["headline"] == "all, same composition"
    assert {"all", "all, same composition", "CD19+ B"} <= set(target["scores"]["groups"])
    methods = {row[1] for row in target["scores"]["rows"]}
    assert "gaussian" not in methods
    assert methods & set(content(page(adata, key="closed"))["methods"]) == methods - {"replicate", "ceiling"}
    assert "kept_group" in {row[2] for row in target["scores"]["rows"]}
    assert target["verdict"]["details"]
