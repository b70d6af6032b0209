"""The map itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anndata import AnnData

from scot_hycnn._anndata._results import read_fit

if TYPE_CHECKING:
    from scot_hycnn.solver import TransportMap


def model(adata: AnnData, key: str = "hycnn_ot", target: str | None = None) -> TransportMap:
    """Return a fitted map, to apply to arrays, to save, or to pass to :func:`scot_hycnn.tl.transport`.

    Parameters
    ----------
    adata, key, target
        Cells with a fit of :func:`scot_hycnn.tl.hycnn_ot`, its key in ``uns``, and the label of the target condition;
        may be None if there is one.

    Returns
    -------
    The map.

    Raises
    ------
    ValueError
        If there is no such fit or target, several targets and none named, or the fit is damaged.

    Examples
    --------
    >>> import scot_hycnn as sh
    >>> adata = sh.datasets.pbmc_planted(n_cells=400)
    >>> sh.tl.hycnn_ot(adata, "control", "IFN-beta", n_pcs=3, potential="gaussian")
    >>> sh.get.model(adata).transport(adata.obsm["X_pca"][:10, :3]).shape
    (10, 3)
    """
    from scot_hycnn.solver import TransportMap  # noqa: PLC0415 - torch only when a map is wanted

    fit = read_fit(adata, key)
    slug = fit.slug(target)
    # The origin lets tl.transport check other cells against the space of the map, without this AnnData.
    return TransportMap.from_dict({**fit.models[slug], "origin": fit.origin(slug)})
