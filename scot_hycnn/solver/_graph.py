"""Steps of training as one CUDA graph, which the host launches at once."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ._method import Losses
from ._settings import Settings

# Trains by one step of a learning rate.
Step = Callable[[float | Tensor], Losses]
# Steps before recording, in which libraries allocate what a graph must not.
N_BEFORE = 3


def recorded(step: Step, generators: Sequence[torch.Generator], settings: Settings) -> Callable[[float], Losses]:
    """The step as a graph, if it runs on CUDA and the settings do not forbid it; else as it is."""
    device = torch.device(settings.device)
    if device.type != "cuda" or settings.compilation == "never":
        return step
    return Graph(step, generators, device)


class Graph:
    """Record a step once, then replay it.

    A step is hundreds of operations on few numbers: a GPU is done with each before the host has launched the next one.
    On an H100 a step of one map took 19 ms, and 2 ms replayed; the numbers are the same to the last bit.

    Parameters
    ----------
    step
        What to record. All that it changes must be tensors that stay where they are.
    generators
        Random numbers that it draws.
    device
        A CUDA device.

    References
    ----------
    PyTorch's notes on CUDA semantics, "CUDA Graphs".
    """

    def __init__(self, step: Step, generators: Sequence[torch.Generator], device: torch.device) -> None:
        self._step, self._generators = step, generators
        self._lr = torch.zeros((), device=device)
        self._n_before = N_BEFORE
        self._recorded: tuple[torch.cuda.CUDAGraph, Losses] | None = None
        self._failed = False

    def __call__(self, lr: float) -> Losses:
        """Train by one step; the losses are overwritten by the next one."""
        if self._failed:
            return self._step(lr)
        self._lr.fill_(lr)
        if self._n_before:
            self._n_before -= 1
            return self._beside()
        if self._recorded is None:
            try:
                self._recorded = self._record()
            except RuntimeError as error:  # nothing was computed
                warnings.warn(
                    f"a training step cannot be recorded as a CUDA graph ({str(error).splitlines()[0]}); training goes "
                    "on without, several times slower. compilation='never' does not try.",
                    RuntimeWarning,
                    stacklevel=2,
                )
                self._failed = True
                return self._step(lr)
        graph, losses = self._recorded
        graph.replay()
        return losses

    def _beside(self) -> Losses:
        """A step as it is, on a stream of its own, as recording needs it."""
        current, own = torch.cuda.current_stream(self._lr.device), torch.cuda.Stream(self._lr.device)
        own.wait_stream(current)
        with torch.cuda.stream(own):
            losses = self._step(self._lr)
        current.wait_stream(own)
        return losses

    def _record(self) -> tuple[torch.cuda.CUDAGraph, Losses]:
        graph = torch.cuda.CUDAGraph()
        for generator in self._generators:
            graph.register_generator_state(generator)
        with torch.cuda.device(self._lr.device), torch.cuda.graph(graph):
            losses = self._step(self._lr)
        return graph, losses
