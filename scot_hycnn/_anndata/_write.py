"""Fits and the cells that they moved, as slots of an AnnData: all are ready before the first is assigned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray

from ._commit import commit, warn_of_replaced
from ._conditions import Rows
from ._evaluation_input import evaluation_slot
from ._lazy import obs_columns
from ._pairs import Pairs
from ._representation import Coordinates, Representation, read_coordinates
from ._results import REPORTS, SCHEMA_VERSION, slots_of_previous_fit
from ._slots import Slots
from ._store import Store
from ._training import fingerprint_of_split
from ._transport_input import NewCells

_VERSIONS = ("scot-hycnn", "torch", "anndata", "scanpy", "numpy")


@dataclass(frozen=True)
class Fitted:
    """What a fit found for one target.

    Parameters
    ----------
    state
        ``TransportMap.to_dict()``.
    moved
        T(x) of the source cells, shape (n, d), if wanted.
    std
        The ensemble's standard deviation, shape (n,), with ``moved``.
    out_of_support
        Distance from the training cells, shape (n,), with ``moved``.
    inverse
        The inverse map of the target cells, shape (m, d), if wanted.
    """

    state: Mapping[str, Any]
    moved: Coordinates | None = None
    std: Coordinates | None = None
    out_of_support: Coordinates | None = None
    inverse: Coordinates | None = None


@dataclass(frozen=True)
class Moved:
    """Cells that a stored map has moved.

    Parameters
    ----------
    cells
        Which.
    points
        Where they are now, shape (n, d).
    displacement
        How far they have moved, shape (n,); None for the inverse map.
    std
        The ensemble's standard deviation, shape (n,); None for the inverse map.
    out_of_support
        Distance from the training cells, shape (n,); None for maps that do not know them.
    """

    cells: NewCells
    points: Coordinates
    displacement: Coordinates | None = None
    std: Coordinates | None = None
    out_of_support: Coordinates | None = None


@dataclass(frozen=True)
class Placed:
    """Predicted cells in an embedding.

    Parameters
    ----------
    rows
        The cells, shape (n,).
    positions
        Where they are, shape (n, columns of the embedding).
    origin
        What the positions were made of.
    """

    rows: Rows
    positions: Coordinates
    origin: Mapping[str, Any]


@dataclass(frozen=True)
class _Changes:
    """Everything that is about to be assigned, at full height or for one block of rows.

    Parameters
    ----------
    adata
        Where to.
    rep
        The space of the points.
    fill
        'nan' or 'identity': what rows of other cells hold.
    span
        The rows.
    """

    adata: AnnData
    rep: Representation
    fill: str
    span: range
    obsm: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    obs: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    uns: dict[str, Any] = field(default_factory=dict)

    def add_points(self, name: str, rows: Rows, points: Coordinates) -> None:
        if self.fill == "identity":
            full = read_coordinates(self.adata, self.rep, np.array(self.span)).astype(np.float32, copy=False)
        else:
            full = np.full((len(self.span), self.rep.n_dims), np.nan, dtype=np.float32)
        full[rows - self.span.start] = points
        self.obsm[name] = full

    def add_column(self, name: str, rows: Rows, values: Coordinates) -> None:
        self.obs[name] = np.full(len(self.span), np.nan, dtype=np.float32)
        self.obs[name][rows - self.span.start] = values

    def add_forward(self, slots: Slots, rows: Rows, points: Coordinates, **columns: Coordinates | None) -> None:
        self.add_points(slots.moved, rows, points)
        for name, values in columns.items():
            if values is not None:
                self.add_column(getattr(slots, name), rows, values)

    def add_moved(self, slots: Slots, moved: Moved) -> None:
        if moved.displacement is None:
            self.add_points(slots.inverse, moved.cells.rows, moved.points)
        else:
            columns = {"displacement": moved.displacement, "std": moved.std, "out_of_support": moved.out_of_support}
            self.add_forward(slots, moved.cells.rows, moved.points, **columns)

    @property
    def slots(self) -> dict[str, dict[str, Any]]:
        return {"obsm": dict(self.obsm), "obs": dict(self.obs), "uns": self.uns}

    def __str__(self) -> str:
        lines = (f"    {', '.join(map(repr, values))} (adata.{slot})" for slot, values in self.slots.items() if values)
        return "added\n" + "\n".join(lines)


def claim(adata: AnnData, *, copy: bool, writes: bool = True) -> AnnData:
    """Return the AnnData that results go into, if they do: itself, or a copy.

    Raises
    ------
    TypeError
        If it is no AnnData.
    ValueError
        If it cannot hold results.
    """
    if not isinstance(adata, AnnData):
        raise TypeError(f"adata is of type {type(adata).__name__}; an AnnData is needed.")
    if copy:
        return adata.to_memory() if adata.isbacked else adata.copy()
    if writes and adata.isbacked and adata.is_view:
        raise ValueError(
            "adata is a view of a file-backed AnnData and cannot hold results: "
            "make it an AnnData of its own first with adata = adata.to_memory(), or pass copy=True."
        )
    return adata


def write_fit(adata: AnnData, pairs: Pairs, fits: Sequence[Fitted], *, key: str, fill: str, **options: Any) -> str:
    """Write a fit and the cells that it moved; see the table in :func:`scot_hycnn.tl.hycnn_ot`.

    Parameters
    ----------
    adata
        Where ``pairs`` were read from.
    pairs
        The cells.
    fits
        One a target, in their order.
    key
        Stem of all keys.
    fill
        'nan' or 'identity': what rows of other cells hold.
    options
        Others to record.

    Returns
    -------
    What was added, for the log.
    """
    options = {"fill": fill, "inverse": any(fit.inverse is not None for fit in fits), **options}
    columns = {"split_key": pairs.split_key, "group_key": pairs.group_key}
    options |= {name: column for name, column in columns.items() if column is not None}
    if pairs.split_key is not None:
        options |= {
            "split_fingerprint": fingerprint_of_split(obs_columns(adata, pairs.split_key), pairs.split_key),
            "n_obs": adata.n_obs,
        }
    changes = _Changes(adata, pairs.rep, fill, range(adata.n_obs), uns={key: _describe(pairs, fits, options)})
    for target, fit in zip(pairs.targets, fits, strict=True):
        slots = Slots.named(key, target.slug if len(fits) > 1 else "")
        if fit.moved is not None:
            displacement = np.linalg.norm(fit.moved - pairs.source.coordinates, axis=1)
            measured = {"displacement": displacement, "std": fit.std, "out_of_support": fit.out_of_support}
            changes.add_forward(slots, pairs.source.rows, fit.moved, **measured)
        if fit.inverse is not None:
            changes.add_points(slots.inverse, target.rows, fit.inverse)
    commit(adata, changes.slots, stale=_stale(adata, key), announced=True)
    return str(changes)


def announce_replaced(adata: AnnData, pairs: Pairs, *, key: str, predict: bool, inverse: bool) -> None:
    """Warn, before a fit begins, of what :func:`write_fit` will replace.

    Where warnings are errors nothing is lost then: neither the results that are there, nor hours of work.

    Parameters
    ----------
    adata, pairs, key
        As for :func:`write_fit`.
    predict, inverse
        What will be written beside the maps.

    Warns
    -----
    UserWarning
        If slots will be replaced.
    """
    new: dict[str, dict[str, Any]] = {"obsm": {}, "obs": {}, "uns": {key: None}}
    for target in pairs.targets:
        slots = Slots.named(key, target.slug if len(pairs.targets) > 1 else "")
        new["obsm"] |= dict.fromkeys([slots.moved] * predict + [slots.inverse] * inverse)
        new["obs"] |= dict.fromkeys(slots.columns if predict else ())
    warn_of_replaced(adata, new, _stale(adata, key), stacklevel=4)


def write_moved(adata: AnnData, moved: Mapping[str, Moved], *, key: str, fill: str) -> str:
    """Write cells that stored maps have moved, into the slots that a fit would use.

    Parameters
    ----------
    adata
        Where the cells were read from.
    moved
        Suffix of the slots (a slug, or empty) to cells. Without ``displacement`` they go to the inverse map's slot.
    key
        Stem of all keys.
    fill
        'nan' or 'identity': what rows of other cells hold.

    Returns
    -------
    What was added, for the log.

    Warns
    -----
    UserWarning
        If slots are replaced.
    """
    (rep,) = {entry.cells.rep for entry in moved.values()}
    changes = _Changes(adata, rep, fill, range(adata.n_obs))
    # Genes that were decoded from other predicted cells.
    before = [Slots.named(key, suffix) for suffix in moved]
    stale = {"layers": [slots.layer for slots in before if slots.layer in adata.layers and slots.moved in adata.obsm]}
    for suffix, entry in moved.items():
        changes.add_moved(Slots.named(key, suffix), entry)
    commit(adata, changes.slots, stale=stale)
    return str(changes)


def append_moved(store: Store, span: range, moved: Moved, *, slots: Slots, fill: str) -> None:
    """Append a block of moved cells to a store.

    Parameters
    ----------
    store
        Where to.
    span
        Row numbers of the block.
    moved
        The cells among them.
    slots
        Names in the store.
    fill
        'nan' or 'identity': what rows of other cells hold.
    """
    changes = _Changes(moved.cells.adata, moved.cells.rep, fill, span)
    changes.add_moved(slots, moved)
    store.append(obsm=changes.obsm, obs=changes.obs)


def write_projections(adata: AnnData, placed: Mapping[str, Placed], *, embedding: Representation) -> str:
    """Write predicted cells in an embedding.

    Parameters
    ----------
    adata
        Where the cells were read from.
    placed
        Name, key of uns, to cells; positions go to ``obsm['X_<name>']``.
    embedding
        Of the positions.

    Returns
    -------
    What was added, for the log.

    Warns
    -----
    UserWarning
        If slots are replaced.
    """
    changes = _Changes(
        adata, embedding, "nan", range(adata.n_obs), uns={name: dict(cells.origin) for name, cells in placed.items()}
    )
    for name, cells in placed.items():
        changes.add_points(f"X_{name}", cells.rows, cells.positions)
    commit(adata, changes.slots)
    return str(changes)


def _describe(pairs: Pairs, fits: Sequence[Fitted], options: Mapping[str, Any]) -> dict[str, Any]:
    """Contents of uns: str-keyed dicts of arrays, strings, numbers and bools, which is what files can hold."""
    slugs = [target.slug for target in pairs.targets]
    states = dict(zip(slugs, (fit.state for fit in fits), strict=True))
    described = {
        "schema_version": SCHEMA_VERSION,
        "source": pairs.source.label,
        "targets": {target.slug: target.label for target in pairs.targets},
        "rep": {
            "name": pairs.rep.name,
            "n_dims": pairs.rep.n_dims,
            "fingerprint": pairs.rep.fingerprint,
        },
        "params": _shared([state["params"] for state in states.values()]) | dict(options),
        "n_training": {"source": pairs.source.n_training}
        | {target.slug: target.n_training for target in pairs.targets},
        **{report: {slug: state[report] for slug, state in states.items()} for report in REPORTS},
        "models": {
            slug: {name: value for name, value in state.items() if name not in REPORTS}
            for slug, state in states.items()
        },
        "versions": {name.replace("-", "_"): version(name) for name in _VERSIONS},
    }
    if pairs.groupby is not None:
        described["groupby"] = pairs.groupby
    return described


def _shared(params: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Parameters that have one value in all fits."""
    first, *others = params
    return {
        name: value
        for name, value in first.items()
        if all(name in other and np.array_equal(other[name], value) for other in others)
    }


def _stale(adata: AnnData, key: str) -> dict[str, list[str]]:
    """What a previous fit under this key has left, by slot: beside a new fit it would be read as its results."""
    previous = slots_of_previous_fit(adata, key)
    left = {
        "obsm": [name for slots in previous for name in slots.tables],
        "obs": [name for slots in previous for name in slots.columns],
        "layers": [slots.layer for slots in previous],
        "uns": [evaluation_slot(key)] if previous else [],
    }
    return {slot: [name for name in names if name in getattr(adata, slot)] for slot, names in left.items()}
