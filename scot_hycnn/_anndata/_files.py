"""AnnData files: .h5ad and .zarr by their suffix, and a path that is replaced as a whole or not at all."""

from __future__ import annotations

import errno
import glob
import math
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import anndata
import h5py
from anndata import AnnData

from scot_hycnn._warn import warn

SUFFIXES = (".h5ad", ".zarr")

# One of these files lies in every zarr store, in format 2 and 3.
_STORE_FILES = (".zgroup", ".zarray", "zarr.json")
# Name of the old store, from when it is moved away until the new one has its path.
_REPLACED = "replaced"


def import_zarr() -> Any:
    """Import zarr on use, since it is an extra; an ImportError says how to install it."""
    try:
        import zarr  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ImportError(".zarr stores need zarr, which is not installed: pip install 'scot-hycnn[lazy]'") from error
    return zarr


# ---- reading


def read_file(path: Path) -> AnnData:
    """Read a file into memory."""
    with _reading(path):
        if path.suffix == ".zarr":
            return anndata.read_zarr(path)
        with h5py.File(path, "r") as file:
            _check_hdf5(file, file)
        return anndata.read_h5ad(path)


def read_uns(path: Path) -> AnnData:
    """Read uns alone, which holds the fits, as an AnnData; this is quick for a file of any size."""
    # A fit is read from a file of a million cells in milliseconds, since X and obs are not read.
    with _reading(path):
        if path.suffix == ".h5ad":
            with h5py.File(path, "r") as file:
                _check_hdf5(file, ["uns"])
                uns: Any = anndata.io.read_elem(file["uns"])
        else:
            uns = anndata.io.read_elem(import_zarr().open_group(path, mode="r")["uns"])
        return AnnData(uns=uns)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn any error of a reader into one ValueError."""
    _check_suffix(path)
    if not path.exists():
        kept = [str(old) for old in path.absolute().parent.glob(f"{glob.escape(f'.{path.name}.')}*/{_REPLACED}")]
        advice = f" A replacement was cut off: the former content is {kept}." if kept else ""
        raise FileNotFoundError(f"There is no file {str(path)!r}.{advice}")
    try:
        yield
    except Exception as error:  # a damaged file can make its reader raise anything
        raise ValueError(f"{str(path)!r} cannot be read as AnnData: {type(error).__name__}: {error}") from error


def _check_hdf5(file: h5py.File, names: Iterable[str]) -> None:
    """Raise a ValueError if what lies under these names is not a tree of arrays that the file holds in full.

    A file of a few kB can have arrays of terabytes, groups that contain themselves, and links to other files of whoever
    opens it. anndata writes none of these, and no value is read before this check.
    """
    seen: set[int] = set()
    waiting = [(file, name) for name in names]
    while waiting:
        group, name = waiting.pop()
        path = f"{group.name.rstrip('/')}/{name}"
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise ValueError(f"{path!r} is a link to another place or file; anndata writes none")  # noqa: TRY004
        item = group[name]
        address = h5py.h5o.get_info(item.id).addr
        if address in seen:
            raise ValueError(f"{path!r} is in the file at another place too; anndata writes everything once")
        seen.add(address)
        if isinstance(item, h5py.Group):
            waiting.extend((item, inner) for inner in item)
        elif isinstance(item, h5py.Dataset):
            if item.is_virtual or item.external:
                raise ValueError(f"{path!r} lies in another file; anndata writes everything into one")
            if item.chunks is None:
                # The size comes from HDF5, since NumPy does not have all of its types.
                n_bytes = item.id.get_space().get_simple_extent_npoints() * item.id.get_type().get_size()
                is_whole = item.id.get_storage_size() >= n_bytes
            else:
                n_chunks = math.prod(-(-length // part) for length, part in zip(item.shape, item.chunks, strict=True))
                is_whole = item.id.get_num_chunks() >= n_chunks
            if not is_whole:
                raise ValueError(f"{path!r} has the shape {item.shape}, and not all of it is in the file")


# ---- writing


def check_writable(path: Path, *, overwrite: bool, suffixes: Sequence[str] = SUFFIXES) -> None:
    """Raise an error, before the work whose result it takes, if the path cannot be written or may not be replaced."""
    _check_suffix(path, suffixes)
    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(f"The folder of {str(path)!r} does not exist; create it first.")
    if path.exists() and not overwrite:
        raise ValueError(f"{str(path)!r} exists; choose another name, or replace it (--overwrite).")
    if path.is_dir():
        may_be_a_store = any((path / name).exists() for name in _STORE_FILES) or not any(path.iterdir())
        if path.suffix != ".zarr" or not may_be_a_store:
            raise ValueError(
                f"{str(path)!r} is a folder{' that holds no zarr store' if path.suffix == '.zarr' else ''}, which is "
                "not replaced; choose another name, or delete the folder."
            )


def write_file(adata: AnnData, path: Path, *, overwrite: bool) -> None:
    """Write a file; the path never holds half of one."""
    check_writable(path, overwrite=overwrite)
    with written_whole(path, overwrite=overwrite) as part:
        if path.suffix == ".h5ad":
            _check_space(part, adata)
            adata.write_h5ad(part)
            return
        # AnnData.write_zarr warns of its default format, 2, which it will change. Here the format is explicit.
        zarr = import_zarr()
        group = zarr.open_group(part, mode="w", zarr_format=getattr(anndata.settings, "zarr_write_format", 2))
        for frame in [adata.obs, adata.var, *([] if adata.raw is None else [adata.raw.var])]:
            adata.strings_to_categoricals(frame)
        anndata.io.write_elem(group, "/", adata)
        zarr.consolidate_metadata(group.store)


def _check_space(part: Path, adata: AnnData) -> None:
    """Raise an OSError if the disk has no room for the matrices: h5py 3.16 ends the process if a file cannot grow."""
    matrices = [adata.X, *adata.layers.values(), *adata.obsm.values(), *adata.varm.values(), *adata.obsp.values()]
    matrices += [] if adata.raw is None else [adata.raw.X]
    arrays = [getattr(matrix, name, None) for matrix in matrices for name in ("data", "indices", "indptr")]
    # A dense array counts once, although its buffer is called data too.
    sizes = [getattr(array, "nbytes", 0) for array in arrays]
    if not hasattr(os, "posix_fallocate") or not sum(sizes):
        return
    with part.open("wb") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, sum(sizes))
        except OSError as error:
            # Other errors say that this file system cannot reserve space.
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise OSError(
                    error.errno, f"{os.strerror(error.errno)}: {sum(sizes):,} bytes are needed", str(part.parent)
                ) from error


@contextmanager
def written_whole(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """Yield a path beside this one to write a file or a folder to; it is renamed when all is written.

    If anything fails, what was written is removed, and the path holds what it held before; if even that fails, a note
    of the error names the folder with both.
    """
    # A folder beside the path is on the same file system, where a rename is atomic.
    folder = Path(tempfile.mkdtemp(dir=path.absolute().parent, prefix=f".{path.name}."))
    part, replaced = folder / path.name, folder / _REPLACED
    try:
        yield part
        # All has to be on the disk first: after a power cut the path must not hold an empty file.
        for file in sorted(part.rglob("*")) if part.is_dir() else [part]:
            if file.is_file():
                with file.open("r+b") as written:
                    os.fsync(written.fileno())
        if path.exists() and not overwrite:
            raise FileExistsError(f"{str(path)!r} has appeared while its content was made; it is not replaced.")  # noqa: TRY301
        try:
            if part.is_dir() and _exists(path):
                # A folder cannot be renamed onto another, so the old one moves away first.
                path.rename(replaced)
                part.rename(path)
            else:
                part.replace(path)
        except OSError as error:
            raise OSError(error.errno, f"could not be written ({error.strerror})", str(path)) from error
    except BaseException as error:
        # The old store gets its path back. If that fails too, it stays in the folder, and nothing is removed.
        if _exists(replaced) and not _exists(path):
            with suppress(OSError):
                replaced.rename(path)
        if _exists(path) or not _exists(replaced):
            shutil.rmtree(folder, ignore_errors=True)
        if folder.exists():
            error.add_note(f"{str(folder)!r} is left behind.")
        raise
    try:
        shutil.rmtree(folder)
    except OSError as error:
        warn(f"What was replaced could not be removed ({error}); delete {str(folder)!r}.")


def _exists(path: Path) -> bool:
    """Return whether there is anything of this name; a link to nothing counts."""
    return path.exists() or path.is_symlink()


def _check_suffix(path: Path, suffixes: Sequence[str] = SUFFIXES) -> None:
    if path.suffix not in suffixes:
        *others, last = suffixes
        ends = f"{', '.join(others)} or {last}" if others else last
        raise ValueError(f"{str(path)!r} must end in {ends}, which says its format.")
