"""Read or make cells whose true transport map is known."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scot_hycnn import datasets

Cells = NDArray[np.float32]


class Clouds(NamedTuple):
    """Unpaired source and target cells, and test cells with their true images."""

    x: Cells
    y: Cells
    x_test: Cells
    y_test: Cells


def w2_benchmark(dim: int, n: int) -> Clouds:
    """Read Mix3toMix10 of Korotin et al. 2021 from the folder that SCOT_HYCNN_DATA names; it has 20,000 cells."""
    if "SCOT_HYCNN_DATA" not in os.environ:
        sys.exit("Set SCOT_HYCNN_DATA to the folder that holds w2_benchmark/<dim>.npz.")
    with np.load(Path(os.environ["SCOT_HYCNN_DATA"]) / "w2_benchmark" / f"{dim}.npz") as file:
        return Clouds(file["x"][:n], file["y"][:n], file["x_test"], file["y_test"])


def closed_form(name: str, dim: int, n: int, seed: int) -> Clouds:
    """Make cells of a map of app. D.3 of the HyCNN paper, with 1,000 test cells."""
    pair = datasets.brenier_pair(name, dim, n, rng=seed)
    return Clouds(pair.x, pair.y, pair.x_test, pair.y_test)
