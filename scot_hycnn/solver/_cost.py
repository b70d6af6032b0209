"""How long a fit will take."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch

from scot_hycnn.potentials import HyCNN

# A training step of the amortised solver costs about as much as this many gradients of its batch: measured 11 to 14
# from d = 5 to 50, one to four members, one and two threads.
GRADIENTS_PER_STEP = 13


def expected_seconds(
    n_dims: int, *, hidden: Sequence[int], max_steps: int, batch_size: int, n_ensemble: int, device: str
) -> float:
    """Time that :func:`scot_hycnn.solver.fit` will take, from a few gradients timed on the device.

    Parameters
    ----------
    n_dims
        Dimension d of the representation.
    hidden, max_steps, batch_size, n_ensemble
        Options of the fit.
    device
        Name of the device, not 'auto'.

    Returns
    -------
    Seconds, right to about a factor of two. The call itself takes a few hundredths of a second.

    Examples
    --------
    >>> from scot_hycnn import solver
    >>> solver.expected_seconds(
    ...     10, hidden=(16, 16), max_steps=100, batch_size=64, n_ensemble=1, device="cpu"
    ... ) < 60
    True
    """
    network = HyCNN(n_dims, tuple(hidden))
    weights = network.weights(network.init(n_ensemble, torch.Generator(device=device).manual_seed(0)))
    x = torch.zeros((n_ensemble, batch_size, n_dims), device=device)
    with torch.inference_mode():
        network.gradient(weights, x).sum().item()  # waits for the device
        started = time.perf_counter()
        for _ in range(3):
            gradient = network.gradient(weights, x)
        gradient.sum().item()
    return max_steps * GRADIENTS_PER_STEP * (time.perf_counter() - started) / 3
