"""The site: links lead somewhere, code runs, and the commands shown exist. `make docs` builds it."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import re
import shlex
import warnings
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import matplotlib.pyplot as plt
import pytest
import scanpy as sc
import typer

from scot_hycnn import datasets
from scot_hycnn.cli._commands import COMMANDS
from scot_hycnn.cli._main import _app
from scot_hycnn.solver import _options as _settings

ROOT = Path(__file__).parents[2]
WRITTEN = [ROOT / "docs" / "_build", ROOT / "docs" / "api", ROOT / "docs" / "tutorials"]  # by make docs
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CODE_OF_CONDUCT.md",
    *(path for path in sorted((ROOT / "docs").rglob("*.md")) if not any(path.is_relative_to(own) for own in WRITTEN)),
]
# What a page may ask not to be run for.
N_NOT_RUN = 5


def name_of(path):
    return path.relative_to(ROOT).as_posix()


class Block(NamedTuple):
    language: str
    code: str
    line: int
    reason: str | None


_FENCE = re.compile(
    r"(?:<!-- not run: (?P<reason>[^\n]*?) -->\n)?^```(?P<language>[\w-]+)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@functools.cache
def blocks_of(path):
    text = path.read_text(encoding="utf-8")
    return [
        Block(found["language"], found["code"], text.count("\n", 0, found.start("code")) + 1, found["reason"])
        for found in _FENCE.finditer(text)
    ]


def python_of(path):
    return [block for block in blocks_of(path) if block.language == "python"]


def without_code(path):
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`", lambda code: re.sub(r"[\[\]()]", "", code[0]), text)


# Links


def anchors_of(path):
    """As GitHub and MyST make them of headings."""
    headings = re.findall(r"^#{1,6} (.+)$", without_code(path), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).strip().replace(" ", "-") for heading in headings}


def file_of(path, target):
    """The file that a link leads to: the site has copies of the notebooks."""
    if "docs" in path.parts and path.parent != ROOT:
        linked = (path.parent / target).resolve()
        if linked.is_relative_to(ROOT / "docs" / "tutorials"):
            return ROOT / "tutorials" / linked.name
    return (path.parent / target).resolve()


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_links_lead_to_files_and_headings(path):
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(path)):
        if re.match(r"https?:|mailto:", target):
            continue
        file, _, anchor = unquote(target).partition("#")
        linked = file_of(path, file) if file else path
        if not linked.exists() or (anchor and linked.suffix == ".md" and anchor not in anchors_of(linked)):
            wrong.append(target)
    assert wrong == []


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_what_is_included_and_listed_exists(path):
    text = path.read_text(encoding="utf-8")
    for file, options in re.findall(r"^```\{include\} (\S+)\n((?::.*\n)*)", text, flags=re.MULTILINE):
        included = (path.parent / file).read_text(encoding="utf-8")
        for marker in re.findall(r'^:(?:start-after|end-before): "(.*)"$', options, flags=re.MULTILINE):
            assert marker in included
    for content in re.findall(r"^```\{toctree\}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL):
        for entry in content.split():
            if not entry.startswith(":") and not set(entry) & set("*1"):
                assert any(file_of(path, entry + suffix).exists() for suffix in (".md", ".ipynb")), entry


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_names_of_the_api_exist(path):
    text = path.read_text(encoding="utf-8")
    names = re.findall(r"\{(?:func|class|meth|mod)\}`~?([\w.]+)`", text)
    names += [
        f"scot_hycnn.{name}" for name in re.findall(r"\bsh\.((?:tl|pl|pp|get|metrics|datasets|solver)\.\w+)", text)
    ]
    for name in names:
        package, layer, *rest = name.split(".")
        thing = importlib.import_module(f"{package}.{layer}")
        for part in rest:
            thing = getattr(thing, part)


def test_every_page_is_in_a_table_of_contents():
    listed = set()
    for page in PAGES:
        for content in re.findall(
            r"^```\{toctree\}\n(.*?)^```$", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
        ):
            for entry in content.split():
                listed |= {found.resolve() for found in page.parent.glob(f"{entry}.md")} if ":" not in entry else set()
    own = {page for page in PAGES if page.parent != ROOT}
    assert own - listed == {ROOT / "docs" / "index.md"}


def test_no_page_names_a_place_of_a_machine():
    for page in PAGES:
        assert re.findall(r"(?:/(?:home|root|tmp|usr|work|Users|opt|var)/)\S*", page.read_text(encoding="utf-8")) == []


# Code


@pytest.fixture
def small(tmp_path, monkeypatch):
    """In a folder of its own, with fewer cells and steps than the page says: what it shows are calls, not numbers."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(_settings, "LEAST_STEPS", 20)
    monkeypatch.setattr(_settings, "MOST_STEPS", 20)
    whole = datasets.pbmc_planted
    monkeypatch.setattr(datasets, "pbmc_planted", lambda n_cells=4000, **options: whole(min(n_cells, 400), **options))
    # A UMAP is scanpy's, and takes twenty seconds to compile.
    monkeypatch.setattr(sc.pp, "neighbors", lambda adata: None)
    monkeypatch.setattr(sc.tl, "umap", lambda adata: adata.obsm.update(X_umap=adata.obsm["X_pca"][:, :2]))
    monkeypatch.setattr(plt, "show", lambda *_, **__: None)
    yield
    plt.close("all")


# Warnings that the pages announce, and anndata's of the zarr format that it will write next.
ANNOUNCED = "replac|has seen|left out|not better|are cells that|evaluated|zarr v2"


@pytest.mark.parametrize("path", [path for path in PAGES if python_of(path)], ids=name_of)
def test_python_runs(path, small):
    names = {"__name__": "__main__"}
    for block in python_of(path):
        if block.reason is not None:
            continue
        compiled = compile("\n" * (block.line - 1) + block.code, str(path), "exec")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", f".*({ANNOUNCED})", UserWarning)
            exec(compiled, names)


def test_what_is_not_run_has_a_reason():
    not_run = {(name_of(path), block.reason) for path in PAGES for block in python_of(path) if block.reason is not None}
    assert all(len(reason) > 5 for _, reason in not_run)
    assert len(not_run) == N_NOT_RUN, not_run
    marks = sum(path.read_text(encoding="utf-8").count("<!-- not run") for path in PAGES)
    assert marks == len(not_run)  # none is far from its block


def lines_of_shell(path):
    for block in blocks_of(path):
        if block.language in ("bash", "console", "sh"):
            yield from re.sub(r"\\\n", " ", block.code).splitlines()


SHELL = [
    (name_of(path), line.strip()) for path in PAGES for line in lines_of_shell(path) if line.startswith("scot-hycnn ")
]


@pytest.mark.parametrize(("page", "line"), SHELL)
def test_commands_and_their_options_exist(page, line):
    command, *arguments = shlex.split(line, comments=True)[1:]
    assert command in COMMANDS
    parsed = typer.main.get_command(_app()).commands[command]
    context = parsed.make_context(command, list(arguments))  # fails where an option or argument is unknown or missing
    assert context.params


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, flags=re.MULTILINE))
    for path in PAGES:
        shown = re.findall(r"`make ([a-z -]+?)`", path.read_text(encoding="utf-8"))
        shown += [line.split("#")[0].removeprefix("make ") for line in lines_of_shell(path) if line.startswith("make ")]
        assert {target for names in shown for target in names.split()} <= targets


# Files beside the pages


def test_forms_and_hooks_are_yaml_and_hooks_are_local():
    yaml = pytest.importorskip("yaml")
    form = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / "bug.yml").read_text(encoding="utf-8"))
    assert "session_info2" in str(form["body"])
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    assert [repo["repo"] for repo in hooks["repos"]] == ["local"]


def test_versions_agree():
    yaml = pytest.importorskip("yaml")
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    version = re.search(r'^version = "(.*)"$', pyproject, flags=re.MULTILINE)[1]
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == version
    assert yaml.safe_load((ROOT / "docs" / "meta.yaml").read_text())["version"] == f"v{version}"
    recipe = (ROOT / "recipe" / "meta.yaml").read_text(encoding="utf-8")
    assert f'version: "{version}"' in recipe


def test_the_recipe_has_the_bounds_of_the_project():
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    own = re.search(r"^dependencies = \[\n(.*?)^\]", pyproject, flags=re.MULTILINE | re.DOTALL)[1]
    other_names = {"torch": "pytorch", "matplotlib": "matplotlib-base"}  # conda-forge's
    wanted = {(other_names.get(name, name), bound) for name, bound in re.findall(r'"([\w-]+)>=([\d.]+)"', own)}
    recipe = (ROOT / "recipe" / "meta.yaml").read_text(encoding="utf-8")
    assert wanted <= set(re.findall(r"^    - ([\w-]+) >=([\d.]+)$", recipe, flags=re.MULTILINE))
