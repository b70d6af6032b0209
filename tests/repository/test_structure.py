"""The rules of the house, read from the source: layers, signatures, docstrings, and what must not be there."""

from __future__ import annotations

import ast
import dataclasses
import doctest
import importlib
import inspect
import re
from functools import cache
from pathlib import Path
from textwrap import dedent

import pytest

import scot_hycnn

ROOT = Path(scot_hycnn.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
PUBLIC = ["datasets", "get", "metrics", "pl", "potentials", "pp", "regression", "solver", "tl"]
OWN = {
    "potentials", "regression", "solver", "metrics", "datasets", "_anndata", "tl", "pl", "pp", "get", "report", "cli",
}  # fmt: skip

# Layer to what it may not import: layers only look down.
NEVER = {
    "potentials": {"anndata", "scanpy", "pandas", "matplotlib"} | OWN - {"potentials"},
    "solver": {"anndata", "scanpy", "pandas", "matplotlib"} | OWN - {"potentials", "solver"},
    "regression": {"anndata", "scanpy", "pandas", "matplotlib"} | OWN - {"potentials", "solver", "regression"},
    "metrics": {"anndata", "scanpy", "pandas", "matplotlib"} | OWN - {"metrics"},
    "datasets": {"matplotlib"} | OWN - {"datasets"},
    "_anndata": {"torch", "scanpy", "matplotlib"} | OWN - {"_anndata"},
    "tl": {"matplotlib", "pl", "get", "cli"},
    "pl": {"torch"} | OWN - {"pl", "_anndata", "report"},
    "report": {"torch"} | OWN - {"pl", "_anndata", "report"},
    "pp": {"torch", "matplotlib"} | OWN - {"pp", "_anndata"},
    "get": {"torch", "matplotlib"} | OWN - {"get", "_anndata"},
    # The top layer: it calls what users call, and reads and writes files; see also test_help_loads_nothing_heavy.
    "cli": {"torch", "matplotlib", "potentials", "solver", "metrics", "datasets", "pp"},
}
EXCEPTIONS = {
    "get/_model.py": {"solver"},  # it returns the solver's TransportMap
    # The one metric that takes an AnnData, scores the solver's maps, and logs what it leaves out.
    "metrics/_evaluate.py": {"anndata", "pandas", "scanpy", "_anndata", "solver"},
}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def layer_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Other packages by their first name, our own by that of their layer."""
    found = set()
    package = ["scot_hycnn", *path.relative_to(ROOT).parent.parts]
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *filter(None, [node.module])])
            modules = [f"{module}.{alias.name}" for alias in node.names]
        else:
            continue
        for module in modules:
            first, *rest = module.split(".")
            found.add(rest[0] if first == "scot_hycnn" and rest else first)
    return found


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_layers_only_look_down(path):
    forbidden = NEVER.get(layer_of(path), set()) - EXCEPTIONS.get(name_of(path), set())
    assert imported(path) & forbidden == set()


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_nothing_that_runs_what_it_reads(path):
    assert imported(path).isdisjoint({"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"})
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in {"eval", "exec", "compile", "torch.load", "torch.save", "__import__"}, called
            assert "allow_pickle" not in {keyword.arg for keyword in node.keywords}, called


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_functions_are_short(path):
    for node in ast.walk(tree(path)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            length = body[-1].end_lineno - body[0].lineno + 1 if body else 0
            assert length <= 60, f"{node.name} has {length} lines"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_names_say_what_is_inside(path):
    parts = {part.removesuffix(".py").strip("_") for part in path.relative_to(ROOT).parts}
    assert parts.isdisjoint({"utils", "helpers", "common", "manager", "misc", "tools", "info"})


@pytest.mark.parametrize("name", PUBLIC)
def test_all_is_sorted_true_and_complete(name):
    module = importlib.import_module(f"scot_hycnn.{name}")
    assert module.__doc__
    assert len(module.__all__) == len(set(module.__all__))
    imports = {
        alias.asname or alias.name
        for node in tree(ROOT / name / "__init__.py").body
        if isinstance(node, ast.ImportFrom) and node.module != "__future__"
        for alias in node.names
    }
    assert set(module.__all__) == imports


def test_the_top_level():
    assert set(scot_hycnn.__all__) == {
        "__version__",
        "datasets",
        "get",
        "metrics",
        "pl",
        "pp",
        "regression",
        "solver",
        "tl",
    }
    with pytest.raises(AttributeError, match="has no attribute 'nix'; it has"):
        _ = scot_hycnn.nix


def public_callables():
    """Functions and classes in __all__, and the public methods of the classes."""
    for package in PUBLIC:
        module = importlib.import_module(f"scot_hycnn.{package}")
        for name in module.__all__:
            thing = getattr(module, name)
            yield f"{package}.{name}", thing
            if inspect.isclass(thing):
                for method_name, method in vars(thing).items():
                    function = getattr(method, "__func__", method)
                    if inspect.isfunction(function) and not method_name.startswith("_"):
                        yield f"{package}.{name}.{method_name}", function


CALLABLES = dict(public_callables())
FUNCTIONS = {name: thing for name, thing in CALLABLES.items() if inspect.isfunction(thing)}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_at_most_three_positional_parameters(name):
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(FUNCTIONS[name]).parameters
    positional = [p for p, parameter in parameters.items() if parameter.kind in kinds and p not in ("self", "cls")]
    assert len(positional) <= 3, positional


def sections(docstring: str) -> set[str]:
    return set(re.findall(r"^([A-Z][a-z ]+)\n-{3,}$", inspect.cleandoc(docstring), flags=re.MULTILINE))


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name.count(".") == 1])
def test_docstring_sections(name):
    function = FUNCTIONS[name]
    assert function.__doc__
    found = sections(function.__doc__)
    signature = inspect.signature(function)
    wanted = {"Returns", "Examples"} | ({"Parameters"} if signature.parameters else set())
    if any(isinstance(node, ast.Raise) for node in ast.walk(ast.parse(dedent(inspect.getsource(function))))):
        wanted.add("Raises")
    assert wanted <= found
    for parameter in signature.parameters:
        assert re.search(rf"^\s*(\w+, )*{parameter}(, \w+)*$", function.__doc__, flags=re.MULTILINE), parameter


@pytest.mark.parametrize("name", CALLABLES)
def test_everything_public_is_documented_and_typed(name):
    thing = CALLABLES[name]
    assert inspect.getdoc(thing)
    if inspect.isfunction(thing):
        signature = inspect.signature(thing)
        assert signature.return_annotation is not inspect.Signature.empty
        untyped = [
            p.name for p in signature.parameters.values() if p.annotation is p.empty and p.name not in ("self", "cls")
        ]
        assert not untyped


def fields_of(thing) -> list[str]:
    """Parameters of a dataclass, or of the class that says how it is made."""
    return [field.name for field in dataclasses.fields(thing) if field.init] if dataclasses.is_dataclass(thing) else []


CLASSES = {name: thing for name, thing in CALLABLES.items() if inspect.isclass(thing)}
# An alias of a dict, and the options that fit documents.
WITHOUT_PARAMETERS = {"potentials.Weights", "solver.Settings"}


@pytest.mark.parametrize("name", [name for name in CLASSES if name not in WITHOUT_PARAMETERS])
def test_classes_document_what_they_are_made_of(name):
    thing = CLASSES[name]
    assert "__doc__" in vars(thing)  # its own, not its base's
    assert "Parameters" in sections(thing.__doc__)
    if not inspect.isabstract(thing):
        assert "Examples" in sections(thing.__doc__)
    for field in fields_of(thing):
        assert re.search(rf"^\s*(\w+, )*{field}(, \w+)*$", thing.__doc__, flags=re.MULTILINE), field


@pytest.mark.parametrize("name", [name for name in CLASSES if name.startswith("potentials.")])
def test_potentials_name_their_source(name):
    thing = CLASSES[name]
    if name != "potentials.Weights" and not inspect.isabstract(thing):
        assert "References" in sections(thing.__doc__)


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name.startswith("potentials.")])
def test_methods_of_potentials_document_their_parameters(name):
    """On the method itself, or on that of the base which it fills in."""
    function, (_, class_name, method) = FUNCTIONS[name], name.split(".")
    documented = inspect.getdoc(getattr(CLASSES[f"potentials.{class_name}"], method))
    parameters = [parameter for parameter in inspect.signature(function).parameters if parameter not in ("self", "cls")]
    if len(parameters) > 1:
        assert {"Parameters", "Returns"} <= sections(documented) or inspect.signature(
            function
        ).return_annotation == "None"
    for parameter in parameters:
        assert re.search(rf"\b{parameter}\b", documented), parameter


def examples(thing) -> str:
    """Lines of the examples in its docstring, and for a class in those of the classes that it extends."""
    documented = [one.__doc__ or "" for one in (inspect.getmro(thing) if inspect.isclass(thing) else [thing])]
    return "\n".join(re.findall(r"^ *(?:>>>|\.\.\.) .*$", "\n".join(documented), flags=re.MULTILINE))


@pytest.mark.parametrize("name", [name for name in CALLABLES if name != "potentials.Weights"])
def test_everything_public_is_in_an_example(name):
    """A function in its own, a method in its own or its class's, a class in its own."""
    package, first, *rest = name.split(".")
    shown = "".join(examples(CALLABLES[part]) for part in {name, f"{package}.{first}"})
    assert shown
    if name in FUNCTIONS:
        assert re.search(rf"\b{[first, *rest][-1]}\b", shown)


WITH_EXAMPLES = [
    path
    for path in FILES
    if ">>>" in path.read_text(encoding="utf-8") and layer_of(path) not in ("metrics", "datasets")
]  # those two run their examples in tests of their own


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=name_of)
def test_examples_run(path):
    module = ".".join(["scot_hycnn", *path.relative_to(ROOT).with_suffix("").parts]).removesuffix(".__init__")
    failed, attempted = doctest.testmod(importlib.import_module(module))
    assert attempted > 0
    assert failed == 0
