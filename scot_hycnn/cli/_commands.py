"""The commands by name, and what they print."""

from __future__ import annotations

import json as json_of_python
import math
import os
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from ._options import FIGURES, FUNCTIONS, Config, flag_of, options_of, with_options_of

# Metrics of which the groups are printed: whether cells lie where observed ones do, and among their own group.
_OF_GROUPS = ("energy_distance", "kept_group")
# Longer arrays, such as the scores of all blends, are for programs: JSON has them.
_MAX_SIZE = 5
SUFFIXES = (".png", ".svg", ".pdf")

Cells = Annotated[Path, typer.Argument(help="Cells, .h5ad or .zarr.")]
FittedCells = Annotated[Path, typer.Argument(help="Cells with a fit, .h5ad or .zarr.")]
Result = Annotated[Path, typer.Option("--output", "-o", help="Result, .h5ad or .zarr.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")]


def _changing_cells(name: str, does: str) -> Callable[..., None]:
    """Return the command that reads cells, calls its function on them, and writes them."""
    (function,) = FUNCTIONS[name]
    package, _, called = function.partition(".")

    def command(
        file: Cells, *, output: Result, overwrite: Overwrite = False, config: Config = None, **options: Any
    ) -> None:
        from scot_hycnn._anndata import _files

        _files.check_writable(output, overwrite=overwrite)
        adata = _files.read_file(file)
        getattr(import_module(f"scot_hycnn.{package}"), called)(adata, **options)
        _files.write_file(adata, output, overwrite=overwrite)

    # typer shows this as the help of the command.
    command.__doc__ = does
    return with_options_of(function)(command)


@with_options_of(*FUNCTIONS["evaluate"])
def evaluate(
    file: Cells,
    *,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Also write the cells with the scores, .h5ad or .zarr.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the scores with intervals as JSON.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print the scores with intervals as CSV.")] = False,
    overwrite: Overwrite = False,
    config: Config = None,
    **options: Any,
) -> None:
    """Score a fit or other predictions on held-out cells, beside baselines and a replicate, and print the scores."""
    from scot_hycnn import get, tl
    from scot_hycnn._anndata import _files

    if json and csv:
        raise ValueError("--json and --csv exclude each other; give one of them.")
    if output is not None:
        _files.check_writable(output, overwrite=overwrite)
    adata = _files.read_file(file)
    if "predictions" in options:
        # Names of layers and keys of obsm, or files, each named without its suffix.
        paths = {name: Path(name) for name in options["predictions"]}
        options["predictions"] = {
            path.stem if path.suffix in (".h5ad", ".zarr") else name: _files.read_file(path)
            if path.suffix in (".h5ad", ".zarr")
            else name
            for name, path in paths.items()
        }
    tl.evaluate(adata, **options)
    if output is not None:
        _files.write_file(adata, output, overwrite=overwrite)
    # Scores are on standard output and everything else on standard error, so that they can be redirected to a file.
    scores = get.evaluation(adata, options.get("key_added", options["key"]))
    if json:
        print(as_json(scores.to_dict("records")))
    elif csv:
        print(scores.to_csv(index=False), end="")
    else:
        print(scores_in_print(adata, options["key"], scores))


@with_options_of(*FUNCTIONS["deg"])
def deg(file: FittedCells, *, config: Config = None, **options: Any) -> None:
    """Print observed and predicted changes of genes, with scores and adjusted p values, as CSV."""
    from scot_hycnn import get
    from scot_hycnn._anndata import _files

    print(get.deg(_files.read_file(file), **options).to_csv(index=False), end="")


@with_options_of(*FUNCTIONS["plot"], optional=True)
def plot(
    figure: Annotated[str, typer.Argument(help=f"{', '.join(FIGURES)}.", autocompletion=lambda: FIGURES)],
    file: FittedCells,
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Picture: .png, .svg or .pdf.")],
    dpi: Annotated[int, typer.Option(help="Pixels per inch.", min=1)] = 150,
    overwrite: Overwrite = False,
    config: Config = None,
    **options: Any,
) -> None:
    """Draw a figure of a fit and write it as a picture; a figure takes some of the options."""
    # No window may open, even if there is a display.
    os.environ.setdefault("MPLBACKEND", "agg")
    from scot_hycnn import pl
    from scot_hycnn._anndata import _files

    figure = figure.replace("-", "_")
    if figure not in FIGURES:
        raise ValueError(f"There is no figure {figure!r}; choose one of {FIGURES}.")
    # The command offers the options of all figures together.
    takes = options_of(f"pl.{figure}")
    if wrong := [flag_of(name) for name in options if name not in takes]:
        raise ValueError(f"{figure!r} does not take {wrong}; it takes {[flag_of(name) for name in takes]}.")
    if missing := [flag_of(name) for name, one in takes.items() if one.default is one.empty and name not in options]:
        raise ValueError(f"{figure!r} needs {', '.join(missing)}; see scot-hycnn plot --help.")
    _files.check_writable(output, overwrite=overwrite, suffixes=SUFFIXES)
    adata = _files.read_file(file)
    drawn = getattr(pl, figure)(adata, return_fig=True, **options)
    # Without the date, the same file gives the same picture.
    metadata = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(output.suffix)
    with _files.written_whole(output, overwrite=overwrite) as part:
        drawn.savefig(part, dpi=dpi, metadata=metadata, bbox_inches="tight")


@with_options_of(*FUNCTIONS["report"])
def report(
    file: FittedCells,
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Page, .html.")],
    overwrite: Overwrite = False,
    config: Config = None,
    **options: Any,
) -> None:
    """Write a fit as one interactive HTML page that needs no network."""
    os.environ.setdefault("MPLBACKEND", "agg")
    from scot_hycnn import pl
    from scot_hycnn._anndata import _files

    _files.check_writable(output, overwrite=overwrite, suffixes=(".html",))
    pl.report(_files.read_file(file), output, **options)


def info(
    file: FittedCells,
    *,
    key: Annotated[str, typer.Option(help="Key of the fit in uns.")] = "hycnn_ot",
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    config: Config = None,
) -> None:
    """Print what a file's fit is and how good it is."""
    from scot_hycnn._anndata._files import read_uns
    from scot_hycnn._anndata._results import read_fit
    from scot_hycnn._anndata._schema import evaluation_slot
    from scot_hycnn._anndata.evaluation._evaluation_input import read_evaluation

    adata = read_uns(file)
    fit = read_fit(adata, key)
    scores = read_evaluation(adata, key) if evaluation_slot(key) in adata.uns else None
    content = {
        "source": fit.source,
        "groupby": fit.groupby,
        "rep": {"name": fit.rep.name, "n_dims": fit.rep.n_dims, "fingerprint": fit.rep.fingerprint},
        "params": fit.params,
        "targets": {
            fit.targets[slug]: {name: model[name] for name in ("outcome", "status", "validation", "certificate")}
            for slug, model in fit.models.items()
        },
    }
    if json:
        print(as_json(content | {"scores": [] if scores is None else scores.to_dict("records")}))
        return
    advice = "There are no scores yet: scot-hycnn evaluate makes them."
    print(_as_lines(content), advice if scores is None else scores_in_print(adata, key, scores), sep="\n\n")


def scores_in_print(adata: Any, key: str, scores: Any) -> str:
    """Return the verdict on each target, its scores for all cells, and its groups side by side."""
    from scot_hycnn._anndata._results import read_fit
    from scot_hycnn._anndata.evaluation._evaluation_input import headline_of
    from scot_hycnn.pl._evaluation import without_twin
    from scot_hycnn.report import verdict

    parts = []
    for target, rows in scores.groupby("target", sort=False):
        if (rows["method"] == "hycnn_ot").any() and key in adata.uns:
            fit = read_fit(adata, key)
            said = verdict(fit.models[fit.slug(target)]["validation"], rows, evaluate="scot-hycnn evaluate")
            parts.append(f"{target}: {said['headline']}.")
        methods = without_twin(rows)
        headline = headline_of(rows["group"])
        of_all = methods[methods["group"] == headline]
        for n_source, n_target in of_all[["n_source", "n_target"]].head(1).itertuples(index=False):
            counts = f"{n_source:,} source and {n_target:,} target cells"
            parts.append(f"{target}, {headline}: {counts}\n{_table(of_all, 'metric')}")
        # Groups stand below each other: one table of each would fill many screens.
        if methods["group"].nunique() > 1:
            for metric in [name for name in _OF_GROUPS if (methods["metric"] == name).any()]:
                of_metric = methods[methods["metric"] == metric]
                parts.append(f"{target}, {metric} of each group\n{_table(of_metric, 'group')}")
    return "\n\n".join([*parts, "All scores with their intervals: scot-hycnn evaluate --csv, or --json."])


def _table(scores: Any, rows: str) -> str:
    """Return scores with methods side by side, in the order in which they were evaluated."""
    values = scores.pivot_table(index=rows, columns="method", values="value", dropna=False)
    names, methods = (list(dict.fromkeys(scores[name])) for name in (rows, "method"))
    table = values.reindex(index=names, columns=methods).rename_axis(index=None, columns=None)
    if rows == "group":
        sizes = scores.drop_duplicates("group").set_index("group")[["n_source", "n_target"]]
        table = sizes.rename(columns={"n_source": "source", "n_target": "target"}).join(table).rename_axis(index=None)
    return str(table.to_string(float_format=lambda value: f"{value:.4g}", na_rep="-"))


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
        elif getattr(value, "size", 1) > _MAX_SIZE:
            continue
        elif isinstance(value, float) or (getattr(value, "shape", None) == () and value.dtype.kind == "f"):
            lines.append(f"{indent}{name}: {value:.4g}")
        elif value is not None:
            lines.append(f"{indent}{name}: {value}")
    return "\n".join(lines)


COMMANDS: dict[str, Callable[..., None]] = {
    "split": _changing_cells("split", "Label training and test cells, and write the cells with the labels."),
    "pca": _changing_cells("pca", "Compute principal components of training cells, and write the cells with them."),
    "fit": _changing_cells("fit", "Fit transport maps and write the cells with the result."),
    "transport": _changing_cells("transport", "Move cells by a fitted map and write them."),
    "screen": _changing_cells("screen", "Fit one model to all conditions of a screen and write the cells with it."),
    "decode": _changing_cells("decode", "Predict the expression of moved cells and write them with it."),
    "evaluate": evaluate,
    "deg": deg,
    "plot": plot,
    "report": report,
    "info": info,
}
