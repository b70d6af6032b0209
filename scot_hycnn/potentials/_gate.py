"""The smooth maximum of two branches, and its slope."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class SmoothMax(torch.autograd.Function):
    r""":math:`z = \log(e^a + e^b)` together with its slope :math:`s = \partial z/\partial a`.

    Source: arXiv:2604.26942, sec. 2 (the smooth gate, at temperature 1). Both outputs come from one exponential,
    where autograd's own softplus and sigmoid would take four: this is the innermost loop of training and transport.
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """Smooth maximum z and slope s = sigmoid(a - b), each of a's shape."""
        s = torch.sub(a, b).sigmoid_()
        # z = max(a, b) - log max(s, 1 - s): the logarithm's argument is at least 1/2, so nothing cancels.
        z = torch.maximum(a, b).sub_(torch.maximum(s, 1 - s).log_())
        ctx.save_for_backward(s)
        return z, s

    @staticmethod
    def backward(ctx: Any, grad_z: Tensor, grad_s: Tensor) -> tuple[Tensor, Tensor]:
        """Chain rule, with ds/da = s (1 - s)."""
        (s,) = ctx.saved_tensors
        along_a = s * (grad_z + grad_s * (1 - s))
        return along_a, grad_z - along_a
