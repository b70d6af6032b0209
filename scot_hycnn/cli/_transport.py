"""``scot-hycnn transport``: flags to keyword arguments of ``tl.transport``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ._config import Config


def transport(
    file: Annotated[Path, typer.Argument(help="Cells to move, .h5ad or .zarr.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Result, .h5ad or .zarr.")],
    *,
    model: Annotated[
        Path | None, typer.Option(help="Fitted .h5ad or .zarr, or a map's .safetensors. [default: the cells' file]")
    ] = None,
    key: Annotated[str, typer.Option(help="Key of the fit in uns.")] = "hycnn_ot",
    target: Annotated[str | None, typer.Option(help="Label of the target condition. [default: all]")] = None,
    direction: Annotated[str, typer.Option(help="forward or inverse.")] = "forward",
    t: Annotated[float, typer.Option("--t", help="Part of the way, 0 to 1.")] = 1.0,
    fallback: Annotated[
        bool | None, typer.Option(help="Gaussian map far from the training cells. [default: as fitted]")
    ] = None,
    use_rep: Annotated[str | None, typer.Option(help="Key of obsm, or X, for a .safetensors map.")] = None,
    mask_obs: Annotated[str | None, typer.Option(help="Boolean column of obs: move these cells.")] = None,
    fill: Annotated[str, typer.Option(help="Rows of other cells: nan or identity.")] = "nan",
    key_added: Annotated[str | None, typer.Option(help="Stem of all keys. [default: --key]")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")] = False,
    config: Config = None,
) -> None:
    """Move cells by a fitted map and write them."""
    from scot_hycnn import tl
    from scot_hycnn._anndata import check_writable, read_file, write_file

    check_writable(output, overwrite=overwrite)
    adata = read_file(file)
    tl.transport(
        adata,
        key,
        target=target,
        model=model,
        direction=direction,
        t=t,
        fallback=fallback,
        use_rep=use_rep,
        mask_obs=mask_obs,
        fill=fill,
        key_added=key_added,
    )
    write_file(adata, output, overwrite=overwrite)
