"""Number of threads of a tool, from scanpy's settings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from scanpy import settings

from scot_hycnn.solver.runtime._device import limited_threads


@contextmanager
def threads_of_scanpy() -> Iterator[None]:
    """Limit PyTorch to ``scanpy.settings.n_jobs`` threads within a block.

    1 is scanpy's default and -1 asks for all threads: with both, PyTorch keeps the number that it has, by default one
    for each core.
    """
    n_jobs = int(settings.n_jobs)
    if n_jobs < 2 or n_jobs >= torch.get_num_threads():
        yield
        return
    with limited_threads(n_jobs):
        yield
