"""Load files of maps that were changed on purpose.

An input is the bytes of a file. Half of the mutations are those of libFuzzer, on the whole file, the text of the header
or the bytes of a tensor; the others change the tree of the header, or the name, type or shape of a tensor. After most
of them the checksum is corrected, because a file with a wrong one is refused at once.
"""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from contract import hold

from scot_hycnn.solver import TransportMap, fit
from scot_hycnn.solver.model._files import _CHECKSUM_KEY, _METADATA_KEY, _checksum

# Memory beyond twice the file: a header of JSON becomes Python objects that are many times as large as its text.
CONSTANT = 4 * 2**20
MAX_LENGTH = 2**17
NUMPY = {"F32": "<f4", "F64": "<f8", "F16": "<f2", "I64": "<i8", "I8": "<i1", "U8": "<u1", "BOOL": "?", "I32": "<i4"}
TYPES = [*NUMPY, "BF16", "F8_E4M3", "F4", "C64", "U16", "U64", "", "float32"]
STRANGE = [None, True, -1, 0, 1, 3, 2**31, 2**70, 1e308, float("nan"), float("inf"), -0.0, "", "HyCNN", "MLP", "\ud800"]
NESTED: list[Any] = [[], [[[]]], {}, {"a": 1}, [1, 2], {"family": "ICNN"}]
NAMES = ["", "/", "theta", "support/points", "gaussian/matrix", "origin/rep/name", "params", "network/hidden", "a/b/c"]
File = tuple[dict[str, Any], bytes]


def seeds(folder: Path) -> list[bytes]:
    """Return saved maps of several families, and of the older schema versions."""
    x, y = np.random.default_rng(0).normal(size=(2, 60, 2))
    options = {"hidden": (4, 4), "max_steps": 10, "n_ensemble": 2, "device": "cpu", "progress": False}
    contents = [path.read_bytes() for path in Path(__file__).parents[1].glob("solver/model/fixtures/*.safetensors")]
    for potential in ("hycnn", "icnn", "mlp", "gaussian"):
        path = folder / f"{potential}.safetensors"
        fit(x, y**3, potential=potential, **options).save(path)
        contents.append(path.read_bytes())
    return contents


def check(content: bytes, path: Path) -> bool:
    """Return whether the file is accepted as a map; if so, the map must move cells."""
    path = path.with_suffix(".safetensors")
    path.write_bytes(content)

    def read() -> None:
        fitted = TransportMap.load(path, device="cpu")
        with np.errstate(all="ignore"):
            assert fitted.transport(np.zeros((3, fitted.n_dims), np.float32)).shape == (3, fitted.n_dims)

    return hold(read, size=len(content), constant=CONSTANT)


def mutate(content: bytes, draw: random.Random, mutate_bytes: Callable[[bytes], bytes]) -> bytes:
    """Return a changed file, whose checksum is right most of the time."""
    file = _parse(content)
    if file is None or draw.random() < 0.15:
        return mutate_bytes(content)
    header, tensors = file
    edit = draw.choice([_edit_tree, _edit_tree, _edit_text, _edit_tensor, _edit_bytes])
    header, tensors = edit(header, tensors, draw, mutate_bytes)
    return _whole(header, tensors, signed=draw.random() < 0.9)


def _parse(content: bytes) -> File | None:
    """Return the header and the bytes of the tensors; None if the file has no header."""
    try:
        end = 8 + struct.unpack("<Q", content[:8])[0]
        header = json.loads(content[8:end])
        text = header["__metadata__"][_METADATA_KEY]
        entries = [(entry["dtype"], entry["shape"], entry["data_offsets"]) for entry in _tensors(header).values()]
    except (ValueError, KeyError, TypeError, AttributeError, struct.error, RecursionError):
        return None
    return (header, content[end:]) if isinstance(text, str) and entries else None


def _tensors(header: dict[str, Any]) -> dict[str, Any]:
    return {name: entry for name, entry in header.items() if name != "__metadata__"}


def _whole(header: dict[str, Any], tensors: bytes, *, signed: bool) -> bytes:
    if signed:
        metadata = header["__metadata__"]
        arrays = {}
        for name, entry in _tensors(header).items():
            start, stop = entry["data_offsets"]
            try:
                arrays[name] = np.frombuffer(tensors[start:stop], NUMPY[entry["dtype"]]).reshape(entry["shape"])
            except (ValueError, KeyError, TypeError):
                continue  # such a tensor is refused before the checksum is checked
        metadata[_CHECKSUM_KEY] = _checksum(metadata[_METADATA_KEY].encode(errors="replace").decode(), arrays)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + tensors


def _edit_tree(header: dict[str, Any], tensors: bytes, draw: random.Random, _: Any) -> File:
    """Remove an entry of the state, or change its name or value."""
    metadata = header["__metadata__"]
    try:
        state = json.loads(metadata[_METADATA_KEY])
    except (ValueError, RecursionError):
        return header, tensors
    inner = state
    while isinstance(inner, dict) and inner:
        key = draw.choice(sorted(inner))
        if isinstance(inner[key], dict) and inner[key] and draw.random() < 0.7:
            inner = inner[key]
            continue
        match draw.randrange(5):
            case 0:
                del inner[key]
            case 1:
                inner[draw.choice(NAMES)] = inner.pop(key)
            case 2:
                inner[key] = draw.choice(NESTED)
            case _:
                inner[key] = draw.choice(STRANGE)
        break
    metadata[_METADATA_KEY] = json.dumps(state)
    return header, tensors


def _edit_text(header: dict[str, Any], tensors: bytes, draw: random.Random, mutate_bytes: Any) -> File:
    """Change the text of the state by libFuzzer, or repeat a part of it many times."""
    metadata = header["__metadata__"]
    text = metadata[_METADATA_KEY]
    if draw.random() < 0.2:
        at = draw.randrange(len(text) + 1)
        part = draw.choice(["[", '{"a":', "[],", "{},", "9", "\\u0000", '"a",'])
        text = text[:at] + part * draw.choice([10, 1000, 10_000]) + text[at:]
    else:
        text = mutate_bytes(text.encode(errors="replace")).decode(errors="replace")
    metadata[_METADATA_KEY] = text
    return header, tensors


def _edit_tensor(header: dict[str, Any], tensors: bytes, draw: random.Random, _: Any) -> File:
    """Remove, empty or repeat a tensor, or change its name, type or shape."""
    name = draw.choice(sorted(_tensors(header)))
    entry = header[name]
    match draw.randrange(6):
        case 0:
            del header[name]
        case 1:
            header[draw.choice(NAMES)] = header.pop(name)
        case 2:
            entry["dtype"] = draw.choice(TYPES)
        case 3:
            entry["shape"] = draw.choice([[], [0], [0, 0], [2**32, 2**32, 0], [-1], [2**62], [1, *entry["shape"]]])
        case 4:
            for i in range(draw.choice([1, 10, 300])):
                header[f"{draw.choice(NAMES)}{i}"] = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
        case 5:
            entry["data_offsets"] = [draw.choice([0, 8, 2**40, len(tensors)]), draw.choice([0, 8, 2**40, len(tensors)])]
    return header, tensors


def _edit_bytes(header: dict[str, Any], tensors: bytes, draw: random.Random, mutate_bytes: Any) -> File:
    """Change the values of a tensor; its length stays."""
    entry = header[draw.choice(sorted(_tensors(header)))]
    try:
        start, stop = entry["data_offsets"]
        part = tensors[start:stop]
        if draw.random() < 0.5:
            part = mutate_bytes(part)[: len(part)].ljust(len(part), b"\0")
        else:
            value = draw.choice([np.nan, np.inf, -np.inf, 3e38, 1e-40, 0.0, -1.0])
            item = np.array(value, NUMPY[entry["dtype"]] if entry["dtype"] in ("F32", "F64") else "<f4").tobytes()
            at = draw.randrange(max(1, len(part) // len(item))) * len(item)
            part = (part[:at] + item + part[at + len(item) :])[: len(part)]
        return header, tensors[:start] + part + tensors[start + len(part) :]
    except (TypeError, ValueError):
        return header, tensors
