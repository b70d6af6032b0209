"""Names of everything that is written into an AnnData, and the checks of these names before any work."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from anndata import AnnData

FILLS = ("nan", "identity")
# An entry of uns that has these keys is a fit.
FIT_KEYS = {"schema_version", "models", "targets"}


@dataclass(frozen=True)
class Slots:
    """Keys of the results of one target, as :func:`scot_hycnn.tl.hycnn_ot` lists them.

    Parameters
    ----------
    moved, inverse
        Keys of obsm.
    displacement, std, out_of_support
        Keys of obs.
    layer
        Key of layers, where :func:`scot_hycnn.tl.decode` writes the genes of the moved cells.
    """

    moved: str
    inverse: str
    displacement: str
    std: str
    out_of_support: str
    layer: str

    @classmethod
    def named(cls, key: str, slug: str) -> Slots:
        """Keys under ``key``; ``slug`` is empty if there is one target only."""
        suffix = f"_{slug}" if slug else ""
        return cls(
            moved=f"X_{key}{suffix}",
            inverse=f"X_{key}_inverse{suffix}",
            displacement=f"{key}_displacement{suffix}",
            std=f"{key}_std{suffix}",
            out_of_support=f"{key}_out_of_support{suffix}",
            layer=f"{key}{suffix}",
        )

    @property
    def of_fit(self) -> dict[str, tuple[str, ...]]:
        """Attribute of the AnnData to the keys that a fit may write there."""
        return {"obsm": (self.moved, self.inverse), "obs": (self.displacement, self.std, self.out_of_support)}


def evaluation_slot(key: str) -> str:
    """Key of uns with the scores of the fit ``key``."""
    return f"{key}_evaluation"


def layer_names(adata: AnnData) -> list[str]:
    """Names of the layers, without None, which stands for X since anndata 0.13."""
    return [name for name in adata.layers if name is not None]


def is_fit(value: object) -> bool:
    """Whether an entry of uns looks like a fit of ours."""
    return isinstance(value, dict) and value.keys() >= FIT_KEYS


def check_key(key: object) -> None:
    """Raise a ValueError for a key that files cannot hold."""
    if not isinstance(key, str) or not key or "/" in key:
        raise ValueError(f"key_added={key!r} is no valid key: files need one that is not empty and has no '/'.")


def check_slots(adata: AnnData, key: str, fill: str, rep_name: str) -> None:
    """Check where results will be written.

    Raises
    ------
    ValueError
        If ``key`` cannot be a key, or stands for an entry that scot_hycnn did not write, or ``fill`` is unknown.
    """
    if fill not in FILLS:
        raise ValueError(f"fill={fill!r} is unknown; choose one of {list(FILLS)}.")
    check_key(key)
    moved = f"X_{key}"
    if key in ("X_pca", "pca") or moved in (rep_name, "X_pca"):
        raise ValueError(f"key_added={key!r} would replace the representation {moved!r}; choose another.")
    if key in adata.uns and not is_fit(adata.uns[key]):
        raise ValueError(
            f"key_added={key!r} would replace adata.uns[{key!r}], which scot_hycnn did not write; choose another."
        )


def check_absent(adata: AnnData, key: str, suffixes: Iterable[str]) -> None:
    """Raise a ValueError if cells moved part of the way would replace the full prediction."""
    for suffix in suffixes:
        slot = Slots.named(key, suffix).moved
        if slot in adata.obsm:
            raise ValueError(
                f"Cells moved part of the way (t below 1) would replace the full prediction {slot!r} and be read as "
                f"predicted; pass key_added, for instance key_added='{key}_half'."
            )


def check_foreign(adata: AnnData, key: str, suffixes: Iterable[str], known: Collection[str]) -> None:
    """Raise a ValueError if a slot exists that is not among ``known``, the slots of a fit under this key."""
    foreign = [
        f"{name!r} (adata.{attribute})"
        for suffix in suffixes
        for attribute, names in Slots.named(key, suffix).of_fit.items()
        for name in names
        if name in getattr(adata, attribute) and name not in known
    ]
    if foreign:
        raise ValueError(
            f"key_added={key!r} would replace {', '.join(foreign)}, which no fit of this key wrote; pass another "
            "key_added, or delete them."
        )


def slugs(labels: Sequence[str]) -> dict[str, str]:
    """Make a part of a key of each label: it survives every file format, and no two are the same.

    Parameters
    ----------
    labels
        Distinct labels, any characters.

    Returns
    -------
    Slug to label, in the order of the labels. A slug has at most 100 letters, digits and ``_ . -``, and does not begin
    with ``_`` or ``.``, which have a meaning in HDF5 and zarr. Slugs differ in more than case: zarr stores are folders,
    and some file systems ignore case.

    Examples
    --------
    >>> from scot_hycnn._anndata import slugs
    >>> slugs(["BCR/FcR-XL", "BCR_FcR-XL", "IFN-β"])
    {'BCR_FcR-XL': 'BCR/FcR-XL', 'BCR_FcR-XL_2': 'BCR_FcR-XL', 'IFN-': 'IFN-β'}
    """
    result: dict[str, str] = {}
    taken: set[str] = set()
    counts: dict[str, int] = {}  # a search from _2 on would be quadratic where thousands of labels have one base
    for label in labels:
        base = re.sub(r"[^A-Za-z0-9_.-]+", "_", label)[:80].strip("_.") or "target"
        if not is_slug(base):
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
    """Whether it is a name that :func:`slugs` gives."""
    # X_hycnn_ot_inverse_... holds the inverse maps, and n_training counts the cells of 'source' beside the targets.
    is_reserved = name.lower().startswith("inverse") or name.lower() == "source"
    return bool(re.fullmatch(r"[A-Za-z0-9-][A-Za-z0-9_.-]{0,99}", name)) and not is_reserved
