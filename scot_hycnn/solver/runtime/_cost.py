"""How long a fit will take."""

from __future__ import annotations

import time
from collections import Counter

import torch
from torch import Tensor

from scot_hycnn.solver._options import Settings
from scot_hycnn.solver.model._families import GAUSSIAN
from scot_hycnn.solver.training._cuda_graph import N_BEFORE, recorded
from scot_hycnn.solver.training._method import Draw
from scot_hycnn.solver.training._methods import make_method, make_network

from ._batching import maps_at_once
from ._threads import in_threads, n_parts, threads_here


def expected_seconds(n_dims: int, *settings: Settings) -> float:
    """Time that :func:`scot_hycnn.solver.fit_many` will take, from a few gradients timed on the device.

    Parameters
    ----------
    n_dims
        Dimension d of the representation.
    settings
        Options of each fit.

    Returns
    -------
    Seconds, right to about a factor of two; 0 for the Gaussian map. The call itself takes a few hundredths of a second.

    Examples
    --------
    >>> from scot_hycnn import solver
    >>> options = {"batch_size": 64, "device": "cpu", "rng": 0}
    >>> settings = solver.Settings.for_cells(500, 10, max_steps=100, n_ensemble=1, **options)
    >>> solver.expected_seconds(10, settings) > 0
    True
    """
    return sum(_seconds(n_dims, alike, n_maps) for alike, n_maps in Counter(settings).items())


def _seconds(n_dims: int, settings: Settings, n_maps: int) -> float:
    """Of maps with the same options."""
    if settings.potential == GAUSSIAN:
        return 0.0
    network = make_network(settings.potential, settings.solver, n_dims, settings.hidden)
    generator = torch.Generator(device=settings.device).manual_seed(0)
    at_once = min(n_maps, maps_at_once(settings, threads_here()))
    n_members = at_once * settings.n_ensemble
    n_threads = n_parts(settings.device, n_members)
    of_a_thread = -(-n_members // n_threads)
    weights = network.weights(network.init(of_a_thread, generator).detach())
    x = weights[next(iter(weights))].new_zeros((of_a_thread, settings.batch_size, n_dims))

    def gradient(_: object, draw: Draw) -> tuple[Tensor, Tensor]:
        cells, *_ = draw()
        found = network.gradient(weights, cells)
        return found, found

    once = recorded(gradient, lambda: (x, x), settings)

    def gradients(times: int) -> float:
        with torch.inference_mode():
            for _ in range(times):
                found, _ = once(0.0)
            return found.sum().item()  # waits for the device

    with in_threads(n_threads) as each:
        each(gradients, [N_BEFORE + 1] * n_threads)
        started = time.perf_counter()
        each(gradients, [3] * n_threads)
    one = (time.perf_counter() - started) / 3
    method = make_method(settings.solver, settings.lr, settings.weight_decay, conjugates=settings.conjugates)
    of_a_batch = settings.max_steps * method.gradients_per_step * one
    return of_a_batch * n_maps / at_once
