"""Training and validation cells, in the coordinates of training."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.cluster import MiniBatchKMeans
from torch import Tensor

from scot_hycnn.potentials import Gaussian
from scot_hycnn.solver.model._support import N_POINTS, Support

from ._checks import SOURCE, as_table, check_same_dimensions, check_table
from ._coordinates import Coordinates
from ._groups import Groups, Strata

Array = NDArray[np.float64]
# Numbers of any kind, in an array or in what becomes one: it may be in a file, and there may be hundreds.
Given = Any

# Scoring costs n m distances; beyond this many cells the choice of a blend gains nothing.
MAX_VALIDATION_CELLS = 2000


def check_cells(x: ArrayLike, y: ArrayLike, *, target: str = "y (target)") -> tuple[NDArray[Any], NDArray[Any]]:
    """Both clouds as arrays, or a ValueError that says what is wrong."""
    source, own = as_table(x, SOURCE), as_table(y, target)
    check_same_dimensions(source, own, target)
    check_table(source, SOURCE)
    check_table(own, target)
    return source, own


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
    all_cells
        Balanced coordinates from the validation cells too: the Gaussian map that is kept where no network is better.
    strata_x, strata_y
        How batches are drawn from the training cells; None draws all cells alike.
    weights_x
        Weight of each training source cell, shape (n,), sum 1; None counts all the same.
    far_x, far_y
        Row numbers, among the cells that were given, of those that lie far from all others and take no part in the fit.
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
    all_cells: Coordinates
    strata_x: Strata | None = None
    strata_y: Strata | None = None
    weights_x: Array | None = None
    far_x: NDArray[np.intp] = field(default_factory=lambda: np.empty(0, dtype=np.intp))
    far_y: NDArray[np.intp] = field(default_factory=lambda: np.empty(0, dtype=np.intp))

    @classmethod
    def prepare(
        cls, x: Array, y: Array, fraction: float, *, rng: int, device: str, groups: Groups | None = None
    ) -> Cells:
        """Split both clouds and balance them by the training cells' Gaussian map; with groups in their proportions."""
        generator = np.random.default_rng(rng)
        if groups is None:
            (x_train, x_held), (y_train, y_held) = (split(cells, fraction, generator) for cells in (x, y))
            sampling: dict[str, Any] = {}
            balanced, all_cells = _balanced(x_train, y_train), _balanced(x, y)
        else:
            in_x, in_y = groups.hold_out(fraction, MAX_VALIDATION_CELLS, generator)
            x_train, x_held, y_train, y_held = x[~in_x], x[in_x], y[~in_y], y[in_y]
            seen = groups.take(~in_x, ~in_y)
            strata_x, strata_y = (Strata.of(cloud, seen.proportions, device) for cloud in (seen.x, seen.y))
            sampling = {"strata_x": strata_x, "strata_y": strata_y, "weights_x": seen.weights[0]}
            balanced, all_cells = _balanced(x_train, y_train, *seen.weights), _balanced(x, y, *groups.weights)
        # Training is watched on some of these cells: in file order these would be of the cell types that come first.
        x_held, y_held = generator.permutation(x_held), generator.permutation(y_held)
        xi, eta = (
            torch.as_tensor(cells, dtype=torch.float32, device=device)
            for cells in (balanced.source(x_train), balanced.target(y_train))
        )
        return cls(balanced, xi, eta, *_seen_by(balanced, x_held, y_held, device), all_cells, **sampling)

    def validated_on(self, x: Array, y: Array) -> Cells:
        """The same training cells, with others to validate on."""
        xi, eta, *_, gaussian_x, gaussian_y = _seen_by(self.coordinates, x, y, str(self.x.device))
        return replace(
            self,
            x_validation=xi,
            y_validation=eta,
            x_validation_original=x,
            y_validation_original=y,
            gaussian_x=gaussian_x,
            gaussian_y=gaussian_y,
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

        return replace(
            self,
            coordinates=own,
            x=source(self.x),
            y=target(self.y),
            x_validation=source(self.x_validation),
            y_validation=target(self.y_validation),
            gaussian_x=self.gaussian_x / balanced.scale,
            gaussian_y=self.gaussian_y / balanced.scale,
        )

    def support(self, coordinates: Coordinates, *, rng: int) -> Support:
        """What the map knows of where it was trained, in its coordinates."""
        generator = torch.Generator().manual_seed(rng)
        rows = torch.randperm(len(self.x), generator=generator, device=generator.device)[:N_POINTS]
        points = coordinates.source(
            self.coordinates.invert_source(np.asarray(self.x[rows.to(self.x.device)].cpu().double()))
        )
        validation = coordinates.source(self.x_validation_original)
        return Support.of(
            *(torch.as_tensor(cells, dtype=torch.float32, device="cpu") for cells in (points, validation))
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


def _balanced(x: Array, y: Array, weights_x: Array | None = None, weights_y: Array | None = None) -> Coordinates:
    return Coordinates.from_gaussian(Gaussian.fit(x, y, weights_x=weights_x, weights_y=weights_y))


def _seen_by(
    coordinates: Coordinates, x: Array, y: Array, device: str
) -> tuple[Tensor, Tensor, Array, Array, Tensor, Tensor]:
    """Validation cells in balanced coordinates, as they were given, and what the Gaussian map makes of them."""
    xi, eta = (
        torch.as_tensor(cells, dtype=torch.float32, device=device)
        for cells in (coordinates.source(x), coordinates.target(y))
    )
    return xi, eta, x, y, 0.5 * xi.square().sum(1), 0.5 * eta.square().sum(1)


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
