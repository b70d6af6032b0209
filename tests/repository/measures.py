"""How hard the package is to live in: prints the measures that CONTRIBUTING.md sets limits for.

python tests/repository/measures.py            # all measures
python tests/repository/measures.py --entered  # also the files and functions that one fit enters
"""

from __future__ import annotations

import argparse
import ast
import inspect
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import scot_hycnn

ROOT = Path(scot_hycnn.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))


@cache
def tree(path: Path) -> ast.Module:
    """Return the syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"))


def module_of(path: Path) -> str:
    """Return the dotted name under which a file is imported."""
    parts = ["scot_hycnn", *path.relative_to(ROOT).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


def imports_of(path: Path) -> set[str]:
    """Return the modules of the package that a file imports, those for types and inside functions included."""
    module = module_of(path)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")
            base = ".".join([*above[: len(above) - node.level + 1], *filter(None, [node.module])])
            base = base if node.level else node.module or ""
            # ``from package import module`` imports the module, ``from module import name`` the module alone.
            found |= {f"{base}.{alias.name}" if f"{base}.{alias.name}" in MODULES else base for alias in node.names}
    return (found & MODULES.keys()) - {module}


def import_graph() -> dict[str, set[str]]:
    """Return each module with the modules of the package that it imports."""
    return {module: imports_of(path) for module, path in MODULES.items()}


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


def circles(graph: dict[str, set[str]]) -> list[set[str]]:
    """Return groups of modules that import each other."""
    reached: dict[str, set[str]] = {}
    for module, below in graph.items():
        seen, waiting = set(), list(below)
        while waiting:
            if (other := waiting.pop()) not in seen:
                seen.add(other)
                waiting += graph[other]
        reached[module] = seen
    groups = {frozenset(m for m in seen if module in reached[m]) for module, seen in reached.items() if module in seen}
    return [set(group) for group in groups]


def largest_folder() -> tuple[str, int]:
    """Return the folder with the most files beside ``__init__.py``, and their number."""
    counts = Counter(str(path.parent.relative_to(ROOT)) for path in FILES if path.name != "__init__.py")
    return counts.most_common(1)[0]


def functions() -> Iterator[tuple[Path, ast.FunctionDef]]:
    """Yield every function and method with its file."""
    for path in FILES:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.FunctionDef):
                yield path, node


def body_length(function: ast.FunctionDef) -> int:
    """Return the number of lines of a function, without signature and docstring."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


def small_with_one_caller() -> list[str]:
    """Return private functions of at most five lines that one place alone uses."""
    uses: Counter[str] = Counter()
    for path in FILES:
        for node in ast.walk(tree(path)):
            if isinstance(node, (ast.Name, ast.Attribute)):
                uses[node.id if isinstance(node, ast.Name) else node.attr] += 1
    return [
        f"{path.relative_to(ROOT)}:{node.name}"
        for path, node in functions()
        if node.name.startswith("_")
        and not node.name.startswith("__")
        and uses[node.name] == 1
        and body_length(node) <= 5
    ]


def files_of_option(option: str) -> list[str]:
    """Return files whose code, not whose text, names an option."""
    found = []
    for path in FILES:
        names = {
            name
            for node in ast.walk(tree(path))
            for name in (getattr(node, "id", None), getattr(node, "arg", None), getattr(node, "attr", None))
        }
        if option in names:
            found.append(str(path.relative_to(ROOT)))
    return found


def entered_by_a_fit() -> tuple[dict[str, int], int]:
    """Return each file, with its number of functions, that ``sh.tl.hycnn_ot`` enters on 400 cells, and their sum."""
    import scot_hycnn as sh  # torch is loaded for this measure alone

    adata = sh.datasets.pbmc_planted(n_cells=400)
    _ = sh.tl.hycnn_ot
    seen: set[tuple[str, str]] = set()

    def record(frame: object, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(str(ROOT)) and not code.co_name.startswith("<"):
            seen.add((code.co_filename.removeprefix(f"{ROOT}/"), code.co_qualname))

    threading.setprofile(record)
    sys.setprofile(record)
    try:
        sh.tl.hycnn_ot(adata, "control", "IFN-beta", n_pcs=5, max_steps=20)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return dict(sorted(Counter(file for file, _ in seen).items())), len(seen)


def measures() -> dict[str, object]:
    """Return every measure but what a fit enters."""
    lines = [line.strip() for path in FILES for line in path.read_text(encoding="utf-8").splitlines()]
    graph = import_graph()
    from scot_hycnn import solver, tl

    return {
        "lines of the package": len(lines),
        "files of the package": len(FILES),
        "files in the largest folder": largest_folder(),
        "import depth": len(longest_chain(graph)),
        "circles of imports": len(circles(graph)),
        "files that name the option 'conjugates'": len(files_of_option("conjugates")),
        "parameters of tl.hycnn_ot": len(inspect.signature(tl.hycnn_ot).parameters),
        "parameters of solver.fit": len(inspect.signature(solver.fit).parameters),
        "private functions with one caller and at most five lines": len(small_with_one_caller()),
        "comment share of lines, %": round(100 * sum(line.startswith("#") for line in lines) / len(lines), 1),
    }


def main() -> None:
    """Print the measures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--entered", action="store_true", help="also the files and functions that one fit enters")
    parser.add_argument("--verbose", action="store_true", help="also what the measures count")
    options = parser.parse_args()
    for name, value in measures().items():
        print(f"{name}: {value}")
    if options.verbose:
        print("\nlongest chain:", *longest_chain(import_graph()), sep="\n  ")
        print("\ncircles:", *circles(import_graph()), sep="\n  ")
        print("\nsmall private functions with one caller:", *small_with_one_caller(), sep="\n  ")
    if options.entered:
        files, n_functions = entered_by_a_fit()
        print(f"files and functions that a fit enters: {len(files)}, {n_functions}")
        if options.verbose:
            print(*(f"  {count:3} {file}" for file, count in files.items()), sep="\n")


if __name__ == "__main__":
    main()
