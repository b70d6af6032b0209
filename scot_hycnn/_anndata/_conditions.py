"""Which cells are source and which are target: from condition labels to row numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Rows = NDArray[np.intp]
# Cells to choose: a boolean column of obs by name, or its values.
Mask: TypeAlias = "str | NDArray[np.bool_] | pd.Series[bool]"

# More labels than these make an error message unreadable.
_SHOWN_LABELS = 20


@dataclass(frozen=True)
class Condition:
    """Cells of one condition.

    Parameters
    ----------
    label
        Its name as the user knows it.
    rows
        Their row numbers in the AnnData, ascending: names may be duplicated, positions are not.
    """

    label: str
    rows: Rows


@dataclass(frozen=True)
class Conditions:
    """Source and targets.

    Parameters
    ----------
    groupby
        Column of obs that holds the labels; None where the labels are names of boolean columns.
    source, targets
        The conditions, without a cell in common.
    """

    groupby: str | None
    source: Condition
    targets: tuple[Condition, ...]


def find_conditions(
    obs: pd.DataFrame, source_key: Hashable, target_key: Hashable | Sequence[Hashable], groupby: str | None
) -> Conditions:
    """Resolve the labels; see :func:`scot_hycnn.tl.hycnn_ot` for the rules.

    Raises
    ------
    ValueError
        If a label or column does not exist, is ambiguous, or source and target share cells.
    """
    targets = list(target_key) if isinstance(target_key, (list, tuple)) else [target_key]
    if not targets:
        raise ValueError("target_key is an empty list; name at least one condition to transport to.")
    keys = [("source_key", source_key), *(("target_key", label) for label in targets)]
    if groupby is None and all(is_mask(obs, label) for _, label in keys):
        source, *others = (Condition(str(label), _mask_rows(obs[label])) for _, label in keys)
    else:
        groupby = _choose_column(obs, keys) if groupby is None else _check_column(obs, groupby)
        source, *others = _conditions(obs, groupby, keys)
    _check_disjoint(source, others, len(obs))
    return Conditions(groupby, source, tuple(others))


def labelled_rows(obs: pd.DataFrame, groupby: str | None, label: str) -> Rows | None:
    """Rows of the cells with this label, or None where obs does not know the column or the label."""
    if groupby is None:
        return _mask_rows(obs[label]) if is_mask(obs, label) else None
    if groupby not in obs:
        return None
    matches = _matches(label, _labels(obs[groupby]))
    return _rows_with(obs[groupby], matches[0]) if len(matches) == 1 else None


def listed_labels(obs: pd.DataFrame, groupby: str) -> str:
    """Labels of a column, for a message."""
    return _listed(_labels(obs[groupby]))


def mask_rows(obs: pd.DataFrame, mask_obs: str | NDArray[np.bool_] | pd.Series[bool]) -> NDArray[np.bool_]:
    """Boolean array (n_obs,) from a column's name or an array.

    Raises
    ------
    ValueError
        If it is neither a boolean column nor a boolean array with one value a cell.
    """
    if isinstance(mask_obs, str):
        if not is_mask(obs, mask_obs):
            raise ValueError(
                f"mask_obs={mask_obs!r} is not a boolean column of adata.obs; "
                f"it has the boolean columns {[name for name in obs if is_mask(obs, name)]}."
            )
        mask_obs = obs[mask_obs]
    if isinstance(mask_obs, pd.Series) and not mask_obs.index.equals(obs.index):
        raise ValueError(
            "mask_obs is a Series whose index is not adata.obs_names in their order, so its values would go to other "
            "cells; pass mask_obs.reindex(adata.obs_names), or an array."
        )
    mask = np.asarray(mask_obs)
    if isinstance(mask_obs, pd.Series) and pd.api.types.is_bool_dtype(mask_obs):
        mask = mask_obs.fillna(value=False).to_numpy(dtype=bool)
    if mask.dtype != np.bool_ or mask.shape != (len(obs),):
        raise ValueError(
            f"mask_obs has shape {mask.shape} and dtype {mask.dtype}; it needs one boolean for each of the "
            f"{len(obs)} cells, or the name of a boolean column of adata.obs."
        )
    return mask


def is_mask(obs: pd.DataFrame, name: Hashable) -> bool:
    """Whether obs has a boolean column of that name."""
    return isinstance(name, str) and name in obs and pd.api.types.is_bool_dtype(obs[name].dtype)


def _conditions(obs: pd.DataFrame, groupby: str, keys: Sequence[tuple[str, Hashable]]) -> list[Condition]:
    """The cells with each of these labels, from one look at the column: there may be thousands of labels."""
    labels = _Labels(_labels(obs[groupby]))
    chosen = []
    for name, label in keys:
        matches = labels.matches(label)
        if len(matches) != 1:
            raise ValueError(
                f"{name}={label!r} is not a category of adata.obs[{groupby!r}]; it has {_listed(labels.all)}."
            )
        chosen.append(matches[0])
    codes = pd.Categorical(obs[groupby], categories=labels.all).codes
    order = np.argsort(codes, kind="stable")
    ends = np.searchsorted(codes[order], np.arange(len(labels.all) + 1))
    place = {label: number for number, label in enumerate(labels.all)}
    return [Condition(str(label), order[ends[place[label]] : ends[place[label] + 1]]) for label in chosen]


def _choose_column(obs: pd.DataFrame, keys: list[tuple[str, Hashable]]) -> str:
    """Find the one column of labels that holds them all."""
    columns = {str(name): _labels(obs[name]) for name in obs if _holds_labels(obs[name])}
    known = {name: _Labels(labels) for name, labels in columns.items()}
    n_found = {name: sum(len(labels.matches(key)) == 1 for _, key in keys) for name, labels in known.items()}
    full = [name for name, n in n_found.items() if n == len(keys)]
    if len(full) == 1:
        return full[0]
    wanted = [label for _, label in keys]
    if full:
        raise ValueError(f"{_listed(wanted)} are labels in several columns of adata.obs; pass groupby= one of {full}.")
    partial = [name for name, n in n_found.items() if n] or list(columns)
    if len(partial) == 1:
        return partial[0]  # the label that it lacks gets the precise message
    shown = "; ".join(f"{name!r} with {_listed(columns[name])}" for name in partial)
    raise ValueError(
        f"No column of adata.obs holds all of {_listed(wanted)}. "
        + (f"Candidates are {shown}." if partial else "It has no categorical or string columns.")
    )


def _check_column(obs: pd.DataFrame, groupby: str) -> str:
    if groupby not in obs:
        raise ValueError(f"groupby={groupby!r} is not a column of adata.obs; it has {_listed(list(obs))}.")
    return groupby


def _check_disjoint(source: Condition, targets: list[Condition], n_obs: int) -> None:
    labels = [target.label for target in targets]
    if source.label in labels:
        raise ValueError(f"source_key and target_key are both {source.label!r}; a map needs two different conditions.")
    twice = [label for label, times in Counter(labels).items() if times > 1]
    if twice:
        raise ValueError(f"target_key names {twice[0]!r} more than once; name each condition once.")
    is_source = np.zeros(n_obs, dtype=bool)
    is_source[source.rows] = True
    for target in targets:
        n_shared = int(is_source[target.rows].sum())
        if n_shared:  # only masks can overlap
            raise ValueError(
                f"{n_shared} cells are in both adata.obs[{source.label!r}] and adata.obs[{target.label!r}]; "
                "source and target need different cells."
            )


def _holds_labels(column: pd.Series[Any]) -> bool:
    if isinstance(column.dtype, pd.CategoricalDtype):
        return not pd.api.types.is_bool_dtype(column.cat.categories)
    if column.dtype == object:
        return pd.api.types.infer_dtype(column, skipna=True) != "boolean"
    return isinstance(column.dtype, pd.StringDtype)


def _labels(column: pd.Series[Any]) -> list[Any]:
    if isinstance(column.dtype, pd.CategoricalDtype):
        return column.cat.categories.tolist()
    labels: list[Any] = column.dropna().unique().tolist()
    return labels


def _matches(label: Any, labels: list[Any]) -> list[Any]:
    return _Labels(labels).matches(label)


class _Labels:
    """Labels of a column, and which of them a user means: each is found at once, there may be thousands.

    Parameters
    ----------
    labels
        All of them.
    """

    def __init__(self, labels: list[Any]) -> None:
        self.all = labels
        self._by: list[dict[Any, list[Any]]] = []

    def matches(self, label: Any) -> list[Any]:
        """Labels equal to this one; else those that print as it does, or are the same number.

        Files and shells turn 1 into '1', and pandas turns 1 into 1.0 where a value is missing. A missing value is no
        label, and not the one that prints as it does.
        """
        if pd.api.types.is_scalar(label) and pd.isna(label):
            return []
        keys: tuple[Callable[[Any], Any], ...] = (_itself, str, _as_number)
        for place, key in enumerate(keys):
            if place == len(self._by):
                self._by.append(_by(key, self.all))
            if found := self._by[place].get(key(label)):
                return found
        return []


def _by(key: Callable[[Any], Any], labels: list[Any]) -> dict[Any, list[Any]]:
    found: dict[Any, list[Any]] = {}
    for label in labels:
        found.setdefault(key(label), []).append(label)
    return found


def _itself(label: Any) -> Any:
    return label if isinstance(label, Hashable) else str(label)


def _as_number(label: Any) -> float:
    try:
        return float(label)
    except (TypeError, ValueError):
        return float("nan")


def _rows_with(column: pd.Series[Any], label: Any) -> Rows:
    return _mask_rows(column == label)


def _mask_rows(mask: pd.Series[bool]) -> Rows:
    return np.flatnonzero(mask.fillna(value=False).to_numpy(dtype=bool))


def _listed(labels: Sequence[Any]) -> str:
    rest = len(labels) - _SHOWN_LABELS
    shown = str(list(labels[:_SHOWN_LABELS]))
    return f"{shown} and {rest} more" if rest > 0 else shown
