"""``scot-hycnn info``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ._config import Config
from ._printing import as_json, as_lines


def info(
    file: Annotated[Path, typer.Argument(help="Cells with a fit, .h5ad or .zarr.")],
    *,
    key: Annotated[str, typer.Option(help="Key of the fit in uns.")] = "hycnn_ot",
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    config: Config = None,
) -> None:
    """Say what a file's fit is and how good it is."""
    from scot_hycnn._anndata import read_fit, read_uns

    stored = read_fit(read_uns(file), key)
    maps = {
        stored.targets[slug]: {name: model[name] for name in ("status", "validation", "certificate")}
        for slug, model in stored.models.items()
    }
    content = {
        "source": stored.source,
        "groupby": stored.groupby,
        "rep": {"name": stored.rep.name, "n_dims": stored.rep.n_dims, "fingerprint": stored.rep.fingerprint},
        "params": stored.params,
        "targets": maps,
    }
    print(as_json(content) if json else as_lines(content))
