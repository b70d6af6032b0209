"""What is imported is declared, each lower bound is tested and documented, and no call uses the network unasked."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from repository.measures import FILES, ROOT, imported_names, name_of

TOP = Path(__file__).parents[2]
PROJECT = tomllib.loads((TOP / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CORE = [Requirement(line) for line in PROJECT["dependencies"]]
EXTRAS = {
    extra: [requirement for requirement in map(Requirement, lines) if requirement.name != "scot-hycnn"]
    for extra, lines in PROJECT["optional-dependencies"].items()
}
# Tools, and packages to compare with, run in the versions of constraints.txt only.
AS_PINNED = ["arrow", "bench", "browser", "dev", "docs", "fuzz", "workflow"]
ALL = [*CORE, *(requirement for requirements in EXTRAS.values() for requirement in requirements)]
# Modules that have another name than their package.
PACKAGES = {"sklearn": "scikit-learn", "ot": "pot"}


def lower_bound(requirement):
    """Version of the lower bound, the only bound that a requirement may have; None without one."""
    if not requirement.specifier:
        return None
    (specifier,) = requirement.specifier
    assert specifier.operator == ">="
    return Version(specifier.version)


def pinned(file):
    lines = (TOP / file).read_text(encoding="utf-8").splitlines()
    return {canonicalize_name(line.split("==")[0]): Version(line.split("==")[1]) for line in lines if "==" in line}


def third_party(path):
    first = {name.partition(".")[0] for name in imported_names(path)} - set(sys.stdlib_module_names) - {"scot_hycnn"}
    return {PACKAGES.get(name, name) for name in first}


IMPORTS = {name_of(path): third_party(path) for path in FILES}


def test_lower_bounds_are_the_versions_that_are_tested():
    lowest, latest = pinned("constraints-lowest.txt"), pinned("constraints.txt")
    tested = [*CORE, *(requirement for extra in EXTRAS if extra not in AS_PINNED for requirement in EXTRAS[extra])]
    assert {r.name: lower_bound(r) for r in tested} == {r.name: lowest[canonicalize_name(r.name)] for r in tested}
    for extra in AS_PINNED:
        for requirement in EXTRAS[extra]:
            if bound := lower_bound(requirement):
                version = latest[canonicalize_name(requirement.name)]
                assert version.release[: len(bound.release)] == bound.release, requirement.name


def test_imports_are_declared():
    imported = set().union(*IMPORTS.values())
    assert {requirement.name for requirement in CORE} <= imported <= {requirement.name for requirement in ALL}


def test_a_file_that_imports_an_optional_package_names_its_extra():
    core = {requirement.name for requirement in CORE}
    for extra in ("ot", "datasets", "lazy", "dask", "cli"):
        optional = {requirement.name for requirement in EXTRAS[extra]} - core
        files = [file for file, names in IMPORTS.items() if names & optional]
        assert files, extra
        # The commands are imported after the file that looks for typer.
        for file in ["cli/_main.py"] if extra == "cli" else files:
            assert f"pip install 'scot-hycnn[{extra}]'" in (ROOT / file).read_text(encoding="utf-8"), file


@pytest.mark.parametrize(("page", "requirements"), [("docs/dependencies.md", ALL), ("recipe/meta.yaml", CORE)])
def test_pages_show_each_lower_bound(page, requirements):
    text = (TOP / page).read_text(encoding="utf-8")
    if page.endswith(".yaml"):
        found = set(re.findall(r"^    - ([\w-]+) >=([\d.]+)$", text, flags=re.MULTILINE))
    else:
        found = set(re.findall(r"^\| ([\w-]+) \|.*\| ([\d.]*) \|", text, flags=re.MULTILINE))
    on_conda = {"torch": "pytorch", "matplotlib": "matplotlib-base"} if page.endswith(".yaml") else {}
    assert {(on_conda.get(r.name, r.name), str(lower_bound(r) or "")) for r in requirements} <= found


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
print({"requests", "mudata"} & set(sys.modules))
print(opened)
"""


def test_main_calls_open_no_socket_and_import_no_extra(tmp_path):
    command = [sys.executable, "-c", MAIN_CALLS, str(tmp_path / "cells.h5ad")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == ["set()", "[]"]
