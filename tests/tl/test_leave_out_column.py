"""leave_out= with a column of its own: new donors, whose cells are of types in proportions of their own."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import scot_hycnn as sh
from scot_hycnn.solver.data._groups import Baselines

# These cells have no loadings by which the space of a map is recognised.
pytestmark = pytest.mark.filterwarnings("ignore:There is no fingerprint")
N_DONORS, N_DIMS = 7, 4
TYPES = ("B", "T", "NK")
OPTIONS = {"group_key": "cell_type", "leave_out": "donor", "potential": "gaussian"}
RNG = np.random.default_rng(5)
BASELINES, PROFILES = 4 * RNG.normal(size=(N_DONORS, N_DIMS)), 3 * RNG.normal(size=(3, N_DIMS))
MOVES = 2 * RNG.normal(size=(3, N_DIMS))


def make_donors(seed=0, n=240):
    """Cells of donors with a baseline and proportions of types of their own, whose types respond alike."""
    rng, parts, obs = np.random.default_rng(seed), [], []
    for donor in range(N_DONORS):
        for condition in ("control", "drug"):
            for k, n_cells in enumerate(rng.multinomial(n, rng.dirichlet([3, 3, 3])) + 12):
                cells = rng.normal(size=(n_cells, N_DIMS)) + BASELINES[donor] + PROFILES[k]
                parts.append(cells + MOVES[k] * (condition == "drug"))
                obs += [(condition, f"donor, {donor}", TYPES[k])] * n_cells
    table = pd.DataFrame(obs, columns=["condition", "donor", "cell_type"], index=[str(i) for i in range(len(obs))])
    order = rng.permutation(len(obs))
    adata = AnnData(obs=table, obsm={"X_pca": np.concatenate(parts).astype(np.float32)})[order].copy()
    adata.obs["seen"] = (adata.obs["donor"] != "donor, 6").to_numpy()
    return adata


@pytest.fixture(scope="module")
def fitted():
    adata = make_donors()
    sh.tl.hycnn_ot(adata, "control", "drug", mask_obs="seen", inverse=True, **OPTIONS)
    return adata


def change_by_type(adata, slot="X_hycnn_ot"):
    """Return the predicted change of the mean of each type of the donor who was not seen, (3, d)."""
    new = (adata.obs["donor"] == "donor, 6") & (adata.obs["condition"] == "control")
    moved = adata.obsm[slot] - adata.obsm["X_pca"]
    return np.stack([moved[(new & (adata.obs["cell_type"] == name)).to_numpy()].mean(0) for name in TYPES])


def test_each_type_of_a_new_donor_moves_as_it_does_in_the_others(fitted):
    validation = fitted.uns["hycnn_ot"]["validation"]["drug"]
    assert validation["ladder_groups"].tolist() == [f"donor, {k}" for k in range(N_DONORS - 1)]
    assert validation["ladder_energy_distance"].shape[1] == N_DONORS - 1
    assert fitted.uns["hycnn_ot"]["params"]["leave_out"] == "donor"
    error = np.abs(change_by_type(fitted) - MOVES).mean()
    assert error < 0.5  # regression over groups shrinks; the moves have a mean size of 1.7
    # Of the donors alone, or types alone, the predicted changes are farther off: proportions and baselines differ.
    for other in ("donor", "cell_type"):
        options = {"mask_obs": "seen", "potential": "gaussian", "leave_out": "groups", "key_added": other}
        sh.tl.hycnn_ot(fitted, "control", "drug", group_key=other, **options)
        assert np.abs(change_by_type(fitted, f"X_{other}") - MOVES).mean() > 2 * error


def test_a_baseline_does_not_depend_on_the_proportions_of_types(fitted):
    baselines = sh.get.model(fitted).baselines
    apart = np.stack([baselines.units[f"donor, {k}"] for k in range(N_DONORS - 1)]) - BASELINES[:-1]
    assert np.abs(apart - apart.mean(0)).max() < 0.3
    assert list(baselines.kinds) == sorted(TYPES)


def test_baselines_are_those_of_least_squares():
    """Against a regression on indicators of units and kinds; one kind is missing in one unit."""
    rng = np.random.default_rng(0)
    parts = np.array([[u, k] for u in "abcd" for k in "xyz" if u + k != "cz"])
    centres, counts = rng.normal(size=(len(parts), 2)), rng.integers(5, 90, len(parts))
    design = (
        np.concatenate([parts[:, :1] == list("abcd"), parts[:, 1:] == list("xyz")], axis=1) * np.sqrt(counts)[:, None]
    )
    expected = np.linalg.lstsq(design, centres * np.sqrt(counts)[:, None], rcond=None)[0]
    found = Baselines.of(centres, counts, parts)
    fitted = [found.units[u] + found.kinds[k] for u, k in parts]
    assert np.allclose(fitted, (design / np.sqrt(counts)[:, None]) @ expected)
    of_c = parts[:, 0] == "c"
    assert np.allclose(found.of_unit(centres[of_c], counts[of_c], parts[of_c, 1]), found.units["c"])


def test_new_files_and_saved_maps_move_cells_as_the_fit_did(fitted, tmp_path):
    sh.get.model(fitted).save(tmp_path / "map.safetensors")
    fitted.write_h5ad(tmp_path / "fit.h5ad")
    new = fitted[((fitted.obs["donor"] == "donor, 6") & (fitted.obs["condition"] == "control")).to_numpy()].copy()
    few = fitted[np.flatnonzero((fitted.obs["condition"] == "control") & fitted.obs["seen"])[:9]].copy()
    for cells in (new, few):
        expected = cells.obsm["X_hycnn_ot"].copy()
        for path in ("map.safetensors", "fit.h5ad"):
            sh.tl.transport(cells, model=tmp_path / path, key_added=path[:3])
            np.testing.assert_allclose(cells.obsm[f"X_{path[:3]}"], expected, atol=1e-5)
    # A cell type that no donor of the fit has, and the way back.
    new.obs["cell_type"] = new.obs["cell_type"].astype(str).replace({"NK": "another"})
    sh.tl.transport(new, model=fitted, key_added="other")
    assert np.isfinite(new.obsm["X_other"]).all()
    back = fitted[((fitted.obs["condition"] == "drug") & fitted.obs["seen"]).to_numpy()].copy()
    back.obsm["X_pca"] = back.obsm["X_hycnn_ot_inverse"].astype(np.float32)
    sh.tl.transport(back, mask_obs=np.ones(back.n_obs, dtype=bool), key_added="forth")
    moved = fitted[back.obs_names].obsm["X_pca"]
    np.testing.assert_allclose(back.obsm["X_forth"], moved, atol=1e-3)


def test_a_column_that_is_missing_is_named(fitted, unchanged):
    with pytest.raises(ValueError, match=r"leave_out='donr'.*Did you mean 'donor'"):
        sh.tl.hycnn_ot(fitted.copy(), "control", "drug", **OPTIONS | {"leave_out": "donr"})
    others = fitted.copy()
    del others.obs["donor"]
    with unchanged(others), pytest.raises(ValueError, match=r"no column .donor.\. Add it"):
        sh.tl.transport(others, model=fitted, key_added="other")


def test_donors_that_are_either_treated_or_not_are_told_apart_from_nothing(unchanged):
    adata = make_donors(n=60)
    adata.obs["donor"] = adata.obs["donor"].astype(str) + adata.obs["condition"].astype(str)
    with unchanged(adata), pytest.raises(ValueError, match="cannot be told apart"):
        sh.tl.hycnn_ot(adata, "control", "drug", **OPTIONS)


def test_a_column_alone_leaves_out_its_values(fitted):
    one, other = (make_donors(n=60) for _ in range(2))
    sh.tl.hycnn_ot(one, "control", "drug", leave_out="donor", potential="gaussian")
    sh.tl.hycnn_ot(other, "control", "drug", group_key="donor", leave_out="groups", potential="gaussian")
    assert np.array_equal(one.obsm["X_hycnn_ot"], other.obsm["X_hycnn_ot"], equal_nan=True)


def test_without_a_response_a_new_donor_stays():
    adata = make_donors(3)
    treated = (adata.obs["condition"] == "drug").to_numpy()
    codes = np.array([TYPES.index(name) for name in adata.obs["cell_type"]])
    adata.obsm["X_pca"][treated] -= MOVES[codes[treated]].astype(np.float32)
    sh.tl.hycnn_ot(adata, "control", "drug", mask_obs="seen", **OPTIONS)
    assert np.abs(change_by_type(adata)).max() < 0.3


def test_networks_act_around_baselines():
    adata = make_donors(1, n=120)
    treated = (adata.obs["condition"] == "drug").to_numpy()
    donor = np.array([int(name[-1]) for name in adata.obs["donor"]])
    codes = np.array([TYPES.index(name) for name in adata.obs["cell_type"]])
    # x + 3 sign(x) around each baseline: nonlinear, and the same for all donors.
    cells = adata.obsm["X_pca"] - BASELINES[donor] - MOVES[codes] * treated[:, None]
    change = 3 * np.sign(cells - PROFILES.mean(0)) * treated[:, None]
    adata.obsm["X_pca"] = (BASELINES[donor] + cells + change).astype(np.float32)
    quick = {"max_steps": 100, "n_ensemble": 2, "hidden": (16, 16), "batch_size": 128}
    sh.tl.hycnn_ot(adata, "control", "drug", mask_obs="seen", **OPTIONS | {"potential": "hycnn"} | quick)
    validation = adata.uns["hycnn_ot"]["validation"]["drug"]
    assert validation["ladder"][-1] == "networks"
    assert len(validation["ladder_groups"]) == N_DONORS - 1
    is_new = donor == N_DONORS - 1
    for k in range(3):
        of_type = is_new & (codes == k)
        before, moved = (adata.obsm[slot][of_type & ~treated].astype(float) for slot in ("X_pca", "X_hycnn_ot"))
        observed = adata.obsm["X_pca"][of_type & treated].astype(float)
        still = sh.metrics.energy_distance(before, observed)
        assert sh.metrics.energy_distance(moved, observed) < 0.5 * still
    new = adata[is_new & ~treated].copy()
    sh.tl.transport(new, model=adata, key_added="again")
    np.testing.assert_allclose(new.obsm["X_again"], new.obsm["X_hycnn_ot"], atol=1e-4)
