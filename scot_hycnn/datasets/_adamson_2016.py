"""Genes of the unfolded protein response, repressed one at a time."""

from __future__ import annotations

import anndata
from anndata import AnnData

from ._download import fetch


def adamson_2016() -> AnnData:
    """K562 cells in which genes of the unfolded protein response are repressed (CRISPRi Perturb-seq).

    91 guide RNAs against 82 genes, many of them with responses that resemble each other.

    ``adamson_2016_upr_perturb_seq.h5ad`` is downloaded once, from the folder ``pertpy`` of the scverse example store to
    ``sc.settings.datasetdir``; a download that was cut off goes on where it ended. A file of this name in the folder
    that the environment variable ``SCOT_HYCNN_DATA`` names is taken instead. **The address is not verified by a
    checksum**, since none is published that we know of: the SHA-256 of the first download is kept beside the file, and
    every later use compares it. pertpy's documentation describes the file. Needs the extra ``datasets``.

    Returns
    -------
    About 65,000 cells x genes.

    Raises
    ------
    ImportError
        If a download is needed and pooch is not installed.
    OSError
        If the file cannot be downloaded, is no whole HDF5 file, or has changed since its first use.

    References
    ----------
    Adamson et al. (2016), A multiplexed single-cell CRISPR screening platform enables systematic dissection of the
    unfolded protein response, Cell 167, 1867-1882.

    Examples
    --------
    >>> from scot_hycnn.datasets import adamson_2016
    >>> adata = adamson_2016()  # doctest: +SKIP
    """
    return anndata.read_h5ad(fetch("adamson_2016_upr_perturb_seq.h5ad"))
