"""Maps as dictionaries and files: exact round trips, and a sentence for whatever is damaged."""

from __future__ import annotations

import errno
import json
import math
import os
import stat
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import save_file

from scot_hycnn.potentials import ICNN, MLP, Gaussian, GroupMax, HyCNN
from scot_hycnn.solver import TransportMap, fit
from scot_hycnn.solver.data._coordinates import Coordinates
from scot_hycnn.solver.model import _files as _store

OPTIONS = {"hidden": (8, 8), "max_steps": 20, "batch_size": 64, "n_ensemble": 2, "device": "cpu"}


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


X = normal(0, 200, 2)
REPORTS = ("params", "history", "validation", "certificate")
NETWORKS = [
    HyCNN(2, (5, 4)),
    HyCNN(2, (4,), gate="max", quadratic_skip=False, output_scale=0.3),
    HyCNN(2, (5, 4), temperature=0.3, annealing="cyclic"),
    GroupMax(2, (5, 4), annealing="fixed", quadratic_skip=True),
    ICNN(2, (5, 4), activation="leaky_relu"),
    ICNN(2, (5, 4), constraint="soft", temperature=0.1, quadratic_skip=True),
    MLP(2, (5, 4), activation="relu", strong_convexity=0.7),
]


@pytest.fixture(scope="module")
def fitted():
    # The blend is set, so that the networks show in what the map does.
    return replace(fit(X, normal(1, 200, 2) ** 3, **OPTIONS), blend=0.5)


@pytest.fixture
def state(fitted):
    return fitted.to_dict()


@pytest.fixture
def path(fitted, tmp_path):
    fitted.save(tmp_path / "map.safetensors")
    return tmp_path / "map.safetensors"


def assert_same(a, b):
    """The maps agree in every bit, reports and deeds."""
    np.testing.assert_equal(a.to_dict(), b.to_dict())
    moved = a.transport(X)
    assert np.array_equal(moved, b.transport(X))
    for method in ("inverse", "potential", "conjugate"):
        assert np.array_equal(getattr(a, method)(moved), getattr(b, method)(moved))


# ---- round trips


def test_a_file_gives_back_the_same_map(fitted, path):
    loaded = TransportMap.load(str(path), device="cpu")
    assert_same(fitted, loaded)
    assert (loaded.network, loaded.status, loaded.w2_squared) == (fitted.network, fitted.status, fitted.w2_squared)
    for name in REPORTS:
        np.testing.assert_equal(getattr(loaded, name), getattr(fitted, name) | _hidden_as_array(name, fitted))


def _hidden_as_array(name, fitted):
    return {"hidden": np.array(fitted.params["hidden"])} if name == "params" else {}


def test_a_dictionary_gives_back_the_same_map(fitted, state):
    assert_same(fitted, TransportMap.from_dict(state, device="cpu"))


def test_the_gaussian_map_and_strange_numbers_come_back(tmp_path):
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


def test_what_is_rebuilt_shares_nothing_with_the_dictionary(fitted, state):
    state = {**state, "theta": state["theta"].copy()}
    rebuilt = TransportMap.from_dict(state, device="cpu")
    state["theta"][:] = 0
    state["coordinates"]["matrix"][:] = 0
    assert np.array_equal(rebuilt.transport(X), fitted.transport(X))


def test_the_file_is_read_without_running_anything(path):
    """Arrays are tensors, the rest is JSON."""
    with safe_open(path, framework="numpy") as file:
        assert {"theta", "coordinates/matrix", "history/step"} <= set(file.keys())
        assert json.loads(file.metadata()["scot_hycnn"])["schema_version"] == _store.SCHEMA_VERSION


@pytest.mark.parametrize("network", NETWORKS, ids=str)
def test_every_family_comes_back_with_all_its_options(network, tmp_path):
    theta = network.init(2, torch.Generator().manual_seed(0))
    coordinates = Coordinates.from_gaussian(Gaussian.fit(X, 2 * X + 1))
    drawn = TransportMap(network, theta, coordinates, 0.5, w2_squared=1.0)
    drawn.save(tmp_path / "map")
    for rebuilt in (TransportMap.load(tmp_path / "map"), TransportMap.from_dict(drawn.to_dict())):
        assert rebuilt.network == network
        assert_same(drawn, rebuilt)


def test_a_family_of_another_program_is_named(state):
    with pytest.raises(
        ValueError, match=r"of family 'Net'; this scot_hycnn knows \['HyCNN', 'GroupMax', 'ICNN', 'MLP'\]"
    ):
        TransportMap.from_dict(state | {"network": state["network"] | {"family": "Net"}})


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
    """Written by commit 8533000, as are the numbers: maps did not know where their training cells were."""
    fitted = TransportMap.load(Path(__file__).parent / "fixtures" / "version_2.safetensors", device="cpu")
    then = [[-0.1363367, 0.33072427], [3.06023026, -5.11534071], [-1.69207442, 6.68395996]]
    assert (fitted.blend, type(fitted.network).__name__, fitted.support) == (1.0, "ICNN", None)
    cells = np.array([[0.0, 0.0], [1.0, -2.0], [-0.5, 3.0]])
    np.testing.assert_allclose(fitted.transport(cells), then, rtol=1e-5)
    assert fitted.to_dict()["schema_version"] == 2
    with pytest.raises(ValueError, match=r"does not know where its training cells were: .* Fit again"):
        fitted.out_of_support(cells)
    with pytest.raises(ValueError, match=r"does not know where its training cells were"):
        fitted.transport(cells, fallback=True)


# ---- damaged dictionaries


def test_every_entry_is_needed(state):
    for name in set(state) - {"outcome"}:  # files of older versions have none
        lacking = {key: value for key, value in state.items() if key != name}
        with pytest.raises(ValueError, match=f"needs the entry '{name}', which is missing"):
            TransportMap.from_dict(lacking)
    for group in ("network", "coordinates"):
        for name in state[group]:
            lacking = {key: value for key, value in state[group].items() if key != name}
            with pytest.raises(ValueError, match=f"needs the entry '{name}', which is missing"):
                TransportMap.from_dict(state | {group: lacking})


@pytest.mark.parametrize("version", [0, -1, _store.SCHEMA_VERSION + 1, 99])
def test_a_schema_version_that_is_not_known(state, version):
    with pytest.raises(
        ValueError, match=rf"has schema version {version}; this scot_hycnn reads versions 1 to {_store.SCHEMA_VERSION}"
    ):
        TransportMap.from_dict(state | {"schema_version": version})


@pytest.mark.parametrize("version", [None, "new", [1, 2], math.nan, math.inf])
def test_a_schema_version_that_is_no_number(state, version):
    with pytest.raises(ValueError, match="entry 'schema_version' cannot be read as int"):
        TransportMap.from_dict(state | {"schema_version": version})


@pytest.mark.parametrize("thing", [None, 3, "map", [], np.zeros(3)])
def test_what_is_no_dictionary(thing):
    with pytest.raises(ValueError, match="needs the entry 'schema_version', which is missing"):
        TransportMap.from_dict(thing)


def changed(array, index, value):
    array = array.copy()
    array[index] = value
    return array


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda theta: theta[:, :-1], id="short"),
        pytest.param(lambda theta: theta[:0], id="no members"),
        pytest.param(lambda theta: theta[0], id="one dimension"),
        pytest.param(lambda theta: changed(theta, (1, 2), np.nan), id="nan"),
        pytest.param(lambda theta: changed(theta, (0, 0), np.inf), id="infinite"),
        pytest.param(lambda theta: theta.astype(str), id="text"),
        pytest.param(lambda theta: {"a": 1}, id="dictionary"),
        pytest.param(lambda theta: None, id="none"),
    ],
)
def test_damaged_parameters(state, damage):
    with pytest.raises(ValueError, match=r"theta must be finite floats of shape \(members, \d+\); it has shape"):
        TransportMap.from_dict(state | {"theta": damage(state["theta"])})


@pytest.mark.parametrize("name", ["mean_x", "mean_y", "matrix"])
@pytest.mark.parametrize(
    "damage",
    [lambda a: a[:1], lambda a: a.T[..., None], lambda a: changed(a, 0, np.nan), lambda a: a.astype(str), lambda a: 3],
)
def test_damaged_coordinates(state, name, damage):
    coordinates = state["coordinates"] | {name: damage(state["coordinates"][name])}
    with pytest.raises(ValueError, match=rf"'{name}' must be finite floats of shape \(2"):
        TransportMap.from_dict(state | {"coordinates": coordinates})


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        ("blend", -0.1, r"blend must lie in \[0, 1\]; it is -0.1"),
        ("blend", math.nan, r"blend must lie in \[0, 1\]; it is nan"),
        ("blend", "much", "entry 'blend' cannot be read as float; it is of type str"),
        ("w2_squared", [], "entry 'w2_squared' cannot be read as float; it is of type list"),
        ("network", "HyCNN", "entry 'network' cannot be read as dict; it is of type str"),
        ("coordinates", 3, "entry 'coordinates' cannot be read as dict; it is of type int"),
        ("history", 3, "entry 'history' cannot be read as dict; it is of type int"),
    ],
)
def test_damaged_entries(state, name, value, match):
    with pytest.raises(ValueError, match=match):
        TransportMap.from_dict(state | {name: value})


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        ("n_dims", 3, r"'mean_x' must be finite floats of shape \(3,\); it has shape \(2,\)"),
        ("n_dims", 0, "HyCNN needs at least one dimension"),
        ("hidden", [8], r"theta must be finite floats of shape \(members, \d+\)"),
        ("hidden", [], "'hidden' must be a list of widths"),
        ("hidden", [8.5], "'hidden' must be a list of widths"),
        ("gate", "swing", "gate='swing' is unknown"),
        ("annealing", "slow", "annealing='slow' is unknown"),
        ("temperature", -1, "must be positive"),
        ("temperature", "warm", "entry 'temperature' cannot be read as float"),
    ],
)
def test_damaged_networks(state, name, value, match):
    with pytest.raises(ValueError, match=match):
        TransportMap.from_dict(state | {"network": state["network"] | {name: value}})


@pytest.mark.parametrize("scale", [0, -1, math.nan, math.inf])
def test_damaged_scales(state, scale):
    with pytest.raises(ValueError, match=f"scale must be positive; it is {float(scale)}"):
        TransportMap.from_dict(state | {"coordinates": state["coordinates"] | {"scale": scale}})


def test_another_device_is_checked(state):
    with pytest.raises(ValueError, match="device='abacus' is unknown"):
        TransportMap.from_dict(state, device="abacus")


# ---- damaged files

DAMAGED = r"map\.safetensors' is not a map that scot_hycnn saved"


def test_a_missing_file(tmp_path):
    for missing in (tmp_path / "map.safetensors", tmp_path):
        with pytest.raises(FileNotFoundError, match=r"There is no file .*TransportMap\.save\(path\) writes one"):
            TransportMap.load(missing)


def test_a_truncated_file(path):
    content = path.read_bytes()
    for length in [0, 1, 8, 100, *range(200, len(content), 97), len(content) - 1]:
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=DAMAGED):
            TransportMap.load(path)


def test_a_flipped_bit(path):
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    for position in [*range(200), *range(200, len(content), 11)]:
        flipped = bytearray(content)
        flipped[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(flipped)
        with pytest.raises(ValueError, match=DAMAGED):
            TransportMap.load(path)


@pytest.mark.parametrize("content", [b"", b"nothing", b"PK\x03\x04" + b"\0" * 9])
def test_a_file_of_another_kind(path, content):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=DAMAGED):
        TransportMap.load(path)


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {"format": "pt"},
        {"scot_hycnn": "{}"},
        {"scot_hycnn": "{}", "sha256": "0"},
        {"scot_hycnn": "no JSON", "sha256": _store._checksum("no JSON", {"theta": np.ones(3)})},
        {"scot_hycnn": "[]", "sha256": _store._checksum("[]", {"theta": np.ones(3)})},
    ],
)
def test_a_safetensors_file_of_another_program(path, metadata):
    save_file({"theta": np.ones(3)}, path, metadata=metadata)
    with pytest.raises(ValueError, match=DAMAGED):
        TransportMap.load(path)


def test_a_header_without_a_dictionary(path):
    save_file({}, path, metadata={"scot_hycnn": "[]", "sha256": _store._checksum("[]", {})})
    with pytest.raises(ValueError, match="its header holds no dictionary"):
        TransportMap.load(path)


def test_a_file_of_a_newer_schema(state, path):
    _store.save(state | {"schema_version": 4}, path)
    with pytest.raises(ValueError, match=r"has schema version 4; .* Update scot_hycnn, or fit again"):
        TransportMap.load(path)


# ---- writing


def test_saving_replaces_the_old_file(fitted, path):
    path.write_bytes(b"old")
    fitted.save(path)
    assert_same(fitted, TransportMap.load(path))
    assert list(path.parent.iterdir()) == [path]


def test_others_may_read_a_saved_file_like_any_other(path):
    (path.parent / "plain").write_bytes(b"")
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((path.parent / "plain").stat().st_mode)


@pytest.mark.parametrize("error", [OSError("disk full"), MemoryError(), KeyboardInterrupt()])
@pytest.mark.parametrize("step", ["serialise", "fsync", "replace"])
def test_a_save_that_fails_leaves_the_old_file_whole_and_no_other(fitted, path, monkeypatch, error, step):
    before = path.read_bytes()

    def failing(*args, **kwargs):
        raise error

    place = {"serialise": _store, "fsync": _store.os, "replace": type(path)}[step]
    monkeypatch.setattr(place, step, failing)
    with pytest.raises(type(error)):
        fitted.save(path)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_what_json_cannot_hold_is_an_error_before_anything_is_written(fitted, state, path):
    before = path.read_bytes()
    with pytest.raises(TypeError, match="not JSON serializable"):
        _store.save(state | {"params": {"rng": object()}}, path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_that_is_not_there(fitted, tmp_path):
    with pytest.raises(FileNotFoundError):
        fitted.save(tmp_path / "nowhere" / "map.safetensors")


def test_a_full_disk_is_named_with_the_file(fitted, path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(_store.os, "fsync", full)
    with pytest.raises(OSError, match=rf"No space left on device\); what was there before is kept: '{path}'"):
        fitted.save(path)
