"""Nonlinear maps in closed form."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ._log_sum_exp import LogSumExpPotential
from ._pair import Pair, Samples, check_sizes, draw_pair

_NAMES = ("identity", "scale", "sign", "cubic", "logsumexp")


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

    The first four are the synthetic maps of the HyCNN paper. The last one, a :class:`LogSumExpPotential` with
    vectors of length 3, does not act on each coordinate by itself: it gathers the source around 8 points.

    Parameters
    ----------
    name
        One of the names above.
    n_dims
        Dimension d.
    n_cells
        Size n of the source sample and of the target sample.
    n_test
        Size of the paired test sample (1000 in the paper).
    rng
        Seed or generator of the samples and of the random vectors. The global generator is not used.

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
    check_sizes(n_dims, n_cells, n_test)
    generator = np.random.default_rng(rng)
    transport = _transport(name, n_dims, generator)

    def source(n: int) -> Samples:
        if name == "cubic":
            return generator.uniform(-1, 1, size=(n, n_dims))
        return generator.normal(size=(n, n_dims))

    return draw_pair(source, transport, n_cells, n_test)


def _transport(name: str, n_dims: int, generator: np.random.Generator) -> Callable[[Samples], Samples]:
    if name == "logsumexp":
        return _random_log_sum_exp(n_dims, generator).transport
    scale = 1 + np.sin(np.arange(1, n_dims + 1)) / 2
    maps: dict[str, Callable[[Samples], Samples]] = {
        "identity": lambda x: x,
        "scale": lambda x: scale * x,
        "sign": lambda x: x + np.sign(x),
        "cubic": lambda x: 4 * x**3,
    }
    return maps[name]


def _random_log_sum_exp(n_dims: int, generator: np.random.Generator) -> LogSumExpPotential:
    vectors = generator.normal(size=(8, n_dims))
    vectors *= 3 / np.linalg.norm(vectors, axis=1, keepdims=True)
    return LogSumExpPotential(vectors, generator.normal(size=8), temperature=0.5, quadratic=0.1)
