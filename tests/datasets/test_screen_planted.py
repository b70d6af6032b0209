"""The planted screen: conditions whose responses share pathways, known cell by cell."""

from __future__ import annotations

import anndata
import numpy as np
import pytest

from scot_hycnn.datasets import screen_planted, screen_response


@pytest.fixture(scope="module")
def adata():
    return screen_planted(54, 25)


def rows(adata, condition):
    return (adata.obs["condition"] == condition).to_numpy()


def test_slots(adata):
    assert adata.n_obs == 25 * (54 + 4)
    assert adata.obs["condition"].value_counts().to_dict()["control"] == 100
    assert list(adata.obs["drug"].cat.categories) == ["control", *(f"drug {letter}" for letter in "ABCDEFGHI")]
    assert set(adata.obs["dose"]) == {0, 0.1, 1, 10}
    assert adata.obs.groupby("condition", observed=True)[["drug", "dose", "hours"]].nunique().to_numpy().max() == 1
    assert adata.obs_names.is_unique


def test_every_cell_is_moved_by_the_known_map(adata):
    for condition in adata.obs["condition"].cat.categories[1:]:
        of = adata[rows(adata, condition)]
        drug, dose, hours = of.obs[["drug", "dose", "hours"]].iloc[0]
        moved = screen_response(adata, drug, dose=dose, hours=hours)(of.obsm["X_untreated"])
        np.testing.assert_allclose(moved, of.obsm["X_pca"], atol=1e-4)


def test_the_map_is_the_gradient_of_a_convex_function(adata):
    response = screen_response(adata, "drug B", dose=10, hours=24)
    x = adata.obsm["X_untreated"].astype(float)
    a, b = x[:700], x[700:1400]
    slope = ((response(a) - response(b)) * (a - b)).sum(axis=1)
    assert (slope >= ((a - b) ** 2).sum(axis=1) - 1e-9).all()  # strongly convex: monotone with slope 1 or more
    # A gradient has a symmetric Jacobian.
    step, point = 1e-4, x[:1]
    jacobian = np.stack([(response(point + step * e) - response(point - step * e))[0] / (2 * step) for e in np.eye(30)])
    np.testing.assert_allclose(jacobian, jacobian.T, atol=1e-6)


def test_responses_grow_with_dose_and_time_and_some_drugs_do_nothing(adata):
    x = adata.obsm["X_untreated"]

    def length(drug, dose, hours):
        return np.linalg.norm(screen_response(adata, drug, dose=dose, hours=hours)(x) - x, axis=1).mean()

    assert 0 == length("drug A", 0, 24) < length("drug A", 1, 6) < length("drug A", 1, 24) < length("drug A", 10, 24)
    assert length("drug D", 10, 24) == length("drug H", 10, 24) == 0
    assert length("drug I", 1, 6) == length("drug A", 1, 6)  # the ninth drug has the pathways of the first


def test_the_seed_draws_the_cells_and_not_the_responses():
    first, same, other = (screen_planted(2, 20, rng=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.obsm["X_pca"], same.obsm["X_pca"])
    assert (first.obsm["X_pca"] != other.obsm["X_pca"]).any()
    np.testing.assert_array_equal(first.uns["planted"]["directions"], other.uns["planted"]["directions"])


def test_a_file_keeps_the_truth(tmp_path):
    adata = screen_planted(3, 20)
    adata.write_h5ad(tmp_path / "screen.h5ad")
    read, x = anndata.read_h5ad(tmp_path / "screen.h5ad"), adata.obsm["X_untreated"]
    responses = [screen_response(cells, "drug A", dose=2, hours=12)(x) for cells in (adata, read)]
    np.testing.assert_array_equal(*responses)


def test_wrong_arguments(adata):
    with pytest.raises(ValueError, match="n_cells=19"):
        screen_planted(3, 19)
    with pytest.raises(ValueError, match="n_conditions=0"):
        screen_planted(0)
    with pytest.raises(ValueError, match="drug Z"):
        screen_response(adata, "drug Z", dose=1, hours=6)
    with pytest.raises(ValueError, match="no planted screen"):
        screen_response(anndata.AnnData(np.ones((2, 2))), "drug A", dose=1, hours=6)
