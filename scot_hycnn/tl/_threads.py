"""How many threads a tool may use, where scanpy's settings say so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from scanpy import settings

from scot_hycnn.solver.runtime._threads import limited_threads, threads_here


@contextmanager
def threads_of_scanpy() -> Iterator[None]:
    """Let PyTorch use at most ``scanpy.settings.n_jobs`` threads meanwhile.

    1 is scanpy's default and says nothing, -1 asks for all: with both they are as many as PyTorch has already, by
    default one for each core.
    """
    n_jobs = int(settings.n_jobs)
    if n_jobs < 2 or n_jobs >= threads_here():
        yield
        return
    with limited_threads(n_jobs):
        yield
