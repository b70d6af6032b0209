"""Pages of the site: links and names exist, code runs, promises name their tests. `make docs` builds the site."""

from __future__ import annotations

import functools
import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import matplotlib.pyplot as plt
import pytest
import scanpy as sc

from scot_hycnn import cli, datasets, solver, tl

TOP = Path(__file__).parents[2]
DOCS = TOP / "docs"
WRITTEN_BY_MAKE = [DOCS / "_build", DOCS / "api", DOCS / "tutorials"]
PAGES = [
    *(TOP / name for name in ("README.md", "CONTRIBUTING.md", "CODE_OF_CONDUCT.md")),
    *(
        page
        for page in sorted(DOCS.rglob("*.md"))
        if not any(page.is_relative_to(folder) for folder in WRITTEN_BY_MAKE)
    ),
]
N_NOT_RUN = 6  # blocks of Python that say why they are not run
PLACE_OF_A_MACHINE = r"(?:/(?:home|root|tmp|usr|work|Users|opt|var)/)\S*"
TOCTREE = re.compile(r"^```\{toctree\}\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INCLUDE = re.compile(r"^```\{include\} (\S+)\n((?::.*\n)*)", re.MULTILINE)
FENCE = re.compile(
    r"(?:<!-- not run: (?P<reason>[^\n]*?) -->\n)?^```(?P<language>[\w-]+)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


def name_of(page):
    return page.relative_to(TOP).as_posix()


@functools.cache
def text_of(page):
    return page.read_text(encoding="utf-8")


class Block(NamedTuple):
    language: str
    code: str
    line: int
    reason_not_to_run: str | None


def blocks_of(page, *languages):
    text = text_of(page)
    found = [
        Block(match["language"], match["code"], text.count("\n", 0, match.start("code")) + 1, match["reason"])
        for match in FENCE.finditer(text)
    ]
    return [block for block in found if block.language in languages]


def without_code(page):
    text = re.sub(r"^```.*?^```$", "", text_of(page), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`", lambda code: re.sub(r"[\[\]()]", "", code[0]), text)


def anchors_of(page):
    """Anchors of the headings, as GitHub and MyST make them."""
    headings = re.findall(r"^#{1,6} (.+)$", without_code(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).strip().replace(" ", "-") for heading in headings}


def file_of(page, target):
    """The file that a link of a page leads to; `make docs` copies the notebooks into docs/tutorials."""
    linked = (page.parent / target).resolve()
    return TOP / "tutorials" / linked.name if linked.is_relative_to(DOCS / "tutorials") else linked


def test_links_lead_to_files_and_headings():
    wrong = []
    for page in PAGES:
        for target in re.findall(r"\]\(([^)\s]+)\)", without_code(page)):
            if re.match(r"https?:|mailto:", target):
                continue
            file, _, anchor = unquote(target).partition("#")
            linked = file_of(page, file) if file else page
            if not linked.exists() or (anchor and linked.suffix == ".md" and anchor not in anchors_of(linked)):
                wrong.append(f"{name_of(page)}: {target}")
    assert wrong == []


def test_included_parts_exist():
    for page in PAGES:
        for file, options in INCLUDE.findall(text_of(page)):
            included = text_of((page.parent / file).resolve())
            for marker in re.findall(r'^:(?:start-after|end-before): "(.*)"$', options, flags=re.MULTILINE):
                assert marker in included, name_of(page)


def test_tables_of_contents_list_every_page_once():
    listed = []
    for page in PAGES:
        for content in TOCTREE.findall(text_of(page)):
            for entry in [line for line in content.split() if not line.startswith(":") and not line.isdigit()]:
                pages = list(page.parent.glob(f"{entry}.md"))
                assert pages or file_of(page, f"{entry}.ipynb").exists(), f"{name_of(page)}: {entry}"
                listed += pages
    assert sorted(listed) == sorted(page for page in PAGES if page.is_relative_to(DOCS) and page.name != "index.md")


def test_names_of_the_api_exist():
    for page in PAGES:
        names = re.findall(r"\{(?:func|class|meth|mod)\}`~?scot_hycnn\.([\w.]+)`", text_of(page))
        names += re.findall(r"\bsh\.((?:tl|pl|pp|get|metrics|datasets|solver|regression)\.\w+)", text_of(page))
        for name in names:
            package, *parts = name.split(".")
            functools.reduce(getattr, parts, importlib.import_module(f"scot_hycnn.{package}"))


def test_each_of_many_parameters_is_in_one_class():
    spec = importlib.util.spec_from_file_location("parameters", DOCS / "parameters.py")
    parameters = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(parameters)
    tables = parameters.tables()
    assert len(tables) > 10
    for name, classes in tables.items():
        listed = [one for names in classes.values() for one in names]
        assert len(listed) == len(set(listed)), name
    assert {"group_key", "split_key"} <= set(tables["scot_hycnn.tl.hycnn_ot"]["Basic"])
    assert {"max_steps", "unbalanced"} <= set(tables["scot_hycnn.tl.hycnn_ot"]["Advanced"])


def test_promises_name_tests_that_exist():
    rows = re.findall(r"^\| [^|]+ \| (`tests/.*`) \|$", text_of(DOCS / "promises.md"), flags=re.MULTILINE)
    assert len(rows) > 20
    assert [path for row in rows for path in re.findall(r"`([^`]+)`", row) if not (TOP / path).exists()] == []


@pytest.mark.skipif(not (TOP / "benchmarks").exists(), reason="benchmarks are not part of this distribution")
def test_table_of_the_readme_is_that_of_the_benchmarks():
    """After a change of a result, `python benchmarks/summary.py --write` writes the table anew."""
    printed = subprocess.run(
        [sys.executable, TOP / "benchmarks" / "summary.py"],
        capture_output=True,
        text=True,
        check=True,
        encoding="utf-8",
    ).stdout.strip()
    assert printed in text_of(TOP / "README.md")


def test_the_readme_is_short():
    text = text_of(TOP / "README.md")
    assert len(text.split()) <= 900
    assert len(text.splitlines()) <= 120


def test_no_page_names_a_place_of_a_machine():
    assert [place for page in PAGES for place in re.findall(PLACE_OF_A_MACHINE, text_of(page))] == []


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Fewer cells and steps than the page says, in a new folder: pages are run for their calls, not their numbers."""
    monkeypatch.chdir(tmp_path)
    small_fit = {"max_steps": 10, "n_ensemble": 2, "hidden": (8, 8)}
    for package, name in ((tl, "hycnn_ot"), (tl, "hycnn_screen"), (solver, "fit"), (solver, "fit_many")):
        monkeypatch.setattr(package, name, functools.partial(getattr(package, name), **small_fit))
    monkeypatch.setattr(tl, "evaluate", functools.partial(tl.evaluate, n_bootstrap=2))
    pbmc_planted, screen_planted = datasets.pbmc_planted, datasets.screen_planted

    def few_cells(n_cells=400, **options):
        return pbmc_planted(min(n_cells, 250 * options.get("n_donors", 0) or 400), **options)

    monkeypatch.setattr(datasets, "pbmc_planted", few_cells)
    monkeypatch.setattr(
        datasets, "screen_planted", lambda n_conditions, n_cells: screen_planted(n_conditions, min(n_cells, 60))
    )
    # A UMAP belongs to scanpy, and takes twenty seconds.
    monkeypatch.setattr(sc.pp, "neighbors", lambda adata, **options: None)
    monkeypatch.setattr(sc.tl, "umap", lambda adata, **options: adata.obsm.update(X_umap=adata.obsm["X_pca"][:, :2]))
    monkeypatch.setattr(plt, "show", lambda *_, **__: None)
    yield
    plt.close("all")


@pytest.mark.filterwarnings("ignore::UserWarning")  # pages announce what a call warns of
@pytest.mark.parametrize("page", [page for page in PAGES if blocks_of(page, "python")], ids=name_of)
def test_python_runs(page, small):
    names = {"__name__": "__main__"}
    for block in blocks_of(page, "python"):
        if block.reason_not_to_run is None:
            # Blank lines before the code make the line numbers of a traceback those of the page.
            exec(compile("\n" * (block.line - 1) + block.code, str(page), "exec"), names)


def test_python_that_is_not_run_says_why():
    reasons = [block.reason_not_to_run for page in PAGES for block in blocks_of(page, "python")]
    marks = sum(text_of(page).count("<!-- not run") for page in PAGES)
    assert sum(reason is not None and len(reason) > 5 for reason in reasons) == marks == N_NOT_RUN


def lines_of_shell(page):
    code = "\n".join(block.code for block in blocks_of(page, "bash", "console", "sh"))
    return [line.split("#")[0].strip() for line in re.sub(r"\\\n", " ", code).splitlines()]


@pytest.mark.filterwarnings("ignore::UserWarning")  # of few cells
@pytest.mark.parametrize("page", [TOP / "README.md", DOCS / "guide" / "report.md"], ids=name_of)
def test_commands_run(page, small, monkeypatch, capsys):
    """Lines of the command line run in their order, on fewer cells; an error would end them."""
    cells = datasets.pbmc_planted()
    cells.obs["drug"] = [
        f"drug {'ABC'[k % 3]}" if label == "IFN-beta" else label for k, label in enumerate(cells.obs["condition"])
    ]
    Path("data").mkdir()
    for name in ("data/pbmc_planted.h5ad", "cells.h5ad", "others.h5ad"):
        cells.write_h5ad(name)
    for block in blocks_of(page, "toml"):
        Path("run.toml").write_text(block.code, encoding="utf-8")
    with sc.settings.verbosity.override("info"):  # each command sets it
        for line in lines_of_shell(page):
            if line.startswith("scot-hycnn "):
                monkeypatch.setattr(sys, "argv", shlex.split(line.partition(" > ")[0]))
                cli.main()
    assert "hycnn_ot" in capsys.readouterr().out


def test_options_of_shown_commands_exist(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")
    lines = [line for page in PAGES for line in lines_of_shell(page) if re.match("scot-hycnn [a-z]", line)]
    options = {}
    for _, command, *words in map(shlex.split, lines):
        options.setdefault(command, set()).update(word for word in words if word.startswith("-"))
    assert {"fit", "transport", "evaluate", "plot", "report", "info"} <= options.keys()
    for command, shown in options.items():
        monkeypatch.setattr(sys, "argv", ["scot-hycnn", command, "--help"])
        cli.main()
        assert shown <= set(re.findall(r"(?<!\S)--?[\w-]+", capsys.readouterr().out)), command


def test_shown_targets_of_make_exist():
    targets = set(re.findall(r"^([a-z-]+):", text_of(TOP / "Makefile"), flags=re.MULTILINE))
    for page in PAGES:
        shown = re.findall(r"`make ([a-z -]+?)`", text_of(page))
        shown += [line.removeprefix("make ") for line in lines_of_shell(page) if line.startswith("make ")]
        assert {target for names in shown for target in names.split()} <= targets, name_of(page)


def test_forms_and_hooks_are_yaml_and_hooks_are_local():
    yaml = pytest.importorskip("yaml")
    assert yaml.safe_load(text_of(TOP / ".github" / "ISSUE_TEMPLATE" / "bug.yml"))["body"]
    hooks = yaml.safe_load(text_of(TOP / ".pre-commit-config.yaml"))
    assert [repo["repo"] for repo in hooks["repos"]] == ["local"]


def test_versions_agree():
    version = re.search(r'^version = "(.*)"$', text_of(TOP / "pyproject.toml"), flags=re.MULTILINE)[1]
    for file in ("CITATION.cff", "docs/meta.yaml", "recipe/meta.yaml"):
        assert re.search(rf'^ *version: "?v?{re.escape(version)}"?$', text_of(TOP / file), flags=re.MULTILINE), file
