"""TF32 and bfloat16 are for training: what chooses a map multiplies in full float32."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
import torch

from scot_hycnn.solver import fit
from scot_hycnn.solver.model import _blended as _selection
from scot_hycnn.solver.runtime._precision import full_precision
from scot_hycnn.solver.selection import _final_map as _outcome
from scot_hycnn.solver.training import _amortized
from scot_hycnn.solver.training import _cached as _remembered
from scot_hycnn.solver.training import _early_stopping as _monitor


def exact():
    """Whether products are in full float32."""
    kinds = [getattr(kind, "matmul", None) for kind in (torch.backends.cuda, torch.backends.mkldnn)]
    if not all(hasattr(kind, "fp32_precision") for kind in kinds):  # before PyTorch 2.9: one setting for all
        return torch.get_float32_matmul_precision() == "highest"
    return all(kind.fp32_precision == "ieee" for kind in kinds)


@pytest.fixture(params=["high", "medium"])
def allowed(request):
    """A user who has allowed less for the whole process."""
    torch.set_float32_matmul_precision(request.param)
    yield request.param
    torch.set_float32_matmul_precision("highest")


def now():
    return torch.backends.cuda.matmul.allow_tf32, torch.get_float32_matmul_precision()


@pytest.mark.parametrize("fails", [False, True])
def test_it_is_restored(allowed, fails):
    before = now()
    with pytest.raises(ZeroDivisionError) if fails else nullcontext(), full_precision():
        assert exact()
        if fails:
            raise ZeroDivisionError
    assert now() == before
    assert before[1] == allowed


def test_older_versions_of_pytorch(allowed, monkeypatch):
    """They have one setting for all."""

    class Backend:
        matmul = object()

    monkeypatch.setattr(torch.backends, "cuda", Backend)
    monkeypatch.setattr(torch.backends, "mkldnn", Backend)
    with full_precision():
        assert torch.get_float32_matmul_precision() == "highest"
    assert torch.get_float32_matmul_precision() == allowed


@pytest.mark.parametrize("conjugates", ["predicted", "remembered"])
def test_checks_and_scores_are_in_full_precision_and_training_as_allowed(allowed, conjugates, monkeypatch):
    seen = {}

    def watch(module, name):
        original = getattr(module, name)

        def watched(*args, **options):
            seen.setdefault(name, set()).add(exact())
            return original(*args, **options)

        monkeypatch.setattr(module, name, watched)

    for module, name in (
        (_monitor, "refine"), (_selection, "solve"), (_outcome, "TransportMap"),
        (_amortized if conjugates == "predicted" else _remembered, "descend"),
    ):  # fmt: skip
        watch(module, name)
    rng = np.random.default_rng(0)
    x, of = rng.normal(size=(300, 2)), np.repeat(["a", "b", "c"], 100)
    options = {"max_steps": 10, "hidden": (8,), "n_ensemble": 2, "device": "cpu", "conjugates": conjugates}
    fit(x, x + np.sign(x), groups=(of, of), leave_out="groups", **options)
    assert seen == {"refine": {True}, "solve": {True}, "TransportMap": {True}, "descend": {False}}
