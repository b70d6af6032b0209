"""What only a GPU shows: no waiting in the loop, the same bits from a replayed step, maps as good as a CPU's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scot_hycnn import solver
from scot_hycnn.solver import fit, fit_many
from scot_hycnn.solver.training import _parts
from scot_hycnn.solver.training._methods import FAMILIES, RECIPES

if not torch.cuda.is_available():
    pytest.skip("needs an NVIDIA GPU", allow_module_level=True)

QUICK = {"hidden": (8, 8), "max_steps": 60, "batch_size": 64, "n_ensemble": 2, "device": "cuda", "progress": False}
pytestmark = pytest.mark.filterwarnings("ignore:Synchronization debug mode")


def clouds(n_maps=1, n_dims=3):
    rng = np.random.default_rng(0)
    x, *ys = rng.normal(size=(1 + n_maps, 400, n_dims))
    return x, [y + (1 + k) * np.sign(y) for k, y in enumerate(ys)]


def same_bits(one, other):
    assert torch.equal(one.theta, other.theta)
    assert one.blend == other.blend
    for name in one.history.keys() - {"seconds"}:
        np.testing.assert_array_equal(one.history[name], other.history[name])


@pytest.mark.parametrize(
    "options",
    [*({"solver": s} for s in RECIPES), {"conjugates": "predicted"}, *({"potential": p} for p in FAMILIES)],
    ids=str,
)
def test_replayed_steps_are_the_steps(options):
    x, ys = clouds(2)
    recorded, plain = (fit_many(x, ys, **QUICK | options, compilation=how) for how in ("auto", "never"))
    for one, other in zip(recorded, plain, strict=True):
        same_bits(one, other)


def test_groups_too():
    x, (y,) = clouds()
    groups = (np.repeat(list("abcd"), 100),) * 2
    recorded, plain = (fit(x, y, groups=groups, **QUICK, compilation=how) for how in ("auto", "never"))
    same_bits(recorded, plain)


def test_maps_that_stop_leave_the_others_as_they_are(stop):
    x, ys = clouds(3)

    def fitted(how):
        stop(1)
        return fit_many(x, ys, **QUICK, compilation=how)

    recorded, plain = fitted("auto"), fitted("never")
    assert recorded[1].history["step"][-1] < recorded[0].history["step"][-1]
    for one, other in zip(recorded, plain, strict=True):
        same_bits(one, other)


@pytest.mark.parametrize("options", [*({"solver": s} for s in RECIPES), {"conjugates": "predicted"}], ids=str)
@pytest.mark.parametrize("how", ["auto", "never"])
def test_no_step_waits_for_the_device(monkeypatch, options, how):
    """From the sixth on: recording waits, once."""

    def step(part, number, original=_parts.Part.step):
        torch.cuda.set_sync_debug_mode("error" if number > 5 else "default")
        try:
            return original(part, number)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(_parts.Part, "step", step)
    x, ys = clouds(2)
    fit_many(x, ys, **QUICK, **options, compilation=how)


def test_a_gpu_finds_what_a_cpu_finds():
    """Random numbers differ, errors do not."""
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2, 1000, 2))
    errors = []
    for device in ("cpu", "cuda"):
        fitted = fit(x, y + np.sign(y), device=device, max_steps=300, n_ensemble=2, progress=False)
        errors.append(np.square(fitted.transport(x) - x - np.sign(x)).sum(1).mean())
    assert errors[1] < 1.3 * errors[0] + 0.02


def test_a_map_moves_cells_on_the_device_and_loads_elsewhere(tmp_path):
    x, (y,) = clouds()
    fitted = fit(x, y, **QUICK)
    fitted.save(tmp_path / "map.safetensors")
    loaded = solver.TransportMap.load(tmp_path / "map.safetensors", device="cpu")
    np.testing.assert_allclose(loaded.transport(x), fitted.transport(x), atol=1e-4)
    np.testing.assert_allclose(loaded.inverse(y), fitted.inverse(y), atol=1e-2)


def test_tf32_for_the_whole_process_does_not_reach_selection(monkeypatch):
    """Scores are those of full float32."""
    x, (y,) = clouds(n_dims=20)
    options = QUICK | {"potential": "hycnn", "max_steps": 20}
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high")
        fitted = fit(x, y, **options)
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)
    assert np.isfinite(fitted.validation["J_by_blend"]).all()
