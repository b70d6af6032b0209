"""Three cancer cell lines and 188 compounds."""

from __future__ import annotations

import anndata
from anndata import AnnData

from ._download import fetch


def sciplex3() -> AnnData:
    """A549, K562 and MCF7 cells, treated with 188 compounds at four doses, and vehicle controls (sci-Plex 3).

    One of the largest screens of single cells. It needs much memory: take a subset early.

    ``srivatsan_2020_sciplex3.h5ad`` is downloaded once, from the folder ``pertpy`` of the scverse example store to
    ``sc.settings.datasetdir``; a download that was cut off goes on where it ended. A file of this name in the folder
    that the environment variable ``SCOT_HYCNN_DATA`` names is taken instead. **The address is not verified by a
    checksum**, since none is published that we know of: the SHA-256 of the first download is kept beside the file, and
    every later use compares it. pertpy's documentation describes the file. Needs the extra ``datasets``.

    Returns
    -------
    About 650,000 cells x genes, by the paper's count.

    Raises
    ------
    ImportError
        If a download is needed and pooch is not installed.
    OSError
        If the file cannot be downloaded, is no whole HDF5 file, or has changed since its first use.

    References
    ----------
    Srivatsan et al. (2020), Massively multiplex chemical transcriptomics at single-cell resolution, Science 367,
    45-51.

    Examples
    --------
    >>> from scot_hycnn.datasets import sciplex3
    >>> adata = sciplex3()  # doctest: +SKIP
    """
    return anndata.read_h5ad(fetch("srivatsan_2020_sciplex3.h5ad"))
