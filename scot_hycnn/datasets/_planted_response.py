"""The true response in a planted data set."""

from __future__ import annotations

from typing import Any

import numpy as np
from anndata import AnnData

from ._log_sum_exp import LogSumExpPotential


def planted_response(adata: AnnData) -> LogSumExpPotential:
    """Return the convex potential whose gradient was planted into the cells.

    Parameters
    ----------
    adata
        Cells of :func:`pbmc_planted`, as returned or read from a file.

    Returns
    -------
    The potential f and its gradient T, functions of the coordinates in ``adata.obsm['X_pca']``.

    Raises
    ------
    ValueError
        If ``adata`` holds no planted response.

    Examples
    --------
    >>> import numpy as np
    >>> from scot_hycnn.datasets import pbmc_planted, planted_response
    >>> adata = pbmc_planted(n_cells=100)
    >>> control = adata[adata.obs["condition"] == "control"]
    >>> predicted = planted_response(adata).transport(control.obsm["X_pca"])
    >>> bool(np.allclose(predicted, control.obsm["X_planted"], atol=1e-4))
    True
    """
    if "planted" not in adata.uns:
        raise ValueError("adata.uns has no 'planted'; planted_response reads what datasets.pbmc_planted wrote there.")
    stored = adata.uns["planted"]
    return LogSumExpPotential(
        np.asarray(stored["vectors"]),
        np.asarray(stored["offsets"]),
        temperature=float(stored["temperature"]),
        quadratic=float(stored["quadratic"]),
    )


def response_to_uns(response: LogSumExpPotential) -> dict[str, Any]:
    """Return what :func:`planted_response` reads, in types that h5ad and zarr hold.

    Parameters
    ----------
    response
        The potential.

    Returns
    -------
    The entry of ``adata.uns``.
    """
    return {
        "vectors": response.vectors,
        "offsets": response.offsets,
        "temperature": response.temperature,
        "quadratic": response.quadratic,
    }
