"""Maps as dictionaries and files: exact round trips, old files, and one ValueError for damaged and forged ones."""

from __future__ import annotations

import errno
import json
import math
import os
import random
import stat
import struct
import tracemalloc
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import save as serialise

from scot_hycnn.potentials import ICNN, MLP, GroupMax, HyCNN
from scot_hycnn.solver import TransportMap, fit

METADATA_KEY, CHECKSUM_KEY = "scot_hycnn", "sha256"


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


X = normal(0, 200, 2)


@pytest.fixture(scope="module")
def fitted():
    options = {"hidden": (8, 8), "max_steps": 20, "batch_size": 64, "n_ensemble": 2, "device": "cpu"}
    # The blend is set, so that the networks are part of the map.
    return replace(fit(X, normal(1, 200, 2) ** 3, **options), blend=0.5)


@pytest.fixture
def state(fitted):
    return fitted.to_dict()


@pytest.fixture
def path(fitted, tmp_path):
    fitted.save(tmp_path / "map.safetensors")
    return tmp_path / "map.safetensors"


def test_a_fit_that_left_a_group_out_is_saved_and_found_again(tmp_path):
    groups = np.repeat(["a", "b", "rare"], [98, 98, 4])
    options = {"groups": (groups, groups), "potential": "gaussian", "checkpoint_dir": tmp_path / "maps"}
    fitted, again = (fit(X, normal(1, 200, 2), **options) for _ in range(2))
    assert fitted.validation["groups_left_out"].tolist() == ["rare"]
    assert_same(again, fitted)
    fitted.save(tmp_path / "map.safetensors")
    assert_same(TransportMap.load(tmp_path / "map.safetensors"), fitted)


def assert_same(a, b):
    """Check that two maps agree in every bit, in reports and results."""
    np.testing.assert_equal(a.to_dict(), b.to_dict())
    moved = a.transport(X)
    assert np.array_equal(moved, b.transport(X))
    for method in ("inverse", "potential", "conjugate"):
        assert np.array_equal(getattr(a, method)(moved), getattr(b, method)(moved))


# ---- round trips


def test_a_file_and_a_dictionary_give_back_the_same_map(fitted, state, path):
    for again in (TransportMap.load(str(path), device="cpu"), TransportMap.from_dict(state, device="cpu")):
        assert_same(fitted, again)
        assert (again.network, again.status, again.w2_squared) == (fitted.network, fitted.status, fitted.w2_squared)
        assert np.array_equal(again.out_of_support(X), fitted.out_of_support(X))


def test_the_gaussian_map_and_unusual_numbers_come_back(tmp_path):
    gaussian = fit(X, X + 1, potential="gaussian")
    gaussian.validation["strange"] = math.nan
    gaussian.params["strange"] = -math.inf
    gaussian.params["text"] = 'quotes " and ümlauts/slashes'
    gaussian.save(tmp_path / "map")
    assert_same(gaussian, TransportMap.load(tmp_path / "map"))


def test_a_dictionary_holds_plain_things_only(state):
    def leaves(inner):
        for key, value in inner.items():
            assert isinstance(key, str)
            yield from leaves(value) if isinstance(value, dict) else [value]

    assert all(type(leaf) in (np.ndarray, str, int, float, bool) for leaf in leaves(state))


def test_arrays_that_a_program_has_stored_in_double_precision_give_the_same_map(fitted, state):
    def doubled(entry):
        if isinstance(entry, dict):
            return {name: doubled(value) for name, value in entry.items()}
        is_single = isinstance(entry, np.ndarray) and entry.dtype == np.float32
        return entry.astype(np.float64) if is_single else entry

    again = TransportMap.from_dict(doubled(state))
    assert np.array_equal(again.transport(X), fitted.transport(X))
    assert np.array_equal(again.out_of_support(X), fitted.out_of_support(X))


def test_a_rebuilt_map_shares_nothing_with_the_dictionary(fitted, state):
    state = {**state, "theta": state["theta"].copy()}
    rebuilt = TransportMap.from_dict(state, device="cpu")
    state["theta"][:] = 0
    state["coordinates"]["matrix"][:] = 0
    assert np.array_equal(rebuilt.transport(X), fitted.transport(X))


@pytest.mark.parametrize(
    "network",
    [
        HyCNN(2, (4,), gate="max", quadratic_skip=False, output_scale=0.3),
        HyCNN(2, (5, 4), temperature=0.3, annealing="cyclic", monotone="+0"),
        GroupMax(2, (5, 4), annealing="fixed", quadratic_skip=True),
        ICNN(2, (5, 4), activation="leaky_relu"),
        ICNN(2, (5, 4), constraint="soft", temperature=0.1, quadratic_skip=True),
        MLP(2, (5, 4), activation="relu", strong_convexity=0.7),
    ],
    ids=str,
)
def test_every_family_comes_back_with_all_its_options(network, fitted, tmp_path):
    drawn = replace(fitted, network=network, theta=network.init(2, torch.Generator().manual_seed(0)))
    drawn.save(tmp_path / "map")
    for rebuilt in (TransportMap.load(tmp_path / "map"), TransportMap.from_dict(drawn.to_dict())):
        assert rebuilt.network == network
        assert_same(drawn, rebuilt)


def test_a_file_of_schema_version_1_moves_cells_as_it_did_then():
    """Written by commit b640745, as are the numbers: HyCNN was the only family, and the temperature always learned."""
    fitted = TransportMap.load(Path(__file__).parent / "fixtures" / "version_1.safetensors", device="cpu")
    assert fitted.network == HyCNN(2, (3, 2), strong_convexity=0.9, output_scale=0.3)
    assert (fitted.blend, fitted.theta.shape) == (0.5, (2, fitted.network.n_parameters))
    assert fitted.origin == {"source": "control", "target": "drug", "groupby": "condition"}
    assert fitted.params["potential"] == "hycnn"
    cells = np.array([[0.0, 0.0], [1.0, -2.0], [-0.5, 3.0]])
    moved = fitted.transport(cells)
    then = [[1.0826764, 1.0438626], [4.6406226, -6.3067689], [-0.3596178, 12.0617638]]
    np.testing.assert_allclose(moved, then, rtol=1e-5)
    np.testing.assert_allclose(fitted.inverse(moved), cells, atol=1e-5)
    np.testing.assert_allclose(fitted.potential(cells), [0.54990078, 8.71143234, 20.19797793], rtol=1e-5)
    np.testing.assert_allclose(fitted.conjugate(moved), [-0.54990079, 8.54272846, 16.16712379], rtol=1e-5)
    # Saved again it is of the version that named the family; the newer one keeps training cells, which it has not.
    assert fitted.to_dict()["schema_version"] == 2
    assert_same(fitted, TransportMap.from_dict(fitted.to_dict(), device="cpu"))


def test_a_file_of_schema_version_2_moves_cells_as_it_did_then():
    """Written by commit 8533000, as are the numbers: maps held no training cells."""
    fitted = TransportMap.load(Path(__file__).parent / "fixtures" / "version_2.safetensors", device="cpu")
    then = [[-0.1363367, 0.33072427], [3.06023026, -5.11534071], [-1.69207442, 6.68395996]]
    assert (fitted.blend, type(fitted.network).__name__, fitted.support) == (1.0, "ICNN", None)
    cells = np.array([[0.0, 0.0], [1.0, -2.0], [-0.5, 3.0]])
    np.testing.assert_allclose(fitted.transport(cells), then, rtol=1e-5)
    assert fitted.to_dict()["schema_version"] == 2
    with pytest.raises(ValueError, match="training cells"):
        fitted.out_of_support(cells)
    with pytest.raises(ValueError, match="training cells"):
        fitted.transport(cells, fallback=True)


# The commit that wrote the file, where it moves three cells around (1, 2), and their out-of-support scores, as printed
# by that commit. 3: a half blend of a network. 4: a centred Gaussian map. 5: the centres of groups move by a matrix.
LATER = {
    3: ("a12a587", [[1.2993695, -0.793553], [3.2099147, -2.5127704], [0.40642384, 1.8101977]],
        [0.42162985, 0.91530025, 1.2611595]),
    4: ("bf1b8c6", [[-0.01037415, -0.5556731], [2.0769289, -1.9662782], [-1.0112705, 1.581612]],
        [0.9188857, 1.7782967, 0.8576615]),
    5: ("cda46c6", [[1.2151314, -0.8559844], [2.08253, -2.4848905], [0.73278683, 1.5630522]],
        [0.6988904, 1.1427971, 0.46397132]),
}  # fmt: skip


def test_files_of_later_schema_versions_move_cells_as_they_did_then():
    cells = np.array([[0.0, 0.0], [1.0, -2.0], [-0.5, 3.0]])
    for version, (_, then, scores) in LATER.items():
        file = Path(__file__).parent / "fixtures" / f"version_{version}.safetensors"
        fitted = TransportMap.load(file, device="cpu")
        assert fitted.to_dict()["schema_version"] == version
        assert list(fitted.centres) == ([] if version == 3 else [f"donor/{k}" for k in range(4)])
        around = fitted.around([1.0, 2.0]) if fitted.centres else fitted
        np.testing.assert_allclose(around.transport(cells), then, rtol=1e-5)
        np.testing.assert_allclose(around.inverse(around.transport(cells)), cells, atol=1e-5)
        np.testing.assert_allclose(around.out_of_support(cells), scores, rtol=1e-5)
        np.testing.assert_equal(TransportMap.from_dict(fitted.to_dict()).to_dict(), fitted.to_dict())


# ---- damaged dictionaries


def test_every_entry_is_needed(state):
    for name in set(state) - {"outcome", "gaussian"}:  # files of older versions have none, and the Gaussian map
        lacking = {key: value for key, value in state.items() if key != name}
        with pytest.raises(ValueError, match=f"'{name}'"):
            TransportMap.from_dict(lacking)
    for group in ("network", "coordinates", "support"):
        for name in state[group]:
            lacking = {key: value for key, value in state[group].items() if key != name}
            with pytest.raises(ValueError, match=f"'{name}'"):
                TransportMap.from_dict(state | {group: lacking})


def test_other_things_than_dictionaries():
    for thing in (None, 3, "map", [], np.zeros(3)):
        with pytest.raises(ValueError, match="'schema_version'"):
            TransportMap.from_dict(thing)


def changed(array, index, value):
    array = array.copy()
    array[index] = value
    return array


# What replaces an entry, and what the message names.
DAMAGES = {
    "schema_version": [
        (0, "schema version 0"), (99, "schema version 99.*1 to 6"), (None, "'schema_version'"), (math.inf, "int"),
    ],
    "theta": [
        (lambda theta: theta[:, :-1], r"\(members, \d+\)"), (lambda theta: theta[:0], "theta"),
        (lambda theta: theta[0], "theta"), (lambda theta: changed(theta, (1, 2), np.nan), "theta"),
        (lambda theta: theta.astype(str), "theta.*dtype"), ({"a": 1}, "theta"),
    ],
    "blend": [(-0.1, "-0.1"), (math.nan, "nan"), ("much", "'blend'.*str")],
    "w2_squared": [([], "'w2_squared'.*list")],
    "network": [("HyCNN", "'network'.*str")],
    "history": [(3, "'history'.*int")],
    "params": [({"rng": object()}, "'rng'.*object"), ({3: 1}, "3")],
    "network/family": [("Net", r"'Net'.*\['HyCNN', 'GroupMax', 'ICNN', 'MLP', 'Combination'\]")],
    "network/n_dims": [(3, "theta"), (0, "n_dims=0")],
    "network/hidden": [([8], "theta"), ([8.5], "'hidden'"), (np.ones(10**6, int), "'hidden'")],
    "network/gate": [("swing", "gate='swing'")],
    "network/temperature": [(-1, "temperature=-1"), ("warm", "'temperature'")],
    "coordinates/mean_x": [(lambda mean: mean[:1], r"'mean_x'.*\(2,\).*\(1,\)")],
    "coordinates/mean_y": [(lambda mean: changed(mean, 0, np.nan), "'mean_y'")],
    "coordinates/matrix": [(lambda matrix: matrix.astype(str), "'matrix'"), (np.zeros((2, 2)), "'matrix'")],
    "coordinates/scale": [(0, "0.0"), (math.inf, "inf")],
    "support/points": [
        (lambda points: points[:, :1], r"\(n, 2\)"), (lambda points: points[:0], r"\(0, 2\)"),
        (lambda points: np.broadcast_to(points[:1], (10**12, 2)), "1000000000000"),
        (lambda points: np.full_like(points, np.nan), r"\(n, 2\)"),
    ],
    "support/scale": [(0.0, "scale 0.0")],
}  # fmt: skip


def test_damaged_entries_are_named(state):
    for entry, damages in DAMAGES.items():
        group, _, name = entry.partition("/")
        for damage, match in damages:
            whole = state[group][name] if name else state[group]
            value = damage(whole) if callable(damage) else damage
            with pytest.raises(ValueError, match=match):
                TransportMap.from_dict(state | {group: state[group] | {name: value} if name else value})


def test_an_unknown_device_is_named(state):
    with pytest.raises(ValueError, match="device='abacus'"):
        TransportMap.from_dict(state, device="abacus")


# ---- damaged and forged files

# The header's length, then the header.
PREFIX = 8
# Values of JSON that no entry expects.
STRANGE = [None, True, -1, 0, 3, 1e308, float("nan"), float("inf"), 2**70, "", "x" * 1000, [], [[[]]], {}, {"a": 1}]


@pytest.fixture(scope="module")
def whole(fitted, tmp_path_factory):
    """Return a saved map: bytes, header text, arrays."""
    path = tmp_path_factory.mktemp("map") / "map.safetensors"
    fitted.save(path)
    with safe_open(path, framework="numpy") as file:
        text = file.metadata()[METADATA_KEY]
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    # Arrays are tensors, all other entries are JSON: the file is read without running anything.
    assert {"theta", "coordinates/matrix", "history/step"} <= set(arrays)
    assert json.loads(text)["schema_version"] == 3
    return path.read_bytes(), text, arrays


def checksum(text, arrays):
    content = sha256(text.encode())
    for name in sorted(arrays):
        content.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode() + arrays[name].tobytes())
    return content.hexdigest()


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
    """Claim a header as long as memory, or longer."""
    return struct.pack("<Q", draw.choice([0, 1, 2**31, 2**40, 2**63, 2**64 - 1])) + whole[0][PREFIX:]


def forged(text, arrays):
    """Return a file whose checksum is right."""
    metadata = {METADATA_KEY: text, CHECKSUM_KEY: checksum(text, arrays)}
    return serialise(arrays, metadata=metadata)


def header_edited(whole, draw):
    """Give an entry of the header another value or another name, or remove it."""
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
    """Give an array another type, shape, value or name, or remove it."""
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


@pytest.mark.parametrize("mutate", MUTATIONS, ids=lambda mutate: mutate.__name__)
def test_a_damaged_or_forged_file_is_an_error_or_a_map(whole, tmp_path, mutate):
    draw, path, x = random.Random(mutate.__name__), tmp_path / "map.safetensors", np.zeros((3, 2), np.float32)
    n_rejected = 0
    for _ in range(300):
        path.write_bytes(mutate(whole, draw))
        try:
            fitted = TransportMap.load(path, device="cpu")
        except ValueError:
            n_rejected += 1
            continue
        if fitted.n_dims == 2:
            with suppress(ValueError):  # finite weights may be so large that the result is not finite
                assert np.isfinite(fitted.transport(x)).all()
    assert n_rejected > 0


def test_reading_takes_no_more_than_twice_the_file(whole, tmp_path):
    """Reading the whole map takes little memory beyond that."""
    draw, path = random.Random(1), tmp_path / "map.safetensors"
    for mutate in [claims, longer, header_edited, array_edited] * 50:
        path.write_bytes(mutate(whole, draw))
        tracemalloc.start()
        with suppress(ValueError):
            TransportMap.load(path, device="cpu")
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 2 * path.stat().st_size + 2**20


# ---- what fuzzing has found (tests/fuzz), each by its own name


def with_header(content, change):
    """Return the file with another header, whose checksum is wrong."""
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


def test_what_fuzzing_found_is_one_error(whole, tmp_path):
    path = tmp_path / "map.safetensors"
    for forge in (nested, array_below_an_array, numbers_that_numpy_does_not_have, long_header):
        path.write_bytes(forge(whole))
        with pytest.raises(ValueError, match=r"map\.safetensors"):
            TransportMap.load(path, device="cpu")


def test_a_long_header_takes_no_memory(whole, tmp_path):
    path = tmp_path / "map.safetensors"
    path.write_bytes(long_header(whole))
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"\d{6} bytes"):
        TransportMap.load(path, device="cpu")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**17


def test_files_of_other_programs(path):
    theta = {"theta": np.ones(3)}
    contents = [
        serialise(theta, metadata=metadata)
        for metadata in (
            None,
            {"format": "pt"},
            {METADATA_KEY: "{}"},
            {METADATA_KEY: "{}", CHECKSUM_KEY: "0"},
            {METADATA_KEY: "no JSON", CHECKSUM_KEY: checksum("no JSON", theta)},
            {METADATA_KEY: "[]", CHECKSUM_KEY: checksum("[]", theta)},
        )
    ]
    for content in (*contents, b"", b"nothing", forged("[]", {})):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"map\.safetensors"):
            TransportMap.load(path)


def test_a_missing_file(tmp_path):
    for missing in (tmp_path / "map.safetensors", tmp_path):
        with pytest.raises(FileNotFoundError, match=missing.name):
            TransportMap.load(missing)


# ---- writing


def test_saving_replaces_the_old_file_and_others_may_read_it(fitted, path):
    path.write_bytes(b"old")
    fitted.save(path)
    assert_same(fitted, TransportMap.load(path))
    assert list(path.parent.iterdir()) == [path]
    (path.parent / "plain").write_bytes(b"")
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((path.parent / "plain").stat().st_mode)


@pytest.mark.parametrize(
    ("step", "error"),
    [
        ("fsync", OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))),
        ("fsync", KeyboardInterrupt()),
        ("replace", OSError("disk full")),
        ("replace", MemoryError()),
    ],
)
def test_a_save_that_fails_leaves_the_old_file_whole_and_no_other(fitted, path, monkeypatch, step, error):
    before = path.read_bytes()

    def failing(*_):
        raise error

    monkeypatch.setattr({"fsync": os, "replace": type(path)}[step], step, failing)
    with pytest.raises(type(error), match=str(path) if isinstance(error, OSError) else None):
        fitted.save(path)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_map_that_could_not_be_read_is_not_written(fitted, path):
    before = path.read_bytes()
    for origin, error in (({"note": "x" * 2**18}, ValueError), ({"note": object()}, TypeError)):
        with pytest.raises(error, match=r"131072|JSON"):
            replace(fitted, origin=origin).save(path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
    with pytest.raises(FileNotFoundError):
        fitted.save(path.parent / "nowhere" / "map.safetensors")
