"""Two Gaussians and the affine map between them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ._pair import Pair, Samples, check_sizes, draw_pair


def gaussian_pair(n_dims: int, n_cells: int, *, n_test: int = 1000, rng: int | np.random.Generator | None = 0) -> Pair:
    r"""Draw samples of two random Gaussians with the optimal transport map in closed form.

    .. math:: T(x) = m_y + M (x - m_x)

    with M symmetric and positive definite, hence the gradient of a convex function. The source is
    :math:`N(m_x, \Sigma_x)`, the target therefore :math:`N(m_y, M \Sigma_x M)`. Both matrices have random
    axes; standard deviations and stretches lie between ½ and 2, the means are draws of N(0, I).

    Parameters
    ----------
    n_dims
        Dimension d.
    n_cells
        Size n of the source sample and of the target sample.
    n_test
        Size of the paired test sample.
    rng
        Seed or generator of the parameters and the samples. The global generator is not used.

    Returns
    -------
    The samples, float32, and the map.

    Raises
    ------
    ValueError
        If a size is below 1.

    References
    ----------
    Peyré & Cuturi (2019), Computational Optimal Transport, remark 2.31.

    Examples
    --------
    >>> from scot_hycnn.datasets import gaussian_pair
    >>> pair = gaussian_pair(n_dims=3, n_cells=200)
    >>> pair.x.shape, pair.y.shape, pair.x_test.shape
    ((200, 3), (200, 3), (1000, 3))
    """
    check_sizes(n_dims, n_cells, n_test)
    generator = np.random.default_rng(rng)
    mean_x, mean_y = generator.normal(size=(2, n_dims))
    root = _random_spd(n_dims, generator)  # of the source's covariance
    stretch = _random_spd(n_dims, generator)

    def source(n: int) -> Samples:
        return np.asarray(mean_x + generator.normal(size=(n, n_dims)) @ root)

    def transport(x: Samples) -> Samples:
        return np.asarray(mean_y + (x - mean_x) @ stretch)

    return draw_pair(source, transport, n_cells, n_test)


def _random_spd(n_dims: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """Symmetric positive definite matrix with random axes and eigenvalues between ½ and 2."""
    axes, _ = np.linalg.qr(generator.normal(size=(n_dims, n_dims)))
    eigenvalues = 2 ** generator.uniform(-1, 1, size=n_dims)
    return np.asarray((axes * eigenvalues) @ axes.T)
