"""Devices, and PyTorch's defaults, which must not change any result."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest
import torch

from scot_hycnn.solver import TransportMap, fit, fit_many, resolve_device
from scot_hycnn.solver.training._optimiser import Optimiser

QUICK = {"hidden": (4, 4), "max_steps": 4, "batch_size": 32, "n_ensemble": 2, "device": "cpu", "progress": False}
GROUPS = (np.repeat(list("abcd"), 20),) * 2


@pytest.fixture
def cpu_alone(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


def test_auto_prefers_cuda_then_mps_then_the_cpu(monkeypatch, cpu_alone):
    assert resolve_device("cpu") == resolve_device("auto") == torch.device("cpu")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert resolve_device("auto").type == "mps"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("auto").type == "cuda"


@pytest.mark.parametrize("name", ["cuda:1", "meta", "gpu", "cuda:x"])
def test_a_device_that_is_unknown_or_not_there_lists_the_choices(cpu_alone, name):
    with pytest.raises(ValueError, match=rf"device='{name}' .*\['cpu'\]"):
        resolve_device(name)


def test_a_second_card_that_is_not_there_is_an_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert resolve_device("cuda:0") == torch.device("cuda:0")
    with pytest.raises(ValueError, match=r"device='cuda:1' .*\['cuda:0'\]"):
        resolve_device("cuda:1")


@contextmanager
def other_defaults():
    """Tensors on 'meta' have no values: a tensor that is made there by accident fails when it is read."""
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            yield
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    "options",
    [
        {"conjugates": "amortized"},
        {"conjugates": "cached", "potential": "hycnn-cyclic"},
        {"solver": "minimax", "groups": GROUPS, "leave_out": "groups"},
        {"solver": "w2gn", "potential": "icnn-soft"},
        {"solver": "enot", "potential": "groupmax"},
        {"solver": "paper", "potential": "icnn-quadratic"},
        {"potential": "gaussian", "groups": GROUPS},
        {"potential": "mlp"},
    ],
    ids=lambda options: " ".join(str(value) for name, value in options.items() if name != "groups"),
)
def test_a_fit_is_the_same_under_other_defaults(options):
    x, y = np.random.default_rng(0).normal(size=(2, 80, 2))
    y += np.sign(y)
    expected = fit(x, y, **QUICK | options)
    with other_defaults():
        fitted = fit(x, y, **QUICK | options)
        if fitted.centres:
            fitted, expected = (one.around(np.zeros(2)) for one in (fitted, expected))
        for one in (fitted, TransportMap.from_dict(fitted.to_dict(), device="cpu")):
            np.testing.assert_array_equal(one.transport(x), expected.transport(x))
            one.inverse(y)
            one.certify(x, y)


def test_an_interrupted_fit_continues_under_other_defaults(tmp_path, monkeypatch):
    x, y = np.random.default_rng(0).normal(size=(2, 200, 2))
    options = QUICK | {"max_steps": 40}
    expected, step, steps = fit_many(x, [y, x], **options), Optimiser.update, []

    def interrupted(*arguments):
        steps.append(None)
        if len(steps) == 11:
            raise KeyboardInterrupt
        return step(*arguments)

    with other_defaults():
        with monkeypatch.context() as patch:
            patch.setattr(Optimiser, "update", interrupted)
            with pytest.raises(KeyboardInterrupt):
                fit_many(x, [y, x], checkpoint_dir=tmp_path, **options)
        for fitted, one in zip(fit_many(x, [y, x], checkpoint_dir=tmp_path, **options), expected, strict=True):
            np.testing.assert_array_equal(fitted.transport(x), one.transport(x))


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("is_set", [False, True])
def test_denormal_numbers_of_the_caller_stay_as_they_were(is_set, n_threads):
    def are_zero():
        return not torch.tensor(1e-39).mul(1)

    x, y = np.random.default_rng(0).normal(size=(2, 200, 2))
    before = torch.get_num_threads()
    if not torch.set_flush_denormal(is_set):
        pytest.skip("This processor cannot compute without denormal numbers.")
    try:
        torch.set_num_threads(n_threads)
        fitted = fit(x, y, **QUICK)
        fitted.transport(x)
        assert are_zero() == is_set
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(before)
