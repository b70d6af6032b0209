"""The one place that changes an AnnData, or appends to a .zarr store: everything is ready before it is assigned."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
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
from ._results import REPORTS, SCHEMA_VERSION, read_fit
from ._schema import OF_FIT, Slots, evaluation_slot, loadings_slot, mark_slot, mean_std_slot, slugs, unseen_slot
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
    # A view becomes an independent AnnData, as scanpy makes it before it writes. Assigning to a view would warn, and a
    # copy in its place would stay after a failure.
    actual = adata.copy() if adata.is_view else adata
    changed = {slot for slot in (*new, *stale) if new.get(slot) or stale.get(slot)}
    frames = {slot: getattr(actual, slot) for slot in _FRAMES if slot in changed}
    # New frames are built before anything is assigned, so that a lack of memory shows here.
    built = {}
    for slot, frame in frames.items():
        columns, removed = new.get(slot, {}), {*new.get(slot, ()), *stale.get(slot, ())}
        kept = in_memory(frame).drop(columns=[name for name in removed if name in frame])
        # One concatenation: hundreds of single columns would fragment the frame.
        joined = pd.concat([kept, pd.DataFrame(dict(columns), index=kept.index)], axis=1)
        if len(kept.columns) < len(frame.columns) and joined.columns.is_unique:
            # A column that is replaced stays in its place.
            order = [name for name in frame.columns if name in joined]
            joined = joined[order + [name for name in joined if name not in set(order)]]
        built[slot] = joined
    mappings = {slot: getattr(actual, slot) for slot in _MAPPINGS if slot in changed}
    # The key None stands for X in layers, since anndata 0.13.
    before = {slot: {k: v for k, v in mapping.items() if k is not None} for slot, mapping in mappings.items()}
    of_view = dict(vars(adata))
    try:
        for slot, frame in built.items():
            setattr(actual, slot, frame)
        for slot, mapping in mappings.items():
            for name in stale.get(slot, ()):
                mapping.pop(name, None)
            mapping.update(new.get(slot, {}))
        if actual is not adata:
            adata._init_as_actual(actual)  # noqa: SLF001 - AnnData has no public name for it
    except BaseException:
        if actual is not adata:
            vars(adata).clear()
            vars(adata).update(of_view)
            raise
        for slot, frame in frames.items():
            setattr(adata, slot, frame)
        for slot, content in before.items():
            for name in [name for name in mappings[slot] if name is not None]:
                del mappings[slot][name]
            mappings[slot].update(content)  # in the order in which they were
        raise
    return added


def warn_of_replaced(adata: AnnData, new: Mapping[str, Iterable[str]], stale: Mapping[str, Sequence[str]]) -> None:
    """Warn of keys that exist already, or will be removed."""
    replaced = [
        f"{name!r} (adata.{slot})"
        for slot in ("obsm", "varm", "obs", "var", "layers", "uns")
        for name in dict.fromkeys([*new.get(slot, ()), *stale.get(slot, ())])
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


def claim_slots(
    adata: AnnData, cells: FitInput, key: str, *, predict: bool, inverse: bool, weights: bool
) -> tuple[dict[str, Slots], dict[str, list[str]]]:
    """Return the slots of each target by its slug, and what :func:`write_fit` will remove of a fit under this key.

    Warn of what will be replaced; raise a ValueError if slots hold what no fit under this key wrote.
    """
    # This is called before a fit begins: where warnings are errors, hours of work are not lost.
    labels = [target.label for target in cells.targets]
    slots = {slug: Slots.named(key, slug if len(labels) > 1 else "") for slug in slugs(labels)}
    previous: list[Slots] = []
    unseen: list[str] = []
    if key in adata.uns:
        with suppress(ValueError):  # a damaged fit may be replaced, and its slots cannot be read
            fit, start = read_fit(adata, key), unseen_slot(key, "")
            # A screen also leaves predictions of conditions that were not measured.
            unseen = [name for name in map(str, adata.uns) if name.startswith(start)]
            previous = [fit.slots(slug) for slug in fit.targets]
            previous += [Slots.named(key, name.removeprefix(start)) for name in unseen]
    may_write, old = (
        {attribute: [getattr(one, field) for one in some for field in fields] for attribute, fields in OF_FIT.items()}
        for some in (slots.values(), previous)
    )
    known = {name for names in old.values() for name in names}
    foreign = [
        f"{name!r} (adata.{attribute})"
        for attribute, names in may_write.items()
        for name in names
        if name in getattr(adata, attribute) and name not in known
    ]
    if foreign and (previous or key not in adata.uns):
        raise ValueError(
            f"key_added={key!r} would replace {', '.join(foreign)}, which no fit of this key wrote; pass another "
            "key_added, or delete them."
        )
    # Beside a new fit, what an earlier one has left would be read as its results.
    old["obs"] += [mean_std_slot(one.layer) for one in previous]
    old["layers"] = [one.layer for one in previous]
    if previous:
        old |= {"varm": [loadings_slot(key)], "var": [mark_slot(key)], "uns": [evaluation_slot(key), *unseen]}
    stale = {slot: [name for name in names if name in getattr(adata, slot)] for slot, names in old.items()}
    new: dict[str, list[str]] = {"obsm": [], "obs": [], "uns": [key]}
    for one in slots.values():
        new["obsm"] += [one.moved] * predict + [one.inverse] * inverse
        new["obs"] += [one.displacement, one.std, one.out_of_support] * predict + [one.weight, one.growth] * weights
    warn_of_replaced(adata, new, stale)
    return slots, stale


def write_fit(
    adata: AnnData,
    cells: FitInput,
    fits: Sequence[Fitted],
    slots: Mapping[str, Slots],
    stale: Mapping[str, Sequence[str]],
    *,
    key: str,
    fill: str,
    entries: Mapping[str, Any] | None = None,
    **params: Any,
) -> str:
    """Write a fit, with other options to record, and the cells that it moved; return what was added, for the log.

    ``slots`` and ``stale`` are those of :func:`claim_slots`. ``entries`` are written beside the others into the fit's
    dict in uns.
    """
    new: dict[str, dict[str, Any]] = {"obsm": {}, "obs": {}}
    for of_target, fit in zip(slots.values(), fits, strict=True):
        for moved in fit.moved:
            for slot, values in slots_of_moved(adata, cells.rep, moved, of_target, fill=fill).items():
                new[slot] |= values
        if fit.weights is not None:
            source_rows, target_rows, weight_x, weight_y, growth = fit.weights
            both = np.concatenate([source_rows, target_rows]), np.concatenate([weight_x, weight_y])
            new["obs"][of_target.weight] = placed(both[1], both[0], range(adata.n_obs))
            new["obs"][of_target.growth] = placed(growth, source_rows, range(adata.n_obs))

    params = {"fill": fill, "inverse": any(len(fit.moved) > 1 for fit in fits), **params}
    params |= {} if cells.split_key is None else {"split_key": cells.split_key}
    # The groups are those of the last column, within what the first of two columns leaves out.
    params |= dict(zip(("group_key", "leave_out"), reversed(cells.group_columns), strict=False))
    # uns takes str-keyed dicts of arrays, strings, numbers and bools, which is what files can hold.
    states = {slug: fit.state for slug, fit in zip(slots, fits, strict=True)}
    by_slug = dict(zip(slots, cells.targets, strict=True))
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
        "targets": {slug: target.label for slug, target in by_slug.items()},
        "rep": {"name": cells.rep.name, "n_dims": cells.rep.n_dims, "fingerprint": cells.rep.fingerprint},
        "params": shared | params,
        "n_training": {slug: len(some.training) for slug, some in {"source": cells.source, **by_slug}.items()},
        "training_cells": training_cells,
        **{report: {slug: state[report] for slug, state in states.items()} for report in REPORTS},
        "models": {slug: {k: v for k, v in state.items() if k not in REPORTS} for slug, state in states.items()},
        "versions": {name.replace("-", "_"): version(name) for name in _VERSIONS},
    }
    described |= {} if entries is None else entries
    if cells.groupby is not None:
        described["groupby"] = cells.groupby
    return commit(adata, {**new, "uns": {key: described}}, stale=stale, announced=True)


# ---- cells moved by stored maps


def slots_of_moved(
    adata: AnnData, rep: Representation, moved: Moved, slots: Slots, *, fill: str, span: range | None = None
) -> dict[str, dict[str, NDArray[np.float32]]]:
    """Return what is written of moved cells, for all rows or for a span of them."""
    span = range(adata.n_obs) if span is None else span
    background = None if fill == "nan" else read_coordinates(adata, rep, np.array(span))
    key = slots.inverse if moved.displacement is None else slots.moved
    columns = {slots.displacement: moved.displacement, slots.std: moved.std, slots.out_of_support: moved.out_of_support}
    obs = {name: placed(values, moved.rows, span) for name, values in columns.items() if values is not None}
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
