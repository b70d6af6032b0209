"""The training loop: draw, step, check, stop, average."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scot_hycnn.potentials import Potential
from scot_hycnn.solver._options import CACHED, Settings
from scot_hycnn.solver.data._batches import Batches
from scot_hycnn.solver.data._training_data import Trained, TrainingData
from scot_hycnn.solver.runtime._precision import full_precision
from scot_hycnn.solver.runtime._threads import ThreadMap, in_threads, n_parts

from ._cuda_graph import RecordedStep, Step
from ._early_stopping import Monitor, Snapshot, score_ensembles
from ._methods import make_method
from ._optimiser import AveragedAdam, cosine
from ._semi_dual import ConjugateCache

N_CHECKS = 10
# Tensors of all members of all maps that still train, by the name of the network (or cache) and their own name.
State = dict[str, dict[str, Tensor]]


def train(
    network: Potential,
    settings: Settings,
    clouds: Sequence[TrainingData],
    *,
    progress: Callable[[int, float | None], None],
    saved: dict[str, Any] | None = None,
    save: Callable[[dict[str, Any]], None] | None = None,
) -> list[Trained]:
    """Train the ensembles of some maps side by side; every map starts, draws and stops as if it were alone.

    Parameters
    ----------
    network
        Architecture of all members.
    settings
        Options, the same for all maps.
    clouds
        The cells of each map.
    progress
        Called after each step with the number of steps done, of all maps together, and at checks with the mean J minus
        that of the Gaussian map.
    saved
        A state that ``save`` was called with, from which training continues to the same bits.
    save
        Called with the state at each check.

    Returns
    -------
    One result for each map.
    """
    method, n, device = make_method(settings), settings.n_ensemble, torch.device(settings.device)
    monitors = [Monitor(cells) for cells in clouds]
    running, first_step = list(range(len(clouds))), 1
    results: dict[int, Trained] = {}
    generator = torch.Generator(device).manual_seed(settings.rng)
    # All maps have the same seed, so that their networks start alike: f is drawn first, then g if there is one.
    state: State = {"f": {"theta": network.init(n, generator).repeat(len(clouds), 1)}}
    if settings.conjugates != CACHED:
        # Baselines have a second network, too.
        state["g"] = {"theta": network.init(n, generator).repeat(len(clouds), 1)}
    if saved is not None:
        first_step = saved["step"] + 1
        results = {int(k): Trained(cells=clouds[int(k)], **result) for k, result in saved["results"].items()}
        running = [k for k in running if k not in results]
        state = {name: saved[name] for name in ("f", "g", "cache") if name in saved}
        generator.set_state(saved["generator"])
        for k in running:
            monitors[k].load(saved["monitors"][str(k)])
        progress(len(running) * saved["step"] + len(results) * settings.max_steps, None)
    warm_up = max(min(method.warm_up, settings.max_steps // 10), 1)
    check_every = max(settings.max_steps // N_CHECKS, 1)
    # PyTorch's own threads share single operations, and those of a training step are too small for that: two threads
    # that each train half of the members are 1.4 to 1.6 times faster.
    n_threads = n_parts(settings.device, len(clouds) * n)
    with in_threads(n_threads) as each:
        shards: list[_Shard] = []
        for step in range(first_step, settings.max_steps + 1):
            if not running:
                break
            if not shards:
                batches = Batches([clouds[k] for k in running], (n, settings.batch_size), generator)
                shards = _divide(state, network, settings, [clouds[k] for k in running], n_threads)

            # Draw fresh cells for all members, so that each map gets the same ones however its members are divided.
            drawn = [batches.draw() for _ in range(method.n_batches)]

            # Take a step of the method in every thread, with the learning rate and the temperature of this step.
            lr = settings.lr * cosine(step - 1, settings.max_steps, warm_up=warm_up)
            losses = each(
                partial(_step, drawn=drawn, lr=lr, network=network, number=step - 1, settings=settings), shards
            )
            if step % check_every and step < settings.max_steps:
                progress(len(running), None)
                continue

            # Check the average over steps of each ensemble on validation cells. Only here the host waits for a GPU.
            state = _gathered(shards)
            loss_f, loss_g = (torch.cat(some).split(n) for some in zip(*losses, strict=True))
            snapshots = _snapshots(each, network, state, [monitors[k] for k in running], n_threads)
            for k, snapshot, *its_losses in zip(running, snapshots, loss_f, loss_g, strict=True):
                monitors[k].check(step, snapshot, tuple(its_losses))
            gain = sum(monitors[k].gain for k in running) / len(running)

            # Stop maps at their last step, and from half of the steps on those that cannot beat the Gaussian map.
            may_stop = settings.balanced and 2 * step >= settings.max_steps
            hopeless = {k for k in running if may_stop and monitors[k].clearly_worse_than_gaussian}
            for k, n_bad in zip(running, state["f"]["n_bad_gradients"].split(n), strict=True):
                if k in hopeless or step == settings.max_steps:
                    results[k] = Trained(
                        monitors[k].selected() if settings.balanced else monitors[k].last(),
                        clouds[k],
                        keep_gaussian=k in hopeless,
                        n_steps=step,
                        history=monitors[k].history,
                        n_bad_gradients=int(n_bad.sum()),
                    )
            if hopeless:
                # The others continue in new shards.
                stays = torch.tensor([k not in results for k in running for _ in range(n)], device=device)
                state, shards = _select(state, stays), []
            # A map that stops early has done all its steps.
            progress(len(running) + len(hopeless) * (settings.max_steps - step), gain)
            running = [k for k in running if k not in results]
            if save is not None:
                checks = {str(k): monitors[k].state() for k in running}
                ended = {str(k): result.state() for k, result in results.items()}
                more = {"generator": generator.get_state(), **(state if running else {})}
                save({"step": step, "results": ended, "monitors": checks, **more})
    return [results[k] for k in range(len(clouds))]


@dataclass
class _Shard:
    """The members that one thread trains, which are these rows of all."""

    rows: slice
    parts: dict[str, AveragedAdam | ConjugateCache]  # "f", and "g" or "cache"
    step: Step


def _divide(
    state: State, network: Potential, settings: Settings, clouds: Sequence[TrainingData], n_threads: int
) -> list[_Shard]:
    """Divide the members of all maps into shards of about one size, which continue from the state."""
    method, n_members = make_method(settings), len(state["f"]["theta"])
    targets = [cells.y for cells in clouds for _ in range(settings.n_ensemble)]
    ends = [n_members * part // min(n_threads, n_members) for part in range(min(n_threads, n_members) + 1)]
    shards = []
    for rows in map(slice, ends[:-1], ends[1:]):
        own = _select(state, rows)
        parts: dict[str, AveragedAdam | ConjugateCache] = {
            name: AveragedAdam(
                network,
                own[name]["theta"].clone(),
                betas=method.betas,
                weight_decay=settings.weight_decay,
                max_norm=method.max_norm,
                averaging=method.averaging,
            )
            for name in ("f", "g")
            if name in own
        }
        if settings.conjugates == CACHED:
            parts["cache"] = ConjugateCache(targets[rows])
        for name, part in parts.items():
            if len(own.get(name, {})) > 1:  # before the first step there is theta alone
                part.load(own[name])
        step: Step = partial(method.step, network, *parts.values())
        if torch.device(settings.device).type == "cuda" and settings.cuda_graph == "auto":
            step = RecordedStep(step, torch.device(settings.device))
        shards.append(_Shard(rows, parts, step))
    return shards


def _step(
    shard: _Shard,
    *,
    drawn: Sequence[tuple[Tensor, ...]],
    lr: float,
    network: Potential,
    number: int,
    settings: Settings,
) -> tuple[Tensor, Tensor]:
    """Train the members of a shard by one step and return their losses of f and g."""
    for part in shard.parts.values():
        if isinstance(part, AveragedAdam):
            network.at_step(part.theta, number, settings.max_steps)
    return shard.step([tuple(cells[shard.rows] for cells in batch) for batch in drawn], lr)


@full_precision()
def _snapshots(
    each: ThreadMap, network: Potential, state: State, monitors: Sequence[Monitor], n_threads: int
) -> list[Snapshot]:
    """Score the ensembles of all maps, some in each thread; a single map has all threads of PyTorch."""
    some = np.array_split(np.arange(len(monitors)), min(n_threads, len(monitors)))
    f, g = state["f"]["average"], state["g"]["average"] if "g" in state else None
    n = len(f) // len(monitors)

    def score(maps: NDArray[np.intp]) -> list[Snapshot]:
        rows = slice(maps[0] * n, (maps[-1] + 1) * n)
        return score_ensembles(network, f[rows], None if g is None else g[rows], [monitors[k] for k in maps])

    return list(chain.from_iterable(each(score, some) if len(some) > 1 else map(score, some)))


def _gathered(shards: Sequence[_Shard]) -> State:
    """Return the tensors of all shards below each other; a single number is the same in all."""
    gathered = {name: [shard.parts[name].state() for shard in shards] for name in shards[0].parts}
    return {
        name: {key: torch.cat([s[key] for s in states]) if t.ndim else t for key, t in states[0].items()}
        for name, states in gathered.items()
    }


def _select(state: State, rows: slice | Tensor) -> State:
    """Return some rows of all tensors; a single number is the same for all."""
    return {name: {key: t[rows] if t.ndim else t for key, t in tensors.items()} for name, tensors in state.items()}
