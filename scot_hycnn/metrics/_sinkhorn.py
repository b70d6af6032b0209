"""Entropic optimal transport of two uniform clouds."""

from __future__ import annotations

import warnings

import numpy as np

from ._checks import Samples

# An iteration costs a hundredth of an exponential of all costs, which a round begins with.
_ITERATIONS, _ROUNDS = 20, 500
# Mean relative error of the marginals. It leaves the value off by a millionth of the clouds' variance at most.
_TOLERANCE = 1e-4
# Over-relaxation (Thibault et al. 2021, Algorithms 14, 143): a third of the iterations; 1.8 diverges.
_RELAXATION = 1.5


def entropic(cost: Samples, epsilon: float) -> tuple[Samples, Samples]:
    r"""Dual potentials f, g of :math:`\min_\pi \langle \pi, C\rangle + \varepsilon\,KL(\pi \| a \otimes b)`.

    Sinkhorn's iterations, with the potentials absorbed into the kernel once a round (Schmitzer 2019, SIAM J. Sci.
    Comput. 41, alg. 2), so that no epsilon is too small for exponentials.

    Parameters
    ----------
    cost
        C, shape (n, m).
    epsilon
        Regularisation, in its units.

    Returns
    -------
    Shapes (n,) and (m,). The minimum is mean(f) + mean(g).

    Warns
    -----
    UserWarning
        If they have not converged.
    """
    f = cost.min(axis=1)
    g = (cost - f[:, None]).min(axis=0)  # every row and column of the first kernel has a 1
    for round_ in range(_ROUNDS):
        kernel = np.exp((f[:, None] + g - cost) / epsilon)
        u, v = np.ones(len(f)), np.ones(len(g))
        step = _RELAXATION if round_ else 1.0  # far from the solution it may overshoot
        for _ in range(_ITERATIONS):
            u = u ** (1 - step) * (len(g) / (kernel @ v)) ** step
            v = v ** (1 - step) * (len(f) / (u @ kernel)) ** step
        v = len(f) / (u @ kernel)  # one marginal is exact, so that the value is that of the dual
        error = float(np.abs(u * (kernel @ v) / len(g) - 1).mean())
        f, g = f + epsilon * np.log(u), g + epsilon * np.log(v)
        if error < _TOLERANCE:
            return f, g
    _warn(epsilon, error)
    return f, g


def entropic_within(cost: Samples, epsilon: float) -> Samples:
    """Potential f = g of a cloud and itself, shape (n,); Knight's symmetric iteration takes a few steps only."""
    f = np.zeros(len(cost))
    for _ in range(_ROUNDS):
        kernel = np.exp((f[:, None] + f - cost) / epsilon)
        u = np.ones(len(f))
        for _ in range(_ITERATIONS):
            u = np.sqrt(u * len(f) / (kernel @ u))
        error = float(np.abs(u * (kernel @ u) / len(f) - 1).mean())
        f = f + epsilon * np.log(u)
        if error < _TOLERANCE:
            return f
    _warn(epsilon, error)
    return f


def _warn(epsilon: float, error: float) -> None:
    warnings.warn(
        f"Sinkhorn's iterations have not converged in {_ROUNDS * _ITERATIONS} steps: the marginals are off by "
        f"{error:.1e} (relative). Take a larger epsilon than {epsilon:g}.",
        UserWarning,
        stacklevel=4,
    )
