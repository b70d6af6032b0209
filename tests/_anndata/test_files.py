"""Files are read only if they hold what they say, and a path is replaced as a whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import tracemalloc
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path

import anndata
import h5py
import numpy as np
import pytest
from anndata import AnnData

import scot_hycnn as sh
from scot_hycnn._anndata import _files

SUFFIXES = [".h5ad", ".zarr"]
OLD, NEW = (np.full((4, 2), value, dtype=np.float32) for value in (1, 2))
# Calls of the file system in a replacement.
CALLS = ("rename", "replace", "fsync", "unlink", "rmdir", "mkdir")


def write(path, values, *, overwrite=False):
    _files.write_file(AnnData(values), path, overwrite=overwrite)


def read(path):
    return _files.read_file(path).X


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# ---- writing


def test_a_limit_of_the_file_size_is_an_error_and_leaves_nothing(tmp_path):
    """Without the check, h5py ends the whole process when a file cannot grow."""
    resource = pytest.importorskip("resource")
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    write(tmp_path / "cells.h5ad", OLD)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, old[1]))
    try:
        with pytest.raises(OSError, match="1,200,000 bytes"):
            write(tmp_path / "cells.h5ad", np.zeros((1000, 300), np.float32), overwrite=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert names(tmp_path) == ["cells.h5ad"]
    np.testing.assert_array_equal(read(tmp_path / "cells.h5ad"), OLD)


@contextmanager
def faults(monkeypatch, n, error):
    """Raise the error in the n-th call of the file system; yield the names of the calls."""
    calls = []

    def wrapped(original, name):
        def call(*args, **kwargs):
            calls.append(name)
            if len(calls) == n + 1:
                raise error
            return original(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        for name in CALLS:
            patch.setattr(os, name, wrapped(getattr(os, name), name))
        yield calls


def put(path, text):
    """Write a small file, or a small folder that looks like a store."""
    if path.suffix == ".zarr":
        (path / "X").mkdir(parents=True, exist_ok=True)
        (path / ".zgroup").write_text("{}")
        path = path / "X" / "0.0"
    path.write_text(text)


def text_of(path):
    return (path / "X" / "0.0" if path.suffix == ".zarr" else path).read_text()


@pytest.mark.filterwarnings("ignore:What was replaced could not be removed")
@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_failure_of_any_call_leaves_the_old_or_the_new_content(tmp_path, monkeypatch, suffix, error):
    path, seen = tmp_path / f"cells{suffix}", set()
    for n in count():
        put(path, "old")
        raised = False
        with faults(monkeypatch, n, error) as calls:
            try:
                with _files.written_whole(path, overwrite=True) as part:
                    shutil.copytree(path, part) if path.is_dir() else None
                    put(part, "new")
            except (OSError, KeyboardInterrupt):
                raised = True
        assert text_of(path) == "new" or (raised and text_of(path) == "old"), calls
        if len(calls) <= n:
            assert not raised
            break
        seen.add(calls[n])
        # Other files stay only if the call that removes them has failed.
        if calls[n] not in ("unlink", "rmdir"):
            assert names(tmp_path) == [path.name], calls
        for left in tmp_path.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
    assert {"mkdir", "fsync", "rmdir"} < seen
    assert seen & {"rename", "replace"}


def test_a_store_that_cannot_get_its_path_back_is_kept_and_named(tmp_path, monkeypatch):
    """The file system renames the old store, and then nothing more."""
    path = tmp_path / "cells.zarr"
    write(path, OLD)
    renames = []
    original = os.rename

    def rename(*args, **kwargs):
        renames.append(args)
        if len(renames) > 1:
            raise OSError(errno.EIO, "Input/output error")
        return original(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", rename)
        with pytest.raises(OSError, match=r"cells\.zarr") as raised:
            write(path, NEW, overwrite=True)
    folder = Path(raised.value.__notes__[0].split("'")[1])
    np.testing.assert_array_equal(read((folder / "replaced").rename(tmp_path / "old.zarr")), OLD)
    np.testing.assert_array_equal(read((folder / "cells.zarr").rename(tmp_path / "new.zarr")), NEW)


def test_the_reader_names_what_a_killed_replacement_has_left(tmp_path):
    (tmp_path / ".cells.zarr.abcd" / "replaced").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"\.cells\.zarr\.abcd.replaced"):
        read(tmp_path / "cells.zarr")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_link_is_replaced_and_its_target_stays(tmp_path, suffix):
    elsewhere, path = tmp_path / f"elsewhere{suffix}", tmp_path / f"cells{suffix}"
    write(elsewhere, OLD)
    path.symlink_to(elsewhere, target_is_directory=suffix == ".zarr")
    write(path, NEW, overwrite=True)
    np.testing.assert_array_equal(read(elsewhere), OLD)
    np.testing.assert_array_equal(read(path), NEW)
    assert names(tmp_path) == [path.name, elsewhere.name]


@pytest.mark.parametrize("name", ["notes.h5ad", "notes.zarr", "notes.html"])
def test_a_folder_of_something_else_is_not_replaced(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    replace = sh.pl.report if name == "notes.html" else partial(_files.write_file, overwrite=True)
    with pytest.raises(ValueError, match=rf"{name}.*folder"):
        replace(AnnData(OLD), folder)
    assert names(folder) == ["notes.txt"]
    assert names(tmp_path) == [name]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_content_that_appears_while_another_is_made_is_not_replaced(tmp_path, suffix):
    path = tmp_path / f"cells{suffix}"

    def replace():
        with _files.written_whole(path, overwrite=False) as part:
            write(part, NEW)
            write(path, OLD)  # of another process

    with pytest.raises(FileExistsError, match=path.name):
        replace()
    np.testing.assert_array_equal(read(path), OLD)
    assert names(tmp_path) == [path.name]


def test_others_may_read_what_was_written(tmp_path):
    umask = os.umask(0o022)
    try:
        for suffix, mode in ((".h5ad", 0o644), (".zarr", 0o755)):
            path = tmp_path / f"cells{suffix}"
            write(path, NEW)
            assert path.stat().st_mode & 0o777 == mode
    finally:
        os.umask(umask)


@pytest.mark.filterwarnings("ignore:Writing zarr v2")
def test_a_store_is_the_one_that_anndata_writes(tmp_path):
    """Strings, raw and categories too; anndata warns of its default format, and we do not."""
    adata = AnnData(NEW, obs={"kind": ["a", "b", "a", "b"]}, uns={"text": "β", "nested": {"n": 3}})
    adata.obs_names, adata.raw = list("wxyz"), adata.copy()
    adata.copy().write_zarr(tmp_path / "theirs.zarr")
    _files.write_file(adata.copy(), tmp_path / "ours.zarr", overwrite=False)
    files = [
        {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
        for folder in (tmp_path / "ours.zarr", tmp_path / "theirs.zarr")
    ]
    assert files[0] == files[1]
    assert anndata.read_zarr(tmp_path / "ours.zarr").obs["kind"].dtype == "category"


# ---- reading


def large_array(file):
    file.create_dataset("uns/a", (10**9,), "f8")


def large_chunks(file):
    file.create_dataset("uns/a", (2**20, 2**20), "f4", chunks=(1000, 1000), compression="gzip")[:10, :10] = 1


def circle(file):
    file["uns/b"] = file["uns"]


def doubling(file):
    inner = file.create_group("uns/end")
    for depth in range(60):
        outer = file["uns"].create_group(f"depth_{depth}")
        outer["left"] = outer["right"] = inner
        inner = outer


def link(file):
    file["uns/a"] = h5py.SoftLink("/X")


def uns_in_another_file(file):
    del file["uns"]
    file["uns"] = h5py.ExternalLink("other.h5ad", "/uns")


def values_in_another_file(file):
    file.create_dataset("uns/a", (10**6,), "u1", external=[("/dev/zero", 0, 10**6)])


def virtual(file):
    layout = h5py.VirtualLayout((60, 3), "f4")
    layout[:] = h5py.VirtualSource("other.h5ad", "X", (60, 3))
    file.create_virtual_dataset("uns/a", layout)


def uns_that_is_no_dict(file):
    del file["uns"]
    file["uns"] = np.arange(3)


FORGED = [
    large_array, large_chunks, circle, doubling, link, uns_in_another_file, values_in_another_file, virtual,
    uns_that_is_no_dict,
]  # fmt: skip


@pytest.fixture
def path(tmp_path) -> Path:
    adata = AnnData(np.ones((60, 3), np.float32), uns={"a_fit": {"x": np.arange(5), "text": "words"}})
    adata.write_h5ad(tmp_path / "cells.h5ad")
    adata.write_h5ad(tmp_path / "other.h5ad")
    return tmp_path / "cells.h5ad"


@pytest.mark.parametrize("forge", FORGED, ids=lambda forge: forge.__name__)
def test_a_forged_file_is_refused_before_memory_is_used(path, forge):
    with h5py.File(path, "r+") as file:
        forge(file)
    for reader in (_files.read_file, _files.read_uns):
        tracemalloc.start()
        with pytest.raises(ValueError, match=r"cells\.h5ad"):
            reader(path)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 2 * path.stat().st_size + 2**20


@pytest.mark.parametrize("compression", [None, "gzip", "lzf"])
def test_whole_files_are_read(path, compression):
    other = AnnData(np.zeros((60, 3), np.float32), obsm={"X_pca": np.zeros((60, 0))}, uns={"empty": np.zeros((0, 3))})
    other.write_h5ad(path, compression=compression)
    assert _files.read_file(path).shape == (60, 3)
    assert _files.read_uns(path).uns["empty"].shape == (0, 3)
