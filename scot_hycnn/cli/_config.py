"""Options from a TOML file."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated

import typer


def read_config(ctx: typer.Context, path: Path | None) -> Path | None:
    """Make the file's entries the defaults of the command that is about to run, so that flags override them."""
    if path is None or ctx.resilient_parsing:  # the latter while a shell completes
        return path
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {str(path)!r}.")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{str(path)!r} cannot be read as TOML: {error}") from error
    # Tables of other commands are left out; the command's own table overrides what stands outside of tables.
    assert ctx.parent is not None
    commands: list[str] = list(ctx.parent.command.commands)  # type: ignore[attr-defined]
    tables = {key: value for key, value in content.items() if isinstance(value, dict)}
    if unknown := [key for key in tables if key not in commands]:
        raise ValueError(f"{str(path)!r} has the tables {unknown}; a table is one of the commands {commands}.")
    entries = {key: value for key, value in content.items() if key not in tables} | tables.get(str(ctx.info_name), {})
    entries = {key.replace("_", "-"): value for key, value in entries.items()}
    # Options have the names of their flags, without the dashes in front.
    options = {max(one.opts, key=len).lstrip("-").replace("_", "-"): one for one in ctx.command.params}
    del options["config"]
    if unknown := [key for key in entries if key not in options]:
        raise ValueError(
            f"{str(path)!r} has {unknown}, which {ctx.info_name!r} does not take; it takes {list(options)}."
        )
    ctx.default_map = {}
    for key, value in entries.items():
        # As text, a value is checked like that of a flag: 600.5 is no integer, and would otherwise be cut to 600.
        entries_of_list = [str(entry) for entry in (value if isinstance(value, list) else [value])]
        # hidden = [48, 48] is --hidden 48,48, and target = ["a", "b"] is --target a --target b.
        text = entries_of_list if getattr(options[key], "multiple", False) else ",".join(entries_of_list)
        try:
            options[key].process_value(ctx, text)
        except typer.BadParameter as error:
            raise ValueError(f"{key} = {value!r} in {str(path)!r} cannot be used: {error.message}") from error
        ctx.default_map[str(options[key].name)] = text
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
