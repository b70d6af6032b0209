"""The program: what it prints where, and how it ends."""

from __future__ import annotations

import functools
import sys
import traceback
import warnings
from collections.abc import Callable
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Annotated, Any

try:
    import typer
except ModuleNotFoundError:  # the extra `cli`
    typer = None  # type: ignore[assignment]

_HELP = "Optimal transport maps between single-cell perturbation conditions."
_EPILOG = (
    "Results are printed on standard output; messages, warnings and progress on standard error. "
    "Exit codes: 0, done; 1, an error of scot_hycnn itself, with a traceback to report; 2, something was wrong with "
    "the input, or the disk or the memory did not suffice, which one line that begins with 'error:' says, and nothing "
    "was written; 130, interrupted."
)
_OUR_FAULT, _WRONG_INPUT, _INTERRUPTED = 1, 2, 130

# Exceptions by which this package reports that something is wrong with the input, or that an extra is missing.
_OF_CHECKS = (ValueError, TypeError, ImportError)
# Exceptions of the machine, and warnings that the user has turned into errors (python -W error).
_OF_MACHINE = (OSError, MemoryError, UserWarning)
_PACKAGE = Path(__file__).parents[1]


def main() -> None:
    """Run ``scot-hycnn``; errors end it with the exit codes that its help explains."""
    if typer is None:
        raise SystemExit("The command line needs typer: pip install 'scot-hycnn[cli]'")

    def show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
        from ._options import in_flags

        print("warning:", in_flags(" ".join(str(message).split())), file=sys.stderr)

    # Set once for the process: a warning is one line, without the place in the source text.
    warnings.showwarning = show_warning
    # Of click, which is a package of its own or a part of typer, depending on the version of typer.
    wrong_usage: type[Any] = typer.BadParameter.__bases__[0]
    arguments = sys.argv[1:] or ["--help"]
    try:
        code = _app()(arguments, prog_name="scot-hycnn", standalone_mode=False)
    except wrong_usage as error:
        context = error.ctx.command_path if error.ctx else "scot-hycnn"
        _stop(f"{error.format_message()} See {context} --help.")
    except (KeyboardInterrupt, typer.Abort):
        raise SystemExit(_INTERRUPTED) from None
    except Exception as error:
        if _is_of_user(error):
            from ._options import in_flags

            _stop(in_flags(str(error)) or type(error).__name__)
        traceback.print_exception(error)
        print(
            "This looks like an error of scot_hycnn and not of your input: please report it, with the lines above and "
            "the command that you ran.",
            file=sys.stderr,
        )
        raise SystemExit(_OUR_FAULT) from error
    if code:
        raise SystemExit(code)


def _app() -> Any:
    from ._commands import COMMANDS

    app = typer.Typer(
        help=_HELP, epilog=_EPILOG, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None
    )
    for name, command in COMMANDS.items():
        app.command(name, epilog="")(_with_log(command))

    @app.callback()
    def root(
        *,
        version: Annotated[
            bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
        ] = False,
    ) -> None: ...

    return app


def _print_version(asked: bool) -> None:
    if asked:
        print(f"scot-hycnn {version_of('scot-hycnn')}")
        raise typer.Exit


def _with_log(command: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(command)
    def run(**options: Any) -> None:
        from scanpy import settings

        from ._options import Translated

        # scanpy's default hides what the tools report.
        settings.verbosity, settings.logfile = "info", Translated()
        command(**options)

    return run


def _is_of_user(error: Exception) -> bool:
    """Return whether the input or the machine is at fault, and not this package."""
    if isinstance(error, _OF_MACHINE):
        # A missing file of this package is not the user's.
        name = getattr(error, "filename", None)
        return not (isinstance(name, (str, Path)) and Path(name).is_relative_to(_PACKAGE))
    # The exception of torch, which is not imported for its name.
    if type(error).__name__ == "OutOfMemoryError":
        return True
    # A check of this package ends in a ``raise`` of its own. A ValueError of numpy, such as LinAlgError, or of Python,
    # such as that of zip, has the same class but begins elsewhere.
    last = traceback.extract_tb(error.__traceback__)[-1]
    is_raised_here = Path(last.filename).is_relative_to(_PACKAGE) and (last.line or "").startswith("raise ")
    return isinstance(error, _OF_CHECKS) and is_raised_here


def _stop(message: str) -> None:
    print("error:", " ".join(message.split()), file=sys.stderr)
    raise SystemExit(_WRONG_INPUT)
