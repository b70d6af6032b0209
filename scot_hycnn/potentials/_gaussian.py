"""The Gaussian (Bures) map: optimal transport between two normal distributions, in closed form."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.covariance import ledoit_wolf

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Gaussian:
    r"""Quadratic potential whose gradient is the optimal map between two normal distributions.

    .. math::
        T(x) = m_y + M (x - m_x), \qquad
        M = \Sigma_x^{-1/2} (\Sigma_x^{1/2} \Sigma_y \Sigma_x^{1/2})^{1/2} \Sigma_x^{-1/2}

    Parameters
    ----------
    mean_x, mean_y
        Means of source and target, shape (d,).
    covariance_x, covariance_y
        Covariances, shape (d, d), positive definite.

    References
    ----------
    Dowson & Landau (1982), J. Multivariate Anal. 12, 450-455; Takatsu (2011), Osaka J. Math. 48. Ledoit & Wolf (2004),
    J. Multivariate Anal. 88, 365-411.

    Examples
    --------
    >>> import numpy as np
    >>> from scot_hycnn.potentials import Gaussian
    >>> x = np.random.default_rng(0).normal(size=(500, 3))
    >>> gaussian = Gaussian.fit(x, 2 * x + 1)
    >>> bool(np.abs(gaussian.gradient(x) - (2 * x + 1)).max() < 1e-4)
    True
    >>> gaussian.matrix.round(3).tolist()
    [[2.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 2.0]]
    >>> gaussian.value(x).shape
    (500,)
    """

    mean_x: Array
    mean_y: Array
    covariance_x: Array
    covariance_y: Array

    @classmethod
    def fit(
        cls, x: ArrayLike, y: ArrayLike, *, weights_x: ArrayLike | None = None, weights_y: ArrayLike | None = None
    ) -> Gaussian:
        """Estimate the means, and the covariances with the shrinkage of Ledoit & Wolf (2004).

        Parameters
        ----------
        x, y
            Source and target cells, shape (n, d) and (m, d).
        weights_x, weights_y
            Weight of each cell, shape (n,) and (m,), not negative; None counts all the same.
        """
        x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
        (mean_x, covariance_x), (mean_y, covariance_y) = _moments(x, weights_x), _moments(y, weights_y)
        return cls(mean_x, mean_y, covariance_x, covariance_y)

    @property
    def matrix(self) -> Array:
        """M, shape (d, d), symmetric and positive definite."""
        root, inverse_root = _symmetric_power(self.covariance_x, 0.5, -0.5)
        (middle,) = _symmetric_power(root @ self.covariance_y @ root, 0.5)
        matrix = inverse_root @ middle @ inverse_root
        return (matrix + matrix.T) / 2

    def value(self, x: ArrayLike) -> Array:
        """Return f(x), shape (n,), in squared units of the points x, shape (n, d); it is 0 at the source's mean."""
        centred = np.asarray(x, dtype=np.float64) - self.mean_x
        quadratic: Array = 0.5 * ((centred @ self.matrix) * centred).sum(1)
        return quadratic + centred @ self.mean_y

    def gradient(self, x: ArrayLike) -> Array:
        """Return T(x), shape (n, d), in the units of the points x, shape (n, d)."""
        return self.mean_y + (np.asarray(x, dtype=np.float64) - self.mean_x) @ self.matrix


def _moments(cells: Array, weights: ArrayLike | None) -> tuple[Array, Array]:
    """Return the mean, shape (d,), and the shrunk covariance, shape (d, d)."""
    if weights is None:
        mean: Array = cells.mean(0)
        centred = cells - mean
    else:
        share: Array = np.asarray(weights, dtype=np.float64)
        share = share / share.sum()
        mean = share @ cells
        # Rows of this length have the weighted covariance, and fourth moments by which heavy weights mean more
        # shrinkage.
        centred = np.sqrt(len(cells) * share)[:, None] * (cells - mean)
    # Unit scale keeps the fourth moments that Ledoit-Wolf takes in range where values are 1e8 or 1e-8.
    scale = float(np.sqrt(np.mean(centred**2))) or 1.0
    covariance, _ = ledoit_wolf(centred / scale, assume_centered=True)
    # A component that never varies would make the map singular; with a floor it is only shifted.
    floor = 1e-6 * np.trace(covariance) / len(covariance) or 1.0
    return mean, np.asarray((covariance + floor * np.eye(len(covariance))) * scale**2, dtype=np.float64)


def _symmetric_power(matrix: Array, *exponents: float) -> list[Array]:
    """Return powers of a symmetric, positive definite matrix."""
    values, vectors = np.linalg.eigh(matrix)
    values = np.maximum(values, np.finfo(float).eps * values[-1])
    return [(vectors * values**exponent) @ vectors.T for exponent in exponents]
