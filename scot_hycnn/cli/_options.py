"""Options of the commands, generated from the functions that they are passed to.

The signature, the ``TypedDict`` of ``**options`` and the docstring of a function are read from its source text: to
import ``tl`` or ``pl`` would load torch or matplotlib, and ``--help`` would take seconds.
"""

from __future__ import annotations

import ast
import functools
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

ROOT = Path(__file__).parents[1]
# Flags that differ from the keyword argument.
_FLAGS = {"source_key": "source", "target_key": "target", "rng": "seed", "names": "name", "metrics": "metric"}
# Keyword arguments that only make sense in Python.
_OF_PYTHON = ("adata", "path", "copy", "client", "decoder", "ax", "show", "return_fig")


def with_options_of(*functions: str, optional: bool = False) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of functions such as 'tl.hycnn_ot', which it gets as ``**options`` if they are set.

    With ``optional``, no option is required or has a default on the command line.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command, eval_str=True)
        # typer reads this signature; the command's own options have precedence over those of the function.
        of_command = [one for one in signature.parameters.values() if one.kind is not one.VAR_KEYWORD]
        generated: dict[str, inspect.Parameter] = {}
        for function in functions:
            generated = options_of(function, optional=optional) | generated
        parameters = {one.name: one for one in of_command if one.kind is one.POSITIONAL_OR_KEYWORD}
        parameters |= generated | {one.name: one for one in of_command}

        @functools.wraps(command)
        def run(**values: Any) -> None:
            # typer gives None or an empty list for an option that is not set.
            command(**{name: value for name, value in values.items() if value is not None and value != []})

        run.__signature__ = inspect.Signature(list(parameters.values()))  # type: ignore[attr-defined]
        run.__annotations__ = {name: parameter.annotation for name, parameter in parameters.items()}
        return run

    return decorate


def public_functions(package: str) -> list[str]:
    """Return the functions that a package such as 'pl' exports."""
    tree = ast.parse((ROOT / package / "__init__.py").read_text(encoding="utf-8"))
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.level]
    return [alias.name for node in imports for alias in node.names]


def options_of(function: str, *, optional: bool = False) -> dict[str, inspect.Parameter]:
    """Return the options for the keyword arguments of a function; with ``optional`` none has a default."""
    package, _, name = function.partition(".")
    file, node = _find(ROOT / package / "__init__.py", name)
    helps = _documented(ast.get_docstring(node) or "")
    positional, keywords = node.args.args, node.args.kwonlyargs
    defaults = [*[None] * (len(positional) - len(node.args.defaults)), *node.args.defaults, *node.args.kw_defaults]
    options = {}
    for argument, default in zip([*positional, *keywords], defaults, strict=True):
        value = inspect.Parameter.empty if default is None else ast.literal_eval(default)
        value = None if optional else value
        options[argument.arg] = _option(argument.arg, argument.annotation, value, helps.get(argument.arg, ""))
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
        if isinstance(node, ast.ImportFrom) and any(alias.name == name for alias in node.names):
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
    for names, text in re.findall(r"^(\w[\w, ]*)\n((?: {4}.*(?:\n|$)|\n(?= {4}))+)", docstring, flags=re.MULTILINE):
        # A help text has room for the first sentence; what happens by default is often said in a later one.
        sentences = re.split(r"(?<=\.) (?=[A-Z])", " ".join(text.split()))
        short = " ".join(sentences[:1] + [sentence for sentence in sentences[1:] if sentence.startswith("None")])
        # :func:`scot_hycnn.tl.decode` becomes tl.decode, and ``obs`` becomes obs.
        short = re.sub(r":[\w:]+:`~?(?:scot_hycnn\.)?([^`]*)`", r"\1", short).replace("``", "").replace("\\,", "")
        helps |= dict.fromkeys(names.split(", "), short)
    return helps


def _option(name: str, annotation: ast.expr, default: Any, text: str) -> inspect.Parameter:
    """Return the parameter that typer makes an option of."""
    if default is None:
        text = re.sub(r"(^|\. )None\b", r"\1The default", text)
        text = re.sub(r"\bNone\b", "the default", text)
    else:  # what None means cannot be asked for on the command line
        text = re.sub(r"[;.] None [^;.]*", "", text)
    kinds = [kind.strip() for kind in ast.unparse(annotation).split("|")]
    flag = flag_of(name)
    info = typer.Option(flag, help=text)
    of_list = [kind for kind in kinds if kind.startswith("Sequence[")]
    python: Any = next((type_ for type_ in (bool, int, float, Path) if type_.__name__ in kinds), str)
    if of_list == ["Sequence[int]"]:
        python, info = str, typer.Option(flag, help=text, parser=integers)
    elif of_list:
        python, info = list[str], typer.Option(flag, help=f"{text.rstrip('.')}; repeat the flag for several.")
    elif python is bool:
        info = typer.Option(help=text)  # typer makes --flag and --no-flag
    kind: Any = python | None if default is None else python
    annotated = Annotated[kind, info]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotated)


def flag_of(name: str) -> str:
    """Return the flag of a keyword argument."""
    return f"--{_FLAGS.get(name, name).replace('_', '-')}"


def integers(text: str) -> list[int]:
    """Read integers that are separated by commas."""
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"{text!r} must be integers separated by commas, such as 48,48.") from None
