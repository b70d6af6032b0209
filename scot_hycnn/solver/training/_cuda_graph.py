"""Steps of training as one CUDA graph, which the host launches at once."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from scot_hycnn.solver._options import Settings

from ._method import Draw, Losses

# Trains by one step of a learning rate, on cells that it draws.
Step = Callable[[float | Tensor, Draw], Losses]
# Steps before recording, in which libraries allocate what a graph must not.
N_BEFORE = 3
_recording = threading.Lock()


def recorded(step: Step, draw: Draw, settings: Settings) -> Callable[[float], Losses]:
    """The step as a graph, if it runs on CUDA and the settings do not forbid it; else as it is."""
    device = torch.device(settings.device)
    if device.type != "cuda" or settings.compilation == "never":
        return lambda lr: step(lr, draw)
    return Graph(step, draw, device)


class Graph:
    """Record a step once, then replay it on fresh cells.

    A step is hundreds of operations on few numbers: a GPU is done with each before the host has launched the next one.
    On an H100 a step of one map took 19 ms, and 2 ms replayed; the numbers are the same to the last bit. Cells are
    drawn outside: random generators in a graph delay its replay.

    Parameters
    ----------
    step
        What to record. All that it changes must be tensors that stay where they are.
    draw
        Gives it fresh cells, as often in every step.
    device
        A CUDA device.

    References
    ----------
    PyTorch's notes on CUDA semantics, "CUDA Graphs".
    """

    def __init__(self, step: Step, draw: Draw, device: torch.device) -> None:
        self._step, self._draw = step, draw
        self._lr = torch.zeros((), dtype=torch.float32, device=device)
        # What the recorded step reads: of the last steps before, only their number counts.
        self._batches: list[tuple[Tensor, ...]] = []
        self._n_before = N_BEFORE
        self._recorded: tuple[torch.cuda.CUDAGraph, Losses] | None = None
        self._failed = False

    def __call__(self, lr: float) -> Losses:
        """Train by one step; the losses are overwritten by the next one."""
        if self._failed:
            return self._step(lr, self._draw)
        self._lr.fill_(lr)
        if self._n_before:
            self._n_before -= 1
            return self._beside()
        for batch in self._batches:
            for kept, drawn in zip(batch, self._draw(), strict=True):
                kept.copy_(drawn)
        if self._recorded is None:
            try:
                self._recorded = self._record()
            except RuntimeError as error:  # nothing was computed
                said, *_ = str(error).splitlines() or [""]
                warnings.warn(
                    f"a training step cannot be recorded as a CUDA graph ({said}); training goes on without, "
                    "several times slower. compilation='never' does not try.",
                    RuntimeWarning,
                    stacklevel=2,
                )
                self._failed = True
                return self._on_batches()
        graph, losses = self._recorded
        graph.replay()
        return losses

    def _beside(self) -> Losses:
        """A step as it is, on a stream of its own, as recording needs it."""
        self._batches = []

        def draw() -> tuple[Tensor, ...]:
            self._batches.append(self._draw())
            return self._batches[-1]

        current, own = torch.cuda.current_stream(self._lr.device), torch.cuda.Stream(self._lr.device)
        own.wait_stream(current)
        with torch.cuda.stream(own):
            losses = self._step(self._lr, draw)
        current.wait_stream(own)
        return losses

    def _record(self) -> tuple[torch.cuda.CUDAGraph, Losses]:
        graph, own = torch.cuda.CUDAGraph(), torch.cuda.Stream(self._lr.device)
        # Left to itself PyTorch records on a stream of the first device that was ever recorded on, and after a failure
        # leaves it in place; the outer context gives the caller's back. It records one graph at a time.
        recording = torch.cuda.graph(graph, stream=own, capture_error_mode="thread_local")
        with _recording, torch.cuda.stream(own), recording:
            losses = self._on_batches()
        return graph, losses

    def _on_batches(self) -> Losses:
        batches = iter(self._batches)
        return self._step(self._lr, lambda: next(batches))
