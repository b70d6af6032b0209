"""Finished maps, and the state of those in training, in a folder, where a restart finds them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scot_hycnn.solver.data._groups import Labels
from scot_hycnn.solver.data._training_data import Task
from scot_hycnn.solver.model._files import load, save
from scot_hycnn.solver.model._map import TransportMap

# A state of training in another format has another name, so that it is not found.
FORMAT = 3


class CheckpointFolder:
    """A folder of maps and states, whose names are hashes of cells and options: other ones never find them.

    Every file is written completely or not at all, and replaces an older one only then. Without ``resume`` all is
    fitted anew, and replaced.
    """

    def __init__(self, folder: str | Path, *, resume: bool = True) -> None:
        self.folder, self.resume = Path(folder).absolute(), resume
        # The folder is made with its first file, so that a call that is refused for another reason leaves none.
        place = next(path for path in (self.folder, *self.folder.parents) if os.path.lexists(path))
        if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
            problem = "may not be written to" if place.is_dir() else "is no folder"
            raise ValueError(
                f"checkpoint_dir={str(folder)!r} cannot hold maps: {str(place)!r} {problem}. Name another folder."
            )
        self._version = version("scot-hycnn")
        # Hashes of cells and labels that maps share, and names of maps. Each holds its object, so that the id stays.
        self._hashes: dict[int, tuple[object, bytes]] = {}
        self._names: dict[int, tuple[Task, str]] = {}

    def find(self, task: Task) -> TransportMap | None:
        """Return the finished map of a task, if there is one."""
        path = self._path(task)
        return TransportMap.load(path, device=task.settings.device) if self.resume and path.is_file() else None

    def has_begun(self, batch: Sequence[Task]) -> bool:
        """Whether the training of a batch was interrupted."""
        return self.resume and self.state_of(batch).is_file()

    def state_of(self, batch: Sequence[Task]) -> Path:
        """Return the file for the state of a batch, named by the first map and by everything that changes rounding."""
        settings, first = batch[0].settings, self._path(batch[0])
        device = torch.device(settings.device).type
        names = [self._path(task).name for task in batch]
        what = f"{FORMAT} {torch.__version__} {torch.get_num_threads()} {device} {settings.cuda_graph} {names}"
        return first.with_suffix(f".{hashlib.sha256(what.encode()).hexdigest()[:16]}.checkpoint")

    def read_state(self, path: Path, device: str) -> dict[str, Any] | None:
        """Return the state in a file, tensors on the device; None if there is none or it is not wanted."""
        if not self.resume or not path.is_file():
            return None
        try:
            state = load(path)
        except ValueError:
            raise ValueError(
                f"The state of training in {str(path)!r} is damaged. Delete the file: training then begins anew."
            ) from None

        def to_tensor(value: Any) -> Any:
            # Training computes in float32; the state of a random generator is uint8 and stays on the CPU.
            if not isinstance(value, np.ndarray) or value.dtype not in (np.float32, np.uint8):
                return value
            return torch.tensor(value, device="cpu" if value.dtype == np.uint8 else device)

        return _map_values(state, to_tensor)

    def of_training(self, path: Path, device: str) -> dict[str, Any]:
        """Return the options of `train` about a file: where training continues, and what writes its state."""
        return {"saved": self.read_state(path, device), "save": partial(self.write_state, path)}

    def write_state(self, path: Path, state: Mapping[str, Any]) -> None:
        """Replace the state in a file; it is kept if the new one cannot be written, which is an OSError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        save(_map_values(state, lambda value: value.cpu().numpy() if isinstance(value, Tensor) else value), path)

    def keep(self, batch: Sequence[Task], fits: Sequence[TransportMap]) -> None:
        """Write finished maps, and then remove the states of their training."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for task, fitted in zip(batch, fits, strict=True):
            fitted.save(self._path(task))
        # States of other machines, and parts of files that a killed process left, are removed as well.
        for pattern in (".*.checkpoint", ".*.partial"):
            for path in self.folder.glob(self._path(batch[0]).stem + pattern):
                path.unlink(missing_ok=True)

    def _path(self, task: Task) -> Path:
        if id(task) not in self._names:
            # A restart may run on another machine, with another device.
            options = {k: v for k, v in task.settings.report().items() if k not in ("device", "cuda_graph")}
            digest = hashlib.sha256(f"{self._version} {sorted(options.items())}".encode())
            digest.update(self._hash_once(task.x, _hash_of_cells) + _hash_of_cells(task.y))
            if task.labels_x is not None and task.labels_y is not None:
                digest.update(self._hash_once(task.labels_x, _hash_of_labels) + _hash_of_labels(task.labels_y))
            self._names[id(task)] = task, f"{digest.hexdigest()[:32]}.safetensors"
        return self.folder / self._names[id(task)][1]

    def _hash_once(self, shared: Any, function: Callable[[Any], bytes]) -> bytes:
        """Hash what thousands of maps share once."""
        if id(shared) not in self._hashes:
            self._hashes[id(shared)] = shared, function(shared)
        return self._hashes[id(shared)][1]


def _hash_of_cells(cells: Any) -> bytes:
    array = np.asarray(cells)
    description = f"{array.shape} {array.dtype.str}".encode()
    return hashlib.sha256(description + np.ascontiguousarray(array).tobytes()).digest()


def _hash_of_labels(labels: Labels) -> bytes:
    return hashlib.sha256("\0".join(labels.names.tolist()).encode() + labels.codes.astype("<i4").tobytes()).digest()


def _map_values(state: Mapping[str, Any], function: Callable[[Any], Any]) -> dict[str, Any]:
    return {k: _map_values(v, function) if isinstance(v, Mapping) else function(v) for k, v in state.items()}
