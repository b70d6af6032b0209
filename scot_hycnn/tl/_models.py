"""Find the maps that a user means: stored, in memory or in a file."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

from anndata import AnnData

from scot_hycnn._anndata import SUFFIXES, StoredFit, fit_of_origin, read_fit, read_uns
from scot_hycnn.solver import TransportMap

Model: TypeAlias = AnnData | TransportMap | str | Path


def open_maps(
    adata: AnnData, model: Model | None, key: str, target: str | None
) -> tuple[StoredFit | None, dict[str, TransportMap]]:
    """Return the fit that the maps come from, None for a map of arrays, and the maps by slug.

    Raises
    ------
    FileNotFoundError
        If ``model`` is a path to nothing.
    TypeError
        If ``model`` is nothing that holds a map.
    ValueError
        If there is no such fit or target, or it is damaged.
    """
    if isinstance(model, (str, Path)):
        path = Path(model)
        model = read_uns(path) if path.suffix in SUFFIXES else TransportMap.load(path)
    if isinstance(model, TransportMap):
        if target is not None:
            raise ValueError(f"target={target!r} chooses among the maps of an AnnData; model is a single map.")
        return fit_of_origin(model.origin, key) if model.origin else None, {"": model}
    if model is not None and not isinstance(model, AnnData):
        raise TypeError(
            f"model is of type {type(model).__name__}; it takes a TransportMap, an AnnData that holds a fit, or a path."
        )
    fit = read_fit(adata if model is None else model, key)
    return fit, {slug: TransportMap.from_dict(fit.models[slug]) for slug in fit.slugs(target)}
