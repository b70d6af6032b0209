"""Hyper input convex neural network (HyCNN)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from ._maxout import Maxout


@final
@dataclass(frozen=True)
class HyCNN(Maxout):
    r"""Convex function :math:`R^d \to R` with maxout gates and input skips, for K parameter sets at once.

    With the gate :math:`m(a, b) = \max(a, b)`, or smoothly
    :math:`m(a, b) = \tau\log(e^{a/\tau} + e^{b/\tau})`,

    .. math::
        z_1     &= m(W^1_1 x + b^1_1 + (Q^1 x)^2,\; W^2_1 x + b^2_1 + (Q^2 x)^2) \\
        z_{l+1} &= m(V^1_l z_l + W^1_{l+1} x + b^1_{l+1},\; V^2_l z_l + W^2_{l+1} x + b^2_{l+1}) \\
        f(x)    &= v \cdot z_L + w \cdot x + \tfrac{q}{2}|x|^2

    where :math:`V, v, q > 0` are the softplus of free parameters: f is convex for every parameter value, since
    the gate is convex and non-decreasing in each argument. Q (the quadratic first skip), q and the learned
    temperatures are ours, the rest is the paper's.

    Parameters
    ----------
    n_dims
        Dimension d of the cells' representation.
    hidden
        Width of each hidden layer.
    quadratic_skip
        Whether the first layer has the terms :math:`(Qx)^2`.
    strong_convexity
        q at the start. It is learned and stays positive, so the convex conjugate is finite and has one maximiser.
        0: there is no such term.
    output_scale
        Factor of v and w at the start. 1 is the paper's initialisation; with a smaller one, and q near 1, f starts
        near :math:`|x|^2/2`.
    monotone
        One character a dimension: ``'+'`` where f must not fall, ``'-'`` where it must not rise, ``'0'`` where it is
        free; empty for no constraint.
    gate
        ``'smooth'`` or ``'max'``.
    temperature
        :math:`\tau` of the smooth gate at the start. It counts as 1e-6 where it is below.
    annealing
        What becomes of it in training: ``'learned'``, one for each layer; ``'fixed'``; or ``'cyclic'``, the paper's
        schedule for d = 2.

    References
    ----------
    Hundrieser, Kong & Schmidt-Hieber (2026), arXiv:2604.26942, sec. 2 (network), sec. 2.2 and app. C
    (initialisation).

    Examples
    --------
    >>> import torch
    >>> from scot_hycnn.potentials import HyCNN
    >>> f = HyCNN(n_dims=5, hidden=(16, 16))
    >>> theta = f.init(3, torch.Generator().manual_seed(0))
    >>> x = torch.zeros(3, 100, 5)
    >>> weights = f.weights(theta)
    >>> f.value(weights, x).shape, f.gradient(weights, x).shape
    (torch.Size([3, 100]), torch.Size([3, 100, 5]))
    """

    quadratic_skip: bool = True
