"""Parts of a computation side by side, one thread each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from typing import Any

import torch

# Calls a function on each of some items, and gives the results in their order.
Each = Callable[[Callable[[Any], Any], Sequence[Any]], list[Any]]


def n_parts(device: str, n_items: int) -> int:
    """How many threads share so many items: on a CPU as many as PyTorch may use, elsewhere one."""
    is_cpu = torch.device(device).type == "cpu"
    return max(min(torch.get_num_threads(), n_items), 1) if is_cpu else 1


@contextmanager
def in_threads(n_threads: int) -> Iterator[Each]:
    """Give a function that calls another one on each of some items, in so many threads.

    PyTorch's own threads share single operations, and those of a training step are too small for that: two threads with
    half of the networks each are 1.4 to 1.6 times faster. They divide PyTorch's threads among them.

    Parameters
    ----------
    n_threads
        1 calls in this thread.
    """
    if n_threads == 1:
        yield lambda work, items: [work(item) for item in items]
        return
    of_torch = torch.get_num_threads()
    share = max(of_torch // n_threads, 1)
    with ThreadPoolExecutor(n_threads, initializer=torch.set_num_threads, initargs=(share,)) as pool:
        try:
            yield lambda work, items: _results(pool, work, items)
        finally:
            # A thread's own number is also the one that new threads of this process would begin with.
            torch.set_num_threads(of_torch)


def _results(pool: ThreadPoolExecutor, work: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    # NumPy's errstate, which the caller may have set, is one of the things that a context holds.
    futures = [pool.submit(copy_context().run, work, item) for item in items]
    return [future.result() for future in futures]
