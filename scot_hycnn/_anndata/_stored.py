"""A stored fit, as it lies in uns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from anndata import AnnData

from ._lazy import in_memory
from ._representation import Representation
from ._slots import Slots, is_fit

SCHEMA_VERSION = 1
# What a model reports about its fit: kept beside the models in uns, where a reader finds it, and joined on reading.
REPORTS = ("history", "validation", "certificate", "status")


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
        Slug, and 'source', to the number of cells that were fitted on.
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
    n_training: dict[str, int] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    def slug(self, target: str | None) -> str:
        """Slug of a target.

        Raises
        ------
        ValueError
            If there is no such target, or None is ambiguous.
        """
        slugs = self.slugs(target)
        if len(slugs) > 1:
            raise ValueError(f"This fit has several targets; pass target= one of {list(self.targets.values())}.")
        return slugs[0]

    def slugs(self, target: str | None) -> list[str]:
        """Slugs of a target, or of all for None.

        Raises
        ------
        ValueError
            If there is no such target.
        """
        found = [slug for slug, label in self.targets.items() if target is None or label == str(target)]
        if not found:
            raise ValueError(
                f"target={target!r} is not a target of adata.uns[{self.key!r}]; it has {list(self.targets.values())}."
            )
        return found

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
    )


def _representation(rep: _Entries) -> Representation:
    return Representation(rep.text("name"), rep.integer("n_dims"), rep.text("fingerprint"))


def read_fit(adata: AnnData, key: str) -> StoredFit:
    """Read and check a stored fit; the weights are checked by the solver.

    Raises
    ------
    ValueError
        If there is none under this key, or it is incomplete, or newer than this package.
    """
    fits = [name for name, value in adata.uns.items() if is_fit(value)]
    if key not in fits:
        what = f"the fits {fits}: pass key= one of them" if fits else "no fits. Run sh.tl.hycnn_ot first"
        raise ValueError(f"adata.uns has no fit {key!r}; it has {what}.")
    stored = _Entries(f"adata.uns[{key!r}]", in_memory(adata.uns[key]))
    version = stored.integer("schema_version")
    if not 1 <= version <= SCHEMA_VERSION:
        raise ValueError(
            f"adata.uns[{key!r}] has schema version {version}; this scot_hycnn reads versions 1 to {SCHEMA_VERSION}. "
            "Update scot_hycnn, or fit again."
        )
    targets = stored.entries("targets")
    if not targets.content:
        raise ValueError(f"{targets.name} names no target: the fit is damaged, run sh.tl.hycnn_ot again.")
    return StoredFit(
        key=key,
        groupby=stored.text("groupby") if "groupby" in stored.content else None,
        source=stored.text("source"),
        targets={slug: targets.text(slug) for slug in targets.content},
        rep=_representation(stored.entries("rep")),
        params=dict(stored.entries("params").content),
        models={slug: _model(stored, slug) for slug in targets.content},
        n_training={name: int(n) for name, n in stored.optional("n_training").items()},
        versions={name: str(each) for name, each in stored.optional("versions").items()},
    )


def slots_of_previous_fit(adata: AnnData, key: str) -> list[Slots]:
    """Slots that a fit under the same name has left: beside a new fit they would be read as its results."""
    try:
        previous = read_fit(adata, key)
    except ValueError:
        return []
    return [previous.slots(slug) for slug in previous.targets]


def _model(stored: _Entries, slug: str) -> dict[str, Any]:
    reports = {
        report: stored.entries(report).text(slug)
        if report == "status"
        else dict(stored.entries(report).entries(slug).content)
        for report in REPORTS
    }
    return {**stored.entries("models").entries(slug).content, **reports}


@dataclass(frozen=True)
class _Entries:
    """A dict out of uns that may have been edited by hand, and its name for the message."""

    name: str
    content: Mapping[str, Any]

    def entries(self, key: str) -> _Entries:
        value = self._get(key)
        if not isinstance(value, Mapping):
            raise self._damaged(key, value, "a dict")
        return _Entries(f"{self.name}[{key!r}]", value)

    def optional(self, key: str) -> Mapping[str, Any]:
        """A dict that older fits lack, and that nothing is computed from."""
        value = self.content.get(key)
        return value if isinstance(value, Mapping) else {}

    def text(self, key: str) -> str:
        value = self._get(key)
        if not isinstance(value, str):
            raise self._damaged(key, value, "a string")
        return str(value)

    def integer(self, key: str) -> int:
        value = self._get(key)
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
            raise self._damaged(key, value, "a whole number")
        return int(value)

    def _get(self, key: str) -> Any:
        if key not in self.content:
            raise ValueError(f"{self.name} lacks {key!r}: the fit is damaged, run sh.tl.hycnn_ot again.")
        return self.content[key]

    def _damaged(self, key: str, value: object, kind: str) -> ValueError:
        return ValueError(
            f"{self.name}[{key!r}] is of type {type(value).__name__} instead of {kind}: the fit is damaged, run "
            "sh.tl.hycnn_ot again."
        )
