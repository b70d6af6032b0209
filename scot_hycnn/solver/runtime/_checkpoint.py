"""The state of a training loop in a file, from which it goes on after an interruption as if there had been none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scot_hycnn.solver.model._files import load, save


class Checkpoint:
    """A file that holds the last state, or is not there.

    Parameters
    ----------
    path
        The file. Its name says what is trained, on which cells and how: nothing else may find it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def of_folds(self, number: int) -> Checkpoint:
        """Another one beside it, for the fits without some groups of the map of this number."""
        return Checkpoint(self._path.with_suffix(f".folds{number}{self._path.suffix}"))

    def write(self, state: Mapping[str, Any]) -> None:
        """Replace the file at once: it holds the state before, or this one, whatever happens meanwhile.

        Raises
        ------
        OSError
            If it cannot be written; the state before is kept.
        """
        save(_map(state, lambda value: value.cpu().numpy() if isinstance(value, Tensor) else value), self._path)

    def read(self, device: str) -> dict[str, Any] | None:
        """The last state, tensors on the device; None if there is none.

        Raises
        ------
        ValueError
            If the file is damaged.
        """
        if not self._path.is_file():
            return None
        try:
            state = load(self._path)
        except ValueError:
            raise ValueError(
                f"The state of training in {str(self._path)!r} is damaged. Delete the file, or begin anew with "
                "resume=False."
            ) from None
        return _map(state, lambda value: _tensor(value, device))


def _tensor(value: Any, device: str) -> Any:
    """What training computes with, in float32, and the state of its generator; history stays with NumPy."""
    if not isinstance(value, np.ndarray) or value.dtype not in (np.float32, np.uint8):
        return value
    # The state of a random generator stays on the CPU.
    return torch.tensor(value, device="cpu" if value.dtype == np.uint8 else device)


def _map(state: Mapping[str, Any], function: Any) -> dict[str, Any]:
    return {
        name: _map(value, function) if isinstance(value, Mapping) else function(value) for name, value in state.items()
    }
