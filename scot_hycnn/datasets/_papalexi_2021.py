"""Regulators of PD-L1, knocked out one at a time: RNA and proteins."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from ._download import fetch

if TYPE_CHECKING:
    from mudata import MuData


def papalexi_2021() -> MuData:
    """Stimulated THP-1 cells in which regulators of PD-L1 are knocked out, with RNA and four proteins (ECCITE-seq).

    Several modalities of the same cells: take one, for instance ``mdata["rna"]``, to fit maps between its cells.

    ``papalexi_2021.h5mu`` is downloaded once, from the folder ``pertpy`` of the scverse example store to
    ``sc.settings.datasetdir``; a download that was cut off goes on where it ended. A file of this name in the folder
    that the environment variable ``SCOT_HYCNN_DATA`` names is taken instead. **The address is not verified by a
    checksum**, since none is published that we know of: the SHA-256 of the first download is kept beside the file, and
    every later use compares it. pertpy's documentation describes the file. Needs the extra ``datasets``.

    Returns
    -------
    All modalities in one MuData, RNA under ``rna``.

    Raises
    ------
    ImportError
        If mudata, or for a download pooch, is not installed.
    OSError
        If the file cannot be downloaded, is no whole HDF5 file, or has changed since its first use.

    References
    ----------
    Papalexi et al. (2021), Characterizing the molecular regulation of inhibitory immune checkpoints with multimodal
    single-cell screens, Nature Genetics 53, 322-331.

    Examples
    --------
    >>> from scot_hycnn.datasets import papalexi_2021
    >>> mdata = papalexi_2021()  # doctest: +SKIP
    """
    try:
        import mudata  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ImportError(
            "papalexi_2021 needs mudata, which is not installed. Run: pip install 'scot-hycnn[datasets]'"
        ) from error
    path = fetch("papalexi_2021.h5mu")
    with warnings.catch_warnings():
        # How mudata's next version will join annotations: nothing that the reader of one file can act on.
        warnings.filterwarnings("ignore", r"From 0\.4", FutureWarning)
        return mudata.read_h5mu(path)
