"""Warnings point at the line of the user, from wherever within the package they come."""

from __future__ import annotations

import warnings

import matplotlib.pyplot as plt
import numpy as np
import pytest

import scot_hycnn as sh

LABELS = ("control", "IFN-beta")


@pytest.fixture
def fitted(cells):
    """Cells of which every slot is written, so that everything below replaces something, and an unusable palette."""
    cells.obs["type"] = np.where(np.arange(cells.n_obs) % 2, "a", "b")
    cells.uns["type_colors"] = ["no colour"]
    cells.obsm["X_umap"] = cells.obsm["X_pca"][:, :2].copy()
    sh.pp.split(cells)
    # Components that were made from all cells.
    cells.uns["pca"]["params"] = {}
    sh.tl.hycnn_ot(cells, *LABELS, potential="gaussian")
    sh.tl.decode(cells)
    sh.tl.project(cells, "umap")
    sh.tl.evaluate(cells, n_bootstrap=0)
    return cells


CALLS = {
    "pp.split": lambda adata, _: sh.pp.split(adata),
    "pp.pca": lambda adata, _: sh.pp.pca(adata, 3),
    "tl.hycnn_ot": lambda adata, _: sh.tl.hycnn_ot(adata, *LABELS, potential="gaussian"),
    "tl.hycnn_ot, copy": lambda adata, _: sh.tl.hycnn_ot(adata, *LABELS, potential="gaussian", copy=True),
    "tl.hycnn_ot, leak": lambda adata, _: (
        sh.tl.hycnn_ot(adata, *LABELS, potential="gaussian", split_key="split", key_added="leaky")
        if adata.uns["pca"].update(params={}) is None
        else None
    ),
    "tl.hycnn_ot, UMAP": lambda adata, _: sh.tl.hycnn_ot(
        adata, *LABELS, potential="gaussian", use_rep="X_umap", key_added="in_umap"
    ),
    "tl.transport": lambda adata, _: sh.tl.transport(adata),
    "tl.decode": lambda adata, _: sh.tl.decode(adata),
    "tl.project": lambda adata, _: sh.tl.project(adata, "umap"),
    "tl.evaluate": lambda adata, _: sh.tl.evaluate(adata, n_bootstrap=0),
    "pl.displacement": lambda adata, _: sh.pl.displacement(adata, groupby="type", show=False),
    "pl.embedding": lambda adata, _: sh.pl.embedding(adata, color="type", show=False),
    "pl.transport": lambda adata, _: sh.pl.transport(adata, color="type", show=False),
    "pl.report": lambda adata, folder: sh.pl.report(adata, folder / "page.html", groupby="type"),
}


def test_the_line_is_in_this_file(fitted, tmp_path):
    for name, call in CALLS.items():
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            call(fitted.copy(), tmp_path)
        plt.close("all")
        assert {warning.filename for warning in caught if "scot_hycnn" in warning.filename} == set(), name
        assert __file__ in {warning.filename for warning in caught}, name
