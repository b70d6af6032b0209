"""Checks that more than one place makes."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._arrays import without_mask

# Covariances and their eigenvalues need squares.
LARGEST = 1e100
# What messages call the source cells.
SOURCE = "x (source)"
# So many names fit into a message.
NAMED = 20


class UnusableError(ValueError):
    """Something is wrong with one cloud of cells, or with its groups: there may be others of the kind.

    Parameters
    ----------
    message
        What, and what to do.
    kind
        The same for all clouds that lack the same thing.
    found
        What this one has, in a word or two.
    """

    def __init__(self, message: str, *, kind: str, found: str) -> None:
        super().__init__(message)
        self.kind, self.found = kind, found

    def __reduce__(self) -> tuple[Any, ...]:
        return _unusable, (str(self), self.kind, self.found)


# Kinds of which more cells are the cure: a screen can do without such targets.
FEW_CELLS, FEW_IN_GROUPS = "too few cells", "too few cells in their groups"


def _unusable(message: str, kind: str, found: str) -> UnusableError:
    return UnusableError(message, kind=kind, found=found)


def raise_together(problems: Sequence[tuple[str, UnusableError]], n_targets: int, *, advice: str = "") -> None:
    """Raise one error that names all targets of a screen with a problem.

    Parameters
    ----------
    problems
        Names of targets, and what is wrong with each. Nothing is raised if there are none.
    n_targets
        How many targets there are.
    advice
        What to do about it, where the problems themselves do not say it.

    Raises
    ------
    ValueError
        If there are problems.
    """
    if not problems:
        return
    said = []
    for kind in dict.fromkeys(problem.kind for _, problem in problems):
        alike = [(name, problem) for name, problem in problems if problem.kind == kind]
        named = several([f"{name} ({problem.found})" for name, problem in alike])
        name, problem = alike[0]
        first = str(problem) if name in str(problem) else f"{name}: {problem}"
        said.append(first if len(alike) == 1 else f"{len(alike)} of {n_targets} targets have {kind}: {named}. {first}")
    raise ValueError(" ".join([*said, *filter(None, [advice])])) from problems[0][1]


def several(names: Sequence[str], most: int = NAMED) -> str:
    """Names for a message, which ends with how many are not shown."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def is_whole(value: object, *, least: int) -> bool:
    """Whether it is a whole number of at least that, which fits 64 bits; NumPy's count, bools do not."""
    return isinstance(value, Integral) and not isinstance(value, bool) and least <= int(value) < 2**63


def least_cells(n_dims: int) -> int:
    """Cells of a cloud without which there is no fit: for a covariance, and something to validate on."""
    return max(20, 2 * n_dims)


def as_table(cells: Any, name: str) -> NDArray[Any]:
    """Numbers of cells and dimensions as an array; tensors of PyTorch too, wherever they are.

    Raises
    ------
    UnusableError
        If they are something else.
    """
    if hasattr(cells, "detach"):  # a tensor may be on a GPU, in bfloat16, or part of a graph; NumPy refuses all three
        cells = cells.detach().cpu()
        cells = cells.float().numpy() if cells.dtype.is_floating_point and cells.dtype.itemsize < 4 else cells.numpy()
    table = np.asarray(without_mask(cells))
    if table.ndim != 2 or table.shape[1] < 1 or table.dtype.kind not in "fiub":
        raise UnusableError(
            f"{name} must be numbers of shape (cells, dimensions); it has shape {table.shape} and dtype {table.dtype}.",
            kind="no table of numbers",
            found=f"shape {table.shape}, dtype {table.dtype}",
        )
    return table


def check_table(cells: NDArray[Any], name: str) -> None:
    """Check that a map can be fitted on these cells.

    Raises
    ------
    UnusableError
        If they are too few, not finite, or too large to be squared.
    """
    needed = least_cells(cells.shape[1])
    if len(cells) < needed:
        raise UnusableError(
            f"{name} has {len(cells)} cells in {cells.shape[1]} dimensions; at least {needed} are needed "
            "(20, and twice the dimensions). Use fewer components (n_pcs) or more cells.",
            kind=FEW_CELLS,
            found=f"{len(cells)} cells",
        )
    bad = ~np.isfinite(cells).all(1)
    if bad.any():
        raise UnusableError(
            f"{name} has NaN or infinite values in {int(bad.sum())} of {len(cells)} rows, the first in row "
            f"{int(np.argmax(bad))}; remove or impute them.",
            kind="NaN or infinite values",
            found=f"{int(bad.sum())} rows",
        )
    largest = max(float(cells.max()), -float(cells.min()))
    if largest > LARGEST:
        raise UnusableError(
            f"{name} has values up to {largest:.1g}, and {LARGEST:.0g} is the most that can be squared safely. "
            "Divide both clouds by the same number.",
            kind="values too large to be squared",
            found=f"{largest:.1g}",
        )


def check_same_dimensions(x: NDArray[Any], y: NDArray[Any], target: str) -> None:
    """Check that both clouds are in one space.

    Raises
    ------
    UnusableError
        If they have other numbers of dimensions.
    """
    if x.shape[1] != y.shape[1]:
        raise UnusableError(
            f"x (source) has {x.shape[1]} dimensions and {target} {y.shape[1]}; both need the same representation.",
            kind="other dimensions than the source",
            found=f"{y.shape[1]} dimensions",
        )
