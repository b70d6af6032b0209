"""What is imported is declared, what is declared has been tested, and nothing goes to the network unasked."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import scot_hycnn

ROOT = Path(__file__).parents[2]
PACKAGE = Path(scot_hycnn.__file__).parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
CORE = [Requirement(line) for line in PROJECT["dependencies"]]
EXTRAS = {
    extra: [requirement for requirement in map(Requirement, lines) if requirement.name != "scot-hycnn"]
    for extra, lines in PROJECT["optional-dependencies"].items()
}
# Tools and packages to compare with: run in the versions of constraints.txt alone.
AS_PINNED = ["arrow", "bench", "browser", "dev", "docs", "fuzz", "workflow"]
TESTED_LOWEST = [*CORE, *(requirement for extra in EXTRAS if extra not in AS_PINNED for requirement in EXTRAS[extra])]
EVERY = [*CORE, *(requirement for requirements in EXTRAS.values() for requirement in requirements)]
# Names of modules that differ from those of their packages.
PACKAGES = {"sklearn": "scikit-learn", "ot": "pot"}


def pins(name):
    lines = (ROOT / name).read_text("utf-8").splitlines()
    return {canonicalize_name(line.split("==")[0]): Version(line.split("==")[1]) for line in lines if "==" in line}


LOWEST, PINNED = pins("constraints-lowest.txt"), pins("constraints.txt")


def bound(requirement):
    """The lower bound, which is all that a requirement may have."""
    (specifier,) = requirement.specifier
    assert specifier.operator == ">="
    return Version(specifier.version)


def third_party(path):
    tree = ast.parse(path.read_text("utf-8"))
    modules = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    modules += [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level]
    first = {module.partition(".")[0] for module in modules} - set(sys.stdlib_module_names) - {"scot_hycnn"}
    return {PACKAGES.get(name, name) for name in first}


IMPORTS = {path.relative_to(PACKAGE).as_posix(): third_party(path) for path in sorted(PACKAGE.rglob("*.py"))}


@pytest.mark.parametrize("requirement", EVERY, ids=lambda requirement: requirement.name)
def test_no_version_is_too_new(requirement):
    assert {specifier.operator for specifier in requirement.specifier} <= {">="}


@pytest.mark.parametrize("requirement", TESTED_LOWEST, ids=lambda requirement: requirement.name)
def test_the_lowest_version_is_the_one_that_make_lowest_tests(requirement):
    assert LOWEST[canonicalize_name(requirement.name)] == bound(requirement)


@pytest.mark.parametrize("extra", AS_PINNED)
def test_the_lowest_version_is_the_pinned_one(extra):
    for requirement in EXTRAS[extra]:
        if requirement.specifier:
            release = bound(requirement).release
            assert PINNED[canonicalize_name(requirement.name)].release[: len(release)] == release, requirement


def test_every_import_is_declared():
    declared = {requirement.name for requirement in EVERY}
    assert set().union(*IMPORTS.values()) <= declared
    assert {requirement.name for requirement in CORE} <= set().union(*IMPORTS.values())


OPTIONAL = [
    (file, name, extra)
    for file, names in IMPORTS.items()
    for extra in ("cli", "ot", "datasets", "lazy", "dask")
    for name in sorted(
        names & {requirement.name for requirement in EXTRAS[extra]} - {requirement.name for requirement in CORE}
    )
]


def test_there_are_optional_imports():
    assert {name for _, name, _ in OPTIONAL} >= {"typer", "pot", "requests", "mudata", "zarr", "distributed"}


@pytest.mark.parametrize(("file", "name", "extra"), OPTIONAL)
def test_what_is_not_installed_names_its_extra(file, name, extra):
    # The commands are imported after the one that looks for typer.
    speaks = "cli/_main.py" if extra == "cli" else file
    assert f"pip install 'scot-hycnn[{extra}]'" in (PACKAGE / speaks).read_text("utf-8")


@pytest.mark.parametrize("requirement", EVERY, ids=lambda requirement: requirement.name)
def test_each_dependency_is_on_the_page(requirement):
    page = (ROOT / "docs/dependencies.md").read_text("utf-8")
    wanted = f"{bound(requirement)}" if requirement.specifier else ""
    assert re.search(rf"^\| {re.escape(requirement.name)} \|.*\| {re.escape(wanted)} \|", page, flags=re.MULTILINE)


MAIN_CALLS = """
import sys
opened = []
sys.addaudithook(lambda event, arguments: opened.append(event) if event.startswith("socket.") else None)
import warnings
warnings.simplefilter("ignore")
import matplotlib
matplotlib.use("Agg")
import numpy as np
import scot_hycnn as sh
from anndata import AnnData
rng = np.random.default_rng(0)
adata = AnnData(rng.normal(size=(200, 4)).astype(np.float32))
adata.obs["condition"] = ["a"] * 100 + ["b"] * 100
adata.obsm["X_umap"] = adata.X[:, :2]
sh.pp.split(adata, stratify="condition")
options = {"max_steps": 10, "n_ensemble": 1, "hidden": (4,), "device": "cpu", "progress": False}
sh.tl.hycnn_ot(adata, "a", "b", groupby="condition", use_rep="X", split_key="split", **options)
sh.tl.transport(adata, t=0.5, key_added="half")
sh.tl.evaluate(adata)
sh.tl.project(adata)
sh.pl.transport(adata, basis="umap")
sh.pl.history(adata)
sh.get.predicted(adata)
sh.get.model(adata)
sh.metrics.energy_distance(adata.X[:40], adata.X[40:])
sh.datasets.pbmc_planted()
sh.regression.ConvexRegressor(shape="convex", max_steps=10).fit(adata.X, adata.X[:, 0] ** 2)
adata.write_h5ad(sys.argv[1])
print(opened)
"""


def test_import_and_main_calls_open_no_socket(tmp_path):
    command = [sys.executable, "-c", MAIN_CALLS, str(tmp_path / "cells.h5ad")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
