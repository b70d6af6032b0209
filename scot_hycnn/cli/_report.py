"""``scot-hycnn report``: flags to keyword arguments of ``pl.report``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from ._config import Config


def report(
    file: Annotated[Path, typer.Argument(help="Cells with a fit, .h5ad or .zarr.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Page, .html.")],
    *,
    key: Annotated[str, typer.Option(help="Key of the fit in uns.")] = "hycnn_ot",
    target: Annotated[
        list[str] | None, typer.Option(help="Label of the target condition; repeat for several. [default: all]")
    ] = None,
    basis: Annotated[str | None, typer.Option(help="Embedding to show. [default: umap if it is there]")] = None,
    groupby: Annotated[
        str | None, typer.Option(help="Column of obs with groups. [default: the fit's, else the first of obs]")
    ] = None,
    layer: Annotated[str | None, typer.Option(help="Layer of measured expression. [default: the PCA's]")] = None,
    n_genes: Annotated[int, typer.Option(help="How many genes are listed.")] = 100,
    max_cells: Annotated[int, typer.Option(help="How many measured cells are drawn.")] = 4000,
    title: Annotated[str | None, typer.Option(help="Heading. [default: the conditions]")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")] = False,
    config: Config = None,
) -> None:
    """Write a fit as one interactive HTML page that needs no network."""
    # No window is to open where there is a display.
    os.environ.setdefault("MPLBACKEND", "agg")
    from scot_hycnn import pl
    from scot_hycnn._anndata import check_writable, read_file

    check_writable(output, overwrite=overwrite, suffixes=(".html",))
    pl.report(
        read_file(file),
        output,
        key,
        target=target or None,
        basis=basis,
        groupby=groupby,
        layer=layer,
        n_genes=n_genes,
        max_cells=max_cells,
        title=title,
    )
