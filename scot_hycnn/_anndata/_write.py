"""The one place that changes an AnnData, or appends to a .zarr store: everything is ready before it is assigned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

import anndata
import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from scot_hycnn._warn import warn

from ._conditions import Rows, hashes_of_names
from ._files import check_writable, import_zarr, written_whole
from ._fit_input import FitInput
from ._representation import Coordinates, Representation, in_memory, read_coordinates
from ._results import REPORTS, SCHEMA_VERSION, slots_of_previous_fit
from ._schema import Slots, evaluation_slot, loadings_slot, mark_slot, mean_std_slot, unseen_slot
from ._transport_input import Moved

# Attribute of the AnnData ('obs', 'obsm' ...) to key to value.
Assignments: TypeAlias = Mapping[str, Mapping[str, Any]]

_FRAMES, _MAPPINGS = ("obs", "var"), ("obsm", "varm", "layers", "uns")
_VERSIONS = ("scot-hycnn", "torch", "anndata", "scanpy", "numpy")


def claim(adata: AnnData, *, copy: bool, writes: bool = True) -> AnnData:
    """Return the AnnData that results are written to, itself or a copy; raise a ValueError if it can hold none."""
    if not isinstance(adata, AnnData):
        raise TypeError(f"adata is of type {type(adata).__name__}; an AnnData is needed.")
    if copy:
        return adata.to_memory() if adata.isbacked else adata.copy()
    if writes and adata.isbacked and adata.is_view:
        raise ValueError(
            "adata is a view of a file-backed AnnData and cannot hold results: run adata = adata.to_memory() first, or "
            "pass copy=True."
        )
    return adata


# ---- commit: everything is assigned, or nothing


def commit(
    adata: AnnData,
    new: Assignments,
    *,
    stale: Mapping[str, Sequence[str]] | None = None,
    announced: bool = False,
) -> str:
    """Assign everything, or nothing, and return what was added, for the log.

    Warn of keys that exist, unless that was ``announced`` before. ``stale`` keys are removed: beside the new results
    they would be read as theirs.
    """
    stale = {} if stale is None else stale
    # The text is made first: after the assignment nothing may fail.
    lines = (f"    {', '.join(map(repr, values))} (adata.{slot})" for slot, values in new.items() if values)
    added = "\n".join(["added", *lines])
    if not announced:
        warn_of_replaced(adata, new, stale)
    if adata.is_view:
        # A view becomes an independent AnnData, as scanpy makes it before it writes. Assigning to a view would warn,
        # and a copy made beforehand would stay after a failure.
        actual = adata.copy()
        _assign(actual, new, stale)
        before = dict(vars(adata))
        try:
            adata._init_as_actual(actual)  # noqa: SLF001 - AnnData has no public name for it
        except BaseException:
            vars(adata).clear()
            vars(adata).update(before)
            raise
    else:
        _assign(adata, new, stale)
    return added


def _assign(adata: AnnData, new: Assignments, stale: Mapping[str, Sequence[str]]) -> None:
    """Assign, and restore everything if that fails."""
    frames = {slot: getattr(adata, slot) for slot in _FRAMES if new.get(slot) or stale.get(slot)}
    # New frames are built before anything is assigned, so that a lack of memory shows here.
    built = {slot: _frame(frame, new.get(slot, {}), stale.get(slot, ())) for slot, frame in frames.items()}
    names = [slot for slot in _MAPPINGS if new.get(slot) or stale.get(slot)]
    # The key None stands for X in layers, since anndata 0.13.
    before = {slot: {k: v for k, v in getattr(adata, slot).items() if k is not None} for slot in names}
    try:
        for slot, frame in built.items():
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
            for name in [name for name in mapping if name is not None]:
                del mapping[name]
            mapping.update(content)  # in the order in which they were
        raise


def _frame(frame: Any, columns: Mapping[str, Any], stale: Sequence[str]) -> pd.DataFrame:
    """Return the frame with these columns, a replaced one in its old place."""
    removed = {*columns, *stale}
    kept: pd.DataFrame = in_memory(frame).drop(columns=[name for name in removed if name in frame])
    # One concatenation: hundreds of single columns would fragment the frame.
    joined: pd.DataFrame = pd.concat([kept, pd.DataFrame(dict(columns), index=kept.index)], axis=1)
    if len(kept.columns) < len(frame.columns) and joined.columns.is_unique:
        order = [name for name in frame.columns if name in joined]
        joined = joined[order + [name for name in joined if name not in set(order)]]
    return joined


def warn_of_replaced(adata: AnnData, new: Assignments, stale: Mapping[str, Sequence[str]]) -> None:
    """Warn of keys that exist already, or will be removed."""
    replaced = [
        f"{name!r} (adata.{slot})"
        for slot in ("obsm", "varm", "obs", "var", "layers", "uns")
        for name in dict.fromkeys([*new.get(slot, {}), *stale.get(slot, ())])
        if name in getattr(adata, slot)
    ]
    if replaced:
        warn(f"Replacing {', '.join(replaced)}; pass another key_added to keep both results.")


def placed(values: Coordinates, rows: Rows, span: range, background: Coordinates | None = None) -> NDArray[np.float32]:
    """Return values of some cells among all rows of a span; other rows are NaN, or the background."""
    full = np.full((len(span), *values.shape[1:]), np.nan, np.float32)
    if background is not None:
        full[:] = background
    full[rows - span.start] = values
    return full


# ---- fits


@dataclass(frozen=True)
class Fitted:
    """Result of a fit for one target."""

    state: Mapping[str, Any]  # TransportMap.to_dict()
    moved: Sequence[Moved]  # source cells, and target cells by the inverse map, as far as they are wanted
    # Rows of source and of target cells with weights, these, and the growth of the former, or None.
    weights: tuple[Rows, Rows, Coordinates, Coordinates, Coordinates] | None = None


def announce_replaced(
    adata: AnnData, cells: FitInput, *, key: str, predict: bool, inverse: bool, weights: bool
) -> None:
    """Warn of what :func:`write_fit` will replace."""
    # This is called before a fit begins: where warnings are errors, hours of work are not lost.
    new: dict[str, dict[str, Any]] = {"obsm": {}, "obs": {}, "uns": {key: None}}
    for target in cells.targets:
        slots = Slots.named(key, target.slug if len(cells.targets) > 1 else "")
        new["obsm"] |= dict.fromkeys([slots.moved] * predict + [slots.inverse] * inverse)
        new["obs"] |= dict.fromkeys(slots.of_moved if predict else ())
        new["obs"] |= dict.fromkeys((slots.weight, slots.growth) if weights else ())
    warn_of_replaced(adata, new, _stale(adata, key) if key in adata.uns else {})


def _stale(adata: AnnData, key: str) -> dict[str, list[str]]:
    """Return what a fit under this key has left: beside a new fit it would be read as its results."""
    previous, start = slots_of_previous_fit(adata, key), unseen_slot(key, "")
    # A screen also leaves predictions of conditions that were not measured.
    unseen = [name.removeprefix(start) for name in map(str, adata.uns) if name.startswith(start)]
    previous += [Slots.named(key, slug) for slug in unseen if previous]
    left = {
        "obsm": [name for slots in previous for name in slots.of_fit["obsm"]],
        "obs": [name for slots in previous for name in (*slots.of_fit["obs"], mean_std_slot(slots.layer))],
        "layers": [slots.layer for slots in previous],
        "varm": [loadings_slot(key)] if previous else [],
        "var": [mark_slot(key)] if previous else [],
        "uns": [evaluation_slot(key), *(f"{start}{slug}" for slug in unseen)] if previous else [],
    }
    return {slot: [name for name in names if name in getattr(adata, slot)] for slot, names in left.items()}


def write_fit(
    adata: AnnData,
    cells: FitInput,
    fits: Sequence[Fitted],
    *,
    key: str,
    fill: str,
    entries: Mapping[str, Any] | None = None,
    **params: Any,
) -> str:
    """Write a fit, with other options to record, and the cells that it moved; return what was added, for the log.

    ``entries`` are written beside the others into the fit's dict in uns.
    """
    new: dict[str, dict[str, Any]] = {"obsm": {}, "obs": {}}
    for target, fit in zip(cells.targets, fits, strict=True):
        slots = Slots.named(key, target.slug if len(fits) > 1 else "")
        for moved in fit.moved:
            for slot, values in slots_of_moved(adata, cells.rep, moved, slots, fill=fill).items():
                new[slot] |= values
        if fit.weights is not None:
            of_source, of_target, weight_x, weight_y, growth = fit.weights
            both = np.concatenate([of_source, of_target]), np.concatenate([weight_x, weight_y])
            new["obs"][slots.weight] = placed(both[1], both[0], range(adata.n_obs))
            new["obs"][slots.growth] = placed(growth, of_source, range(adata.n_obs))

    params = {"fill": fill, "inverse": any(len(fit.moved) > 1 for fit in fits), **params}
    columns_read = {"split_key": cells.split_key, "group_key": cells.group_key}
    columns_read |= {"leave_out": cells.group_columns[0] if len(cells.group_columns) > 1 else None}
    params |= {name: column for name, column in columns_read.items() if column is not None}
    # uns takes str-keyed dicts of arrays, strings, numbers and bools, which is what files can hold.
    states = {target.slug: fit.state for target, fit in zip(cells.targets, fits, strict=True)}
    # By these names, genes are predicted from training cells alone, also in a part of the AnnData or in another order.
    of_training = [cells_of.rows[cells_of.is_training] for cells_of in (cells.source, *cells.targets)]
    training_cells = np.unique(hashes_of_names(adata.obs_names[np.concatenate(of_training)]))
    # Parameters that have one value in all maps are also listed here; each model keeps all of its own.
    first, *others = (state["params"] for state in states.values())
    shared = {
        name: value
        for name, value in first.items()
        if all(name in other and np.array_equal(other[name], value) for other in others)
    }
    described = {
        "schema_version": SCHEMA_VERSION,
        "source": cells.source.label,
        "targets": {target.slug: target.label for target in cells.targets},
        "rep": {"name": cells.rep.name, "n_dims": cells.rep.n_dims, "fingerprint": cells.rep.fingerprint},
        "params": shared | params,
        "n_training": {"source": cells.source.n_training}
        | {target.slug: target.n_training for target in cells.targets},
        "training_cells": training_cells,
        **{report: {slug: state[report] for slug, state in states.items()} for report in REPORTS},
        "models": {slug: {k: v for k, v in state.items() if k not in REPORTS} for slug, state in states.items()},
        "versions": {name.replace("-", "_"): version(name) for name in _VERSIONS},
    }
    described |= {} if entries is None else entries
    if cells.groupby is not None:
        described["groupby"] = cells.groupby
    stale = _stale(adata, key) if key in adata.uns else {}
    return commit(adata, {**new, "uns": {key: described}}, stale=stale, announced=True)


# ---- cells moved by stored maps


def slots_of_moved(
    adata: AnnData, rep: Representation, moved: Moved, slots: Slots, *, fill: str, span: range | None = None
) -> dict[str, dict[str, NDArray[np.float32]]]:
    """Return what is written of moved cells, for all rows or for a span of them."""
    span = range(adata.n_obs) if span is None else span
    background = None if fill == "nan" else read_coordinates(adata, rep, np.array(span))
    key = slots.inverse if moved.displacement is None else slots.moved
    columns = zip(slots.of_moved, (moved.displacement, moved.std, moved.out_of_support), strict=True)
    obs = {name: placed(values, moved.rows, span) for name, values in columns if values is not None}
    return {"obsm": {key: placed(moved.points, moved.rows, span, background)}, "obs": obs}


def write_moved(
    adata: AnnData, rep: Representation, moved: Mapping[str, Moved], *, key: str, fill: str, uns: Mapping[str, Any]
) -> str:
    """Write moved cells, by the suffix of their slots, into the slots of a fit; return what was added, for the log."""
    new: dict[str, dict[str, Any]] = {"obsm": {}, "obs": {}, "uns": dict(uns)}
    stale: dict[str, list[str]] = {"layers": [], "obs": []}
    for suffix, cells in moved.items():
        slots = Slots.named(key, suffix)
        for slot, values in slots_of_moved(adata, rep, cells, slots, fill=fill).items():
            new[slot] |= values
        # Genes in this layer were decoded from cells that are now replaced.
        if slots.layer in adata.layers and slots.moved in adata.obsm:
            stale["layers"].append(slots.layer)
            stale["obs"].append(mean_std_slot(slots.layer))
    return commit(adata, new, stale=stale)


# ---- a .zarr store that grows by blocks of rows: memory does not grow with the cells


@dataclass(frozen=True)
class Store:
    """A zarr group, laid out as anndata does, and the names of its columns of obs in their order."""

    root: Any
    columns: list[str] = field(default_factory=list)

    def append(self, **slots: Mapping[str, NDArray[np.float32]]) -> None:
        """Append the next rows of the tables, columns or layers of each slot."""
        self.columns.extend(name for name in slots.get("obs", ()) if name not in self.columns)
        for slot, arrays in slots.items():
            group = self.root[slot]
            for name, values in arrays.items():
                if name in group:
                    group[name].append(values)
                else:  # a chunk is a block, so that no block is written twice
                    anndata.io.write_elem(group, name, values, dataset_kwargs={"chunks": values.shape})


def check_output(output: str | Path | None, *, copy: bool) -> Path | None:
    """Check the path of a store, if there is one, before the work whose result is written to it."""
    if output is None:
        return None
    if copy:
        raise ValueError("output= leaves adata as it is, so there is nothing to copy; leave copy out.")
    path = Path(output)
    check_writable(path, overwrite=False, suffixes=(".zarr",))
    import_zarr()
    return path


@contextmanager
def new_store(adata: AnnData, path: Path, *, with_genes: bool = False) -> Iterator[Store]:
    """Open a store with the names of these cells, and of the genes if wanted; its path appears when all is written."""
    zarr = import_zarr()
    with written_whole(path, overwrite=False) as part:
        # The default of anndata is format 2; in format 3 chunks may be joined to shards, which every appended block
        # would write anew.
        store = Store(zarr.open_group(part, mode="w", zarr_format=2))
        var = pd.DataFrame(index=adata.var_names) if with_genes else None
        anndata.io.write_elem(store.root, "/", AnnData(obs=pd.DataFrame(index=adata.obs_names), var=var))
        yield store
        store.root["obs"].attrs["column-order"] = store.columns
        zarr.consolidate_metadata(store.root.store)  # as anndata does, so that opening reads one file
