"""The one place that changes an AnnData: everything is assigned, or nothing."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import pandas as pd
from anndata import AnnData

from ._lazy import in_memory

# Attribute of the AnnData ('obs', 'obsm' ...) to key to value.
Assignments: TypeAlias = Mapping[str, Mapping[str, Any]]

_FRAMES = ("obs", "var")
_MAPPINGS = ("obsm", "varm", "layers", "uns")


def commit(
    adata: AnnData,
    new: Assignments,
    *,
    stale: Mapping[str, Sequence[str]] | None = None,
    stacklevel: int = 4,
    announced: bool = False,
) -> None:
    """Assign everything, or nothing.

    Parameters
    ----------
    adata
        Where to. A view becomes an AnnData of its own, as scanpy makes it before it writes.
    new
        What to assign.
    stale
        Attribute to keys that go: beside what is new they would be read as its results.
    stacklevel
        Of the warning, as for :func:`warnings.warn`: the user's line.
    announced
        Whether :func:`warn_of_replaced` was called before, as is right where hours of work lie between.

    Warns
    -----
    UserWarning
        If a key exists already, unless ``announced``.
    """
    stale = {} if stale is None else stale
    if not announced:
        warn_of_replaced(adata, new, stale, stacklevel=stacklevel + 1)
    if not adata.is_view:
        _assign(adata, new, stale)
        return
    # Assigning to a view would warn, and copying it beforehand would outlast a failure.
    actual = adata.copy()
    _assign(actual, new, stale)
    before = dict(vars(adata))
    try:
        adata._init_as_actual(actual)  # noqa: SLF001 - AnnData has no public name for it
    except BaseException:
        vars(adata).clear()
        vars(adata).update(before)
        raise


def _assign(adata: AnnData, new: Assignments, stale: Mapping[str, Sequence[str]]) -> None:
    """Assign, and put everything back if that fails."""
    frames = {slot: getattr(adata, slot) for slot in _FRAMES if new.get(slot) or stale.get(slot)}
    # Made before anything is assigned: what takes memory is to fail here.
    made = {slot: _frame(frame, new.get(slot, {}), stale.get(slot, ())) for slot, frame in frames.items()}
    names = [slot for slot in _MAPPINGS if new.get(slot) or stale.get(slot)]
    before = {slot: _content(getattr(adata, slot)) for slot in names}
    try:
        for slot, frame in made.items():
            setattr(adata, slot, frame)
        for slot in names:
            for name in stale.get(slot, ()):
                getattr(adata, slot).pop(name, None)
            getattr(adata, slot).update(new.get(slot, {}))
    except BaseException:
        for slot, frame in frames.items():
            setattr(adata, slot, frame)
        for slot, content in before.items():
            mapping = getattr(adata, slot)
            for name in _content(mapping):
                del mapping[name]
            mapping.update(content)  # in the order in which they were
        raise


def _content(mapping: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in mapping.items() if name is not None}  # None is X, since anndata 0.13


def _frame(frame: Any, columns: Mapping[str, Any], stale: Sequence[str]) -> pd.DataFrame:
    """Return the frame with these columns, each in its place if it was there."""
    gone = [name for name in stale if name not in columns]
    kept: pd.DataFrame = in_memory(frame).drop(columns=[name for name in {*gone, *columns} if name in frame])
    # One concatenation: hundreds of single columns would fragment the frame.
    joined: pd.DataFrame = pd.concat([kept, pd.DataFrame(dict(columns), index=kept.index)], axis=1)
    if len(kept.columns) < len(frame.columns) and joined.columns.is_unique:
        before = [name for name in frame.columns if name in joined]
        joined = joined[[*before, *(name for name in joined if name not in set(before))]]
    return joined


def warn_of_replaced(adata: AnnData, new: Assignments, stale: Mapping[str, Sequence[str]], *, stacklevel: int) -> None:
    """Warn of what is there already, or goes."""
    slots = [slot for slot in ("obsm", "varm", "obs", "var", "layers", "uns") if slot in new or slot in stale]
    replaced = [
        f"{name!r} (adata.{slot})"
        for slot in slots
        for name in {**new.get(slot, {}), **dict.fromkeys(stale.get(slot, ()))}
        if name in getattr(adata, slot)
    ]
    if replaced:
        warnings.warn(
            f"Replacing {', '.join(replaced)}; pass key_added to keep both results.", UserWarning, stacklevel=stacklevel
        )
