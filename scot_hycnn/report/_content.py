"""All that the page shows, as plain values, and the page as one file that loads nothing."""

from __future__ import annotations

import html as markup
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

import scot_hycnn
from scot_hycnn._anndata._representation import space_of
from scot_hycnn._anndata._results import GroupGrowth, Results, StoredFit, read_results
from scot_hycnn._anndata.evaluation._evaluation_input import (
    CEILING,
    REPLICATE,
    SAME_COMPOSITION,
    headline_of,
    read_evaluation,
)
from scot_hycnn._anndata.evaluation._growth import growth_by_group, has_growth
from scot_hycnn._anndata.evaluation._screen_input import ScreenCells
from scot_hycnn._anndata.genes._genes import read_evaluated
from scot_hycnn._response import adjusted, in_brief
from scot_hycnn._warn import counted
from scot_hycnn.pl._evaluation import METHODS, metric_in_print, name_of_evaluated, without_noise, without_twin
from scot_hycnn.pl._figure import number, which_cells
from scot_hycnn.pl._history import validation_cells
from scot_hycnn.pl._labels import OBSERVED, PREDICTED, SOURCE

from ._cells import describe_cells, describe_genes, describe_moves, find_grouping
from ._distances import percent
from ._verdict import KEPT, verdict

# Cells of all targets together, about 60 bytes for each: the file stays below 3 MB.
_MAX_CELLS = 36_000
_MAX_TARGETS = 300
# Columns of the table of all conditions: of get.summary, in print, and what the page's script takes them for.
_INDEX = (
    ("condition", "condition", "text"),
    ("verdict", "verdict", "text"),
    ("explained", "explained", "number"),
    ("no_change", "no change", "number"),
    ("predicted", "predicted", "number"),
    ("replicate", "replicate", "number"),
    ("p_adjusted", "adjusted p", "number"),
    ("displacement", "displacement", "number"),
    ("n_source", "source cells", "whole"),
    ("n_target", "observed cells", "whole"),
)
# By rounding, a convex function may show a gap as large as this.
_ROUNDING = 1e-4
# The page's script reads rows of scores by these places.
_SCORE_COLUMNS = ["group", "method", "metric", "value", "low", "high", "n_source", "n_target"]
_SCORE_COLUMNS += ["vs_gaussian", "vs_gaussian_low", "vs_gaussian_high"]
_CERTIFICATE = {
    "convexity_gap": "Largest excess of the potential halfway between two cells over its mean: convex if not above 0.",
    "monotonicity": "Smallest ⟨T(a) \N{MINUS SIGN} T(b), a \N{MINUS SIGN} b⟩ / |a \N{MINUS SIGN} b|² over pairs of "
    "cells: monotone if not below 0.",
    "fenchel_residual": "Mean distance of target cells from where the map takes their preimages, in {unit}.",
    "cycle_error": "Mean distance of source cells from the inverse of where they are moved, in {unit}.",
    "w2_squared": "Squared Wasserstein-2 distance by the dual: a lower bound, too high on cells that chose the blend.",
    "w2_squared_error": "Standard error of that bound.",
    "transport_cost": "Mean squared displacement of these cells.",
}


def content(
    adata: AnnData,
    fit: StoredFit,
    read_cells: Callable[[str | None], ScreenCells],
    *,
    targets: list[str] | None,
    basis: str | None,
    groupby: str | None,
    layer: str | None,
    n_genes: int,
    max_cells: int,
    title: str | None,
) -> dict[str, Any]:
    """Return what the page shows of all targets; other parameters are those of :func:`scot_hycnn.pl.report`.

    ``read_cells`` finds the cells of all targets, with groups by a column.
    """
    slugs = list(fit.targets) if targets is None else [fit.slug(target) for target in targets]
    if not 1 <= len(slugs) <= _MAX_TARGETS:
        raise ValueError(
            f"A page shows 1 to {_MAX_TARGETS} targets, and these are {len(slugs)}: pass target= some of "
            f"{list(fit.targets.values())[:_MAX_TARGETS]}."
        )
    key = fit.key
    table = read_evaluation(adata, key) if f"{key}_evaluation" in adata.uns else None
    evaluated = set() if table is None else {*table["group"]} - {"all", SAME_COMPOSITION}
    groups = find_grouping(adata, fit, groupby, evaluated)
    column = None if groups is None else groups.column
    basis = "umap" if basis is None and "X_umap" in adata.obsm else basis
    n = min(max_cells, _MAX_CELLS // len(slugs)) // 2
    arguments = ("" if key == "hycnn_ot" else f", {key!r}") + ("" if column is None else f", groupby={column!r}")
    evaluate = f"sh.tl.evaluate(adata{arguments}) or scot-hycnn evaluate{f' --groupby {column}' if column else ''}"
    sections = []
    # Corrected over conditions, as in the table of all conditions.
    p_values = [float(model["validation"].get("p_no_change", math.nan)) for model in fit.models.values()]
    p_of = dict(zip(fit.models, adjusted(np.array(p_values)).tolist(), strict=True))
    for slug in slugs:
        scores = None if table is None else table[table["target"] == fit.targets[slug]]
        scores = None if scores is None or scores.empty else scores
        results, responds = None, dict[str, bool]()
        try:
            results = read_results(adata, fit, fit.targets[slug])
            shown, called = read_evaluated(adata, fit, fit.targets[slug])
        except ValueError as error:  # for instance if the maps were stored alone
            cells: dict[str, Any] = {"missing": str(error)}
        else:
            responds = {} if groups is None else read_cells(column).responses(slug)
            groups = groups and groups._replace(responds=responds)
            cells = {
                "which": which_cells(called, {fit.source: len(shown.x), shown.target: len(shown.y)}),
                "cells": describe_cells(adata, fit, key, shown, basis=basis, groups=groups, n=n),
                "genes": describe_genes(adata, fit, shown, layer=layer, n_genes=n_genes),
                **describe_moves(adata, fit, shown, groups),
            }
        cells["facts"] = _facts(fit, slug, results, cells)
        if scores is not None:
            cells["evaluated"] = name_of_evaluated(adata, key, fit.targets[slug], scores)
        growth = growth_by_group(adata, fit, slug, column) if column and has_growth(adata, fit, slug) else None
        said = {"p_value": p_of[slug], "evaluate": evaluate, "responds": responds, "growth": growth}
        sections.append(cells | _quality(fit, slug, scores, results, **said))
    return {
        "title": title or f"{fit.source} → {sections[0]['label'] if len(slugs) == 1 else f'{len(slugs)} conditions'}",
        "source": fit.source,
        "colors": {"source": SOURCE, "predicted": PREDICTED, "observed": OBSERVED},
        "unit": f"distance in {space_of(fit.rep)}",
        "group": column,
        "evaluate": evaluate,
        "metrics": {} if table is None else {name: list(metric_in_print(name)) for name in table["metric"].unique()},
        "methods": {name: list(style) for name, style in METHODS.items()},
        "replicate": REPLICATE,
        "ceiling": CEILING,
        "targets": sections,
        "index": None,  # see index_of
        "parameters": _parameters(fit),
        # The versions of the packages when the map was fitted, and that of this package now.
        "versions": [*map(list, fit.versions.items()), ["this page", scot_hycnn.__version__]],
    }


def index_of(conditions: pd.DataFrame) -> dict[str, Any]:
    """Return what the page shows of all its conditions, which are rows of :func:`scot_hycnn.get.summary`."""
    rows = conditions[[column for column, _, _ in _INDEX]].to_numpy(dtype=object).tolist()
    columns = [[name, kind] for _, name, kind in _INDEX]
    return {"columns": columns, "rows": rows, "headline": " ".join(in_brief(conditions["verdict"].tolist()))}


def _quality(
    fit: StoredFit,
    slug: str,
    scores: pd.DataFrame | None,
    results: Results | None,
    *,
    p_value: float,
    evaluate: str,
    responds: Mapping[str, bool],
    growth: Sequence[GroupGrowth] | None,
) -> dict[str, Any]:
    """Return what says how good the map of a target is: verdict, scores, training, certificate and status."""
    model, training, score_rows = fit.models[slug], None, None
    history, is_gaussian = model["history"], str(model.get("outcome", "")).startswith("gaussian")
    if "J_minus_gaussian" in history:
        training = {"step": history["step"], "gap": history["J_minus_gaussian"], "error": history["J_error"]}
    if scores is not None:
        rows = without_noise(without_twin(scores))[_SCORE_COLUMNS].to_numpy(dtype=object).tolist()
        groups = list(dict.fromkeys(scores["group"]))
        score_rows = {"groups": groups, "headline": headline_of(groups), "rows": rows}
    return {
        "label": fit.targets[slug],
        "validation": validation_cells([model["validation"]]),
        "verdict": verdict(
            {**model["validation"], "p_no_change": p_value},
            scores,
            is_trained=fit.params.get("potential") != "gaussian",
            max_steps=fit.params.get("max_steps"),
            n_seen=_n_seen(fit, slug, scores, results),
            evaluate=evaluate,
            responds=responds,
            growth=growth,
        ),
        "scores": score_rows,
        "history": training,
        "certificate": _certificate(model["certificate"], space_of(fit.rep)),
        # The verdict explains that the Gaussian map was kept.
        "status": "" if is_gaussian or model["status"] == "ok" else model["status"],
    }


def _n_seen(fit: StoredFit, slug: str, scores: pd.DataFrame | None, results: Results | None) -> int:
    """Return how many of the evaluated cells must have been training cells, by their numbers alone."""
    if scores is None or results is None or not fit.n_training:
        return 0
    everyone, n_seen = scores[scores["group"] == "all"], 0
    for name, column, rows in (("source", "n_source", results.source_rows), (slug, "n_target", results.target_rows)):
        # If training and evaluated cells are together more than there are, the difference must be in both.
        n_evaluated = int(everyone[column].iloc[0]) if len(everyone) else 0
        n_seen += max(0, fit.n_training.get(name, 0) + n_evaluated - len(rows))
    return n_seen


def _facts(fit: StoredFit, slug: str, results: Results | None, cells: dict[str, Any]) -> list[list[str]]:
    """Return the boxes at the top of the page: name, value, explanation."""
    params, validation = fit.params, fit.models[slug]["validation"]
    blend = float(validation.get("blend", math.nan))
    counts = [fit.n_training.get(name) for name in ("source", slug)]
    fitted = " and ".join(f"{n:,}" for n in counts if n is not None)
    simple = str(validation.get("winner", KEPT))
    simple = "average of simple maps" if simple.startswith("average of") else simple  # the verdict names them
    chosen = simple if blend == 0 else "networks" if blend == 1 else f"{percent(blend)} networks"
    if params.get("potential") == "gaussian":
        network = "closed form"
    else:
        widths = "-".join(str(width) for width in np.ravel(params.get("hidden", [])))
        network = f"{params.get('n_ensemble')} \N{MULTIPLICATION SIGN} {params.get('potential')}, {widths}"
        network = f"instead of {network}" if blend == 0 else network
    seconds = params.get("seconds")
    took = "" if seconds is None else f"{seconds:.3g}\N{NO-BREAK SPACE}s "
    trained = f"{took}on {params.get('device')}, seed {params.get('rng')}"
    facts = [
        ["Space", fit.rep.name, counted(fit.rep.n_dims, "dimension")],
        ["Map", chosen, network],
        ["Training", counted(int(params.get("n_steps", 0)), "step"), trained],
    ]
    if results is None:
        return [["Fitted on", fitted or "not recorded", "source and target cells"], *facts]
    n = f"{len(results.source_rows):,} → {len(results.target_rows):,}"
    facts.insert(0, ["Cells", n, f"{fitted} of them fitted on" if fitted else "source → target"])
    facts.append(["Median displacement", number(cells["median"]), f"distance in {space_of(fit.rep)}"])
    if cells["far"] is not None:
        usual = f"of source cells score above 1, usually {percent(0.05)}"
        facts.append(["Out of support", percent(cells["far"]), usual])
    return facts


def _certificate(measured: dict[str, Any], unit: str) -> list[list[Any]]:
    """Return name, value, explanation, and whether the value is as it should be (None if there is no standard)."""
    excess = {"convexity_gap": measured.get("convexity_gap", 0), "monotonicity": -measured.get("monotonicity", 0)}
    # A value is NaN if all cells are the same; it is then neither right nor wrong.
    sound = {name: None if np.isnan(value) else bool(value <= _ROUNDING) for name, value in excess.items()}
    return [
        [name.replace("_", " "), value, _CERTIFICATE.get(name, "").format(unit=unit), sound.get(name)]
        for name, value in measured.items()
    ]


def _parameters(fit: StoredFit) -> list[list[str]]:
    """Return name and value of each parameter, without fingerprints, which no reader needs."""
    shown = {"key": fit.key, "groupby": fit.groupby, "use_rep": fit.rep.name, "n_dims": fit.rep.n_dims, **fit.params}
    return [
        [name, f"{value:.4g}" if isinstance(value, float) else ", ".join(map(str, np.ravel(value)))]
        for name, value in shown.items()
        if not name.endswith("fingerprint")
    ]


def html(content: Mapping[str, Any]) -> str:
    """Fill the template; the page's script shows the content as text, never as markup."""
    text = json.dumps(plain(content), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    parts = {
        "@TITLE@": markup.escape(str(content["title"])),
        "@STYLE@": _template("page.css"),
        # Within <script>, a label must neither end the element nor begin a comment.
        "@CONTENT@": text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"),
        "@SCRIPT@": _template("page.js"),
    }
    # Only the template's own marks are filled, so that a label that reads '@SCRIPT@' is not replaced.
    return "".join(parts.get(piece, piece) for piece in re.split(f"({'|'.join(parts)})", _template("page.html")))


def _template(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def plain(value: Any) -> Any:
    """Return lists, dicts, strings, numbers with four digits, and None for numbers that are not finite."""
    if isinstance(value, Mapping):
        return {str(name): plain(entry) for name, entry in value.items()}
    if isinstance(value, (np.ndarray, np.generic)):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    if isinstance(value, float):
        return float(f"{value:.4g}") if math.isfinite(value) else None
    return value
