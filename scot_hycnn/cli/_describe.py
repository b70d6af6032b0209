"""``scot-hycnn info``, and results as JSON or as text."""

from __future__ import annotations

import json as json_of_python
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from ._options import Config


def info(
    file: Annotated[Path, typer.Argument(help="Cells with a fit, .h5ad or .zarr.")],
    *,
    key: Annotated[str, typer.Option(help="Key of the fit in uns.")] = "hycnn_ot",
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    config: Config = None,
) -> None:
    """Print what a file's fit is and how good it is."""
    from scot_hycnn._anndata._files import read_uns
    from scot_hycnn._anndata._results import read_fit

    fit = read_fit(read_uns(file), key)
    content = {
        "source": fit.source,
        "groupby": fit.groupby,
        "rep": {"name": fit.rep.name, "n_dims": fit.rep.n_dims, "fingerprint": fit.rep.fingerprint},
        "params": fit.params,
        "targets": {
            fit.targets[slug]: {name: model[name] for name in ("status", "validation", "certificate")}
            for slug, model in fit.models.items()
        },
    }
    print(as_json(content) if json else _as_lines(content))


def as_json(content: Any) -> str:
    """Return JSON that any program can read: numbers that are not finite become null."""
    return json_of_python.dumps(_plain(content), indent=2, allow_nan=False, ensure_ascii=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(entry) for name, entry in value.items()}
    if hasattr(value, "tolist"):  # arrays and numbers of numpy
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, (str, int, float, type(None))) else str(value)


def _as_lines(content: Mapping[str, Any], indent: str = "") -> str:
    """Return one line for each entry; nested entries are indented."""
    lines = []
    for name, value in content.items():
        if isinstance(value, Mapping):
            lines += [f"{indent}{name}", _as_lines(value, indent + "  ")]
        elif isinstance(value, float) or (getattr(value, "shape", None) == () and value.dtype.kind == "f"):
            lines.append(f"{indent}{name}: {value:.4g}")
        elif value is not None:
            lines.append(f"{indent}{name}: {value}")
    return "\n".join(lines)
