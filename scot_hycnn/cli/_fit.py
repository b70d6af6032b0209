"""``scot-hycnn fit``: flags to keyword arguments of ``tl.hycnn_ot``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ._config import Config


def fit(
    file: Annotated[Path, typer.Argument(help="Cells, .h5ad or .zarr.")],
    source: Annotated[str, typer.Option(help="Label of the source condition.")],
    target: Annotated[list[str], typer.Option(help="Label of the target condition; repeat for several.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Result, .h5ad or .zarr.")],
    *,
    groupby: Annotated[
        str | None, typer.Option(help="Column of obs with the labels. [default: the one that fits]")
    ] = None,
    use_rep: Annotated[str | None, typer.Option(help="Key of obsm, or X. [default: X_pca]")] = None,
    n_pcs: Annotated[int | None, typer.Option(help="Use the first so many components.")] = None,
    mask_obs: Annotated[str | None, typer.Option(help="Boolean column of obs: fit on these cells.")] = None,
    split_key: Annotated[str | None, typer.Option(help="Column of obs with train and test: fit on train.")] = None,
    group_key: Annotated[
        str | None, typer.Option(help="Column of obs with groups to give the same proportions, such as cell types.")
    ] = None,
    max_cells: Annotated[int | None, typer.Option(help="Fit on a sample of at most so many cells a side.")] = 100_000,
    group_weights: Annotated[str, typer.Option(help="Proportions: sqrt, equal or observed.")] = "sqrt",
    leave_out: Annotated[str, typer.Option(help="Choose the blend on cells, or on groups for unseen ones.")] = "cells",
    skip_small: Annotated[
        bool, typer.Option("--skip-small", help="Leave out targets with too few cells, and fit the others.")
    ] = False,
    potential: Annotated[str, typer.Option(help="hycnn, icnn, groupmax, mlp, gaussian ...")] = "hycnn",
    solver: Annotated[str, typer.Option(help="amortized, minimax, w2gn, enot or paper.")] = "amortized",
    hidden: Annotated[
        str | None,
        typer.Option(help="Width of each hidden layer. [default: 48,48,48,48, or 32,32,32 up to 1,000 cells]"),
    ] = None,
    max_steps: Annotated[int | None, typer.Option(help="Training steps. [default: from cells]")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Cells in each step. [default: from cells]")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate. [default: the method's]")] = None,
    weight_decay: Annotated[
        float | None, typer.Option(help="Pull towards the Gaussian map. [default: the method's]")
    ] = None,
    n_ensemble: Annotated[int | None, typer.Option(help="Networks. [default: 4]")] = None,
    validation_fraction: Annotated[float, typer.Option(help="Part of the cells held out of training.")] = 0.1,
    fallback: Annotated[bool, typer.Option("--fallback", help="Gaussian map far from the training cells.")] = False,
    predict: Annotated[bool, typer.Option(help="Write the moved cells, or the maps alone.")] = True,
    inverse: Annotated[bool, typer.Option("--inverse", help="Also move target cells back.")] = False,
    fill: Annotated[str, typer.Option(help="Rows of other cells: nan or identity.")] = "nan",
    conjugates: Annotated[
        str | None, typer.Option(help="Start of each conjugate: amortized or cached; else what suits the cells.")
    ] = None,
    cuda_graph: Annotated[
        str, typer.Option(help="auto: CUDA graphs on a GPU; always: torch.compile too, for long fits; never.")
    ] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda ...")] = "auto",
    seed: Annotated[int, typer.Option(help="Seed.")] = 0,
    checkpoint_dir: Annotated[
        Path | None, typer.Option(help="Folder for finished maps and training states: called again, the fit goes on.")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on from what is in it, or begin anew.")] = True,
    key_added: Annotated[str | None, typer.Option(help="Stem of all keys. [default: hycnn_ot]")] = None,
    progress: Annotated[bool | None, typer.Option(help="Show a bar. [default: in a terminal]")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")] = False,
    config: Config = None,
) -> None:
    """Fit transport maps and write the cells with the result."""
    from scot_hycnn import _anndata, tl

    _anndata.check_writable(output, overwrite=overwrite)
    adata = _anndata.read_file(file)
    how: dict[str, Any] = {"checkpoint_dir": checkpoint_dir, "resume": resume, "progress": progress}
    tl.hycnn_ot(
        adata,
        source,
        target,
        groupby=groupby,
        use_rep=use_rep,
        n_pcs=n_pcs,
        mask_obs=mask_obs,
        split_key=split_key,
        group_key=group_key,
        max_cells=max_cells,
        group_weights=group_weights,
        leave_out=leave_out,
        skip_small=skip_small,
        potential=potential,
        solver=solver,
        hidden=None if hidden is None else _widths(hidden),
        max_steps=max_steps,
        batch_size=batch_size,
        lr=lr,
        weight_decay=weight_decay,
        n_ensemble=n_ensemble,
        validation_fraction=validation_fraction,
        fallback=fallback,
        predict=predict,
        inverse=inverse,
        fill=fill,
        conjugates=conjugates,
        cuda_graph=cuda_graph,
        device=device,
        rng=seed,
        key_added=key_added,
        **how,
    )
    _anndata.write_file(adata, output, overwrite=overwrite)


def _widths(hidden: str) -> list[int]:
    try:
        return [int(width) for width in hidden.split(",")]
    except ValueError:
        raise ValueError(f"--hidden {hidden!r} must be whole numbers with commas between, such as 48,48.") from None
