"""Names of everything that is written into an AnnData, and the checks of these names before any work."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from anndata import AnnData

FILLS = ("nan", "identity")
# An entry of uns that has these keys is a fit.
FIT_KEYS = {"schema_version", "models", "targets"}
# Entries of a fit by tl.hycnn_screen: the state of the screen, and the parameters of the networks that its maps share.
SCREEN, SHARED_THETA = "screen", "shared_theta"


@dataclass(frozen=True)
class Slots:
    """Keys of the results of one target, as :func:`scot_hycnn.tl.hycnn_ot` lists them."""

    moved: str  # of obsm
    inverse: str
    displacement: str  # of obs
    std: str
    out_of_support: str
    weight: str  # of source and target cells, where mass may change
    growth: str
    layer: str  # of layers, where tl.decode writes the genes of the moved cells

    @classmethod
    def named(cls, key: str, slug: str) -> Slots:
        """Return the keys under ``key``; ``slug`` is empty if there is one target only."""
        suffix = f"_{slug}" if slug else ""
        names = ("displacement", "std", "out_of_support", "weight", "growth")
        displacement, std, score, weight, growth = (f"{key}_{name}{suffix}" for name in names)
        moved, inverse = f"X_{key}{suffix}", f"X_{key}_inverse{suffix}"
        return cls(moved, inverse, displacement, std, score, weight, growth, f"{key}{suffix}")


# Attributes of the AnnData, and the slots that a fit may write there.
OF_FIT = {"obsm": ("moved", "inverse"), "obs": ("displacement", "std", "out_of_support", "weight", "growth")}


def evaluation_slot(key: str) -> str:
    """Return the key of uns with the scores of the fit ``key``."""
    return f"{key}_evaluation"


def unseen_slot(key: str, slug: str) -> str:
    """Return the key of uns with the covariates of a condition that was predicted unseen, and its distance."""
    return f"{key}_unseen_{slug}"


def loadings_slot(key: str) -> str:
    """Return the key of varm with the coefficients by which :func:`scot_hycnn.tl.decode` predicts every gene."""
    return f"{key}_loadings"


def mark_slot(key: str) -> str:
    """Return the column of var that says which genes the representation was made from."""
    return f"{key}_in_representation"


def mean_std_slot(layer: str) -> str:
    """Return the column of obs with the standard deviation of the predicted mean of each cell's group."""
    return f"{layer}_mean_std"


def layer_names(adata: AnnData) -> list[str]:
    """Return the names of the layers, without None, which stands for X since anndata 0.13."""
    return [name for name in adata.layers if name is not None]


def is_fit(value: object) -> bool:
    """Whether an entry of uns looks like a fit of ours."""
    return isinstance(value, dict) and value.keys() >= FIT_KEYS


def check_key(key: object) -> None:
    """Raise a ValueError for a key that files cannot hold."""
    if not isinstance(key, str) or not key or "/" in key:
        raise ValueError(f"key_added={key!r} is no valid key: files need one that is not empty and has no '/'.")


def check_slots(adata: AnnData, key: str, fill: str, rep_name: str) -> None:
    """Check ``fill``, and that ``key`` can be a key and stands for nothing that scot_hycnn did not write."""
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


def slugs(labels: Sequence[str]) -> dict[str, str]:
    """Return slug to label for distinct labels: slugs are parts of keys that every file format can hold."""
    result: dict[str, str] = {}
    taken: set[str] = set()
    counts: dict[str, int] = {}  # a search from _2 on would be quadratic where thousands of labels have one base
    for label in labels:
        # HDF5 and zarr give '/', and '_' or '.' at the beginning, a meaning; files of long names cannot be written.
        base = re.sub(r"[^A-Za-z0-9_.-]+", "_", label)[:80].strip("_.") or "target"
        if not is_slug(base):
            base = f"target_{base}"
        slug, count = base, counts.get(base.lower(), 1)
        # Slugs differ in more than case: zarr stores are folders, and some file systems ignore case.
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
