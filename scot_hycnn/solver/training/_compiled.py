"""Functions that torch.compile writes anew, where it can."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import torch

Found = TypeVar("Found")


def compiled(function: Callable[..., Found]) -> Callable[..., Found]:
    """The function compiled at its first call; as it is, with a warning, where that fails.

    Parameters
    ----------
    function
        Of tensors, without side effects.
    """
    fast: Callable[..., Found] | None = None
    failed = False

    def call(*args: Any) -> Found:
        nonlocal fast, failed
        if not failed:
            try:
                if fast is None:
                    fast = torch.compile(function)
                return fast(*args)
            except Exception as error:  # noqa: BLE001 - compilers fail in many ways; an error of ours comes again below
                failed = True
                said, *_ = str(error).splitlines() or [""]
                warnings.warn(
                    f"torch.compile failed ({type(error).__name__}: {said}); training goes on without. "
                    "It needs a C++ compiler, or Triton on a GPU; compilation='auto' does not use it.",
                    RuntimeWarning,
                    stacklevel=2,
                )
        return function(*args)

    return call
