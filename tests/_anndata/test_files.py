"""Replacing a file or a store leaves the old one or the new one, whatever fails and whenever."""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import anndata
import numpy as np
import pytest
from anndata import AnnData

import scot_hycnn as sh
from scot_hycnn import _anndata

pytestmark = pytest.mark.filterwarnings("ignore:Writing zarr v2")

SUFFIXES = [".h5ad", ".zarr"]
OLD, NEW = (np.full((4, 2), value, dtype=np.float32) for value in (1, 2))
# What a replacement asks of the file system.
ASKED = ("rename", "replace", "fsync", "unlink", "rmdir", "mkdir")


def write(path, values):
    AnnData(values).write_zarr(path) if path.suffix == ".zarr" else AnnData(values).write_h5ad(path)


def read(path):
    return (anndata.read_zarr(path) if path.suffix == ".zarr" else anndata.read_h5ad(path)).X


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module", params=SUFFIXES)
def templates(request, tmp_path_factory):
    """An old and a new output: as small as they can be, for they are replaced some hundred times."""
    folder = tmp_path_factory.mktemp("templates")
    old, new = (folder / f"{name}{request.param}" for name in ("old", "new"))
    for path in (old, new):
        if request.param == ".h5ad":
            path.write_text(path.stem)
        else:
            (path / "X").mkdir(parents=True)
            (path / ".zgroup").write_text("{}")
            (path / "X" / "0.0").write_text(path.stem)
    return old, new


def copy(path, to):
    shutil.copytree(path, to) if path.is_dir() else shutil.copyfile(path, to)


def content(path):
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


@contextmanager
def faults(monkeypatch, n, error):
    """Raise the error in the n-th of the calls of the file system; yield their names."""
    calls = []

    def wrapped(original, name):
        def call(*args, **kwargs):
            calls.append(name)
            if len(calls) == n + 1:
                raise error
            return original(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        for name in ASKED:
            patch.setattr(os, name, wrapped(getattr(os, name), name))
        yield calls


@pytest.mark.filterwarnings("ignore:What was replaced could not be removed")
@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), KeyboardInterrupt()], ids=repr)
def test_a_failure_of_any_call_leaves_the_old_or_the_new_one(templates, tmp_path, monkeypatch, error):
    old, new = templates
    path = tmp_path / f"cells{old.suffix}"
    monkeypatch.setattr(AnnData, f"write_{old.suffix[1:]}", lambda _, part: copy(new, part))
    was, becomes, seen = content(old), content(new), set()
    for n in count():
        copy(old, path)
        raised = None
        with faults(monkeypatch, n, error) as calls:
            try:
                _anndata.write_file(AnnData(NEW), path, overwrite=True)
            except (OSError, KeyboardInterrupt) as caught:
                raised = caught
        left = content(path)
        assert left == becomes or (raised is not None and left == was), calls
        if len(calls) <= n:
            assert raised is None
            break
        seen.add(calls[n])
        # Litter stays only where the call that removes it has failed.
        if calls[n] not in ("unlink", "rmdir"):
            assert names(tmp_path) == [path.name], calls
        for each in tmp_path.iterdir():
            shutil.rmtree(each) if each.is_dir() else each.unlink()
    assert {"mkdir", "fsync", "rmdir"} < seen
    assert seen & {"rename", "replace"}


def test_a_store_that_cannot_get_its_name_back_is_kept_and_named(tmp_path, monkeypatch):
    """A file system that renames the old store, and then nothing more."""
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
        with pytest.raises(OSError, match="could not be replaced") as raised:
            _anndata.write_file(AnnData(NEW), path, overwrite=True)
    old, new = (Path(part) for part in str(raised.value).split("'")[1:4:2])
    np.testing.assert_array_equal(read(old.rename(tmp_path / "old.zarr")), OLD)
    np.testing.assert_array_equal(read(new.rename(tmp_path / "new.zarr")), NEW)


def test_a_replacement_that_was_killed_is_told_by_the_next_reader(tmp_path):
    path = tmp_path / "cells.zarr"
    write(path, OLD)
    (tmp_path / ".cells.zarr.abcd").mkdir()
    path.rename(tmp_path / ".cells.zarr.abcd" / "replaced")
    with pytest.raises(FileNotFoundError, match=r"\.cells\.zarr\.abcd.replaced"):
        _anndata.read_file(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_replaced_may_be_a_link(tmp_path, suffix):
    """The link is replaced, and what it names stays as it was."""
    elsewhere, path = tmp_path / f"elsewhere{suffix}", tmp_path / f"cells{suffix}"
    write(elsewhere, OLD)
    path.symlink_to(elsewhere, target_is_directory=suffix == ".zarr")
    _anndata.write_file(AnnData(NEW), path, overwrite=True)
    np.testing.assert_array_equal(read(elsewhere), OLD)
    np.testing.assert_array_equal(read(path), NEW)
    assert names(tmp_path) == [path.name, elsewhere.name]


@pytest.mark.parametrize("name", ["notes.h5ad", "notes.zarr"])
def test_a_folder_of_something_else_is_not_replaced(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="is a folder"):
        _anndata.write_file(AnnData(NEW), folder, overwrite=True)
    assert (folder / "notes.txt").read_text() == "mine"
    assert names(tmp_path) == [name]


def test_a_folder_is_no_place_for_a_page(tmp_path):
    adata = sh.datasets.pbmc_planted(n_cells=80)
    (tmp_path / "page.html").mkdir()
    with pytest.raises(ValueError, match=r"page\.html.* is a folder"):
        sh.pl.report(adata, tmp_path / "page.html")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_has_appeared_meanwhile_is_not_replaced(tmp_path, monkeypatch, suffix):
    path = tmp_path / f"cells{suffix}"
    name = f"write_{suffix[1:]}"
    original = getattr(AnnData, name)

    def slow(self, part, *args, **kwargs):
        original(self, part, *args, **kwargs)
        original(AnnData(OLD), path)  # of another process

    with monkeypatch.context() as patch:
        patch.setattr(AnnData, name, slow)
        with pytest.raises(FileExistsError, match="has appeared"):
            _anndata.write_file(AnnData(NEW), path, overwrite=False)
    np.testing.assert_array_equal(read(path), OLD)
    assert names(tmp_path) == [path.name]


def test_others_may_read_what_was_written(tmp_path):
    umask = os.umask(0o022)
    try:
        for suffix, mode in ((".h5ad", 0o644), (".zarr", 0o755)):
            path = tmp_path / f"cells{suffix}"
            _anndata.write_file(AnnData(NEW), path, overwrite=False)
            assert path.stat().st_mode & 0o777 == mode
    finally:
        os.umask(umask)
