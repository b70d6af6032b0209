"""Products in full float32, whatever is allowed elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def full_precision() -> Iterator[None]:
    """Multiply without TF32 or bfloat16, which a user may have allowed for the whole process, and restore that.

    Training bears their rounding, which is noise among noise. Selection compares maps whose scores differ by less.
    """
    # Not all versions of PyTorch have both.
    backends: list[Any] = [getattr(kind, "matmul", None) for kind in (torch.backends.cuda, torch.backends.mkldnn)]
    if all(hasattr(backend, "fp32_precision") for backend in backends):  # PyTorch 2.9 and newer
        allowed = [backend.fp32_precision for backend in backends]
        for backend in backends:
            backend.fp32_precision = "ieee"
        try:
            yield
        finally:
            for backend, precision in zip(backends, allowed, strict=True):
                backend.fp32_precision = precision
    else:
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)
