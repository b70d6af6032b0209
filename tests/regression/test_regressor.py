"""Regression with a shape: it holds everywhere, whatever the data are, and simple functions are found."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from sklearn.utils.estimator_checks import check_estimator

from scot_hycnn.regression import ConvexRegressor

QUICK = {"max_steps": 60, "hidden": (8, 8), "n_ensemble": 2, "random_state": 0}
FAMILIES = [
    "hycnn",
    "hycnn-max",
    "hycnn-fixed",
    "hycnn-cyclic",
    "groupmax",
    "icnn",
    "icnn-relu",
    "icnn-leaky-relu",
    "icnn-quadratic",
]


def noise(n=200, d=3, seed=0):
    """Return points and values that do not depend on them: a fit then has the shape by construction alone."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) * [1.0, 10.0, 0.1][:d] + 5, rng.normal(size=n)


def curvatures(regressor, X, seed=1):
    """f((a + b) / 2) - (f(a) + f(b)) / 2 over random segments, some of them far outside the data."""
    rng = np.random.default_rng(seed)
    a, b = (X.mean(0) + 4 * X.std(0) * rng.normal(size=X.shape) for _ in range(2))
    return regressor.predict((a + b) / 2) - (regressor.predict(a) + regressor.predict(b)) / 2


@pytest.mark.filterwarnings("ignore")
def test_it_is_a_scikit_learn_estimator():
    check_estimator(ConvexRegressor(**QUICK | {"max_steps": 5}))


@pytest.mark.parametrize(
    ("potential", "shape"),
    [(name, "convex" if number % 2 else "concave") for number, name in enumerate(FAMILIES)],
)
def test_the_shape_holds_on_segments(potential, shape):
    X, y = noise()
    sign = 1 if shape == "convex" else -1
    y = y + sign * np.abs(X - 5).sum(1)
    regressor = ConvexRegressor(shape=shape, potential=potential, **QUICK).fit(X, y)
    assert len(regressor.theta_) > 0
    assert (sign * curvatures(regressor, X)).max() < 1e-9


@pytest.mark.parametrize(
    ("potential", "shape"),
    [("hycnn", "convex"), ("hycnn-max", "concave"), ("groupmax", "convex"), ("icnn", "concave")],
)
def test_monotone_features_are_monotone_everywhere(potential, shape):
    X, y = noise()
    sign = 1 if shape == "convex" else -1
    y = y + sign * np.abs(X - 5).sum(1)
    regressor = ConvexRegressor(shape=shape, monotonic_cst=[-1, 1, 0], potential=potential, **QUICK).fit(X, y)
    everywhere = X.mean(0) + 10 * X.std(0) * np.random.default_rng(2).normal(size=(500, 3))
    gradient = regressor.gradient(everywhere)
    assert (gradient[:, 0] <= 0).all()
    assert (gradient[:, 1] >= 0).all()
    assert (gradient[:, 2] < 0).any() or (gradient[:, 2] > 0).any()


def test_a_concave_fit_is_the_convex_fit_upside_down():
    X, y = noise()
    convex = ConvexRegressor(**QUICK).fit(X, y)
    concave = ConvexRegressor(shape="concave", **QUICK).fit(X, -y)
    np.testing.assert_allclose(concave.predict(X), -convex.predict(X), atol=1e-9)


def test_a_constant_target_is_met_exactly():
    X, _ = noise()
    regressor = ConvexRegressor(**QUICK).fit(X, np.full(len(X), 7.0))
    np.testing.assert_allclose(regressor.predict(X), 7.0, atol=1e-9)


def test_a_linear_target_is_found():
    X, _ = noise()
    y = X @ [1.0, -0.5, 20.0]
    regressor = ConvexRegressor(shape="concave", **QUICK).fit(X, y)
    np.testing.assert_allclose(regressor.gradient(X), np.tile([1.0, -0.5, 20.0], (len(X), 1)), rtol=0.02)


def test_pure_noise_is_not_fitted():
    """Networks that predict held-out points no better than a plane get a small share, or none."""
    X, y = noise(n=400)
    regressor = ConvexRegressor(**QUICK | {"max_steps": 300}).fit(X, y)
    assert np.std(regressor.predict(X)) < 0.4 * np.std(y)


def test_few_points_and_one_decay():
    X, y = noise(n=8)
    regressor = ConvexRegressor(weight_decay=1.0, **QUICK).fit(X, y)
    assert regressor.weights_.tolist() == [0.5, 0.5]
    assert np.isfinite(regressor.predict(X)).all()


def test_32_layers_train():
    """Without clipping and warm-up it reaches 0.09: the first steps explode, and stay in Adam's second moment."""
    X = np.random.default_rng(0).uniform(-1, 1, size=(400, 5))
    y = np.abs(X[:, 0])
    options = QUICK | {"hidden": (16,) * 32, "weight_decay": 0.0, "n_ensemble": 1}
    regressor = ConvexRegressor(**options | {"max_steps": 150}).fit(X[:300], y[:300])
    assert regressor.score(X[300:], y[300:]) > 0.9


def test_the_gradient_is_that_of_the_prediction():
    X, y = noise()
    regressor = ConvexRegressor(**QUICK).fit(X, y)
    step = 1e-5 * X.std(0)
    numeric = [(regressor.predict(X + h) - regressor.predict(X - h)) / (2 * h.sum()) for h in np.diag(step)]
    np.testing.assert_allclose(regressor.gradient(X), np.stack(numeric, axis=1), rtol=1e-3, atol=1e-4)


def test_units_do_not_matter():
    X, y = noise()
    here = ConvexRegressor(**QUICK).fit(X, y)
    there = ConvexRegressor(**QUICK).fit(1e6 * X - 3, 1e-6 * y + 2)
    np.testing.assert_allclose(1e6 * (there.predict(1e6 * X - 3) - 2), here.predict(X), atol=1e-3)


def test_the_same_seed_gives_the_same_bits_and_a_copy_the_same_values():
    X, y = noise()
    first, second = (ConvexRegressor(**QUICK).fit(X, y) for _ in range(2))
    assert np.array_equal(first.predict(X), second.predict(X))
    assert np.array_equal(pickle.loads(pickle.dumps(first)).predict(X), first.predict(X))
    other = ConvexRegressor(**QUICK | {"random_state": 1}).fit(X, y)
    assert not np.array_equal(first.predict(X), other.predict(X))


def test_a_constant_feature_does_no_harm():
    X, y = noise()
    X[:, 1] = 1e9
    assert np.isfinite(ConvexRegressor(**QUICK).fit(X, y).predict(X)).all()


def test_options_out_of_range_are_named():
    for option, message in (
        ({"shape": "flat"}, "shape='flat'.*concave"),
        ({"potential": "mlp"}, "potential='mlp'.*hycnn"),
        ({"monotonic_cst": [1, 0]}, r"monotonic_cst=\[1, 0\].* 3 features"),
        ({"monotonic_cst": [1, 0, 2]}, r"monotonic_cst=\[1, 0, 2\]"),
        ({"max_steps": 0}, "max_steps=0"),
        ({"max_steps": 2**63}, "max_steps=9223372036854775808"),
        ({"batch_size": 2.5}, "batch_size=2.5"),
        ({"n_ensemble": True}, "n_ensemble=True"),
        ({"lr": 0.0}, "lr=0.0"),
        ({"weight_decay": (1.0, -1.0)}, r"weight_decay=\(1.0, -1.0\)"),
        ({"weight_decay": ()}, r"weight_decay=\(\)"),
        ({"validation_fraction": 1.0}, r"validation_fraction=1.0.*\[0, 1\)"),
        ({"hidden": ()}, r"hidden=\(\)"),
        ({"device": "abacus"}, "device='abacus'"),
    ):
        with pytest.raises(ValueError, match=message):
            ConvexRegressor(**QUICK | option).fit(*noise())


def test_the_score_of_held_out_points_is_unknown_where_there_are_few():
    X, y = noise(30)
    assert np.isnan(ConvexRegressor(**QUICK).fit(X, y).validation_score_)
    # It is near 0 where y does not depend on X.
    assert ConvexRegressor(**QUICK).fit(*noise(1000)).validation_score_ < 0.2
    X = np.random.default_rng(0).uniform(-1, 1, size=(300, 2))
    assert 0.5 < ConvexRegressor(**QUICK).fit(X, (X**2).sum(1)).validation_score_ <= 1
