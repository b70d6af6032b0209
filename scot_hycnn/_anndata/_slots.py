"""Names of everything that is written into an AnnData."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from anndata import AnnData

FILLS = ("nan", "identity")


@dataclass(frozen=True)
class Slots:
    """Keys of one target's results; see the table in :func:`scot_hycnn.tl.hycnn_ot`.

    Parameters
    ----------
    moved, inverse
        Keys of obsm.
    displacement, std
        Keys of obs.
    """

    moved: str
    inverse: str
    displacement: str
    std: str

    @classmethod
    def named(cls, key: str, slug: str) -> Slots:
        """Keys under ``key``; ``slug`` is empty if there is one target only."""
        suffix = f"_{slug}" if slug else ""
        return cls(f"X_{key}{suffix}", f"X_{key}_inverse{suffix}", f"{key}_displacement{suffix}", f"{key}_std{suffix}")


def check_slots(adata: AnnData, key: str, fill: str, rep_name: str) -> None:
    """Check where results are to go, before any work is done.

    Raises
    ------
    ValueError
        If ``key`` cannot be a key, or stands for something that is not ours to replace, or ``fill`` is unknown.
    """
    if fill not in FILLS:
        raise ValueError(f"fill={fill!r} is unknown; choose one of {list(FILLS)}.")
    if not isinstance(key, str) or not key or "/" in key:
        raise ValueError(f"key_added={key!r} is no valid key: files need one that is not empty and has no '/'.")
    moved = Slots.named(key, "").moved
    if moved in (rep_name, "X_pca"):
        raise ValueError(f"key_added={key!r} would replace the representation {moved!r}; choose another.")
    if key in adata.uns and not is_fit(adata.uns[key]):
        raise ValueError(
            f"key_added={key!r} would replace adata.uns[{key!r}], which scot_hycnn did not write; choose another."
        )


def is_fit(value: object) -> bool:
    """Whether an entry of uns looks like one of ours."""
    return isinstance(value, dict) and {"schema_version", "models", "targets"} <= value.keys()


def slugs(labels: Sequence[str]) -> dict[str, str]:
    """Names for slots, one for each label: they survive every file format and never collide.

    Parameters
    ----------
    labels
        Distinct labels, any characters.

    Returns
    -------
    Slug to label, in the order of the labels. Slugs are letters, digits and ``_ . -``, at most 100 of them,
    begin with none of ``_ .`` (HDF5 and zarr give these a meaning) and differ in more than case (zarr stores
    are folders, and some file systems ignore case).

    Examples
    --------
    >>> from scot_hycnn._anndata import slugs
    >>> slugs(["BCR/FcR-XL", "BCR_FcR-XL", "IFN-β"])
    {'BCR_FcR-XL': 'BCR/FcR-XL', 'BCR_FcR-XL_2': 'BCR_FcR-XL', 'IFN-': 'IFN-β'}
    """
    result: dict[str, str] = {}
    taken: set[str] = set()
    for label in labels:
        base = re.sub(r"[^A-Za-z0-9_.-]+", "_", label)[:80].strip("_.") or "target"
        if base.lower().startswith("inverse"):
            base = f"target_{base}"  # X_hycnn_ot_inverse_... holds the inverse maps
        slug, count = base, 1
        while slug.lower() in taken:
            count += 1
            slug = f"{base}_{count}"
        taken.add(slug.lower())
        result[slug] = label
    return result
