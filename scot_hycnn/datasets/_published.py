"""Published perturbation experiments, which are downloaded once from the scverse example store."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import anndata
import h5py
import scanpy as sc
from anndata import AnnData
from tqdm.auto import tqdm

from scot_hycnn._anndata._files import written_whole

if TYPE_CHECKING:
    from mudata import MuData

_BASE_URL = "https://exampledata.scverse.org/pertpy"
_MIRROR = "SCOT_HYCNN_DATA"
_TIMEOUT = 30  # seconds without a byte

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
    ``sc.settings.datasetdir``. A file of this name in the folder that the environment variable ``SCOT_HYCNN_DATA``
    names takes its place. **The download is not verified by a checksum**, since the store publishes none.

    Returns
    -------
    The cells with all their genes, as the store has them.

    Raises
    ------
    ImportError
        If the extra ``datasets`` is needed and not installed.
    OSError
        If the file cannot be downloaded, or is not a whole HDF5 file.

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
    return anndata.read_h5ad(_fetch(_TABLE["kang_2018"][0]))


def sciplex3() -> AnnData:
    """A549, K562 and MCF7 cells, treated with 188 compounds at four doses, and vehicle controls (sci-Plex 3).

    It is one of the largest screens of single cells, about 650,000 by the paper, and needs much memory.
    """
    return anndata.read_h5ad(_fetch(_TABLE["sciplex3"][0]))


def norman_2019() -> AnnData:
    """K562 cells in which single genes and combinations of two genes are activated (CRISPRa Perturb-seq).

    It is the usual data set for combinations: do the responses to two genes predict the response to both?
    """
    return anndata.read_h5ad(_fetch(_TABLE["norman_2019"][0]))


def adamson_2016() -> AnnData:
    """K562 cells in which genes of the unfolded protein response are repressed (CRISPRi Perturb-seq).

    91 guide RNAs repress 82 genes in about 65,000 cells, many of them with similar responses.
    """
    return anndata.read_h5ad(_fetch(_TABLE["adamson_2016"][0]))


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
    path = _fetch(_TABLE["papalexi_2021"][0])
    # All annotation of the cells is wanted, and mudata warns where this is not stated, because its default will change.
    with mudata.set_options(pull_on_update=True):
        return mudata.read_h5mu(path)


def _fetch(name: str) -> Path:
    """Return the path of a file: in the mirror, else in ``sc.settings.datasetdir``, to where it is downloaded."""
    mirrored = Path(os.environ.get(_MIRROR, "")).absolute() / name
    path = Path(sc.settings.datasetdir).absolute() / name
    if _MIRROR in os.environ and mirrored.is_file():
        return mirrored
    if path.exists():
        return path
    try:
        import requests  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ImportError(
            f"Downloading {name} needs requests, which is not installed. Run: pip install 'scot-hycnn[datasets]'"
        ) from error
    url = f"{_BASE_URL}/{name}"
    path.parent.mkdir(parents=True, exist_ok=True)
    # The path holds the whole file or nothing.
    with written_whole(path, overwrite=True) as part:
        try:
            with requests.get(url, headers={"Accept-Encoding": "identity"}, stream=True, timeout=_TIMEOUT) as response:
                response.raise_for_status()
                size = response.headers.get("Content-Length")
                # None shows the bar in a terminal only.
                hidden, total = "CI" in os.environ or None, None if size is None else int(size)
                with part.open("wb") as file, tqdm(total=total, unit="B", unit_scale=True, disable=hidden) as bar:
                    for chunk in response.iter_content(2**20):
                        bar.update(file.write(chunk))
        except requests.exceptions.RequestException as error:
            raise ConnectionError(
                f"Cannot download {url}: {error}. Without internet, put it at {path}, or into the folder that "
                f"{_MIRROR} names, as {name}."
            ) from error
        try:
            h5py.File(part, "r").close()
        except OSError as error:
            with part.open("rb") as file:
                start = file.read(40)
            raise OSError(f"{url} is not a whole HDF5 file ({error}); it begins with {start!r}.") from error
    return path


for _function in (adamson_2016, kang_2018, norman_2019, papalexi_2021, sciplex3):
    _name = _function.__name__
    _file, _paper, _accession = _TABLE[_name]
    _end = _DOCSTRING.format(name=_name, file=_file, paper=_paper, accession=_accession)
    _function.__doc__ = f"{_function.__doc__}{_end}"
