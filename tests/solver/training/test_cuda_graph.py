"""Steps as a CUDA graph: the same bits on a GPU, and without one what is recorded, replayed and refused."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from scot_hycnn.solver import TransportMap, fit, fit_many
from scot_hycnn.solver.training._cuda_graph import RecordedStep

QUICK = {"hidden": (8, 8), "max_steps": 60, "batch_size": 64, "n_ensemble": 2, "device": "cuda", "progress": False}
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")


@pytest.fixture
def fake_cuda(monkeypatch):
    """PyTorch's interface to CUDA without a device: recording calls the step, and replays are counted."""
    stream = SimpleNamespace(wait_stream=lambda _: None)
    made = SimpleNamespace(refuse=False, replays=0)

    class Recording:
        def replay(self):
            made.replays += 1

    def graph(_, **options):
        assert options["capture_error_mode"] == "thread_local"
        if made.refuse:
            raise RuntimeError("operation not permitted when stream is capturing\nCUDA kernel errors ...")
        return nullcontext()

    replaced = {"CUDAGraph": Recording, "graph": graph, "Stream": lambda _: stream, "stream": lambda _: nullcontext()}
    for name, value in (replaced | {"current_stream": lambda _: stream}).items():
        monkeypatch.setattr(torch.cuda, name, value)
    return made


def noting(seen):
    """A step that notes its learning rate and the cells of its two batches."""

    def step(batches, lr):
        (x, _), (_, y) = batches
        seen.append((round(float(lr), 3), x.item(), y.item()))
        return x, y

    return step


def batches_of(number):
    return [(torch.tensor([float(number)]), torch.zeros(1)), (torch.zeros(1), torch.tensor([-float(number)]))]


def test_steps_are_taken_then_recorded_then_replayed_on_fresh_cells(fake_cuda):
    seen = []
    step = RecordedStep(noting(seen), torch.device("cpu"))
    for number in range(6):
        x, y = step(batches_of(number), number / 10)
        # The recorded step reads from the same tensors, which hold the cells of this step now.
        assert (x.item(), y.item()) == (number, -number)
    # The fourth call records, which computes nothing on a device, and is then the first to be replayed.
    assert seen == [(number / 10, number, -number) for number in range(4)]
    assert fake_cuda.replays == 3


def test_a_step_that_cannot_be_recorded_is_computed_on_the_same_cells(fake_cuda, caplog):
    fake_cuda.refuse, seen = True, []
    step = RecordedStep(noting(seen), torch.device("cpu"))
    with caplog.at_level(logging.WARNING, logger="scot_hycnn"):
        for number in range(5):
            step(batches_of(number), number / 10)
    assert "operation not permitted" in caplog.text
    assert len(caplog.records) == 1
    assert seen == [(number / 10, number, -number) for number in range(5)]


def clouds(n_maps=1):
    rng = np.random.default_rng(0)
    x, *ys = rng.normal(size=(1 + n_maps, 400, 3))
    return x, [y + (1 + k) * np.sign(y) for k, y in enumerate(ys)]


@needs_gpu
@pytest.mark.parametrize(
    "options",
    [
        *({"solver": name} for name in ("minimax", "w2gn", "enot", "paper")),
        *({"conjugates": name} for name in ("amortized", "cached")),
        {"potential": "hycnn-cyclic", "groups": (np.repeat(list("abcd"), 100), [np.repeat(list("abcd"), 100)] * 2)},
        {"lr": 0.5},
    ],
    ids=lambda options: str({name: value for name, value in options.items() if name != "groups"}),
)
def test_replayed_steps_are_the_steps(options):
    x, ys = clouds(2)
    recorded, plain = (fit_many(x, ys, **QUICK | options, cuda_graph=how) for how in ("auto", "never"))
    for one, other in zip(recorded, plain, strict=True):
        assert torch.equal(one.theta, other.theta)
        for name in one.history.keys() - {"seconds"}:
            np.testing.assert_array_equal(one.history[name], other.history[name])


@needs_gpu
@pytest.mark.parametrize("how", ["auto", "never"])
def test_no_step_waits_for_the_device(monkeypatch, how):
    """Between the sixth step, after recording, and the next check."""
    step, steps = torch.optim.Adam.step, []

    def watched(adam):
        steps.append(None)
        torch.cuda.set_sync_debug_mode("error" if len(steps) == 7 else "default")
        return step(adam)

    monkeypatch.setattr(torch.optim.Adam, "step", watched)
    try:
        x, ys = clouds(2)
        fit_many(x, ys, **QUICK | {"max_steps": 100}, cuda_graph=how)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@needs_gpu
def test_a_map_of_a_gpu_is_as_good_as_one_of_a_cpu_and_loads_there(tmp_path):
    x, y = np.random.default_rng(1).normal(size=(2, 1000, 2))
    fits = [fit(x, y + np.sign(y), max_steps=300, n_ensemble=2, device=device) for device in ("cpu", "cuda")]
    errors = [np.square(fitted.transport(x) - x - np.sign(x)).sum(1).mean() for fitted in fits]
    assert errors[1] < 1.3 * errors[0] + 0.02
    fits[1].save(tmp_path / "map.safetensors")
    loaded = TransportMap.load(tmp_path / "map.safetensors", device="cpu")
    np.testing.assert_allclose(loaded.transport(x), fits[1].transport(x), atol=1e-4)
