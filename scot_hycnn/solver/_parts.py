"""What one thread trains: all networks of some maps, or some of one map's."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from scot_hycnn.potentials import Potential

from ._cells import Cells
from ._graph import recorded
from ._method import Draw, Losses, Method, State
from ._settings import Settings


@dataclass(frozen=True)
class Members:
    """Some members of a map.

    Parameters
    ----------
    number
        Of the map.
    cells
        Its cells.
    rows
        Which of its members.
    generator
        Of its randomness; every part of a map has a copy, so that all draw the same.
    """

    number: int
    cells: Cells
    rows: range
    generator: torch.Generator


class Part:
    """Networks side by side in every tensor.

    Parameters
    ----------
    members
        Whose they are, in their order.
    state
        Their parameters.
    network
        Architecture of all.
    method
        How they are trained.
    settings
        Options, the same for all maps.
    """

    def __init__(
        self, members: Sequence[Members], state: State, *, network: Potential, method: Method, settings: Settings
    ) -> None:
        self.members, self.state = list(members), state
        self._network, self._method, self._settings = network, method, settings
        self._advance = self._as_fast_as_it_goes()

    def step(self, number: int) -> Losses:
        """Train by one step; steps are numbered from 0."""
        for parameters in (self.state.f, self.state.g):
            self._network.at_step(parameters.theta, number, self._settings.max_steps)
        return self._advance(self._method.rate(number, self._settings.max_steps))

    def keep(self, numbers: Collection[int]) -> None:
        """Go on with the maps of these numbers only."""
        stays = [own.number in numbers for own in self.members for _ in own.rows]
        if not all(stays):
            self.state.keep(torch.tensor(stays, device=self._settings.device))
            self.members = [own for own in self.members if own.number in numbers]
            self._advance = self._as_fast_as_it_goes()

    def _as_fast_as_it_goes(self) -> Callable[[float], Losses]:
        """What trains by one step."""

        def step(lr: float | Tensor, draw: Draw) -> Losses:
            return self._method.step(self._network, self.state, draw, lr)

        return recorded(step, self._draw, self._settings)

    def _draw(self) -> tuple[Tensor, Tensor]:
        """Fresh cells, shape (members, batch, d) twice."""
        size = self._settings.batch_size
        drawn = (own.cells.batch(self._settings.n_ensemble, size, own.generator, own.rows) for own in self.members)
        x, y = zip(*drawn, strict=True)
        return torch.cat(x), torch.cat(y)


def divide(network: Potential, method: Method, settings: Settings, clouds: Sequence[Cells], n_parts: int) -> list[Part]:
    """Draw the networks of all maps, and divide them into parts of about one size.

    Parameters
    ----------
    network
        Architecture of the members.
    method
        How they are to be trained.
    settings
        Options, the same for all maps.
    clouds
        The cells of each map.
    n_parts
        At most as many as there are networks.
    """
    # The same seed for all, so that each becomes what it would be alone.
    generators = [torch.Generator(settings.device).manual_seed(settings.rng) for _ in clouds]
    n = settings.n_ensemble
    state = method.init(network, n, *generators)
    parts = []
    for first, last in pairwise(len(clouds) * n * part // n_parts for part in range(n_parts + 1)):
        members = [
            Members(k, clouds[k], range(max(first - k * n, 0), min(last - k * n, n)), _copy(generators[k]))
            for k in range(first // n, -(-last // n))
        ]
        own = state if n_parts == 1 else state.rows(slice(first, last))
        parts.append(Part(members, own, network=network, method=method, settings=settings))
    return parts


def _copy(generator: torch.Generator) -> torch.Generator:
    return torch.Generator(generator.device).set_state(generator.get_state())
