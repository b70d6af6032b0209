"""Where tensors live."""

from __future__ import annotations

import pytest
import torch

from scot_hycnn.solver.runtime._device import resolve_device


def without_accelerators(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


def test_the_cpu_is_always_there(monkeypatch):
    without_accelerators(monkeypatch)
    assert resolve_device("cpu") == resolve_device("auto") == torch.device("cpu")


def test_auto_prefers_cuda_then_mps(monkeypatch):
    without_accelerators(monkeypatch)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert resolve_device("auto").type == "mps"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("auto").type == "cuda"


@pytest.mark.parametrize("name", ["cuda", "cuda:1", "mps", "xpu", "meta"])
def test_a_device_that_is_not_there_is_an_error(monkeypatch, name):
    without_accelerators(monkeypatch)
    with pytest.raises(ValueError, match=rf"device='{name}' is not available here; .* finds \['cpu'\].*'auto'"):
        resolve_device(name)


@pytest.mark.parametrize("name", ["gpu", "", "cuda:x", "CPU!"])
def test_an_unknown_device_lists_the_choices(monkeypatch, name):
    without_accelerators(monkeypatch)
    with pytest.raises(ValueError, match=rf"device='{name}' is unknown; choose 'auto' or one of \['cpu'\]"):
        resolve_device(name)


def test_a_second_card_that_is_not_there_is_an_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert resolve_device("cuda:0") == torch.device("cuda:0")
    with pytest.raises(ValueError, match="device='cuda:1' does not exist; there are 1 CUDA devices"):
        resolve_device("cuda:1")
