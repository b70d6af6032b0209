"""The commands together: what they print where, and how they end."""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Callable
from typing import Any

try:
    import typer
except ModuleNotFoundError:  # the extra `cli`
    typer = None  # type: ignore[assignment]

_HELP = "Optimal transport maps between single-cell perturbation conditions."
_EPILOG = (
    "Results are printed on standard output; messages, warnings and progress on standard error. "
    "Exit codes: 0, done; 2, something was wrong with the input, said in one line that begins with 'error:', and "
    "nothing was written; 130, interrupted."
)
_WRONG_INPUT, _INTERRUPTED = 2, 130


def main() -> None:
    """Run ``scot-hycnn``.

    Raises
    ------
    SystemExit
        With code 2 and one line on standard error if something was wrong with the input, 130 if interrupted.
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
    except (ValueError, TypeError, KeyError, OSError, ImportError) as error:
        _stop(str(error))
    except (KeyboardInterrupt, typer.Abort):
        raise SystemExit(_INTERRUPTED) from None
    if code:
        raise SystemExit(code)


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
