"""Balanced coordinates: an exact change of variables in which the Gaussian map is the identity."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scot_hycnn.potentials._gaussian import Gaussian

Array = NDArray[np.float64]


def as_tensor(points: NDArray[np.floating], device: str | torch.device) -> Tensor:
    """Return points in the single precision of networks, on a device."""
    return torch.as_tensor(points, dtype=torch.float32, device=device)


def as_numpy(values: Tensor) -> Array:
    """Return the values in double precision, on the CPU."""
    return np.asarray(values.cpu().double())  # in this order: MPS has no doubles


@dataclass(frozen=True)
class Coordinates:
    r"""Linear change of variables that gives both clouds one diagonal covariance, of mean variance 1.

    For an invertible B, the potential :math:`f(x) = \tilde f(B(x - m_x))/c + \langle m_y, x\rangle` is convex iff
    :math:`\tilde f` is, and optimal between the clouds iff :math:`\tilde f` is between
    :math:`\tilde x = B(x - m_x)` and :math:`\tilde y = c B^{-T}(y - m_y)`.
    """

    # So nothing is lost, and |x~|^2/2 is the Gaussian map. Whitening x and y separately would break T = grad f.

    # Means of source and target, shape (d,); B, shape (d, d); and c, the factor of the inner product:
    # <x~, y~> = c <x - m_x, y - m_y>.
    mean_x: Array
    mean_y: Array
    matrix: Array
    scale: float

    @classmethod
    def from_gaussian(cls, gaussian: Gaussian) -> Coordinates:
        """Return coordinates in which the Gaussian map is the identity."""
        return cls.from_affine(gaussian.mean_x, gaussian.mean_y, gaussian.matrix, gaussian.covariance_x)

    @classmethod
    def from_affine(cls, mean_x: Array, mean_y: Array, matrix: Array, covariance_x: Array) -> Coordinates:
        """Return coordinates in which the map x to m_y + M (x - m_x) is the identity; M is positive definite."""
        # With M = R R, x -> R x and y -> R^-1 y have one covariance, whose axes become ours.
        values, vectors = np.linalg.eigh(matrix)
        root = (vectors * np.sqrt(values)) @ vectors.T
        variances, axes = np.linalg.eigh(root @ covariance_x @ root)
        scale = len(variances) / variances.sum()
        return cls(mean_x, mean_y, np.sqrt(scale) * axes.T @ root, float(scale))

    def around(self, centre: Array, moved: Array | None = None) -> Coordinates:
        """Return the coordinates of the map m + T(x - c) for those of T; ``moved`` is m, by default c itself."""
        return replace(self, mean_x=self.mean_x + centre, mean_y=self.mean_y + (centre if moved is None else moved))

    def source(self, x: NDArray[np.floating]) -> Array:
        """Return balanced coordinates of source points, (n, d) to (n, d)."""
        return _product(x - self.mean_x, self.matrix.T)

    def target(self, y: NDArray[np.floating]) -> Array:
        """Return balanced coordinates of target points, (m, d) to (m, d)."""
        return np.asarray(np.linalg.solve(self.matrix.T, (y - self.mean_y).T).T * self.scale, dtype=np.float64)

    def invert_source(self, x: Array) -> Array:
        """Return source points from their balanced coordinates."""
        return self.mean_x + np.asarray(np.linalg.solve(self.matrix, x.T).T)

    def invert_target(self, y: Array) -> Array:
        """Return target points from their balanced coordinates."""
        return self.mean_y + _product(y, self.matrix) / self.scale


def _product(points: Array, matrix: Array) -> Array:
    # PyTorch multiplies: threads of NumPy would wait for the cores that those of PyTorch keep, and the other way round.
    right = torch.tensor(matrix, dtype=torch.float64, device="cpu")
    product: Array = torch.mm(torch.from_numpy(np.asarray(points, dtype=np.float64)), right).numpy()
    return product
