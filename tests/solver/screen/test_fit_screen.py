"""One model for a screen: convex, independent of order, resumable, and exact where the answer is known."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from scot_hycnn import solver
from scot_hycnn.potentials import Combination
from scot_hycnn.solver import Screen, TransportMap, fit_screen
from scot_hycnn.solver.runtime._checkpoint import CheckpointFolder

D = 3


def cells(seed, n, shift=0.0):
    return np.random.default_rng(seed).normal(size=(n, D)) + shift


def bent(x, strength):
    """Gradient of |x|^2/2 + strength * softplus(4 x_0)/4: convex, and not linear."""
    moved = x.copy()
    moved[:, 0] += strength / (1 + np.exp(-4 * x[:, 0]))
    return moved


X = cells(0, 400)
STRENGTHS = (2.0, 3.0, 4.0, 3.0, 2.0, 4.0)
YS = [bent(cells(k + 1, 120), strength) for k, strength in enumerate(STRENGTHS)]
FAST = {"max_steps": 40, "hidden": (16, 16), "n_ensemble": 2, "device": "cpu", "progress": False}


@pytest.fixture(scope="module")
def screen():
    """A screen whose conditions all have the combination, which is found in so few steps."""
    return fit_screen(X, YS, covariates={"dose": STRENGTHS}, **{**FAST, "max_steps": 80})


def test_each_map_is_convex_certified_and_inverted(screen):
    assert "dictionary" in screen.choices
    for fitted, choice in zip(screen.maps, screen.choices, strict=True):
        assert (fitted.blend > 0) == (choice != "gaussian")
        assert fitted.certificate["convexity_gap"] < 1e-3
        assert fitted.certificate["monotonicity"] > 0
        few = X[:60]
        moved = fitted.transport(few)
        np.testing.assert_allclose(fitted.inverse(moved), few, atol=0.02)
        # Fenchel-Young: f(x) + f*(T(x)) = <x, T(x)>
        both = fitted.potential(few) + fitted.conjugate(moved)
        np.testing.assert_allclose(both, (few * moved).sum(1), atol=0.02)


def test_sharing_is_better_than_the_gaussian_map(screen):
    test = cells(99, 1000)
    errors = {"shared": 0.0, "gaussian": 0.0}
    for fitted, strength in zip(screen.maps, STRENGTHS, strict=True):
        for name, one in (("shared", fitted), ("gaussian", fitted.gaussian_map())):
            errors[name] += float(((one.transport(test) - bent(test, strength)) ** 2).sum(1).mean())
    assert errors["shared"] < 0.8 * errors["gaussian"]


def test_gaussian_maps_are_those_of_single_fits():
    screen = fit_screen(X, YS, potential="gaussian", device="cpu")
    single = solver.fit(X, YS[1], potential="gaussian", device="cpu")
    np.testing.assert_allclose(screen.maps[1].transport(X), single.transport(X), atol=1e-5)
    assert screen.choices == ["gaussian"] * len(YS)


def test_identical_conditions_get_the_same_gaussian_map_and_alike_weights():
    screen = fit_screen(X, [YS[2]] * 3, **FAST)
    moved = [fitted.transport(X) for fitted in screen.maps]
    assert max(np.abs(one - moved[0]).mean() for one in moved) < 0.1


def test_a_screen_without_conditions_is_refused():
    with pytest.raises(ValueError, match="ys"):
        fit_screen(X, [], potential="gaussian", device="cpu")


def test_a_large_source_is_sampled_with_its_groups():
    x, labels = cells(7, 5200), np.arange(5200) % 2
    of_y = np.arange(120) % 2
    options = {"groups": (labels, [of_y]), "potential": "gaussian", "device": "cpu"}
    (sampled,) = fit_screen(x, YS[:1], **options).maps
    (few,) = fit_screen(x[:5000], YS[:1], **{**options, "groups": (labels[:5000], [of_y])}).maps
    # The two means differ by the noise of 5,000 cells.
    np.testing.assert_allclose(sampled.transport(X), few.transport(X), atol=0.15)


def test_a_single_condition_is_a_screen():
    screen = fit_screen(X, YS[:1], **FAST | {"max_steps": 10})
    assert len(screen.maps) == len(screen.choices) == 1
    assert np.isfinite(screen.maps[0].transport(X)).all()


def test_an_own_source_for_each_condition():
    sources = [X + 5 * (k % 2) for k in range(len(YS))]
    targets = [y + 5 * (k % 2) + 1 for k, y in enumerate(YS)]
    screen = fit_screen(sources, targets, potential="gaussian", device="cpu")
    for x, y, fitted in zip(sources, targets, screen.maps, strict=True):
        np.testing.assert_allclose(fitted.transport(x).mean(0), y.mean(0), atol=0.05)
    with pytest.raises(ValueError, match=r"2 conditions.*6"):
        fit_screen(sources[:2], targets, potential="gaussian")


@pytest.mark.parametrize("options", [{"potential": "gaussian"}, FAST | {"max_steps": 20}])
def test_groups_keep_a_shift_of_their_proportions_out_of_the_maps(options):
    def types(seed, n_first, n_second, shift=0.0):
        far = np.repeat([[0.0, 0, 0], [20.0, 0, 0]], [n_first, n_second], axis=0)
        return cells(seed, n_first + n_second) + far + shift, np.repeat(["A", "B"], [n_first, n_second])

    x, labels_x = types(0, 200, 100)
    ys, labels = zip(types(1, 30, 90, 1.0), types(2, 80, 30, -1.0), strict=True)
    screen = fit_screen(x, ys, groups=(labels_x, labels), **{"device": "cpu"} | options)
    for fitted, shift in zip(screen.maps, (1.0, -1.0), strict=True):
        moves = fitted.transport(x) - x
        for kind in "AB":
            np.testing.assert_allclose(moves[labels_x == kind].mean(0), shift, atol=0.5)
    with pytest.raises(ValueError, match="groups"):
        fit_screen(x, ys, groups=(labels_x, labels[:1]), potential="gaussian")


def test_the_order_of_conditions_changes_nothing_beyond_rounding_of_gaussian_maps():
    order = [3, 0, 5, 1, 4, 2]
    one = fit_screen(X, YS, potential="gaussian", covariates={"dose": STRENGTHS}, device="cpu")
    other = fit_screen(
        X,
        [YS[k] for k in order],
        potential="gaussian",
        covariates={"dose": [STRENGTHS[k] for k in order]},
        device="cpu",
    )
    for place, k in enumerate(order):
        np.testing.assert_allclose(other.maps[place].transport(X), one.maps[k].transport(X), atol=1e-4)
    np.testing.assert_allclose(
        other.at({"dose": 2.5})[0].transport(X), one.at({"dose": 2.5})[0].transport(X), atol=1e-3
    )


def test_resumed_training_has_the_same_bits(tmp_path, monkeypatch):
    quick = FAST | {"max_steps": 10}
    first = fit_screen(X, YS[:2], checkpoint_dir=tmp_path, **quick)

    write, folder = CheckpointFolder.write_state, tmp_path / "again"

    def stop_after_some(self, path, state):
        write(self, path, state)
        if state["step"] >= 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(CheckpointFolder, "write_state", stop_after_some)
    with pytest.raises(KeyboardInterrupt):
        fit_screen(X, YS[:2], checkpoint_dir=folder, **quick)
    monkeypatch.undo()
    resumed = fit_screen(X, YS[:2], checkpoint_dir=folder, **quick)
    assert torch.equal(first.theta, resumed.theta)  # the Gaussian maps may be kept
    for one, other in zip(first.maps, resumed.maps, strict=True):
        np.testing.assert_array_equal(one.transport(X), other.transport(X))


def test_a_screen_survives_a_dictionary_and_a_map_a_file(tmp_path, screen):
    state = screen.to_dict()
    assert all(isinstance(value, (str, np.ndarray)) for value in state.values())
    json.loads(state["index"])
    again = Screen.from_dict(state, device="cpu")
    assert again.choices == screen.choices
    for one, other in zip(screen.maps, again.maps, strict=True):
        np.testing.assert_array_equal(one.transport(X), other.transport(X))
    np.testing.assert_array_equal(again.at({"dose": 2.5})[0].transport(X), screen.at({"dose": 2.5})[0].transport(X))
    number = screen.choices.index("dictionary")
    screen.maps[number].save(tmp_path / "map.safetensors")
    loaded = TransportMap.load(tmp_path / "map.safetensors", device="cpu")
    np.testing.assert_array_equal(loaded.transport(X), screen.maps[number].transport(X))
    with pytest.raises(ValueError, match="damaged"):
        Screen.from_dict({"index": "{}"})


def test_new_conditions_take_the_networks_of_a_model(screen):
    new = fit_screen(X, [bent(cells(50, 50), 3.0), bent(cells(51, 50), 2.0)], model=screen, device="cpu")
    test = cells(98, 1000)
    for fitted, strength in zip(new.maps, (3.0, 2.0), strict=True):
        errors = [
            ((one.transport(test) - bent(test, strength)) ** 2).sum(1).mean() for one in (fitted, fitted.gaussian_map())
        ]
        assert errors[0] <= errors[1]
    with pytest.raises(ValueError, match=r"3 dimensions.*2"):
        fit_screen(X[:, :2], [y[:, :2] for y in YS], model=screen)


def test_a_combination_is_the_sum_of_its_parts():
    f = Combination(n_dims=D, hidden=(8, 8), n_networks=2)
    theta = f.init(1, torch.Generator().manual_seed(0))
    weights, x = f.weights(theta), torch.randn(1, 20, D, generator=torch.Generator().manual_seed(1))
    networks = f.network.weights(theta[:, f.n_own :].view(2, -1))
    parts = f.network.value(networks, x.expand(2, -1, -1))
    expected = weights["s"].squeeze() * x.square().sum(-1) / 2 + (weights["v"][0].T * parts).sum(0)
    torch.testing.assert_close(f.value(weights, x), expected)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(f.value(weights, x).sum(), x)
    torch.testing.assert_close(f.gradient(weights, x), gradient, atol=1e-5, rtol=1e-4)
