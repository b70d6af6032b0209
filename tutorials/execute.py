"""Execute the tutorials: write their notebooks, or check only that they run and that no warning shows.

NAME.py is the source of truth, in jupytext's percent format; NAME.ipynb is the same with its outputs.

    make notebooks                                 # after a change: write all of them
    python tutorials/execute.py 1_start            # or one
    python tutorials/execute.py --check 1_start    # write nothing
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from traitlets.config import Config

FOLDER = Path(__file__).parent
NAMES = [path.stem for path in sorted(FOLDER.glob("[0-9]_*.py"))]
SECONDS = 600  # for any cell; whole tutorials take less than three minutes
# Figures are part of the notebook whatever MPLBACKEND is here; progress bars, which CI hides, are not.
ENVIRONMENT = {"MPLBACKEND": "module://matplotlib_inline.backend_inline", "CI": "true"}


def execute(source: Path) -> NotebookNode:
    """Return the notebook with outputs. It runs in an empty folder, so that it cannot use other files."""
    notebook = jupytext.read(source)
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as sockets:
        client = NotebookClient(
            notebook,
            kernel_name="python3",
            timeout=SECONDS,
            record_timing=False,
            resources={"metadata": {"path": folder}},
            # The kernel communicates through files: others on the machine could listen to network ports.
            config=Config(ConnectionFileMixin={"transport": "ipc", "ip": f"{sockets}/kernel"}),
        )
        client.execute(env={**os.environ, **ENVIRONMENT})
    # Remove what differs between machines or runs.
    notebook.metadata.pop("language_info", None)
    notebook.metadata.pop("widgets", None)
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
    return notebook


def warnings_in(notebook: NotebookNode) -> list[str]:
    """Return the texts that the notebook shows from stderr."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return [output.text for output in outputs if output.output_type == "stream" and output.name == "stderr"]


def main() -> None:
    """Write the notebooks, or check that they run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=NAMES, help="without .py; all if left out")
    parser.add_argument("--check", action="store_true", help="write nothing")
    options = parser.parse_args()
    complaints = []
    for name in options.names:
        started = time.perf_counter()
        notebook = execute(FOLDER / f"{name}.py")
        print(f"{name}: {time.perf_counter() - started:.0f} s", flush=True)
        complaints += [f"{name}: {text}" for text in warnings_in(notebook)]
        if not options.check:
            nbformat.write(notebook, FOLDER / f"{name}.ipynb")
    if complaints:
        sys.exit("\n".join(complaints))


if __name__ == "__main__":
    main()
