"""A convex function with a gradient in closed form, and unpaired samples with such a map between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp, softmax

Samples: TypeAlias = NDArray[np.floating[Any]]  # (points, dimensions)

_NAMES = ("identity", "scale", "sign", "cubic", "logsumexp")


@dataclass(frozen=True)
class LogSumExpPotential:
    r"""Smooth maximum of K affine functions plus a parabola: a convex potential and its gradient.

    .. math::
        f(x) &= \tfrac{q}{2}|x|^2 + s \log \sum_k \exp\frac{\langle w_k, x\rangle - b_k}{s} \\
        \nabla f(x) &= q x + \sum_k p_k(x)\, w_k,
        \qquad p(x) = \operatorname{softmax}\frac{W x - b}{s}

    Its gradient is the optimal transport map from any distribution that has a density to its image. With q = 1 it moves
    a cell by the vector :math:`w_k` of the cell's region, mixed where regions meet.

    Parameters
    ----------
    vectors, offsets
        :math:`w_k`, shape (K, d), and :math:`b_k`, shape (K,).
    temperature, quadratic
        s > 0, the width of the transition between regions, and q >= 0.

    Raises
    ------
    ValueError
        If the shapes do not fit, ``temperature`` is not positive or ``quadratic`` is negative.

    References
    ----------
    Brenier (1991), Polar factorization and monotone rearrangement of vector-valued functions, CPAM 44(4).

    Examples
    --------
    >>> import numpy as np
    >>> from scot_hycnn.datasets import LogSumExpPotential
    >>> f = LogSumExpPotential(np.array([[0.0], [2.0]]), np.zeros(2), temperature=0.1, quadratic=1.0)
    >>> f.transport(np.array([[-3.0], [3.0]])).round(6).tolist()  # cells on the right move by 2
    [[-3.0], [5.0]]
    >>> f.potential(np.array([[-3.0], [3.0]])).round(6).tolist()
    [4.5, 10.5]
    """

    vectors: NDArray[np.float64]
    offsets: NDArray[np.float64]
    temperature: float
    quadratic: float

    def __post_init__(self) -> None:
        w, b, s, q = self.vectors, self.offsets, self.temperature, self.quadratic
        if w.ndim != 2 or b.shape != w.shape[:1]:
            raise ValueError(f"vectors has shape {w.shape} and offsets {b.shape}; they have to be (K, d) and (K,).")
        if not (s > 0 and q >= 0):
            raise ValueError(f"temperature={s}, quadratic={q}; a convex f needs temperature > 0 and quadratic >= 0.")

    def potential(self, x: Samples) -> NDArray[np.float64]:
        """Return f(x), shape (n,), of points ``x``, shape (n, d)."""
        maximum = self.temperature * logsumexp((x @ self.vectors.T - self.offsets) / self.temperature, axis=1)
        return np.asarray(self.quadratic / 2 * (x**2).sum(axis=1) + maximum, dtype=np.float64)

    def transport(self, x: Samples) -> NDArray[np.float64]:
        """Return the gradient of f at points ``x``, shape (n, d), which is the transport map T(x), shape (n, d)."""
        shares = softmax((x @ self.vectors.T - self.offsets) / self.temperature, axis=1)
        return np.asarray(self.quadratic * x + shares @ self.vectors)


@dataclass(frozen=True)
class Pair:
    """Source and target samples that are not paired, test samples that are, and the true map.

    Parameters
    ----------
    x, y
        Source samples, and images of other source samples, float32, shape (n, d).
    x_test, y_test
        More source samples, and ``transport(x_test)``, float32, shape (n_test, d).
    transport
        The optimal transport map T from source to target for squared Euclidean cost, of arrays (any, d).

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


def gaussian_pair(n_dims: int, n_cells: int, *, n_test: int = 1000, rng: int | np.random.Generator | None = 0) -> Pair:
    r"""Draw samples of two random Gaussians with the optimal transport map in closed form.

    .. math:: T(x) = m_y + M (x - m_x)

    with M symmetric and positive definite. The source is :math:`N(m_x, \Sigma_x)`. Both matrices have random axes;
    standard deviations and stretches lie between ½ and 2, the means are draws of N(0, I).

    Parameters
    ----------
    n_dims, n_cells, n_test
        Dimension d, size n of the source sample and of the target sample, and size of the paired test sample.
    rng
        Seed or generator.

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
    _check_sizes(n_dims, n_cells, n_test)
    generator = np.random.default_rng(rng)
    mean_x, mean_y = generator.normal(size=(2, n_dims))
    # The root is that of the covariance of the source; the map stretches by a symmetric positive definite matrix, which
    # makes it the gradient of a convex function.
    root, stretch = _random_spd(n_dims, generator), _random_spd(n_dims, generator)

    def transport(x: Samples) -> Samples:
        return np.asarray(mean_y + (x - mean_x) @ stretch)

    return _draw_pair(lambda n: mean_x + generator.normal(size=(n, n_dims)) @ root, transport, n_cells, n_test)


def brenier_pair(
    name: str, n_dims: int, n_cells: int, *, n_test: int = 1000, rng: int | np.random.Generator | None = 0
) -> Pair:
    r"""Draw samples of a source distribution and of its image under a named gradient of a convex function.

    ========== ================================================= =====================
    name       T(x)                                              source
    ========== ================================================= =====================
    identity   :math:`x`                                         :math:`N(0, I)`
    scale      :math:`(1 + \sin(i)/2)\, x_i,\; i = 1 \dots d`    :math:`N(0, I)`
    sign       :math:`x + \operatorname{sign}(x)`                :math:`N(0, I)`
    cubic      :math:`4 x^3`, elementwise                        uniform on [-1, 1]^d
    logsumexp  :math:`x/10` + mixture of 8 random vectors        :math:`N(0, I)`
    ========== ================================================= =====================

    The first four are the synthetic maps of the HyCNN paper. The last one is a :class:`LogSumExpPotential`.

    Parameters
    ----------
    name
        One of the names above.
    n_dims, n_cells, n_test
        Dimension d, size n of the source sample and of the target sample, and size of the paired test sample.
    rng
        Seed or generator of samples and vectors.

    Returns
    -------
    The samples, float32, and the map.

    Raises
    ------
    ValueError
        If there is no map of that name or a size is below 1.

    References
    ----------
    Hundrieser, Kong & Schmidt-Hieber (2026), arXiv:2604.26942, app. D.3.

    Examples
    --------
    >>> from scot_hycnn.datasets import brenier_pair
    >>> pair = brenier_pair("sign", n_dims=2, n_cells=500)
    >>> bool(abs(pair.y).min() >= 1)  # the map leaves a gap around zero
    True
    """
    if name not in _NAMES:
        raise ValueError(f"name={name!r} is not a known map; choose one of {', '.join(_NAMES)}.")
    _check_sizes(n_dims, n_cells, n_test)
    generator = np.random.default_rng(rng)
    scale = 1 + np.sin(np.arange(1, n_dims + 1)) / 2
    maps: dict[str, Callable[[Samples], Samples]] = {
        "identity": lambda x: x,
        "scale": lambda x: scale * x,
        "sign": lambda x: x + np.sign(x),
        "cubic": lambda x: 4 * x**3,
    }
    if name == "logsumexp":
        vectors = generator.normal(size=(8, n_dims))
        vectors *= 3 / np.linalg.norm(vectors, axis=1, keepdims=True)
        offsets = generator.normal(size=8)
        maps[name] = LogSumExpPotential(vectors, offsets, temperature=0.5, quadratic=0.1).transport

    def source(n: int) -> Samples:
        if name == "cubic":
            return generator.uniform(-1, 1, size=(n, n_dims))
        return generator.normal(size=(n, n_dims))

    return _draw_pair(source, maps[name], n_cells, n_test)


def _check_sizes(n_dims: int, n_cells: int, n_test: int) -> None:
    """Raise a ValueError if one of the sizes is below 1."""
    for name, size in {"n_dims": n_dims, "n_cells": n_cells, "n_test": n_test}.items():
        if size < 1:
            raise ValueError(f"{name}={size}; it has to be at least 1.")


def _draw_pair(
    source: Callable[[int], Samples], transport: Callable[[Samples], Samples], n_cells: int, n_test: int
) -> Pair:
    """Draw the samples from ``source``, a function of their number."""
    x = source(n_cells).astype(np.float32)
    # Targets are images of other source samples: the samples are not paired.
    y = transport(source(n_cells)).astype(np.float32)
    x_test = source(n_test).astype(np.float32)
    return Pair(x, y, x_test, transport(x_test).astype(np.float32), transport)


def _random_spd(n_dims: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """Return a symmetric positive definite matrix with random axes and eigenvalues between ½ and 2."""
    axes, _ = np.linalg.qr(generator.normal(size=(n_dims, n_dims)))
    return np.asarray((axes * 2 ** generator.uniform(-1, 1, size=n_dims)) @ axes.T)
