"""Results as JSON or plain text."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


def as_json(content: Any) -> str:
    """JSON that every reader takes: numbers that are not finite become null."""
    return json.dumps(_plain(content), indent=2, allow_nan=False, ensure_ascii=False)


def as_lines(content: Mapping[str, Any], indent: str = "") -> str:
    """One line an entry, nested ones indented."""
    lines = []
    for name, value in content.items():
        if isinstance(value, Mapping):
            lines += [f"{indent}{name}", as_lines(value, indent + "  ")]
        elif _is_real(value):
            lines.append(f"{indent}{name}: {value:.4g}")
        elif value is not None:
            lines.append(f"{indent}{name}: {value}")
    return "\n".join(lines)


def _is_real(value: Any) -> bool:
    """Whether it is a number with decimals, of Python or of numpy in any precision."""
    return isinstance(value, float) or (getattr(value, "shape", None) == () and value.dtype.kind == "f")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(entry) for name, entry in value.items()}
    if hasattr(value, "tolist"):  # arrays and numbers of numpy
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
