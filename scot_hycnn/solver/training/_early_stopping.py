"""What is looked at during training: validation J of the ensemble, its best state, and whether to go on."""

from __future__ import annotations

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
from scot_hycnn.solver.data._training_data import TrainingData as Cells
from scot_hycnn.solver.model._conjugate import refine

from ._method import Losses

# Enough cells to see where training is; the final choice uses all validation cells.
CHECK_CELLS = 512
CHECK_REFINEMENTS = 15
# Of two checks whose J differ by so many standard errors the later, annealed one is taken.
SLACK = 0.1
# Mean residual from which a check is a failure, in standard deviations of the target. Few refinements leave 0.2 where
# a sound potential is sharp (W2 benchmark, D = 32); after a blow-up residuals are as large as the clouds and grow.
FAILED = 1.0


@dataclass(frozen=True)
class Snapshot:
    """The ensemble at one check.

    Parameters
    ----------
    theta
        Parameters, shape (K, P).
    potential_x, conjugate_y
        Mean potential at source cells and its conjugate at target cells, less the Gaussian map's, cell by cell:
        differences between snapshots then have small standard errors.
    residual
        Mean residual of the conjugates, in standard deviations of the target.
    """

    theta: Tensor
    potential_x: Tensor
    conjugate_y: Tensor
    residual: float

    @property
    def semi_dual(self) -> Tensor:
        """J, less the Gaussian map's; infinite after a failure.

        Conjugates that did not converge are too small, after a blow-up without bound: that J would beat every other.
        """
        j = self.potential_x.mean() + self.conjugate_y.mean()
        sound = self.residual < FAILED and bool(j.isfinite() & self.theta.isfinite().all())
        return j if sound else torch.full_like(j, torch.inf)

    def minus(self, other: Snapshot) -> tuple[Tensor, Tensor]:
        """Difference in J, and its standard error."""
        x, y = self.potential_x - other.potential_x, self.conjugate_y - other.conjugate_y
        return self.semi_dual - other.semi_dual, (x.var() / len(x) + y.var() / len(y)).sqrt().nan_to_num(nan=0.0)


class Monitor:
    """Watches the ensemble on validation cells, at checks between steps.

    The ensemble is judged, not its members: averaged potentials overfit later than each of them.

    Parameters
    ----------
    cells
        Validation cells come from here.
    """

    def __init__(self, cells: Cells) -> None:
        self.x, self.y = (c[:CHECK_CELLS] for c in (cells.x_validation, cells.y_validation))
        self.gaussian_x, self.gaussian_y = cells.gaussian_x[:CHECK_CELLS], cells.gaussian_y[:CHECK_CELLS]
        self.spread = float(self.y.var(0).mean().sqrt()) or 1.0  # one point
        self._scale = cells.coordinates.scale
        self._started = time.perf_counter()
        self._rows: list[dict[str, float]] = []
        self._gaussian = Snapshot(self.x[:0], torch.zeros_like(self.x[:, 0]), torch.zeros_like(self.y[:, 0]), 0.0)
        self._best = self._last = self._gaussian
        self.clearly_worse_than_gaussian = False
        self.gain = 0.0

    def check(self, step: int, now: Snapshot, losses: Losses) -> None:
        """Take in how the ensemble is now. Checks alone wait for the device in training."""
        self._last = now
        if not self._rows or self._last.semi_dual < self._best.semi_dual:
            self._best = self._last
        j, error = self._last.minus(self._gaussian)
        # A failure says nothing of the states before it.
        judged, its_error = (j, error) if j.isfinite() else self._best.minus(self._gaussian)
        self.clearly_worse_than_gaussian = not bool(judged < 3 * its_error)
        self.gain = float(judged) / self._scale
        self._rows.append(
            {
                "step": step,
                "seconds": time.perf_counter() - self._started,
                "loss_f": float(losses[0].mean()) / self._scale,
                "loss_g": float(losses[1].mean()),
                "J_minus_gaussian": float(j) / self._scale,
                "J_error": float(error) / self._scale,
                "residual": self._last.residual,
            }
        )

    def state(self) -> dict[str, Any]:
        """Everything that checks have changed."""
        return {
            "best": asdict(self._best),
            "last": asdict(self._last),
            "rows": self.history,
            "seconds": time.perf_counter() - self._started,
            "clearly_worse_than_gaussian": self.clearly_worse_than_gaussian,
            "gain": self.gain,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Become what had this state."""
        self._best, self._last = (Snapshot(**state[name]) for name in ("best", "last"))
        columns = {name: column.tolist() for name, column in state["rows"].items()}
        self._rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        self._started = time.perf_counter() - state["seconds"]
        self.clearly_worse_than_gaussian, self.gain = state["clearly_worse_than_gaussian"], state["gain"]

    def selected(self) -> Tensor:
        """Parameters of the check of lowest J; of the last one where that is as good.

        With few cells networks overfit long before the last step, and after a failure the end is worthless. Where J is
        flat the annealed end is the better map: as good means within SLACK standard errors of the difference.

        Returns
        -------
        theta, shape (K, P), finite.
        """
        worse, error = self._last.minus(self._best)
        return _storable(self._last.theta if worse <= SLACK * error else self._best.theta)

    def last(self) -> Tensor:
        """Parameters of the last check, shape (K, P), finite."""
        return _storable(self._last.theta)

    @property
    def history(self) -> dict[str, NDArray[np.float64]]:
        """One column for each quantity, one row for each check."""
        names = self._rows[0] if self._rows else {}
        return {name: np.array([row[name] for row in self._rows]) for name in names}


@torch.no_grad()
def snapshots(network: Potential, f: Tensor, g: Tensor, monitors: Sequence[Monitor]) -> list[Snapshot]:
    """Score the ensembles of some maps on validation cells, all at once.

    Parameters
    ----------
    network
        Architecture of f and g.
    f, g
        Averaged parameters of all members, in the order of the maps, shape (maps x members, P).
    monitors
        Of the maps.
    """
    n_maps = len(monitors)
    n_members = len(f) // n_maps
    weights_f, weights_g = network.weights(f), network.weights(g)

    def mean(values: Tensor) -> Tensor:
        return values.reshape(n_maps, n_members, *values.shape[1:]).mean(1)

    def of_members(points: Tensor) -> Tensor:
        return points.repeat_interleave(n_members, 0)

    # Maps with fewer cells get zeros, which are cut off again.
    x, y = (pad_sequence([getattr(own, name) for own in monitors], batch_first=True) for name in "xy")
    start = mean(network.gradient(weights_g, of_members(y)))
    x_hat, residual = refine(lambda z: mean(network.gradient(weights_f, of_members(z))), y, start, CHECK_REFINEMENTS)
    potential, at_x_hat = (mean(network.value(weights_f, of_members(z))) for z in (x, x_hat))
    conjugate = (x_hat * y).sum(-1) - at_x_hat
    return [
        Snapshot(
            theta.clone(),
            potential[k, : len(own.x)] - own.gaussian_x,
            conjugate[k, : len(own.y)] - own.gaussian_y,
            float(residual[k, : len(own.y)].mean()) / own.spread,
        )
        for k, (own, theta) in enumerate(zip(monitors, f.split(n_members), strict=True))
    ]


def _storable(theta: Tensor) -> Tensor:
    """If every check failed, no state is good and the Gaussian map is kept; zeros are a network that can be stored."""
    return theta if theta.isfinite().all() else torch.zeros_like(theta)
