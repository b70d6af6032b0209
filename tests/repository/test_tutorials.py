"""Tutorials: notebooks are what their scripts say, are fit to be read, and run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import jupytext
import nbformat
import pytest

FOLDER = Path(__file__).parents[2] / "tutorials"
SCRIPTS = sorted(FOLDER.glob("[0-9]_*.py"))
MAX_BYTES = 600_000


def stem_of(path):
    return path.stem


def outputs_of(notebook):
    return [output for cell in notebook.cells for output in cell.get("outputs", ())]


def test_there_are_four_and_no_notebook_without_a_script():
    assert len(SCRIPTS) == 4
    assert sorted(FOLDER.glob("*.ipynb")) == [script.with_suffix(".ipynb") for script in SCRIPTS]


@pytest.mark.parametrize("script", SCRIPTS, ids=stem_of)
def test_notebook_and_script_agree(script):
    """After a change of either: make notebooks."""
    written, stored = jupytext.read(script), nbformat.read(script.with_suffix(".ipynb"), as_version=4)
    nbformat.validate(stored)
    for notebook in (written, stored):
        assert notebook.metadata.jupytext.formats == "ipynb,py:percent"
    cells = [[(cell.cell_type, cell.source) for cell in notebook.cells] for notebook in (written, stored)]
    assert cells[0] == cells[1]


@pytest.mark.parametrize("script", SCRIPTS, ids=stem_of)
def test_notebook_was_executed_in_order_without_a_warning(script):
    notebook = nbformat.read(script.with_suffix(".ipynb"), as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    kinds = {(output.output_type, output.get("name")) for output in outputs_of(notebook)}
    assert kinds <= {("display_data", None), ("execute_result", None), ("stream", "stdout")}
    assert any("image/png" in output.get("data", {}) for output in outputs_of(notebook))


@pytest.mark.parametrize("script", SCRIPTS, ids=stem_of)
def test_notebook_is_small_and_names_no_place_of_a_machine(script):
    path = script.with_suffix(".ipynb")
    assert path.stat().st_size < MAX_BYTES
    notebook = nbformat.read(path, as_version=4)
    text = [output.get("text", "") for output in outputs_of(notebook)]
    text += [
        value for output in outputs_of(notebook) for kind, value in output.get("data", {}).items() if "text" in kind
    ]
    assert text
    assert re.findall(r"(?:/(?:home|root|tmp|usr|work|Users|opt|var)/|[A-Z]:\\)\S*", "\n".join(text)) == []


@pytest.mark.parametrize("script", SCRIPTS, ids=stem_of)
def test_links_between_tutorials_lead_somewhere(script):
    links = re.findall(r"\]\(([^)#:]+)\)", script.read_text(encoding="utf-8"))
    assert [link for link in links if not (FOLDER / link).exists()] == []


@pytest.mark.tutorial
@pytest.mark.parametrize("script", SCRIPTS, ids=stem_of)
def test_tutorial_runs(script, request):
    """In a process of its own, as a user runs it; it fails by any exception and any warning that shows."""
    if "SCOT_HYCNN_DATA" in script.read_text(encoding="utf-8"):
        request.getfixturevalue("real_data")
    command = [sys.executable, FOLDER / "execute.py", "--check", script.stem]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
