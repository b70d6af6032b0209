"""The structure of the package stays within the limits of CONTRIBUTING.md, and imports go from top to bottom only."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from repository.measures import FILES, LIMITS, ROOT, imported_names, measures, name_of, size

LAYERS = {path.parent.name for path in ROOT.glob("*/__init__.py")}
# Each layer with the layers, and the heavy packages, that it may import beside itself.
HEAVY = {"anndata", "matplotlib", "pandas", "scanpy", "torch"}
MAY_IMPORT = {
    "potentials": {"torch"},
    "solver": {"potentials", "torch"},
    "regression": {"potentials", "solver", "torch"},
    "metrics": set(),
    "datasets": {"anndata", "pandas", "scanpy", "torch"},
    "_anndata": {"anndata", "pandas"},
    "pp": {"_anndata", "anndata", "pandas", "scanpy"},
    "get": {"_anndata", "anndata", "pandas", "scanpy"},
    "tl": {"_anndata", "metrics", "solver", "anndata", "pandas", "scanpy", "torch"},
    # pl.report is where users call the page, and the page draws with the colours and names of pl.
    "pl": {"_anndata", "report", "anndata", "matplotlib", "pandas", "scanpy"},
    "report": {"_anndata", "pl", "anndata", "matplotlib", "pandas", "scanpy"},
    # The options of `scot-hycnn fit` are generated from the options of the solver.
    "cli": {"_anndata", "get", "pl", "report", "solver", "tl", "anndata", "pandas", "scanpy"},
}
EXCEPTIONS = {
    "datasets/_published.py": {"_anndata"},  # a download appears whole or not at all, like every file that is written
    "get/_model.py": {"solver"},  # it returns the solver's TransportMap
    # It scores the maps of the solver in a whole screen, and figures of a screen draw what it returns.
    "get/_summary.py": {"metrics", "solver"},
    "pl/_screen.py": {"get"},
    "pl/_similarity.py": {"get"},
    "pl/_report.py": {"get"},
    # This is the only metric that takes an AnnData. It scores the maps of the solver, or beside the closed-form map.
    "metrics/_evaluate.py": {"anndata", "pandas", "scanpy", "_anndata", "potentials", "solver"},
    "metrics/_table.py": {"pandas", "_anndata"},  # the table that it returns
}
# Folders of the solver with the folders that they may not import.
SOLVER_MAY_NOT_IMPORT = {
    "data": {"model", "selection", "training", "baselines", "runtime", "screen"},
    "model": {"selection", "training", "baselines", "runtime", "screen"},
    "selection": {"runtime", "screen"},
    "training": {"selection", "runtime", "screen"},
    "baselines": {"selection", "runtime", "screen"},
    "runtime": {"screen"},
    "screen": set(),
}
# Files of runtime that import nothing of the package, so that every folder may use them.
FOR_ALL = ("_device",)


@pytest.fixture(scope="module")
def values():
    return measures(with_fit=True)


# Limits that are not reached yet. The mark is strict: a limit that is reached fails until it leaves this list.
NOT_REACHED = {"lines of the package", "functions that a fit enters"}


@pytest.mark.parametrize(
    "measure", [pytest.param(name, marks=[pytest.mark.xfail] if name in NOT_REACHED else []) for name in LIMITS]
)
def test_measure_is_within_its_limits(measure, values):
    smallest, largest = LIMITS[measure]
    assert smallest <= size(values[measure]) <= largest, values[measure]


def test_contributing_shows_the_limits():
    page = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([^|]+) \| (?:([\d,]+) to )?([\d,]+) \|$", page, flags=re.MULTILINE)
    shown = {name: tuple(int(number.replace(",", "") or 0) for number in limits) for name, *limits in rows}
    assert shown == LIMITS


def test_layers_import_only_what_is_below_them():
    assert MAY_IMPORT.keys() == LAYERS
    wrong = []
    for path in FILES:
        layer = path.relative_to(ROOT).parts[0]
        if layer not in LAYERS:
            continue
        names = {name.removeprefix("scot_hycnn.").partition(".")[0] for name in imported_names(path)}
        allowed = {layer} | MAY_IMPORT[layer] | EXCEPTIONS.get(name_of(path), set())
        wrong += [f"{name_of(path)} imports {name}" for name in names & (LAYERS | HEAVY) - allowed]
    assert wrong == []


def test_folders_of_the_solver_import_only_what_is_below_them():
    assert {path.parent.name for path in ROOT.glob("solver/*/__init__.py")} == SOLVER_MAY_NOT_IMPORT.keys()
    wrong = []
    for folder, forbidden in SOLVER_MAY_NOT_IMPORT.items():
        for path in ROOT.glob(f"solver/{folder}/*.py"):
            modules = {tuple(name.split(".")[2:4]) for name in imported_names(path) if ".solver." in name}
            modules -= {("runtime", name) for name in FOR_ALL}
            wrong += [f"{name_of(path)} imports {'.'.join(module)}" for module in modules if module[0] in forbidden]
    assert wrong == []
    for name in FOR_ALL:
        assert not any("scot_hycnn" in imported for imported in imported_names(ROOT / f"solver/runtime/{name}.py"))
