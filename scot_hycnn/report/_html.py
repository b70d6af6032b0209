"""The page as one file that loads nothing: the template with the content filled in."""

from __future__ import annotations

import html as markup
import json
import math
import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import numpy as np


def html(content: Mapping[str, Any]) -> str:
    """Fill the template; the page's script shows the content as text, never as markup."""
    text = json.dumps(plain(content), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    parts = {
        "@TITLE@": markup.escape(str(content["title"])),
        "@STYLE@": _template("page.css"),
        # Within <script>, a label must neither end the element nor begin a comment.
        "@CONTENT@": text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"),
        "@SCRIPT@": _template("page.js"),
    }
    # Only the template's own marks are filled, so that a label that reads '@SCRIPT@' is not replaced.
    return "".join(parts.get(piece, piece) for piece in re.split(f"({'|'.join(parts)})", _template("page.html")))


def _template(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def plain(value: Any) -> Any:
    """Return lists, dicts, strings, numbers with four digits, and None for numbers that are not finite."""
    if isinstance(value, Mapping):
        return {str(name): plain(entry) for name, entry in value.items()}
    if isinstance(value, (np.ndarray, np.generic)):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    if isinstance(value, float):
        return float(f"{value:.4g}") if math.isfinite(value) else None
    return value
