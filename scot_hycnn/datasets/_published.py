"""Published perturbation experiments, from the folder ``pertpy`` of the scverse example store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anndata
from anndata import AnnData

from ._download import fetch

if TYPE_CHECKING:
    from mudata import MuData

# Name of the function to the file in the store, the paper and the GEO accession. The store publishes no checksums,
# sizes or licences of its files.
_TABLE = {
    "adamson_2016": ("adamson_2016_upr_perturb_seq.h5ad", "Adamson et al. (2016), Cell 167, 1867-1882", "GSE90546"),
    "kang_2018": ("kang_2018.h5ad", "Kang et al. (2018), Nature Biotechnology 36, 89-94", "GSE96583"),
    "norman_2019": ("norman_2019.h5ad", "Norman et al. (2019), Science 365, 786-793", "GSE133344"),
    "papalexi_2021": ("papalexi_2021.h5mu", "Papalexi et al. (2021), Nature Genetics 53, 322-331", "GSE153056"),
    "sciplex3": ("srivatsan_2020_sciplex3.h5ad", "Srivatsan et al. (2020), Science 367, 45-51", "GSE139944"),
}

# The end of the docstring of every function; the beginning says what the cells are.
_DOCSTRING = """
    ``{file}`` is downloaded once, from the folder ``pertpy`` of the scverse example store to
    ``sc.settings.datasetdir``; the next call resumes a download that was cut off. A file of this name in the folder
    that the environment variable ``SCOT_HYCNN_DATA`` names takes its place. **The download is not verified by a
    checksum**, since the store publishes none, but every later use compares the SHA-256 of the first one.

    Returns
    -------
    The cells with all their genes, as the store has them.

    Raises
    ------
    ImportError
        If the extra ``datasets`` is needed and not installed.
    OSError
        If the file cannot be downloaded, is not a whole HDF5 file, or has changed since its first use.

    References
    ----------
    {paper}; GEO accession {accession}.

    Examples
    --------
    >>> from scot_hycnn.datasets import {name}
    >>> data = {name}()  # doctest: +SKIP
    """


def kang_2018() -> AnnData:
    """PBMCs of eight lupus patients, control and stimulated with interferon-beta for six hours.

    It is the usual first data set for responses: they are strong, and different in each cell type.
    """
    return anndata.read_h5ad(fetch(_TABLE["kang_2018"][0]))


def sciplex3() -> AnnData:
    """A549, K562 and MCF7 cells, treated with 188 compounds at four doses, and vehicle controls (sci-Plex 3).

    It is one of the largest screens of single cells, about 650,000 by the paper, and needs much memory.
    """
    return anndata.read_h5ad(fetch(_TABLE["sciplex3"][0]))


def norman_2019() -> AnnData:
    """K562 cells in which single genes and combinations of two genes are activated (CRISPRa Perturb-seq).

    It is the usual data set for combinations: do the responses to two genes predict the response to both?
    """
    return anndata.read_h5ad(fetch(_TABLE["norman_2019"][0]))


def adamson_2016() -> AnnData:
    """K562 cells in which genes of the unfolded protein response are repressed (CRISPRi Perturb-seq).

    91 guide RNAs repress 82 genes in about 65,000 cells, many of them with similar responses.
    """
    return anndata.read_h5ad(fetch(_TABLE["adamson_2016"][0]))


def papalexi_2021() -> MuData:
    """Stimulated THP-1 cells in which regulators of PD-L1 are knocked out, with RNA and four proteins (ECCITE-seq).

    Take one modality of the MuData, for instance ``mdata["rna"]``, to fit maps between its cells. mudata is needed.
    """
    try:
        import mudata  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ImportError(
            "papalexi_2021 needs mudata, which is not installed. Run: pip install 'scot-hycnn[datasets]'"
        ) from error
    path = fetch(_TABLE["papalexi_2021"][0])
    # All annotation of the cells is wanted, and mudata warns where this is not stated, because its default will change.
    with mudata.set_options(pull_on_update=True):
        return mudata.read_h5mu(path)


for _function in (adamson_2016, kang_2018, norman_2019, papalexi_2021, sciplex3):
    _name = _function.__name__
    _file, _paper, _accession = _TABLE[_name]
    _end = _DOCSTRING.format(name=_name, file=_file, paper=_paper, accession=_accession)
    _function.__doc__ = f"{_function.__doc__}{_end}"
