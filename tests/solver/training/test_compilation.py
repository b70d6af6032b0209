"""The ways to make a training step faster, each of which gives way where it does not work."""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from scot_hycnn.solver import fit, fit_many
from scot_hycnn.solver.training import _cuda_graph as _graph
from scot_hycnn.solver.training._compiled import compiled

QUICK = {"hidden": (4,), "max_steps": 30, "batch_size": 32, "n_ensemble": 2, "device": "cpu", "progress": False}
quiet = pytest.mark.filterwarnings("ignore:solver.fit")


def clouds():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 200, 2))
    return x, y + np.sign(y)


@quiet
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # PyTorch's own, as it imports its compiler
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")
def test_a_compiled_loop_finds_the_same_maps():
    """Of one map and of two, which is another number of networks; up to the order of rounding."""
    x, y = clouds()
    for ys in ([y], [y, y + 1]):
        expected = fit_many(x, ys, **QUICK)
        for one, other in zip(fit_many(x, ys, compilation="always", **QUICK), expected, strict=True):
            np.testing.assert_allclose(one.transport(x), other.transport(x), atol=1e-3)
            assert one.params["compilation"] == "always"


@quiet
def test_without_a_compiler_training_goes_on_as_it_was(monkeypatch):
    def no_compiler(*_):
        raise RuntimeError("no C++ compiler\nand more")

    monkeypatch.setattr(torch, "compile", lambda function: no_compiler)
    x, y = clouds()
    with pytest.warns(RuntimeWarning, match=r"^torch\.compile failed \(RuntimeError: no C\+\+ compiler\); training"):
        fitted = fit(x, y, compilation="always", **QUICK)
    np.testing.assert_array_equal(fitted.transport(x), fit(x, y, **QUICK).transport(x))


def test_it_warns_once(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function: 1 / 0)
    double = compiled(lambda x: 2 * x)
    with pytest.warns(RuntimeWarning, match="ZeroDivisionError"):
        assert double(torch.ones(1)) == 2
    assert double(torch.ones(1)) == 2


def test_an_error_of_the_function_itself_is_raised(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function: function)
    with pytest.warns(RuntimeWarning, match="KeyError"), pytest.raises(KeyError):
        compiled(lambda x: x["nothing"])({})


@quiet
def test_elsewhere_than_on_cuda_nothing_is_recorded(monkeypatch):
    monkeypatch.setattr(_graph, "Graph", None)
    fit(*clouds(), **QUICK)


@pytest.fixture
def cuda(monkeypatch):
    """PyTorch's interface to CUDA, without a device: recording calls the step, replaying counts."""
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

    for name, value in {
        "CUDAGraph": Recording,
        "graph": graph,
        "Stream": lambda _: stream,
        "stream": lambda _: nullcontext(),
        "current_stream": lambda _: stream,
        "device": lambda _: nullcontext(),
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    return made


class Steps:
    """Steps that note their learning rate and draw twice, numbers that count on."""

    def __init__(self):
        self.seen, self.drawn = [], 0

    def draw(self):
        self.drawn += 1
        return torch.tensor([float(self.drawn)]), torch.tensor([-float(self.drawn)])

    def __call__(self, lr, draw):
        (x, _), (_, y) = draw(), draw()
        self.seen.append((round(float(lr), 3), x.item(), y.item()))
        return x, y


def test_steps_are_taken_then_recorded_then_replayed_on_fresh_cells(cuda):
    steps = Steps()
    graph = _graph.Graph(steps, steps.draw, torch.device("cpu"))
    for number in range(6):
        x, y = graph(number / 10)
        # What was recorded reads from the same place, where the cells of this step are by now.
        assert (x.item(), y.item()) == (2 * number + 1, -2 * number - 2)
    # The fourth call records, which computes nothing on a device, and is then the first to be replayed.
    assert steps.seen == [(number / 10, 2 * number + 1, -2 * number - 2) for number in range(4)]
    assert cuda.replays == 3


def test_what_cannot_be_recorded_is_computed_on_the_same_cells(cuda):
    cuda.refuse, steps = True, Steps()
    graph = _graph.Graph(steps, steps.draw, torch.device("cpu"))
    for number in range(3):
        graph(number / 10)
    with pytest.warns(
        RuntimeWarning, match=r"^a training step cannot be recorded as a CUDA graph \(operation not permitted when"
    ):
        graph(0.3)
    graph(0.4)
    assert steps.seen == [(number / 10, 2 * number + 1, -2 * number - 2) for number in range(5)]
    assert cuda.replays == 0
