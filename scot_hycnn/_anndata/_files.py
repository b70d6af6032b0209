"""AnnData files: .h5ad and .zarr by their suffix, written whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anndata
import h5py
from anndata import AnnData

from ._hdf5 import check_tree

SUFFIXES = (".h5ad", ".zarr")


def read_file(path: Path) -> AnnData:
    """Read a file into memory.

    Raises
    ------
    FileNotFoundError
        If there is none.
    ValueError
        If its suffix is unknown or it cannot be read.
    """
    with _reading(path):
        if path.suffix == ".zarr":
            return anndata.read_zarr(path)
        with h5py.File(path, "r") as file:
            check_tree(file, file)
        return anndata.read_h5ad(path)


def read_uns(path: Path) -> AnnData:
    """Read nothing but uns, which holds the fits: quick for a file of any size.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If its suffix is unknown or it cannot be read.
    """
    with _reading(path):
        if path.suffix == ".h5ad":
            with h5py.File(path, "r") as file:
                check_tree(file, ["uns"])
                uns: Any = anndata.io.read_elem(file["uns"])
        else:
            uns = anndata.io.read_elem(import_zarr().open_group(path, mode="r")["uns"])
        return AnnData(uns=uns)


def check_writable(path: Path, *, overwrite: bool, suffixes: Sequence[str] = SUFFIXES) -> None:
    """Check a path before the work whose result it is to take.

    Parameters
    ----------
    path
        Where to write.
    overwrite
        Whether something that is there may be replaced.
    suffixes
        What its name may end in.

    Raises
    ------
    FileNotFoundError
        If its folder does not exist.
    ValueError
        If its suffix is unknown, or something is there already and ``overwrite`` is not set.
    """
    _check_suffix(path, suffixes)
    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(f"The folder of {str(path)!r} does not exist; create it first.")
    if path.exists() and not overwrite:
        raise ValueError(f"{str(path)!r} exists; choose another name, or pass --overwrite to replace it.")


def write_file(adata: AnnData, path: Path, *, overwrite: bool) -> None:
    """Write beside the target, then rename: the path never holds half a file.

    Raises
    ------
    FileNotFoundError, ValueError
        As :func:`check_writable`.
    """
    check_writable(path, overwrite=overwrite)
    with written_whole(path) as part:
        if path.suffix == ".h5ad":
            adata.write_h5ad(part)
        else:
            with warnings.catch_warnings():
                # anndata announces a change of its default format; both formats read back the same.
                warnings.filterwarnings("ignore", message="Writing zarr v2")
                adata.write_zarr(part)
        if path.is_dir():  # a zarr store; a folder cannot be renamed onto another
            shutil.move(path, part.parent / "replaced")


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a path beside this one to write to; it is renamed when all is written, and removed if that fails."""
    with tempfile.TemporaryDirectory(dir=path.absolute().parent, prefix=f".{path.name}.") as folder:
        part = Path(folder) / path.name
        yield part
        part.replace(path)


def import_zarr() -> Any:
    """Import zarr where it is needed.

    Raises
    ------
    ImportError
        If it is not installed.
    """
    try:
        import zarr  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ImportError(".zarr stores need zarr, which is not installed: pip install 'scot-hycnn[lazy]'") from error
    return zarr


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    _check_suffix(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no file {str(path)!r}.")
    try:
        yield
    except Exception as error:  # a damaged file can make its reader raise anything
        raise ValueError(f"{str(path)!r} cannot be read as AnnData: {type(error).__name__}: {error}") from error


def _check_suffix(path: Path, suffixes: Sequence[str] = SUFFIXES) -> None:
    if path.suffix not in suffixes:
        *others, last = suffixes
        ends = f"{', '.join(others)} or {last}" if others else last
        raise ValueError(f"{str(path)!r} must end in {ends}, which says its format.")
