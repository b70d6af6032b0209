"""HDF5 files that claim more than they hold, lead in circles or to other files: a sentence, at once."""

from __future__ import annotations

import time
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest
from anndata import AnnData

from scot_hycnn._anndata import read_file, read_uns


def claimed(file):
    file.create_dataset("uns/a", (10**9,), "f8")


def claimed_chunks(file):
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


def other_file(file):
    file["uns/a"] = h5py.ExternalLink("other.h5ad", "/X")


def zeros_without_end(file):
    file.create_dataset("uns/a", (10**6,), "u1", external=[("/dev/zero", 0, 10**6)])


def virtual(file):
    layout = h5py.VirtualLayout((60, 3), "f4")
    layout[:] = h5py.VirtualSource("other.h5ad", "X", (60, 3))
    file.create_virtual_dataset("uns/a", layout)


def uns_elsewhere(file):
    del file["uns"]
    file["uns"] = h5py.ExternalLink("other.h5ad", "/uns")


FORGED = {
    claimed: "not all of it is in the file",
    claimed_chunks: "not all of it is in the file",
    circle: "at another place too",
    doubling: "at another place too",
    link: "is a link to another place or file",
    other_file: "is a link to another place or file",
    zeros_without_end: "lies in another file",
    virtual: "lies in another file",
    uns_elsewhere: "is a link to another place or file",
}


@pytest.fixture
def path(tmp_path) -> Path:
    adata = AnnData(np.ones((60, 3), np.float32), uns={"a_fit": {"x": np.arange(5), "text": "words"}})
    adata.write_h5ad(tmp_path / "cells.h5ad")
    adata.write_h5ad(tmp_path / "other.h5ad")
    return tmp_path / "cells.h5ad"


@pytest.mark.parametrize("read", [read_file, read_uns])
@pytest.mark.parametrize("forge", FORGED, ids=lambda forge: forge.__name__)
def test_it_is_refused_at_once(path, read, forge):
    with h5py.File(path, "r+") as file:
        forge(file)
    tracemalloc.start()
    start = time.perf_counter()
    with pytest.raises(ValueError, match=rf"cells.h5ad' cannot be read as AnnData: ValueError: .*{FORGED[forge]}"):
        read(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert time.perf_counter() - start < 10
    assert peak < 2 * path.stat().st_size + 2**20


@pytest.mark.parametrize("options", [{}, {"compression": "gzip"}, {"compression": "lzf"}])
def test_whole_files_are_read(path, options):
    other = AnnData(np.zeros((60, 3), np.float32), obsm={"X_pca": np.zeros((60, 0))}, uns={"empty": np.zeros((0, 3))})
    other.write_h5ad(path, **options)
    assert read_file(path).shape == (60, 3)
    assert read_uns(path).uns["empty"].shape == (0, 3)


def test_uns_that_is_no_dict(path):
    with h5py.File(path, "r+") as file:
        del file["uns"]
        file["uns"] = np.arange(3)
    with pytest.raises(ValueError, match=r"cells\.h5ad' cannot be read as AnnData"):
        read_uns(path)
