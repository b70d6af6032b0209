"""Options of the commands: from flags, made from the functions that they are passed to; from a TOML file; in messages.

Functions are read as source text: to import ``tl`` or ``pl`` loads torch or matplotlib, and ``--help`` takes seconds.
"""

from __future__ import annotations

import ast
import functools
import inspect
import re
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from copy import copy
from pathlib import Path
from typing import Annotated, Any

import typer

ROOT = Path(__file__).parents[1]
# Flags that differ from the keyword argument.
_FLAGS = {
    "source_key": "source",
    "target_key": "target",
    "targets": "target",
    "rng": "seed",
    "names": "name",
    "metrics": "metric",
}
# Keyword arguments that only make sense in Python.
_OF_PYTHON = ("adata", "path", "copy", "client", "decoder", "ax", "show", "return_fig")


def public_functions(package: str) -> list[str]:
    """Return the functions that a package such as 'pl' exports."""
    tree = ast.parse((ROOT / package / "__init__.py").read_text(encoding="utf-8"))
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.level]
    return [alias.name for node in imports for alias in node.names]


# All functions of pl draw figures, but pl.report, which writes a page.
FIGURES = [name for name in public_functions("pl") if name != "report"]
# The functions whose options a command takes.
FUNCTIONS = {
    "split": ["pp.split"],
    "pca": ["pp.pca"],
    "fit": ["tl.hycnn_ot"],
    "screen": ["tl.hycnn_screen"],
    "transport": ["tl.transport"],
    "decode": ["tl.decode"],
    "evaluate": ["tl.evaluate"],
    "deg": ["get.deg"],
    "plot": [f"pl.{name}" for name in FIGURES],
    "report": ["pl.report"],
}


def with_options_of(*functions: str, optional: bool = False) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of functions such as 'tl.hycnn_ot'; ``optional`` ones have no default."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        # typer reads this signature: arguments first, and the command's options in place of those of the functions.
        of_command = dict(inspect.signature(command, eval_str=True).parameters)
        del of_command["options"]
        generated = joined({function: options_of(function, optional=optional) for function in functions})
        arguments = {name: one for name, one in of_command.items() if one.kind is one.POSITIONAL_OR_KEYWORD}
        parameters = arguments | generated | of_command

        @functools.wraps(command)
        def run(**values: Any) -> None:
            # typer gives None or an empty list for an option that is not set.
            command(**{name: value for name, value in values.items() if value is not None and value != []})

        run.__signature__ = inspect.Signature(list(parameters.values()))  # type: ignore[attr-defined]
        run.__annotations__ = {name: parameter.annotation for name, parameter in parameters.items()}
        return run

    return decorate


def joined(options: Mapping[str, Mapping[str, inspect.Parameter]]) -> dict[str, inspect.Parameter]:
    """Return the options of several functions together; the help says for which of them an option means what."""
    result: dict[str, inspect.Parameter] = {}
    for name in dict.fromkeys(name for of_function in reversed(list(options.values())) for name in of_function):
        meanings: dict[str, list[str]] = {}
        for function, of_function in options.items():
            if name in of_function:
                meanings.setdefault(of_function[name].annotation.__metadata__[0].help, []).append(function)
        one = next(of_function[name] for of_function in options.values() if name in of_function)
        if len(meanings) > 1 or sum(map(len, meanings.values())) < len(options):
            info = copy(one.annotation.__metadata__[0])
            info.help = " ".join(
                f"For {', '.join(function.partition('.')[2] for function in functions)}: {text}"
                for text, functions in meanings.items()
            )
            one = one.replace(annotation=Annotated[one.annotation.__origin__, info])
        result[name] = one
    return result


def options_of(function: str, *, optional: bool = False) -> dict[str, inspect.Parameter]:
    """Return the options for the keyword arguments of a function; with ``optional`` none has a default."""
    package, _, name = function.partition(".")
    file, node = _find(ROOT / package / "__init__.py", name)
    helps = _documented(ast.get_docstring(node) or "")
    positional, keywords = node.args.args, node.args.kwonlyargs
    defaults = [*[None] * (len(positional) - len(node.args.defaults)), *node.args.defaults, *node.args.kw_defaults]
    options = {}
    for argument, default in zip([*positional, *keywords], defaults, strict=True):
        # A default with a name, such as that of a constant, is left to the function.
        is_named = isinstance(default, ast.Name)
        value = None if is_named else inspect.Parameter.empty if default is None else ast.literal_eval(default)
        text = helps.get(argument.arg, "")
        if reference := re.match(r"As for (\w+)\.(\w+)", text):  # another function explains it
            _, other = _find(ROOT / reference[1] / "__init__.py", reference[2])
            text = _documented(ast.get_docstring(other) or "").get(argument.arg, text)
        options[argument.arg] = _option(argument.arg, argument.annotation, None if optional else value, text)
    if node.args.kwarg is not None:
        # ``**training: Unpack[TrainingOptions]``: an option that is not set takes the default of the function.
        for key, kind, text in _fields(file, node.args.kwarg.annotation.slice.id):
            options.setdefault(key, _option(key, kind, None, text or helps.get(key, "")))
    return {key: option for key, option in options.items() if key not in _OF_PYTHON}


def _find(file: Path, name: str) -> tuple[Path, Any]:
    """Return the definition of a function or class and the file that holds it; imports are followed."""
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name == name:
            return file, node
        if isinstance(node, ast.ImportFrom) and any((alias.asname or alias.name) == name for alias in node.names):
            folder = file.parents[node.level - 1] if node.level else ROOT.parent
            path = folder.joinpath(*(node.module or "").split("."))
            return _find(path / "__init__.py" if path.is_dir() else path.with_suffix(".py"), name)
    raise LookupError(f"{file} has no function or class {name!r}.")


def _fields(file: Path, name: str) -> Iterator[tuple[str, Any, str]]:
    """Yield name, type and help of the entries of a TypedDict, those of its base classes first."""
    if name == "TypedDict":
        return
    file, node = _find(file, name)
    for base in node.bases:
        yield from _fields(file, base.id)
    for entry in node.body:
        if isinstance(entry, ast.AnnAssign):
            kind, text = entry.annotation, ""
            if isinstance(kind, ast.Subscript) and ast.unparse(kind.value) == "Annotated":
                kind, text = kind.slice.elts[0], ast.literal_eval(kind.slice.elts[1])  # type: ignore[attr-defined]
            yield ast.unparse(entry.target), kind, text


def _documented(docstring: str) -> dict[str, str]:
    """Return a help text for each parameter of a numpydoc docstring: its first sentence, and what None means."""
    helps: dict[str, str] = {}
    entry = re.compile(r"^(\w[\w, ]*)\n((?: {4}.*(?:\n|$)|\n(?= {4}))+)", flags=re.MULTILINE)
    # ``n_genes``, an option, becomes --n-genes, and ``leave_out='groups'`` becomes --leave-out groups.
    options = {name for names, _ in entry.findall(docstring) for name in names.split(", ")} - {*_OF_PYTHON}
    commands = {function: f"the command {command}" for command, (function, *_) in FUNCTIONS.items()}
    docstring = re.sub(
        r"``(\w+)(?:='(\w+)')?``",
        lambda found: f"{flag_of(found[1])} {found[2] or ''}".strip() if found[1] in options else found[0],
        docstring,
    )
    for names, text in entry.findall(docstring):
        # A help text has room for the first sentence; what happens by default is often said in a later one.
        sentences = re.split(r"(?<=\.) (?=[A-Z])", " ".join(text.split()))
        short = " ".join(sentences[:1] + [sentence for sentence in sentences[1:] if sentence.startswith("None")])
        # :func:`scot_hycnn.tl.decode` becomes the command decode, and ``obs`` becomes obs.
        short = re.sub(r":[\w:]+:`~?(?:scot_hycnn\.)?([^`]*)`", lambda link: commands.get(link[1], link[1]), short)
        short = short.replace("``", "").replace("\\,", "")
        # A shell has neither arrays nor generators.
        short = re.sub(r"a boolean array, or (?=the name)|,? or (a )?generator( that gives one)?", "", short)
        helps |= dict.fromkeys(names.split(", "), short)
    return helps


def _option(name: str, annotation: ast.expr, default: Any, text: str) -> inspect.Parameter:
    """Return the parameter that typer makes an option of."""
    if default is None:
        text = re.sub(r"(^|\. )None\b", r"\1The default", text)
        text = re.sub(r"\bNone\b", "the default", text)
    else:
        # What None means cannot be asked for on the command line.
        text = re.sub(r"[;.] None [^;.]*", "", text)
    kinds = [kind.strip() for kind in ast.unparse(annotation).split("|")]
    # A name that differs in Python is taken, too.
    flags = list(dict.fromkeys([flag_of(name), f"--{name.replace('_', '-')}"]))
    info = typer.Option(*flags, help=text)
    of_list = [kind for kind in kinds if kind.startswith("Sequence[")]
    python: Any = next((type_ for type_ in (bool, int, float, Path) if type_.__name__ in kinds), str)
    if {"float", "str"} <= {*kinds}:  # a number, or a word such as auto: the solver tells which
        python = str
    if of_list == ["Sequence[int]"]:
        python, info = str, typer.Option(*flags, help=text, parser=integers)
    elif any(kind.startswith("Mapping[") for kind in kinds):
        python, info = str, typer.Option(*flags, help=text, parser=values_by_name)
    elif of_list:
        python, info = list[str], typer.Option(*flags, help=f"{text.rstrip('.')}; repeat the flag for several.")
    elif python is bool:
        info = typer.Option(help=text)  # typer makes --flag and --no-flag
    kind: Any = Annotated[python | None if default is None else python, info]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)


def flag_of(name: str) -> str:
    """Return the flag of a keyword argument."""
    return f"--{_FLAGS.get(name, name).replace('_', '-')}"


def integers(text: str) -> list[int]:
    """Read integers that are separated by commas."""
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"{text!r} must be integers separated by commas, such as 48,48.") from None


def values_by_name(text: str) -> dict[str, float | str]:
    """Read values that are separated by commas, numbers where they are some, each after its name and '='."""
    found: dict[str, float | str] = {}
    for part in text.split(","):
        name, is_given, value = (piece.strip() for piece in part.partition("="))
        if not (name and is_given and value):
            raise typer.BadParameter(f"{part!r} must be a name, '=' and a value, as in minutes=20,protein=SRC.")
        try:
            found[name] = float(value)
        except ValueError:
            found[name] = value
    return found


def read_config(ctx: typer.Context, path: Path | None) -> Path | None:
    """Make the file's entries the defaults of the command that is about to run, so that flags override them."""
    # While a shell completes, parsing is resilient.
    if path is None or ctx.resilient_parsing:
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
    params = [(flag, one) for one in ctx.command.params for flag in one.opts if len(flag.lstrip("-")) > 1]
    options = {flag.lstrip("-").replace("_", "-"): one for flag, one in params}
    del options["config"]
    if unknown := [key for key in entries if key not in options]:
        raise ValueError(
            f"{str(path)!r} has {unknown}, which {ctx.info_name!r} does not take; it takes {list(options)}."
        )
    ctx.default_map = {}
    for key, value in entries.items():
        # As text, a value is checked like that of a flag: 600.5 is no integer, and would otherwise be cut to 600.
        texts = [str(entry) for entry in (value if isinstance(value, list) else [value])]
        # hidden = [48, 48] is --hidden 48,48, and target = ["a", "b"] is --target a --target b.
        ctx.default_map[str(options[key].name)] = texts if getattr(options[key], "multiple", False) else ",".join(texts)
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


def in_flags(text: str) -> str:
    """Return a message with flags for keyword arguments, and commands for functions, as far as there are some."""
    names = _names()
    # The first argument is the file. The key of the fit is the only other one that is passed by position.
    text = re.sub(r"(?<![\w.])s[ch]\.\w+\.(\w+)(?:\(([^()]*)\))?", _command, text)
    any_name = "|".join(sorted(names, key=len, reverse=True))
    # Not in quotes, which hold names from the file, nor as part of a longer name.
    text = re.sub(rf"(?<![\w.\-'\"])({any_name})=(True|False|None|)(?!=)\s*", _flag, text)
    # Without a value, names without '_' are English words, but for one.
    others = "|".join(name for name in names if "_" in name or name == "groupby")
    return re.sub(rf"(?<![\w.\-'\"])({others})(?![\w'\"=(])", lambda found: flag_of(found[1]), text)


@functools.cache
def _names() -> frozenset[str]:
    """Return the keyword arguments that are options of some command."""
    return frozenset(name for function in FUNCTIONS.values() for of in function for name in options_of(of))


def _command(found: re.Match[str]) -> str:
    function, arguments = found[1], found[2] or ""
    commands = {of.partition(".")[2]: command for command, of_command in FUNCTIONS.items() for of in of_command}
    if function not in commands or (found[0].startswith("sc.") and function != "pca"):
        return found[0]
    name = f"plot {function.replace('_', '-')}" if function in FIGURES else commands[function]
    given = [part for part in arguments.split(", ") if part not in ("", "adata", "...")]
    return " ".join(["scot-hycnn", name, *(part if "=" in part else f"key={part}" for part in given)])


def _flag(found: re.Match[str]) -> str:
    flag, value = flag_of(found[1]), found[2]
    no_value = {"True": flag, "False": flag.replace("--", "--no-", 1), "None": f"no {flag}"}
    # What stood behind the value stays behind it.
    space = re.search(r"\s*$", found[0])
    assert space is not None
    return no_value[value] + space[0] if value else f"{flag} "


class Translated:
    """Standard error, on which the log of scanpy is written in the words of a shell."""

    def write(self, text: str) -> int:
        """Write one message."""
        return sys.stderr.write(in_flags(text))

    def flush(self) -> None:
        """Write what is buffered."""
        sys.stderr.flush()
