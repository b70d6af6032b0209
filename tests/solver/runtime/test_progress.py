"""The progress bar: where it is shown, and what it says."""

from __future__ import annotations

import io
import re
import sys
import time

import numpy as np
import pytest

from scot_hycnn.solver import fit
from scot_hycnn.solver.training._optimiser import Optimiser

QUICK = {"hidden": (8, 8), "max_steps": 40, "batch_size": 32, "n_ensemble": 2, "device": "cpu"}


def clouds(n=80):
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, 2)), rng.normal(size=(n, 2)) + 1


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("ci", [False, True])
def test_a_terminal_shows_it_by_default_but_not_where_tests_run(monkeypatch, ci):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.delenv("CI", raising=False)
    if ci:
        monkeypatch.setenv("CI", "true")
    # A fit that is done within a second shows nothing.
    update = Optimiser.update
    monkeypatch.setattr(Optimiser, "update", lambda *arguments: (time.sleep(0.04), update(*arguments)))
    fit(*clouds(), **QUICK)
    assert ("100%" in sys.stderr.getvalue()) != ci


def test_it_shows_a_gain_where_the_networks_are_better(capsys):
    """Target cells that lie along a parabola: the gain of the bar has the sign that the history has turned around."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 2))
    z = rng.normal(size=(600, 2))
    y = np.sign(z) * np.abs(z) ** 3
    fitted = fit(x, y, **QUICK | {"max_steps": 200, "progress": True})
    last = float(re.findall(r"gain over the Gaussian map (-?[\d.e-]+)", capsys.readouterr().err)[-1])
    assert last == pytest.approx(-fitted.history["J_minus_gaussian"].min(), rel=0.01)
    assert last > 0


def test_groups_that_are_left_out_are_part_of_it(capsys, monkeypatch):
    """The bar is not at its end while the fits without each group are still to come."""
    # The bar is drawn anew ten times a second, however fast the machine is.
    update = Optimiser.update
    monkeypatch.setattr(Optimiser, "update", lambda *arguments: (time.sleep(0.01), update(*arguments)))
    rng = np.random.default_rng(0)
    labels = np.repeat(["a", "b", "c"], 60)
    x, y = rng.normal(size=(180, 2)), np.exp(rng.normal(size=(180, 2)))
    fit(x, y, groups=(labels, labels), leave_out="groups", **QUICK | {"progress": True})
    shown = [int(percent) for percent in re.findall(r"(\d+)%", capsys.readouterr().err)]
    assert shown == sorted(shown)
    assert shown[-1] == 100
    # The fit of all groups is done before a third of the bar.
    assert len({percent for percent in shown if 33 < percent < 100}) > 1


@pytest.mark.parametrize("with_widgets", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_notebook_shows_it(with_widgets):
    """In a kernel, whose output is no terminal: as a widget, or as text without ipywidgets."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipywidgets")
    without = "" if with_widgets else "import sys; sys.modules['ipywidgets'] = None\n"
    source = f"""{without}import os, warnings
os.environ.pop("CI", None)
warnings.simplefilter("ignore")
import numpy as np
from scot_hycnn.solver import fit
from scot_hycnn.solver.training._optimiser import Optimiser
import time
update = Optimiser.update  # a fit that is done within a second shows nothing
Optimiser.update = lambda *arguments: (time.sleep(0.04), update(*arguments))
rng = np.random.default_rng(0)
fit(rng.normal(size=(80, 2)), rng.normal(size=(80, 2)) + 1, **{QUICK})"""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    outputs = notebook.cells[0].outputs
    shown = outputs[-1].data
    assert shown["text/plain"].startswith("TransportMap")
    assert "<table>" in shown["text/html"]
    if with_widgets:
        states = notebook.metadata["widgets"]["application/vnd.jupyter.widget-state+json"]["state"].values()
        bars = [one["state"] for one in states if one["model_name"] == "FloatProgressModel"]
        assert [(bar["value"] / bar["max"], bar["bar_style"]) for bar in bars] == [(1.0, "success")]
    else:
        text = "".join(output.text for output in outputs if output.output_type == "stream")
        assert "100%" in text
