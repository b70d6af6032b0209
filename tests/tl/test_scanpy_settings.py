"""scanpy's settings hold for us: how much is said and where, how many threads, and figures only if asked for."""

from __future__ import annotations

import ast
import io
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import scanpy as sc
import torch

import scot_hycnn as sh
from scot_hycnn import solver

pytestmark = pytest.mark.filterwarnings("ignore:Replacing", "ignore:All cells are evaluated")
NAMES = ("verbosity", "logfile", "figdir", "autoshow")
SOURCES = sorted(Path(sh.__file__).parent.rglob("*.py"))


@pytest.fixture
def log():
    """What scanpy's logger has written, and settings that are put back."""
    before = {name: getattr(sc.settings, name) for name in NAMES}
    sc.settings.logfile = io.StringIO()
    yield sc.settings.logfile.getvalue
    for name, value in before.items():
        setattr(sc.settings, name, value)


def everything(adata):
    sh.pp.split(adata)
    sh.pp.pca(adata, 3)
    sh.tl.hycnn_ot(adata, "control", "IFN-beta", max_steps=4, hidden=(4,), n_ensemble=1)
    sh.tl.transport(adata, key_added="new")
    sh.tl.decode(adata)
    sh.tl.project(adata, "pca")
    sh.tl.evaluate(adata, n_bootstrap=0)
    for get in (sh.get.model, sh.get.history, sh.get.transported, sh.get.predicted, sh.get.evaluation):
        get(adata)


BEGINNINGS = [
    "principal components of",
    "fitting transport from 'control'",
    "transporting 60 of 130",
    "predicting 6 genes",
    "placing predicted cells",
    "evaluating the fit",
]


@pytest.mark.parametrize("verbosity", [0, 1, 2, 3, 4])
def test_how_much_is_said(cells, log, capfd, verbosity):
    sc.settings.verbosity = verbosity
    everything(cells)
    said = log()
    assert capfd.readouterr() == ("", "")  # nothing goes past the logger
    if verbosity < 2:
        assert said == ""
        return
    assert all(beginning in said for beginning in BEGINNINGS)
    assert len(re.findall(r"\(\d:\d\d:\d\d\)", said)) == len(BEGINNINGS) + 1  # and scanpy's own PCA
    assert ("added" in said) == (verbosity > 2)


def test_silence_hides_no_error(cells, log, capfd, unchanged):
    sc.settings.verbosity = 0
    with unchanged(cells), pytest.raises(ValueError, match="source_key='nix' is not a category"):
        sh.tl.hycnn_ot(cells, "nix", "IFN-beta")
    assert (log(), *capfd.readouterr()) == ("", "", "")


@pytest.mark.parametrize("said", [(0, None, False), (0, True, True), (1, None, None)])
@pytest.mark.usefixtures("log")
def test_silence_goes_for_the_bar(cells, monkeypatch, said):
    verbosity, progress, passed = said
    seen = []

    def fit_many(*_, progress, **__):
        seen.append(progress)
        raise KeyboardInterrupt

    monkeypatch.setattr("scot_hycnn.tl._hycnn_ot._solver.fit_many", fit_many)
    sc.settings.verbosity = verbosity
    with pytest.raises(KeyboardInterrupt):
        sh.tl.hycnn_ot(cells, "control", "IFN-beta", progress=progress)
    assert seen == [passed]


@pytest.fixture
def four_threads():
    before = torch.get_num_threads(), sc.settings.n_jobs
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before[0])
    sc.settings.n_jobs = before[1]


@pytest.mark.parametrize(("n_jobs", "n_threads"), [(-1, 4), (1, 4), (2, 2), (3, 3), (8, 4)])
@pytest.mark.usefixtures("four_threads", "log")
def test_how_many_threads(cells, monkeypatch, n_jobs, n_threads):
    seen = set()

    def noting(self, x, *arguments, of=solver.TransportMap.transport, **options):
        seen.add(torch.get_num_threads())
        return of(self, x, *arguments, **options)

    sc.settings.n_jobs = n_jobs
    monkeypatch.setattr(solver.TransportMap, "transport", noting)
    for call in (
        lambda: sh.tl.hycnn_ot(cells, "control", "IFN-beta", potential="gaussian"),
        lambda: sh.tl.transport(cells, key_added="new"),
        lambda: sh.tl.evaluate(cells, n_bootstrap=0),
    ):
        call()
        assert (seen, torch.get_num_threads()) == ({n_threads}, 4)
        seen.clear()


@pytest.mark.usefixtures("four_threads", "log")
def test_new_threads_begin_with_the_number_of_the_program_meanwhile(cells, monkeypatch):
    """Fits that begin there are not to be divided by this fit's limit."""

    def fit_many(*_, **__):
        with ThreadPoolExecutor(1) as pool:
            assert (torch.get_num_threads(), pool.submit(torch.get_num_threads).result()) == (2, 4)
        raise KeyboardInterrupt

    sc.settings.n_jobs = 2
    monkeypatch.setattr("scot_hycnn.tl._hycnn_ot._solver.fit_many", fit_many)
    with pytest.raises(KeyboardInterrupt):
        sh.tl.hycnn_ot(cells, "control", "IFN-beta")


@pytest.mark.usefixtures("four_threads", "log")
def test_threads_of_training_and_after_a_failure(cells, monkeypatch):
    def fit_many(*_, **__):
        assert torch.get_num_threads() == 2
        raise KeyboardInterrupt

    sc.settings.n_jobs = 2
    monkeypatch.setattr("scot_hycnn.tl._hycnn_ot._solver.fit_many", fit_many)
    with pytest.raises(KeyboardInterrupt):
        sh.tl.hycnn_ot(cells, "control", "IFN-beta")
    assert torch.get_num_threads() == 4


def test_a_log_in_a_file(cells, log, capfd, tmp_path):
    sc.settings.verbosity, sc.settings.logfile = 2, tmp_path / "log.txt"
    sh.tl.hycnn_ot(cells, "control", "IFN-beta", potential="gaussian")
    sc.settings.logfile.close()
    assert "fitting transport from 'control'" in (tmp_path / "log.txt").read_text()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("path", [path for path in SOURCES if path.parent.name != "cli"], ids=lambda path: path.stem)
def test_nothing_is_said_but_by_scanpys_logger(path):
    tree = ast.parse(path.read_text("utf-8"))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    called = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    assert "logging" not in imported
    assert called.isdisjoint({"print", "sys.stdout.write", "sys.stderr.write"})


@pytest.mark.usefixtures("log")
def test_figures_are_not_saved_and_settings_stay(cells, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sc.settings.figdir, sc.settings.autoshow = tmp_path / "figures", False
    sh.tl.hycnn_ot(cells, "control", "IFN-beta", max_steps=4, hidden=(4,), n_ensemble=1)
    sh.tl.decode(cells)
    cells.obs["cell_type"] = np.resize(["B", "T"], cells.n_obs)
    before = dict(plt.rcParams), sc.settings.verbosity
    for plot in (sh.pl.transport, sh.pl.embedding, sh.pl.history, sh.pl.mean_scatter):
        plot(cells)
    sh.pl.displacement(cells, groupby="cell_type")
    plt.close("all")
    assert (dict(plt.rcParams), sc.settings.verbosity) == before
    assert list(tmp_path.iterdir()) == []
