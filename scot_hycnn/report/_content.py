"""Everything on the page, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

import scot_hycnn
from scot_hycnn._anndata import Results, StoredFit, read_evaluation, read_fit, read_results
from scot_hycnn.pl._colors import OBSERVED, PREDICTED, SOURCE
from scot_hycnn.pl._evaluation import FLOOR, METHODS, metric_in_print

from ._cells import describe_cells, describe_groups, find_groups
from ._genes import describe_genes
from ._verdict import number, percent, verdict

# All cells of the page together, each about 60 bytes: the file stays below 3 MB.
_MOST_CELLS = 36_000
MOST_TARGETS = 40
# Rounding: a convex function may show a gap that large.
_ROUNDING = 1e-4


@dataclass(frozen=True)
class Choices:
    """What the user asked for; see :func:`scot_hycnn.pl.report`.

    Parameters
    ----------
    key, targets, basis, groupby, layer, n_genes, max_cells
        As there.
    """

    key: str
    targets: list[str] | None
    basis: str | None
    groupby: str | None
    layer: str | None
    n_genes: int
    max_cells: int


def content(adata: AnnData, choices: Choices, title: str | None) -> dict[str, Any]:
    """Collect everything, for all targets.

    Raises
    ------
    ValueError
        If there is no such fit, target, column or embedding, or there are too many targets.
    """
    fit = read_fit(adata, choices.key)
    slugs = list(fit.targets) if choices.targets is None else [fit.slug(target) for target in choices.targets]
    if not 1 <= len(slugs) <= MOST_TARGETS:
        raise ValueError(
            f"A page shows 1 to {MOST_TARGETS} targets, and these are {len(slugs)}: pass target= some of "
            f"{list(fit.targets.values())[:MOST_TARGETS]}."
        )
    group = find_groups(adata, fit, choices.groupby)
    basis = choices.basis if choices.basis is not None else "umap" if "X_umap" in adata.obsm else None
    n = min(choices.max_cells, _MOST_CELLS // len(slugs)) // 2
    scores = _scores(adata, choices.key)
    sections = [_target(adata, fit, slug, choices, scores, group=group, basis=basis, n=n) for slug in slugs]
    several = f"{len(slugs)} conditions" if len(slugs) > 1 else sections[0]["label"]
    return {
        "title": title or f"{fit.source} → {several}",
        "source": fit.source,
        "colors": {"source": SOURCE, "predicted": PREDICTED, "observed": OBSERVED},
        "unit": fit.rep.name,
        "group": group,
        "evaluate": _how_to_evaluate(choices.key, group),
        "metrics": _metrics(scores),
        "methods": {name: list(style) for name, style in METHODS.items()},
        "floor": FLOOR,
        "targets": sections,
        "parameters": _parameters(fit),
        "versions": _versions(fit),
    }


def _scores(adata: AnnData, key: str) -> pd.DataFrame | None:
    return read_evaluation(adata, key) if f"{key}_evaluation" in adata.uns else None


def _how_to_evaluate(key: str, group: str | None) -> str:
    groupby = "" if group is None else f", groupby={group!r}"
    flag = "" if group is None else f" --groupby {group}"
    named = "" if key == "hycnn_ot" else f", {key!r}"
    return f"sh.tl.evaluate(adata{named}{groupby}) or scot-hycnn evaluate{flag}"


def _metrics(scores: pd.DataFrame | None) -> dict[str, list[str]]:
    names = [] if scores is None else dict.fromkeys(scores["metric"])
    return {name: list(metric_in_print(name)) for name in names}


def _target(
    adata: AnnData,
    fit: StoredFit,
    slug: str,
    choices: Choices,
    scores: pd.DataFrame | None,
    **where: Any,
) -> dict[str, Any]:
    model, label = fit.models[slug], fit.targets[slug]
    own = None if scores is None else scores[scores["target"] == label]
    own = None if own is None or own.empty else own
    results: Results | None = None
    try:
        results = read_results(adata, choices.key, label)
    except ValueError as error:  # such as maps that were stored alone
        cells: dict[str, Any] = {"missing": str(error)}
    else:
        cells = _cells(adata, fit, results, choices, where)
    return {
        "label": label,
        "verdict": verdict(
            model["validation"],
            own,
            is_trained=fit.params.get("potential") != "gaussian",
            max_steps=fit.params.get("max_steps"),
            n_seen=_n_seen(fit, slug, own, results),
            how=_how_to_evaluate(choices.key, where["group"]),
        ),
        "facts": _facts(fit, slug, results, cells),
        **cells,
        "scores": None if own is None else _score_rows(own),
        "history": _history(model["history"]),
        "certificate": _certificate(model["certificate"], fit.rep.name),
        "status": _status(model),
    }


def _status(model: Mapping[str, Any]) -> str:
    """What the fit said of itself, empty if nothing but that the Gaussian map was kept, which the verdict explains."""
    status, outcome = model["status"], str(model.get("outcome", ""))
    is_kept = status.startswith(("kept the Gaussian map", "The Gaussian map was kept"))
    is_kept = is_kept and (not outcome or outcome.startswith("gaussian"))  # and nothing went wrong besides
    # Older ones have no subject.
    return "" if status == "ok" or is_kept else f"The fit {status}" if status[:1].islower() else status


def _cells(adata: AnnData, fit: StoredFit, results: Results, choices: Choices, where: dict[str, Any]) -> dict[str, Any]:
    slots = fit.slots(fit.slug(results.target))
    has_support = slots.out_of_support in adata.obs
    support = adata.obs[slots.out_of_support].to_numpy(dtype=float) if has_support else None
    return {
        "cells": describe_cells(
            adata, fit, choices.key, results, basis=where["basis"], group=where["group"], n=where["n"]
        ),
        "groups": describe_groups(adata, results, where["group"], support),
        "genes": describe_genes(adata, results, choices.key, layer=choices.layer, n_genes=choices.n_genes),
        "far": None if support is None else float((support[results.source_rows] > 1).mean()),
        "median": float(np.median(np.linalg.norm(results.predicted - results.x, axis=1))),
    }


def _n_seen(fit: StoredFit, slug: str, scores: pd.DataFrame | None, results: Results | None) -> int:
    """How many evaluated cells the fit has seen at least, by their numbers alone."""
    if scores is None or results is None or not fit.n_training:
        return 0
    everyone = scores[scores["group"] == "all"]
    sides = (("source", "n_source", results.source_rows), (slug, "n_target", results.target_rows))
    n_evaluated = {column: int(everyone[column].iloc[0]) if len(everyone) else 0 for _, column, _ in sides}
    return sum(max(0, fit.n_training.get(name, 0) + n_evaluated[column] - len(rows)) for name, column, rows in sides)


def _facts(fit: StoredFit, slug: str, results: Results | None, cells: dict[str, Any]) -> list[list[str]]:
    params, blend = fit.params, float(fit.models[slug]["validation"]["blend"])
    trained = [fit.n_training.get(name) for name in ("source", slug)]
    fitted = " and ".join(f"{n:,}" for n in trained if n is not None)
    facts = [
        ["Space", f"{fit.rep.name}", f"{fit.rep.n_dims} dimensions"],
        [
            "Map",
            "Gaussian map" if blend == 0 else "networks" if blend == 1 else f"{percent(blend)} networks",
            _network(params, blend),
        ],
        ["Training", f"{params.get('n_steps', 0):,} steps", _training(params)],
    ]
    if results is None:
        return [["Fitted on", fitted or "not recorded", "source and target cells"], *facts]
    n = f"{len(results.source_rows):,} → {len(results.target_rows):,}"
    facts.insert(0, ["Cells", n, f"{fitted} of them fitted on" if fitted else "source → target"])
    facts.append(["Median displacement", number(cells["median"]), f"in units of {fit.rep.name}"])
    if cells["far"] is not None:
        facts.append(
            ["Out of support", percent(cells["far"]), f"of source cells score above 1, usually {percent(0.05)}"]
        )
    return facts


def _network(params: dict[str, Any], blend: float) -> str:
    if params.get("potential") == "gaussian":
        return "closed form"
    widths = "-".join(str(width) for width in np.ravel(params.get("hidden", [])))
    instead = "instead of " if blend == 0 else ""
    return f"{instead}{params.get('n_ensemble')} \N{MULTIPLICATION SIGN} {params.get('potential')}, {widths}"


def _training(params: dict[str, Any]) -> str:
    seconds = params.get("seconds")
    took = "" if seconds is None else f"{seconds:.3g}\N{NO-BREAK SPACE}s "
    return f"{took}on {params.get('device')}, seed {params.get('rng')}"


def _score_rows(scores: pd.DataFrame) -> dict[str, Any]:
    columns = ["group", "method", "metric", "value", "low", "high", "n_source", "n_target"]
    columns += ["vs_gaussian", "vs_gaussian_low", "vs_gaussian_high"]
    return {
        "groups": list(dict.fromkeys(scores["group"])),
        "rows": [list(row) for row in scores[columns].itertuples(index=False)],
    }


def _history(history: dict[str, Any]) -> dict[str, Any] | None:
    if "J_minus_gaussian" not in history:
        return None
    return {"step": history["step"], "gap": history["J_minus_gaussian"], "error": history["J_error"]}


def _certificate(measured: dict[str, Any], unit: str) -> list[list[Any]]:
    """Name, value, what it means, and whether it is as it should be (None: nothing to hold it against)."""
    meaning = {
        "convexity_gap": "Largest excess of the potential halfway between two cells over its mean at both: convex if "
        "not above 0.",
        "monotonicity": "Smallest ⟨T(a) \N{MINUS SIGN} T(b), a \N{MINUS SIGN} b⟩ / |a \N{MINUS SIGN} b|² over pairs of "
        "cells: monotone if not below 0.",
        "fenchel_residual": f"Mean distance of target cells from where the map takes their preimages, in {unit}.",
        "cycle_error": f"Mean distance of source cells from the inverse of where they are moved, in {unit}.",
        "w2_squared": "Squared Wasserstein-2 distance by the dual: a lower bound up to its error, but a little too "
        "high on these cells, which also chose the blend.",
        "w2_squared_error": "Standard error of that bound.",
        "transport_cost": "Mean squared displacement of these cells.",
    }
    sound = {
        "convexity_gap": measured.get("convexity_gap", 0) <= _ROUNDING,
        "monotonicity": measured.get("monotonicity", 0) >= -_ROUNDING,
    }
    # NaN where all cells are the same: neither holds nor fails.
    sound = {name: holds for name, holds in sound.items() if not np.isnan(measured.get(name, 0))}
    return [[name.replace("_", " "), value, meaning.get(name, ""), sound.get(name)] for name, value in measured.items()]


def _parameters(fit: StoredFit) -> list[list[str]]:
    """Name and value; fingerprints are for machines."""
    shown = {"key": fit.key, "groupby": fit.groupby, "use_rep": fit.rep.name, "n_dims": fit.rep.n_dims, **fit.params}
    return [
        [name, "none" if value is None else f"{value:.4g}" if isinstance(value, float) else _short(value)]
        for name, value in shown.items()
        if not name.endswith("fingerprint")
    ]


def _short(value: Any) -> str:
    return ", ".join(str(each) for each in np.ravel(value)) if isinstance(value, np.ndarray) else str(value)


def _versions(fit: StoredFit) -> list[list[str]]:
    """Of the packages at the time of the fit, and of this one now."""
    return [*([name, version] for name, version in fit.versions.items()), ["this page", scot_hycnn.__version__]]
