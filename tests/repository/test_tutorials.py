"""Tutorials: notebooks hold what their scripts say, are fit to be read, and run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import jupytext
import nbformat
import pytest

FOLDER = Path(__file__).parents[2] / "tutorials"
NAMES = [
    "0_my_data",
    "1_start",
    "2_cell_type_held_out",
    "3_three_stimuli",
    "4_evaluation",
    "5_screen",
    "6_composition_and_growth",
]
MAX_BYTES = 600_000
PLACE_OF_A_MACHINE = r"(?:/(?:home|root|tmp|usr|work|Users|opt|var)/|[A-Z]:\\)\S*"


def test_each_notebook_has_a_script():
    assert [path.stem for path in sorted(FOLDER.glob("[0-9]_*.py"))] == NAMES
    assert [path.stem for path in sorted(FOLDER.glob("*.ipynb"))] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_notebook_is_its_executed_script(name):
    """After a change of either one, `make notebooks` writes the notebooks anew."""
    script, path = FOLDER / f"{name}.py", FOLDER / f"{name}.ipynb"
    written, stored = jupytext.read(script), nbformat.read(path, as_version=4)
    nbformat.validate(stored)
    assert path.stat().st_size < MAX_BYTES
    assert [(c.cell_type, c.source) for c in written.cells] == [(c.cell_type, c.source) for c in stored.cells]
    links = re.findall(r"\]\(([^)#:]+)\)", script.read_text(encoding="utf-8"))
    assert all((FOLDER / link).exists() for link in links)
    # All code ran in order. It wrote figures, results and text, but no warning and no path of a machine.
    code = [cell for cell in stored.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    kinds = {(output.output_type, output.get("name")) for output in outputs}
    assert kinds <= {("display_data", None), ("execute_result", None), ("stream", "stdout")}
    data = [{"text": output.get("text", ""), **output.get("data", {})} for output in outputs]
    assert any("image/png" in entry for entry in data)
    text = "\n".join(value for entry in data for kind, value in entry.items() if "text" in kind)
    assert re.findall(PLACE_OF_A_MACHINE, text) == []


@pytest.mark.tutorial
@pytest.mark.parametrize("name", NAMES)
def test_tutorial_runs(name):
    """The tutorial runs in a new process, as for a user; any exception and any warning that shows is a failure.

    Tutorials on published cells take those of the package if SCOT_HYCNN_DATA is not set.
    """
    command = [sys.executable, FOLDER / "execute.py", "--check", name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
