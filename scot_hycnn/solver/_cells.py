"""Training and validation cells, in the coordinates of training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.cluster import MiniBatchKMeans
from torch import Tensor

from scot_hycnn.potentials import Gaussian

from ._coordinates import Coordinates

Array = NDArray[np.float64]

# Scoring costs n m distances; beyond this many cells the choice of a blend gains nothing.
MAX_VALIDATION_CELLS = 2000


def check_cells(x: ArrayLike, y: ArrayLike) -> tuple[Array, Array]:
    """Both clouds as float64 arrays, or a ValueError that says what is wrong."""
    x, y = (np.asarray(cells) for cells in (x, y))
    for name, cells in (("x (source)", x), ("y (target)", y)):
        if cells.ndim != 2 or cells.shape[1] < 1 or cells.dtype.kind not in "fiub":
            raise ValueError(
                f"{name} must be numbers of shape (cells, dimensions); it has shape {cells.shape} and dtype "
                f"{cells.dtype}."
            )
    if x.shape[1] != y.shape[1]:
        raise ValueError(
            f"x (source) has {x.shape[1]} dimensions and y (target) {y.shape[1]}; both need the same representation."
        )
    needed = max(20, 2 * x.shape[1])
    for name, cells in (("x (source)", x), ("y (target)", y)):
        if len(cells) < needed:
            raise ValueError(
                f"{name} has {len(cells)} cells in {x.shape[1]} dimensions; at least {needed} are needed "
                "(20, and twice the dimensions). Use fewer components (n_pcs) or more cells."
            )
        bad = ~np.isfinite(cells).all(1)
        if bad.any():
            raise ValueError(
                f"{name} has NaN or infinite values in {int(bad.sum())} of {len(cells)} rows, the first in row "
                f"{int(np.argmax(bad))}; remove or impute them."
            )
    return x.astype(np.float64), y.astype(np.float64)


@dataclass(frozen=True)
class Cells:
    """Both clouds, split and balanced.

    Parameters
    ----------
    coordinates
        Balanced coordinates, from the training cells alone.
    x, y
        Training cells in them, shape (n, d) and (m, d).
    x_validation, y_validation
        Validation cells in them.
    x_validation_original, y_validation_original
        The same validation cells as they were given.
    gaussian_x, gaussian_y
        The Gaussian map's potential at the source and its conjugate at the target validation cells.
    """

    coordinates: Coordinates
    x: Tensor
    y: Tensor
    x_validation: Tensor
    y_validation: Tensor
    x_validation_original: Array
    y_validation_original: Array
    gaussian_x: Tensor
    gaussian_y: Tensor

    @classmethod
    def prepare(cls, x: Array, y: Array, fraction: float, *, rng: int, device: str) -> Cells:
        """Split both clouds and balance them by the training cells' Gaussian map."""
        generator = np.random.default_rng(rng)
        (x, x_validation), (y, y_validation) = (split(cells, fraction, generator) for cells in (x, y))
        coordinates = Coordinates.from_gaussian(Gaussian.fit(x, y))

        def tensor(cells: Array) -> Tensor:
            return torch.as_tensor(cells, dtype=torch.float32, device=device)

        xi, eta = tensor(coordinates.source(x_validation)), tensor(coordinates.target(y_validation))
        return cls(
            coordinates,
            tensor(coordinates.source(x)),
            tensor(coordinates.target(y)),
            xi,
            eta,
            x_validation,
            y_validation,
            0.5 * xi.square().sum(1),
            0.5 * eta.square().sum(1),
        )

    def centred(self) -> Cells:
        """The same cells in their own coordinates but for the means, for methods that are to be seen without ours."""
        balanced = self.coordinates
        own = Coordinates(balanced.mean_x, balanced.mean_y, np.eye(balanced.n_dims), 1.0)

        def tensor(cells: Array) -> Tensor:
            return torch.as_tensor(cells, dtype=torch.float32, device=self.x.device)

        def source(x: Tensor) -> Tensor:
            return tensor(own.source(balanced.invert_source(np.asarray(x.cpu().double()))))

        def target(y: Tensor) -> Tensor:
            return tensor(own.target(balanced.invert_target(np.asarray(y.cpu().double()))))

        return Cells(
            own,
            source(self.x),
            target(self.y),
            source(self.x_validation),
            target(self.y_validation),
            self.x_validation_original,
            self.y_validation_original,
            self.gaussian_x / balanced.scale,
            self.gaussian_y / balanced.scale,
        )

    def w2_squared(self, semi_dual: float) -> float:
        r"""Squared Wasserstein-2 distance from J on validation cells, in centred coordinates.

        :math:`\frac12 W_2^2 = \frac12 E|X|^2 + \frac12 E|Y|^2 - J`, with the means split off before anything is
        squared: clouds far from the origin would cancel.
        """
        xi, eta = (
            self.x_validation_original - self.coordinates.mean_x,
            self.y_validation_original - self.coordinates.mean_y,
        )
        shift = self.coordinates.mean_x - self.coordinates.mean_y
        spread = (xi**2).sum(1).mean() + (eta**2).sum(1).mean()
        estimate = shift @ shift + 2 * shift @ (xi.mean(0) - eta.mean(0)) + spread - 2 * semi_dual
        # Sampling noise can push an estimate near zero below it.
        return max(float(estimate), 0.0)

    def batch(self, n_maps: int, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Random training cells, drawn with replacement for each map: shape (K, size, d) twice."""
        x, y = (
            cells[torch.randint(len(cells), (n_maps, size), generator=generator, device=cells.device)]
            for cells in (self.x, self.y)
        )
        return x, y


def split(cells: Array, fraction: float, rng: np.random.Generator) -> tuple[Array, Array]:
    """Training and validation cells, the latter spread over the cloud in proportion.

    Scores vary most between cell types. Few validation cells drawn at random would hold too many of one type, and the
    choice of the blend would follow this accident. So cells are put in the order of their k-means cluster, at random
    within it, and validation takes rows at even steps (systematic sampling).

    Parameters
    ----------
    cells
        Shape (n, d).
    fraction
        Part of them for validation; at least five and at most MAX_VALIDATION_CELLS are taken.
    rng
        Source of randomness.

    Returns
    -------
    Training cells and validation cells.
    """
    n = len(cells)
    n_validation = min(max(round(fraction * n), 5), MAX_VALIDATION_CELLS)
    seed = int(rng.integers(2**31))
    clustering = MiniBatchKMeans(min(10, n // 5), n_init=1, batch_size=1024, random_state=seed)
    order = np.lexsort((rng.random(n), _clusters(clustering, cells)))
    step = n / n_validation
    taken = np.zeros(n, dtype=bool)
    taken[order[((rng.random() + np.arange(n_validation)) * step).astype(np.intp)]] = True
    return cells[~taken], cells[taken]


def _clusters(clustering: MiniBatchKMeans, cells: Array) -> NDArray[np.integer]:
    # Unit scale keeps squared distances of values such as 1e8 or 1e-8 in range; distinct points may be few.
    centred = cells - cells.mean(0)
    scale = np.abs(centred).max()
    if scale == 0:
        return np.zeros(len(cells), dtype=np.intp)
    labels: NDArray[np.integer] = clustering.fit_predict(centred / scale)
    return labels
