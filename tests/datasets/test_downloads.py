"""Downloads, against a server on the loopback address: the store itself is never asked."""

from __future__ import annotations

import errno
import hashlib
import socket
import subprocess
import sys
import threading
from contextlib import nullcontext
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
    """A server of files, and what it is asked for."""

    def __init__(self):
        self.files: dict[str, bytes] = {}
        self.headers = {"ETag": '"1"'}
        self.knows_ranges = True
        self.says_size = True
        self.cuts: list[int] = []  # bytes after which the next answers end
        self.answer_to_range = None  # (status, Content-Range) in place of the right ones
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
        if wanted and self.knows_ranges and request.headers.get("If-Range") == version:
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
    """Where files go; no file is known, and waiting takes no time."""
    monkeypatch.delenv("SCOT_HYCNN_DATA", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("pooch.core.time.sleep", lambda seconds: None)
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
    assert store.asked == [(f"/pertpy/{name}", None)]
    assert names(folder) == [name, f"{name}.sha256"]
    assert (folder / f"{name}.sha256").read_text() == f"{hashlib.sha256(content).hexdigest()}  {name}\n"


@pytest.mark.filterwarnings("ignore:The inplace keyword")  # mudata with pandas 3.1
def test_several_modalities(store, folder, cells, tmp_path):
    proteins = cells[:, :4].copy()
    proteins.var_names = ["CD86", "PDL1", "PDL2", "CD366"]
    with mudata.set_options(pull_on_update=False) if hasattr(mudata, "set_options") else nullcontext():
        mudata.MuData({"rna": cells, "adt": proteins}).write_h5mu(tmp_path / "papalexi_2021.h5mu")
    store.files = {"papalexi_2021.h5mu": (tmp_path / "papalexi_2021.h5mu").read_bytes()}
    read = datasets.papalexi_2021()
    assert isinstance(read, mudata.MuData)
    np.testing.assert_array_equal(read["adt"].X, cells.X[:, :4])
    assert names(folder) == ["papalexi_2021.h5mu", "papalexi_2021.h5mu.sha256"]


def test_the_addresses_are_those_of_the_store():
    assert _download._BASE_URL == "https://exampledata.scverse.org/pertpy"


def test_it_is_downloaded_once(store):
    first, again = kang_2018(), kang_2018()
    np.testing.assert_array_equal(first.X, again.X)
    assert len(store.asked) == 1


def test_a_bar_shows_how_much_is_there(store, content, monkeypatch):
    shown = []

    class Bar(_download.tqdm):
        def __exit__(self, *error):
            shown.append((self.desc, self.initial, self.n, self.total))
            return super().__exit__(*error)

    monkeypatch.setattr(_download, "tqdm", Bar)
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    store.cuts = [4500]
    kang_2018()
    (_, start, cut, total), (desc, initial, n, again) = shown
    assert start == 0
    assert 0 < cut <= 4500
    assert desc == NAME
    assert initial == cut
    assert n == total == again == len(content)


def test_import_asks_for_nothing():
    code = "import sys, scot_hycnn.datasets; print({'pooch', 'requests', 'mudata'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# ---- cut off


def test_a_lost_connection_is_taken_up_where_it_ended(store, folder, cells):
    store.cuts = [4500, 3000]
    np.testing.assert_array_equal(kang_2018().X, cells.X)
    ranges = [wanted for _, wanted in store.asked]
    assert ranges == [None, "bytes=4000-", "bytes=7000-"]
    assert names(folder) == [NAME, f"{NAME}.sha256"]


@pytest.mark.parametrize("headers", [{"ETag": '"1"'}, {"Last-Modified": "Tue, 24 Nov 2026 00:00:00 GMT"}])
def test_the_next_call_goes_on_where_the_last_one_ended(store, folder, cells, monkeypatch, headers):
    monkeypatch.setattr(_download, "_RETRIES", 0)
    store.headers, store.cuts = headers, [4500]
    message = rf"connection to {store.url}/{NAME} was lost 1 times .* Call again: the download goes on where it ended"
    with pytest.raises(ConnectionError, match=message):
        kang_2018()
    assert names(folder) == [f"{NAME}.part", f"{NAME}.part.version"]
    assert (folder / f"{NAME}.part").stat().st_size == 4000
    np.testing.assert_array_equal(kang_2018().X, cells.X)
    assert store.asked[-1] == (f"/pertpy/{NAME}", "bytes=4000-")
    assert names(folder) == [NAME, f"{NAME}.sha256"]


def begin(folder, part, version='"1"'):
    folder.mkdir()
    (folder / f"{NAME}.part").write_bytes(part)
    if version:
        (folder / f"{NAME}.part.version").write_text(version)


def test_a_server_without_ranges_gives_the_whole_file(store, folder, cells, content):
    store.knows_ranges = False
    begin(folder, content[:5000])
    np.testing.assert_array_equal(kang_2018().X, cells.X)
    assert store.asked == [(f"/pertpy/{NAME}", "bytes=5000-")]


def test_a_part_of_another_version_is_thrown_away(store, folder, cells):
    begin(folder, b"x" * 5000, version='"0"')
    np.testing.assert_array_equal(kang_2018().X, cells.X)


@pytest.mark.parametrize("headers", [{}, {"ETag": 'W/"1"'}])
def test_without_a_strong_version_a_part_could_be_of_any_file(store, folder, cells, headers):
    store.headers, store.cuts = headers, [4500]
    np.testing.assert_array_equal(kang_2018().X, cells.X)
    assert [wanted for _, wanted in store.asked] == [None, None]
    assert names(folder) == [NAME, f"{NAME}.sha256"]


def test_a_part_that_is_whole_already(store, folder, cells, content):
    begin(folder, content)
    np.testing.assert_array_equal(kang_2018().X, cells.X)
    assert store.asked == [(f"/pertpy/{NAME}", f"bytes={len(content)}-")]


def test_a_part_that_is_too_long(store, folder, cells, content):
    begin(folder, content + b"more")
    np.testing.assert_array_equal(kang_2018().X, cells.X)
    assert [wanted for _, wanted in store.asked] == [f"bytes={len(content) + 4}-", None]


def test_a_server_that_gives_another_part_than_the_one_asked_for(store, folder, cells, content):
    begin(folder, content[:5000])
    store.answer_to_range = (206, f"bytes 0-{len(content) - 1}/{len(content)}")
    np.testing.assert_array_equal(kang_2018().X, cells.X)
    assert [wanted for _, wanted in store.asked] == ["bytes=5000-", None]


# ---- not the file


def test_a_size_that_is_not_the_servers(store, folder, monkeypatch):
    def start_over(self, response):
        self._part.write_bytes(b"written by another process")

    monkeypatch.setattr(_download._Resuming, "_start", start_over)
    with pytest.raises(
        OSError, match=r"has \d+ bytes and \d+ were written to .*\.part; is another process downloading"
    ):
        kang_2018()
    assert names(folder) == []


def test_a_file_that_is_cut_off_on_a_server_that_says_no_size(store, folder, content):
    store.says_size, store.files[NAME] = False, content[:6000]
    with pytest.raises(OSError, match=rf"{store.url}/{NAME} is no whole HDF5 file \(.*truncated file"):
        kang_2018()
    assert names(folder) == []


def test_a_page_in_place_of_the_file(store, folder):
    store.files[NAME] = b"<!DOCTYPE html><title>Please log in</title>"
    with pytest.raises(OSError, match=r"is no whole HDF5 file .* 43 bytes that begin with b'<!DOCTYPE html>.*proxy"):
        kang_2018()
    assert len(store.asked) == 1  # a page would come again
    assert names(folder) == []


def test_no_such_file(store, folder):
    store.files = {}
    with pytest.raises(ConnectionError, match=rf"Cannot download {store.url}/{NAME}: 404 .* put it at {folder / NAME}"):
        kang_2018()
    assert len(store.asked) == 1
    assert names(folder) == []


def test_offline(folder, monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/pertpy"
    monkeypatch.setattr(_download, "_BASE_URL", url)
    message = (
        rf"Cannot download {url}/{NAME}: .*Without internet, get the file on another machine and put it at "
        rf"{folder / NAME}, or into the folder that the environment variable SCOT_HYCNN_DATA names, as {NAME}"
    )
    with pytest.raises(ConnectionError, match=message):
        kang_2018()


# ---- later uses


def test_a_file_that_has_changed_since(store, folder, cells):
    kang_2018()
    other = cells.copy()
    other.X[0, 0] += 1
    other.write_h5ad(folder / NAME)
    with pytest.raises(
        OSError, match=r"has changed since its first use: .* says '[0-9a-f]{64}'. If you changed the file"
    ):
        kang_2018()
    (folder / f"{NAME}.sha256").unlink()
    np.testing.assert_array_equal(kang_2018().X, other.X)
    assert len(store.asked) == 1


def test_a_full_disk_leaves_no_half_of_a_note(store, folder, cells, monkeypatch):
    def full(self, text, **_):
        self.write_bytes(text.encode()[:5])
        raise OSError(errno.ENOSPC, "No space left on device")

    kang_2018()
    for note in folder.glob("*.sha256"):
        note.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(OSError, match="No space left"):
            kang_2018()
    assert [path.suffix for path in folder.iterdir()] == [".h5ad"]
    assert kang_2018().shape == cells.shape


def test_an_empty_note(store, folder):
    kang_2018()
    (folder / f"{NAME}.sha256").write_text("")
    with pytest.raises(OSError, match=r"has changed since its first use: .* beside it says ''"):
        kang_2018()


def test_a_file_put_there_by_hand_is_noted_and_compared(store, folder, cells, content):
    folder.mkdir()
    (folder / NAME).write_bytes(content)
    np.testing.assert_array_equal(kang_2018().X, cells.X)
    assert store.asked == []
    assert names(folder) == [NAME, f"{NAME}.sha256"]
    (folder / NAME).write_bytes(content[:6000])
    with pytest.raises(OSError, match=rf"{folder / NAME} is no whole HDF5 file"):
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
    with pytest.raises(OSError, match=r"has changed since its first use: .* says '0123'"):
        kang_2018()


# ---- what is not installed


def test_without_pooch(folder, content, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(
        ImportError, match=r"Downloading kang_2018.h5ad needs pooch.*pip install 'scot-hycnn\[datasets\]'"
    ):
        kang_2018()
    folder.mkdir()
    (folder / NAME).write_bytes(content)
    assert kang_2018().n_obs == 60  # only downloads need it


def test_without_mudata(store, monkeypatch):
    monkeypatch.setitem(sys.modules, "mudata", None)
    with pytest.raises(ImportError, match=r"papalexi_2021 needs mudata.*pip install 'scot-hycnn\[datasets\]'"):
        datasets.papalexi_2021()
    assert store.asked == []
