"""AnnData files: .h5ad and .zarr by their suffix, written whole or not at all."""

from __future__ import annotations

import glob
import os
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

# One of these lies in every zarr store, in format 2 and 3.
_SIGNS_OF_A_STORE = (".zgroup", ".zarray", "zarr.json")
# Where what is replaced lies until the new one has its name.
_REPLACED = "replaced"


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
        If its suffix is unknown, something is there already and ``overwrite`` is not set, or a folder is there that is
        no zarr store.
    """
    _check_suffix(path, suffixes)
    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(f"The folder of {str(path)!r} does not exist; create it first.")
    if path.exists() and not overwrite:
        raise ValueError(f"{str(path)!r} exists; choose another name, or pass --overwrite to replace it.")
    if path.is_dir() and not (path.suffix == ".zarr" and _may_be_a_store(path)):
        raise ValueError(
            f"{str(path)!r} is a folder{' that holds no zarr store' if path.suffix == '.zarr' else ''}, which is not "
            "replaced; choose another name, or delete the folder."
        )


def write_file(adata: AnnData, path: Path, *, overwrite: bool) -> None:
    """Write beside the target, then rename: the path never holds half a file.

    Raises
    ------
    FileNotFoundError, ValueError
        As :func:`check_writable`.
    OSError
        As :func:`written_whole`.
    """
    check_writable(path, overwrite=overwrite)
    with written_whole(path, overwrite=overwrite) as part:
        if path.suffix == ".h5ad":
            adata.write_h5ad(part)
        else:
            with warnings.catch_warnings():
                # anndata announces a change of its default format; both formats read back the same.
                warnings.filterwarnings("ignore", message="Writing zarr v2")
                adata.write_zarr(part)


@contextmanager
def written_whole(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """Give a path beside this one to write a file or a folder to; it is renamed when all is written.

    If anything fails, what was written is removed, and what was at the path before is there again.

    Raises
    ------
    FileExistsError
        If something has appeared at the path meanwhile and ``overwrite`` is not set.
    OSError
        If it cannot be renamed. The message says where the old one is.

    Warns
    -----
    UserWarning
        If what was replaced cannot be removed.
    """
    folder = Path(tempfile.mkdtemp(dir=path.absolute().parent, prefix=f".{path.name}."))
    part = folder / path.name
    try:
        yield part
        _flush(part)
        _check_absent(path, overwrite=overwrite)
        _put(part, path)
    except BaseException as error:
        # An old store that could not get its name back lies there: then nothing is removed.
        if _is_there(path) or not _is_there(folder / _REPLACED):
            shutil.rmtree(folder, ignore_errors=True)
        if folder.exists():
            error.add_note(f"{str(folder)!r} is left behind.")
        raise
    _remove(folder)


def _check_absent(path: Path, *, overwrite: bool) -> None:
    if path.exists() and not overwrite:
        raise FileExistsError(f"{str(path)!r} has appeared while its content was made; it is not replaced.")


def _put(part: Path, path: Path) -> None:
    """Give what is written its name; the old one goes only when the new one has it."""
    replaced = part.with_name(_REPLACED)
    try:
        if part.is_dir() and _is_there(path):
            # No folder can be renamed onto another: the old one stays beside until the new one is in its place.
            path.rename(replaced)
            part.rename(path)
        else:
            part.replace(path)
    except BaseException as error:
        try:
            if _is_there(replaced) and not _is_there(path):
                replaced.rename(path)
        except OSError as second:
            raise OSError(
                second.errno,
                f"could not be replaced ({error}), nor could the old one get its name back ({second}); the old one is "
                f"{str(replaced)!r}, the new one {str(part)!r}",
                str(path),
            ) from error
        if isinstance(error, OSError):
            raise OSError(
                error.errno, f"could not be written ({error.strerror}); what was there before is kept", str(path)
            ) from error
        raise


def _flush(part: Path) -> None:
    """Wait until all is on the disk: after a power cut the name must not stand for an empty file."""
    for file in sorted(part.rglob("*")) if part.is_dir() else [part]:
        if file.is_file():
            with file.open("r+b") as written:
                os.fsync(written.fileno())


def _remove(folder: Path) -> None:
    try:
        shutil.rmtree(folder)
    except OSError as error:
        warnings.warn(
            f"What was replaced could not be removed ({error}); delete {str(folder)!r}.", UserWarning, stacklevel=4
        )


def _is_there(path: Path) -> bool:
    """Whether there is anything of this name, be it a link to nothing."""
    return path.exists() or path.is_symlink()


def _may_be_a_store(folder: Path) -> bool:
    return any((folder / name).exists() for name in _SIGNS_OF_A_STORE) or not any(folder.iterdir())


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
        kept = [str(old) for old in path.absolute().parent.glob(f"{glob.escape(f'.{path.name}.')}*/{_REPLACED}")]
        advice = f" A replacement was cut off: what was there before is {kept}." if kept else ""
        raise FileNotFoundError(f"There is no file {str(path)!r}.{advice}")
    try:
        yield
    except Exception as error:  # a damaged file can make its reader raise anything
        raise ValueError(f"{str(path)!r} cannot be read as AnnData: {type(error).__name__}: {error}") from error


def _check_suffix(path: Path, suffixes: Sequence[str] = SUFFIXES) -> None:
    if path.suffix not in suffixes:
        *others, last = suffixes
        ends = f"{', '.join(others)} or {last}" if others else last
        raise ValueError(f"{str(path)!r} must end in {ends}, which says its format.")
