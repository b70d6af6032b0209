"""GroupMax network: maxout gates without input skips."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from ._maxout import Maxout


@final
@dataclass(frozen=True)
class GroupMax(Maxout):
    r"""Convex function of maxout gates in which only the first layer sees x: a HyCNN without input skips.

    .. math::
        z_1 = m(W^1 x + b^1_1,\; W^2 x + b^2_1), \qquad
        z_{l+1} = m(V^1_l z_l + b^1_{l+1},\; V^2_l z_l + b^2_{l+1}), \qquad
        f(x) = v \cdot z_L + \tfrac{q}{2}|x|^2

    Parameters
    ----------
    n_dims, hidden, quadratic_skip, strong_convexity, output_scale, monotone, gate, temperature, annealing
        As for :class:`HyCNN`; here without quadratic skip unless asked for.

    References
    ----------
    Warin (2023), "The GroupMax neural network approximation of convex functions", IEEE Trans. Neural Netw. Learn.
    Syst.; initialisation: arXiv:2604.26942, app. D.2, as for HyCNN.

    Examples
    --------
    >>> import torch
    >>> from scot_hycnn.potentials import GroupMax
    >>> f = GroupMax(n_dims=5, hidden=(16, 16), gate="max")
    >>> weights = f.weights(f.init(1, torch.Generator().manual_seed(0)))
    >>> f.value(weights, torch.zeros(1, 100, 5)).shape
    torch.Size([1, 100])
    """

    input_skips: ClassVar[bool] = False
