"""What tests of many maps share: which batches are fitted, and maps that stop early."""

from __future__ import annotations

import pytest

from scot_hycnn.solver.runtime import _batching as _maps
from scot_hycnn.solver.training import _early_stopping as _monitor
from scot_hycnn.solver.training import _loop


@pytest.fixture
def fitted_batches(monkeypatch):
    """Sizes of the batches that are fitted."""
    sizes = []

    def fit_batch(tasks, *args, original=_maps._fit_batch):
        sizes.append(len(tasks))
        return original(tasks, *args)

    monkeypatch.setattr(_maps, "_fit_batch", fit_batch)
    return sizes


@pytest.fixture
def stop(monkeypatch):
    """Let the Gaussian map be clearly better, from the middle on, for the maps of these numbers."""

    def stop_these(*numbers):
        made = []

        class Told(_monitor.Monitor):
            def __init__(self, *args):
                super().__init__(*args)
                self.number = len(made)
                made.append(self)

            def check(self, *args):
                super().check(*args)
                self.clearly_worse_than_gaussian = self.number in numbers

        monkeypatch.setattr(_loop, "Monitor", Told)

    return stop_these
