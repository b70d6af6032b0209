"""Downloads, against a server on the loopback address: the store itself is never asked."""

from __future__ import annotations

import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import anndata as ad
import mudata
import numpy as np
import pytest
import scanpy as sc

from scot_hycnn import datasets
from scot_hycnn.datasets import _published, kang_2018

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
        self.says_size = True
        self.cut = None  # bytes after which the answer ends
        self.asked: list[str] = []
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
        self.asked.append(request.path)
        content = self.files.get(request.path.removeprefix("/pertpy/"))
        if content is None:
            request.send_error(404)
            return
        request.send_response(200)
        if self.says_size:
            request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content[: self.cut])

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
    """The folder of downloads; no file is there."""
    monkeypatch.delenv("SCOT_HYCNN_DATA", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    before, sc.settings.datasetdir = sc.settings.datasetdir, tmp_path / "cache"
    yield tmp_path / "cache"
    sc.settings.datasetdir = before


@pytest.fixture
def store(folder, content, monkeypatch):
    store = Store()
    store.files[NAME] = content
    monkeypatch.setattr(_published, "_BASE_URL", store.url)
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
    assert store.asked == [f"/pertpy/{name}"]  # it is downloaded once
    assert names(folder) == [name]
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
    assert names(folder) == ["papalexi_2021.h5mu"]


def test_the_address_is_that_of_the_store():
    assert _published._BASE_URL == "https://exampledata.scverse.org/pertpy"


# ---- not the file


def test_a_lost_connection_leaves_nothing(store, folder, cells):
    store.cut = 4500
    with pytest.raises(ConnectionError, match=rf"{store.url}/{NAME}"):
        kang_2018()
    assert names(folder) == []
    store.cut = None
    np.testing.assert_array_equal(kang_2018().X, cells.X)


def test_a_cut_off_file_of_a_server_that_sends_no_size(store, folder, content):
    store.says_size, store.files[NAME] = False, content[:6000]
    with pytest.raises(OSError, match=rf"{store.url}/{NAME} .*truncated file"):
        kang_2018()
    assert names(folder) == []


def test_a_page_in_place_of_the_file(store, folder):
    store.files[NAME] = b"<!DOCTYPE html><title>Please log in</title>"
    with pytest.raises(OSError, match=r"b'<!DOCTYPE html>"):
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
    monkeypatch.setattr(_published, "_BASE_URL", url)
    with pytest.raises(ConnectionError, match=rf"{url}/{NAME}: .*{folder / NAME}.* SCOT_HYCNN_DATA .*{NAME}"):
        kang_2018()


# ---- later uses


def test_a_file_that_was_put_there_by_hand(store, folder, cells, content):
    folder.mkdir()
    (folder / NAME).write_bytes(content)
    np.testing.assert_array_equal(kang_2018().X, cells.X)
    assert store.asked == []
    assert names(folder) == [NAME]


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


# ---- extras that are not installed


def test_without_requests_only_downloads_fail(folder, content, monkeypatch):
    monkeypatch.setitem(sys.modules, "requests", None)
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
