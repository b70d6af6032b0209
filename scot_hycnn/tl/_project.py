"""Predicted cells on an embedding."""

from __future__ import annotations

from typing import Any

from anndata import AnnData
from scanpy import logging as logg

from scot_hycnn._anndata._embedding import (
    N_NEIGHBORS,
    check_projection,
    find_embedding,
    place_predicted,
    projection_fingerprint,
    projection_name,
)
from scot_hycnn._anndata._fit_input import check_counts
from scot_hycnn._anndata._results import read_fit, read_results
from scot_hycnn._anndata._write import claim, commit, placed


def project(
    adata: AnnData,
    basis: str = "umap",
    key: str = "hycnn_ot",
    *,
    target: str | None = None,
    n_neighbors: int = N_NEIGHBORS,
    key_added: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    r"""Place predicted cells on an existing embedding such as a UMAP.

    A predicted cell gets the mean position of the measured source and target cells that are nearest to it in the
    representation of the map, weighted by one over their distance (inverse distance weighting). A cell that the map
    does not move keeps its position.

    Parameters
    ----------
    adata
        Cells with a fit of :func:`scot_hycnn.tl.hycnn_ot` and the embedding.
    basis
        Embedding in ``obsm``: ``'umap'`` means ``'X_umap'``. All its columns are used.
    key
        Key of the fit in ``uns``.
    target
        Label of the target condition; None takes all targets of the fit.
    n_neighbors
        Measured cells that place a predicted one.
    key_added
        Stem of the keys; None means ``'<basis>_<key>'``, under which :mod:`scot_hycnn.pl` finds the positions.
        Slots that exist are replaced, with a warning.
    copy
        Return a changed copy instead of changing ``adata``.

    Returns
    -------
    None, or the copy. Written are (``_<slug>`` is left out if there is one target)
    ``obsm['X_umap_hycnn_ot_<slug>']``, positions of the predicted cells in the rows of their source cells, float32,
    shape (n_obs, columns), else NaN; and ``uns['umap_hycnn_ot_<slug>']`` with ``basis``, ``n_neighbors``, and a
    ``fingerprint``, by which :mod:`scot_hycnn.pl` leaves out positions that are older than fit or embedding.

    Raises
    ------
    ValueError
        If there is no such fit, target or embedding, measured cells have no position, ``n_neighbors`` is not an integer
        of 1 or more, or the keys hold something else. Then nothing is changed.

    References
    ----------
    Shepard (1968), A two-dimensional interpolation function for irregularly-spaced data, Proc. 23rd ACM National
    Conference, 517-524.

    Examples
    --------
    >>> import scot_hycnn as sh
    >>> adata = sh.datasets.pbmc_planted(n_cells=400)
    >>> sh.tl.hycnn_ot(adata, "control", "IFN-beta", n_pcs=5, potential="gaussian")
    >>> adata.obsm["X_umap"] = adata.obsm["X_pca"][:, :2]  # in place of sc.pp.neighbors(adata); sc.tl.umap(adata)
    >>> sh.tl.project(adata)
    >>> adata.obsm["X_umap_hycnn_ot"].shape
    (400, 2)
    """
    check_counts(n_neighbors=n_neighbors)
    adata = claim(adata, copy=copy)
    fit = read_fit(adata, key)
    embedding = find_embedding(adata, basis)
    names = {slug: projection_name(fit, slug, embedding, key_added) for slug in fit.slugs(target)}
    for name in names.values():
        check_projection(adata, name)

    # Positions of all targets are computed before the first is written.
    start = logg.info(f"placing predicted cells in {embedding.name!r}")
    slots: dict[str, dict[str, Any]] = {"obsm": {}, "uns": {}}
    for slug, name in names.items():
        results = read_results(adata, key, fit.targets[slug])
        positions = place_predicted(adata, results, embedding, n_neighbors)
        slots["obsm"][f"X_{name}"] = placed(positions, results.source_rows, range(adata.n_obs))
        # By the fingerprint, pl recognises positions that are older than the fit or the embedding.
        origin = {"basis": embedding.name, "n_neighbors": int(n_neighbors)}
        slots["uns"][name] = origin | {"fingerprint": projection_fingerprint(adata, results, embedding)}
    added = commit(adata, slots)
    logg.info("    finished", time=start, deep=added)
    return adata if copy else None
