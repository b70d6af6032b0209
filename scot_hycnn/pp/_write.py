"""Where results go: assigned after all work."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from anndata import AnnData

from scot_hycnn._anndata import own


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
    own(adata)
    for slot, values in slots.items():
        for key, value in values.items():
            getattr(adata, slot)[key] = value
