"""``scot-hycnn evaluate``: flags to keyword arguments of ``tl.evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ._config import Config
from ._printing import as_json

if TYPE_CHECKING:
    import pandas as pd


def evaluate(
    file: Annotated[Path, typer.Argument(help="Cells with a fit, .h5ad or .zarr.")],
    *,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Also write the cells with the scores, .h5ad or .zarr.")
    ] = None,
    key: Annotated[str, typer.Option(help="Key of the fit in uns.")] = "hycnn_ot",
    target: Annotated[str | None, typer.Option(help="Label of the target condition. [default: all]")] = None,
    groupby: Annotated[str | None, typer.Option(help="Column of obs whose groups are scored too.")] = None,
    mask_obs: Annotated[str | None, typer.Option(help="Boolean column of obs: evaluate these cells.")] = None,
    split_key: Annotated[
        str | None, typer.Option(help="Column of obs whose test cells are evaluated. [default: the fit's]")
    ] = None,
    layer: Annotated[str | None, typer.Option(help="Layer of measured expression. [default: the PCA's]")] = None,
    n_bootstrap: Annotated[int, typer.Option(help="Replicates of the bootstrap; 0 for no intervals.")] = 100,
    seed: Annotated[int, typer.Option(help="Seed.")] = 0,
    key_added: Annotated[str | None, typer.Option(help="Stem of the key of the scores. [default: --key]")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the scores with intervals as JSON.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print the scores with intervals as CSV.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")] = False,
    config: Config = None,
) -> None:
    """Score a fit on held-out cells, beside baselines and floor, and print the scores."""
    from scot_hycnn import get, tl
    from scot_hycnn._anndata import check_writable, read_file, write_file

    if json and csv:
        raise ValueError("--json and --csv exclude each other; give one of them.")
    if output is not None:
        check_writable(output, overwrite=overwrite)
    adata = read_file(file)
    tl.evaluate(
        adata,
        key,
        target=target,
        groupby=groupby,
        mask_obs=mask_obs,
        split_key=split_key,
        layer=layer,
        n_bootstrap=n_bootstrap,
        rng=seed,
        key_added=key_added,
    )
    if output is not None:
        write_file(adata, output, overwrite=overwrite)
    scores = get.evaluation(adata, key if key_added is None else key_added)
    if json:
        print(as_json(scores.to_dict("records")))
    else:
        print(scores.to_csv(index=False) if csv else _tables(scores), end="" if csv else "\n")


def _tables(scores: pd.DataFrame) -> str:
    """A table of values for each target and group, methods side by side."""
    tables = []
    for (target, group), part in scores.groupby(["target", "group"], sort=False):
        n_source, n_target = part[["n_source", "n_target"]].iloc[0]
        methods, metrics = (list(dict.fromkeys(part[name])) for name in ("method", "metric"))
        values = part.pivot_table(index="metric", columns="method", values="value", dropna=False)
        table = values.reindex(index=metrics, columns=methods).rename_axis(index=None, columns=None)
        text = table.to_string(float_format=lambda value: f"{value:.4g}", na_rep="-")
        tables.append(f"{target}, {group}: {n_source} source and {n_target} target cells\n{text}")
    return "\n\n".join(tables)
