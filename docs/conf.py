"""Settings with which `make docs` builds the site, without network, from pages, docstrings and notebooks."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from docutils import nodes

import scot_hycnn

if TYPE_CHECKING:
    from sphinx.application import Sphinx

FOLDER = Path(__file__).parent
ROOT = FOLDER.parent
sys.path.insert(0, str(FOLDER))
from parameters import tables  # noqa: E402 - of this folder

project = "scot_hycnn"
author = "The scot_hycnn developers"
copyright = f"2026, {author}"  # noqa: A001 - Sphinx's name
release = version = scot_hycnn.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx-mathjax-offline",
]
exclude_patterns = ["_build", "_templates"]
templates_path = ["_templates"]
nitpicky = True

# Pages: notebooks are shown with their stored outputs; `make tutorials` executes them.
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
myst_dmath_double_inline = True
nb_execution_mode = "off"

# API: each public name has a page. Returns are prose in our docstrings, not a list of types.
autosummary_generate = True
autosummary_context = {"pictures": [path.stem for path in (FOLDER / "gallery").glob("*.png")], "classes": tables()}
autosummary_ignore_module_all = False
autodoc_type_aliases = {"ArrayLike": "ArrayLike"}  # in signatures of overloads, its name instead of its union
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = True
napoleon_google_docstring = False
napoleon_attr_annotations = False  # autodoc reads them from the annotations
napoleon_custom_sections = ["Returns"]
# Types of other packages are not linked, since reading their documentation would need the network.
nitpick_ignore_regex = [
    ("py:.*", r"(abc|anndata|collections|matplotlib|np|numpy|pandas|pathlib|pd|scanpy|scipy|sklearn|torch)\..*"),
    ("py:class", r"AnnData|ArrayLike|NDArray|Path|Mask|Decoder|Model|FitOptions|Predictions|ScreenModel|ScreenOptions"),
    ("py:class", r"scot_hycnn\..*\._.*|scot_hycnn\.solver\.(Coordinates|Support)"),  # private parts of a map
    ("py:class", r"arrays?|shape|n_(networks|weights|features)|and float"),  # of scikit-learn's attributes
]

html_theme = "sphinx_book_theme"
html_title = "scot_hycnn"
html_static_path = ["_static"]
html_css_files = ["style.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "show_toc_level": 2,
    "navbar_persistent": [],
    "article_header_end": ["article-header-buttons"],
    "use_download_button": False,
    "use_fullscreen_button": False,
}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

_PRIVATE = re.compile(r"scot_hycnn\.(\w+)\._\w+\.")
_ARRAY = re.compile(r"ndarray\[tuple\[[^\]]*\], ~?numpy\.dtype\[(?:[^\[\]]|\[[^\]]*\])*\]\]")
_LINK = re.compile(r"(?<!!)\[([^]\[]*)\]\((?!https?:|#)([^)]+)\)")


def _begin_anew() -> None:
    """Remove old pages of the API, and copy the notebooks: Sphinx reads files below this folder only."""
    shutil.rmtree(FOLDER / "api", ignore_errors=True)
    folder = FOLDER / "tutorials"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for notebook in (ROOT / "tutorials").glob("[0-9]_*.ipynb"):
        shutil.copyfile(notebook, folder / notebook.name)


def _links_of_root(_app: Sphinx, path: Path, _parent: str, content: list[str]) -> None:
    """Correct links of README, CHANGELOG and CONTRIBUTING, which are included here but written for the root."""
    if (FOLDER / path).resolve().parent == ROOT:
        content[0] = _LINK.sub(_from_here, content[0])


def _from_here(link: re.Match[str]) -> str:
    text, target = link.groups()
    if target.startswith("docs/") and target.split("#")[0].endswith(".md"):
        return f"[{text}](/{target.removeprefix('docs/')})"
    # A file of the repository that is not a page is shown by its name.
    return text if text.startswith("`") else f"`{text}`"


def _is_of_others(_app: Sphinx, _what: str, _name: str, member: object, skip: bool, _options: object) -> bool | None:
    """Skip members that classes inherit from scikit-learn, which documents them."""
    return True if str(getattr(member, "__module__", "scot_hycnn")).startswith("sklearn") else skip


def _short_types(app: Sphinx, _domain: str, _kind: str, _content: object) -> None:
    """Show ArrayLike by its name alone, and our classes by their public module."""
    for types in app.env.current_document.autodoc_annotations.values():
        for name, whole in types.items():
            kind = _ARRAY.sub("ndarray", whole.replace("TypeAliasForwardRef('ArrayLike')", "ArrayLike"))
            types[name] = _PRIVATE.sub(r"scot_hycnn.\1.", kind)


def _join_parameters(_app: Sphinx, page: nodes.document) -> None:
    """Show parameters that share one description, as ``x, y`` of a docstring do, in one item, and its text once."""
    dash = " \N{EN DASH} "
    for body in page.findall(nodes.field_body):
        above, described = nodes.paragraph(), ""
        for item in [item for item in body.findall(nodes.list_item) if item.parent.parent is body]:
            text = item[0]
            if dash not in text.children:
                continue
            names, description = text[: text.index(dash)], text.astext().partition(dash)[2]
            if description == described:
                end = above.index(dash)
                above[end:end] = [nodes.Text(", "), *names]
                item.parent.remove(item)
            else:
                above, described = text, description


def setup(app: Sphinx) -> None:
    """Connect these functions to Sphinx, which calls this one."""
    _begin_anew()
    app.connect("object-description-transform", _short_types, priority=400)  # before autodoc shows them
    app.connect("autodoc-skip-member", _is_of_others)
    app.connect("include-read", _links_of_root)
    app.connect("doctree-read", _join_parameters)
