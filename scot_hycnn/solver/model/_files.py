"""A fitted map as plain arrays, numbers and strings, and as a .safetensors file. No pickle."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, fields
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as serialise

from scot_hycnn.potentials import Potential
from scot_hycnn.solver.data._coordinates import Coordinates

from ._families import FAMILIES
from ._support import Support

if TYPE_CHECKING:
    from ._map import TransportMap

# 1: HyCNN only. 2: the network's family is named. 3: training cells, for out-of-support scores.
SCHEMA_VERSION = 3
_FAMILIES = {family.__name__: family for family, _ in FAMILIES.values()}
_METADATA_KEY = "scot_hycnn"
_CHECKSUM_KEY = "sha256"
# JSON takes up to thirty times its length as Python objects. A map's header has a few kB, however large the map.
_LONGEST_HEADER = 2**17
# RecursionError: JSON nested a thousand deep. AttributeError: a type of numbers that NumPy does not have.
_DAMAGE = (SafetensorError, LookupError, TypeError, ValueError, RecursionError, AttributeError)
# What the map reports about its fit, beside what it needs to act.
_REPORTS = ("params", "history", "validation", "certificate")


def to_dict(fitted: TransportMap) -> dict[str, Any]:
    """See TransportMap.to_dict."""
    support = fitted.support
    return {
        # A map that does not know its training cells is one of version 2, and stays it.
        "schema_version": SCHEMA_VERSION if support is not None else 2,
        "network": {
            "family": type(fitted.network).__name__,
            **asdict(fitted.network),
            "hidden": np.asarray(fitted.network.hidden),
        },
        "theta": fitted.theta.numpy(),
        "coordinates": asdict(fitted.coordinates),
        "blend": fitted.blend,
        "w2_squared": fitted.w2_squared,
        "outcome": str(fitted.outcome),
        "status": fitted.status,
        **({"origin": fitted.origin} if fitted.origin else {}),
        **({} if fitted.gaussian is None else {"gaussian": asdict(fitted.gaussian)}),
        **({} if support is None else {"support": {"points": support.points.numpy(), "scale": support.scale}}),
        **{name: _plain(getattr(fitted, name)) for name in _REPORTS},
    }


def _plain(report: Mapping[str, Any]) -> dict[str, Any]:
    return {key: np.asarray(value) if isinstance(value, (list, tuple)) else value for key, value in report.items()}


def from_dict(state: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a TransportMap, checked. See TransportMap.from_dict."""
    version = _entry(state, "schema_version", int)
    if not 1 <= version <= SCHEMA_VERSION:
        raise ValueError(
            f"This map has schema version {version}; this scot_hycnn reads versions 1 to {SCHEMA_VERSION}. "
            "Update scot_hycnn, or fit again."
        )
    array = _entry(state, "theta", np.asarray)
    network = _network(_entry(state, "network", dict), version, n_most=max(array.size, 1000))
    coordinates = _coordinates(_entry(state, "coordinates", dict), network.n_dims)
    theta = _theta(array, network.n_parameters)
    blend = _entry(state, "blend", float)
    if not 0 <= blend <= 1:
        raise ValueError(f"A saved map's blend must lie in [0, 1]; it is {blend}. The map is damaged: fit again.")
    return {
        "network": network,
        "theta": theta,
        "coordinates": coordinates,
        "blend": blend,
        "w2_squared": _entry(state, "w2_squared", float),
        "outcome": _entry(state, "outcome", str) if "outcome" in state else "",
        "status": _entry(state, "status", str),
        "origin": dict(_entry(state, "origin", dict)) if "origin" in state else {},
        "gaussian": _coordinates(_entry(state, "gaussian", dict), network.n_dims) if "gaussian" in state else None,
        "support": _support(_entry(state, "support", dict), network.n_dims) if version > 2 else None,
        **{name: _report(name, _entry(state, name, dict)) for name in _REPORTS},
    }


def _report(name: str, report: Mapping[Any, Any]) -> dict[str, Any]:
    """What a file can hold: a map that was read can be saved."""
    for key, value in report.items():
        if not isinstance(key, str) or not _is_plain(value):
            raise ValueError(
                f"A saved map's {name!r} has an entry {key!r} of type {type(value).__name__}, neither number nor "
                "string nor array of them. The map is damaged: fit again."
            )
    return dict(report)


def _is_plain(value: object) -> bool:
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "biufU" and not _is_repeated(value)
    if isinstance(value, (list, tuple)):
        return all(isinstance(entry, (str, int, float, np.generic)) for entry in value)
    return value is None or isinstance(value, (str, int, float, np.generic))


def _is_repeated(array: Any) -> bool:
    """Whether an array says that it is larger than the memory behind it."""
    return any(n > 1 and not stride for n, stride in zip(array.shape, array.strides, strict=True))


def _entry(state: Mapping[str, Any], name: str, kind: Any) -> Any:
    """The value of that name as that kind, or a sentence."""
    if not isinstance(state, Mapping) or name not in state:
        raise ValueError(f"A saved map needs the entry {name!r}, which is missing. The map is damaged: fit again.")
    try:
        # Tables of one number would convert too, with a warning of their own.
        return kind(np.asarray(state[name]).item() if kind in (int, float) else state[name])
    except (TypeError, ValueError, OverflowError):
        raise ValueError(
            f"A saved map's entry {name!r} cannot be read as {kind.__name__}; it is of type "
            f"{type(state[name]).__name__}. The map is damaged: fit again."
        ) from None


def _network(state: Mapping[str, Any], version: int, *, n_most: int) -> Potential:
    """The architecture, which has no more widths than there are parameters."""
    name = _entry(state, "family", str) if version > 1 else "HyCNN"
    if name not in _FAMILIES:
        raise ValueError(
            f"A saved map's network is of family {name!r}; this scot_hycnn knows {list(_FAMILIES)}. Update "
            "scot_hycnn, or fit again."
        )
    hidden = np.asarray(_entry(state, "hidden", np.asarray))
    if hidden.ndim != 1 or hidden.dtype.kind not in "iu" or hidden.size > n_most:
        raise ValueError(
            f"A saved map's 'hidden' must be a list of widths; it has shape {hidden.shape} and dtype {hidden.dtype}. "
            "The map is damaged: fit again."
        )
    options = {
        field.name: _entry(state, field.name, type(field.default))
        for field in fields(_FAMILIES[name])
        if field.name not in ("n_dims", "hidden") and (version > 1 or field.name in state)
    }
    options |= {"n_dims": _entry(state, "n_dims", int), "hidden": tuple(int(width) for width in hidden)}
    try:
        return _FAMILIES[name](**options)
    except ValueError as error:
        raise ValueError(f"A saved map's network is none: {error} The map is damaged: fit again.") from None


def _theta(array: Any, n_parameters: int) -> torch.Tensor:
    fits = array.dtype.kind == "f" and array.ndim == 2 and len(array) >= 1 and array.shape[1] == n_parameters
    if not fits or _is_repeated(array) or not np.isfinite(array).all():
        raise ValueError(
            f"A saved map's theta must be finite floats of shape (members, {n_parameters}); it has shape "
            f"{array.shape} and dtype {array.dtype}. The map is damaged: fit again."
        )
    return torch.tensor(array, dtype=torch.float32, device="cpu")


def _coordinates(state: Mapping[str, Any], n_dims: int) -> Coordinates:
    arrays = {}
    for name, shape in (("mean_x", (n_dims,)), ("mean_y", (n_dims,)), ("matrix", (n_dims, n_dims))):
        array = np.asarray(_entry(state, name, np.asarray))
        if array.dtype.kind != "f" or array.shape != shape or not np.isfinite(array).all():
            raise ValueError(
                f"A saved map's {name!r} must be finite floats of shape {shape}; it has shape {array.shape} and dtype "
                f"{array.dtype}. The map is damaged: fit again."
            )
        arrays[name] = array.astype(np.float64)
    scale = _entry(state, "scale", float)
    if not (math.isfinite(scale) and scale > 0):
        raise ValueError(f"A saved map's scale must be positive; it is {scale}. The map is damaged: fit again.")
    return Coordinates(scale=scale, **arrays)


def _support(state: Mapping[str, Any], n_dims: int) -> Support:
    points, scale = np.asarray(_entry(state, "points", np.asarray)), _entry(state, "scale", float)
    fits = points.dtype.kind == "f" and points.ndim == 2 and points.shape[1] == n_dims and len(points) > 0
    if not fits or _is_repeated(points) or not np.isfinite(points).all() or not (math.isfinite(scale) and scale > 0):
        raise ValueError(
            f"A saved map's training cells must be finite floats of shape (n, {n_dims}) with a positive scale; they "
            f"have shape {points.shape} and dtype {points.dtype}, scale {scale}. The map is damaged: fit again."
        )
    return Support(torch.tensor(points, dtype=torch.float32, device="cpu"), scale)


def save_map(state: dict[str, Any], path: Path) -> None:
    """Write a map's dictionary, unless :func:`load_map` would refuse it."""
    content = _serialised(state)
    if (n_bytes := _header_length(content[:8])) > _LONGEST_HEADER:
        raise ValueError(
            f"Names, numbers and settings of this map would take {n_bytes} bytes of a file's header, which has at most "
            f"{_LONGEST_HEADER}. Shorten its params, origin or reports."
        )
    _write(content, path)


def load_map(path: Path) -> dict[str, Any]:
    """Read what save_map wrote, in memory that the size of the file allows: nobody may have written it."""
    _check_is_file(path)
    with path.open("rb") as file:
        n_bytes = _header_length(file.read(8))
    if n_bytes > _LONGEST_HEADER:
        raise ValueError(
            f"{str(path)!r} is not a map that scot_hycnn saved, or is damaged: its header would have {n_bytes} bytes."
        )
    return load(path)


def save(state: dict[str, Any], path: Path) -> None:
    """Write a dictionary: arrays as tensors, the rest as JSON in the header. Whole or not at all."""
    _write(_serialised(state), path)


def _serialised(state: dict[str, Any]) -> bytes:
    arrays: dict[str, Any] = {}
    text = json.dumps(_separate(state, "", arrays))
    return serialise(arrays, metadata={_METADATA_KEY: text, _CHECKSUM_KEY: _checksum(text, arrays)})


def _header_length(begin: bytes) -> int:
    return int.from_bytes(begin, "little")


def _write(content: bytes, path: Path) -> None:
    # Not by tempfile or save_file, whose files nobody but their owner may read.
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


def _checksum(text: str, arrays: Mapping[str, Any]) -> str:
    """Of all that a file holds: a flipped bit in a weight would otherwise pass for a map."""
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
        elif isinstance(value, np.ndarray):
            arrays[prefix + key] = np.array(value, order="C")
        else:
            plain[key] = value.item() if isinstance(value, np.generic) else value
    return plain


def load(path: Path) -> dict[str, Any]:
    """Read what save wrote."""
    _check_is_file(path)
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        text = metadata[_METADATA_KEY]
        if metadata[_CHECKSUM_KEY] != _checksum(text, arrays):
            raise ValueError("its checksum is not that of its content")
        state = _together(json.loads(text), arrays)
    except _DAMAGE as error:
        raise ValueError(
            f"{str(path)!r} is not a map that scot_hycnn saved, or is damaged ({type(error).__name__}: {error})."
        ) from None
    if not isinstance(state, dict):
        raise ValueError(f"{str(path)!r} is not a map that scot_hycnn saved: its header holds no dictionary.")  # noqa: TRY004
    return state


def _check_is_file(path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {str(path)!r}; TransportMap.save(path) writes one.")


def _together(state: dict[str, Any], arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Put arrays back where _separate took them from."""
    for name, array in arrays.items():
        *parents, key = name.split("/")
        inner = state
        for parent in parents:
            inner = inner[parent]
        inner[key] = array
    return state
