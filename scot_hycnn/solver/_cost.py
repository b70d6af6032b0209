"""How long a fit will take."""

from __future__ import annotations

import time

import torch

from ._choices import GAUSSIAN, RECIPES, make_network
from ._settings import Settings


def expected_seconds(n_dims: int, settings: Settings) -> float:
    """Time that :func:`scot_hycnn.solver.fit` will take, from a few gradients timed on the device.

    Parameters
    ----------
    n_dims
        Dimension d of the representation.
    settings
        Options of the fit.

    Returns
    -------
    Seconds, right to about a factor of two; 0 for the Gaussian map. The call itself takes a few hundredths of a second.

    Examples
    --------
    >>> from scot_hycnn import solver
    >>> options = {"batch_size": 64, "validation_fraction": 0.1, "device": "cpu", "rng": 0}
    >>> settings = solver.Settings.for_cells(500, 10, max_steps=100, n_ensemble=1, **options)
    >>> solver.expected_seconds(10, settings) < 60
    True
    """
    if settings.potential == GAUSSIAN:
        return 0.0
    network = make_network(settings.potential, settings.solver, n_dims, settings.hidden)
    generator = torch.Generator(device=settings.device).manual_seed(0)
    weights = network.weights(network.init(settings.n_ensemble, generator))
    x = torch.zeros((settings.n_ensemble, settings.batch_size, n_dims), device=settings.device)
    with torch.inference_mode():
        network.gradient(weights, x).sum().item()  # waits for the device
        started = time.perf_counter()
        for _ in range(3):
            gradient = network.gradient(weights, x)
        gradient.sum().item()
    one = (time.perf_counter() - started) / 3
    return settings.max_steps * RECIPES[settings.solver].method.gradients_per_step * one
