"""Time the training steps of a fit apart from what it does before and after them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from scot_hycnn.solver import TransportMap

# Steps of the two fits from which the steps that a budget of seconds allows are computed.
FEW, MANY = 20, 100
# The solver trains at most so many networks at once: for each thread of a CPU, or on another device.
NETWORKS_OF_A_THREAD, NETWORKS_OF_A_GPU = 16, 256


def seconds_and_rate(timed_fit: Callable[[int], tuple[float, TransportMap]]) -> tuple[float, float]:
    """Return the seconds that a fit takes beside its steps, and its steps a second.

    Parameters
    ----------
    timed_fit
        Takes a number of steps and returns the seconds of a fit, and its map.
    """
    timed_fit(2)  # the first fit loads kernels
    (few, _), (many, fitted) = timed_fit(FEW), timed_fit(MANY)
    # A fit whose Gaussian map is clearly better stops early.
    rate = max(fitted.params["n_steps"] - FEW, 1) / max(many - few, 1e-3)
    return max(few - FEW / rate, 0.0), rate


def seconds_of_step(short: Sequence[TransportMap], long: Sequence[TransportMap], n_threads: int, on: str) -> float:
    """Return the seconds of a step of all maps of a call of fit_many, from a short and a long one.

    Both calls have as many checks, so the time of the checks cancels out.
    """
    (few, before), (many, after) = (np.mean([_first_half(fitted) for fitted in maps], axis=0) for maps in (short, long))
    most = NETWORKS_OF_A_THREAD * n_threads if on == "cpu" else NETWORKS_OF_A_GPU
    n_batches = -(-len(long) // max(most // long[0].params["n_ensemble"], 1))
    return n_batches * max(after - before, 1e-9) / (many - few)


def _first_half(fitted: TransportMap) -> tuple[float, float]:
    """Return the steps and seconds from the first check to the last one in the first half, where no fit stops early."""
    steps, seconds = fitted.history["step"], fitted.history["seconds"]
    last = np.flatnonzero(2 * steps <= fitted.params["max_steps"])[-1]
    return steps[last] - steps[0], seconds[last] - seconds[0]
