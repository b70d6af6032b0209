"""A stored fit, and its source, predicted and observed cells."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray

from scot_hycnn._warn import did_you_mean

from ._conditions import (
    Rows,
    hashes_of_names,
    labelled_rows,
    listed,
    listed_labels,
    matching,
    rows_of_labels,
)
from ._representation import (
    Coordinates,
    Representation,
    feature_names,
    find_same_representation,
    in_memory,
    obs_columns,
    read_coordinates,
    read_finite,
    spans,
)
from ._schema import FIT_KEYS, SHARED_THETA, Slots, is_fit, is_slug

SCHEMA_VERSION = 1
# The reports of a model about its fit lie beside the models in uns, where a reader finds them; read_fit joins the two.
REPORTS = ("history", "validation", "certificate", "outcome", "status")

_KINDS: dict[str, type | tuple[type, ...]] = {
    "a dict": dict,
    "a string": str,
    "an integer": (int, np.integer),
    "a number": (int, float, np.number),
    "True or False": (bool, np.bool_),
}
# Types of the parameters of a fit, and of the entries of its report on validation cells, that later calls use.
_PARAMS = {"fallback": "True or False", **dict.fromkeys(("split_key", "group_key", "leave_out"), "a string")}
_VALIDATION = dict.fromkeys(("n_source", "n_target"), "an integer")
_VALIDATION |= dict.fromkeys(("blend", "J", "J_gaussian", "p_no_change"), "a number")
_VALIDATION |= {f"energy_distance{end}": "a number" for end in ("", "_gaussian", "_no_change")}


@dataclass(frozen=True)
class StoredFit:
    """Contents of ``adata.uns[key]``; a map without its AnnData has no ``params``, ``models`` and so on."""

    key: str
    groupby: str | None  # column of the labels; None if conditions are boolean columns
    source: str
    targets: dict[str, str]  # slug to label
    rep: Representation
    params: dict[str, Any]  # parameters that all maps share
    models: dict[str, dict[str, Any]]  # slug to what TransportMap.from_dict takes
    n_training: dict[str, int]  # 'source' and slug to the number of training cells
    versions: dict[str, str]  # package to version
    # Hashes of the names of the cells that the fit was made from; None in fits of older versions.
    training_cells: NDArray[np.uint64] | None = None

    @property
    def group_columns(self) -> tuple[str | None, ...]:
        """The columns of the groups: that of what was left out and that of groups within it, or of groups alone."""
        left_out = self.params.get("leave_out", "cells")
        return *(() if left_out in ("cells", "groups") else (left_out,)), self.params.get("group_key")

    def slug(self, target: Hashable | None) -> str:
        """Return the slug of one target; None is an error if there are several."""
        slugs = self.slugs(target)
        if len(slugs) > 1:
            raise ValueError(f"This fit has several targets; pass target= one of {listed(self.targets.values())}.")
        return slugs[0]

    def slugs(self, target: Hashable | None) -> list[str]:
        """Return the slug of one target in a list, or the slugs of all targets for None."""
        if target is None:
            return list(self.targets)
        found = matching([target], list(self.targets.values()))[0]
        if len(found) != 1:
            raise ValueError(
                f"target={target!r} is not a target of adata.uns[{self.key!r}]; it has {listed(self.targets.values())}."
                f"{did_you_mean(target, self.targets.values())}"
            )
        return [list(self.targets)[found[0]]]

    def suffix(self, slug: str) -> str:
        """Return the part of the slots' keys that separates targets; it is empty if there is one target."""
        return slug if len(self.targets) > 1 else ""

    def slots(self, slug: str) -> Slots:
        """Return the keys of one target's results."""
        return Slots.named(self.key, self.suffix(slug))

    def origin(self, slug: str) -> dict[str, Any]:
        """Return what a map without its AnnData stores, so that it is applied to the right cells."""
        columns = {"groupby": self.groupby, **{name: self.params.get(name) for name in ("group_key", "leave_out")}}
        column = {name: value for name, value in columns.items() if value is not None}
        return {"source": self.source, "target": self.targets[slug], "rep": asdict(self.rep), **column}


def fit_of_origin(origin: Mapping[str, Any], key: str) -> StoredFit:
    """Return the fit of a map without its AnnData, from :meth:`StoredFit.origin`; it has no models."""
    entry = partial(_entry, "The map's origin", origin)
    groupby = entry("groupby", kind="a string") if "groupby" in origin else None
    source, targets = entry("source", kind="a string"), {"": entry("target", kind="a string")}
    params = {name: entry(name, kind="a string") for name in ("group_key", "leave_out") if name in origin}
    return StoredFit(key, groupby, source, targets, _representation(entry), params, {}, {}, {})


def read_fit(adata: AnnData, key: str | StoredFit) -> StoredFit:
    """Read and check a stored fit, or return one that was read; the solver checks the maps themselves."""
    if isinstance(key, StoredFit):  # to read the maps of a screen for each of its conditions would take minutes
        return key
    fits = [name for name, value in adata.uns.items() if is_fit(value)]
    if key not in fits:
        if key in adata.uns:
            found = adata.uns[key]
            lacks = f"lacks {sorted(FIT_KEYS - found.keys())}" if isinstance(found, Mapping) else "is no dict"
            raise ValueError(
                f"adata.uns[{key!r}] is no fit of sh.tl.hycnn_ot, or a damaged one: it {lacks}. Fit again, or pass the "
                f"key= of a fit; adata.uns has {fits}."
            )
        what = f"the fits {fits}: pass key= one of them" if fits else "no fits. Run sh.tl.hycnn_ot first"
        if any(slot.startswith(f"X_{key}") for slot in adata.obsm):
            what += "; cells that the model of another AnnData moved are joined with its cells first (anndata.concat)"
        raise ValueError(f"adata.uns has no fit {key!r}; it has {what}.")

    # uns may have been edited by hand: every entry that is used later is checked here, once.
    where, stored = f"adata.uns[{key!r}]", in_memory(adata.uns[key])
    entry = partial(_entry, where, stored)
    version = entry("schema_version", kind="an integer")
    if not 1 <= version <= SCHEMA_VERSION:
        raise ValueError(
            f"adata.uns[{key!r}] has schema version {version}; this scot_hycnn reads 1 to {SCHEMA_VERSION}: update it."
        )

    # Slots are named by the slugs, and targets are chosen by their labels: both have to be safe and different.
    targets = {slug: entry("targets", slug, kind="a string") for slug in entry("targets", kind="a dict")}
    is_safe = all(map(is_slug, targets)) and len({slug.lower() for slug in targets}) == len(targets)
    if not targets or not is_safe or len(set(targets.values())) < len(targets):
        raise _damaged(f"{where}['targets'] names no target, or not each by a slug and a label: {targets}")
    rep = _representation(entry)
    params = _plain(f"{where}['params']", entry("params", kind="a dict"))
    for name in params.keys() & _PARAMS.keys():
        params[name] = entry("params", name, kind=_PARAMS[name])

    # Fits of older versions lack some of these, and anndata.concat drops dicts that are empty.
    numbers = entry("n_training", kind="a dict") if "n_training" in stored else {}
    versions = entry("versions", kind="a dict") if "versions" in stored else {}
    hashes = np.asarray(stored["training_cells"]) if "training_cells" in stored else None
    if hashes is not None and (hashes.dtype != np.uint64 or hashes.ndim != 1):
        raise _damaged(f"{where}['training_cells'] has dtype {hashes.dtype} and shape {hashes.shape}, and no hashes")
    return StoredFit(
        key=key,
        groupby=entry("groupby", kind="a string") if "groupby" in stored else None,
        source=entry("source", kind="a string"),
        targets=targets,
        rep=rep,
        params=params,
        models={slug: _model(where, stored, slug, rep.n_dims) for slug in targets},
        n_training={slug: entry("n_training", slug, kind="an integer") for slug in numbers},
        versions={name: entry("versions", name, kind="a string") for name in versions},
        training_cells=hashes,
    )


def training_rows(adata: AnnData, fit: StoredFit) -> Rows:
    """Return the rows of the cells that the fit was made from, as far as this AnnData has them, (n,)."""
    if fit.training_cells is not None:
        names = adata.obs_names
        # Of two cells with one name, one may be held out: neither is used.
        return np.flatnonzero(np.isin(hashes_of_names(names), fit.training_cells) & ~names.duplicated(keep=False))
    split_key = fit.params.get("split_key")
    obs = obs_columns(adata, fit.groupby, split_key)
    of_fit = _union(rows_of_labels(obs, fit.groupby, [fit.source, *fit.targets.values()]))
    return of_fit if split_key is None else np.intersect1d(of_fit, _union(rows_of_labels(obs, split_key, ["train"])))


def learned_from(adata: AnnData, fit: StoredFit, held_out: Rows | None) -> Rows:
    """Return the training cells without ``held_out`` ones; all of them if none would be left, which a note says."""
    training = training_rows(adata, fit)
    others = training if held_out is None else np.setdiff1d(training, held_out)
    return others if len(others) else training


def _union(found: Sequence[Rows | None]) -> Rows:
    return np.unique(np.concatenate([np.empty(0, np.intp), *(rows for rows in found if rows is not None)]))


def _model(where: str, stored: dict[str, Any], slug: str, n_dims: int) -> dict[str, Any]:
    """Return what ``TransportMap.from_dict`` takes: the model of one target, joined with its reports."""
    entry = partial(_entry, where, stored)
    model = entry("models", slug, kind="a dict")
    if SHARED_THETA in stored and model.get(SHARED_THETA):
        # The networks that all maps of a screen share are stored once; TransportMap.from_dict joins the two.
        model = {**model, SHARED_THETA: np.asarray(stored[SHARED_THETA])}
    # The solver checks the map; here only arrays that are larger than their memory, before anything is computed.
    for part in (model, *(value for value in model.values() if isinstance(value, dict))):
        arrays = {name: value for name, value in part.items() if isinstance(value, np.ndarray)}
        _plain(f"{where}['models'][{slug!r}]", arrays)
    if "network" in model and entry("models", slug, "network", "n_dims", kind="an integer") != n_dims:
        raise _damaged(f"{where}['models'][{slug!r}] is a map of another dimension than the {n_dims} of ['rep']")

    # The Gaussian map has no history.
    at = f"{where}['history'][{slug!r}]"
    history = entry("history", kind="a dict").get(slug, {}) if "history" in stored else {}
    columns = {name: np.asarray(column) for name, column in _plain(at, history).items()}
    shapes = {column.shape for column in columns.values()}
    if len(shapes) > 1 or any(column.ndim != 1 or column.dtype.kind not in "biuf" for column in columns.values()):
        raise _damaged(f"{at} is not a dict of columns of numbers of one length")
    if "J_minus_gaussian" in columns and not {"step", "J_error"} <= columns.keys():
        raise _damaged(f"{at} lacks 'step' or 'J_error'")
    validation = _plain(f"{where}['validation'][{slug!r}]", entry("validation", slug, kind="a dict"))
    for name in sorted(validation.keys() & _VALIDATION.keys()):
        entry("validation", slug, name, kind=_VALIDATION[name])
    outcomes = entry("outcome", kind="a dict") if "outcome" in stored else {}  # older fits have none
    return {
        **model,
        "status": entry("status", slug, kind="a string"),
        "validation": validation,
        "certificate": _plain(f"{where}['certificate'][{slug!r}]", entry("certificate", slug, kind="a dict")),
        "outcome": entry("outcome", slug, kind="a string") if slug in outcomes else "",
        "history": columns,
    }


def _representation(entry: Callable[..., Any]) -> Representation:
    n_dims = entry("rep", "n_dims", kind="an integer")
    if n_dims < 1:
        raise _damaged(f"['rep']['n_dims'] is {n_dims}")
    return Representation(entry("rep", "name", kind="a string"), n_dims, entry("rep", "fingerprint", kind="a string"))


def _entry(where: str, stored: Any, *path: str, kind: str) -> Any:
    """Return an entry of nested dicts; a ValueError names the entry that is missing or of another type."""
    value = stored
    for key in path:
        if not isinstance(value, Mapping):
            raise _damaged(f"{where} is of type {type(value).__name__} instead of a dict")
        if key not in value:
            raise _damaged(f"{where} lacks {key!r}")
        value, where = value[key], f"{where}[{key!r}]"
    # True is an int for Python.
    if not isinstance(value, _KINDS[kind]) or (kind == "an integer" and isinstance(value, bool)):
        raise _damaged(f"{where} is of type {type(value).__name__} instead of {kind}")
    odd = [key for key in value if not isinstance(key, str)] if isinstance(value, dict) else []
    if odd:
        raise _damaged(f"{where} has the key {odd[0]!r}, which is no string")
    return value.item() if isinstance(value, np.generic) else value


def _plain(where: str, entries: Any) -> dict[str, Any]:
    """Return a dict as it is; raise a ValueError unless it holds what files can: numbers, strings, arrays of them."""
    if not isinstance(entries, dict):
        raise _damaged(f"{where} is of type {type(entries).__name__} instead of a dict")
    for key, value in entries.items():
        if isinstance(value, np.ndarray):
            # A broadcast array has a shape of any size and almost no memory; computing on it would allocate the shape.
            is_repeated = any(n > 1 and not stride for n, stride in zip(value.shape, value.strides, strict=True))
            is_text = value.dtype == object and all(isinstance(text, str) for text in value.flat)
            is_plain = not is_repeated and (value.dtype.kind in "biufUT" or is_text)
        else:
            is_plain = value is None or isinstance(value, (str, bool, int, float, np.bool_, np.integer, np.floating))
        if not is_plain:
            kind = type(value).__name__
            raise _damaged(f"{where}[{key!r}] is of type {kind} instead of a number, a string or an array of them")
    return entries


def _damaged(what: str) -> ValueError:
    return ValueError(f"{what}: the fit is damaged, run sh.tl.hycnn_ot again.")


@dataclass(frozen=True)
class Results:
    """Finite coordinates of n source cells before and after the map, and of m target cells."""

    source: str  # labels
    target: str
    rep: Representation
    names: list[str]  # of its dimensions
    source_rows: Rows  # (n,)
    target_rows: Rows  # (m,)
    x: Coordinates  # (n, d)
    predicted: Coordinates  # (n, d)
    y: Coordinates  # (m, d)

    def among(self, source: NDArray[np.bool_], target: NDArray[np.bool_]) -> Results:
        """Return the results of some of the cells; the arguments are boolean arrays (n,) and (m,)."""
        return replace(
            self,
            source_rows=self.source_rows[source],
            target_rows=self.target_rows[target],
            x=self.x[source],
            predicted=self.predicted[source],
            y=self.y[target],
        )

    @property
    def measured_rows(self) -> Rows:
        """Row numbers of source and target cells, (n + m,)."""
        return np.concatenate([self.source_rows, self.target_rows])


@dataclass(frozen=True)
class Prediction:
    """Source cells that a map has moved; their coordinates are read block by block."""

    adata: AnnData
    rep: Representation  # before the map
    moved: Representation  # after it
    rows: Rows  # of all source cells, ascending, (n,)

    def read(self, rows: Rows) -> tuple[Rows, Coordinates, Coordinates]:
        """Return those of these rows that have a prediction, (n,), and their coordinates before and after, (n, d)."""
        rows, points = read_finite(self.adata, self.moved, rows)
        return rows, read_coordinates(self.adata, self.rep, rows), points

    def blocks(self, size: int) -> Iterator[tuple[range, Rows, Coordinates, Coordinates]]:
        """Yield blocks of the rows of the AnnData, with :meth:`read` of the source cells that lie in the block."""
        for span, rows in spans(self.adata.n_obs, self.rows, size):
            yield span, *self.read(rows)

    def check_some(self, n_predicted: int) -> None:
        """Raise a ValueError if no source cell has a prediction."""
        if not n_predicted:
            raise ValueError(
                f"None of the {len(self.rows)} source cells has finite coordinates in adata.obsm[{self.moved.name!r}]: "
                "run sh.tl.transport, or fit, again."
            )


def find_prediction(adata: AnnData, fit: StoredFit, slug: str) -> Prediction:
    """Find the source cells that the map to one target has moved; nothing is read."""
    slot = fit.slots(slug).moved
    if slot not in adata.obsm:
        raise ValueError(
            f"adata.obsm lacks {slot!r}; run sh.tl.transport(adata, {fit.key!r}) to write it again. If that wrote a "
            f"store (output=), take it from there: adata.obsm[{slot!r}] = read_lazy(store).obsm[{slot!r}], with "
            "anndata.experimental.read_lazy."
        )
    shape = np.shape(adata.obsm[slot])
    if len(shape) != 2 or shape[1] != fit.rep.n_dims:
        raise ValueError(
            f"adata.obsm[{slot!r}] has shape {shape}, and the fit {fit.key!r} has {fit.rep.n_dims} dimensions: run "
            f"sh.tl.transport(adata, {fit.key!r}), or sh.tl.hycnn_ot, again."
        )
    # The fit comes from this AnnData, so an unknown fingerprint of the representation needs no warning.
    rep = find_same_representation(adata, fit.rep, same_file=True)
    moved = Representation(slot, fit.rep.n_dims, "")
    return Prediction(adata, rep, moved, labelled_cells(adata, fit.groupby, fit.source))


def read_results(adata: AnnData, key: str | StoredFit, target: str | None) -> Results:
    """Read one target's cells; cells without finite coordinates or prediction are left out."""
    fit = read_fit(adata, key)
    slug = fit.slug(target)
    prediction = find_prediction(adata, fit, slug)
    source_rows, x, predicted = prediction.read(prediction.rows)
    prediction.check_some(len(source_rows))
    rep, label = prediction.rep, fit.targets[slug]
    target_rows, y = read_finite(adata, rep, labelled_cells(adata, fit.groupby, label))
    return Results(fit.source, label, rep, feature_names(adata, rep), source_rows, target_rows, x, predicted, y)


def group_column(adata: AnnData, fit: StoredFit, groupby: str | None) -> str | None:
    """Return the column of groups that the user named, else the ``group_key`` of the fit if obs has it, else None."""
    group_key = fit.params.get("group_key")
    return group_key if groupby is None and group_key in adata.obs else groupby


def labelled_cells(adata: AnnData, groupby: str | None, label: str) -> Rows:
    """Return the row numbers of the cells with a label of the fit, shape (n,)."""
    column = label if groupby is None else groupby
    obs = obs_columns(adata, column)
    rows = labelled_rows(obs, groupby, label)
    if rows is None or not len(rows):
        has = f"adata.obs has {listed(obs.columns)}" if column not in obs else f"it has {listed_labels(obs, column)}"
        raise ValueError(
            f"No cells are labelled {label!r} in adata.obs[{column!r}], which the fit was made from; {has}."
        )
    return rows


class GroupGrowth(NamedTuple):
    """Mean growth of the source cells of a group, with its 95 % interval."""

    group: str
    n: int
    growth: float
    low: float
    high: float
