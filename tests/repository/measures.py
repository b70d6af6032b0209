"""Print the measures of the package's structure, with the limits that CONTRIBUTING.md sets for them.

python tests/repository/measures.py            # all measures that need no fit
python tests/repository/measures.py --verbose  # also what they count
python tests/repository/measures.py --entered  # also the files and functions that one fit enters
"""

from __future__ import annotations

import argparse
import ast
import inspect
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

import scot_hycnn

ROOT = Path(scot_hycnn.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
# metrics and pl are lists of public functions, one a file: they may be longer than other folders.
LISTS_OF_FUNCTIONS = ("metrics", "pl")
# Smallest and largest value that each measure may have.
LIMITS = {
    "lines of the package": (0, 15_000),
    "files of the package": (0, 130),
    "files in the largest folder": (0, 14),
    "files in metrics or pl": (0, 18),
    "import depth": (0, 14),
    "circles of imports": (0, 0),
    "files that name the option conjugates": (0, 2),
    "parameters of tl.hycnn_ot": (0, 22),
    "parameters of solver.fit": (0, 8),
    "lines of the longest function": (0, 60),
    "private functions with one caller and at most five lines": (0, 10),
    "percentage of lines that are comments": (4, 8),
    "warning filters": (0, 0),
    "files that a fit enters": (0, 30),
    "functions that a fit enters": (0, 150),
}


@cache
def tree(path: Path) -> ast.Module:
    """Return the syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"))


def nodes() -> Iterator[tuple[Path, ast.AST]]:
    """Yield every node of the package with its file."""
    for path in FILES:
        for node in ast.walk(tree(path)):
            yield path, node


def name_of(path: Path) -> str:
    """Return a file as seen from the package's folder."""
    return path.relative_to(ROOT).as_posix()


def module_of(path: Path) -> str:
    """Return the dotted name under which a file is imported."""
    parts = ["scot_hycnn", *path.relative_to(ROOT).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_names(path: Path) -> set[str]:
    """Return the dotted names that a file imports, those inside functions included."""
    folder = ["scot_hycnn", *path.relative_to(ROOT).parent.parts]
    found = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            # Each dot after the first one of ``from .. import`` goes one folder up.
            above = folder[: len(folder) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            found |= {f"{base}.{alias.name}" for alias in node.names}
    return found


def import_graph() -> dict[str, set[str]]:
    """Return each module with the modules of the package that it imports."""
    modules = {module_of(path) for path in FILES}
    graph = {}
    for path in FILES:
        names = imported_names(path)
        # ``from package import module`` imports the module, ``from module import name`` the module alone.
        found = {name if name in modules else name.rpartition(".")[0] for name in names}
        graph[module_of(path)] = (found & modules) - {module_of(path)}
    return graph


def longest_chain(graph: dict[str, set[str]]) -> list[str]:
    """Return the longest chain of imports; a module in a circle is entered once."""

    @cache
    def longest(module: str) -> tuple[str, ...]:
        entered.add(module)
        below = [longest(other) for other in sorted(graph[module]) if other not in entered]
        entered.discard(module)
        return (module, *max(below, key=len, default=()))

    entered: set[str] = set()
    return list(max(map(longest, sorted(graph)), key=len))


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Return the groups of modules that import each other."""
    modules = sorted(graph)
    imports = csr_array([[other in graph[module] for other in modules] for module in modules])
    _, labels = connected_components(imports, connection="strong")
    groups = [[modules[i] for i in np.flatnonzero(labels == label)] for label in np.unique(labels)]
    return [group for group in groups if len(group) > 1]


def files_of_largest(folders: Iterable[Path]) -> list[str]:
    """Return the files of the folder that has most of them, without ``__init__.py``."""
    return max(
        (
            [name_of(path) for path in FILES if path.parent == folder and path.name != "__init__.py"]
            for folder in folders
        ),
        key=len,
    )


def lengths_of_functions() -> dict[str, int]:
    """Return the number of lines of every function and method, without signature and docstring."""
    lengths = {}
    for path, node in nodes():
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            lengths[f"{name_of(path)}:{node.name}"] = body[-1].end_lineno - body[0].lineno + 1 if body else 0
    return lengths


def small_with_one_caller() -> list[str]:
    """Return private functions of at most five lines whose name occurs once."""
    uses = Counter(getattr(node, "id", getattr(node, "attr", None)) for _, node in nodes())
    small = [(place, place.rpartition(":")[2]) for place, n_lines in lengths_of_functions().items() if n_lines <= 5]
    return [place for place, name in small if name[0] == "_" != name[1] and uses[name] == 1]


def files_of_option(option: str) -> list[str]:
    """Return the files whose code has a parameter, keyword, attribute or field with the name of an option."""
    found = set()
    for path, node in nodes():
        field = node.target if isinstance(node, ast.AnnAssign) else None
        if option in (getattr(node, "arg", None), getattr(node, "attr", None), getattr(field, "id", None)):
            found.add(name_of(path))
    return sorted(found)


def warning_filters() -> list[str]:
    """Return the places that hide warnings or turn them into control flow."""
    names = ("catch_warnings", "simplefilter", "filterwarnings")
    return [f"{name_of(path)}:{n.lineno}" for path, n in nodes() if isinstance(n, ast.Attribute) and n.attr in names]


def entered_by_a_fit() -> list[str]:
    """Return the functions that ``sh.tl.hycnn_ot`` enters on 400 cells, as file:function."""
    import scot_hycnn as sh  # this measure alone needs torch

    adata = sh.datasets.pbmc_planted(n_cells=400)
    _ = sh.tl.hycnn_ot  # what the import enters does not count
    seen: set[str] = set()

    def record(frame: object, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(str(ROOT)) and not code.co_name.startswith("<"):
            seen.add(f"{name_of(Path(code.co_filename))}:{code.co_qualname}")

    threading.setprofile(record)
    sys.setprofile(record)
    try:
        sh.tl.hycnn_ot(adata, "control", "IFN-beta", n_pcs=5, max_steps=20)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return sorted(seen)


def measures(*, with_fit: bool = False) -> dict[str, float | list[str]]:
    """Return the measures by their name in LIMITS: a number, or the things of which there may be so many."""
    from scot_hycnn import solver, tl

    lines = [line.strip() for path in FILES for line in path.read_text(encoding="utf-8").splitlines()]
    graph = import_graph()
    lists_of_functions = {ROOT / name for name in LISTS_OF_FUNCTIONS}
    values = {
        "lines of the package": len(lines),
        "files of the package": len(FILES),
        "files in the largest folder": files_of_largest({path.parent for path in FILES} - lists_of_functions),
        "files in metrics or pl": files_of_largest(lists_of_functions),
        "import depth": longest_chain(graph),
        "circles of imports": circles(graph),
        "files that name the option conjugates": files_of_option("conjugates"),
        "parameters of tl.hycnn_ot": list(inspect.signature(tl.hycnn_ot).parameters),
        "parameters of solver.fit": list(inspect.signature(solver.fit).parameters),
        "lines of the longest function": max(lengths_of_functions().values()),
        "private functions with one caller and at most five lines": small_with_one_caller(),
        "percentage of lines that are comments": 100 * sum(line.startswith("#") for line in lines) / len(lines),
        "warning filters": warning_filters(),
    }
    if with_fit:
        entered = entered_by_a_fit()
        values |= {"files that a fit enters": sorted({name.split(":")[0] for name in entered})}
        values |= {"functions that a fit enters": entered}
    return values


def size(value: float | list[str]) -> float:
    """Return the number of a measure."""
    return len(value) if isinstance(value, list) else value


def main() -> None:
    """Print the measures, and with ``--verbose`` what they count."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--entered", action="store_true", help="also the files and functions that one fit enters")
    parser.add_argument("--verbose", action="store_true", help="also what the measures count")
    options = parser.parse_args()
    for name, value in measures(with_fit=options.entered).items():
        smallest, largest = LIMITS[name]
        missed = "" if smallest <= size(value) <= largest else "  <- outside the limit"
        print(f"{name}: {round(size(value), 1)} ({smallest} to {largest}){missed}")
        if options.verbose and isinstance(value, list):
            print(*(f"    {thing}" for thing in value), sep="\n")


if __name__ == "__main__":
    main()
