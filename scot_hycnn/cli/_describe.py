"""``scot-hycnn info``, and results as JSON or as text."""

from __future__ import annotations

import json as json_of_python
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from ._options import Config

# Metrics of which the groups are printed: whether cells lie where observed ones do, and among their own group.
_OF_GROUPS = ("energy_distance", "kept_group")
# Longer arrays, such as the scores of all blends, are for programs: JSON has them.
_MAX_SIZE = 5


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
