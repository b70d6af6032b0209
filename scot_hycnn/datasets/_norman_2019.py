"""Activated genes, one and two at a time."""

from __future__ import annotations

import anndata
from anndata import AnnData

from ._download import fetch


def norman_2019() -> AnnData:
    """K562 cells in which single genes and pairs of genes are activated (CRISPRa Perturb-seq).

    The usual data set for combinations: is the response to a pair predicted by those to its genes?

    ``norman_2019.h5ad`` is downloaded once, from the folder ``pertpy`` of the scverse example store to
    ``sc.settings.datasetdir``; a download that was cut off goes on where it ended. A file of this name in the folder
    that the environment variable ``SCOT_HYCNN_DATA`` names is taken instead. **The address is not verified by a
    checksum**, since none is published that we know of: the SHA-256 of the first download is kept beside the file, and
    every later use compares it. pertpy's documentation describes the file. Needs the extra ``datasets``.

    Returns
    -------
    Cells x genes.

    Raises
    ------
    ImportError
        If a download is needed and pooch is not installed.
    OSError
        If the file cannot be downloaded, is no whole HDF5 file, or has changed since its first use.

    References
    ----------
    Norman et al. (2019), Exploring genetic interaction manifolds constructed from rich single-cell phenotypes, Science
    365, 786-793.

    Examples
    --------
    >>> from scot_hycnn.datasets import norman_2019
    >>> adata = norman_2019()  # doctest: +SKIP
    """
    return anndata.read_h5ad(fetch("norman_2019.h5ad"))
