"""What an HDF5 file must be before its values are read: a tree that the file holds itself, as large as it says."""

from __future__ import annotations

import math
from collections.abc import Iterable

import h5py


def check_tree(file: h5py.File, names: Iterable[str]) -> None:
    """Check everything under these names; no value is read.

    A file of a few kB can claim terabytes, or hold a group that leads back to itself: reading would not end. It can
    also name other files, which whoever sends it may not see.

    Raises
    ------
    ValueError
        If something is a link, has two places, lies in another file, or was not written in full.
    """
    seen: set[int] = set()
    ahead = [(file, name) for name in names]
    while ahead:
        group, name = ahead.pop()
        path = f"{group.name.rstrip('/')}/{name}"
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise ValueError(f"{path!r} is a link to another place or file; anndata writes none")  # noqa: TRY004
        thing = group[name]
        address = h5py.h5o.get_info(thing.id).addr
        if address in seen:
            raise ValueError(f"{path!r} is in the file at another place too; anndata writes everything once")
        seen.add(address)
        if isinstance(thing, h5py.Group):
            ahead.extend((thing, inner) for inner in thing)
        elif isinstance(thing, h5py.Dataset):
            _check_dataset(thing, path)


def _check_dataset(dataset: h5py.Dataset, path: str) -> None:
    if dataset.is_virtual or dataset.external:
        raise ValueError(f"{path!r} lies in another file; anndata writes everything into one")
    # Not by dtype: NumPy does not have all types of HDF5.
    if dataset.chunks is None:
        n_bytes = dataset.id.get_space().get_simple_extent_npoints() * dataset.id.get_type().get_size()
        whole = dataset.id.get_storage_size() >= n_bytes
    else:
        n_chunks = math.prod(-(-length // part) for length, part in zip(dataset.shape, dataset.chunks, strict=True))
        whole = dataset.id.get_num_chunks() >= n_chunks
    if not whole:
        raise ValueError(f"{path!r} has the shape {dataset.shape}, and not all of it is in the file")
