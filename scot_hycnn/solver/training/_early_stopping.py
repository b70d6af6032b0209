"""Checks of the ensemble on validation cells: which state is selected, and whether training stops early."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from scot_hycnn.potentials import Potential
from scot_hycnn.solver.data._training_data import TrainingData
from scot_hycnn.solver.model._blended import ascend

# Enough cells to follow training; the final choice uses all validation cells.
CHECK_CELLS = 512
CHECK_REFINEMENTS = 15
# Of two checks whose J differ by at most so many standard errors, the later, annealed one is taken.
SLACK = 0.1
# A check fails from this mean residual on, in standard deviations of the target. With few refinements 0.2 is left where
# a sound potential is sharp (W2 benchmark, D = 32); after a blow-up residuals are as large as the clouds and grow.
FAILED = 1.0


@dataclass(frozen=True)
class Snapshot:
    """The ensemble of one map at one check."""

    # Parameters, shape (K, P).
    theta: Tensor
    # Mean potential at source cells and its conjugate at target cells, minus those of the Gaussian map, for each cell:
    # differences between snapshots then have small standard errors.
    potential_x: Tensor
    conjugate_y: Tensor
    # Mean residual of the conjugates, in standard deviations of the target.
    residual: float

    @property
    def semi_dual(self) -> Tensor:
        """J minus that of the Gaussian map; infinite after a failure."""
        # Conjugates that did not converge are too small, and after a blow-up without bound: such a J would be lowest.
        j = self.potential_x.mean() + self.conjugate_y.mean()
        sound = self.residual < FAILED and bool(j.isfinite() & self.theta.isfinite().all())
        return j if sound else torch.full_like(j, torch.inf)

    def minus(self, other: Snapshot) -> tuple[Tensor, Tensor]:
        """Return the difference in J and its standard error."""
        x, y = self.potential_x - other.potential_x, self.conjugate_y - other.conjugate_y
        return self.semi_dual - other.semi_dual, (x.var() / len(x) + y.var() / len(y)).sqrt().nan_to_num(nan=0.0)


class Monitor:
    """The checks of one map on its validation cells: the best and the last snapshot, and the history."""

    # The ensemble is judged, not its members: averaged potentials overfit later than each of them.
    def __init__(self, cells: TrainingData) -> None:
        self.x, self.y = cells.x_validation[:CHECK_CELLS], cells.y_validation[:CHECK_CELLS]
        self.gaussian_x, self.gaussian_y = cells.gaussian_x[:CHECK_CELLS], cells.gaussian_y[:CHECK_CELLS]
        self.spread = float(self.y.var(0).mean().sqrt()) or 1.0  # 0 if all cells are the same point
        self._scale = cells.coordinates.scale
        self._started = time.perf_counter()
        self._gaussian = Snapshot(self.x[:0], torch.zeros_like(self.x[:, 0]), torch.zeros_like(self.y[:, 0]), 0.0)
        self._best = self._last = self._gaussian
        self.history: dict[str, NDArray[np.float64]] = {}
        self._response_seen = cells.no_change.rejected
        # J of the best map so far minus that of the Gaussian map, in standard errors.
        self._difference = -math.inf
        self.gain = 0.0

    def check(self, step: int, snapshot: Snapshot, losses: tuple[Tensor, Tensor]) -> None:
        """Add a check, with the losses of f and g of the members."""
        if not self.history or snapshot.semi_dual < self._best.semi_dual:
            self._best = snapshot
        self._last = snapshot
        j, error = snapshot.minus(self._gaussian)
        # After a failure the best state before it is judged, because that one will be selected.
        judged, its_error = (j, error) if j.isfinite() else self._best.minus(self._gaussian)
        self._difference = float(judged / its_error) if its_error else math.copysign(math.inf, float(judged))
        self.gain = float(judged) / self._scale
        row = {
            "step": step,
            "seconds": time.perf_counter() - self._started,
            "loss_f": float(losses[0].mean()) / self._scale,
            "loss_g": float(losses[1].mean()),
            "J_minus_gaussian": float(j) / self._scale,
            "J_error": float(error) / self._scale,
            "residual": snapshot.residual,
        }
        before = self.history or {name: np.empty(0, type(value)) for name, value in row.items()}
        self.history = {name: np.append(before[name], value) for name, value in row.items()}

    def is_hopeless(self, fraction: float) -> bool:
        """Return whether training can stop after this fraction of the steps, since the Gaussian map will be kept."""
        # Of 20 conditions with 500 cells nine showed no response; eight of these ended at the Gaussian map, with J
        # never 2 standard errors lower. The networks of the ninth were worse than the Gaussian map.
        without_response = fraction >= 0.3 and not self._response_seen and not self._difference < -2
        return without_response or (fraction >= 0.5 and not self._difference < 3)

    def selected(self) -> Tensor:
        """Return the parameters of the check with the lowest J, or of the last one if it is as good: (K, P), finite."""
        # With few cells networks overfit long before the last step, and after a failure the last state is worthless.
        # Where J is flat the annealed state at the end is the better map: within SLACK standard errors it is as good.
        worse, error = self._last.minus(self._best)
        theta = self._last.theta if worse <= SLACK * error else self._best.theta
        # If every check failed, the Gaussian map is kept; zeros are a network that can be stored.
        return theta if theta.isfinite().all() else torch.zeros_like(theta)

    def last(self) -> Tensor:
        """Return the parameters of the last check, shape (K, P), finite."""
        theta = self._last.theta
        return theta if theta.isfinite().all() else torch.zeros_like(theta)

    def state(self) -> dict[str, Any]:
        """Return everything that checks have changed."""
        return {
            "best": asdict(self._best),
            "last": asdict(self._last),
            "history": self.history,
            "seconds": time.perf_counter() - self._started,
            "difference": self._difference,
            "gain": self.gain,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Restore the state that ``state()`` returned."""
        self._best, self._last = Snapshot(**state["best"]), Snapshot(**state["last"])
        self.history, self._started = dict(state["history"]), time.perf_counter() - state["seconds"]
        self._difference, self.gain = state["difference"], state["gain"]


@torch.no_grad()
def score_ensembles(network: Potential, f: Tensor, g: Tensor | None, monitors: Sequence[Monitor]) -> list[Snapshot]:
    """Return a snapshot of each map, from the averaged parameters of all members, (maps x members, P), all at once."""
    n_maps = len(monitors)
    n_members = len(f) // n_maps
    weights_f = network.weights(f)

    def ensemble(function: Any, weights: Any, points: Tensor) -> Tensor:
        """Mean over the members of each map, at the same points."""
        values: Tensor = function(weights, points.repeat_interleave(n_members, 0))
        return values.reshape(n_maps, n_members, *values.shape[1:]).mean(1)

    # Maps with fewer validation cells are padded with zeros, which are cut off at the end.
    x, y = (pad_sequence([getattr(monitor, name) for monitor in monitors], batch_first=True) for name in "xy")
    # Without a second network the conjugates start at y, the maximisers of the Gaussian map.
    start = y if g is None else ensemble(network.gradient, network.weights(g), y)
    x_hat, residual, _ = ascend(lambda z: ensemble(network.gradient, weights_f, z), y, start, n_steps=CHECK_REFINEMENTS)
    potential, at_x_hat = (ensemble(network.value, weights_f, points) for points in (x, x_hat))
    conjugate = (x_hat * y).sum(-1) - at_x_hat
    return [
        Snapshot(
            theta.clone(),
            potential[k, : len(monitor.x)] - monitor.gaussian_x,
            conjugate[k, : len(monitor.y)] - monitor.gaussian_y,
            float(residual[k, : len(monitor.y)].mean()) / monitor.spread,
        )
        for k, (monitor, theta) in enumerate(zip(monitors, f.split(n_members), strict=True))
    ]
