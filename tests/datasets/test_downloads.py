"""Downloads, against a server on the loopback address: the store itself is never asked."""

from __future__ import annotations

import errno
import hashlib
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import anndata as ad
import mudata
import numpy as np
import pytest
import scanpy as sc

from scot_hycnn import datasets
from scot_hycnn.datasets import _download, kang_2018

NAME = "kang_2018.h5ad"
H5AD = {
    "adamson_2016": "adamson_2016_upr_perturb_seq.h5ad",
    "kang_2018": NAME,
    "norman_2019": "norman_2019.h5ad",
    "sciplex3": "srivatsan_2020_sciplex3.h5ad",
}


class Store:
    """A server of files that records the requests."""

    def __init__(self):
        self.files: dict[str, bytes] = {}
        self.headers = {"ETag": '"1"'}
        self.has_ranges = True
        self.says_size = True
        self.cuts: list[int] = []  # bytes after which the next answers end
        self.answer_to_range = None  # (status, Content-Range) in place of the right ones
        self.before_body = None  # a function that is called between headers and body
        self.asked: list[tuple[str, str | None]] = []  # path, Range
        store = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                store.answer(self)

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server.server_port}/pertpy"

    def answer(self, request):
        wanted = request.headers.get("Range")
        self.asked.append((request.path, wanted))
        content = self.files.get(request.path.removeprefix("/pertpy/"))
        if content is None:
            request.send_error(404)
            return
        version = self.headers.get("ETag", self.headers.get("Last-Modified"))
        status, start, headers = 200, 0, dict(self.headers)
        if wanted and self.has_ranges and request.headers.get("If-Range") == version:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            status = 206 if start < len(content) else 416
            span = f"{start}-{len(content) - 1}" if status == 206 else "*"
            headers["Content-Range"] = f"bytes {span}/{len(content)}"
            if self.answer_to_range:
                status, headers["Content-Range"] = self.answer_to_range
        body = b"" if status == 416 else content[start:]
        request.send_response(status)
        if self.says_size:
            headers["Content-Length"] = str(len(body))
        for name, value in headers.items():
            request.send_header(name, value)
        request.end_headers()
        if self.before_body:
            self.before_body()
        request.wfile.write(body[: self.cuts.pop(0)] if self.cuts else body)

    def close(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture(scope="session")
def cells():
    rng = np.random.default_rng(0)
    return ad.AnnData(rng.normal(size=(60, 50)).astype(np.float32))


@pytest.fixture(scope="session")
def content(cells, tmp_path_factory):
    path = tmp_path_factory.mktemp("files") / NAME
    cells.write_h5ad(path)
    return path.read_bytes()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder of downloads; no file is there, and retries do not wait."""
    monkeypatch.delenv("SCOT_HYCNN_DATA", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(_download.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(_download, "_CHUNK", 1000)
    before, sc.settings.datasetdir = sc.settings.datasetdir, tmp_path / "cache"
    yield tmp_path / "cache"
    sc.settings.datasetdir = before


@pytest.fixture
def store(folder, content, monkeypatch):
    store = Store()
    store.files[NAME] = content
    monkeypatch.setattr(_download, "_BASE_URL", store.url)
    yield store
    store.close()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# ---- the whole file


@pytest.mark.parametrize("function", H5AD)
def test_download_and_read(function, store, folder, cells, content):
    name = H5AD[function]
    store.files = {name: content}
    read = getattr(datasets, function)()
    np.testing.assert_array_equal(read.X, cells.X)
    getattr(datasets, function)()
    assert store.asked == [(f"/pertpy/{name}", None)]  # it is downloaded once
    assert names(folder) == [name, f"{name}.sha256"]
    assert (folder / f"{name}.sha256").read_text() == f"{hashlib.sha256(content).hexdigest()}  {name}\n"
    assert name in getattr(datasets, function).__doc__


@pytest.mark.filterwarnings("ignore:The inplace keyword")  # mudata with pandas 3.1
def test_several_modalities(store, folder, cells, tmp_path):
    proteins = cells[:, :4].copy()
    proteins.var_names = ["CD86", "PDL1", "PDL2", "CD366"]
    with mudata.set_options(pull_on_update=False):
        mudata.MuData({"rna": cells, "adt": proteins}).write_h5mu(tmp_path / "papalexi_2021.h5mu")
    store.files = {"papalexi_2021.h5mu": (tmp_path / "papalexi_2021.h5mu").read_bytes()}
    read = datasets.papalexi_2021()  # pytest makes an error of the warning that mudata would give
    assert isinstance(read, mudata.MuData)
    np.testing.assert_array_equal(read["adt"].X, cells.X[:, :4])
    assert names(folder) == ["papalexi_2021.h5mu", "papalexi_2021.h5mu.sha256"]


def test_the_address_is_that_of_the_store():
    assert _download._BASE_URL == "https://exampledata.scverse.org/pertpy"


def test_a_progress_bar_begins_where_the_download_was_cut_off(store, content, monkeypatch):
    shown = []

    class Bar(_download.tqdm):
        def __exit__(self, *error):
            shown.append((self.initial, self.n, self.total))
            return super().__exit__(*error)

    monkeypatch.setattr(_download, "tqdm", Bar)
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    store.cuts = [4500]
    kang_2018()
    assert shown == [(0, 4000, len(content)), (4000, len(content), len(content))]


def test_the_import_needs_no_extra():
    code = "import sys, scot_hycnn.datasets; print({'requests', 'mudata'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# ---- cut off


def test_a_lost_connection_is_resumed(store, folder, cells):
    store.cuts = [4500, 3000]
    np.testing.assert_array_equal(kang_2018().X, cells.X)
    assert [wanted for _, wanted in store.asked] == [None, "bytes=4000-", "bytes=7000-"]
    assert names(folder) == [NAME, f"{NAME}.sha256"]


@pytest.mark.parametrize("headers", [{"ETag": '"1"'}, {"Last-Modified": "Tue, 24 Nov 2026 00:00:00 GMT"}])
def test_the_next_call_resumes(store, folder, cells, headers):
    store.headers, store.cuts = headers, [4500, 0, 0, 0]
    with pytest.raises(ConnectionError, match=rf"{store.url}/{NAME}.* 4 times"):
        kang_2018()
    assert names(folder) == [f"{NAME}.part", f"{NAME}.part.version"]
    assert (folder / f"{NAME}.part").stat().st_size == 4000
    np.testing.assert_array_equal(kang_2018().X, cells.X)
    assert store.asked[-1] == (f"/pertpy/{NAME}", "bytes=4000-")
    assert names(folder) == [NAME, f"{NAME}.sha256"]


SIZE = object()  # stands for the size of the file
PARTS = {
    # what is there, its version, attributes of the store, the ranges that are requested
    "a server without ranges sends the whole file": (5000, '"1"', {"has_ranges": False}, ["bytes=5000-"]),
    "a part of another version is thrown away": (5000, '"0"', {}, ["bytes=5000-"]),
    "a part without a version is not used": (5000, None, {}, [None]),
    "the part is the whole file": (SIZE, '"1"', {}, ["all"]),
    "the part is too long": ("more", '"1"', {}, ["more", None]),
    "the server sends another range": (5000, '"1"', {"answer_to_range": (206, "bytes 0-9/10")}, ["bytes=5000-", None]),
}


@pytest.mark.parametrize("case", PARTS)
def test_a_part_that_is_there(case, store, folder, cells, content):
    part, version, attributes, ranges = PARTS[case]
    size = len(content)
    folder.mkdir()
    (folder / f"{NAME}.part").write_bytes({SIZE: content, "more": content + b"more"}.get(part) or content[:part])
    if version:
        (folder / f"{NAME}.part.version").write_text(version)
    for name, value in attributes.items():
        setattr(store, name, value)
    np.testing.assert_array_equal(kang_2018().X, cells.X)
    wanted = {"all": f"bytes={size}-", "more": f"bytes={size + 4}-"}
    assert [found for _, found in store.asked] == [wanted.get(found, found) for found in ranges]
    assert names(folder) == [NAME, f"{NAME}.sha256"]


@pytest.mark.parametrize("headers", [{}, {"ETag": 'W/"1"'}])
def test_without_a_strong_version_the_download_starts_again(store, folder, cells, headers):
    store.headers, store.cuts = headers, [4500]
    np.testing.assert_array_equal(kang_2018().X, cells.X)
    assert [wanted for _, wanted in store.asked] == [None, None]


# ---- not the file


def test_another_process_writes_to_the_part(store, folder, content):
    def write():
        part = folder / f"{NAME}.part"
        for _ in range(2000):
            if part.exists():
                break
            threading.Event().wait(0.005)
        with part.open("ab") as file:
            file.write(b"written by another process")

    store.before_body = write
    with pytest.raises(OSError, match=rf"{len(content)} bytes and {len(content) + 26} .*another process"):
        kang_2018()
    assert names(folder) == []


def test_a_cut_off_file_of_a_server_that_sends_no_size(store, folder, content):
    store.says_size, store.files[NAME] = False, content[:6000]
    with pytest.raises(OSError, match=rf"{store.url}/{NAME} .*truncated file"):
        kang_2018()
    assert names(folder) == []


def test_a_page_in_place_of_the_file(store, folder):
    store.files[NAME] = b"<!DOCTYPE html><title>Please log in</title>"
    with pytest.raises(OSError, match=r"43 bytes .*b'<!DOCTYPE html>"):
        kang_2018()
    assert len(store.asked) == 1  # it is not tried again
    assert names(folder) == []


def test_no_such_file(store, folder):
    store.files = {}
    with pytest.raises(ConnectionError, match=rf"{store.url}/{NAME}: 404 .*{folder / NAME}"):
        kang_2018()
    assert len(store.asked) == 1
    assert names(folder) == []


def test_offline(folder, monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/pertpy"
    monkeypatch.setattr(_download, "_BASE_URL", url)
    with pytest.raises(ConnectionError, match=rf"{url}/{NAME}: .*{folder / NAME}.* SCOT_HYCNN_DATA .*{NAME}"):
        kang_2018()


# ---- later uses


def test_a_file_that_has_changed(store, folder, cells):
    kang_2018()
    record = folder / f"{NAME}.sha256"
    other = cells.copy()
    other.X[0, 0] += 1
    other.write_h5ad(folder / NAME)
    with pytest.raises(OSError, match=r"has changed .*'[0-9a-f]{64}'"):
        kang_2018()
    record.write_text("")
    with pytest.raises(OSError, match=r"has changed .*''"):
        kang_2018()
    record.unlink()
    np.testing.assert_array_equal(kang_2018().X, other.X)
    assert len(store.asked) == 1


def test_a_full_disk_leaves_no_half_of_a_checksum(store, folder, cells, monkeypatch):
    def full(self, text, **_):
        self.write_bytes(text.encode()[:5])
        raise OSError(errno.ENOSPC, "No space left on device")

    kang_2018()
    (folder / f"{NAME}.sha256").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(OSError, match="No space left"):
            kang_2018()
    assert names(folder) == [NAME]
    assert kang_2018().shape == cells.shape


def test_a_file_that_was_put_there_by_hand(store, folder, cells, content):
    folder.mkdir()
    (folder / NAME).write_bytes(content)
    np.testing.assert_array_equal(kang_2018().X, cells.X)
    assert store.asked == []
    assert names(folder) == [NAME, f"{NAME}.sha256"]
    (folder / NAME).write_bytes(content[:6000])
    with pytest.raises(OSError, match=rf"{folder / NAME} .*truncated file"):
        kang_2018()


def test_a_mirror_comes_first_and_is_not_written_to(store, folder, cells, content, monkeypatch):
    mirror = folder.parent / "mirror"
    mirror.mkdir()
    monkeypatch.setenv("SCOT_HYCNN_DATA", str(mirror))
    (mirror / "kang_ifnb.h5ad").write_bytes(content)
    kang_2018()
    assert len(store.asked) == 1  # another name is another file
    (mirror / NAME).write_bytes(content)
    (folder / NAME).unlink()
    np.testing.assert_array_equal(kang_2018().X, cells.X)
    assert len(store.asked) == 1
    assert names(mirror) == ["kang_2018.h5ad", "kang_ifnb.h5ad"]
    (mirror / f"{NAME}.sha256").write_text("0123  kang_2018.h5ad\n")
    with pytest.raises(OSError, match=r"has changed .*'0123'"):
        kang_2018()


# ---- extras that are not installed


def test_without_requests_only_downloads_fail(folder, content, monkeypatch):
    monkeypatch.setitem(sys.modules, "requests.exceptions", None)
    with pytest.raises(ImportError, match=r"kang_2018.h5ad needs requests.*'scot-hycnn\[datasets\]'"):
        kang_2018()
    folder.mkdir()
    (folder / NAME).write_bytes(content)
    assert kang_2018().n_obs == 60


def test_without_mudata(store, monkeypatch):
    monkeypatch.setitem(sys.modules, "mudata", None)
    with pytest.raises(ImportError, match=r"papalexi_2021 needs mudata.*'scot-hycnn\[datasets\]'"):
        datasets.papalexi_2021()
    assert store.asked == []
