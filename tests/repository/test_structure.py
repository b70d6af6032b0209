"""What the whole public interface has in common: names, types, documentation and examples that run."""

from __future__ import annotations

import ast
import dataclasses
import doctest
import importlib
import inspect
import re
from textwrap import dedent

import pytest
from repository.measures import FILES, ROOT, module_of, nodes, tree

import scot_hycnn

PACKAGES = ["datasets", "get", "metrics", "pl", "potentials", "pp", "regression", "solver", "tl"]
# Names without parameters and examples in their docstring: an alias of a dict, and the options of a fit.
DOCUMENTED_ELSEWHERE = {"potentials.Weights", "solver.Settings", "solver.TrainingOptions", "tl.FitOptions"}
# Packages whose docstrings have examples, private modules included.
WITH_EXAMPLES = sorted({path.relative_to(ROOT).parts[0] for path in FILES if ">>>" in path.read_text(encoding="utf-8")})


def public_names(package):
    """Functions and classes of a package by name, and the public methods of the classes."""
    module, found = importlib.import_module(f"scot_hycnn.{package}"), {}
    for name in module.__all__:
        thing = getattr(module, name)
        found[f"{package}.{name}"] = thing
        if inspect.isclass(thing):
            methods = {key: getattr(method, "__func__", method) for key, method in vars(thing).items()}
            found |= {
                f"{package}.{name}.{key}": method
                for key, method in methods.items()
                if inspect.isfunction(method) and not key.startswith("_")
            }
    return found


def sections(docstring):
    return set(re.findall(r"^([A-Z][a-z ]+)\n-{3,}$", inspect.cleandoc(docstring), flags=re.MULTILINE))


def missing_names(names, docstring):
    """Names that have no entry in a numpydoc docstring; an entry may hold several names."""
    entries = re.findall(r"^\s*((?:\*{0,2}\w+, )*\*{0,2}\w+)$", docstring, flags=re.MULTILINE)
    return set(names) - {name.strip("*") for entry in entries for name in entry.split(", ")}


def examples_of(*things):
    """Lines of the examples in docstrings; those of a class include those of the classes that it extends."""
    documented = [one.__doc__ or "" for thing in things for one in getattr(thing, "__mro__", [thing])]
    return "\n".join(re.findall(r"^ *(?:>>>|\.\.\.) .*$", "\n".join(documented), flags=re.MULTILINE))


def check_function(name, function, problems):
    signature = inspect.signature(function)
    parameters = {key: value for key, value in signature.parameters.items() if key not in ("self", "cls")}
    positional = [p for p in parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(positional) > 3:
        problems.append(f"{name}: more than three positional parameters")
    annotations = [signature.return_annotation, *(parameter.annotation for parameter in parameters.values())]
    if inspect.Parameter.empty in annotations:
        problems.append(f"{name}: a parameter or the result has no type")
    if name.count(".") > 1:  # a method may be documented by its class or base
        return
    wanted = {"Returns", "Examples"} | ({"Parameters"} if parameters else set())
    if any(isinstance(node, ast.Raise) for node in ast.walk(ast.parse(dedent(inspect.getsource(function))))):
        wanted.add("Raises")
    missing = wanted - sections(function.__doc__) | missing_names(parameters, function.__doc__)
    problems += [f"{name}: {part} is not documented" for part in missing]


def check_class(name, thing, problems):
    if name in DOCUMENTED_ELSEWHERE:
        return
    wanted = {"Parameters"} | (set() if inspect.isabstract(thing) else {"Examples"})
    if name.startswith("potentials.") and not inspect.isabstract(thing):
        wanted.add("References")
    fields = (
        [field.name for field in dataclasses.fields(thing) if field.init] if dataclasses.is_dataclass(thing) else []
    )
    documented = vars(thing).get("__doc__") or ""  # not the docstring of its base
    problems += [f"{name}: {part} is not documented" for part in wanted - sections(documented)]
    problems += [f"{name}: {field} is not documented" for field in missing_names(fields, documented)]


@pytest.mark.parametrize("package", PACKAGES)
def test_public_names_are_documented_typed_and_shown_in_an_example(package):
    names, problems = public_names(package), []
    for name, thing in names.items():
        if not inspect.getdoc(thing):
            problems.append(f"{name}: no docstring")
        elif inspect.isclass(thing):
            check_class(name, thing, problems)
        elif inspect.isfunction(thing):
            check_function(name, thing, problems)
        # A method may be shown in the example of its class, and a class under the name of a function that makes it.
        shown = examples_of(thing, names[".".join(name.split(".")[:2])])
        wanted = "" if inspect.isclass(thing) else rf"\b{name.rpartition('.')[2]}\b"
        if name not in DOCUMENTED_ELSEWHERE and not (shown and re.search(wanted, shown)):
            problems.append(f"{name}: not in an example")
    assert problems == []


@pytest.mark.parametrize("package", PACKAGES)
def test_all_is_what_the_package_imports(package):
    module = importlib.import_module(f"scot_hycnn.{package}")
    imports = [
        alias.asname or alias.name
        for node in tree(ROOT / package / "__init__.py").body
        if isinstance(node, ast.ImportFrom) and node.module != "__future__"
        for alias in node.names
    ]
    assert sorted(module.__all__) == sorted(imports)


@pytest.mark.parametrize("package", WITH_EXAMPLES)
def test_examples_in_docstrings_run(package):
    failed = []
    for path in FILES:
        if path.relative_to(ROOT).parts[0] == package and ">>>" in path.read_text(encoding="utf-8"):
            result = doctest.testmod(importlib.import_module(module_of(path)))
            failed += [module_of(path)] if result.failed or not result.attempted else []
    assert failed == []


def test_an_unknown_name_of_the_package_lists_the_known_ones():
    assert set(scot_hycnn.__all__) == {"__version__", *PACKAGES} - {"potentials"}
    with pytest.raises(AttributeError, match=r"'nix'.*datasets"):
        _ = scot_hycnn.nix


def test_nothing_runs_what_it_reads():
    """Lint forbids pickle and eval; it has no rule for arrays of NumPy that hold pickles."""
    assert "allow_pickle" not in {node.arg for _, node in nodes() if isinstance(node, ast.keyword)}
