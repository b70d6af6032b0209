"""Scores of predictions, as they lie in uns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from ._schema import check_key, evaluation_slot
from ._write import commit

_LABELS = ("target", "group", "method", "metric")
_NUMBERS = ("value", "low", "high", "vs_gaussian", "vs_gaussian_low", "vs_gaussian_high")
_COUNTS = ("n_source", "n_target")
EVALUATION_COLUMNS = (*_LABELS, *_NUMBERS, *_COUNTS)
# Bandwidths of the MMD, one row a target and group that was scored: labels, and as many numbers as any of them has.
_GAMMA, _GAMMA_LABELS = "mmd_gamma", ("mmd_gamma_target", "mmd_gamma_group")


def read_evaluation(adata: AnnData, key: str) -> pd.DataFrame:
    """Read the scores that :func:`scot_hycnn.tl.evaluate` has stored.

    Returns
    -------
    One row a target, group, method and metric: ``target``, ``group``, ``method`` and ``metric`` as strings, ``value``
    with its interval ``low`` to ``high`` (NaN where there is none), ``vs_gaussian`` (what it is above the Gaussian
    map's) with its interval, ``n_source`` and ``n_target`` cells. ``attrs['mmd_gamma']`` has the bandwidths of the MMD
    by target and group.

    Raises
    ------
    ValueError
        If there are none, or they are damaged.
    """
    slot = evaluation_slot(key)
    if slot not in adata.uns:
        found = [name.removesuffix("_evaluation") for name in map(str, adata.uns) if name.endswith("_evaluation")]
        has = f"it has those of {found}: pass key= one of them" if found else "run sh.tl.evaluate first"
        raise ValueError(f"adata.uns has no evaluation {slot!r}; {has}.")
    content: Any = adata.uns[slot]
    if not isinstance(content, Mapping):
        raise _damaged(slot, f"is of type {type(content).__name__} instead of a dict")
    lacking = [name for name in EVALUATION_COLUMNS if name not in content]
    if lacking:
        raise _damaged(slot, f"lacks {lacking}")
    columns = {name: _column(slot, name, content[name]) for name in EVALUATION_COLUMNS}
    shapes = {name: column.shape for name, column in columns.items()}
    if len(set(shapes.values())) != 1 or columns["value"].ndim != 1:
        raise _damaged(slot, f"has columns of different shapes ({shapes})")
    if not len(columns["value"]):
        raise _damaged(slot, "has no rows")
    for name in (*_NUMBERS, *_COUNTS):
        if columns[name].dtype.kind not in "fiu":
            raise _damaged(slot, f"has {name!r} of dtype {columns[name].dtype} instead of numbers")
    # Strings come back from files as objects, or of a dtype that casts to no other.
    labels = {name: [str(label) for label in columns[name].tolist()] for name in _LABELS}
    table = pd.DataFrame({**columns, **labels})
    table.attrs[_GAMMA] = _read_gamma(slot, content)
    return table


def _read_gamma(slot: str, content: Mapping[str, Any]) -> dict[str, dict[str, list[float]]]:
    """Bandwidths by target and group; none in scores of older versions."""
    found: dict[str, dict[str, list[float]]] = {}
    if not all(name in content for name in (_GAMMA, *_GAMMA_LABELS)):
        return found
    targets, groups, gammas = (_column(slot, name, content[name]) for name in (*_GAMMA_LABELS, _GAMMA))
    if gammas.ndim != 2 or gammas.dtype.kind != "f" or {targets.shape, groups.shape} != {gammas.shape[:1]}:
        raise _damaged(slot, f"has {_GAMMA!r} that is no table of numbers with a label for each row")
    for target, group, row in zip(targets.tolist(), groups.tolist(), gammas, strict=True):
        found.setdefault(str(target), {})[str(group)] = row[np.isfinite(row)].tolist()
    return found


def check_evaluation_slot(adata: AnnData, key: str) -> None:
    """Check where scores are to go, before any work is done.

    Raises
    ------
    ValueError
        If ``key`` cannot be a key, or stands for something that is not ours to replace.
    """
    check_key(key)
    slot = evaluation_slot(key)
    before: Any = adata.uns.get(slot, dict.fromkeys(EVALUATION_COLUMNS))
    if not isinstance(before, Mapping) or "metric" not in before:
        raise ValueError(
            f"key_added={key!r} would replace adata.uns[{slot!r}], which scot_hycnn did not write; choose another."
        )


def write_evaluation(adata: AnnData, scores: pd.DataFrame, key: str) -> str:
    """Write scores as plain arrays, which every file format holds.

    Returns
    -------
    What was added, for the log.

    Warns
    -----
    UserWarning
        If scores are replaced.
    """
    slot = evaluation_slot(key)
    numbers = {name: scores[name].to_numpy() for name in (*_NUMBERS, *_COUNTS)}
    labels = {name: scores[name].to_numpy(dtype=np.str_) for name in _LABELS}
    commit(adata, {"uns": {slot: {**labels, **numbers, **_gamma_as_arrays(scores)}}})
    return f"added\n    {slot!r} (adata.uns)"


def _gamma_as_arrays(scores: pd.DataFrame) -> dict[str, NDArray[Any]]:
    by_target: Mapping[str, Mapping[str, Any]] = scores.attrs.get(_GAMMA, {})
    rows = [(target, group, list(gammas)) for target, own in by_target.items() for group, gammas in own.items()]
    if not rows:
        return {}
    table = np.full((len(rows), max(1, *(len(gammas) for *_, gammas in rows))), np.nan)
    for line, (*_, gammas) in zip(table, rows, strict=True):
        line[: len(gammas)] = gammas
    targets, groups = (np.array([row[k] for row in rows], dtype=np.str_) for k in range(2))
    return dict(zip((*_GAMMA_LABELS, _GAMMA), (targets, groups, table), strict=True))


def _column(slot: str, name: str, values: Any) -> NDArray[Any]:
    try:
        return np.asarray(values)
    except ValueError:  # lists of different lengths
        raise _damaged(slot, f"has {name!r}, which is no column") from None


def _damaged(slot: str, what: str) -> ValueError:
    return ValueError(f"adata.uns[{slot!r}] {what}: it is damaged, run sh.tl.evaluate again.")
