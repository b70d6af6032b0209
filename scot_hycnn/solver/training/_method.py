"""What every training method has: two potentials that Adam moves, a way to start, and a step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from scot_hycnn.potentials import Potential, Weights

from ._cache import Memory
from ._optimiser import AveragedAdam
from ._schedule import cosine

# Draws a batch of source and target cells in balanced coordinates: shape (K, batch, d) twice. For methods that remember
# target cells also the rows of these among their map's, shape (K, batch).
Draw = Callable[[], tuple[Tensor, ...]]
Losses = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class State:
    """What training changes: the potential f, its approximate conjugate g, and what is remembered, for K maps."""

    f: AveragedAdam
    g: AveragedAdam
    memory: Memory | None = None

    def rows(self, rows: slice) -> State:
        """Some of the maps, before the first step."""
        return State(self.f.rows(rows), self.g.rows(rows), None if self.memory is None else self.memory.rows(rows))

    def keep(self, rows: Tensor) -> None:
        """Go on with some of the maps, shape (K,) of booleans."""
        for part in self.parts().values():
            part.keep(rows)

    def parts(self) -> dict[str, AveragedAdam | Memory]:
        """All by name."""
        parts: dict[str, AveragedAdam | Memory] = {"f": self.f, "g": self.g}
        return parts if self.memory is None else parts | {"memory": self.memory}


@dataclass(frozen=True)
class Method(ABC):
    """A way to train f, with its hyperparameters.

    Parameters
    ----------
    lr
        Learning rate at the top of its schedule.
    weight_decay
        Pull towards the Gaussian map; see AveragedAdam.
    betas
        Adam's decay rates.
    max_norm
        Largest gradient norm of a map.
    averaging
        Decay rate of the average over steps, which is what training returns; 0 returns the last step.
    warm_up
        Steps in which the learning rate rises; at most a tenth of all.
    """

    # About so many gradients of its batch does a step cost, from d = 5 to 50 and one to four members on one core.
    gradients_per_step: ClassVar[int]
    # Whether it starts a target cell's conjugate where that was last.
    remembers: ClassVar[bool] = False

    lr: float = 2e-2
    weight_decay: float = 1.0
    betas: tuple[float, float] = (0.5, 0.9)
    max_norm: float = 1.0
    averaging: float = 0.98
    warm_up: int = 50

    def init(self, potential: Potential, n_maps: int, *generators: torch.Generator) -> State:
        """Draw both networks of so many maps by each of the generators."""
        drawn = [[potential.init(n_maps, generator) for _ in range(2)] for generator in generators]
        f, g = (
            AveragedAdam(
                potential,
                torch.cat(thetas),
                betas=self.betas,
                weight_decay=self.weight_decay,
                max_norm=self.max_norm,
                averaging=self.averaging,
            )
            for thetas in zip(*drawn, strict=True)
        )
        return State(f, g)

    @abstractmethod
    def step(self, potential: Potential, state: State, draw: Draw, lr: float | Tensor) -> Losses:
        """Train by one step.

        Parameters
        ----------
        potential
            Architecture of f and g.
        state
            Their parameters; updated in place.
        draw
            Gives a fresh batch at each call.
        lr
            Learning rate of this step.

        Returns
        -------
        Losses of f and g, shape (K,) each, still on the device.
        """

    def compiled(self) -> Self:
        """The same with its innermost loop compiled; as it is, if it has none."""
        return self

    def rate(self, step: int, max_steps: int) -> float:
        """Learning rate at a step; a short run has a short warm-up."""
        return self.lr * cosine(step, max_steps, warm_up=max(min(self.warm_up, max_steps // 10), 1))


def descend(loss: Tensor, lr: float | Tensor, *parameters: AveragedAdam) -> None:
    """One Adam step on the loss, shape (K,), of each of the parameters: gradients first, then all updates."""
    gradients = torch.autograd.grad(loss.sum(), [adam.theta for adam in parameters])
    for adam, gradient in zip(parameters, gradients, strict=True):
        adam.update(gradient, lr)


def semi_dual(potential: Potential, f: Weights, x: Tensor, x_hat: Tensor) -> Tensor:
    """mean f(x) - mean f(x_hat), shape (K,), which has the semi-dual's gradient where x_hat are maximisers."""
    values_x, values_x_hat = potential.value(f, torch.cat([x, x_hat], dim=1)).split([x.shape[1], x_hat.shape[1]], dim=1)
    difference: Tensor = values_x.mean(1) - values_x_hat.mean(1)
    return difference


def inner(a: Tensor, b: Tensor) -> Tensor:
    """Mean over a batch of <a, b>: (K, n, d) twice to (K,)."""
    return (a * b).sum(-1).mean(1)
