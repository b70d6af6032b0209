"""TF32 and bfloat16 are for training: what chooses a map multiplies in full float32."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scot_hycnn.solver import fit
from scot_hycnn.solver.runtime._device import full_precision


def is_full():
    kinds = [getattr(kind, "matmul", None) for kind in (torch.backends.cuda, torch.backends.mkldnn)]
    if not all(hasattr(kind, "fp32_precision") for kind in kinds):  # before PyTorch 2.9 there is one setting
        return torch.get_float32_matmul_precision() == "highest"
    return all(kind.fp32_precision == "ieee" for kind in kinds)


@pytest.fixture(params=["high", "medium"])
def allowed(request):
    """A user who has allowed less for the whole process."""
    torch.set_float32_matmul_precision(request.param)
    yield request.param
    torch.set_float32_matmul_precision("highest")


def test_the_setting_of_the_user_is_restored_also_after_an_error(allowed):
    with pytest.raises(ZeroDivisionError), full_precision():
        1 / (not is_full())
    assert torch.get_float32_matmul_precision() == allowed
    # The context that is opened first is not the last to be closed.
    first, second = full_precision(), full_precision()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert is_full()
    second.__exit__(None, None, None)
    assert torch.get_float32_matmul_precision() == allowed


def test_older_versions_of_pytorch_have_one_setting(allowed, monkeypatch):
    class Backend:
        matmul = object()

    monkeypatch.setattr(torch.backends, "cuda", Backend)
    monkeypatch.setattr(torch.backends, "mkldnn", Backend)
    with full_precision():
        assert torch.get_float32_matmul_precision() == "highest"
    assert torch.get_float32_matmul_precision() == allowed


def test_gradients_are_as_the_user_allows_and_checks_and_scores_in_full_precision(allowed, monkeypatch):
    """Training takes gradients by autograd; checks and scores take norms without it."""
    seen, grad, norm = {"training": set(), "selection": set()}, torch.autograd.grad, torch.Tensor.norm

    def watched_grad(*args, **options):
        seen["training"].add(is_full())
        return grad(*args, **options)

    def watched_norm(tensor, *args, **options):
        if tensor.ndim == 3 and tensor.shape[0] == 1:  # residuals of the ensemble of one map, not of its members
            seen["selection"].add(is_full())
        return norm(tensor, *args, **options)

    monkeypatch.setattr(torch.autograd, "grad", watched_grad)
    monkeypatch.setattr(torch.Tensor, "norm", watched_norm)
    rng = np.random.default_rng(0)
    x, of = rng.normal(size=(300, 2)), np.repeat(["a", "b"], 150)
    options = {"max_steps": 10, "hidden": (8,), "n_ensemble": 2, "device": "cpu"}
    fit(x, x + np.sign(x), groups=(of, of), **options)
    assert seen == {"training": {False}, "selection": {True}}
