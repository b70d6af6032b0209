"""Read .h5ad files that were changed on purpose, as the command line does: ``scot-hycnn info``, and read_file.

An input is a list of edits, each a few bytes, of the tree of a file with a fit: attributes, types, shapes, values,
links and chunks. Raw bytes of the file are not mutated: for about one input in twenty HDF5's C library itself was still
reading an attribute after 20 seconds (7 of 148 with HDF5 2.0), where no Python code can stop it.
"""

from __future__ import annotations

import contextlib
import io
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
from contract import hold

import scot_hycnn as sh
from scot_hycnn._anndata._files import read_file
from scot_hycnn.cli._commands import info

# Memory beyond twice the file: the objects of anndata, and the text that is printed.
CONSTANT = 8 * 2**20
MAX_LENGTH = 64
ENCODINGS = [
    *("dict", "array", "string", "string-array", "numeric-scalar", "rec-array", "categorical", "dataframe", "null"),
    *("csr_matrix", "csc_matrix", "nullable-integer", "nullable-boolean", "nullable-string-array", "awkward-array"),
    *("anndata", "raw", "nix"),
]
KEYS = ["encoding-type", "encoding-version", "shape", "_index", "column-order", "categories", "ordered"]
TEXT = h5py.string_dtype()
VALUES: list[Any] = [
    0,
    -1,
    2**62,
    np.nan,
    np.inf,
    True,
    1j,
    "",
    "hycnn_ot",
    "a/b",
    "x" * 3000,
    "\x1b[31m\n\r",
    b"\xff\xfe",
    np.array([b"\xff", b""], "S2"),
    np.array(["a", ""], TEXT),
    np.zeros((0, 3)),
    np.zeros((2, 2, 2), "f2"),
    np.arange(5),
    np.array([2**62, 2], "i8"),
    np.array([(1, 2.0), (3, 4.0)], [("x", "i4"), ("y", "f8")]),
    np.array([np.arange(2), np.arange(3)], h5py.vlen_dtype("i4")),
    np.array([0, 1], h5py.enum_dtype({"A": 0, "B": 1}, "i1")),
    np.array([0, 1], "M8[s]").astype(h5py.opaque_dtype("M8[s]")),
    h5py.Empty("f8"),
    h5py.Empty(TEXT),
]
SHAPES = [(2**40,), (2**30, 8), (10**7,), (0,), (2**20, 2**20), (3, 5)]


def seeds(folder: Path) -> list[bytes]:
    """Return inputs with no edit, with one and with several."""
    draw = random.Random(0)
    return [b"", *(draw.randbytes(4) for _ in range(16)), *(draw.randbytes(16) for _ in range(4))]


def mutate(content: bytes, draw: random.Random, mutate_bytes: Callable[[bytes], bytes]) -> bytes:
    """Add an edit, or change bytes."""
    return content + draw.randbytes(4) if draw.random() < 0.3 else mutate_bytes(content)


def check(content: bytes, path: Path) -> bool:
    """Return whether the reader accepted the file."""
    path = path.with_suffix(".h5ad")
    if not hasattr(check, "whole"):
        check.whole = _whole(path.with_name("whole.h5ad"))
    path.write_bytes(check.whole)
    with h5py.File(path, "r+") as file:
        names: list[str] = []
        file.visit(names.append)
        fit = [name for name in names if name.startswith("uns")]
        for at in range(0, len(content) - 3, 4):
            which, edit, what, more = content[at : at + 4]
            # Three quarters of the edits change the fit, the others any group of the file.
            name = (names if which % 4 == 0 else fit)[(which * 256 + more) % len(names if which % 4 == 0 else fit)]
            with contextlib.suppress(Exception):  # h5py refuses to write some of the edits
                if name in file:
                    EDITS[edit % len(EDITS)](file, name, what, more)
    # The last byte of an input chooses the reader: most of the time info, which also reads the fit.
    last = content[-1] if content else 1
    limits = {"size": path.stat().st_size, "constant": CONSTANT, "measured": last & 4 == 0}
    if last & 3 == 0:
        return hold(lambda: read_file(path), **limits)
    return hold(lambda: _info(path, as_json=last & 3 == 1), **limits)


def _whole(path: Path) -> bytes:
    """Return the bytes of a file with a fit."""
    adata = anndata.AnnData(np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32))
    adata.obs["condition"] = ["a"] * 30 + ["b"] * 30
    options = {"hidden": (3,), "max_steps": 10, "n_ensemble": 1, "device": "cpu", "progress": False}
    sh.tl.hycnn_ot(adata, "a", "b", use_rep="X", predict=False, **options)
    stored = adata.uns["hycnn_ot"]
    # One entry of each kind is enough, and the file is read several times as fast.
    for entries in (stored["params"], *(stored[report]["b"] for report in ("history", "validation", "certificate"))):
        for name in sorted(entries)[1:]:
            del entries[name]
    adata.write_h5ad(path)
    return path.read_bytes()


def _info(path: Path, *, as_json: bool) -> None:
    with contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO(), "utf-8")):
        info(path, json=as_json)


def _delete(file: h5py.File, name: str, what: int, more: int) -> None:
    del file[name]


def _encoding(file: h5py.File, name: str, what: int, more: int) -> None:
    file[name].attrs["encoding-type"] = ENCODINGS[what % len(ENCODINGS)]


def _attribute(file: h5py.File, name: str, what: int, more: int) -> None:
    key = KEYS[more % len(KEYS)]
    file[name].attrs[key] = VALUES[what % len(VALUES)]


def _less(file: h5py.File, name: str, what: int, more: int) -> None:
    attributes = file[name].attrs
    for key in sorted(attributes)[: 1 + what % 2]:
        del attributes[key]


def _replace(file: h5py.File, name: str, what: int, more: int) -> None:
    """Write another value under the same name, with the same attributes."""
    value = VALUES[what % len(VALUES)]
    attributes = dict(file[name].attrs)
    del file[name]
    file.create_dataset(name, data=value).attrs.update(attributes)


def _alter(file: h5py.File, name: str, what: int, more: int) -> None:
    """Write another value of the same type and shape; h5py crashes if an empty one is written to texts."""
    value = VALUES[what % len(VALUES)]
    if np.size(value):
        file[name][...] = value


def _declare(file: h5py.File, name: str, what: int, more: int) -> None:
    """Declare a shape of which nothing, or one chunk, is written."""
    attributes = dict(file[name].attrs)
    del file[name]
    shape = SHAPES[what % len(SHAPES)]
    options: dict[str, Any] = {"dtype": ["f4", "i8", "S8", TEXT, "?"][more % 5]}
    if more & 8:
        options["chunks"] = tuple(min(length, 1000) or 1 for length in shape)
    if more & 16 and more & 8:
        options["compression"] = "gzip"
    dataset = file.create_dataset(name, shape, **options)
    dataset.attrs.update(attributes)
    if more & 32 and more & 8:
        dataset.id.write_direct_chunk((0,) * len(shape), bytes([what]) * (more % 50))


def _group(file: h5py.File, name: str, what: int, more: int) -> None:
    attributes = dict(file[name].attrs)
    del file[name]
    file.create_group(name).attrs.update(attributes)


def _link(file: h5py.File, name: str, what: int, more: int) -> None:
    """Make a link to an ancestor, to nothing, to another file, or to a file that does not exist."""
    target = [name.rpartition("/")[0] or "/", "/", "/uns", "/nix", "uns/hycnn_ot"][what % 5]
    links: list[Any] = [
        file[target] if target in file else h5py.SoftLink(target),
        h5py.SoftLink(target),
        h5py.ExternalLink("nix.h5", target),
        h5py.ExternalLink(file.filename, target),
    ]
    link = links[more % len(links)]
    del file[name]
    file[name] = link


def _doubling(file: h5py.File, name: str, what: int, more: int) -> None:
    """Make groups of which each holds the next one twice: a short file that would take for ever to read."""
    del file[name]
    inner = file.create_group(f"{name}/end")
    for depth in range(what % 64):
        outer = file[name].create_group(f"depth_{depth}")
        outer["left"] = outer["right"] = inner
        inner = outer


def _deep(file: h5py.File, name: str, what: int, more: int) -> None:
    del file[name]
    file.create_group(name + "/a" * (4 * what))


def _elsewhere(file: h5py.File, name: str, what: int, more: int) -> None:
    """Declare values that are in another file."""
    attributes = dict(file[name].attrs)
    del file[name]
    if more % 2:
        dataset = file.create_dataset(name, (100,), "u1", external=[("/dev/zero", 0, 100)])
    else:
        layout = h5py.VirtualLayout((100,), "f8")
        layout[:] = h5py.VirtualSource(".", "/X", (100,))
        dataset = file.create_virtual_dataset(name, layout)
    dataset.attrs.update(attributes)


def _opaque(file: h5py.File, name: str, what: int, more: int) -> None:
    """Declare a type with a tag that h5py interprets, of any size."""
    tags = [b"PYTHON:OBJECT", b"NUMPY:M8[ns]", b"NUMPY:object", b"NUMPY:O", b"NUMPY:V8", b"x"]
    kind = h5py.h5t.create(h5py.h5t.OPAQUE, [8, 1, 4][more % 3])
    kind.set_tag(tags[what % len(tags)])
    attributes = dict(file[name].attrs)
    del file[name]
    space = h5py.h5s.create_simple((2,))
    h5py.h5d.create(file.id, name.encode(), kind, space)
    file[name].attrs.update(attributes)


def _rename(file: h5py.File, name: str, what: int, more: int) -> None:
    parent = name.rpartition("/")[0] or "/"
    file[parent].move(name.rpartition("/")[2], ["é", "\udcff", " ", ".x", "x" * 500, "schema_version"][what % 6])


EDITS: list[Callable[[h5py.File, str, int, int], None]] = [
    _delete,
    _encoding,
    _attribute,
    _less,
    _replace,
    _alter,
    _declare,
    _group,
    _link,
    _doubling,
    _deep,
    _elsewhere,
    _opaque,
    _rename,
    _replace,
    _attribute,
]
