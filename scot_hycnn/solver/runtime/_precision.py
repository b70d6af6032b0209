"""Products in full float32, whatever is allowed elsewhere."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

_lock = threading.Lock()
# What gives back to the process what it had allowed: one entry for each context that is open, in any thread.
_open: list[Callable[[], None]] = []


@contextmanager
def full_precision() -> Iterator[None]:
    """Multiply without TF32 or bfloat16, which a user may have allowed for the whole process, and restore that.

    Training bears their rounding, which is noise among noise. Selection compares maps whose scores differ by less.
    Fits in several threads share the setting: the last to leave restores it.
    """
    with _lock:
        _open.append(_open[0] if _open else _forbid())
    try:
        yield
    finally:
        with _lock:
            restore = _open.pop()
            if not _open:
                restore()


def _forbid() -> Callable[[], None]:
    """Forbid it, and return what allows it again."""
    # Not all versions of PyTorch have both.
    backends: list[Any] = [getattr(kind, "matmul", None) for kind in (torch.backends.cuda, torch.backends.mkldnn)]
    if not all(hasattr(backend, "fp32_precision") for backend in backends):  # before PyTorch 2.9
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        return lambda: torch.set_float32_matmul_precision(before)
    allowed = [backend.fp32_precision for backend in backends]
    for backend in backends:
        backend.fp32_precision = "ieee"

    def restore() -> None:
        for backend, precision in zip(backends, allowed, strict=True):
            backend.fp32_precision = precision

    return restore
