"""A stored fit, as it lies in uns."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from anndata import AnnData

from ._conditions import listed, matching
from ._lazy import in_memory
from ._representation import Representation
from ._schema import FIT_KEYS, Slots, is_fit, is_slug

SCHEMA_VERSION = 1
# What a model reports about its fit: kept beside the models in uns, where a reader finds it, and joined on reading.
REPORTS = ("history", "validation", "certificate", "outcome", "status")


@dataclass(frozen=True)
class StoredFit:
    """Contents of ``adata.uns[key]``.

    Parameters
    ----------
    key
        Where it was found.
    groupby
        Column of the labels; None where conditions are boolean columns.
    source
        Label of the source.
    targets
        Slug to label.
    rep
        The space of the maps.
    params
        Parameters that all maps share.
    models
        Slug to what ``TransportMap.from_dict`` takes.
    n_training
        ``'source'`` and slug to the number of cells that were fitted on, as far as they are known.
    versions
        Of the packages that the fit was made with.
    """

    key: str
    groupby: str | None
    source: str
    targets: dict[str, str]
    rep: Representation
    params: dict[str, Any]
    models: dict[str, dict[str, Any]]
    n_training: dict[str, int]
    versions: dict[str, str]

    def slug(self, target: Hashable | None) -> str:
        """Slug of a target.

        Raises
        ------
        ValueError
            If there is no such target, or None is ambiguous.
        """
        slugs = self.slugs(target)
        if len(slugs) > 1:
            raise ValueError(f"This fit has several targets; pass target= one of {listed(self.targets.values())}.")
        return slugs[0]

    def slugs(self, target: Hashable | None) -> list[str]:
        """Slugs of a target, or of all for None.

        Raises
        ------
        ValueError
            If there is no such target.
        """
        if target is None:
            return list(self.targets)
        found = matching(target, list(self.targets.values()))
        if len(found) != 1:
            raise ValueError(
                f"target={target!r} is not a target of adata.uns[{self.key!r}]; it has {listed(self.targets.values())}."
            )
        return [list(self.targets)[found[0]]]

    def origin(self, slug: str) -> dict[str, Any]:
        """What a map on its own has to carry to be applied to the right cells; see :func:`fit_of_origin`."""
        column = {} if self.groupby is None else {"groupby": self.groupby}
        return {"source": self.source, "target": self.targets[slug], "rep": asdict(self.rep), **column}

    def slots(self, slug: str) -> Slots:
        """Where this target's results are."""
        return Slots.named(self.key, self.suffix(slug))

    def suffix(self, slug: str) -> str:
        """Part of the slots' keys that tells targets apart: none if there is one."""
        return slug if len(self.targets) > 1 else ""


def fit_of_origin(origin: Mapping[str, Any], key: str) -> StoredFit:
    """Return the fit that a map on its own came from, without its models.

    Raises
    ------
    ValueError
        If the origin is incomplete.
    """
    stored = _Entries("The map's origin", origin)
    return StoredFit(
        key=key,
        groupby=stored.text("groupby") if "groupby" in origin else None,
        source=stored.text("source"),
        targets={"": stored.text("target")},
        rep=_representation(stored.entries("rep")),
        params={},
        models={},
        n_training={},
        versions={},
    )


def _representation(rep: _Entries) -> Representation:
    n_dims = rep.integer("n_dims")
    if n_dims < 1:
        raise rep.damaged(f"['n_dims'] is {n_dims}")
    return Representation(rep.text("name"), n_dims, rep.text("fingerprint"))


def read_fit(adata: AnnData, key: str) -> StoredFit:
    """Read and check all of a stored fit that is read anywhere; the maps themselves are checked by the solver.

    Raises
    ------
    ValueError
        If there is none under this key, or it is incomplete, or newer than this package.
    """
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
        raise ValueError(f"adata.uns has no fit {key!r}; it has {what}.")
    stored = _entries(f"adata.uns[{key!r}]", in_memory(adata.uns[key]))
    version = stored.integer("schema_version")
    if not 1 <= version <= SCHEMA_VERSION:
        raise ValueError(
            f"adata.uns[{key!r}] has schema version {version}; this scot_hycnn reads versions 1 to {SCHEMA_VERSION}. "
            "Update scot_hycnn, or fit again."
        )
    rep, targets = _representation(stored.entries("rep")), _targets(stored.entries("targets"))
    n_training, versions = stored.optional("n_training"), stored.optional("versions")
    return StoredFit(
        key=key,
        groupby=stored.text("groupby") if "groupby" in stored.content else None,
        source=stored.text("source"),
        targets=targets,
        rep=rep,
        params=_params(stored.entries("params")),
        models={slug: _model(stored, slug, rep.n_dims) for slug in targets},
        n_training={slug: n_training.integer(slug) for slug in n_training.content},
        versions={name: versions.text(name) for name in versions.content},
    )


def slots_of_previous_fit(adata: AnnData, key: str) -> list[Slots]:
    """Slots that a fit under the same name has left: beside a new fit they would be read as its results."""
    try:
        previous = read_fit(adata, key)
    except ValueError:
        return []
    return [previous.slots(slug) for slug in previous.targets]


def _targets(stored: _Entries) -> dict[str, str]:
    targets = {slug: stored.text(slug) for slug in stored.content}
    if not targets:
        raise stored.damaged(" names no target")
    unsafe = [slug for slug in targets if not is_slug(slug)]
    if unsafe or len({slug.lower() for slug in targets}) < len(targets):
        raise stored.damaged(f" has keys that no slots are named by, {unsafe or list(targets)}")
    if len(set(targets.values())) < len(targets):
        raise stored.damaged(f" has one label for several targets, {list(targets.values())}")
    return targets


def _params(stored: _Entries) -> dict[str, Any]:
    """Parameters, of which those that are read again have their type."""
    read: dict[str, Callable[[str], Any]] = {"fallback": stored.flag, "n_obs": stored.integer}
    read |= dict.fromkeys(("split_key", "group_key", "split_fingerprint"), stored.text)
    return {name: read[name](name) if name in read else stored.plain(name) for name in stored.content}


def _model(stored: _Entries, slug: str, n_dims: int) -> dict[str, Any]:
    reports: dict[str, Any] = {"status": stored.entries("status").text(slug)}
    for report in ("validation", "certificate"):
        entries = stored.entries(report).entries(slug)
        reports[report] = {name: entries.plain(name) for name in entries.content}
    outcomes = stored.optional("outcome")  # older fits have none
    reports["outcome"] = outcomes.text(slug) if slug in outcomes.content else ""
    reports["history"] = _history(stored, slug)
    model = stored.entries("models").entries(slug)
    if "network" in model.content and model.entries("network").integer("n_dims") != n_dims:
        raise model.damaged(f" is a map in another number of dimensions than the {n_dims} of the fit's 'rep'")
    return {**model.content, **reports}


def _history(fit: _Entries, slug: str) -> dict[str, Any]:
    """A table of numbers. The Gaussian map has none."""
    stored = fit.optional("history").optional(slug)
    columns = {name: np.asarray(stored.plain(name)) for name in stored.content}
    odd = [name for name, column in columns.items() if column.ndim != 1 or column.dtype.kind not in "biuf"]
    if odd or len({len(column) for column in columns.values()}) > 1:
        raise stored.damaged(f" has columns {odd or list(columns)} that are no numbers, or not of one length")
    if "J_minus_gaussian" in columns and not {"step", "J_error"} <= columns.keys():
        raise stored.damaged(" lacks 'step' or 'J_error'")
    return columns


def _is_plain(value: object) -> bool:
    """Whether it is what files hold, and as large as it says: numbers, strings, and arrays of them."""
    if isinstance(value, np.ndarray):
        repeated = any(n > 1 and not stride for n, stride in zip(value.shape, value.strides, strict=True))
        strings = value.dtype == object and all(isinstance(entry, str) for entry in value.flat)
        return not repeated and (value.dtype.kind in "biufUT" or strings)
    return value is None or isinstance(value, (str, bool, int, float, np.bool_, np.integer, np.floating))


@dataclass(frozen=True)
class _Entries:
    """A dict out of uns that may have been edited by hand, and its name for the message."""

    name: str
    content: Mapping[str, Any]

    def entries(self, key: str) -> _Entries:
        value = self._get(key)
        if not isinstance(value, Mapping):
            raise self._of_another_type(key, value, "a dict")
        return _entries(f"{self.name}[{key!r}]", value)

    def optional(self, key: str) -> _Entries:
        """A dict that older fits lack, or anndata.concat has left out because it was empty."""
        return self.entries(key) if key in self.content else _Entries("", {})

    def text(self, key: str) -> str:
        value = self._get(key)
        if not isinstance(value, str):
            raise self._of_another_type(key, value, "a string")
        return str(value)

    def integer(self, key: str) -> int:
        value = self._get(key)
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
            raise self._of_another_type(key, value, "a whole number")
        return int(value)

    def flag(self, key: str) -> bool:
        value = self._get(key)
        if not isinstance(value, (bool, np.bool_)):
            raise self._of_another_type(key, value, "True or False")
        return bool(value)

    def plain(self, key: str) -> Any:
        value = self._get(key)
        if not _is_plain(value):
            raise self._of_another_type(key, value, "a number, a string or an array of them")
        return value

    def damaged(self, what: str) -> ValueError:
        return ValueError(f"{self.name}{what}: the fit is damaged, run sh.tl.hycnn_ot again.")

    def _get(self, key: str) -> Any:
        if key not in self.content:
            raise self.damaged(f" lacks {key!r}")
        return self.content[key]

    def _of_another_type(self, key: str, value: object, kind: str) -> ValueError:
        return self.damaged(f"[{key!r}] is of type {type(value).__name__} instead of {kind}")


def _entries(name: str, content: Mapping[Any, Any]) -> _Entries:
    found = _Entries(name, content)
    odd = [key for key in content if not isinstance(key, str)]
    if odd:
        raise found.damaged(f" has the key {odd[0]!r}, which is no string")
    return found
