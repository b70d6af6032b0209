"""The training loop: draw, step, check, stop, average."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from scot_hycnn.potentials import Potential
from scot_hycnn.solver._options import AMORTIZED, CACHED, Settings
from scot_hycnn.solver.baselines import N_INNER, enot_step, minimax_step, w2gn_step
from scot_hycnn.solver.data._training_data import Batches, Trained, TrainingData
from scot_hycnn.solver.runtime._device import ThreadMap, full_precision, in_threads, n_parts

from ._cuda_graph import RecordedStep, Step
from ._early_stopping import Monitor, score_ensembles
from ._optimiser import Optimiser, cosine
from ._semi_dual import ConjugateCache, semi_dual_step

N_CHECKS = 10


@dataclass(frozen=True)
class Method:
    """A training method: its step, and how the optimiser takes it."""

    # It takes the potential, the optimisers of f and of the second network g (or a cache of conjugates), fresh batches
    # and the learning rate; trains f and g by one step; and returns their losses, shape (K,), on the device.
    step: Callable[..., tuple[Tensor, Tensor]]
    n_batches: int = 1
    # Options of Optimiser; an average of 0 returns the last step. The first beta of .9 is worse in five of six fits,
    # and .95 for the second is as good as .9.
    soap: bool = True
    betas: tuple[float, float] = (0.8, 0.95)
    max_norm: float = 1.0
    averaging: float = 0.98
    # Steps in which the learning rate rises, at most a tenth of all.
    warm_up: int = 50


# Refinements of a predicted conjugate: with Adam and 3 the W2 benchmark (D = 16) stalled at 10 % error; 8 have a tenth
# less error than 5 there and on T = 4x^3 (d = 50), for 15 % more time. From the cache 3 are enough: with SOAP and 5,000
# cells 2 are up to a quarter worse on the W2 benchmark, and 8 are no better (D = 16) for a quarter more time.
AMORTIZED_REFINEMENTS, CACHED_REFINEMENTS = 8, 3
METHODS = {
    AMORTIZED: Method(partial(semi_dual_step, n_refinements=AMORTIZED_REFINEMENTS)),
    CACHED: Method(partial(semi_dual_step, n_refinements=CACHED_REFINEMENTS)),
    "minimax": Method(minimax_step, n_batches=N_INNER + 1),
    "w2gn": Method(w2gn_step),
    # With SOAP, or with harder clipping, the noise of the regulariser wins; see its rate in _options.py.
    "enot": Method(enot_step, soap=False, betas=(0.5, 0.9), max_norm=10.0),
    # arXiv:2604.26942, app. D.3: plain Adam, whose last step is the result.
    "paper": Method(
        partial(minimax_step, double_backward=True),
        n_batches=N_INNER + 1,
        soap=False,
        betas=(0.5, 0.9),
        max_norm=math.inf,
        averaging=0.0,
        warm_up=1,
    ),
}

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

    ``progress`` is called with the number of steps, of all maps together, and at checks with the mean J minus that of
    the Gaussian map. ``save`` is called with the state at each check, and training continues from the state ``saved``
    to the same bits.
    """
    method = METHODS[CACHED if settings.conjugates == CACHED else settings.solver]
    n, max_steps = settings.n_ensemble, settings.max_steps
    generator = torch.Generator(torch.device(settings.device)).manual_seed(settings.rng)
    monitors = [Monitor(cells) for cells in clouds]
    state, results, first_step = _start(network, settings, clouds, monitors, generator, saved=saved)
    running = [k for k in range(len(clouds)) if k not in results]
    progress(len(running) * (first_step - 1) + len(results) * max_steps, None)
    warm_up = max(min(method.warm_up, max_steps // 10), 1)
    check_every = max(max_steps // N_CHECKS, 1)
    # PyTorch's own threads share single operations, and those of a training step are too small for that: two threads
    # that each train half of the members are 1.4 to 1.6 times faster.
    n_threads = n_parts(settings.device, len(clouds) * n)
    with in_threads(n_threads) as in_parallel:
        shards: list[_Shard] = []
        for step in range(first_step, max_steps + 1):
            if not running:
                break
            if not shards:
                batches = Batches([clouds[k] for k in running], (n, settings.batch_size), generator)
                shards = _divide(state, network, settings, method, n_threads=n_threads)

            # Draw fresh cells for all members, so that each map gets the same ones however its members are divided.
            drawn = [batches.draw() for _ in range(method.n_batches)]

            # Take a step of the method in every thread, with the learning rate and the temperature of this step.
            lr = settings.lr * cosine(step - 1, max_steps, warm_up=warm_up)
            take_step = partial(_step, network=network, batches=drawn, lr=lr, n_done=step - 1, max_steps=max_steps)
            losses = in_parallel(take_step, shards)
            if step % check_every and step < max_steps:
                progress(len(running), None)
                continue

            # Check the average over steps of each ensemble on validation cells. Only here the host waits for a GPU.
            state = _gathered(shards)
            checked = [monitors[k] for k in running]
            _check(in_parallel, network, state, checked, n_threads=n_threads, step=step, losses=losses)
            gain = sum(monitors[k].gain for k in running) / len(running)

            # Stop maps at their last step, and earlier those for which the Gaussian map will be kept.
            hopeless = {k for k in running if settings.balanced and monitors[k].is_hopeless(step / max_steps)}
            for k, n_bad in zip(running, state["f"]["n_bad_gradients"].split(n), strict=True):
                if k in hopeless or step == max_steps:
                    theta = monitors[k].selected() if settings.balanced else monitors[k].last()
                    results[k] = Trained(theta, clouds[k], k in hopeless, step, monitors[k].history, int(n_bad.sum()))
            if hopeless:
                # The others continue in new shards.
                stays = torch.tensor([k not in results for k in running for _ in range(n)], device=generator.device)
                state, shards = _select(state, stays), []
            # The bar counts the remaining steps of maps that stop early as done.
            progress(len(running) + len(hopeless) * (max_steps - step), gain)
            running = [k for k in running if k not in results]
            if save is not None:
                checks = {str(k): monitors[k].state() for k in running}
                ended = {str(k): result.state() for k, result in results.items()}
                more = {"generator": generator.get_state(), **(state if running else {})}
                save({"step": step, "results": ended, "monitors": checks, **more})
    return [results[k] for k in range(len(clouds))]


def _start(
    network: Potential,
    settings: Settings,
    clouds: Sequence[TrainingData],
    monitors: Sequence[Monitor],
    generator: torch.Generator,
    *,
    saved: dict[str, Any] | None,
) -> tuple[State, dict[int, Trained], int]:
    """Return the state of all members, the results of maps that have ended, and the number of the first step."""
    if saved is not None:
        generator.set_state(saved["generator"])
        for k, monitor in saved["monitors"].items():
            monitors[int(k)].load(monitor)
        results = {int(k): Trained(cells=clouds[int(k)], **result) for k, result in saved["results"].items()}
        return {name: saved[name] for name in ("f", "g", "cache") if name in saved}, results, saved["step"] + 1
    # All maps have the same seed, so that their networks start alike: f is drawn first, then g if there is one.
    # Baselines have a second network, too.
    names = ["f"] if settings.conjugates == CACHED else ["f", "g"]
    drawn = [network.init(settings.n_ensemble, generator).repeat(len(clouds), 1) for _ in names]
    state = {name: {"theta": theta} for name, theta in zip(names, drawn, strict=True)}
    if settings.conjugates == CACHED:
        # In balanced coordinates the Gaussian map is the identity: its maximiser for y is y. All networks have as many
        # rows as the largest target, also after it has stopped; rows beyond a network's own target are never drawn.
        targets = [cells.y for cells in clouds for _ in range(settings.n_ensemble)]
        maximisers = pad_sequence(targets, batch_first=True)
        state["cache"] = {"maximisers": maximisers, "sizes": torch.ones_like(maximisers[..., 0])}
    return state, {}, 1


@dataclass
class _Shard:
    """The members that one thread trains, which are these rows of all."""

    rows: slice
    parts: dict[str, Optimiser | ConjugateCache]  # "f", and "g" or "cache"
    step: Step


def _divide(state: State, network: Potential, settings: Settings, method: Method, *, n_threads: int) -> list[_Shard]:
    """Divide the members of all maps into shards of about one size, which continue from the state."""
    n_members, device = len(state["f"]["theta"]), torch.device(settings.device)
    n_shards = min(n_threads, n_members)
    ends = [n_members * part // n_shards for part in range(n_shards + 1)]
    shards = []
    for rows in map(slice, ends[:-1], ends[1:]):
        selected = _select(state, rows)
        parts: dict[str, Optimiser | ConjugateCache] = {}
        for name, tensors in selected.items():
            if name == "cache":
                parts[name] = ConjugateCache(**{key: tensor.clone() for key, tensor in tensors.items()})
                continue
            parts[name] = optimiser = Optimiser(
                network,
                tensors["theta"].clone(),
                betas=method.betas,
                weight_decay=settings.weight_decay,
                max_norm=method.max_norm,
                averaging=method.averaging,
                soap=method.soap,
            )
            if len(tensors) > 1:  # before the first step there is theta alone
                optimiser.load(tensors)
        step: Step = partial(method.step, network, *parts.values())
        # A GPU finishes the operations of a step before the host has launched the next one: see RecordedStep.
        if device.type == "cuda" and settings.cuda_graph == "auto":
            step = RecordedStep(step, device)
        shards.append(_Shard(rows, parts, step))
    return shards


def _step(
    shard: _Shard, *, network: Potential, batches: Sequence[tuple[Tensor, ...]], lr: float, n_done: int, max_steps: int
) -> tuple[Tensor, Tensor]:
    """Train the members of a shard by one step and return their losses of f and g."""
    for part in shard.parts.values():
        if isinstance(part, Optimiser):
            network.at_step(part.theta, n_done, max_steps)
            # A CUDA graph cannot record this, so that it stands beside the step.
            part.renew(n_done)
    return shard.step([tuple(cells[shard.rows] for cells in batch) for batch in batches], lr)


@full_precision()
def _check(
    in_parallel: ThreadMap,
    network: Potential,
    state: State,
    monitors: Sequence[Monitor],
    *,
    n_threads: int,
    step: int,
    losses: Sequence[tuple[Tensor, Tensor]],
) -> None:
    """Add a check to the monitor of each map that trains; ``losses`` are those of f and g, from each shard."""
    f, g = state["f"]["average"], state["g"]["average"] if "g" in state else None
    n = len(f) // len(monitors)
    # Some ensembles are scored in each thread; a single one has all threads of PyTorch.
    parts = np.array_split(np.arange(len(monitors)), min(n_threads, len(monitors)))
    rows = [slice(maps[0] * n, (maps[-1] + 1) * n) for maps in parts]
    arguments = [
        (f[members], None if g is None else g[members], [monitors[k] for k in maps])
        for members, maps in zip(rows, parts, strict=True)
    ]
    run = in_parallel if len(parts) > 1 else map
    snapshots = chain.from_iterable(run(lambda some: score_ensembles(network, *some), arguments))
    loss_f, loss_g = (torch.cat(of_shards).split(n) for of_shards in zip(*losses, strict=True))
    for monitor, snapshot, *its_losses in zip(monitors, snapshots, loss_f, loss_g, strict=True):
        monitor.check(step, snapshot, tuple(its_losses))


def _gathered(shards: Sequence[_Shard]) -> State:
    """Return the tensors of all shards below each other; a single number is the same in all."""
    gathered = {name: [shard.parts[name].state for shard in shards] for name in shards[0].parts}
    return {
        name: {key: torch.cat([s[key] for s in states]) if t.ndim else t for key, t in states[0].items()}
        for name, states in gathered.items()
    }


def _select(state: State, rows: slice | Tensor) -> State:
    """Return some rows of all tensors; a single number is the same for all."""
    return {name: {key: t[rows] if t.ndim else t for key, t in tensors.items()} for name, tensors in state.items()}
