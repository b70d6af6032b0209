"""Options from a TOML file."""

from __future__ import annotations

import inspect
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer

# Type of an option to the types of TOML that it takes, and their name. Booleans are whole numbers to Python only.
_KINDS: dict[type, tuple[tuple[type, ...], str]] = {
    bool: ((bool,), "true or false"),
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
    str: ((str,), "text in quotes"),
    Path: ((str,), "a path in quotes"),
}


def read_config(ctx: typer.Context, path: Path | None) -> Path | None:
    """Make the file's entries the defaults of the command that is about to run, so that flags override them.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no TOML, or has keys or values that the command does not take.
    """
    if path is None or ctx.resilient_parsing:  # the latter while a shell completes
        return path
    from ._commands import COMMANDS

    name = str(ctx.info_name)
    options = _options(COMMANDS[name])
    entries = _entries(_read(path), name, path)
    unknown = [key for key in entries if key not in options]
    if unknown:
        raise ValueError(f"{str(path)!r} has {unknown}, which {name!r} does not take; it takes {list(options)}.")
    ctx.default_map = {
        parameter: _checked(entries[key], kind, f"{key} in {str(path)!r}")
        for key, (parameter, kind) in options.items()
        if key in entries
    }
    return path


Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        callback=read_config,
        is_eager=True,
        help="TOML file with options by name, or a table of them for each command; flags override it.",
    ),
]


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {str(path)!r}.")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{str(path)!r} cannot be read as TOML: {error}") from error


def _entries(content: dict[str, Any], command: str, path: Path) -> dict[str, Any]:
    """Keys of the file, and those of the command's own table, with the dashes of the options."""
    from ._commands import COMMANDS

    tables = {key: value for key, value in content.items() if isinstance(value, dict)}
    unknown = [key for key in tables if key not in COMMANDS]
    if unknown:
        raise ValueError(f"{str(path)!r} has the tables {unknown}; a table is one of the commands {list(COMMANDS)}.")
    flat = {key: value for key, value in content.items() if key not in tables}
    return {key.replace("_", "-"): value for key, value in (flat | tables.get(command, {})).items()}


def _options(command: Callable[..., None]) -> dict[str, tuple[str, Any]]:
    """Name of each option, as it is written after the dashes, to the parameter and its type."""
    hints = get_type_hints(command, include_extras=True)
    found = {}
    for parameter in inspect.signature(command).parameters:
        annotated, info = get_args(hints[parameter])[:2]
        long = next((name for name in info.param_decls or () if name.startswith("--")), f"--{parameter}")
        if parameter != "config":
            found[long.removeprefix("--").replace("_", "-")] = (parameter, annotated)
    return found


def _checked(value: Any, kind: Any, where: str) -> Any:
    """A value of the type that the option has; typer would cut 600.5 to 600."""
    if isinstance(kind, UnionType):
        kind = next(part for part in get_args(kind) if part is not type(None))
    if get_origin(kind) is list:
        values = value if isinstance(value, list) else [value]
        return [_checked(each, get_args(kind)[0], where) for each in values]
    if kind is str and isinstance(value, list):  # hidden = [48, 48] for --hidden 48,48
        return ",".join(str(each) for each in value)
    allowed, called = _KINDS[kind]
    if not isinstance(value, allowed) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{where} is {value!r}; it takes {called}.")
    return str(value) if kind is Path else value
