"""Predicted expression as layers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from anndata import AnnData

from ._genes import Expression
from ._schema import check_key
from ._write import commit


def check_layer(adata: AnnData, name: str, *, reads: str | None) -> None:
    """Check where predicted expression is to go, before any work is done.

    Parameters
    ----------
    adata
        The cells.
    name
        Key of layers.
    reads
        The layer that measured expression comes from.

    Raises
    ------
    ValueError
        If it is no key, or stands for measured values.
    """
    check_key(name)
    if name not in adata.layers:
        return
    before = adata.layers[name]
    # Ours are dense, named as the prediction that they decode, or NaN where no cell is predicted.
    is_dense = isinstance(before, np.ndarray) and before.dtype == np.float32
    is_ours = is_dense and (f"X_{name}" in adata.obsm or np.isnan(before[:, :1]).any())
    if name == reads or not is_ours:
        raise ValueError(
            f"key_added={name!r} would overwrite adata.layers[{name!r}], which holds other values than predicted ones; "
            "choose another."
        )


def write_layers(adata: AnnData, layers: Mapping[str, Expression]) -> str:
    """Write layers, shape (n_obs, n_vars) each.

    Returns
    -------
    What was added, for the log.

    Warns
    -----
    UserWarning
        If layers are replaced.
    """
    commit(adata, {"layers": layers})
    return f"added\n    {', '.join(map(repr, layers))} (adata.layers)"
