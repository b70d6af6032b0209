"""data/pbmc_planted.h5ad is the file that its checksum, its script and its README speak of."""

from __future__ import annotations

import hashlib
from pathlib import Path

import anndata as ad
import numpy as np
import pytest

from scot_hycnn.datasets import pbmc_planted

DATA = Path(__file__).parents[2] / "data"
COMMITTED = DATA / "pbmc_planted.h5ad"


@pytest.fixture(scope="module")
def committed():
    return ad.read_h5ad(COMMITTED)


@pytest.fixture(scope="module")
def regenerated(committed):
    return pbmc_planted(committed.n_obs)


def test_checksum_and_size():
    checksum, name = (DATA / "SHA256SUMS").read_text(encoding="utf-8").split()
    assert name == COMMITTED.name
    assert hashlib.sha256(COMMITTED.read_bytes()).hexdigest() == checksum
    assert COMMITTED.stat().st_size < 3e6


def test_readme_states_the_shape(committed):
    assert f"{committed.n_obs} cells x {committed.n_vars} genes" in (DATA / "README.md").read_text(encoding="utf-8")


def test_annotation_is_regenerated(committed, regenerated):
    assert committed.obs.astype(str).equals(regenerated.obs.astype(str))
    assert list(committed.var_names) == list(regenerated.var_names)


@pytest.mark.parametrize("key", ["X_pca", "X_planted"])
def test_coordinates_are_regenerated(key, committed, regenerated):
    np.testing.assert_allclose(committed.obsm[key], regenerated.obsm[key], atol=1e-3)


def test_basis_and_response_are_regenerated(committed, regenerated):
    np.testing.assert_allclose(committed.varm["PCs"], regenerated.varm["PCs"], atol=1e-4)
    for key, value in regenerated.uns["planted"].items():
        np.testing.assert_allclose(committed.uns["planted"][key], value, atol=1e-4)


def test_expression_is_regenerated(committed, regenerated):
    """Rounding to 1/64 and the detection limit let another machine's last digit flip a few entries."""
    difference = np.abs((committed.X - regenerated.X).toarray())
    assert (difference > 0).mean() < 1e-4
