"""What is looked at during training: validation J, the best state of each member, and whether to go on."""

from __future__ import annotations

import time

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scot_hycnn.potentials import HyCNN

from ._amortized import State
from ._cells import Cells
from ._conjugate import refine

# Enough cells to see whether a member is on its way; the final choice uses all validation cells.
CHECK_CELLS = 512
CHECK_REFINEMENTS = 15


class Monitor:
    """Watches K members on validation cells, at checks between steps.

    Parameters
    ----------
    network
        Architecture of f and g.
    cells
        Validation cells come from here.
    """

    def __init__(self, network: HyCNN, cells: Cells) -> None:
        self._network = network
        self._x, self._y = (c[:CHECK_CELLS] for c in (cells.x_validation, cells.y_validation))
        self._scale = cells.coordinates.scale
        self._started = time.perf_counter()
        self._rows: list[dict[str, float]] = []
        self._best: tuple[Tensor, Tensor] | None = None
        self._last: tuple[Tensor, Tensor, Tensor] | None = None
        self.clearly_worse_than_gaussian = False

    @torch.no_grad()
    def check(self, step: int, state: State, losses: tuple[Tensor, Tensor]) -> None:
        """Score the averaged parameters of every member; the only place in training that waits for the device."""
        f, g = (self._network.weights(network.average) for network in (state.f, state.g))
        n_maps = len(state.f.average)
        x, y = (cells.expand(n_maps, -1, -1) for cells in (self._x, self._y))
        x_hat, residual = refine(
            lambda z: self._network.gradient(f, z), y, self._network.gradient(g, y), CHECK_REFINEMENTS
        )
        # Differences from the Gaussian potential |x|^2/2, cell by cell, so that their standard error is small.
        potential = self._network.value(f, x) - 0.5 * x.square().sum(-1)
        conjugate = (x_hat * y).sum(-1) - self._network.value(f, x_hat) - 0.5 * y.square().sum(-1)
        j = potential.mean(1) + conjugate.mean(1)
        error = (potential.mean(0).var() / len(self._x) + conjugate.mean(0).var() / len(self._y)).sqrt()
        self.clearly_worse_than_gaussian = not bool(j.mean() < 3 * error)
        self._remember(state.f.average.clone(), j.nan_to_num(nan=torch.inf), error)
        self._rows.append(
            {
                "step": step,
                "seconds": time.perf_counter() - self._started,
                "loss_f": float(losses[0].mean()) / self._scale,
                "loss_g": float(losses[1].mean()),
                "J_minus_gaussian": float(j.mean()) / self._scale,
                "J_error": float(error) / self._scale,
                "residual": float(residual.mean()),
            }
        )

    def _remember(self, theta: Tensor, j: Tensor, error: Tensor) -> None:
        self._last = theta, j, error
        if self._best is None:
            self._best = theta, j
            return
        best_theta, best_j = self._best
        better = j < best_j
        self._best = torch.where(better.unsqueeze(1), theta, best_theta), torch.where(better, j, best_j)

    def selected(self) -> Tensor:
        """The last state of each member, or its best where the last J is worse by more than a standard error.

        The annealed end is usually better than the check of lowest J, which partly is luck; but not after a failure.

        Returns
        -------
        theta, shape (K, P).
        """
        if self._best is None or self._last is None:
            raise RuntimeError("selected() was called before the first check.")
        (best_theta, best_j), (theta, j, error) = self._best, self._last
        back = ~(j <= best_j + error.nan_to_num(nan=0.0))
        return torch.where(back.unsqueeze(1), best_theta, theta)

    @property
    def history(self) -> dict[str, NDArray[np.float64]]:
        """One column for each quantity, one row for each check."""
        names = self._rows[0] if self._rows else {}
        return {name: np.array([row[name] for row in self._rows]) for name in names}
