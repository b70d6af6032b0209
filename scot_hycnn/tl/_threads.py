"""How many threads a tool may use, where scanpy's settings say so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from scanpy import settings


@contextmanager
def threads_of_scanpy() -> Iterator[None]:
    """Let PyTorch use at most ``scanpy.settings.n_jobs`` threads meanwhile.

    1 is scanpy's default and says nothing, -1 asks for all: with both they are as many as PyTorch has already, by
    default one for each core.
    """
    own, n_jobs = torch.get_num_threads(), int(settings.n_jobs)
    if n_jobs < 2 or n_jobs >= own:
        yield
        return
    torch.set_num_threads(n_jobs)
    try:
        yield
    finally:
        torch.set_num_threads(own)
