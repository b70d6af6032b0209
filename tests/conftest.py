"""What every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import matplotlib as mpl
import pytest
import torch

mpl.use("Agg")
# Workers run side by side, one core each; threads that wait for each other's core would slow both many times.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the real data sets; without SCOT_HYCNN_DATA the test is skipped."""
    folder = os.environ.get("SCOT_HYCNN_DATA")
    if not folder:
        pytest.skip("SCOT_HYCNN_DATA is not set: it names the folder with the real data sets")
    return Path(folder)
