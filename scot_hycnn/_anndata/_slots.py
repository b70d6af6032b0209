"""Names of everything that is written into an AnnData."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from anndata import AnnData

FILLS = ("nan", "identity")
# By these an entry of uns is known as a fit.
FIT_KEYS = {"schema_version", "models", "targets"}


@dataclass(frozen=True)
class Slots:
    """Keys of one target's results; see the table in :func:`scot_hycnn.tl.hycnn_ot`.

    Parameters
    ----------
    moved, inverse
        Keys of obsm.
    displacement, std, out_of_support
        Keys of obs.
    """

    moved: str
    inverse: str
    displacement: str
    std: str
    out_of_support: str

    @property
    def tables(self) -> tuple[str, str]:
        """Those of obsm."""
        return self.moved, self.inverse

    @property
    def layer(self) -> str:
        """Key of layers, where :func:`scot_hycnn.tl.decode` puts genes of the moved cells."""
        return self.moved.removeprefix("X_")

    @property
    def columns(self) -> tuple[str, str, str]:
        """Those of obs."""
        return self.displacement, self.std, self.out_of_support

    @classmethod
    def named(cls, key: str, slug: str) -> Slots:
        """Keys under ``key``; ``slug`` is empty if there is one target only."""
        suffix = f"_{slug}" if slug else ""
        columns = (f"{key}_{name}{suffix}" for name in ("displacement", "std", "out_of_support"))
        return cls(f"X_{key}{suffix}", f"X_{key}_inverse{suffix}", *columns)


def layer_names(adata: AnnData) -> list[str]:
    """Names of the layers, without the one that stands for X since anndata 0.13."""
    return [name for name in adata.layers if name is not None]


def check_key(key: object) -> None:
    """Refuse names that files cannot hold.

    Raises
    ------
    ValueError
        If ``key`` is no string, empty, or has a '/'.
    """
    if not isinstance(key, str) or not key or "/" in key:
        raise ValueError(f"key_added={key!r} is no valid key: files need one that is not empty and has no '/'.")


def check_slots(adata: AnnData, key: str, fill: str, rep_name: str) -> None:
    """Check where results are to go, before any work is done.

    Raises
    ------
    ValueError
        If ``key`` cannot be a key, or stands for something that is not ours to replace, or ``fill`` is unknown.
    """
    if fill not in FILLS:
        raise ValueError(f"fill={fill!r} is unknown; choose one of {list(FILLS)}.")
    check_key(key)
    moved = Slots.named(key, "").moved
    if key in ("X_pca", "pca") or moved in (rep_name, "X_pca"):
        raise ValueError(f"key_added={key!r} would replace the representation {moved!r}; choose another.")
    if key in adata.uns and not is_fit(adata.uns[key]):
        raise ValueError(
            f"key_added={key!r} would replace adata.uns[{key!r}], which scot_hycnn did not write; choose another."
        )


def check_absent(adata: AnnData, key: str, suffixes: Iterable[str]) -> None:
    """Refuse to put cells on their way where the full prediction is.

    Raises
    ------
    ValueError
        If a slot exists.
    """
    for suffix in suffixes:
        slot = Slots.named(key, suffix).moved
        if slot in adata.obsm:
            raise ValueError(
                f"Cells on their way (t below 1) would replace the full prediction {slot!r} and be read as predicted; "
                f"pass key_added, for instance key_added='{key}_half'."
            )


def check_foreign(adata: AnnData, key: str, suffixes: Iterable[str], known: Collection[str]) -> None:
    """Refuse to replace what no fit under this key has written.

    Raises
    ------
    ValueError
        If a slot exists that is not among the ``known`` ones.
    """
    names = [Slots.named(key, suffix) for suffix in suffixes]
    foreign = [
        f"{name!r} (adata.{slot})"
        for slot, keys in (
            ("obsm", [name for slots in names for name in slots.tables]),
            ("obs", [name for slots in names for name in slots.columns]),
        )
        for name in keys
        if name in getattr(adata, slot) and name not in known
    ]
    if foreign:
        raise ValueError(
            f"key_added={key!r} would replace {', '.join(foreign)}, which no fit of this key wrote; pass another "
            "key_added, or delete them."
        )


def is_fit(value: object) -> bool:
    """Whether an entry of uns looks like one of ours."""
    return isinstance(value, dict) and value.keys() >= FIT_KEYS


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
    counts: dict[str, int] = {}  # thousands of labels may have one base
    for label in labels:
        base = re.sub(r"[^A-Za-z0-9_.-]+", "_", label)[:80].strip("_.") or "target"
        if _is_taken(base):
            base = f"target_{base}"
        slug, count = base, counts.get(base.lower(), 1)
        while slug.lower() in taken:
            count += 1
            slug = f"{base}_{count}"
        counts[base.lower()] = count
        taken.add(slug.lower())
        result[slug] = label
    return result


def is_slug(name: str) -> bool:
    """Whether it is one that :func:`slugs` gives."""
    return bool(re.fullmatch(r"[A-Za-z0-9-][A-Za-z0-9_.-]{0,99}", name)) and not _is_taken(name)


def _is_taken(name: str) -> bool:
    """X_hycnn_ot_inverse_... holds the inverse maps, and n_training counts the source's cells beside the targets'."""
    return name.lower().startswith("inverse") or name.lower() == "source"
