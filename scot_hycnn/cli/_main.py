"""The commands together: what they print where, and how they end."""

from __future__ import annotations

import dis
import functools
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

try:
    import typer
except ModuleNotFoundError:  # the extra `cli`
    typer = None  # type: ignore[assignment]

_HELP = "Optimal transport maps between single-cell perturbation conditions."
_EPILOG = (
    "Results are printed on standard output; messages, warnings and progress on standard error. "
    "Exit codes: 0, done; 1, an error of scot_hycnn itself, with a traceback to report; 2, something was wrong with "
    "the input, or the disk or the memory did not suffice, said in one line that begins with 'error:', and nothing was "
    "written; 130, interrupted."
)
_OUR_FAULT, _WRONG_INPUT, _INTERRUPTED = 1, 2, 130

_PACKAGE = Path(__file__).parents[1]
# What our checks raise, where something is wrong with the input or an extra is missing.
_OF_CHECKS = (ValueError, TypeError, ImportError)
# What the machine refuses, whoever asks, and warnings that the user has made errors (python -W error).
_OF_THE_MACHINE = (OSError, MemoryError, UserWarning)


def main() -> None:
    """Run ``scot-hycnn``.

    Raises
    ------
    SystemExit
        With code 2 and one line on standard error if something was wrong with the input or the machine refused, 1 and
        a traceback if the error is one of ours, 130 if interrupted.
    """
    if typer is None:
        raise SystemExit("The command line needs typer: pip install 'scot-hycnn[cli]'")
    # Of click, which typer has brought with it or not, depending on its version.
    wrong_usage: type[Any] = typer.BadParameter.__bases__[0]
    arguments = sys.argv[1:] or ["--help"]
    try:
        code = _app()(arguments, prog_name="scot-hycnn", standalone_mode=False)
    except wrong_usage as error:
        _stop(f"{error.format_message()} {_how_to_get_help(arguments)}")
    except (KeyboardInterrupt, typer.Abort):
        raise SystemExit(_INTERRUPTED) from None
    except Exception as error:  # noqa: BLE001 - every kind is told, each as what it is
        if not _is_the_users(error):
            _admit(error)
        _stop(str(error) or type(error).__name__)
    if code:
        raise SystemExit(code)


def _is_the_users(error: Exception) -> bool:
    """Whether the input or the machine is at fault: all that a check of ours raises, and what the machine refuses.

    A ValueError of NumPy in the midst of our work, such as a LinAlgError, has the same class as one of our checks. What
    tells them apart is where they begin: with a ``raise`` of this package, or in other people's code.
    """
    if isinstance(error, _OF_THE_MACHINE):
        # A file of our own that is missing is our fault.
        return not _is_ours(getattr(error, "filename", None))
    if type(error).__name__ == "OutOfMemoryError":  # of torch, which is not imported for its name
        return True
    return isinstance(error, _OF_CHECKS) and _is_raised_here(error)


def _is_raised_here(error: Exception) -> bool:
    step = error.__traceback__
    while step is not None and step.tb_next is not None:
        step = step.tb_next
    if step is None:
        return False
    code = step.tb_frame.f_code
    return _is_ours(code.co_filename) and dis.opname[code.co_code[step.tb_lasti]] == "RAISE_VARARGS"


def _is_ours(path: object) -> bool:
    return isinstance(path, (str, Path)) and Path(path).is_relative_to(_PACKAGE)


def _admit(error: Exception) -> None:
    traceback.print_exception(error)
    print(
        "This looks like an error of scot_hycnn and not of your input: please report it, with the lines above and the "
        "command that you ran.",
        file=sys.stderr,
    )
    raise SystemExit(_OUR_FAULT) from error


def _app() -> Any:
    from ._commands import COMMANDS

    app = typer.Typer(
        help=_HELP, epilog=_EPILOG, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None
    )
    for command in COMMANDS.values():
        app.command(epilog="")(_announced(command))
    return app


def _announced(command: Callable[..., None]) -> Callable[..., None]:
    """Log what a command does, on standard error as scanpy does, with warnings in one line each."""

    @functools.wraps(command)
    def run(**options: Any) -> None:
        from scanpy import settings

        settings.verbosity = "info"
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            command(**options)

    return run


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print("warning:", " ".join(str(message).split()), file=sys.stderr)


def _how_to_get_help(arguments: list[str]) -> str:
    from ._commands import COMMANDS

    command = f"{arguments[0]} " if arguments[0] in COMMANDS else ""
    return f"See scot-hycnn {command}--help."


def _stop(message: str) -> None:
    print("error:", " ".join(message.split()), file=sys.stderr)
    raise SystemExit(_WRONG_INPUT)
