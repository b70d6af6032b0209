"""A convex function with a nonlinear gradient in closed form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp, softmax

Samples: TypeAlias = NDArray[np.floating[Any]]  # (points, dimensions)


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
