"""The readers of files keep their contract on random inputs; `make fuzz` has many more, guided by coverage."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_inputs_at_random():
    command = [sys.executable, Path(__file__).with_name("fuzz.py"), "map_file,h5ad", "--random", "150,20"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    for line, target, n_inputs in zip(lines, ("map_file", "h5ad"), (150, 20), strict=True):
        assert line.startswith(f"{target}: {n_inputs} inputs, ")
        assert 0 < int(line.split(", ")[1].split()[0]) < n_inputs
