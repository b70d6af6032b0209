"""New cells that resemble given ones."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def smoothed_bootstrap(
    cells: NDArray[np.float64], labels: NDArray[np.str_], n_draws: int, generator: np.random.Generator
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    r"""Draw new cells from a kernel density estimate of each label, with the variance kept.

    A new cell is a resampled one plus Gaussian noise, contracted towards the label's mean c so that every
    coordinate keeps the standard deviation :math:`\sigma` that it has within the label:

    .. math:: c + \frac{x_i - c + h\,\sigma\odot\varepsilon}{\sqrt{1 + h^2}}, \qquad
              h = \left(\frac{4}{(d + 2)\, n}\right)^{1/(d + 4)}

    with n cells of that label (Silverman's rule).

    Parameters
    ----------
    cells
        Coordinates, shape (n, d).
    labels
        Label of each cell, shape (n,).
    n_draws
        Number of new cells.
    generator
        Random generator.

    Returns
    -------
    The row of ``cells`` each new cell comes from, shape (n_draws,), and its coordinates, shape (n_draws, d).

    References
    ----------
    Silverman (1986), Density Estimation for Statistics and Data Analysis (the bandwidth and the bootstrap).
    """
    n_dims = cells.shape[1]
    parents = generator.integers(len(cells), size=n_draws)
    noise = generator.normal(size=(n_draws, n_dims))
    draws = np.empty((n_draws, n_dims))
    for label in np.unique(labels):
        known, new = cells[labels == label], labels[parents] == label
        centre, spread = known.mean(axis=0), known.std(axis=0)
        h = (4 / ((n_dims + 2) * len(known))) ** (1 / (n_dims + 4))
        offset = cells[parents[new]] - centre + h * spread * noise[new]
        draws[new] = centre + offset / np.sqrt(1 + h**2)
    return parents, draws
