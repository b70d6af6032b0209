"""The device of a fit: its name, products in full float32, and PyTorch's threads. It imports nothing of the package."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from typing import Any

import torch
from threadpoolctl import ThreadpoolController

# Calls a function on each of some items, and returns the results in their order.
ThreadMap = Callable[[Callable[[Any], Any], Sequence[Any]], list[Any]]

_lock = threading.Lock()
# Precisions that the process had allowed before, one entry for each open context in any thread.
_open: list[list[Any]] = []


def resolve_device(name: str) -> torch.device:
    """Device of that name; ``'auto'`` takes the first of cuda, mps and cpu that there is.

    Parameters
    ----------
    name
        'auto', 'cpu', 'cuda', 'cuda:1', 'mps' ...

    Returns
    -------
    The device.

    Raises
    ------
    ValueError
        If PyTorch knows no such device or has none here: there is no silent fall-back to the CPU.

    Examples
    --------
    >>> from scot_hycnn import solver
    >>> solver.resolve_device("cpu")
    device(type='cpu')
    """
    present = ["cpu"]
    if torch.backends.mps.is_available():
        present.insert(0, "mps")
    if torch.cuda.is_available():
        present.insert(0, "cuda")
    if name == "auto":
        return torch.device(present[0])
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        raise ValueError(f"device={name!r} is unknown; choose 'auto' or one of {present}.") from None
    if device.type not in present:
        raise ValueError(
            f"device={name!r} is not available here; PyTorch {torch.__version__} finds {present}. "
            "Choose one of them, or 'auto'."
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        found = [f"cuda:{k}" for k in range(torch.cuda.device_count())]
        raise ValueError(f"device={name!r} does not exist; choose one of {found}.")
    return device


@contextmanager
def full_precision() -> Iterator[None]:
    """Multiply without TF32 or bfloat16, which a user may have allowed for the whole process, and restore that."""
    # Training tolerates their rounding, which is noise among noise. Selection compares maps whose scores differ by
    # less. Fits in several threads share the setting: the last one to leave restores it.
    with _lock:
        _open.append(_open[0] if _open else _set_precisions(None))
    try:
        yield
    finally:
        with _lock:
            before = _open.pop()
            if not _open:
                _set_precisions(before)


def _set_precisions(precisions: list[Any] | None) -> list[Any]:
    """Set the precision of matrix products, for None full float32 in all libraries, and return what was set before."""
    # Not all versions of PyTorch have both libraries.
    backends: list[Any] = [getattr(kind, "matmul", None) for kind in (torch.backends.cuda, torch.backends.mkldnn)]
    if not all(hasattr(backend, "fp32_precision") for backend in backends):  # before PyTorch 2.9
        before = [torch.get_float32_matmul_precision()]
        torch.set_float32_matmul_precision(*(precisions or ["highest"]))
        return before
    before = [backend.fp32_precision for backend in backends]
    for backend, precision in zip(backends, precisions or ["ieee", "ieee"], strict=True):
        backend.fp32_precision = precision
    return before


def limited_threads(n_threads: int) -> Any:
    """Let PyTorch and scikit-learn use so many threads in this thread, until the context that this returns is left."""
    # ``torch.set_num_threads`` would also change the number that new threads begin with, so that a fit that another
    # thread begins meanwhile would divide its networks in another way. OpenMP has one number for each thread.
    # PyTorch sets the number of a thread at its first use, and would replace ours.
    torch.get_num_threads()
    # Other pools are left out: leaving the context would set them to what they were, while scikit-learn changes them.
    return ThreadpoolController().select(user_api="openmp").limit(limits=n_threads)


def n_parts(device: str, n_items: int) -> int:
    """Return how many threads share so many items: on a CPU as many as PyTorch may use, elsewhere one."""
    return max(min(torch.get_num_threads(), n_items), 1) if torch.device(device).type == "cpu" else 1


@contextmanager
def no_denormals() -> Iterator[None]:
    """Take numbers below 1e-38 as 0 in this thread, and restore what was set before."""
    # Gates of trained networks and squares of small gradients are often so small. Processors of Intel compute them in
    # microcode: a fit of x + sign x (d = 20, 5,000 cells) took 19.7 s, and 10.1 s without them, with the same result.
    # PyTorch does not tell what is set.
    was_set = not torch.tensor(1e-39, dtype=torch.float32, device="cpu").mul(1)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(was_set)


@contextmanager
def in_threads(n_threads: int) -> Iterator[ThreadMap]:
    """Give a function that calls another one on each of some items, in so many threads.

    The threads divide PyTorch's threads among them. With 1 the calls are made in this thread. All compute as in
    :func:`no_denormals`.
    """
    if n_threads == 1:

        def here(work: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
            with no_denormals():
                return [work(item) for item in items]

        yield here
        return
    share = max(torch.get_num_threads() // n_threads, 1)

    def begin() -> None:
        # Both settings end with the thread.
        limited_threads(share)
        torch.set_flush_denormal(True)

    with ThreadPoolExecutor(n_threads, initializer=begin) as pool:

        def each(work: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
            # A context holds NumPy's errstate, among other things, which the caller may have set.
            futures = [pool.submit(copy_context().run, work, item) for item in items]
            return [future.result() for future in futures]

        yield each
