"""Parts of a computation side by side, one thread each."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import copy_context
from typing import Any

import torch

# Calls a function on each of some items, and gives the results in their order.
Each = Callable[[Callable[[Any], Any], Sequence[Any]], list[Any]]


# PyTorch has a number of threads for each thread, and one that new threads begin with, which every call of
# set_num_threads replaces. Held where the latter is another one for a moment.
_begins_with = threading.Lock()


def threads_here() -> int:
    """How many threads PyTorch uses in this one; in a new thread as many as in the program, whatever else runs."""
    with _begins_with:
        return torch.get_num_threads()


@contextmanager
def _new_threads_begin_as_before() -> Iterator[None]:
    """Meanwhile some threads may set their own number; afterwards new threads begin with what they began with before.

    While networks train, other threads may begin fits: these must find the number of threads that the program has, or
    they divide their networks in another way, and do not find their checkpoints.
    """
    found: list[int] = []
    known, done = threading.Event(), threading.Event()

    def keep() -> None:
        found.append(torch.get_num_threads())
        known.set()
        done.wait()
        torch.set_num_threads(found[0])

    with _begins_with:
        thread = threading.Thread(target=keep)
        thread.start()
        known.wait()
        try:
            yield
        finally:
            done.set()
            thread.join()


@contextmanager
def limited_threads(n_threads: int) -> Iterator[None]:
    """Let PyTorch use so many threads in this thread meanwhile; what other threads use, and begin with, stays."""
    before = threads_here()
    with _new_threads_begin_as_before():
        torch.set_num_threads(n_threads)
    try:
        yield
    finally:
        with _new_threads_begin_as_before():
            torch.set_num_threads(before)


def n_parts(device: str, n_items: int) -> int:
    """How many threads share so many items: on a CPU as many as PyTorch may use, elsewhere one."""
    is_cpu = torch.device(device).type == "cpu"
    return max(min(threads_here(), n_items), 1) if is_cpu else 1


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
    share = max(threads_here() // n_threads, 1)
    started = threading.Barrier(n_threads + 1)

    def begin() -> None:
        torch.get_num_threads()  # what a thread begins with is set at its first use, and would replace its own number
        started.wait()
        torch.set_num_threads(share)

    with ThreadPoolExecutor(n_threads) as pool:
        try:
            begun = [pool.submit(begin) for _ in range(n_threads)]
            # All have started: new threads begin with another number for some microseconds only.
            with _new_threads_begin_as_before():
                started.wait()
                wait(begun)
        except BaseException:
            started.abort()
            raise
        yield lambda work, items: _results(pool, work, items)


def _results(pool: ThreadPoolExecutor, work: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    # NumPy's errstate, which the caller may have set, is one of the things that a context holds.
    futures = [pool.submit(copy_context().run, work, item) for item in items]
    return [future.result() for future in futures]
