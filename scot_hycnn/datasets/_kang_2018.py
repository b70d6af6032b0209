"""PBMCs of lupus patients, with and without interferon-beta."""

from __future__ import annotations

import anndata
from anndata import AnnData

from ._download import fetch


def kang_2018() -> AnnData:
    """PBMCs of eight lupus patients, control and stimulated with interferon-beta for six hours.

    The usual first data set for perturbation responses: strong, and different in each cell type.

    ``kang_2018.h5ad`` is downloaded once, from the folder ``pertpy`` of the scverse example store to
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
    Kang et al. (2018), Multiplexed droplet single-cell RNA-sequencing using natural genetic variation, Nature
    Biotechnology 36, 89-94.

    Examples
    --------
    >>> from scot_hycnn.datasets import kang_2018
    >>> adata = kang_2018()  # doctest: +SKIP
    """
    return anndata.read_h5ad(fetch("kang_2018.h5ad"))
