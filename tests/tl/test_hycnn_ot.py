"""tl.hycnn_ot: what it writes, logs and warns of, and that the same call gives the same result."""

from __future__ import annotations

import inspect
import io
import re
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import anndata
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import torch

import scot_hycnn as sh
from scot_hycnn import solver

GAUSSIAN = {"potential": "gaussian"}
LABELS = ("control", "IFN-beta")
QUICK = {"max_steps": 20, "hidden": (8,), "n_ensemble": 1, "device": "cpu", "groupby": "condition"}


def fitted(adata, *labels, **options):
    sh.tl.hycnn_ot(adata, *(labels or LABELS), **(GAUSSIAN | options))
    return adata


def rows_of(adata, label):
    return (adata.obs["condition"] == label).to_numpy()


def with_second_target(adata, label="BCR/FcR-XL"):
    """Call half of the treated cells by another label."""
    labels = adata.obs["condition"].astype(object).fillna("none")
    labels.iloc[np.flatnonzero(labels == "IFN-beta")[::2]] = label
    adata.obs["condition"] = labels.astype("category")


@pytest.fixture
def log():
    """What scanpy's logger has written, at the level of results; settings are restored."""
    names = ("verbosity", "logfile", "n_jobs", "figdir", "autoshow")
    before = {name: getattr(sc.settings, name) for name in names}
    sc.settings.verbosity, sc.settings.logfile = "info", io.StringIO()
    yield sc.settings.logfile.getvalue
    for name, value in before.items():
        setattr(sc.settings, name, value)


# ---- slots


def test_slots_of_one_target(cells, fast):
    before = cells.copy()
    assert sh.tl.hycnn_ot(cells, *LABELS, inverse=True, **fast) is None
    is_source, is_target = (rows_of(cells, label) for label in LABELS)
    moved, back = cells.obsm["X_hycnn_ot"], cells.obsm["X_hycnn_ot_inverse"]
    assert moved.dtype == back.dtype == np.float32
    assert moved.shape == back.shape == cells.obsm["X_pca"].shape
    assert np.isnan(moved[~is_source]).all()
    assert np.isnan(back[~is_target]).all()

    # The slots hold what the stored map gives.
    transport_map, x = sh.get.model(cells), cells.obsm["X_pca"][is_source]
    expected, std = transport_map.transport(x, return_std=True)
    np.testing.assert_array_equal(moved[is_source], expected)
    np.testing.assert_array_equal(back[is_target], transport_map.inverse(cells.obsm["X_pca"][is_target]))
    score = transport_map.out_of_support(x)
    columns = {"displacement": np.linalg.norm(expected - x, axis=1), "std": std, "out_of_support": score}
    for name, values in columns.items():
        column = cells.obs[f"hycnn_ot_{name}"]
        assert column.dtype == np.float32
        np.testing.assert_allclose(column[is_source], values, rtol=1e-5)
        assert column[~is_source].isna().all()

    # Nothing else has changed.
    assert set(cells.obsm) - set(before.obsm) == {"X_hycnn_ot", "X_hycnn_ot_inverse"}
    np.testing.assert_array_equal(cells.X, before.X)
    np.testing.assert_array_equal(cells.obsm["X_pca"], before.obsm["X_pca"])
    pd.testing.assert_frame_equal(cells.obs[before.obs.columns], before.obs)


def test_contents_of_uns(cells, fast):
    sh.tl.hycnn_ot(cells, *LABELS, rng=3, **fast)
    uns = cells.uns["hycnn_ot"]
    assert (uns["schema_version"], uns["groupby"], uns["source"]) == (1, "condition", "control")
    assert uns["targets"] == {"IFN-beta": "IFN-beta"}
    assert (uns["rep"]["name"], uns["rep"]["n_dims"], len(uns["rep"]["fingerprint"])) == ("X_pca", 3, 64)
    assert uns["params"]["rng"] == 3
    assert uns["params"]["device"] in ("cpu", "cuda", "mps")
    for report in ("history", "validation", "certificate", "outcome", "status", "models"):
        assert list(uns[report]) == ["IFN-beta"]
    assert set(uns["versions"]) == {"scot_hycnn", "torch", "anndata", "scanpy", "numpy"}
    assert_plain(uns)


def assert_plain(value):
    """Only what h5ad and zarr can hold without a change of meaning."""
    if isinstance(value, dict):
        assert all(isinstance(key, str) and "/" not in key for key in value)
        for inner in value.values():
            assert_plain(inner)
    elif isinstance(value, np.ndarray):
        assert value.dtype.kind in "fiub"
    else:
        assert isinstance(value, (str, int, float, bool, np.generic))


def test_several_targets_have_slugs_and_the_maps_of_separate_fits(cells):
    with_second_target(cells)
    fitted(cells, "control", ["BCR/FcR-XL", "IFN-beta"], inverse=True)
    assert cells.uns["hycnn_ot"]["targets"] == {"BCR_FcR-XL": "BCR/FcR-XL", "IFN-beta": "IFN-beta"}
    for slug in ("BCR_FcR-XL", "IFN-beta"):
        assert {f"X_hycnn_ot_{slug}", f"X_hycnn_ot_inverse_{slug}"} <= set(cells.obsm)
        assert {f"hycnn_ot_displacement_{slug}", f"hycnn_ot_std_{slug}"} <= set(cells.obs)
    alone = fitted(cells.copy(), key_added="alone")
    np.testing.assert_allclose(alone.obsm["X_alone"], cells.obsm["X_hycnn_ot_IFN-beta"], rtol=1e-4, atol=1e-4)


def test_maps_without_moved_cells_move_them_later(cells):
    with_second_target(cells, "other")
    targets = ["IFN-beta", "other"]
    whole, before = fitted(cells.copy(), "control", targets), (set(cells.obs), set(cells.obsm))
    fitted(cells, "control", targets, predict=False)
    assert (set(cells.obs), set(cells.obsm)) == before
    with pytest.raises(ValueError, match=r"lacks 'X_hycnn_ot_other'.*sh.tl.transport"):
        sh.get.transported(cells, target="other")
    sh.tl.transport(cells, target="other")
    np.testing.assert_array_equal(cells.obsm["X_hycnn_ot_other"], whole.obsm["X_hycnn_ot_other"])
    assert "X_hycnn_ot_IFN-beta" not in cells.obsm


def test_other_rows_can_keep_their_coordinates(cells):
    fitted(cells, fill="identity", inverse=True)
    is_source = rows_of(cells, "control")
    np.testing.assert_array_equal(cells.obsm["X_hycnn_ot"][~is_source], cells.obsm["X_pca"][~is_source])
    assert not np.isclose(cells.obsm["X_hycnn_ot"][is_source], cells.obsm["X_pca"][is_source]).all(1).any()
    assert np.isfinite(cells.obsm["X_hycnn_ot_inverse"]).all()


def test_replacing_warns_and_leaves_nothing_of_the_old_fit(cells):
    with_second_target(cells, "IFN-gamma")
    fitted(cells, "control", ["IFN-beta", "IFN-gamma"], inverse=True)
    with pytest.warns(UserWarning, match=r"Replacing 'X_hycnn_ot_IFN-beta' \(adata.obsm\).*key_added") as caught:
        fitted(cells)
    assert caught[0].filename == __file__
    assert set(cells.obsm) == {"X_pca", "X_hycnn_ot"}
    columns = {f"hycnn_ot_{name}" for name in ("displacement", "std", "out_of_support")}
    assert set(cells.obs) == {"condition", "n_counts"} | columns
    fitted(cells, key_added="beside")
    assert {"X_hycnn_ot", "X_beside"} <= set(cells.obsm)
    assert {"hycnn_ot", "beside"} <= set(cells.uns)


@pytest.mark.filterwarnings("ignore:All cells are evaluated")
def test_a_new_fit_removes_genes_and_scores_of_the_old_one(cells):
    fitted(cells)
    sh.tl.decode(cells)
    sh.tl.evaluate(cells, n_bootstrap=0)
    with pytest.warns(UserWarning, match=r"'hycnn_ot' \(adata.layers\), .*'hycnn_ot_evaluation' \(adata.uns\)"):
        fitted(cells, n_pcs=2)
    assert "hycnn_ot" not in cells.layers
    assert "hycnn_ot_evaluation" not in cells.uns
    sh.tl.decode(cells)
    with pytest.warns(UserWarning, match=r"Replacing .*'hycnn_ot' \(adata.layers\)"):
        sh.tl.transport(cells)
    assert "hycnn_ot" not in cells.layers


def test_what_will_be_replaced_is_warned_of_before_any_work(cells, unchanged):
    fitted(cells)
    with unchanged(cells), warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        with pytest.raises(UserWarning, match=r"Replacing .*'hycnn_ot' \(adata.uns\)"):
            fitted(cells, potential="hycnn", max_steps=10**9)


def test_slots_of_the_user_are_refused_for_each_of_several_targets(cells, unchanged):
    with_second_target(cells)
    cells.obsm["X_hycnn_ot_IFN-beta"] = np.zeros((cells.n_obs, 3))
    with unchanged(cells), pytest.raises(ValueError, match="X_hycnn_ot_IFN-beta"):
        fitted(cells, "control", ["IFN-beta", "BCR/FcR-XL"], groupby="condition")


def test_copies_and_views_leave_the_original(cells, unchanged):
    view = cells[np.flatnonzero(cells.obs["condition"].notna())]
    with unchanged(cells):
        copied = sh.tl.hycnn_ot(cells, *LABELS, copy=True, **GAUSSIAN)
        fitted(view)
    assert "X_hycnn_ot" in copied.obsm
    assert not view.is_view
    assert view.obsm["X_hycnn_ot"].shape == (120, 3)


# ---- options


def test_an_unknown_option_names_the_nearest_one(cells, unchanged):
    with unchanged(cells), pytest.raises(TypeError, match=r"'max_step' .*'max_steps'"):
        sh.tl.hycnn_ot(cells, *LABELS, max_step=3)
    with unchanged(cells), pytest.raises(TypeError, match=r"'group_by' .*'groupby'"):
        sh.tl.hycnn_ot(cells, *LABELS, group_by="condition")


def test_defaults_are_those_of_the_solver():
    tool, of_solver = (inspect.signature(function).parameters for function in (sh.tl.hycnn_ot, sh.solver.fit))
    for name in set(tool) & set(of_solver) - {"training"}:
        assert tool[name].default == of_solver[name].default, name


def test_the_seed_decides(cells, fast):
    def theta(rng):
        copied = sh.tl.hycnn_ot(cells, *LABELS, rng=rng, copy=True, **fast)
        return copied.uns["hycnn_ot"]["models"]["IFN-beta"]["theta"], copied.obsm["X_hycnn_ot"]

    for first, second in zip(theta(5), theta(5), strict=True):
        np.testing.assert_array_equal(first, second)
    assert (theta(5)[0] != theta(6)[0]).any()


@pytest.mark.parametrize("rng", [np.int64(4), np.random.default_rng(4), None], ids=["integer", "generator", "none"])
def test_the_seed_is_recorded(cells, rng):
    fitted(cells, rng=rng)
    seed = cells.uns["hycnn_ot"]["params"]["rng"]
    assert isinstance(seed, int)
    assert seed == 4 or not isinstance(rng, np.integer)
    again = fitted(cells.copy(), rng=seed, key_added="again")
    np.testing.assert_array_equal(again.obsm["X_again"], cells.obsm["X_hycnn_ot"])


def test_an_interrupted_fit_leaves_the_cells_as_they_were_and_goes_on(cells, fast, unchanged, tmp_path, monkeypatch):
    """The second call finds the state of training and ends with the bits of a fit without interruption."""
    expected, folder = sh.tl.hycnn_ot(cells, *LABELS, copy=True, **fast), tmp_path / "maps"
    save, calls = torch.Tensor.cpu, []

    def interrupt(tensor, *args, **options):
        # The state is written ten times in a fit, from tensors on the CPU.
        if list(folder.glob("*.checkpoint")) and not calls:
            calls.append(1)
            raise KeyboardInterrupt
        return save(tensor, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "cpu", interrupt)
        with unchanged(cells), pytest.raises(KeyboardInterrupt):
            sh.tl.hycnn_ot(cells, *LABELS, checkpoint_dir=folder, **fast)
    assert [path.suffix for path in folder.iterdir()] == [".checkpoint"]
    sh.tl.hycnn_ot(cells, *LABELS, checkpoint_dir=folder, **fast)
    np.testing.assert_array_equal(cells.obsm["X_hycnn_ot"], expected.obsm["X_hycnn_ot"])
    assert [path.suffix for path in folder.iterdir()] == [".safetensors"]


def test_the_fallback_is_used_by_the_fit_and_by_transport(cells, fast):
    sh.tl.hycnn_ot(cells, *LABELS, fallback=True, **fast)
    expected = cells.obsm["X_hycnn_ot"].copy()
    with pytest.warns(UserWarning, match="Replacing"):
        sh.tl.transport(cells)
    np.testing.assert_array_equal(cells.obsm["X_hycnn_ot"], expected)
    # Fifty times as far away, the map is the Gaussian one.
    far = cells[rows_of(cells, "control")].copy()
    far.obsm["X_pca"] *= 50
    sh.tl.transport(far, model=cells, key_added="far")
    assert (far.obs["far_out_of_support"] > 2).all()
    gaussian = sh.solver.TransportMap.from_dict(sh.get.model(cells).to_dict() | {"blend": 0.0}, device="cpu")
    np.testing.assert_allclose(far.obsm["X_far"], gaussian.transport(far.obsm["X_pca"]), rtol=1e-4, atol=1e-2)


# ---- outcomes


@pytest.fixture
def drugs():
    """300 cells of a control, of a placebo without response, and of a drug."""
    rng = np.random.default_rng(0)
    labels = np.repeat(["control", "placebo", "drug"], 300)
    obs = pd.DataFrame({"condition": labels}, index=[f"cell {k}" for k in range(900)])
    points = rng.normal(size=(900, 4)) + 2.0 * (labels == "drug")[:, None]
    return anndata.AnnData(obs=obs, obsm={"X_pca": points})


def test_that_the_gaussian_map_was_kept_is_a_result(drugs, log):
    """It is logged; a warning would be an error here."""
    sh.tl.hycnn_ot(drugs, "control", ["placebo", "drug"], lr=2.0, weight_decay=0.0, **QUICK)
    outcomes = drugs.uns["hycnn_ot"]["outcome"]
    assert outcomes == {"placebo": "gaussian kept: no response seen", "drug": "gaussian kept: few steps"}
    assert {"X_hycnn_ot_placebo", "X_hycnn_ot_drug"} <= set(drugs.obsm)
    assert all(
        re.search(f"'{label}'.*{status[:20]}", log()) for label, status in drugs.uns["hycnn_ot"]["status"].items()
    )
    assert sh.get.model(drugs, target="drug").outcome == outcomes["drug"]


def test_trouble_is_warned_of_once_and_after_everything_is_written(drugs):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match=r"'placebo', 'drug'.*non-finite"):
            sh.tl.hycnn_ot(drugs, "control", ["placebo", "drug"], lr=1e30, **QUICK)
    assert np.isfinite(drugs.obsm["X_hycnn_ot_drug"][:300]).all()
    assert drugs.uns["hycnn_ot"]["outcome"] == dict.fromkeys(("placebo", "drug"), "recovered")


def test_many_targets_are_counted_in_log_and_warning(drugs, log):
    drugs.obs["condition"] = np.repeat(["control", *(f"drug {k}" for k in range(7))], [340, *[80] * 7])
    with pytest.warns(UserWarning, match=r"'drug 0', .*'drug 4' and 2 .*recovered") as caught:
        sh.tl.hycnn_ot(drugs, "control", [f"drug {k}" for k in range(7)], lr=1e30, **QUICK)
    assert [warning.filename for warning in caught] == [__file__]
    assert "cells) to 7 targets ('drug 0' (80)" in log()


def test_far_cells_are_named_and_their_rows_are_kept(drugs, log, tmp_path):
    """The rows are those of the AnnData, also where the fit uses some cells only, and files keep them."""
    drugs.obsm["X_pca"][7] = 900.0
    drugs.obsm["X_pca"][[650, 800]] = [[500.0] * 4, [-500.0] * 4]
    drugs.obs["train"] = np.arange(900) % 5 != 0
    options = {"groupby": "condition", **GAUSSIAN}
    sh.tl.hycnn_ot(drugs, "control", "drug", key_added="all", **options)
    assert re.search(r"'control' .*.1.: 'cell 7'\.", log())
    assert re.search(r"'drug' .*.2.: 'cell 650', 'cell 800'\.", log())
    sh.tl.hycnn_ot(drugs, "control", "drug", mask_obs="train", **options)
    drugs.write_h5ad(tmp_path / "drugs.h5ad")
    for adata in (drugs, anndata.read_h5ad(tmp_path / "drugs.h5ad")):
        found = adata.uns["all"]["validation"]["drug"]
        assert (found["far_source"].tolist(), found["far_target"].tolist()) == ([7], [650, 800])
        found = adata.uns["hycnn_ot"]["validation"]["drug"]
        assert (found["far_source"].tolist(), found["far_target"].tolist()) == ([7], [])
    # All source cells are moved, the far one too.
    assert np.isfinite(drugs.obsm["X_hycnn_ot"][:300]).all()


def test_fits_side_by_side_leave_the_filters_of_warnings_alone(drugs):
    before = list(warnings.filters)
    fits = [
        threading.Thread(target=sh.tl.hycnn_ot, args=(drugs.copy(), "control", "drug"), kwargs=QUICK) for _ in range(3)
    ]
    for fit in fits:
        fit.start()
    for fit in fits:
        fit.join()
    assert list(warnings.filters) == before


# ---- settings of scanpy


def every_tool(adata):
    sh.pp.split(adata)
    sh.pp.pca(adata, 3)
    sh.tl.hycnn_ot(adata, *LABELS, max_steps=4, hidden=(4,), n_ensemble=1)
    sh.tl.transport(adata, key_added="new")
    sh.tl.decode(adata)
    sh.tl.project(adata, "pca")
    sh.tl.evaluate(adata, n_bootstrap=0)
    for get in (sh.get.model, sh.get.history, sh.get.transported, sh.get.predicted, sh.get.evaluation):
        get(adata)


@pytest.mark.filterwarnings("ignore:Replacing", "ignore:All cells are evaluated")
@pytest.mark.parametrize("verbosity", [0, 2, 3])
def test_how_much_is_said(cells, log, capfd, verbosity):
    sc.settings.verbosity = verbosity
    every_tool(cells)
    assert capfd.readouterr() == ("", "")  # nothing goes past the logger
    if verbosity == 0:
        assert log() == ""
        return
    assert "fitting transport from 'control' (60 cells) to 'IFN-beta' (60) of adata.obs['condition']" in log()
    assert "on 3 dimensions of 'X_pca'" in log()
    assert len(re.findall(r"\(\d:\d\d:\d\d\)", log())) == 7  # six tools, and scanpy's own PCA
    assert ("added\n    'X_hycnn_ot' (adata.obsm)\n" in log()) == (verbosity > 2)


def test_the_default_verbosity_says_what_runs_and_what_came_out(cells, log):
    """scanpy's default shows warnings only; a fit takes minutes, and its outcome decides what to do next."""
    sc.settings.verbosity = 1
    sh.tl.hycnn_ot(cells, *LABELS, max_steps=4, hidden=(4,), n_ensemble=1)
    began, ended = log().splitlines()
    assert "'control' (60 cells)" in began
    assert sh.get.model(cells).outcome in ended
    sh.tl.hycnn_ot(cells, *LABELS, potential="gaussian", key_added="second")
    assert len(log().splitlines()) == 4
    assert sc.settings.verbosity == 1


def test_a_log_in_a_file(cells, log, capfd, tmp_path):
    sc.settings.verbosity, sc.settings.logfile = 2, tmp_path / "log.txt"
    fitted(cells)
    sc.settings.logfile.close()
    assert "fitting transport from 'control'" in (tmp_path / "log.txt").read_text()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("verbosity", "progress", "passed"), [(0, None, False), (0, True, True), (1, None, None)])
@pytest.mark.usefixtures("log")
def test_silence_hides_the_bar(cells, monkeypatch, verbosity, progress, passed):
    def fit_many(*_, progress, **__):
        assert progress is passed
        raise KeyboardInterrupt

    monkeypatch.setattr(solver, "fit_many", fit_many)
    sc.settings.verbosity = verbosity
    with pytest.raises(KeyboardInterrupt):
        sh.tl.hycnn_ot(cells, *LABELS, progress=progress)


@pytest.fixture
def four_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.filterwarnings("ignore:All cells are evaluated")
@pytest.mark.parametrize(("n_jobs", "n_threads"), [(-1, 4), (1, 4), (2, 2), (8, 4)])
@pytest.mark.usefixtures("four_threads", "log")
def test_how_many_threads(cells, monkeypatch, n_jobs, n_threads):
    seen = set()

    def noting(self, x, *arguments, of=solver.TransportMap.transport, **options):
        seen.add(torch.get_num_threads())
        return of(self, x, *arguments, **options)

    sc.settings.n_jobs = n_jobs
    monkeypatch.setattr(solver.TransportMap, "transport", noting)
    for call in (fitted, lambda a: sh.tl.transport(a, key_added="new"), lambda a: sh.tl.evaluate(a, n_bootstrap=0)):
        call(cells)
        assert (seen, torch.get_num_threads()) == ({n_threads}, 4)
        seen.clear()


@pytest.mark.usefixtures("four_threads", "log")
def test_the_limit_of_threads_holds_in_this_thread_alone_and_ends_with_a_failure(cells, monkeypatch):
    """Fits that begin in other threads must not be divided by this fit's limit."""

    def fit_many(*_, **__):
        with ThreadPoolExecutor(1) as pool:
            assert (torch.get_num_threads(), pool.submit(torch.get_num_threads).result()) == (2, 4)
        raise KeyboardInterrupt

    sc.settings.n_jobs = 2
    monkeypatch.setattr(solver, "fit_many", fit_many)
    with pytest.raises(KeyboardInterrupt):
        sh.tl.hycnn_ot(cells, *LABELS)
    assert torch.get_num_threads() == 4


@pytest.mark.usefixtures("log")
def test_figures_are_not_saved_and_settings_stay(cells, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sc.settings.figdir, sc.settings.autoshow = tmp_path / "figures", False
    sh.tl.hycnn_ot(cells, *LABELS, max_steps=4, hidden=(4,), n_ensemble=1)
    sh.tl.decode(cells)
    before = dict(plt.rcParams), sc.settings.verbosity
    for plot in (sh.pl.transport, sh.pl.embedding, sh.pl.history, sh.pl.mean_scatter):
        plot(cells)
    plt.close("all")
    assert (dict(plt.rcParams), sc.settings.verbosity) == before
    assert list(tmp_path.iterdir()) == []
