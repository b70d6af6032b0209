"""Adam for the networks of all maps side by side, with clipping, decay and an average for each network."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scot_hycnn.potentials import Potential


def cosine(step: int, max_steps: int, *, warm_up: int = 50) -> float:
    """Return the fraction of the highest learning rate: linear warm-up, then a half cosine down to a hundredth.

    Source: Loshchilov & Hutter (2017), ICLR, eq. 5, without restarts.
    """
    annealed = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / max_steps))
    return min(1.0, (step + 1) / warm_up) * annealed


class AveragedAdam:
    """Parameters theta of K networks, shape (K, P), that are optimised side by side, and their running average.

    Clipping, decay and failures are separate for each network, so that one that explodes does not change the others.
    ``max_norm`` limits the gradient of one network; ``averaging`` is the decay rate of the average (Polyak & Juditsky
    1992).
    """

    def __init__(
        self,
        potential: Potential,
        theta: Tensor,
        *,
        betas: tuple[float, float],
        weight_decay: float,
        max_norm: float,
        averaging: float,
    ) -> None:
        self.theta = theta.requires_grad_()
        self.average = theta.detach().clone()
        self.n_bad_gradients = theta.new_zeros(len(theta))
        self._n_updates = theta.new_zeros(())
        self._max_norm, self._averaging = max_norm, averaging
        # On a GPU it is one kernel, which a CUDA graph can record.
        on_gpu = theta.device.type == "cuda"
        self._adam = torch.optim.Adam([self.theta], betas=betas, fused=on_gpu, capturable=on_gpu)
        # Decoupled decay, a unit of learning rate, of the weights that multiply x. Without these weights the potential
        # is q|x|^2/2, the Gaussian map up to scale: decay pulls towards the simple answer.
        decays = [
            theta.new_full((math.prod(shape),), weight_decay if potential.decays(name) else 0.0)
            for name, shape in potential.shapes.items()
        ]
        self._decay = torch.cat(decays)

    @torch.no_grad()
    def update(self, grad: Tensor, lr: float | Tensor) -> None:
        """Descend by one step along the gradient ``grad``, shape (K, P), which is overwritten."""
        norm = grad.norm(dim=1, keepdim=True)
        grad *= (self._max_norm / (norm + 1e-9)).clamp_max(1.0)
        # A gradient that is not finite is counted and skipped.
        bad = ~norm.isfinite()
        self.n_bad_gradients += bad.squeeze(1)
        self.theta.grad = grad.masked_fill_(bad, 0.0)
        self.theta *= 1 - lr * self._decay
        self._adam.param_groups[0]["lr"] = lr
        if self._adam.state:
            self._adam.step()
        else:  # Adam of PyTorch 2.6 makes its counter of steps on the default device, whatever that is.
            with torch.device(self.theta.device):
                self._adam.step()
        # The first averages weigh recent steps more, so that the start leaves the average.
        self._n_updates += 1
        self.average.lerp_(self.theta, (9 / (self._n_updates + 9)).clamp_min(1 - self._averaging))

    def state(self) -> dict[str, Tensor]:
        """Return every tensor that updates change, by name, without copies; Adam's moments from the first update on."""
        ours = {"theta": self.theta.detach(), "average": self.average, "n_bad_gradients": self.n_bad_gradients}
        moments: dict[str, Tensor] = self._adam.state.get(self.theta, {})
        return ours | {"n_updates": self._n_updates} | moments

    @torch.no_grad()
    def load(self, state: dict[str, Tensor]) -> None:
        """Restore the state that ``state()`` returned."""
        device = self.theta.device  # named, since the default device may be another one
        tensors = {name: torch.as_tensor(value, device=device) for name, value in state.items()}
        moments = {name: tensors[name].clone() for name in tensors.keys() - self.state().keys()}
        if moments:
            self._adam.state[self.theta] = moments
        for name, tensor in self.state().items():
            if name not in moments:
                tensor.copy_(tensors[name])


def descend(loss: Tensor, lr: float | Tensor, *optimisers: AveragedAdam) -> None:
    """Take one Adam step on the loss, shape (K,), for each of the optimisers: all gradients first, then all updates."""
    gradients = torch.autograd.grad(loss.sum(), [adam.theta for adam in optimisers])
    for adam, gradient in zip(optimisers, gradients, strict=True):
        adam.update(gradient, lr)
