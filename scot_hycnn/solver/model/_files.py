"""The file format of a fitted map: plain arrays, numbers and strings in a .safetensors file, and their checks."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import fields
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as serialise

from scot_hycnn._neighbours import MAX_GROUPS
from scot_hycnn.potentials import Combination, Potential
from scot_hycnn.solver._options import FAMILIES
from scot_hycnn.solver.data._coordinates import Coordinates
from scot_hycnn.solver.data._groups import Baselines

from ._blended import N_POINTS, Support

# 1: HyCNN only. 2: the network's family is named. 3: training cells, for out-of-support scores. 4: centred maps, and
# simple maps far from the training cells. 5: the centres of groups move by a matrix. 6: baselines of units.
SCHEMA_VERSION = 6
# JSON takes up to thirty times its length as Python objects. A map's header has a few kB, however large the map.
MAX_HEADER = 2**17
# What a map reports about its fit, beside what it needs to act.
REPORTS = ("params", "history", "validation", "certificate")
# Classes that the network of a map can have, by name. A combination is made by `fit_screen` and not by a user's name.
STORED: dict[str, type[Potential]] = {family.__name__: family for family, _ in FAMILIES.values()}
STORED[Combination.__name__] = Combination
_METADATA_KEY = "scot_hycnn"
_CHECKSUM_KEY = "sha256"
# RecursionError: JSON nested a thousand deep. AttributeError: a type of numbers that NumPy does not have.
_DAMAGE = (SafetensorError, LookupError, TypeError, ValueError, RecursionError, AttributeError)


def checked(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a TransportMap from its dictionary, or raise one ValueError."""
    version = _entry(state, "schema_version", int)
    if not 1 <= version <= SCHEMA_VERSION:
        raise ValueError(
            f"This map has schema version {version}; this scot_hycnn reads versions 1 to {SCHEMA_VERSION}. "
            "Update scot_hycnn, or fit again."
        )
    theta = _entry(state, "theta", np.asarray)
    if "shared_theta" in state:
        # In adata.uns, networks that all maps of a screen share are stored once, beside the maps.
        shared = np.asarray(state["shared_theta"])
        if theta.ndim != 2 or shared.ndim != 2 or len(theta) != len(shared):
            raise _damaged(f"theta of shape {theta.shape} does not go with shared networks of shape {shared.shape}")
        theta = np.concatenate([theta, shared], axis=1)
    # No network has more layers than parameters: a longer list of widths would only cost memory.
    network = _network(_entry(state, "network", dict), version, max_layers=max(theta.size, 1000))
    n_dims, n_parameters = network.n_dims, network.n_parameters
    is_table = theta.dtype.kind == "f" and theta.ndim == 2 and len(theta) >= 1 and theta.shape[1] == n_parameters
    if not is_table or not np.isfinite(theta).all():
        raise _damaged(
            f"theta must be finite floats of shape (members, {n_parameters}); it has shape {theta.shape} and dtype "
            f"{theta.dtype}"
        )
    centres = _entry(state, "centres", dict) if "centres" in state else {}
    blend = _entry(state, "blend", float)
    if not 0 <= blend <= 1:
        raise _damaged(f"blend must lie in [0, 1]; it is {blend}")
    for name in REPORTS:
        for key, value in _entry(state, name, dict).items():
            # A map that was read can be saved again.
            if not isinstance(key, str) or not _is_plain(value):
                raise _damaged(
                    f"{name!r} has an entry {key!r} of type {type(value).__name__}, neither number nor string nor "
                    "array of them"
                )
    return {
        "network": network,
        "theta": torch.tensor(theta, dtype=torch.float32, device="cpu"),
        "coordinates": _coordinates(_entry(state, "coordinates", dict), n_dims),
        "blend": blend,
        "w2_squared": _entry(state, "w2_squared", float),
        "outcome": _entry(state, "outcome", str) if "outcome" in state else "",
        "status": _entry(state, "status", str),
        "origin": dict(_entry(state, "origin", dict)) if "origin" in state else {},
        "gaussian": _coordinates(_entry(state, "gaussian", dict), n_dims) if "gaussian" in state else None,
        "support": _support(_entry(state, "support", dict), n_dims) if version > 2 else None,
        "centres": _centres(state, "centres", n_dims) if "centres" in state else {},
        "baselines": _baselines(state, n_dims) if version > 5 else None,
        "between": _floats(centres, "between", (n_dims, n_dims + 1)) if "between" in centres else None,
        "far": _coordinates(_entry(state, "far", dict), n_dims) if "far" in state else None,
        **{name: {key: _as_stored(value) for key, value in dict(state[name]).items()} for name in REPORTS},
    }


def _as_stored(value: Any) -> Any:
    """Return text as the array that it was before a file made a list or objects of it, and other values as they are."""
    are_strings = isinstance(value, list) and len(value) and all(isinstance(text, str) for text in value)
    is_text = isinstance(value, np.ndarray) and (value.dtype == object or value.dtype.kind == "T")
    return np.array(value.tolist() if is_text else value, dtype=str) if are_strings or is_text else value


def _damaged(problem: str) -> ValueError:
    return ValueError(f"A saved map's {problem}. The map is damaged: fit again.")


def _is_plain(value: object) -> bool:
    """Return whether a file can hold a value."""
    if isinstance(value, np.ndarray):
        # Strings come back from .h5ad and .zarr files as objects, or as strings of variable width.
        is_text = value.dtype.kind == "T" or (
            value.dtype == object and value.size <= MAX_HEADER and all(isinstance(text, str) for text in value.flat)
        )
        return value.dtype.kind in "biufU" or is_text
    if isinstance(value, (list, tuple)):
        return all(isinstance(entry, (str, int, float, np.generic)) for entry in value)
    return value is None or isinstance(value, (str, int, float, np.generic))


def _entry(state: Mapping[str, Any], name: str, kind: Any) -> Any:
    """Return the value of that name as that kind."""
    if not isinstance(state, Mapping) or name not in state:
        raise ValueError(f"A saved map needs the entry {name!r}, which is missing. The map is damaged: fit again.")
    try:
        # Tables of one number would convert too, with a warning from NumPy.
        return kind(np.asarray(state[name]).item() if kind in (int, float) else state[name])
    except (TypeError, ValueError, OverflowError):
        raise _damaged(
            f"entry {name!r} cannot be read as {kind.__name__}; it is of type {type(state[name]).__name__}"
        ) from None


def _network(state: Mapping[str, Any], version: int, *, max_layers: int) -> Potential:
    """Return the architecture."""
    name = _entry(state, "family", str) if version > 1 else "HyCNN"
    if name not in STORED:
        raise ValueError(
            f"A saved map's network is of family {name!r}; this scot_hycnn has {list(STORED)}. Update scot_hycnn, or "
            "fit again."
        )
    hidden = np.asarray(_entry(state, "hidden", np.asarray))
    if hidden.ndim != 1 or hidden.dtype.kind not in "iu" or hidden.size > max_layers:
        raise _damaged(f"'hidden' must be a list of widths; it has shape {hidden.shape} and dtype {hidden.dtype}")
    options = {
        field.name: _entry(state, field.name, type(field.default))
        for field in fields(STORED[name])
        if field.name not in ("n_dims", "hidden") and (version > 1 or field.name in state)
    }
    try:
        return STORED[name](
            n_dims=_entry(state, "n_dims", int), hidden=tuple(int(width) for width in hidden), **options
        )
    except ValueError as error:
        raise ValueError(f"A saved map's network cannot be made: {error} The map is damaged: fit again.") from None


def _coordinates(state: Mapping[str, Any], n_dims: int) -> Coordinates:
    shapes = {"mean_x": (n_dims,), "mean_y": (n_dims,), "matrix": (n_dims, n_dims)}
    arrays = {name: _floats(state, name, shape) for name, shape in shapes.items()}
    scale = _entry(state, "scale", float)
    if not (math.isfinite(scale) and scale > 0):
        raise _damaged(f"scale must be positive; it is {scale}")
    try:
        np.linalg.inv(arrays["matrix"])
    except np.linalg.LinAlgError:
        raise _damaged("'matrix' has no inverse") from None
    return Coordinates(scale=scale, **arrays)


def _baselines(state: Mapping[str, Any], n_dims: int) -> Baselines:
    _entry(state, "centres", dict)  # without groups no baseline has a use
    return Baselines(*(_centres(state, name, n_dims) for name in ("units", "kinds")))


def _centres(of_map: Mapping[str, Any], what: str, n_dims: int) -> dict[str, Any]:
    state = _entry(of_map, what, dict)
    groups, points = (np.asarray(_entry(state, name, np.asarray)) for name in ("groups", "points"))
    is_table = points.dtype.kind == "f" and groups.ndim == 1 and points.shape == (len(groups), n_dims)
    # Their number is checked first: an array may claim a length that memory does not hold. Text is an array of objects
    # after a round trip through h5ad.
    names = groups.tolist() if is_table and 1 <= len(groups) <= MAX_GROUPS else []
    are_different = bool(names) and all(isinstance(name, str) for name in names) and len(set(names)) == len(names)
    if not are_different or not np.isfinite(points).all():
        raise _damaged(
            f"{what} must be finite floats of shape (groups, {n_dims}), with different names for at most {MAX_GROUPS} "
            f"groups; they have shape {points.shape} and dtype {points.dtype}, and names of shape {groups.shape}"
        )
    return dict(zip(names, points.astype(np.float64), strict=True))


def _floats(state: Mapping[str, Any], name: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
    array = np.asarray(_entry(state, name, np.asarray))
    if array.dtype.kind != "f" or array.shape != shape or not np.isfinite(array).all():
        raise _damaged(
            f"{name!r} must be finite floats of shape {shape}; it has shape {array.shape} and dtype {array.dtype}"
        )
    return array.astype(np.float64)


def _support(state: Mapping[str, Any], n_dims: int) -> Support:
    points, scale = np.asarray(_entry(state, "points", np.asarray)), _entry(state, "scale", float)
    is_table = points.dtype.kind == "f" and points.ndim == 2 and points.shape[1] == n_dims
    if (
        not (is_table and 1 <= len(points) <= N_POINTS and np.isfinite(points).all())
        or not (math.isfinite(scale) and scale > 0)
    ):  # fmt: skip
        raise _damaged(
            f"training cells must be finite floats of shape (n, {n_dims}) with a positive scale; they have shape "
            f"{points.shape} and dtype {points.dtype}, scale {scale}"
        )
    return Support(torch.tensor(points, dtype=torch.float32, device="cpu"), scale)


def save(state: dict[str, Any], path: Path, *, max_header: int | None = None) -> None:
    """Write a dictionary: arrays as tensors, the other entries as JSON in the header. Whole or not at all."""
    arrays: dict[str, Any] = {}
    text = json.dumps(_separate(state, "", arrays))
    content = serialise(arrays, metadata={_METADATA_KEY: text, _CHECKSUM_KEY: _checksum(text, arrays)})
    # What `load` would refuse is not written.
    n_bytes = int.from_bytes(content[:8], "little")
    if max_header is not None and n_bytes > max_header:
        raise ValueError(
            f"Names, numbers and settings of this map would take {n_bytes} bytes of a file's header, which has at most "
            f"{max_header}. Shorten its params, origin or reports."
        )
    # Not by tempfile or save_file, whose files only their owner may read.
    temporary = path.with_name(f"{path.name}.{uuid4().hex}.partial")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            # Before it has its name: after a power cut the name must not stand for an empty file.
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise OSError(
            error.errno, f"could not be written ({error.strerror}); what was there before is kept", str(path)
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def load(path: Path, *, max_header: int | None = None) -> dict[str, Any]:
    """Read what `save` wrote, in memory that the size of the file allows: another program may have written it."""
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {str(path)!r}; TransportMap.save(path) writes one.")
    not_a_map = f"{str(path)!r} is not a map that scot_hycnn saved"
    with path.open("rb") as file:
        n_bytes = int.from_bytes(file.read(8), "little")
    if max_header is not None and n_bytes > max_header:
        raise ValueError(f"{not_a_map}, or is damaged: its header would have {n_bytes} bytes.")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        text = metadata[_METADATA_KEY]
        if metadata[_CHECKSUM_KEY] != _checksum(text, arrays):
            raise ValueError("its checksum is not that of its content")
        state = json.loads(text)
        for name, array in arrays.items():
            # Arrays return to where _separate took them from.
            *parents, key = name.split("/")
            inner = state
            for parent in parents:
                inner = inner[parent]
            inner[key] = array
    except _DAMAGE as error:
        raise ValueError(f"{not_a_map}, or is damaged ({type(error).__name__}: {error}).") from None
    if not isinstance(state, dict):
        raise ValueError(f"{not_a_map}: its header holds no dictionary.")  # noqa: TRY004
    return state


def _checksum(text: str, arrays: Mapping[str, Any]) -> str:
    """Return a checksum of all that a file holds: a flipped bit in a weight would otherwise pass for a map."""
    checksum = sha256(text.encode())
    for name in sorted(arrays):
        array = arrays[name]
        checksum.update(f"{name} {array.dtype} {array.shape}".encode())
        checksum.update(array.tobytes())
    return checksum.hexdigest()


def _separate(state: Mapping[str, Any], prefix: str, arrays: dict[str, Any]) -> dict[str, Any]:
    """Move arrays out of the nested dict; what is left is JSON."""
    plain: dict[str, Any] = {}
    for key, value in state.items():
        if isinstance(value, Mapping):
            plain[key] = _separate(value, f"{prefix}{key}/", arrays)
        elif isinstance(value, np.ndarray) and value.dtype.kind in "UOT":
            plain[key] = value.tolist()  # safetensors holds numbers only; `checked` makes an array of it again
        elif isinstance(value, np.ndarray):
            arrays[prefix + key] = np.array(value, order="C")
        else:
            plain[key] = value.item() if isinstance(value, np.generic) else value
    return plain
