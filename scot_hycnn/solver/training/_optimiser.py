"""Adam for K independent maps, with what each of them needs to stay on its path."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scot_hycnn.potentials import Potential


class AveragedAdam:
    """Parameters of K maps that are optimised side by side, and their running average.

    Clipping, decay and failure are each map's own: a map that explodes does not touch its neighbours.

    Parameters
    ----------
    potential
        The function whose parameters they are.
    theta
        Where they start, shape (K, P).
    betas
        Adam's decay rates of the two moments.
    weight_decay
        Decoupled decay, a unit of learning rate, of the weights that the potential names: those that multiply x.
        Without them it is q|x|^2/2, the Gaussian map up to scale: decay pulls towards the simple answer.
    max_norm
        Largest norm of one map's gradient.
    averaging
        Decay rate of the running average of theta (Polyak & Juditsky 1992); the average forgets the start.
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
        self._potential = potential
        self.theta = theta.requires_grad_()
        self.average = theta.detach().clone()
        self.n_bad_gradients = torch.zeros(len(theta), dtype=theta.dtype, device=theta.device)
        # There it is one kernel, which a graph may record.
        on_gpu = theta.device.type == "cuda"
        self._adam = torch.optim.Adam([self.theta], betas=betas, fused=on_gpu, capturable=on_gpu)
        self._weight_decay = weight_decay
        self._decayed = torch.cat(
            [
                torch.full(
                    (math.prod(shape),),
                    weight_decay if potential.decays(name) else 0.0,
                    dtype=theta.dtype,
                    device=theta.device,
                )
                for name, shape in potential.shapes.items()
            ]
        )
        self._max_norm, self._averaging = max_norm, averaging
        self._n_updates = torch.zeros((), dtype=theta.dtype, device=theta.device)

    @torch.no_grad()
    def update(self, grad: Tensor, lr: float | Tensor) -> None:
        """Descend by one step along the gradient ``grad``, shape (K, P), which is used up."""
        norm = grad.norm(dim=1, keepdim=True)
        grad *= (self._max_norm / (norm + 1e-9)).clamp_max(1.0)
        bad = ~norm.isfinite()
        self.n_bad_gradients += bad.squeeze(1)
        self.theta.grad = grad.masked_fill_(bad, 0.0)
        self.theta *= 1 - lr * self._decayed
        self._adam.param_groups[0]["lr"] = lr
        if self._adam.state:
            self._adam.step()
        else:  # Adam of PyTorch 2.6 begins its count of steps on the default device, whatever that is
            with torch.device(self.theta.device):
                self._adam.step()
        self._n_updates += 1
        self.average.lerp_(self.theta, (9 / (self._n_updates + 9)).clamp_min(1 - self._averaging))

    def rows(self, rows: slice) -> AveragedAdam:
        """Some of the maps, before the first update."""
        return AveragedAdam(
            self._potential,
            self.theta.detach()[rows].clone(),
            betas=self._adam.defaults["betas"],
            weight_decay=self._weight_decay,
            max_norm=self._max_norm,
            averaging=self._averaging,
        )

    def state(self) -> dict[str, Tensor]:
        """Everything that updates change, by name, of all maps; the tensors themselves."""
        own = {"theta": self.theta.detach(), "average": self.average}
        return own | {"n_bad_gradients": self.n_bad_gradients, "n_updates": self._n_updates, **self._moments}

    @torch.no_grad()
    def load(self, state: dict[str, Tensor]) -> None:
        """Become what had this state."""
        if not self._moments:
            # Steps are counted in the default type of numbers, and are then not a tensor that was stored.
            others = {name: torch.as_tensor(state[name]) for name in state.keys() - self.state().keys()}
            self._adam.state[self.theta] = {name: value.clone() for name, value in others.items()}
        for name, tensor in self.state().items():
            tensor.copy_(torch.as_tensor(state[name]))

    @property
    def _moments(self) -> dict[str, Tensor]:
        """Adam's own state; nothing before the first update."""
        moments: dict[str, Tensor] = self._adam.state.get(self.theta, {})
        return moments

    @torch.no_grad()
    def keep(self, rows: Tensor) -> None:
        """Go on with some of the maps, shape (K,) of booleans; they do not notice."""
        state = self._adam.state.pop(self.theta, {})
        self.theta = self.theta.detach()[rows].requires_grad_()
        self.average, self.n_bad_gradients = self.average[rows], self.n_bad_gradients[rows]
        # Adam's moments have the shape of theta; its count of steps is one number.
        self._adam.state[self.theta] = {name: value[rows] if value.ndim else value for name, value in state.items()}
        self._adam.param_groups[0]["params"] = [self.theta]
