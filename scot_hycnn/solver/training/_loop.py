"""The one training loop: maps side by side, each as if it were alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scot_hycnn.potentials import Potential
from scot_hycnn.solver._options import Settings
from scot_hycnn.solver.data._training_data import Trained
from scot_hycnn.solver.data._training_data import TrainingData as Cells
from scot_hycnn.solver.runtime._checkpoint import Checkpoint
from scot_hycnn.solver.runtime._precision import full_precision
from scot_hycnn.solver.runtime._threads import Each, in_threads, n_parts

from ._early_stopping import Monitor, Snapshot, snapshots
from ._method import Losses
from ._methods import RECIPES, make_method
from ._parts import Part, divide

# Hears how many steps were done, of all maps together, and at checks the mean J less the Gaussian map's.
Told = Callable[[int, float | None], None]


@dataclass(frozen=True)
class _Running:
    """A map that trains: its place among all, its cells, and what watches it."""

    number: int
    cells: Cells
    monitor: Monitor


class _Batch:
    """The maps that still train, and the parts that their networks are divided into."""

    def __init__(self, settings: Settings, running: Sequence[_Running], parts: Sequence[Part]) -> None:
        self._settings, self.going, self._parts = settings, list(running), list(parts)

    def step(self, each: Each, number: int) -> Losses:
        """Train all by one step."""
        losses = each(lambda part: part.step(number), self._parts)
        of_f, of_g = zip(*losses, strict=True)
        return torch.cat(of_f), torch.cat(of_g)

    @full_precision()
    def check(self, each: Each, network: Potential, step: int, losses: Losses) -> float:
        """Score every map; the mean of what they have gained on the Gaussian map in J."""
        f, g = (torch.cat(averages) for averages in zip(*map(_averages, self._parts), strict=True))
        n = self._settings.n_ensemble

        def scored(some: NDArray[np.intp]) -> list[Snapshot]:
            rows = slice(some[0] * n, (some[-1] + 1) * n)
            return snapshots(network, f[rows], g[rows], [self.going[k].monitor for k in some])

        some = np.array_split(np.arange(len(self.going)), min(len(self._parts), len(self.going)))
        # Alone, one map has all threads of PyTorch.
        found = each(scored, some) if len(some) > 1 else [scored(some[0])]
        for (running, rows), now in zip(self._rows(), chain.from_iterable(found), strict=True):
            running.monitor.check(step, now, (losses[0][rows], losses[1][rows]))
        return sum(running.monitor.gain for running in self.going) / len(self.going)

    def end(self, step: int) -> dict[int, Trained]:
        """Results, by number, of maps that are done, or whose Gaussian map is clearly better; the others go on."""
        balanced, last = RECIPES[self._settings.solver].balanced, step == self._settings.max_steps
        may_stop = balanced and 2 * step >= self._settings.max_steps
        n_bad_gradients = torch.cat([part.state.f.n_bad_gradients for part in self._parts])
        results, others = {}, []
        for running, rows in self._rows():
            hopeless = may_stop and running.monitor.clearly_worse_than_gaussian
            if not (hopeless or last):
                others.append(running)
                continue
            results[running.number] = Trained(
                running.monitor.selected() if balanced else running.monitor.last(),
                running.cells,
                keep_gaussian=hopeless,
                n_steps=step,
                history=running.monitor.history,
                n_bad_gradients=int(n_bad_gradients[rows].sum()),
            )
        self.going = others
        if results:
            self._keep_parts()
        return results

    def state(self) -> dict[str, Any]:
        """Everything that training has changed, of the maps that still train."""
        if not self.going:
            return {"monitors": {}}
        trained = [part.state.parts() for part in self._parts]
        return {name: _together([parts[name].state() for parts in trained]) for name in trained[0]} | {
            "generator": self._parts[0].generator.get_state(),
            "monitors": {str(running.number): running.monitor.state() for running in self.going},
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.going = [running for running in self.going if str(running.number) in state["monitors"]]
        self._keep_parts()
        first = 0
        for part in self._parts:
            rows = slice(first, first := first + part.n_members)
            own = {
                name: {key: value[rows] if value.ndim else value for key, value in state[name].items()}
                for name in part.state.parts()
            }
            part.load(own, state["generator"])
        for running in self.going:
            running.monitor.load(state["monitors"][str(running.number)])

    def _keep_parts(self) -> None:
        """Of the maps that still train alone."""
        numbers = {running.number for running in self.going}
        self._parts = [part for part in self._parts if part.numbers & numbers]
        for part in self._parts:
            part.keep(numbers)

    def _rows(self) -> list[tuple[_Running, slice]]:
        n = self._settings.n_ensemble
        return [(running, slice(place * n, (place + 1) * n)) for place, running in enumerate(self.going)]


def _together(states: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Of all parts, below each other; what is one number is the same in all."""
    return {name: torch.cat([own[name] for own in states]) if one.ndim else one for name, one in states[0].items()}


def _states(trained: dict[int, Trained]) -> dict[str, dict[str, Any]]:
    return {str(number): one.state() for number, one in trained.items()}


def _averages(part: Part) -> tuple[Tensor, Tensor]:
    return part.state.f.average, part.state.g.average


def train(
    network: Potential,
    settings: Settings,
    clouds: Sequence[Cells],
    *,
    told: Told,
    checkpoint: Checkpoint | None = None,
) -> list[Trained]:
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
    checkpoint
        Where training begins, if something is there, and where its state is written at each check.

    Returns
    -------
    One result for each map.
    """
    method = make_method(settings.solver, settings.lr, settings.weight_decay, conjugates=settings.conjugates)
    if settings.compilation == "always":
        method = method.compiled()
    n_threads = n_parts(settings.device, len(clouds) * settings.n_ensemble)
    running = [_Running(k, cells, Monitor(cells)) for k, cells in enumerate(clouds)]
    batch = _Batch(settings, running, divide(network, method, settings, clouds, n_threads))
    check_every = max(settings.max_steps // 10, 1)
    trained: dict[int, Trained] = {}
    n_done = 0
    if checkpoint is not None and (state := checkpoint.read(settings.device)) is not None:
        n_done = state["step"]
        trained = {int(number): Trained(cells=clouds[int(number)], **own) for number, own in state["ended"].items()}
        batch.load(state)
        told(len(batch.going) * n_done + len(trained) * settings.max_steps, None)
    with in_threads(n_threads) as each:
        for step in range(n_done + 1, settings.max_steps + 1):
            if not batch.going:
                break
            losses = batch.step(each, step - 1)
            n_going, gain = len(batch.going), None
            if step % check_every == 0 or step == settings.max_steps:
                gain = batch.check(each, network, step, losses)
                trained |= batch.end(step)
                if checkpoint is not None:
                    checkpoint.write({"step": step, "ended": _states(trained), **batch.state()})
            n_ended = n_going - len(batch.going)
            # What ends before its last step has done all its work.
            told(n_going + n_ended * (settings.max_steps - step), gain)
    return [trained[k] for k in range(len(clouds))]
