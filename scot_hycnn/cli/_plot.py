"""``scot-hycnn plot``: flags to keyword arguments of the functions of ``pl``."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ._config import Config

if TYPE_CHECKING:
    from anndata import AnnData

# Figure to whether it shows genes. A list of its own: matplotlib is not to be loaded for --help.
FIGURES = {
    "deg": True,
    "displacement": False,
    "embedding": False,
    "evaluation": False,
    "history": False,
    "marginals": True,
    "mean_scatter": True,
    "transport": False,
}
SUFFIXES = (".png", ".svg", ".pdf")


def plot(
    figure: Annotated[str, typer.Argument(help=f"{', '.join(FIGURES)}.", autocompletion=lambda: list(FIGURES))],
    file: Annotated[Path, typer.Argument(help="Cells with a fit, .h5ad or .zarr.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Picture: .png, .svg or .pdf.")],
    *,
    key: Annotated[str, typer.Option(help="Key of the fit in uns.")] = "hycnn_ot",
    target: Annotated[str | None, typer.Option(help="Label of the target condition.")] = None,
    basis: Annotated[str | None, typer.Option(help="Embedding, such as umap. [default: the map's own space]")] = None,
    color: Annotated[str | None, typer.Option(help="Column of obs to colour cells by.")] = None,
    style: Annotated[str | None, typer.Option(help="arrows or streams.")] = None,
    groupby: Annotated[str | None, typer.Option(help="Column of obs with groups, such as cell types.")] = None,
    names: Annotated[list[str] | None, typer.Option("--name", help="Gene or dimension; repeat for several.")] = None,
    layer: Annotated[str | None, typer.Option(help="Layer of measured expression. [default: the PCA's]")] = None,
    metrics: Annotated[list[str] | None, typer.Option("--metric", help="Metric; repeat for several.")] = None,
    group: Annotated[list[str] | None, typer.Option(help="Group of evaluated cells; repeat for several.")] = None,
    n_genes: Annotated[int | None, typer.Option(help="How many genes.")] = None,
    n_labels: Annotated[int | None, typer.Option(help="How many genes are named.")] = None,
    n_cols: Annotated[int | None, typer.Option(help="Panels in a row.")] = None,
    n_grid: Annotated[int | None, typer.Option(help="Squares along each axis.")] = None,
    n_neighbors: Annotated[int | None, typer.Option(help="Measured cells that place a predicted one.")] = None,
    dpi: Annotated[int, typer.Option(help="Pixels per inch.", min=1)] = 150,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")] = False,
    config: Config = None,
) -> None:
    """Draw a figure of a fit and write it as a picture."""
    # No window is to open where there is a display.
    os.environ.setdefault("MPLBACKEND", "agg")
    from scot_hycnn import pl
    from scot_hycnn._anndata import check_writable, read_file

    figure = figure.replace("-", "_")
    if figure not in FIGURES:
        raise ValueError(f"There is no figure {figure!r}; choose one of {list(FIGURES)}.")
    draw = getattr(pl, figure)
    given: dict[str, Any] = {
        "target": target,
        "basis": basis,
        "color": color,
        "style": style,
        "groupby": groupby,
        "names": names,
    }
    given |= {"layer": layer, "metrics": metrics, "group": group, "n_genes": n_genes, "n_labels": n_labels}
    given |= {"n_cols": n_cols, "n_grid": n_grid, "n_neighbors": n_neighbors}
    options = _options_of(draw, given)
    check_writable(output, overwrite=overwrite, suffixes=SUFFIXES)
    adata = read_file(file)
    if FIGURES[figure]:
        _predict_genes(adata, key, target, layer)
    _save(draw(adata, key, return_fig=True, **options), output, dpi, overwrite=overwrite)


def _options_of(draw: Callable[..., Any], given: dict[str, Any]) -> dict[str, Any]:
    """Those that were given, if the figure takes them."""
    known = inspect.signature(draw).parameters
    options = {name: value for name, value in given.items() if value not in (None, [])}
    flags = {name: "--" + {"names": "name", "metrics": "metric"}.get(name, name).replace("_", "-") for name in given}
    wrong = [flags[name] for name in options if name not in known]
    if wrong:
        takes = [flag for name, flag in flags.items() if name in known]
        raise ValueError(f"{draw.__name__!r} does not take {wrong}; it takes {takes}.")
    if known.get("groupby") and known["groupby"].default is inspect.Parameter.empty and "groupby" not in options:
        raise ValueError(f"{draw.__name__!r} needs --groupby, a column of obs with groups such as cell types.")
    return options


def _predict_genes(adata: AnnData, key: str, target: str | None, layer: str | None) -> None:
    """Predict genes, where the file lacks them and there is a way to them."""
    from scot_hycnn import tl
    from scot_hycnn._anndata import has_genes, has_genes_decoded, read_results

    results = read_results(adata, key, target)
    if not has_genes_decoded(adata, results, key) and has_genes(adata, results.rep, layer=layer, decoder=None):
        tl.decode(adata, key, target=target, layer=layer)


def _save(figure: Any, output: Path, dpi: int, *, overwrite: bool) -> None:
    from scot_hycnn._anndata import written_whole

    # Without the date: the same file gives the same picture.
    metadata = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(output.suffix)
    with written_whole(output, overwrite=overwrite) as part:
        figure.savefig(part, dpi=dpi, metadata=metadata, bbox_inches="tight")
