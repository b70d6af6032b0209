"""The fitted map: the properties of the gradient of a convex function, for any parameters, and where it is valid."""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from scot_hycnn.datasets import gaussian_pair
from scot_hycnn.potentials import Gaussian, HyCNN
from scot_hycnn.solver import TransportMap, fit
from scot_hycnn.solver.data._coordinates import Coordinates

N_DIMS = 3
NETWORK = HyCNN(n_dims=N_DIMS, hidden=(8, 8), strong_convexity=0.5)


def normal(seed, n_cells=200, n_dims=N_DIMS):
    return np.random.default_rng(seed).normal(size=(n_cells, n_dims))


X, Y = normal(0) * [1, 2, 3] + 5, normal(1) @ normal(2, N_DIMS) - 2


def drawn_map(blend=0.7, n_members=3, seed=0):
    """Return a map with parameters as they are drawn: without training, and far from linear."""
    theta = NETWORK.init(n_members, torch.Generator().manual_seed(seed))
    return TransportMap(NETWORK, theta, Coordinates.from_gaussian(Gaussian.fit(X, Y)), blend, w2_squared=1.0)


@pytest.fixture(params=[0.0, 0.7], ids=lambda blend: f"blend {blend}")
def fitted(request):
    return drawn_map(request.param)


# ---- transport


def test_time_runs_from_the_cells_to_their_images(fitted):
    start, middle, end = (fitted.transport(X, t) for t in (0, 0.5, 1))
    assert np.array_equal(start, X.astype(np.float32))
    assert np.array_equal(end, fitted.transport(X))
    np.testing.assert_allclose(middle, (X + end) / 2, rtol=1e-5, atol=1e-5)
    assert start.dtype == middle.dtype == end.dtype == np.float32


def test_other_times_are_an_error():
    for t in (-0.1, 1.1, math.nan, None):
        with pytest.raises(ValueError, match=f"t={t}"):
            drawn_map().transport(X, t)


def test_blend_zero_is_the_gaussian_map():
    expected = Gaussian.fit(X, Y).gradient(X)
    np.testing.assert_allclose(drawn_map(0.0).transport(X), expected, rtol=1e-5, atol=1e-5)


def test_the_ensemble_moves_cells_by_the_mean_of_its_members(fitted):
    members = [replace(fitted, theta=fitted.theta[k : k + 1]).transport(X) for k in range(3)]
    np.testing.assert_allclose(fitted.transport(X), np.mean(members, axis=0), rtol=1e-4, atol=1e-4)


def test_the_standard_deviation_is_the_members_distance_from_the_ensemble(fitted):
    members = np.stack([replace(fitted, theta=fitted.theta[k : k + 1]).transport(X) for k in range(3)])
    moved, std = fitted.transport(X, return_std=True)
    assert np.array_equal(moved, fitted.transport(X))
    assert (std.shape, std.dtype) == ((len(X),), np.float32)
    expected = np.sqrt(((members - members.mean(0)) ** 2).sum(-1).mean(0))
    np.testing.assert_allclose(std, expected, rtol=1e-3, atol=1e-4)


def test_the_standard_deviation_grows_linearly_in_time():
    stds = [drawn_map().transport(X, t, return_std=True)[1] for t in (0, 0.25, 0.5, 1)]
    assert not stds[0].any()
    for t, std in zip((0.25, 0.5), stds[1:], strict=False):
        np.testing.assert_allclose(std, t * stds[3], rtol=1e-5)
    assert (stds[3] > 0).all()


def test_one_member_has_no_standard_deviation():
    _, std = drawn_map(n_members=1).transport(X, return_std=True)
    assert not std.any()


def test_the_size_of_blocks_has_no_effect(fitted):
    for method, size in itertools.product((fitted.transport, fitted.inverse), (1, 7, 10_000)):
        np.testing.assert_allclose(method(X, batch_size=size), method(X), rtol=1e-4, atol=1e-4)
        with pytest.raises(ValueError, match="batch_size=0"):
            method(X, batch_size=0)


def test_no_cells_give_no_cells(fitted):
    none = np.empty((0, N_DIMS))
    moved, std = fitted.transport(none, return_std=True)
    assert moved.shape == fitted.inverse(none).shape == (0, N_DIMS)
    assert std.shape == fitted.potential(none).shape == fitted.conjugate(none).shape == (0,)


def test_any_array_of_numbers_will_do_and_stays_untouched(fitted):
    cells = np.round(X)
    copy = cells.copy()
    cells.flags.writeable = False
    expected = fitted.transport(cells)
    for same in (cells.tolist(), cells.astype(np.float32), cells.astype(int), np.asfortranarray(cells)):
        np.testing.assert_allclose(fitted.transport(same), expected, rtol=1e-5, atol=1e-5)
    assert np.array_equal(cells, copy)


# ---- convex analysis


def test_the_inverse_undoes_the_map(fitted):
    np.testing.assert_allclose(fitted.inverse(fitted.transport(X)), X, atol=0.01)
    np.testing.assert_allclose(fitted.transport(fitted.inverse(Y)), Y, atol=0.01)


def test_fenchel_young(fitted):
    """f(x) + f*(y) >= <x, y>, with equality where y = T(x)."""
    slack = fitted.potential(X)[:, None] + fitted.conjugate(Y)[None, :] - X @ Y.T
    scale = np.abs(X @ Y.T).max()
    assert slack.min() > -1e-5 * scale
    moved = fitted.transport(X).astype(np.float64)
    equal = fitted.potential(X) + fitted.conjugate(moved) - (X * moved).sum(1)
    assert np.abs(equal).max() < 1e-5 * scale


def test_the_map_is_the_gradient_of_the_potential(fitted):
    """f = f~(B(x - m_x))/c + <m_y, x>, built here in double precision and derived by autograd."""
    coordinates = fitted.coordinates
    x = torch.tensor(X, requires_grad=True)
    balanced = (x - torch.tensor(coordinates.mean_x)) @ torch.tensor(coordinates.matrix).T
    members = NETWORK.value(NETWORK.weights(fitted.theta.double()), balanced.expand(3, -1, -1)).mean(0)
    blended = (1 - fitted.blend) * 0.5 * balanced.square().sum(1) + fitted.blend * members
    f = blended / coordinates.scale + x @ torch.tensor(coordinates.mean_y)
    (gradient,) = torch.autograd.grad(f.sum(), x)
    np.testing.assert_allclose(fitted.potential(X), f.detach(), rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(fitted.transport(X), gradient, rtol=1e-4, atol=1e-4)


def test_the_potential_is_convex_on_segments(fitted):
    """And the map its subgradient: f(x') - f(x) >= <T(x), x' - x> for any two cells."""
    a, b, t = normal(3) * 5, normal(4) * 5, np.random.default_rng(5).uniform(size=(200, 1))
    chord = t[:, 0] * fitted.potential(a) + (1 - t[:, 0]) * fitted.potential(b)
    assert (fitted.potential(t * a + (1 - t) * b) <= chord + 1e-5 * np.abs(chord).max()).all()
    rise = fitted.potential(b) - fitted.potential(a)
    assert (rise >= (fitted.transport(a) * (b - a)).sum(1) - 1e-5 * np.abs(chord).max()).all()


def test_the_map_is_monotone(fitted):
    a, b = normal(3) * 5, normal(4) * 5
    assert (((fitted.transport(a) - fitted.transport(b)) * (a - b)).sum(1) > 0).all()


# ---- the certificate

# Neither the origin nor the distance between the clouds has an effect on the first.
OF_THE_SHAPE = {"convexity_gap", "monotonicity", "fenchel_residual", "cycle_error"}
OF_THE_DISTANCE = {"w2_squared", "w2_squared_error", "transport_cost"}


def test_a_convex_potential_passes(fitted):
    certificate = fitted.certify(X, Y)
    assert set(certificate) == OF_THE_SHAPE | OF_THE_DISTANCE
    assert certificate["convexity_gap"] <= 0
    assert certificate["monotonicity"] > 0
    assert max(certificate["fenchel_residual"], certificate["cycle_error"]) < 0.01
    assert certificate == fitted.certify(X, Y)
    assert certificate["convexity_gap"] != fitted.certify(X, Y, rng=1)["convexity_gap"]


class Concave(HyCNN):
    """A function that a HyCNN is for no parameters."""

    def value(self, weights, x):
        return -super().value(weights, x)

    def gradient(self, weights, x):
        return -super().gradient(weights, x)


def test_a_potential_that_is_not_convex_fails():
    certificate = replace(drawn_map(1.0), network=Concave(N_DIMS, (8, 8))).certify(X, Y)
    assert certificate["convexity_gap"] > 0
    assert certificate["monotonicity"] < 0
    assert min(certificate["fenchel_residual"], certificate["cycle_error"]) > 1


def test_the_distance_from_the_origin_has_no_effect_on_a_certificate():
    plain, shift = drawn_map(), 1e6
    coordinates = replace(plain.coordinates, mean_x=plain.coordinates.mean_x + shift)
    certificate, expected = replace(plain, coordinates=coordinates).certify(X + shift, Y), plain.certify(X, Y)
    for name in OF_THE_SHAPE:
        assert certificate[name] == pytest.approx(expected[name], rel=1e-3, abs=1e-5), name


@pytest.mark.parametrize("shift", [1e3, 1e6])
def test_squared_distances_grow_with_the_shift_as_they_must(shift):
    """|X + s - Y|^2 = |X - Y|^2 + 2 <s, X - Y> + |s|^2 in every mean, for any coupling and for the dual."""
    plain, s = drawn_map(), np.full(N_DIMS, shift)
    coordinates = replace(plain.coordinates, mean_x=plain.coordinates.mean_x + s)
    certificate, at_home = replace(plain, coordinates=coordinates).certify(X + s, Y), plain.certify(X, Y)
    dual = at_home["w2_squared"] + 2 * s @ (X.mean(0) - Y.mean(0)) + s @ s
    assert certificate["w2_squared"] == pytest.approx(dual, rel=1e-9)
    moved = plain.transport(X)
    cost = at_home["transport_cost"] + 2 * s @ (X - moved).mean(0) + s @ s
    assert certificate["transport_cost"] == pytest.approx(cost, rel=1e-6)


# ---- input errors


def test_a_certificate_takes_pairs():
    with pytest.raises(ValueError, match="x has 1 and y has 0"):
        drawn_map().certify(X[:1], Y[:0])
    assert all(np.isfinite(list(drawn_map().certify(X[:2], Y[:2]).values())))


@pytest.mark.parametrize("method", ["transport", "inverse", "potential", "conjugate", "certify"])
def test_cells_that_do_not_fit_the_map(method):
    def call(cells):
        return getattr(drawn_map(), method)(*([cells] * (2 if method == "certify" else 1)))

    for shape in ((5, 2), (5, 4), (3,), (1, 5, 3)):
        with pytest.raises(ValueError, match=re.escape(str(shape))):
            call(np.zeros(shape))
    for cells in (X.astype(complex), X.astype(str)):
        with pytest.raises(ValueError, match=f"dtype {cells.dtype}"):
            call(cells)
    for bad in (math.nan, -math.inf):
        cells = X.copy()
        cells[[4, 9], [0, 2]] = bad
        with pytest.raises(ValueError, match=r"2 of 200 rows, the first in row 4"):
            call(cells)


# ---- against closed forms


def test_w2_between_gaussians():
    """W2^2 = E|x - T(x)|^2, up to the sampling of the validation cells."""
    pair = gaussian_pair(3, 8000, n_test=10_000)
    expected = ((pair.x_test - pair.y_test) ** 2).sum(1).mean()
    fitted = fit(pair.x, pair.y, potential="gaussian", validation_fraction=0.5)
    assert fitted.w2_squared == pytest.approx(expected, rel=0.1)


def test_w2_of_a_translation_is_its_length():
    shift = np.array([3.0, 0.0, -4.0])
    fitted = fit(normal(0, 1000), normal(1, 1000) + shift, potential="gaussian")
    assert fitted.w2_squared == pytest.approx(25, rel=0.05)


def test_the_gaussian_map_follows_the_units_and_the_origin():
    """T' (sx + a) = s T(x) + b, from clouds sx + a and sy + b."""
    scale, a, b = 4.0, np.array([1.0, 2, 3]), np.array([-30.0, 20, 10])
    plain = fit(X, Y, potential="gaussian")
    moved = fit(scale * X + a, scale * Y + b, potential="gaussian")
    expected = scale * plain.transport(X) + b
    np.testing.assert_allclose(moved.transport(scale * X + a), expected, rtol=1e-4, atol=1e-4)
    assert moved.validation["J_gaussian"] == pytest.approx(scale**2 * plain.validation["J_gaussian"])


# ---- out of support

QUICK = {"max_steps": 60, "hidden": (8, 8), "n_ensemble": 2, "batch_size": 64, "device": "cpu"}


def split(seed, n):
    y = np.random.default_rng(seed).normal(size=(n, 3))
    return y + 2 * np.sign(y)


@pytest.fixture(scope="module")
def network():
    x = np.random.default_rng(0).normal(size=(3000, 3))
    fitted = fit(x, split(1, 3000), **QUICK)
    assert fitted.blend > 0
    return fitted


@pytest.mark.parametrize("potential", ["hycnn", "gaussian"])
def test_one_in_twenty_unseen_cells_is_above_one(potential):
    x = np.random.default_rng(0).normal(size=(3000, 3)) * [1, 50, 1e-3]
    y = split(1, 3000) * [1e-3, 1, 7]
    fitted = fit(x, y, potential=potential, **QUICK)
    unseen = fitted.out_of_support(np.random.default_rng(9).normal(size=(4000, 3)) * [1, 50, 1e-3])
    assert unseen.dtype == np.float32
    assert 0.03 < (unseen > 1).mean() < 0.08


def test_the_score_grows_with_the_distance_without_bound(network):
    far = network.out_of_support(np.outer([0, 3, 6, 12, 24], [1.0, 0, 0]))
    assert (np.diff(far) > 0).all()
    assert far[0] < 1
    assert far[2] > 2
    assert len(network.support.points) == 1000


def test_fallback_is_the_map_inside_and_the_gaussian_map_far_away(network):
    gaussian = network.gaussian_map()
    cells = np.outer(np.linspace(-30, 30, 400), [1.0, 0.3, -0.2])
    score = network.out_of_support(cells)
    (moved, std), plain = network.transport(cells, fallback=True, return_std=True), network.transport(cells)
    np.testing.assert_allclose(moved[score <= 1], plain[score <= 1], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(moved[score >= 2], gaussian.transport(cells)[score >= 2], rtol=1e-5, atol=1e-4)
    assert (std[score >= 2] == 0).all()
    assert (std[score <= 1] > 0).all()
    between = (score > 1.2) & (score < 1.8)
    assert between.any()
    share = np.linalg.norm(moved - gaussian.transport(cells), axis=1) / np.linalg.norm(
        plain - gaussian.transport(cells), axis=1
    )
    np.testing.assert_allclose(share[between], 2 - score[between], atol=1e-2)


def test_one_pass_returns_cells_std_and_score(network):
    cells = split(5, 700)
    moved, std, score = network.transport(cells, 0.5, return_std=True, return_out_of_support=True)
    alone, also_score = network.transport(cells, 0.5, return_out_of_support=True)
    assert np.array_equal(moved, alone)
    assert np.array_equal(moved, network.transport(cells, 0.5))
    assert np.array_equal(std, network.transport(cells, 0.5, return_std=True)[1])
    for same in (score, also_score):
        assert np.array_equal(same, network.out_of_support(cells))


def test_one_point_many_times_is_its_own_support():
    fitted = fit(np.ones((40, 2)), np.ones((40, 2)) * 2, **QUICK)
    assert (fitted.out_of_support(np.ones((3, 2))) == 0).all()
    assert (fitted.out_of_support(np.ones((3, 2)) * 5) > 1).all()


def test_a_map_without_balanced_coordinates_has_a_gaussian_map_and_no_fallback(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(300, 2)) * [1, 3], rng.normal(size=(300, 2)) * [4, 1] + 2
    fitted = fit(x, y, solver="paper", max_steps=10, hidden=(4, 4), device="cpu")
    gaussian = fit(x, y, potential="gaussian", device="cpu")
    fitted.save(tmp_path / "map.safetensors")
    for same in (fitted, TransportMap.load(tmp_path / "map.safetensors", device="cpu")):
        np.testing.assert_allclose(same.gaussian_map().transport(x), gaussian.transport(x), rtol=1e-5, atol=1e-5)
        with pytest.raises(ValueError, match="solver='paper'"):
            same.transport(x, fallback=True)
    assert gaussian.gaussian_map().blend == 0
    np.testing.assert_array_equal(gaussian.gaussian_map().transport(x), gaussian.transport(x))


# ---- what a map shows of itself


def test_a_map_shows_its_labels_its_choice_and_its_gain_in_five_lines():
    blends, j = np.array([0.0, 0.7, 1.0]), np.array([5.0, 3.5, 4.0])
    shown = replace(
        drawn_map(0.7),
        outcome="networks",
        origin={"source": "control", "target": "drug", "rep": {"name": "X_pca"}},
        params={"n_steps": 321, "seconds": 12.5, "device": "cpu", "rng": 7},
        validation={"blends": blends, "J_by_blend": j, "J_error_by_blend": j / 10, "energy_distance": 0.125},
    )
    text = repr(shown)
    assert len(text.splitlines()) == 5
    for word in (
        "'control'",
        "'drug'",
        "'X_pca'",
        "3 x HyCNN",
        "321 steps",
        "12.5 s",
        "networks",
        "1.5 ± 0.3",
        "0.125",
    ):
        assert word in text
    page = shown._repr_html_()
    assert page.startswith("<table>")
    for word in ("control", "drug", "321 steps", "1.5 ± 0.3"):
        assert word in page
    # Scores on groups that were left out count more than those on cells.
    left_out = {"J_left_out_by_blend": np.array([0, -0.25, 0]), "J_left_out_error_by_blend": np.array([0, 0.1, 0.2])}
    assert "0.25 ± 0.1" in repr(replace(shown, validation=shown.validation | left_out))
    assert "0.25" not in repr(replace(shown, blend=0.0, validation=shown.validation | left_out))


HOSTILE = "<script>alert('1')</script>\x1b[2J\n\u202e" + 1000 * "x"


def test_text_from_a_file_is_short_escaped_and_plain():
    """A file may have been written by anybody: what it says must not act on a page or on a terminal."""
    plain = dict.fromkeys(("blends", "J_by_blend", "n_source", "energy_distance", "seconds", "device"), HOSTILE)
    shown = replace(
        drawn_map(),
        outcome=HOSTILE,
        origin={"source": HOSTILE, "target": [HOSTILE], "rep": {"name": {HOSTILE: HOSTILE}}},
        params=plain | {"rng": HOSTILE, "n_steps": HOSTILE},
        validation=plain | {"J_left_out_by_blend": HOSTILE, "blend": HOSTILE},
    )
    page, text = shown._repr_html_(), repr(shown)
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert len(text.splitlines()) == 5
    assert all(char.isprintable() for line in text.splitlines() for char in line)
    assert max(map(len, text.splitlines())) < 300


@pytest.mark.parametrize("name", ["origin", "params", "validation", "history", "certificate"])
def test_a_map_without_reports_shows_itself(name):
    fitted = fit(X, Y, max_steps=10, hidden=(4, 4), n_ensemble=1)
    assert len(repr(replace(fitted, **{name: {}})).splitlines()) == 5
    assert "TransportMap" in replace(fitted, **{name: {}})._repr_html_()
