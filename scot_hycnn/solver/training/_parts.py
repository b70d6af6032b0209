"""What one thread trains: all networks of some maps, or some of one map's."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor

from scot_hycnn.potentials import Potential
from scot_hycnn.solver._options import Settings
from scot_hycnn.solver.data._batches import Draws, Members
from scot_hycnn.solver.data._training_data import TrainingData as Cells

from ._cache import Memory
from ._cuda_graph import recorded
from ._method import Draw, Losses, Method, State


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
    generator
        Of its randomness; every part has a copy, so that all draw the same.
    """

    def __init__(
        self,
        members: Sequence[Members],
        state: State,
        *,
        network: Potential,
        method: Method,
        settings: Settings,
        generator: torch.Generator,
    ) -> None:
        self._members, self.state = list(members), state
        self._network, self._method, self._settings, self.generator = network, method, settings, generator
        self._advance = self._as_fast_as_it_goes()

    def step(self, number: int) -> Losses:
        """Train by one step; steps are numbered from 0."""
        for parameters in (self.state.f, self.state.g):
            self._network.at_step(parameters.theta, number, self._settings.max_steps)
        return self._advance(self._method.rate(number, self._settings.max_steps))

    @property
    def numbers(self) -> set[int]:
        """Of its maps."""
        return {own.number for own in self._members}

    @property
    def n_members(self) -> int:
        """Networks."""
        return sum(len(own.rows) for own in self._members)

    def load(self, state: dict[str, dict[str, Tensor]], generator: Tensor) -> None:
        """Become what had this state: of its networks alone, by the names of the parts, and of the random generator."""
        for name, part in self.state.parts().items():
            part.load(state[name])
        self.generator.set_state(generator)

    def keep(self, numbers: Collection[int]) -> None:
        """Go on with those of its maps that have these numbers; at least one does."""
        stays = [own.number in numbers for own in self._members for _ in own.rows]
        if not all(stays):
            self.state.keep(torch.tensor(stays, device=self._settings.device))
            self._members = [own for own in self._members if own.number in numbers]
            self._advance = self._as_fast_as_it_goes()

    def _as_fast_as_it_goes(self) -> Callable[[float], Losses]:
        """What trains by one step."""
        settings, remembers = self._settings, self._method.remembers
        draws = Draws(
            self._members, settings.n_ensemble, settings.batch_size, generator=self.generator, with_rows=remembers
        )

        def step(lr: float | Tensor, draw: Draw) -> Losses:
            return self._method.step(self._network, self.state, draw, lr)

        return recorded(step, draws, self._settings)


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
    if method.remembers:
        state = replace(state, memory=Memory.of([cells.y for cells in clouds], n))
    parts = []
    for first, last in pairwise(len(clouds) * n * part // n_parts for part in range(n_parts + 1)):
        members = [
            Members(k, clouds[k], range(max(first - k * n, 0), min(last - k * n, n)))
            for k in range(first // n, -(-last // n))
        ]
        own = state if n_parts == 1 else state.rows(slice(first, last))
        generator = torch.Generator(settings.device).set_state(generators[0].get_state())
        parts.append(Part(members, own, network=network, method=method, settings=settings, generator=generator))
    return parts
