"""Training methods by name: the step of each, and how Adam takes it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from scot_hycnn.potentials import Potential
from scot_hycnn.solver._options import CACHED, Settings
from scot_hycnn.solver.baselines._enot import enot_step
from scot_hycnn.solver.baselines._minimax import N_INNER, minimax_step
from scot_hycnn.solver.baselines._w2gn import w2gn_step
from scot_hycnn.solver.model._families import make_potential

from ._semi_dual import semi_dual_step


@dataclass(frozen=True)
class Method:
    """A training method.

    Parameters
    ----------
    step
        Called with the potential, the optimiser of f, that of the second network g (or a cache of conjugates), fresh
        batches and the learning rate; trains f and g by one step and returns their losses, shape (K,), on the device.
    n_batches
        Batches for each step.
    betas, max_norm, averaging
        Options of Adam; see ``AveragedAdam``. An average of 0 returns the last step.
    warm_up
        Steps in which the learning rate rises, at most a tenth of all.
    """

    step: Callable[..., tuple[Tensor, Tensor]]
    n_batches: int = 1
    betas: tuple[float, float] = (0.5, 0.9)
    max_norm: float = 1.0
    averaging: float = 0.98
    warm_up: int = 50


# Refinements of a predicted conjugate: with 3 the W2 benchmark (D = 16) stalled at 10 % error; 8 have a tenth less
# error than 5 there and on T = 4x^3 (d = 50), for 15 % more time. From the cache, 3 reach the error of these 8 in half
# the time (benchmarks/screen.py); without the cached step sizes 5 were needed.
AMORTIZED_REFINEMENTS, CACHED_REFINEMENTS = 8, 3
# A step of the others takes a third to twice the time of the default (benchmarks/speed.py).
METHODS = {
    "amortized": Method(partial(semi_dual_step, n_refinements=AMORTIZED_REFINEMENTS)),
    "minimax": Method(minimax_step, n_batches=N_INNER + 1),
    "w2gn": Method(w2gn_step),
    # With harder clipping the noise of the regulariser wins; see its rate in _options.py.
    "enot": Method(enot_step, max_norm=10.0),
    # arXiv:2604.26942, app. D.3: plain Adam, whose last step is the result.
    "paper": Method(
        partial(minimax_step, double_backward=True),
        n_batches=N_INNER + 1,
        max_norm=math.inf,
        averaging=0.0,
        warm_up=1,
    ),
}


def make_method(settings: Settings) -> Method:
    """Return the training method of these settings."""
    if settings.conjugates == CACHED:
        return Method(partial(semi_dual_step, n_refinements=CACHED_REFINEMENTS))
    return METHODS[settings.solver]


def make_network(settings: Settings, n_dims: int) -> Potential:
    """Return the potential of these settings; one that the user made stays as it is."""
    if isinstance(settings.potential, Potential):
        return settings.potential
    return make_potential(settings.potential, n_dims, settings.hidden, balanced=settings.balanced)
