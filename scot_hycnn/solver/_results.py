"""Finished maps in a folder: a restart finds them there."""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from ._map import TransportMap
from ._task import Task


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
            raise ValueError(f"results={str(folder)!r} cannot be a folder ({error}); name another one.") from None
        self._source: tuple[object, bytes] = (None, b"")
        self._found: dict[int, tuple[Task, Path]] = {}

    def find(self, task: Task) -> TransportMap | None:
        """The finished map of a task, if there is one."""
        path = self._path(task)
        return TransportMap.load(path, device=task.settings.device) if path.is_file() else None

    def keep(self, task: Task, fitted: TransportMap) -> None:
        """Write a finished map; the file appears whole or not at all."""
        fitted.save(self._path(task))

    def _path(self, task: Task) -> Path:
        """Found once: to hash cells in a file, they must be read."""
        if id(task) not in self._found:
            self._found[id(task)] = task, self._named(task)
        return self._found[id(task)][1]

    def _named(self, task: Task) -> Path:
        if self._source[0] is not task.x:
            # Thousands of maps may share these cells: read once.
            self._source = task.x, _digest(task.x)
        # A restart may run on another machine.
        options = {k: value for k, value in task.settings.report().items() if k not in ("device", "compilation")}
        digest = hashlib.sha256(f"{version('scot-hycnn')} {sorted(options.items())}".encode() + self._source[1])
        for array in (task.y, *(task.labels or ())):
            digest.update(_digest(array))
        return self.folder / f"{digest.hexdigest()[:32]}.safetensors"


def _digest(cells: ArrayLike) -> bytes:
    array = np.asarray(cells)
    description = f"{array.shape} {array.dtype.str}".encode()
    return hashlib.sha256(description + np.ascontiguousarray(array).tobytes()).digest()
