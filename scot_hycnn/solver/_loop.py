"""The one training loop: maps side by side, each as if it were alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scot_hycnn.potentials import Potential

from ._cells import Cells
from ._choices import RECIPES, make_method
from ._method import Losses, State
from ._monitor import Monitor
from ._outcome import Trained
from ._settings import Settings

# Hears how many steps were done, of all maps together, and at checks the mean J less the Gaussian map's.
Told = Callable[[int, float | None], None]


@dataclass(frozen=True)
class _Running:
    """A map that trains: its place among all, its cells, its randomness, and what watches it."""

    number: int
    cells: Cells
    generator: torch.Generator
    monitor: Monitor


class _Batch:
    """The maps that still train; members of the first come first in every tensor, then those of the second ..."""

    def __init__(self, network: Potential, settings: Settings, clouds: Sequence[Cells]) -> None:
        self._settings = settings
        # The same seed for all, so that each becomes what it would be alone.
        self.going = [
            _Running(k, cells, torch.Generator(settings.device).manual_seed(settings.rng), Monitor(network, cells))
            for k, cells in enumerate(clouds)
        ]

    def draw(self) -> tuple[Tensor, Tensor]:
        """Fresh cells of all maps, shape (members, batch, d) twice."""
        n, size = self._settings.n_ensemble, self._settings.batch_size
        x, y = zip(*(running.cells.batch(n, size, running.generator) for running in self.going), strict=True)
        return torch.cat(x), torch.cat(y)

    def check(self, step: int, state: State, losses: Losses) -> float:
        """Score every map; the mean of what they have gained on the Gaussian map in J."""
        for running, rows in self._rows():
            running.monitor.check(
                step, state.f.average[rows], state.g.average[rows], (losses[0][rows], losses[1][rows])
            )
        return sum(running.monitor.gain for running in self.going) / len(self.going)

    def end(self, step: int, state: State) -> dict[int, Trained]:
        """Results, by number, of maps that are done, or whose Gaussian map is clearly better; the others go on."""
        balanced, last = RECIPES[self._settings.solver].balanced, step == self._settings.max_steps
        may_stop = balanced and 2 * step >= self._settings.max_steps
        results, others = {}, []
        stays = torch.ones(len(state.f.theta), dtype=torch.bool, device=self._settings.device)
        for running, rows in self._rows():
            hopeless = may_stop and running.monitor.clearly_worse_than_gaussian
            if not (hopeless or last):
                others.append(running)
                continue
            stays[rows] = False
            results[running.number] = Trained(
                running.monitor.selected() if balanced else running.monitor.last(),
                running.cells,
                keep_gaussian=hopeless,
                n_steps=step,
                history=running.monitor.history,
                n_bad_gradients=int(state.f.n_bad_gradients[rows].sum()),
            )
        self.going = others
        if results and others:
            state.keep(stays)
        return results

    def _rows(self) -> list[tuple[_Running, slice]]:
        n = self._settings.n_ensemble
        return [(running, slice(place * n, (place + 1) * n)) for place, running in enumerate(self.going)]


def train(network: Potential, settings: Settings, clouds: Sequence[Cells], told: Told) -> list[Trained]:
    """Take a step on fresh batches, look at validation cells now and then.

    All maps start, draw and are checked by themselves: only the arithmetic is one.

    Parameters
    ----------
    network
        Architecture of the members.
    settings
        Options, the same for all maps.
    clouds
        The cells of each map.
    told
        Hears of every step.

    Returns
    -------
    One result for each map.
    """
    method = make_method(settings.solver, settings.lr, settings.weight_decay)
    batch = _Batch(network, settings, clouds)
    state = method.init(network, settings.n_ensemble, *(running.generator for running in batch.going))
    check_every = max(settings.max_steps // 10, 1)
    trained: dict[int, Trained] = {}
    for step in range(1, settings.max_steps + 1):
        for parameters in (state.f, state.g):
            network.at_step(parameters.theta, step - 1, settings.max_steps)
        losses = method.step(network, state, batch.draw, method.rate(step - 1, settings.max_steps))
        n_going, gain = len(batch.going), None
        if step % check_every == 0 or step == settings.max_steps:
            gain = batch.check(step, state, losses)
            trained |= batch.end(step, state)
        n_ended = n_going - len(batch.going)
        # What ends before its last step has done all its work.
        told(n_going + n_ended * (settings.max_steps - step), gain)
        if not batch.going:
            break
    return [trained[k] for k in range(len(clouds))]
