"""Which cells are source and which are target: from condition labels to row numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ._labels import MOST_GROUPS, Finder, Labels, booleans, column_of, distinct, listed, read_labels

Rows = NDArray[np.intp]
# Cells to choose: a boolean column of obs by name, or its values.
Mask: TypeAlias = "str | NDArray[np.bool_] | pd.Series[bool]"

# Columns that a message names with their labels.
_MOST_COLUMNS = 10


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
    targets = as_labels(target_key)
    if not targets:
        raise ValueError("target_key is an empty list; name at least one condition to transport to.")
    keys = [("source_key", source_key), *(("target_key", label) for label in targets)]
    if groupby is None and all(is_mask(obs, label) for _, label in keys):
        source, *others = (Condition(str(label), _rows_of_mask(obs, label)) for _, label in keys)
        _check_labels_differ(source, others)
        _check_no_cell_is_shared(source, others, len(obs))
    else:
        groupby = _choose_column(obs, keys) if groupby is None else groupby
        labels = read_labels(column_of(obs, groupby, "groupby"), f"adata.obs[{groupby!r}]")
        source, *others = (_condition(labels, groupby, name, label) for name, label in keys)
        _check_labels_differ(source, others)
    return Conditions(groupby, source, tuple(others))


def as_labels(given: Any) -> list[Any]:
    """One label, or what a list, an array or a column of pandas holds of them."""
    several = (list, tuple, np.ndarray, pd.Index, pd.Series, pd.api.extensions.ExtensionArray)
    return list(given) if isinstance(given, several) else [given]


def labelled_rows(obs: pd.DataFrame, groupby: str | None, label: Hashable) -> Rows | None:
    """Rows of the cells with this label, or None where obs does not know the column or the label."""
    if groupby is None:
        return _rows_of_mask(obs, label) if is_mask(obs, label) else None
    if groupby not in obs:
        return None
    labels = read_labels(column_of(obs, groupby, "groupby"), f"adata.obs[{groupby!r}]")
    place = labels.find(label)
    return None if place is None else labels.rows(place)


def listed_labels(obs: pd.DataFrame, groupby: str) -> str:
    """Labels of a column, for a message."""
    return listed(read_labels(column_of(obs, groupby, "groupby"), f"adata.obs[{groupby!r}]").values)


def mask_rows(obs: pd.DataFrame, mask_obs: str | NDArray[np.bool_] | pd.Series[bool]) -> NDArray[np.bool_]:
    """Boolean array (n_obs,) from a column's name or an array.

    Raises
    ------
    ValueError
        If it is neither a boolean column nor a boolean array with one value a cell.
    """
    if isinstance(mask_obs, str):
        found = booleans(column_of(obs, mask_obs, "mask_obs")) if mask_obs in obs else None
        if found is None:
            raise ValueError(
                f"mask_obs={mask_obs!r} is not a boolean column of adata.obs; "
                f"it has the boolean columns {listed(name for name in obs if is_mask(obs, name))}."
            )
        return found
    if isinstance(mask_obs, pd.Series) and not mask_obs.index.equals(obs.index):
        raise ValueError(
            "mask_obs is a Series whose index is not adata.obs_names in their order, so its values would go to other "
            "cells; pass mask_obs.reindex(adata.obs_names), or an array."
        )
    mask = booleans(mask_obs)
    if mask is None or mask.shape != (len(obs),):
        given = np.asarray(mask_obs)
        raise ValueError(
            f"mask_obs has shape {given.shape} and dtype {given.dtype}; it needs one boolean for each of the "
            f"{len(obs)} cells, or the name of a boolean column of adata.obs."
        )
    return mask


def is_mask(obs: pd.DataFrame, name: Hashable) -> bool:
    """Whether obs has one boolean column of that name."""
    return isinstance(name, str) and sum(obs.columns == name) == 1 and booleans(obs[name]) is not None


def _condition(labels: Labels, groupby: str, name: str, label: Hashable) -> Condition:
    place = labels.find(label)
    if place is None:
        raise ValueError(
            f"{name}={label!r} is not a category of adata.obs[{groupby!r}]; it has {listed(labels.values)}."
        )
    return Condition(labels.names[place], labels.rows(place))


def _choose_column(obs: pd.DataFrame, keys: list[tuple[str, Hashable]]) -> str:
    """Find the one column of labels that holds them all."""
    columns = {name: distinct(column) for name, column in obs.items() if _holds_labels(column)}
    n_found = {name: _n_found(keys, labels) for name, labels in columns.items()}
    full = [str(name) for name, n in n_found.items() if n == len(keys)]
    if len(full) == 1:
        return full[0]
    wanted = listed(label for _, label in keys)
    if full:
        raise ValueError(f"{wanted} are labels in several columns of adata.obs; pass groupby= one of {listed(full)}.")
    # Numbers may hold the labels by chance, so these columns have to be named.
    numbers = {name: distinct(column) for name, column in obs.items() if not _holds_labels(column)}
    near = {name: n for name, labels in numbers.items() if len(labels) <= MOST_GROUPS and (n := _n_found(keys, labels))}
    complete = [name for name, n in near.items() if n == len(keys)]
    if complete:
        raise ValueError(
            f"No column of adata.obs holds all of {wanted} as categories or strings. "
            f"{' and '.join(f'adata.obs[{name!r}]' for name in complete[:3])} has them among numbers or booleans, and "
            f"is used only if it is named: pass groupby={complete[0]!r}."
        )
    partial = [name for name, n in n_found.items() if n]
    if len(partial or columns) == 1 and not near:
        return str(next(iter(partial or columns)))  # the label that it lacks gets the precise message
    candidates = {name: columns[name] for name in partial or columns} | {name: numbers[name] for name in near}
    shown = "; ".join(f"{name!r} with {listed(candidates[name])}" for name in list(candidates)[:_MOST_COLUMNS])
    more = f" and {len(candidates) - _MOST_COLUMNS} more columns" if len(candidates) > _MOST_COLUMNS else ""
    raise ValueError(
        f"No column of adata.obs holds all of {wanted}. "
        + (f"Candidates are {shown}{more}." if candidates else "It has no categorical or string columns.")
    )


def _n_found(keys: list[tuple[str, Hashable]], labels: list[Any]) -> int:
    finder = Finder(labels)
    return sum(len(finder.places(key)) == 1 for _, key in keys)


def _check_labels_differ(source: Condition, targets: list[Condition]) -> None:
    labels = [target.label for target in targets]
    if source.label in labels:
        raise ValueError(f"source_key and target_key are both {source.label!r}; a map needs two different conditions.")
    twice = [label for label, times in Counter(labels).items() if times > 1]
    if twice:
        raise ValueError(f"target_key names {twice[0]!r} more than once; name each condition once.")


def _check_no_cell_is_shared(source: Condition, targets: list[Condition], n_obs: int) -> None:
    """Of masks: a cell has one label of a column, and may be in several masks."""
    is_source = np.zeros(n_obs, dtype=bool)
    is_source[source.rows] = True
    for target in targets:
        n_shared = int(is_source[target.rows].sum())
        if n_shared:
            raise ValueError(
                f"{n_shared} cells are in both adata.obs[{source.label!r}] and adata.obs[{target.label!r}]; "
                "source and target need different cells."
            )


def _holds_labels(column: pd.Series[Any]) -> bool:
    """Whether it may be found without being named: categories, strings and objects, but no booleans and numbers."""
    dtype = column.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        return not pd.api.types.is_bool_dtype(column.cat.categories)
    if dtype.kind == "O" and isinstance(dtype, np.dtype):
        return pd.api.types.infer_dtype(column, skipna=True) != "boolean"
    return pd.api.types.is_string_dtype(dtype)  # of pandas or of Arrow


def _rows_of_mask(obs: pd.DataFrame, name: Hashable) -> Rows:
    found = booleans(column_of(obs, name, "target_key"))
    assert found is not None  # is_mask has looked
    return np.flatnonzero(found)
