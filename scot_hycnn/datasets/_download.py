"""Files of the scverse example store: downloaded once, resumed where they were cut off, and checked at every use."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import h5py
import scanpy as sc
from scanpy import logging as logg
from tqdm.auto import tqdm

_BASE_URL = "https://exampledata.scverse.org/pertpy"
_MIRROR = "SCOT_HYCNN_DATA"
# After a lost connection the download waits a second longer before every new attempt.
_RETRIES = 3
_TIMEOUT = 30  # seconds without a byte
_CHUNK = 2**20  # bytes


def fetch(name: str) -> Path:
    """Return the path of a file: in the mirror, else in ``sc.settings.datasetdir``, to where it is downloaded."""
    mirrored = Path(os.environ.get(_MIRROR, "")).absolute() / name
    is_mirrored = _MIRROR in os.environ and mirrored.is_file()
    path = mirrored if is_mirrored else Path(sc.settings.datasetdir).absolute() / name
    if not path.exists():
        _download(path)
    _check_hdf5(path, str(path))
    # Nothing is written to a mirror.
    _check_sha256(path, may_record=not is_mirrored)
    return path


def _download(path: Path) -> None:
    """Download a file by way of ``NAME.part`` beside it, which a later call completes if this one is cut off."""
    try:
        from requests.exceptions import RequestException  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ImportError(
            f"Downloading {path.name} needs requests, which is not installed. Run: pip install 'scot-hycnn[datasets]'"
        ) from error
    url = f"{_BASE_URL}/{path.name}"
    by_hand = f"Without internet, put it at {path}, or into the folder that {_MIRROR} names, as {path.name}."
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    for attempt in range(1 + _RETRIES):
        time.sleep(attempt)
        try:
            lost = _download_missing(url, part)
        except RequestException as error:
            raise ConnectionError(f"Cannot download {url}: {error}. {by_hand}") from error
        if lost is None:
            break
    else:
        raise ConnectionError(
            f"The connection to {url} was lost {1 + _RETRIES} times ({lost}). Call again: the download is resumed "
            f"where it ended, if the server allows. {by_hand}"
        )
    try:
        _check_hdf5(part, url)
    except OSError:
        _discard(part)
        raise
    part.replace(path)
    _discard(part)


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    part.with_name(f"{part.name}.version").unlink(missing_ok=True)


def _download_missing(url: str, part: Path) -> Exception | None:
    """Append to the part what it lacks; return the error if the connection is lost on the way."""
    import requests  # noqa: PLC0415 - an extra

    # Beside the part stands the ETag or the date of the file that it belongs to.
    version = part.with_name(f"{part.name}.version")
    n_before = part.stat().st_size if part.exists() and version.exists() else 0
    # Sizes have to be those of the file itself.
    headers = {"Accept-Encoding": "identity"}
    if n_before:
        # The server sends the whole file if it is no longer this version (RFC 9110, 13.1.5).
        headers |= {"Range": f"bytes={n_before}-", "If-Range": version.read_text(encoding="utf-8")}
    with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
        sent = response.headers.get("Content-Range", "")
        # The server refuses a range that begins at the end of the file: nothing is missing.
        if n_before and response.status_code == 416 and sent == f"bytes */{n_before}":
            return None
        is_rest = n_before > 0 and response.status_code == 206 and sent.startswith(f"bytes {n_before}-")
        if n_before and response.status_code in (206, 416) and not is_rest:
            # The server sends another part, or none: the download starts from the beginning.
            _discard(part)
            return _download_missing(url, part)
        response.raise_for_status()
        if not is_rest:
            _discard(part)
            n_before = 0
            tag = response.headers.get("ETag", "W/")
            # A weak tag does not stand for the same bytes. Without a version, the part is not used again.
            note = response.headers.get("Last-Modified", "") if tag.startswith("W/") else tag
            if note:
                version.write_text(note, encoding="utf-8")
        length = response.headers.get("Content-Length")
        total = None if length is None else n_before + int(length)
        # None shows the bar in a terminal only.
        hidden = "CI" in os.environ or None
        with (
            part.open("ab") as file,
            tqdm(total=total, initial=n_before, unit="B", unit_scale=True, desc=part.stem, disable=hidden) as bar,
        ):
            try:
                for chunk in response.iter_content(_CHUNK):
                    file.write(chunk)
                    bar.update(len(chunk))
            except requests.exceptions.RequestException as error:
                return error
    size = part.stat().st_size
    if total is not None and size != total:
        _discard(part)
        raise OSError(
            f"{url} has {total} bytes and {size} were written to {part}; is another process downloading it too? Call "
            "again when that has ended."
        )
    return None


def _check_hdf5(path: Path, origin: str) -> None:
    """Open the file: HDF5 compares its signature, and its size with the size that is stored in it."""
    try:
        with h5py.File(path, "r"):
            return
    except OSError as error:
        with path.open("rb") as file:
            start = file.read(40)
        raise OSError(
            f"{origin} is not a whole HDF5 file ({error}): {path.stat().st_size} bytes that begin with {start!r}. Is "
            "it the page of a proxy, or cut off? Delete the file if it is there, and get it again."
        ) from error


def _check_sha256(path: Path, *, may_record: bool) -> None:
    """Compare the file with its checksum at the first use, which is kept beside it."""
    record = path.with_name(f"{path.name}.sha256")
    if not (record.exists() or may_record):
        return
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not record.exists():
        # The record is renamed when it is whole: half of one, on a full disk, would look like a changed file.
        part = record.with_name(f"{record.name}.part")
        try:
            part.write_text(f"{digest}  {path.name}\n", encoding="utf-8")  # the format of sha256sum --check
            part.replace(record)
        finally:
            part.unlink(missing_ok=True)
        logg.info(f"{path.name} has SHA-256 {digest}, which is kept in {record} and compared at every later use")
        return
    recorded = " ".join(record.read_text(encoding="utf-8").split()[:1])
    if recorded != digest:
        raise OSError(
            f"{path} has changed since its first use: its SHA-256 is {digest}, and {record.name} beside it says "
            f"{recorded!r}. If you changed the file on purpose, delete {record.name}; if not, delete both, and it is "
            "downloaded again."
        )
