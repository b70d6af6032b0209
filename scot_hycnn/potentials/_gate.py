"""The smooth maximum of two branches, and its slope."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def smooth_max(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    r""":math:`z = \log(e^a + e^b)` together with its slope :math:`s = \partial z/\partial a`.

    Source: arXiv:2604.26942, sec. 2 (the smooth gate, at temperature 1). Both outputs come from one exponential,
    where autograd's own softplus and sigmoid would take four: this is the innermost loop of training and transport.

    Parameters
    ----------
    a, b
        The two branches, of one shape.

    Returns
    -------
    z and s = sigmoid(a - b), each of a's shape.
    """
    if torch.is_grad_enabled() and (a.requires_grad or b.requires_grad):
        differentiable: tuple[Tensor, Tensor] = _SmoothMax.apply(a, b)  # type: ignore[no-untyped-call]
        return differentiable
    return _forward(a, b)


def _forward(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    s = torch.sub(a, b).sigmoid_()
    # z = max(a, b) - log max(s, 1 - s): the logarithm's argument is at least 1/2, so nothing cancels.
    other = 1 - s
    log_larger = torch.maximum(s, other, out=other).log_()
    return torch.maximum(a, b).sub_(log_larger), s


class _SmoothMax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        z, s = _forward(a, b)
        ctx.save_for_backward(s)
        return z, s

    @staticmethod
    def backward(ctx: Any, grad_z: Tensor, grad_s: Tensor) -> tuple[Tensor, Tensor]:
        # ds/da = s (1 - s)
        (s,) = ctx.saved_tensors
        along_a = s * (grad_z + grad_s * (1 - s))
        return along_a, grad_z - along_a
