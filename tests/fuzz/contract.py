"""What any input may do: give its result, or a sentence of ours, in memory that its size allows."""

from __future__ import annotations

import traceback
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import scot_hycnn

# What the command line turns into one line and exit code 2.
ALLOWED = (ValueError, TypeError, KeyError, OSError)
PACKAGE = Path(scot_hycnn.__file__).parent


class BrokenContractError(BaseException):
    """Not an Exception, so that no handler of the code under test can hide it."""


def hold(read: Callable[[], object], *, size: int, constant: int, measured: bool = True) -> bool:
    """Call a reader of an untrusted file; whether it took the file.

    Memory is not measured where that would make reading several times as slow. Any other exception passes, which the
    fuzzer reports as a crash. A reader that hangs is stopped by the fuzzer.
    """
    taken, peak = _call(read, measured=measured)
    if peak > 2 * size + constant:
        # Once in many thousand inputs a table of the interpreter grows by megabytes; what the file takes comes again.
        _, peak = _call(read, measured=measured)
    if peak > 2 * size + constant:
        raise BrokenContractError(f"{peak} bytes of memory for a file of {size}")
    return taken


def _call(read: Callable[[], object], *, measured: bool) -> tuple[bool, int]:
    """Whether it took the file, and the most memory meanwhile."""
    if measured:
        tracemalloc.start()
    try:
        read()
        taken = True
    except ALLOWED as error:
        taken = False
        _check_sentence(error)
    finally:
        _, peak = tracemalloc.get_traced_memory()  # zeros where nothing is traced
        tracemalloc.stop()
    return taken, peak


def _check_sentence(error: Exception) -> None:
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    raised_in = Path(frame.f_code.co_filename)
    if not str(error).strip():
        raise BrokenContractError(f"{type(error).__name__} without a message") from error
    if not raised_in.is_relative_to(PACKAGE):
        raise BrokenContractError(f"{type(error).__name__} of {raised_in.name} is no sentence of ours") from error
