"""A computation in several threads, each with its share of PyTorch's threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from typing import Any

import torch
from threadpoolctl import ThreadpoolController

# Calls a function on each of some items, and returns the results in their order.
ThreadMap = Callable[[Callable[[Any], Any], Sequence[Any]], list[Any]]


def threads_here() -> int:
    """Return how many threads PyTorch uses in this thread."""
    return torch.get_num_threads()


def _openmp_limit(n_threads: int) -> Any:
    """Set the number of OpenMP threads of this thread, until the context that this returns is left.

    ``torch.set_num_threads`` would also change the number that new threads begin with, so that a fit that another
    thread begins meanwhile would divide its networks in another way. OpenMP has one number for each thread.
    """
    # PyTorch sets the number of a thread at its first use, and would replace ours.
    threads_here()
    # Other pools are left out: leaving the context would set them to what they were, while scikit-learn changes them.
    return ThreadpoolController().select(user_api="openmp").limit(limits=n_threads)


@contextmanager
def limited_threads(n_threads: int) -> Iterator[None]:
    """Let PyTorch and scikit-learn use so many threads in this thread meanwhile; other threads keep their number."""
    with _openmp_limit(n_threads):
        yield


def n_parts(device: str, n_items: int) -> int:
    """Return how many threads share so many items: on a CPU as many as PyTorch may use, elsewhere one."""
    return max(min(threads_here(), n_items), 1) if torch.device(device).type == "cpu" else 1


@contextmanager
def in_threads(n_threads: int) -> Iterator[ThreadMap]:
    """Give a function that calls another one on each of some items, in so many threads.

    The threads divide PyTorch's threads among them. With 1 the calls are made in this thread.
    """
    if n_threads == 1:
        yield lambda work, items: [work(item) for item in items]
        return
    share = max(threads_here() // n_threads, 1)
    # The limit of each thread ends with the thread.
    with ThreadPoolExecutor(n_threads, initializer=_openmp_limit, initargs=(share,)) as pool:

        def each(work: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
            # A context holds NumPy's errstate, among other things, which the caller may have set.
            futures = [pool.submit(copy_context().run, work, item) for item in items]
            return [future.result() for future in futures]

        yield each
