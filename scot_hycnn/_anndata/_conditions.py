"""Columns of obs as people have them: labels of any type, masks, and the cells of each condition."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scot_hycnn._neighbours import MAX_GROUPS, MISSING, paired
from scot_hycnn._warn import MAX_NAMES, counted, did_you_mean, joined

Rows = NDArray[np.intp]
# Cells to choose: the name of a boolean column of obs, or its values.
Mask: TypeAlias = "str | NDArray[np.bool_] | pd.Series[bool]"

# More labels are not legible in a figure and its legend.
MAX_ENTRIES = 200
# A message with more columns is hard to read.
_MAX_COLUMNS = 10


def listed(names: Iterable[Any]) -> str:
    """Return names as a list for a message, which ends after 20 names with the number of the others."""
    found = list(names)
    shown = str(found[:MAX_NAMES])
    return f"{shown} and {len(found) - MAX_NAMES} more" if len(found) > MAX_NAMES else shown


def column_of(
    frame: pd.DataFrame, name: Hashable, argument: str, *, where: str = "adata.obs", advice: str = ""
) -> pd.Series[Any]:
    """Return the one column of that name, or raise an error that names ``argument``, which the user passed."""
    if not isinstance(name, str) and not pd.api.types.is_scalar(name):
        kind = type(name).__name__
        raise TypeError(f"{argument}={name!r} is of type {kind}; it takes the name of one column of {where}.")
    places = np.flatnonzero([other == name for other in frame.columns])
    if not len(places):
        near = did_you_mean(name, frame.columns)
        raise ValueError(
            f"{argument}={name!r} is not a column of {where}; it has {listed(frame.columns)}.{near}{advice}"
        )
    if len(places) > 1:
        raise ValueError(f"{where} has {len(places)} columns called {name!r}: rename or remove the others.")
    # The table of cells in a file, of xarray: this column alone is read.
    of_file: Any = frame
    return frame.iloc[:, int(places[0])] if isinstance(frame, pd.DataFrame) else of_file[[name]].to_memory()[name]


def check_columns_are_unique(frame: pd.DataFrame, where: str) -> None:
    """Raise a ValueError if two columns have one name: no new AnnData can hold them."""
    twice = frame.columns[frame.columns.duplicated()].unique()
    if len(twice):
        raise ValueError(f"{where} has several columns called {listed(twice)}: rename or remove the others.")


def matching(labels: Iterable[Any], values: Sequence[Any]) -> list[list[int]]:
    """Return the places of the values that a user means by each of these labels."""
    # Dictionaries, since there may be thousands of labels and of values.
    by_value: dict[Any, list[int]] = {}
    by_name: dict[str, list[int]] = {}
    for place, value in enumerate(values):
        by_value.setdefault(value, []).append(place)
        by_name.setdefault(str(value), []).append(place)
    found = []
    for label in labels:
        places: list[int] = []
        # A missing value matches nothing, although it may print as some label does.
        if pd.api.types.is_scalar(label) and not pd.isna(label):
            # Files and shells turn 1 into '1'.
            places = by_value.get(label) or by_name.get(str(label), [])
            if not places:
                # pandas turns 1 into 1.0 where a value is missing, and .1 is another number in 32 bits than in 64.
                texts = pd.Series([str(value) for value in (label, *values)], dtype=object)
                number, *numbers = pd.to_numeric(texts, errors="coerce")
                same = np.array(numbers) == number
                near = same if same.any() else np.isclose(numbers, number, 1e-7, 0)
                places = np.flatnonzero(near).tolist() if np.isfinite(number) else []
        found.append(places)
    return found


@dataclass(frozen=True)
class Labels:
    """Distinct labels of a column, and the label of each cell."""

    column: Any  # its name
    values: tuple[Any, ...]  # Python objects: categories in their order, unused ones included; otherwise sorted
    names: tuple[str, ...]  # the values as strings
    codes: Rows  # place in `values` of each cell's label, shape (n_obs,); -1 where it is missing


def read_labels(column: pd.Series[Any], where: str) -> Labels:
    """Read labels of any type: categories, strings, objects, numbers and booleans, of NumPy, pandas or Arrow."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        values = _plain(column.cat.categories)
        codes = column.cat.codes.to_numpy().astype(np.intp)
        return Labels(column.name, tuple(values), tuple(map(str, values)), codes)
    try:
        codes, found = pd.factorize(column)
    except TypeError as error:
        raise ValueError(f"{where} holds values that are no labels ({error}); name a column of labels.") from error
    values = _plain(found)
    # The labels are sorted, so that their order does not depend on the order of the cells.
    try:
        order = sorted(range(len(values)), key=values.__getitem__)
    except TypeError:  # labels of several types
        order = sorted(range(len(values)), key=lambda i: (str(values[i]), str(type(values[i]))))
    place = np.empty(len(order) + 1, dtype=np.intp)
    place[order] = np.arange(len(order))
    place[-1] = -1
    ordered = [values[i] for i in order]
    return Labels(column.name, tuple(ordered), tuple(map(str, ordered)), place[codes])


def _plain(values: Any) -> list[Any]:
    """Return labels as Python objects. Numbers of 32 bits keep their few digits: .1, and not 0.10000000149011612."""
    kind = getattr(values.dtype, "numpy_dtype", values.dtype)  # number types of pandas and Arrow have one of NumPy
    if isinstance(kind, np.dtype) and kind.kind == "f" and kind.itemsize < 8:
        return [float(str(value)) for value in np.asarray(values, dtype=kind)]
    plain: list[Any] = values.tolist()
    return plain


def read_groups(frame: pd.DataFrame, name: Hashable, argument: str = "groupby") -> Labels:
    """Read a column of groups of cells, which the user named by ``argument``; they have different names."""
    where = f"adata.obs[{name!r}]"
    labels = read_labels(column_of(frame, name, argument), where)
    n_groups = len(np.unique(labels.codes[labels.codes >= 0]))
    if n_groups > MAX_GROUPS:
        raise ValueError(
            f"{argument}={name!r}: {where} has {n_groups:,} distinct values, and at most {MAX_GROUPS:,} can be groups "
            "of cells: pass a column of categories; pandas.cut makes few categories of numbers."
        )
    twice = [name for name, times in Counter(labels.names).items() if times > 1]
    if twice:
        raise ValueError(f"{where} has different labels that print alike, {listed(twice)}; rename one of them.")
    return labels


def codes_of_groups(
    frame: pd.DataFrame, name: Hashable, argument: str, *, needed: Rows | None = None, what: str = ""
) -> tuple[tuple[str, ...], Rows]:
    """Return the names of the groups in a column and the place of each cell's group among them, -1 if it has none.

    Raise a ValueError if one of the ``needed`` cells has none; the message says ``what`` these are.
    """
    labels = read_groups(frame, name, argument)
    is_missing = np.append(np.isin(labels.names, MISSING), True)  # the last entry is for code -1
    codes = np.where(is_missing[labels.codes], -1, labels.codes)
    empty = np.empty(0, np.intp) if needed is None else needed[codes[needed] < 0]
    if needed is not None and len(empty):
        raise ValueError(
            f"adata.obs[{name!r}] is empty for {len(empty)} of {len(needed)} cells to {what}, the first "
            f"{frame.index[empty[0]]!r}; name their group, or leave them out with mask_obs."
        )
    return labels.names, codes


class GroupsOfCells(NamedTuple):
    """The group of each cell, by one column of obs or by two: the first of these has what is left out, such as donors.

    The groups of two columns are those of the second within those of the first, which are the two ``parts`` of each.
    """

    names: tuple[str, ...]
    codes: Rows  # place of each cell's group among the names, (n_obs,); -1 if it has none
    parts: Any  # strings, (groups, 2); None with one column


def groups_by_columns(
    frame: pd.DataFrame, columns: Sequence[Any], *, needed: Rows | None = None, what: str = ""
) -> GroupsOfCells:
    """Read the groups of cells by one or two columns; those who ``needed`` a group and have none are an error."""
    argument = "group_key" if len(columns) == 1 else "leave_out"
    names, codes = codes_of_groups(frame, columns[0], argument, needed=needed, what=what)
    if len(columns) == 1:
        return GroupsOfCells(names, codes, None)
    kinds, of_kind = codes_of_groups(frame, columns[1], "group_key", needed=needed, what=what)
    return GroupsOfCells(*paired(names, codes, kinds, of_kind))


def is_integer(number: object) -> bool:
    """Return whether it is an integer; True and False are none."""
    return isinstance(number, Integral) and not isinstance(number, bool)


def booleans(values: Any) -> NDArray[np.bool_] | None:
    """Return values as booleans, a missing one as False; None if they are anything else."""
    if np.ndim(values) != 1:
        return None
    series = pd.Series(values)
    if isinstance(series.dtype, pd.CategoricalDtype):
        series = series.astype(object)
    # anndata.concat makes objects of a boolean column that some of the joined cells lack.
    if not pd.api.types.is_bool_dtype(series.dtype) and pd.api.types.infer_dtype(series, skipna=True) != "boolean":
        return None
    return series.to_numpy(dtype=bool, na_value=False)


def find_conditions(
    obs: pd.DataFrame,
    source_key: Hashable,
    target_key: Hashable | Sequence[Hashable],
    groupby: str | None,
    names: tuple[str, str, str] = ("source_key", "target_key", "groupby"),
) -> tuple[str | None, dict[str, Rows]]:
    """Return the column of obs with the labels, None where they name boolean columns, and the rows of the cells.

    Rows are by label, as a string, those of the source first, and ascend. ``names`` are the arguments of the user for
    source, targets and column.
    """
    keys = [(names[0], source_key), *((names[1], label) for label in as_labels(target_key))]
    if len(keys) == 1:
        raise ValueError(f"{names[1]} is an empty list; name at least one condition to transport to.")
    found = []
    if groupby is None and all(is_mask(obs, label) for _, label in keys):
        found = [(str(label), mask_rows(obs, str(label)).nonzero()[0]) for _, label in keys]
    else:
        groupby = _choose_column(obs, keys, names[2]) if groupby is None else groupby
        labels = read_labels(column_of(obs, groupby, names[2]), f"adata.obs[{groupby!r}]")
        for (name, label), places in zip(keys, matching([label for _, label in keys], labels.values), strict=True):
            if len(places) != 1:
                raise ValueError(
                    f"{name}={label!r} is not a category of adata.obs[{groupby!r}]; it has {listed(labels.values)}."
                    f"{did_you_mean(label, labels.values)}"
                )
            found.append((labels.names[places[0]], np.flatnonzero(labels.codes == places[0])))
    (source, source_rows), *targets = found
    # Different keys may mean one label, such as 1 and '1'.
    counts = Counter(label for label, _ in targets)
    if source in counts:
        raise ValueError(f"{names[0]} and {names[1]} are both {source!r}; a map needs two different conditions.")
    twice = [label for label, times in counts.items() if times > 1]
    if twice:
        raise ValueError(f"{names[1]} names {twice[0]!r} more than once; name each condition once.")
    # A cell has one label in a column, and may be in several masks.
    for target, rows in targets if groupby is None else ():
        n_shared = len(np.intersect1d(source_rows, rows, assume_unique=True))
        if n_shared:
            both = f"adata.obs[{source!r}] and adata.obs[{target!r}]"
            raise ValueError(f"{both} share {counted(n_shared, 'cell')}; source and target need different cells.")
    return groupby, dict(found)


def as_labels(labels: Any) -> list[Any]:
    """Return one label, or the labels in a list, an array or a column of pandas, as a list."""
    several = (list, tuple, np.ndarray, pd.Index, pd.Series, pd.api.extensions.ExtensionArray)
    return list(labels) if isinstance(labels, several) else [labels]


def _choose_column(obs: pd.DataFrame, keys: list[tuple[str, Hashable]], argument: str) -> str:
    """Find the one column of labels that holds all keys, or raise a ValueError that lists the candidates."""
    wanted = [label for _, label in keys]
    of_labels: dict[str, tuple[int, list[Any]]] = {}  # how many keys are among the values of a column, and these
    of_numbers: dict[str, tuple[int, list[Any]]] = {}  # numbers and booleans hold a label by chance
    for name, column in obs.items():
        dtype = column.dtype
        if isinstance(dtype, pd.CategoricalDtype):
            are_labels, values = not pd.api.types.is_bool_dtype(column.cat.categories), _plain(column.cat.categories)
        else:
            try:
                values = _plain(column.dropna().unique())
            except TypeError:  # a column of lists
                continue
            is_text = pd.api.types.is_string_dtype(dtype) or dtype.kind == "O"
            are_labels = is_text and pd.api.types.infer_dtype(values) != "boolean"
        # Thousands of different numbers are measurements.
        if are_labels or len(values) <= MAX_GROUPS:
            n_found = sum(len(places) == 1 for places in matching(wanted, values))
            (of_labels if are_labels else of_numbers)[str(name)] = n_found, values
    full, others = (
        [name for name, (n_found, _) in found.items() if n_found == len(keys)] for found in (of_labels, of_numbers)
    )
    if len(full) == 1:
        return full[0]
    if full:
        raise ValueError(
            f"{listed(wanted)} are labels in several columns of adata.obs; pass {argument}= one of {listed(full)}."
        )
    if others:
        raise ValueError(
            f"No column of adata.obs holds all of {listed(wanted)} as categories or strings. "
            f"{' and '.join(f'adata.obs[{name!r}]' for name in others[:3])} has them among numbers or booleans, and "
            f"is used only if it is named: pass {argument}={others[0]!r}."
        )
    some = {name: values for name, (n_found, values) in (of_labels | of_numbers).items() if n_found}
    if not some.keys() & of_labels.keys():
        some = {name: values for name, (_, values) in of_labels.items()} | some
    if len(some) == 1 and some.keys() <= of_labels.keys():
        return next(iter(some))  # the label that it lacks gets the precise message of find_conditions
    shown = joined([f"{name!r} with {listed(values)}" for name, values in some.items()], _MAX_COLUMNS)
    known = [value for values in some.values() for value in values]
    near = "".join(
        did_you_mean(label, known) for label, places in zip(wanted, matching(wanted, known), strict=True) if not places
    )
    raise ValueError(
        f"No column of adata.obs holds all of {listed(wanted)}. "
        + (f"Candidates are {shown}.{near}" if some else "It has no categorical or string columns.")
    )


def labelled_rows(obs: pd.DataFrame, groupby: str | None, label: Hashable) -> Rows | None:
    """Return the row numbers of the cells with this label, or None where obs lacks the column or the label."""
    return rows_of_labels(obs, groupby, [label])[0]


def rows_of_labels(obs: pd.DataFrame, groupby: str | None, labels: Sequence[Hashable]) -> list[Rows | None]:
    """Return what :func:`labelled_rows` does for each label; the column is read once for all."""
    if groupby is None:
        return [mask_rows(obs, str(label)).nonzero()[0] if is_mask(obs, label) else None for label in labels]
    if groupby not in obs:
        return [None] * len(labels)
    found = read_labels(column_of(obs, groupby, "groupby"), f"adata.obs[{groupby!r}]")
    sizes = np.bincount(found.codes + 1, minlength=len(found.values) + 1)  # the first is that of cells without a label
    by_code = np.split(np.argsort(found.codes, kind="stable"), np.cumsum(sizes)[:-1])
    return [by_code[1 + places[0]] if len(places) == 1 else None for places in matching(labels, found.values)]


def listed_labels(obs: pd.DataFrame, groupby: str) -> str:
    """Return the labels of a column for a message."""
    return listed(read_labels(column_of(obs, groupby, "groupby"), f"adata.obs[{groupby!r}]").values)


def is_mask(obs: pd.DataFrame, name: Hashable) -> bool:
    """Return whether obs has exactly one column of that name, and it is boolean."""
    return isinstance(name, str) and sum(obs.columns == name) == 1 and booleans(obs[name]) is not None


def mask_rows(
    frame: pd.DataFrame, mask: Mask, argument: str = "mask_obs", where: str = "adata.obs"
) -> NDArray[np.bool_]:
    """Return a mask, a boolean column or one value for each row of obs or var, as a boolean array."""
    if isinstance(mask, str):
        found = booleans(column_of(frame, mask, argument, where=where)) if mask in frame else None
        if found is None:
            has = f"it has the boolean columns {listed(name for name in frame if is_mask(frame, name))}"
            raise ValueError(f"{argument}={mask!r} is not a boolean column of {where}; {has}.")
        return found
    if isinstance(mask, pd.Series) and not mask.index.equals(frame.index):
        raise ValueError(
            f"{argument} is a Series whose index is not {where}_names in their order: pass "
            f"{argument}.reindex({where}_names), or an array."
        )
    found = booleans(mask)
    if found is None or found.shape != (len(frame),):
        values, what = np.asarray(mask), "cells" if where == "adata.obs" else "genes"
        raise ValueError(
            f"{argument} has shape {values.shape} and dtype {values.dtype}; it needs one boolean for each of the "
            f"{len(frame)} {what}, in their order, or the name of a boolean column of {where}."
        )
    return found


def hashes_of_names(names: pd.Index[str]) -> NDArray[np.uint64]:
    """Return a hash for each name of a cell, by which training cells are found in any order, subset or file."""
    return pd.util.hash_array(np.asarray(names.astype(str), dtype=object))
