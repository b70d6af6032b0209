"""Finished maps, and those in training, in a folder: a restart finds them there."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from scot_hycnn.solver.data._groups import Labels
from scot_hycnn.solver.data._task import Task
from scot_hycnn.solver.model._map import TransportMap

from ._checkpoint import Checkpoint
from ._threads import threads_here


class Results:
    """A folder of maps, each named by what it was made from: other cells or options never find it.

    Parameters
    ----------
    folder
        Made if it is not there.

    Raises
    ------
    ValueError
        If it is not a folder and cannot be one.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(
                f"checkpoint_dir={str(folder)!r} cannot be a folder ({error}); name another one."
            ) from None
        self._version = version("scot-hycnn")  # found once: it is read from a file
        self._shared: dict[int, tuple[object, bytes]] = {}
        self._found: dict[int, tuple[Task, Path]] = {}

    @classmethod
    def opened(cls, folder: str | Path | None, tasks: Sequence[Task], *, resume: bool) -> Results | None:
        """The folder, if one is wanted; without what it holds of these tasks, if they are to begin anew."""
        if folder is None:
            return None
        results = cls(folder)
        if not resume:
            results.forget(tasks)
        return results

    def find(self, task: Task) -> TransportMap | None:
        """The finished map of a task, if there is one."""
        path = self._path(task)
        return TransportMap.load(path, device=task.settings.device) if path.is_file() else None

    def forget(self, tasks: Sequence[Task]) -> None:
        """Remove what is there of them: the maps, and states of their training."""
        names = {self._path(task).stem for task in tasks}
        # The folder is read once: it may hold thousands of maps.
        for path in list(self.folder.iterdir()):
            if path.name.partition(".")[0] in names and path.suffix in (".safetensors", ".checkpoint", ".partial"):
                path.unlink(missing_ok=True)

    def has_begun(self, batch: Sequence[Task]) -> bool:
        """Whether a batch was in training when it was interrupted."""
        return self._state_of(batch).is_file()

    def checkpoint(self, batch: Sequence[Task]) -> Checkpoint:
        """Where the state of a batch in training is kept."""
        return Checkpoint(self._state_of(batch))

    def keep(self, batch: Sequence[Task], fits: Sequence[TransportMap]) -> None:
        """Write finished maps, each file whole or not at all, and then forget the state of their training."""
        for task, fitted in zip(batch, fits, strict=True):
            fitted.save(self._path(task))
        self._remove_states(batch[0])

    def _state_of(self, batch: Sequence[Task]) -> Path:
        """Named by the first map, and by what decides how networks are divided and numbers are rounded."""
        settings, names = batch[0].settings, [self._path(task).name for task in batch]
        device = torch.device(settings.device).type
        what = f"{torch.__version__} {threads_here()} {device} {settings.compilation} {names}"
        return self._path(batch[0]).with_suffix(f".{hashlib.sha256(what.encode()).hexdigest()[:16]}.checkpoint")

    def _remove_states(self, first: Task) -> None:
        """Of this machine and others, and halves of files that a killed process left."""
        for pattern in (".*.checkpoint", ".*.partial"):
            for path in self.folder.glob(self._path(first).stem + pattern):
                path.unlink(missing_ok=True)

    def _path(self, task: Task) -> Path:
        """Found once: to hash cells in a file, they must be read."""
        if id(task) not in self._found:
            self._found[id(task)] = task, self._named(task)
        return self._found[id(task)][1]

    def _named(self, task: Task) -> Path:
        # A restart may run on another machine.
        options = {k: value for k, value in task.settings.report().items() if k not in ("device", "compilation")}
        digest = hashlib.sha256(f"{self._version} {sorted(options.items())}".encode())
        digest.update(self._once(task.x, _digest))
        digest.update(_digest(task.y))
        if task.labels is not None:
            of_x, of_y = task.labels
            digest.update(self._once(of_x, _digest_of_labels) + _digest_of_labels(of_y))
        return self.folder / f"{digest.hexdigest()[:32]}.safetensors"

    def _once(self, shared: Any, digest: Callable[[Any], bytes]) -> bytes:
        """Of what thousands of maps share: read and hashed once."""
        if id(shared) not in self._shared:
            self._shared[id(shared)] = shared, digest(shared)
        return self._shared[id(shared)][1]


def _digest_of_labels(labels: Labels) -> bytes:
    return hashlib.sha256("\0".join(labels.names.tolist()).encode() + labels.codes.astype("<i4").tobytes()).digest()


def _digest(cells: ArrayLike) -> bytes:
    array = np.asarray(cells)
    description = f"{array.shape} {array.dtype.str}".encode()
    return hashlib.sha256(description + np.ascontiguousarray(array).tobytes()).digest()
