"""Content into the template: one file, nothing from outside."""

from __future__ import annotations

import html as markup
import json
import math
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import numpy as np


def html(content: Mapping[str, Any]) -> str:
    """Fill the template. The page's script puts all of the content on the page as text, never as markup."""
    parts = {
        "@TITLE@": markup.escape(str(content["title"])),
        "@STYLE@": _template("page.css"),
        "@CONTENT@": _json(content),
        "@SCRIPT@": _template("page.js"),
    }
    page = _template("page.html")
    # Piece by piece from the template alone: a label that reads '@SCRIPT@' is no place to fill.
    filled = []
    while found := [name for name in parts if name in page]:
        name = min(found, key=page.index)
        before, page = page.split(name, 1)
        filled += [before, parts[name]]
    return "".join([*filled, page])


def _template(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _json(content: Mapping[str, Any]) -> str:
    text = json.dumps(plain(content), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # Within <script> a label must not end the element, or begin a comment.
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def plain(value: Any) -> Any:
    """Lists, dicts, strings, numbers, and None for numbers that are not finite; decimals to four digits."""
    if isinstance(value, Mapping):
        return {str(name): plain(entry) for name, entry in value.items()}
    if isinstance(value, (np.ndarray, np.generic)):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    if isinstance(value, float):
        return float(f"{value:.4g}") if math.isfinite(value) else None
    return value
