"""Ten thousand damaged and forged files: each gives one ValueError, or the map that it says it is."""

from __future__ import annotations

import json
import random
import struct
import tracemalloc
from contextlib import suppress

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save as serialise

from scot_hycnn.solver import TransportMap, fit
from scot_hycnn.solver.model import _files as _store

# The header's length, then the header.
PREFIX = 8
# Values that JSON knows, and that no entry expects.
STRANGE = [None, True, -1, 0, 3, 1e308, float("nan"), float("inf"), 2**70, "", "x" * 1000, [], [[[]]], {}, {"a": 1}]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A saved map: bytes, header text, arrays."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 100, 2))
    path = tmp_path_factory.mktemp("map") / "map.safetensors"
    fit(x, y**3, hidden=(4, 4), max_steps=10, n_ensemble=2, device="cpu", progress=False).save(path)
    with safe_open(path, framework="numpy") as file:
        text = file.metadata()[_store._METADATA_KEY]
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    return path.read_bytes(), text, arrays


def truncated(whole, draw):
    return whole[0][: draw.randrange(len(whole[0]))]


def flipped(whole, draw):
    content = bytearray(whole[0])
    for _ in range(draw.randint(1, 8)):
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    return bytes(content)


def header_flipped(whole, draw):
    content = bytearray(whole[0])
    end = PREFIX + struct.unpack("<Q", content[:PREFIX])[0]
    for _ in range(draw.randint(1, 4)):
        content[draw.randrange(end)] = draw.randrange(256)
    return bytes(content)


def spliced(whole, draw):
    content, (a, b, c) = whole[0], sorted(draw.randrange(len(whole[0])) for _ in range(3))
    return draw.choice(
        [content[:a] + content[b:], content[:b] + content[a:], content[:a] + content[b:c] + content[a:b]]
    )


def longer(whole, draw):
    return whole[0] + draw.randbytes(draw.choice([1, 7, 1000, 100_000]))


def claims(whole, draw):
    """A header that is said to be as long as memory, or longer."""
    return struct.pack("<Q", draw.choice([0, 1, 2**31, 2**40, 2**63, 2**64 - 1])) + whole[0][PREFIX:]


def forged(text, arrays):
    """A file whose checksum is right."""
    metadata = {_store._METADATA_KEY: text, _store._CHECKSUM_KEY: _store._checksum(text, arrays)}
    return serialise(arrays, metadata=metadata)


def header_edited(whole, draw):
    """Some entry of the header has another value, another name, or is gone."""
    state = json.loads(whole[1])
    for _ in range(draw.randint(1, 3)):
        inner = state
        while True:
            key = draw.choice(sorted(inner)) if inner else None
            if key is None or not isinstance(inner[key], dict) or draw.random() < 0.3:
                break
            inner = inner[key]
        if key is None:
            continue
        what = draw.randrange(4)
        if what == 0:
            del inner[key]
        elif what == 1:
            inner[draw.choice(["", "a/b", key + "x", "theta"])] = inner.pop(key)
        else:
            inner[key] = draw.choice(STRANGE)
    return forged(json.dumps(state), whole[2])


def array_edited(whole, draw):
    """Some array has another type, shape or values, another name, or is gone."""
    arrays = dict(whole[2])
    name = draw.choice(sorted(arrays))
    array = arrays[name]
    match draw.randrange(7):
        case 0:
            del arrays[name]
        case 1:
            arrays[draw.choice(["x", "a/b/c", name + "/deeper", "/", ""])] = arrays.pop(name)
        case 2:
            arrays[name] = array.astype(draw.choice([np.int8, np.float16, np.int64, np.bool_, np.uint8]))
        case 3:
            arrays[name] = np.ascontiguousarray(array[: len(array) // 2] if array.ndim else array)
        case 4:
            arrays[name] = np.zeros(draw.choice([(), (0,), (0, 5), (1, 1, 1), (3, 1000)]), array.dtype)
        case 5:
            arrays[name] = np.full_like(
                array, draw.choice([np.nan, np.inf, -np.inf, 1e38]) if array.dtype.kind == "f" else 0
            )
        case 6:
            arrays[draw.choice(sorted(arrays))] = array
    return forged(whole[1], arrays)


MUTATIONS = [truncated, flipped, header_flipped, spliced, longer, claims, header_edited, array_edited]
N_EACH = 1300


@pytest.mark.parametrize("mutate", MUTATIONS, ids=lambda mutate: mutate.__name__)
def test_a_damaged_or_forged_file_is_an_error_or_a_map(whole, tmp_path, mutate):
    draw, path, x = random.Random(mutate.__name__), tmp_path / "map.safetensors", np.zeros((3, 2), np.float32)
    n_rejected = 0
    for _ in range(N_EACH):
        path.write_bytes(mutate(whole, draw))
        try:
            fitted = TransportMap.load(path, device="cpu")
        except ValueError:
            n_rejected += 1
            continue
        if fitted.n_dims == 2:
            with suppress(ValueError):  # finite weights may be so large that what they give is not, which is said
                assert np.isfinite(fitted.transport(x)).all()
    assert n_rejected > 0


@pytest.mark.parametrize("mutate", [claims, longer, header_edited, array_edited], ids=lambda mutate: mutate.__name__)
def test_reading_takes_no_more_than_twice_the_file(whole, tmp_path, mutate):
    """Above what reading the whole map takes, which is small."""
    draw, path = random.Random(1), tmp_path / "map.safetensors"
    for _ in range(100):
        path.write_bytes(mutate(whole, draw))
        tracemalloc.start()
        try:
            TransportMap.load(path, device="cpu")
        except ValueError:
            pass
        finally:
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        assert peak < 2 * path.stat().st_size + 2**20


# ---- what fuzzing has found (tests/fuzz), each by its own name


def with_header(content, change):
    """The file with another header, whose checksum nobody has made right."""
    end = PREFIX + struct.unpack("<Q", content[:PREFIX])[0]
    header = json.loads(content[PREFIX:end])
    change(header)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content[end:]


def nested(whole):
    return forged("[" * 10_000, whole[2])


def array_below_an_array(whole):
    return forged(whole[1], {**whole[2], f"{min(whole[2])}/deeper": np.zeros(1, np.float32)})


def numbers_that_numpy_does_not_have(whole):
    def change(header):
        header["eight"] = {"dtype": "F8_E4M3", "shape": [0], "data_offsets": [0, 0]}

    return with_header(whole[0], change)


def long_header(whole):
    return forged("[" + "[]," * 2**17 + "[]]", whole[2])


FOUND = [nested, array_below_an_array, numbers_that_numpy_does_not_have, long_header]


@pytest.mark.parametrize("forge", FOUND, ids=lambda forge: forge.__name__)
def test_what_fuzzing_found_is_a_sentence(whole, tmp_path, forge):
    path = tmp_path / "map.safetensors"
    path.write_bytes(forge(whole))
    with pytest.raises(ValueError, match="is not a map that scot_hycnn saved, or is damaged"):
        TransportMap.load(path, device="cpu")


def test_a_long_header_takes_no_memory(whole, tmp_path):
    path = tmp_path / "map.safetensors"
    path.write_bytes(long_header(whole))
    tracemalloc.start()
    with pytest.raises(ValueError, match="its header would have"):
        TransportMap.load(path, device="cpu")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**17


def test_a_map_that_could_not_be_read_is_not_written(whole, tmp_path):
    path = tmp_path / "map.safetensors"
    path.write_bytes(whole[0])
    fitted = TransportMap.load(path, device="cpu")
    fitted.origin["note"] = "x" * 2**18
    with pytest.raises(ValueError, match="of a file's header, which has at most 131072"):
        fitted.save(tmp_path / "other.safetensors")
    assert [file.name for file in tmp_path.iterdir()] == ["map.safetensors"]
