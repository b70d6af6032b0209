"""Basic, data and advanced parameters of the functions with more than eight: a table on their pages of the API."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable
from typing import Any

MODULES = ("pp", "tl", "get", "pl", "metrics", "solver")
MANY = 8
# What most calls need. A parameter that is neither here nor in DATA is an advanced one.
BASIC = {
    "pp.pca": "adata n_comps split_key key_added",
    "pp.split": "adata test_size stratify groupby holdout",
    "tl.decode": "adata key target",
    "tl.evaluate": "adata key groupby split_key predictions",
    "tl.hycnn_ot": "adata source_key target_key group_key leave_out use_rep split_key key_added",
    "tl.hycnn_screen": "adata source_key targets groupby covariate_keys predict",
    "tl.transport": "adata key target model covariates",
    "get.predicted": "adata key target noise",
    "metrics.evaluate": "adata key groupby split_key predictions",
    "solver.fit_many": "x ys groups",
    "solver.fit_screen": "x ys covariates",
    **dict.fromkeys(("pl.deg", "pl.growth", "pl.mean_scatter", "pl.screen", "pl.similarity"), "adata key groupby"),
    **dict.fromkeys(("pl.embedding", "pl.transport"), "adata key basis color"),
    "pl.evaluation": "adata key metrics group",
    "pl.marginals": "adata key names",
    "pl.report": "adata path key",
}
# Which cells, labels, columns and values are read.
DATA = (
    "key target targets groupby group_key use_rep n_pcs mask_obs mask_var split_key layer decoder condition_key source "
    "basis names conditions embedding_key embedding n_folds fold roles groups model"
)


def classes(name: str) -> dict[str, list[str]]:
    """Return the basic, data and advanced parameters of a function such as ``'tl.hycnn_ot'``, in their order."""
    found = _parameters(_public()[name])
    basic = BASIC[name].split()
    if unknown := set(basic) - set(found):
        raise ValueError(f"{name} has no parameters {sorted(unknown)}; change docs/parameters.py.")
    data = [one for one in found if one in DATA.split() and one not in basic]
    return {"Basic": basic, "Data": data, "Advanced": [one for one in found if one not in {*basic, *data}]}


def tables() -> dict[str, dict[str, list[str]]]:
    """Return the classes of every public function with many parameters, by its full name."""
    many = [name for name, function in _public().items() if len(inspect.signature(function).parameters) > MANY]
    if set(many) != set(BASIC):
        raise ValueError(f"docs/parameters.py lacks or does not need {sorted(set(many) ^ set(BASIC))}.")
    return {f"scot_hycnn.{name}": classes(name) for name in many}


def _public() -> dict[str, Callable[..., Any]]:
    modules = {name: importlib.import_module(f"scot_hycnn.{name}") for name in MODULES}
    pairs = ((f"{of}.{one}", getattr(module, one)) for of, module in modules.items() for one in module.__all__)
    return {name: member for name, member in pairs if inspect.isfunction(member)}


def _parameters(function: Callable[..., Any]) -> list[str]:
    """Return the names of all parameters, those of the options of ``**training`` in its place."""
    found = []
    for one in inspect.signature(function).parameters.values():
        options = re.fullmatch(r"Unpack\[(\w+)\]", str(one.annotation))
        found += [one.name] if options is None else sorted(function.__globals__[options[1]].__annotations__)
    return list(dict.fromkeys(found))
