"""Columns of obs and var as people have them: labels and booleans of any dtype, as codes and as names."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Rows = NDArray[np.intp]

# More names than these make a message unreadable.
_SHOWN = 20
# More distinct values than these are no groups of cells but measurements or names of cells. The columns with the most
# groups that we know of are donors (982 in OneK1K) and cell types of the mouse brain (1,201 supertypes).
MOST_GROUPS = 2000


def listed(names: Iterable[Any]) -> str:
    """Names for a message, the first 20 of them."""
    found = list(names)
    shown = str(found[:_SHOWN])
    return f"{shown} and {len(found) - _SHOWN} more" if len(found) > _SHOWN else shown


def column_of(
    frame: pd.DataFrame, name: Hashable, argument: str, *, where: str = "adata.obs", advice: str = ""
) -> pd.Series[Any]:
    """Return the one column of that name.

    Parameters
    ----------
    frame
        Where it is.
    name
        Its name, as the user gave it.
    argument
        Which argument that was.
    where
        What the user calls the frame.
    advice
        What to do if there is none.

    Raises
    ------
    TypeError
        If the name is a list, or something else that names no column.
    ValueError
        If there is no such column, or several.
    """
    if not isinstance(name, str) and not pd.api.types.is_scalar(name):
        raise TypeError(
            f"{argument}={name!r} is of type {type(name).__name__}; it takes the name of one column of {where}, which "
            f"has {listed(frame.columns)}."
        )
    places = np.flatnonzero([other == name for other in frame.columns])
    if not len(places):
        raise ValueError(f"{argument}={name!r} is not a column of {where}; it has {listed(frame.columns)}.{advice}")
    if len(places) > 1:
        raise ValueError(
            f"{where} has {len(places)} columns called {name!r}, and {argument} needs one: rename or remove the "
            f"others, for instance {where} = {where}.loc[:, ~{where}.columns.duplicated()]."
        )
    return frame.iloc[:, int(places[0])]


def check_columns_are_unique(frame: pd.DataFrame, where: str) -> None:
    """Refuse a frame that no new AnnData can hold.

    Raises
    ------
    ValueError
        If two columns have one name.
    """
    if not frame.columns.is_unique:
        twice = frame.columns[frame.columns.duplicated()].unique()
        raise ValueError(
            f"{where} has several columns called {listed(twice)}, which no new AnnData can hold: rename or remove "
            f"them, for instance {where} = {where}.loc[:, ~{where}.columns.duplicated()]."
        )


@dataclass(frozen=True)
class Labels:
    """Distinct labels of a column, and which of them each cell has.

    Parameters
    ----------
    values
        The labels as Python's objects: categories in their order, with those that no cell has; else sorted.
    codes
        Place in ``values`` of each cell's label, shape (n_obs,); -1 where there is none.
    """

    values: tuple[Any, ...]
    codes: Rows

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The labels in print."""
        return tuple(map(str, self.values))

    @cached_property
    def _finder(self) -> Finder:
        return Finder(self.values)

    @cached_property
    def _members(self) -> tuple[Rows, NDArray[np.intp]]:
        """Cells in the order of their labels, and where in it each label begins."""
        order = np.argsort(self.codes, kind="stable")
        return order, np.searchsorted(self.codes[order], np.arange(len(self.values) + 1))

    def rows(self, place: int) -> Rows:
        """Numbers of the cells with a label, ascending."""
        order, starts = self._members
        return order[starts[place] : starts[place + 1]]

    def find(self, label: Any) -> int | None:
        """Place of a label in ``values``; None if there is none like it, or there are several."""
        found = self._finder.places(label)
        return found[0] if len(found) == 1 else None


def read_labels(column: pd.Series[Any], where: str) -> Labels:
    """Read labels of any dtype.

    Parameters
    ----------
    column
        Of obs: categories, strings, objects, numbers, booleans; of NumPy, pandas or Arrow.
    where
        What the user calls the column.

    Raises
    ------
    ValueError
        If it holds lists or other values that cannot be labels.
    """
    if isinstance(column.dtype, pd.CategoricalDtype):
        return Labels(tuple(_plain(column.cat.categories)), column.cat.codes.to_numpy().astype(np.intp))
    # pandas has no index of halves.
    is_half = column.dtype == np.float16
    try:
        codes, found = pd.factorize(column.astype(np.float32) if is_half else column)
    except TypeError as error:
        raise ValueError(f"{where} holds values that are no labels ({error}); name a column of labels.") from error
    values = _plain(np.asarray(found, dtype=np.float16) if is_half else found)
    # Sorted: the order of labels is not to depend on that of the cells.
    order = _sorted(values)
    place = np.empty(len(order) + 1, dtype=np.intp)
    place[order] = np.arange(len(order))
    place[-1] = -1
    return Labels(tuple(values[i] for i in order), place[codes])


def distinct(column: pd.Series[Any]) -> list[Any]:
    """Labels of a column in any order, without those of each cell; none where they cannot be labels."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        return _plain(column.cat.categories)
    try:
        return _plain(column.dropna().unique())
    except TypeError:  # lists
        return []


def read_groups(frame: pd.DataFrame, name: Hashable, argument: str = "groupby") -> Labels:
    """Read a column whose labels are groups of cells.

    Parameters
    ----------
    frame
        Annotation of the cells.
    name
        Of the column, as the user gave it.
    argument
        Which argument that was.

    Returns
    -------
    The labels of all cells.

    Raises
    ------
    TypeError
        If the name is none.
    ValueError
        If there is no such column, it has more distinct values than groups can be, or two labels print alike.
    """
    where = f"adata.obs[{name!r}]"
    labels = read_labels(column_of(frame, name, argument), where)
    n_groups = len(np.unique(labels.codes[labels.codes >= 0]))
    if n_groups > MOST_GROUPS:
        raise ValueError(
            f"{argument}={name!r}: {where} has {n_groups:,} distinct values, and at most {MOST_GROUPS:,} can be groups "
            f"of cells. {argument} takes a column of categories, such as cell types or donors; pandas.cut makes few "
            "categories of numbers."
        )
    check_names_differ(labels, where)
    return labels


def check_names_differ(labels: Labels, where: str) -> None:
    """Refuse labels that a reader cannot tell apart, such as 1 and '1'.

    Raises
    ------
    ValueError
        If two labels print alike.
    """
    if len(set(labels.names)) < len(labels.names):
        twice = pd.Series(labels.names)
        twice = twice[twice.duplicated()]
        raise ValueError(f"{where} has different labels that print alike, {listed(twice)}; rename one of them.")


class Finder:
    """Finds what a user means among labels, each at once: there may be thousands of both.

    Parameters
    ----------
    values
        The labels.
    """

    def __init__(self, values: Sequence[Any]) -> None:
        self.values = values
        self._places: dict[Callable[[Any], Any], dict[Any, list[int]]] = {}

    def places(self, label: Any) -> list[int]:
        """Places of the values that equal a label; else of those that print as it does, or are the same number.

        Files and shells turn 1 into '1', pandas turns 1 into 1.0 where a value is missing, and .1 is another number in
        32 bits than in 64. A missing value is no label, and not the one that prints as it does.
        """
        if not pd.api.types.is_scalar(label) or pd.isna(label):
            return []
        number = _as_number(label)
        found = self._by(_itself, label) or self._by(str, str(label))
        if found or np.isnan(number):
            return found
        return self._by(_as_number, number) or [
            i
            for i, other in enumerate(map(_as_number, self.values))
            if _is_rounded(other, number) or _is_rounded(number, other)
        ]

    def _by(self, key: Callable[[Any], Any], wanted: Any) -> list[int]:
        if key not in self._places:
            places: dict[Any, list[int]] = {}
            for place, value in enumerate(self.values):
                places.setdefault(key(value), []).append(place)
            self._places[key] = places
        return self._places[key].get(wanted, [])


def matching(label: Any, values: Sequence[Any]) -> list[int]:
    """Places of the values that a label means; see :class:`Finder`."""
    return Finder(values).places(label)


def booleans(values: Any) -> NDArray[np.bool_] | None:
    """Values as booleans, a missing one as False; None if they are anything else.

    Objects count too: a boolean column gets missing values, and becomes one of objects, where anndata.concat joins
    cells or genes with others that lack it.
    """
    if isinstance(values, np.ma.MaskedArray):
        return np.asarray(values.filled(fill_value=False)) if values.dtype == np.bool_ else None
    dtype = getattr(values, "dtype", None)
    if isinstance(dtype, pd.CategoricalDtype):
        values = np.asarray(values, dtype=object)
    elif isinstance(dtype, pd.api.extensions.ExtensionDtype):
        if not pd.api.types.is_bool_dtype(dtype):
            return None
        return pd.Series(values).to_numpy(dtype=bool, na_value=False)
    array = np.asarray(values)
    if array.dtype == object and array.ndim == 1:
        missing = np.asarray(pd.isna(array))
        present = array[~missing]
        if not len(present) or not all(isinstance(value, (bool, np.bool_)) for value in present):
            return None
        filled = np.zeros(len(array), dtype=bool)
        filled[~missing] = present.astype(bool)
        return filled
    return array if array.dtype == np.bool_ else None


def _plain(values: Any) -> list[Any]:
    """Labels as Python's objects. Numbers of 32 bits keep their few digits: .1, and not 0.10000000149011612."""
    kind = getattr(values.dtype, "numpy_dtype", values.dtype)  # of pandas' and Arrow's own numbers
    if isinstance(kind, np.dtype) and kind.kind == "f" and kind.itemsize < 8:
        return [float(str(value)) for value in np.asarray(values, dtype=kind)]
    plain: list[Any] = values.tolist()
    return plain


def _sorted(values: list[Any]) -> list[int]:
    places = range(len(values))
    try:
        return sorted(places, key=values.__getitem__)
    except TypeError:  # of several types
        return sorted(places, key=lambda i: (str(values[i]), str(type(values[i]))))


def _as_number(label: Any) -> float:
    try:
        return float(label)
    except (TypeError, ValueError, OverflowError):
        return float("nan")


def _itself(label: Any) -> Any:
    return label


def _is_rounded(number: float, exact: float) -> bool:
    """Whether the first is what 32 bits make of the second."""
    with np.errstate(over="ignore"):
        return bool(np.isfinite(number) and number == float(np.float32(exact)))
