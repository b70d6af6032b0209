"""Unpaired samples with the map between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Samples: TypeAlias = NDArray[np.floating[Any]]  # (cells, dimensions)


@dataclass(frozen=True)
class Pair:
    """Source and target samples that are not paired, test samples that are, and the true map.

    Parameters
    ----------
    x
        Source samples, float32, shape (n, d).
    y
        Target samples, float32, shape (n, d): the map of other source draws than ``x``, so that row i of
        ``y`` says nothing about row i of ``x``.
    x_test
        Fresh source samples, float32, shape (n_test, d).
    y_test
        ``transport(x_test)``, float32, shape (n_test, d), row by row.
    transport
        The optimal transport map T from source to target for squared Euclidean cost; takes and returns arrays
        of shape (any, d).

    Examples
    --------
    >>> import numpy as np
    >>> from scot_hycnn.datasets import brenier_pair
    >>> pair = brenier_pair("cubic", n_dims=2, n_cells=100)
    >>> bool(np.allclose(pair.y_test, pair.transport(pair.x_test)))
    True
    """

    x: Samples
    y: Samples
    x_test: Samples
    y_test: Samples
    transport: Callable[[Samples], Samples]


def draw_pair(
    source: Callable[[int], Samples], transport: Callable[[Samples], Samples], n_cells: int, n_test: int
) -> Pair:
    """Draw the three samples of a pair, each from fresh source draws.

    Parameters
    ----------
    source
        Draws that many source samples.
    transport
        The map T.
    n_cells
        Size of the source and of the target sample.
    n_test
        Size of the paired test sample.

    Returns
    -------
    The pair.
    """
    x = source(n_cells).astype(np.float32)
    y = transport(source(n_cells)).astype(np.float32)
    x_test = source(n_test).astype(np.float32)
    return Pair(x, y, x_test, transport(x_test).astype(np.float32), transport)


def check_sizes(n_dims: int, n_cells: int, n_test: int) -> None:
    """Raise ValueError if one of the sizes of a pair is not positive.

    Parameters
    ----------
    n_dims, n_cells, n_test
        The sizes as the user gave them.

    Raises
    ------
    ValueError
        If one is below 1.
    """
    for name, size in {"n_dims": n_dims, "n_cells": n_cells, "n_test": n_test}.items():
        if size < 1:
            raise ValueError(f"{name}={size}; it has to be at least 1.")
