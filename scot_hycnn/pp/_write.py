"""Where results go: checked before any work, assigned after all of it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from anndata import AnnData


def check_key(key: object) -> None:
    """Refuse names that files cannot hold.

    Raises
    ------
    ValueError
        If ``key`` is no string, empty, or has a '/'.
    """
    if not isinstance(key, str) or not key or "/" in key:
        raise ValueError(f"key_added={key!r} is no valid key: files need one that is not empty and has no '/'.")


def write(adata: AnnData, slots: Mapping[str, Mapping[str, Any]]) -> None:
    """Assign results.

    Parameters
    ----------
    adata
        Where to.
    slots
        Attribute (``'obs'``, ``'obsm'`` ...) to key to value.

    Warns
    -----
    UserWarning
        If a key exists already.
    """
    replaced = [
        f"{key!r} (adata.{slot})" for slot, values in slots.items() for key in values if key in getattr(adata, slot)
    ]
    if replaced:
        warnings.warn(
            f"Replacing {', '.join(replaced)}; pass key_added to keep both results.", UserWarning, stacklevel=3
        )
    if adata.is_view:
        adata._init_as_actual(adata.copy())  # noqa: SLF001 - as scanpy does; assigning to a view would warn
    for slot, values in slots.items():
        for key, value in values.items():
            getattr(adata, slot)[key] = value
