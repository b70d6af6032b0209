"""The contract of a reader: it returns a result or raises an error of ours, in memory that the file's size allows."""

from __future__ import annotations

import traceback
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import scot_hycnn

# The command line turns these errors into one line and exit code 2.
ALLOWED = (ValueError, TypeError, KeyError, OSError)
PACKAGE = Path(scot_hycnn.__file__).parent


class BrokenContractError(BaseException):
    """The error is not an Exception, so that no handler of the tested code can hide it."""


def hold(read: Callable[[], object], *, size: int, constant: int, measured: bool = True) -> bool:
    """Call a reader of an untrusted file, and return whether it accepted the file.

    Measuring memory makes reading several times as slow, so it can be turned off. The fuzzer reports any other
    exception as a crash, and stops a reader that hangs.
    """
    taken, peak = _call(read, measured=measured)
    if peak > 2 * size + constant:
        # Once in many thousand inputs a table of the interpreter grows by megabytes, but not in the second call.
        _, peak = _call(read, measured=measured)
    if peak > 2 * size + constant:
        raise BrokenContractError(f"{peak} bytes of memory for a file of {size}")
    return taken


def _call(read: Callable[[], object], *, measured: bool) -> tuple[bool, int]:
    """Return whether the reader accepted the file, and its peak memory."""
    if measured:
        tracemalloc.start()
    try:
        read()
        taken = True
    except ALLOWED as error:
        taken = False
        _check_message(error)
    finally:
        _, peak = tracemalloc.get_traced_memory()  # zero if memory is not measured
        tracemalloc.stop()
    return taken, peak


def _check_message(error: Exception) -> None:
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    raised_in = Path(frame.f_code.co_filename)
    if not str(error).strip():
        raise BrokenContractError(f"{type(error).__name__} without a message") from error
    if not raised_in.is_relative_to(PACKAGE):
        raise BrokenContractError(f"{type(error).__name__} of {raised_in.name} is not an error of ours") from error
