"""The readers of files keep their contract on random inputs; `make fuzz` has many more, guided by coverage."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(("target", "n_inputs"), [("map_file", 300), ("h5ad", 40)])
def test_inputs_at_random(target, n_inputs):
    command = [sys.executable, Path(__file__).with_name("fuzz.py"), target, "--random", str(n_inputs)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"{target}: {n_inputs} inputs, " in done.stdout
    n_taken = int(done.stdout.split(", ")[1].split()[0])
    assert 0 < n_taken < n_inputs
