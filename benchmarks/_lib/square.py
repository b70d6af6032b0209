"""Weights set by hand with which a HyCNN approximates x^2 on [0, 1] as the theory says (arXiv:2604.26942, sec. 3)."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scot_hycnn.potentials import HyCNN

Array = NDArray[np.float64]


def hycnn(widths: tuple[int, ...]) -> HyCNN:
    """Make the paper's network on the line: max gate, no quadratic terms."""
    return HyCNN(1, widths, gate="max", quadratic_skip=False, strong_convexity=0.0)


def error_bound(widths: tuple[int, ...]) -> float:
    r"""Return the sup-error on [0, 1] that the construction reaches for even widths, :math:`1 / (8 \prod_l d_l^2)`."""
    return 1 / (8 * math.prod(widths) ** 2)


def square(widths: tuple[int, ...]) -> Tensor:
    r"""Return parameters of ``hycnn(widths)`` that make it nearly x^2 on [0, 1].

    Layer l folds the rest of the square: with :math:`t_0 = x` and :math:`w_l = 1 / (d_1 \cdots d_l)`, let
    :math:`t_l \in [0, w_l]` be the distance of :math:`t_{l-1}` to the nearest of :math:`c_j = (2j-1) w_l`,
    :math:`j = 1 \dots d_l/2`. Then

    .. math:: x^2 = P_l + t_l^2, \qquad P_l = P_{l-1} + \max_j (2 c_j t_{l-1} - c_j^2), \qquad P_0 = 0

    A fold is not convex in x, so no unit can hold :math:`t_l`. But :math:`A_l = P_l` and
    :math:`B_l = P_l + 2 w_l t_l` are, and the next pair needs only sums of these two with weights of 0 or more.
    Half of the layer's units add up to A, the others to B. In the end :math:`t_L^2` is met by
    :math:`w_L t_L - w_L^2/8`, which errs by :math:`w_L^2/8` at most.

    Parameters
    ----------
    widths
        Even width of each layer.

    Returns
    -------
    theta, shape (1, P), float64.

    Raises
    ------
    ValueError
        If a width is odd.
    """
    if any(width % 2 for width in widths):
        raise ValueError(f"widths={widths} must be even: half of a layer's units carry A, half B.")
    weights: dict[str, Array] = {}
    below = None
    for layer, width in enumerate(widths):
        scale = 1.0 if below is None else below[1]
        shares, slopes, offsets = _branches(width, scale)
        if below is None:
            weights["W0"] = slopes[None]
        else:
            # share * P + slope * t = (share - slope / 2w) A + slope / 2w B
            of_b = slopes / (2 * scale)
            halves = np.stack([shares - of_b, of_b])
            weights[f"V{layer}"], weights[f"W{layer}"] = halves.repeat(below[0] // 2, axis=0), np.zeros((1, 2 * width))
        weights[f"b{layer}"] = offsets[None]
        below = (width, scale / width)
    weights["v"], weights["w"] = np.full((1, widths[-1]), 0.5), np.zeros((1, 1))
    weights[f"b{len(widths) - 1}"] -= below[1] ** 2 / 8 / (0.5 * widths[-1])
    shapes = hycnn(widths).shapes
    free = [_inverse_softplus(weights[name]) if name[0] in "Vv" else weights[name] for name in shapes]
    return torch.tensor(np.concatenate([w.ravel() for w in free]))[None]


def _branches(width: int, scale: float) -> tuple[Array, Array, Array]:
    """Return share of P, slope in t and offset of each branch: the first branches of all units, then the second."""
    half, step = width // 2, scale / width
    j = np.arange(1, half + 1)
    # Units of A have kinks between the c_j, and the last one has a slope instead. Units of B have kinks at the c_j.
    slopes = np.concatenate([np.where(j == half, 2 * step, 0), np.zeros(half)])
    more = np.concatenate([np.where(j == half, 0, 4 * step), np.full(half, 4 * step)])
    kinks = np.concatenate([2 * j * step, (2 * j - 1) * step])
    offsets = np.repeat([-(step**2), step**2], half) / half
    return (
        np.full(2 * width, 1 / half),
        np.concatenate([slopes, slopes + more]),
        np.concatenate([offsets, offsets - more * kinks]),
    )


def _inverse_softplus(value: Array) -> Array:
    # A weight of zero is the softplus of minus infinity. Differences of shares may miss zero by a last digit.
    value = np.where(np.abs(value) < 1e-15, 0.0, value)
    with np.errstate(divide="ignore"):
        return value + np.log(-np.expm1(-value))
