"""Files of the scverse example store: downloaded once, whole or resumed, and checked at every use."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import scanpy as sc
from scanpy import logging as logg
from tqdm.auto import tqdm

if TYPE_CHECKING:
    from requests import Response

_BASE_URL = "https://exampledata.scverse.org/pertpy"
_MIRROR = "SCOT_HYCNN_DATA"
_RETRIES = 3  # after a lost connection; pooch waits a second longer each time
_TIMEOUT = 30  # seconds without a byte
_CHUNK = 2**20  # bytes


def fetch(name: str) -> Path:
    """Path of a data set's file, which is downloaded if it is not there.

    Looked for, in this order: in the folder that the environment variable ``SCOT_HYCNN_DATA`` names; in
    ``sc.settings.datasetdir``; in the scverse example store, from where it goes to ``sc.settings.datasetdir``.
    No checksums of these files are known: the SHA-256 at first use is kept beside the file, as ``NAME.sha256``.

    Parameters
    ----------
    name
        Exact name of the file.

    Raises
    ------
    ImportError
        If a download is needed and pooch is not installed.
    OSError
        If the file cannot be downloaded (a ConnectionError), is no whole HDF5 file, or is not the one of the first
        use.
    """
    mirrored = Path(os.environ.get(_MIRROR, "")).absolute() / name
    if _MIRROR in os.environ and mirrored.is_file():
        _check_hdf5(mirrored, str(mirrored))
        _check_sha256(mirrored, may_record=False)
        return mirrored
    path = Path(sc.settings.datasetdir).absolute() / name
    if not path.exists():
        _download(path)
    _check_hdf5(path, str(path))
    _check_sha256(path, may_record=True)
    return path


def _download(path: Path) -> None:
    try:
        import pooch  # noqa: PLC0415 - an extra
        from requests.exceptions import RequestException  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ImportError(
            f"Downloading {path.name} needs pooch, which is not installed. Run: pip install 'scot-hycnn[datasets]'"
        ) from error
    storage = pooch.create(
        path=path.parent, base_url=f"{_BASE_URL}/", registry={path.name: None}, retry_if_failed=_RETRIES
    )
    downloader = _Resuming(path)
    try:
        storage.fetch(path.name, downloader=downloader)
    except RequestException as error:
        raise ConnectionError(
            f"The connection to {storage.get_url(path.name)} was lost {1 + _RETRIES} times ({error}). Call again: "
            f"the download goes on where it ended, if the server allows. {_by_hand(path)}"
        ) from error


@dataclass(frozen=True)
class _Resuming:
    """What pooch calls to download: like its own, but it goes on where an earlier download was cut off.

    Parameters
    ----------
    path
        Where the whole file is to lie; until then, its beginning lies beside it, in ``NAME.part``.
    """

    path: Path

    def __call__(self, url: str, output_file: str, pooch: Any) -> None:
        """Download to a temporary file, which pooch renames to its final name."""
        del pooch
        self._complete(url)
        try:
            _check_hdf5(self._part, url)
        except OSError:
            self._discard()
            raise
        self._part.replace(output_file)
        self._discard()

    @property
    def _part(self) -> Path:
        return self.path.with_name(f"{self.path.name}.part")

    @property
    def _version(self) -> Path:
        """File with the ETag or date of the file that the part is a part of."""
        return self.path.with_name(f"{self.path.name}.part.version")

    def _discard(self) -> None:
        self._part.unlink(missing_ok=True)
        self._version.unlink(missing_ok=True)

    def _complete(self, url: str) -> None:
        n_before = self._part.stat().st_size if self._part.exists() and self._version.exists() else 0
        with self._connect(url, n_before) as response:
            given = response.headers.get("Content-Range", "")
            if n_before and response.status_code == 206 and given.startswith(f"bytes {n_before}-"):
                self._append(response, n_before)
            elif n_before and response.status_code == 416 and given == f"bytes */{n_before}":
                pass  # nothing was missing
            elif n_before and response.status_code != 200:
                self._discard()  # the server gave another part, or none: once more from the beginning
                self._complete(url)
            else:
                self._start(response)
                self._append(response, 0)

    def _connect(self, url: str, n_before: int) -> Response:
        import requests  # noqa: PLC0415 - an extra

        headers = {"Accept-Encoding": "identity"}  # sizes are to be the file's own
        if n_before:
            # A file that has changed since then comes whole (RFC 9110, 13.1.5).
            headers |= {"Range": f"bytes={n_before}-", "If-Range": self._version.read_text(encoding="utf-8")}
        try:
            response = requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT)
            if response.status_code != 416 or not n_before:
                response.raise_for_status()
        except requests.exceptions.RequestException as error:
            raise ConnectionError(f"Cannot download {url}: {error}. {_by_hand(self.path)}") from error
        return response

    def _start(self, response: Response) -> None:
        """Begin an empty part, and note of which version of the file, if the server says so."""
        self._discard()
        self._part.touch()
        tag = response.headers.get("ETag", "W/")
        version = response.headers.get("Last-Modified", "") if tag.startswith("W/") else tag  # weak tags do not do
        if version:
            self._version.write_text(version, encoding="utf-8")

    def _append(self, response: Response, n_before: int) -> None:
        length = response.headers.get("Content-Length")
        total = None if length is None else n_before + int(length)
        hidden = "CI" in os.environ or None  # None: shown in a terminal
        with (
            self._part.open("ab") as file,
            tqdm(total=total, initial=n_before, unit="B", unit_scale=True, desc=self.path.name, disable=hidden) as bar,
        ):
            for chunk in response.iter_content(_CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
        size = self._part.stat().st_size
        if total is not None and size != total:
            self._discard()
            raise OSError(
                f"{response.url} has {total} bytes and {size} were written to {self._part}; is another process "
                "downloading it too? Call again when that has ended."
            )


def _by_hand(path: Path) -> str:
    return (
        f"Without internet, get the file on another machine and put it at {path}, or into the folder that the "
        f"environment variable {_MIRROR} names, as {path.name}."
    )


def _check_hdf5(path: Path, origin: str) -> None:
    """Open the file: HDF5 compares its signature, and its size with what the file says of itself."""
    try:
        with h5py.File(path, "r"):
            return
    except OSError as error:
        with path.open("rb") as file:
            start = file.read(40)
        raise OSError(
            f"{origin} is no whole HDF5 file ({error}): {path.stat().st_size} bytes that begin with {start!r}. A page "
            "of a proxy or a cut-off file? Delete it if it is there, and get it again."
        ) from error


def _check_sha256(path: Path, *, may_record: bool) -> None:
    record = path.with_name(f"{path.name}.sha256")
    if not (record.exists() or may_record):
        return
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not record.exists():
        _write_whole(record, f"{digest}  {path.name}\n")  # what sha256sum --check reads
        logg.info(f"{path.name} has SHA-256 {digest}, noted in {record} and compared at every later use")
        return
    recorded = " ".join(record.read_text(encoding="utf-8").split()[:1])
    if recorded != digest:
        raise OSError(
            f"{path} has changed since its first use: its SHA-256 is {digest}, and {record.name} beside it says "
            f"{recorded!r}. If you changed the file on purpose, delete {record.name}; if not, delete both, and it is "
            "downloaded again."
        )


def _write_whole(path: Path, text: str) -> None:
    """Half a note, of a full disk, would say at every later use that the file has changed."""
    part = path.with_name(f"{path.name}.part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
