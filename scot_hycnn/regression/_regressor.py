"""Regression by convex or concave functions that may be monotone along some features."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.linear_model import LinearRegression, RidgeCV
from sklearn.metrics import r2_score
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from scot_hycnn.potentials import HyCNN, Potential, Weights
from scot_hycnn.solver._options import FAMILIES
from scot_hycnn.solver.data._checks import is_integer, without_mask
from scot_hycnn.solver.runtime._device import no_denormals, resolve_device
from scot_hycnn.solver.training._optimiser import Optimiser, cosine

Array = NDArray[np.float64]
# Families that are convex by construction.
CONVEX_FAMILIES = tuple(name for name in FAMILIES if name not in ("mlp", "icnn-soft"))
# Networks start near the best multiple of |x|^2, which is nearly all there is to many functions of many features, and
# learn what is to be added to it. It stays above this, so that it can be learned.
MIN_CURVATURE = 0.01
START: dict[str, Any] = {"output_scale": 0.1, "quadratic_skip": False}
# Maxout gates start nearly sharp: from a temperature of 1, kinks (f4 = |x|_1) took several times the steps.
TEMPERATURE = 0.1
# With fewer points than these every decay counts the same.
MIN_HELD_OUT = 10
# Points whose hidden layers are in memory at a time.
BLOCK = 4096
# Penalties of the linear part; the best for points left out one at a time is taken.
RIDGE = np.logspace(-2, 4, 13)


class ConvexRegressor(RegressorMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    r"""Least-squares regression by a convex or concave function, optionally monotone along some features.

    .. math::
        \hat y(x) = \bar y \pm s_y \Big( b + a \cdot z + \sum_k c_k f_k(z) \Big), \qquad z = (x - \bar x) / s_x

    with the slope a of a ridge regression, and convex networks :math:`f_k` that are trained side by side on what it
    leaves. The shares :math:`c_k \ge 0` and the intercept b are those that predict held-out points best. Such sums of
    convex functions are convex, so the shape holds for every fit, everywhere.

    Parameters
    ----------
    shape
        ``'convex'`` or ``'concave'``.
    monotonic_cst
        Monotone features, as in scikit-learn's trees: 1 where the prediction must not fall along the feature, -1 where
        it must not rise, 0 where it is free; one for each feature, or None for no constraint.
    potential
        Family of the networks: ``'hycnn'``, ``'hycnn-max'``, ``'hycnn-fixed'``, ``'hycnn-cyclic'``, ``'groupmax'``,
        ``'icnn'``, ``'icnn-relu'``, ``'icnn-leaky-relu'`` or ``'icnn-quadratic'``; see :mod:`scot_hycnn.potentials`.
    hidden
        Width of each hidden layer.
    max_steps
        Steps of Adam.
    batch_size
        Points in each step, for each network.
    lr
        Learning rate at its top.
    weight_decay
        Decay of the networks' weights on x, a pull towards a multiple of :math:`|x|^2`. With several decays, networks
        are trained with each, and held-out points decide what share each has in the sum.
    n_ensemble
        Networks for each decay.
    validation_fraction
        Part of the points that is held out of training, to weigh the decays.
    device
        Device of training: 'auto' (the first of cuda, mps and cpu that is available) or its name. Predictions are made
        on the CPU, in double precision.
    random_state
        Seed, generator or None, as in scikit-learn. The same seed gives the same bits on the CPU with the same number
        of threads.

    Attributes
    ----------
    network_ : Potential
        The convex function of one network, without its weights.
    theta_ : array of shape (n_networks, n_weights)
        Weights of the networks that have a share.
    weights_ : array of shape (n_networks,)
        Their shares c.
    slope_, intercept_ : array of shape (n_features,) and float
        a and b; the slope of monotone features is 0, and left to the networks.
    x_mean_, x_scale_ : arrays of shape (n_features,)
        Standardisation of x.
    y_mean_, y_scale_ : float
        Standardisation of y.
    validation_score_ : float
        R² on the held-out points, which have also chosen the shares; NaN if there are fewer than ten.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : array of shape (n_features,)
        Their names, if X is a data frame.

    References
    ----------
    Hundrieser, Kong & Schmidt-Hieber (2026), arXiv:2604.26942, sec. 2 (network) and app. D.2 (convex regression).

    Examples
    --------
    >>> import numpy as np
    >>> from scot_hycnn.regression import ConvexRegressor
    >>> X = np.random.default_rng(0).uniform(-1, 1, size=(500, 2))
    >>> y = np.abs(X).sum(axis=1)
    >>> regressor = ConvexRegressor(max_steps=200, random_state=0).fit(X, y)
    >>> bool(regressor.score(X, y) > 0.9)
    True
    >>> regressor.predict([[0.5, -0.5]]).shape, regressor.gradient(X).shape
    ((1,), (500, 2))
    """

    def __init__(
        self,
        *,
        shape: str = "convex",
        monotonic_cst: ArrayLike | None = None,
        potential: str = "hycnn",
        hidden: tuple[int, ...] = (48, 48, 48, 48),
        max_steps: int = 1000,
        batch_size: int = 256,
        lr: float = 2e-2,
        weight_decay: float | tuple[float, ...] = (0.0, 0.25, 1.0, 4.0, 16.0),
        n_ensemble: int = 1,
        validation_fraction: float = 0.1,
        device: str = "auto",
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.shape = shape
        self.monotonic_cst = monotonic_cst
        self.potential = potential
        self.hidden = hidden
        self.max_steps = max_steps
        self.batch_size = batch_size
        self.lr = lr
        self.weight_decay = weight_decay
        self.n_ensemble = n_ensemble
        self.validation_fraction = validation_fraction
        self.device = device
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Fit the function to noisy values y, shape (n,), at points X, shape (n, d), in any units; return itself.

        Raises
        ------
        ValueError
            If X or y is not finite, of another shape or of fewer than two points, or an option is out of range.
        FloatingPointError
            If training met non-finite numbers in more than a tenth of the steps.
        """
        self._check_options()
        points, values = validate_data(
            self, without_mask(X), without_mask(y), y_numeric=True, ensure_min_samples=2, dtype=np.float64
        )
        sign, n_dims = self._sign, points.shape[1]
        monotone = ""
        if self.monotonic_cst is not None:
            constraint = np.asarray(self.monotonic_cst)
            if constraint.shape != (n_dims,) or not np.isin(constraint, (-1, 0, 1)).all():
                raise ValueError(
                    f"monotonic_cst={self.monotonic_cst!r} must have a -1, 0 or 1 for each of the {n_dims} features "
                    "of X."
                )
            # A concave function is minus a convex one, whose constraint has the other sign.
            monotone = "".join("0+-"[int(sign * entry)] for entry in constraint) if any(constraint) else ""

        # Standardise. Rounding leaves a constant column of large numbers a deviation of about their last digit.
        self.x_mean_, scale = points.mean(0), points.std(0)
        is_constant = scale <= 10 * np.finfo(np.float64).eps * np.abs(points).max(0)
        self.x_scale_ = np.where(is_constant, 1.0, scale)
        self.y_mean_, self.y_scale_ = float(values.mean()), float(values.std())
        z, t = (points - self.x_mean_) / self.x_scale_, sign * (values - self.y_mean_) / (self.y_scale_ or 1.0)

        # A ridge regression on z and |z|^2/2, for features without a constraint, gives slope and curvature.
        is_free = np.array([entry == "0" for entry in monotone] or [True] * n_dims)
        self.slope_, curvature = np.zeros(n_dims), MIN_CURVATURE
        if is_free.any():
            ridge = RidgeCV(RIDGE).fit(np.column_stack([z[:, is_free], (z[:, is_free] ** 2).sum(1) / 2]), t)
            self.slope_[is_free] = ridge.coef_[:-1]
            curvature = max(float(ridge.coef_[-1]), MIN_CURVATURE)

        # Networks learn what it leaves.
        family, options = FAMILIES[self.potential]
        start: dict[str, Any] = START | {"strong_convexity": curvature, "monotone": monotone}
        if issubclass(family, HyCNN):
            start["temperature"] = TEMPERATURE
        self.network_ = family(n_dims, tuple(self.hidden), **(start | options))
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        generator = torch.Generator(device=resolve_device(self.device)).manual_seed(seed)
        points_and_residuals = (
            torch.tensor(part, dtype=torch.float32, device=generator.device) for part in (z, t - z @ self.slope_)
        )
        self._train(*points_and_residuals, generator=generator)
        return self

    def predict(self, X: ArrayLike) -> Array:
        """Return the values of the fitted function, shape (n,), in units of y, at points X, shape (n, d).

        Raises
        ------
        sklearn.exceptions.NotFittedError, ValueError
            Before :meth:`fit`, or if X is not finite or has another number of features.
        """
        z, weights = self._prepared(X)
        members = _in_blocks(self.network_.value, weights, z).numpy()
        values: Array = self.weights_ @ members + z.numpy() @ self.slope_ + self.intercept_
        return self.y_mean_ + self._sign * self.y_scale_ * values

    def gradient(self, X: ArrayLike) -> Array:
        """Return the gradient of the fitted function, shape (n, d), in units of y for each unit of X, at points X.

        Where a maximum has a kink, it is one of the subgradients. Errors are those of :meth:`predict`.
        """
        z, weights = self._prepared(X)
        members = _in_blocks(self.network_.gradient, weights, z).numpy()
        gradients: Array = np.tensordot(self.weights_, members, 1) + self.slope_
        return self._sign * self.y_scale_ * gradients / self.x_scale_

    @property
    def _sign(self) -> float:
        return 1.0 if self.shape == "convex" else -1.0

    def _prepared(self, X: ArrayLike) -> tuple[torch.Tensor, Weights]:
        """Return the standardised points, shape (n, d), and the networks' weights, in double precision."""
        check_is_fitted(self)
        points = validate_data(self, without_mask(X), reset=False, dtype=np.float64)
        z = torch.from_numpy((points - self.x_mean_) / self.x_scale_)
        return z, self.network_.weights(torch.from_numpy(self.theta_).double())

    def _train(self, z: torch.Tensor, t: torch.Tensor, *, generator: torch.Generator) -> None:
        """Train members at each decay, and weigh the decays by how well they predict held-out points."""
        levels = np.atleast_1d(np.asarray(self.weight_decay, dtype=np.float64))
        n_held_out = int(self.validation_fraction * len(z))
        held_out, seen = torch.randperm(len(z), generator=generator, device=z.device).tensor_split([n_held_out])
        theta, n_bad = self._least_squares(z[seen], t[seen], np.repeat(levels, self.n_ensemble), generator)
        if 10 * int(n_bad.max()) > self.max_steps or not theta.isfinite().all():
            raise FloatingPointError(
                f"Training met non-finite numbers in {int(n_bad.max())} of {self.max_steps} steps; take a smaller lr "
                f"than {self.lr} or fewer layers than {len(self.hidden)}."
            )
        values = _in_blocks(self.network_.value, self.network_.weights(theta.detach()), z).double().cpu().numpy()
        target, linear = t.double().cpu().numpy(), z.double().cpu().numpy() @ self.slope_
        shares, self.validation_score_ = np.full(len(theta), 1 / len(theta)), math.nan
        if n_held_out >= MIN_HELD_OUT:
            rows = held_out.cpu().numpy()
            means = values[:, rows].reshape(len(levels), self.n_ensemble, -1).mean(1)
            stacked = LinearRegression(positive=True).fit(means.T, target[rows])
            shares = np.repeat(stacked.coef_, self.n_ensemble) / self.n_ensemble
        self.intercept_ = float((target - shares @ values).mean())
        if n_held_out >= MIN_HELD_OUT:
            predicted = linear + shares @ values + self.intercept_
            self.validation_score_ = float(r2_score((linear + target)[rows], predicted[rows]))
        self.theta_, self.weights_ = theta.cpu().numpy()[shares > 0], shares[shares > 0]

    @no_denormals()
    def _least_squares(
        self, z: torch.Tensor, t: torch.Tensor, weight_decay: Array, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Minimise the variance of f(z) - t, with one ``weight_decay`` a member, of the weights that have no sign.

        Return the parameters, shape (K, P), averaged over the last steps, and the non-finite gradients met, shape (K,).
        """
        # The variance is the mean square at the best intercept, which costs no steps. A learned intercept would: the
        # networks are positive sums, which must lower all biases to offset the mean of a quadratic.
        network, n_members = self.network_, len(weight_decay)
        # With 32 layers (f1, d = 50) Adam's first full step moves every weight by lr at once: loss rises from 1.3 to
        # 20, the gradient's norm from 1 to 89 (first layer: .04 to 27). The second moment keeps that for a thousand
        # steps, and the lower layers, whose gradients are .003 by then, stand still. After 60 steps the test error was
        # 2.87, with clipping alone (max_norm) 1.12, with warm-up alone 2.08.
        start = network.init(n_members, generator)
        adam = Optimiser(network, start, betas=(0.9, 0.999), weight_decay=0.0, max_norm=1.0, averaging=0.98)
        share = torch.cat([_decaying(network, name, shape).flatten() for name, shape in network.shapes.items()])
        decay = (torch.tensor(weight_decay, dtype=torch.float32, device="cpu").unsqueeze(1) * share).to(adam.theta)
        batches = _batches(n_members, len(z), self.batch_size, generator)
        for step in range(self.max_steps):
            network.at_step(adam.theta, step, self.max_steps)
            batch = next(batches)
            error = network.value(network.weights(adam.theta), z[batch]) - t[batch]
            (gradient,) = torch.autograd.grad(error.var(1, correction=0).sum(), [adam.theta])
            rate = self.lr * cosine(step, self.max_steps)
            adam.update(gradient, rate)
            with torch.no_grad():
                # Below 1 / lr everything shrinks; above, it would change its sign.
                adam.theta *= (1 - rate * decay).clamp_min(0.0)
        return adam.average, adam.n_bad_gradients

    def _check_options(self) -> None:
        for name, choices in (("shape", ("convex", "concave")), ("potential", CONVEX_FAMILIES)):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}={getattr(self, name)!r} is unknown; choose one of {list(choices)}.")
        for name in ("max_steps", "batch_size", "n_ensemble"):
            if not is_integer(getattr(self, name), minimum=1):
                raise ValueError(f"{name}={getattr(self, name)!r} must be an integer of 1 or more.")
        for name, allowed, within in (
            ("lr", "must be a positive number", lambda value: 0 < value < math.inf),
            ("weight_decay", "must be a number of 0 or more, or several", lambda value: 0 <= value < math.inf),
            ("validation_fraction", "must be a number in [0, 1)", lambda value: 0 <= value < 1),
        ):
            values = np.atleast_1d(np.asarray(getattr(self, name)))
            numbers = values.dtype.kind in "iuf" and values.ndim == 1 and len(values)
            if not numbers or (name != "weight_decay" and len(values) > 1) or not all(map(within, values)):
                raise ValueError(f"{name}={getattr(self, name)!r} {allowed}.")


@torch.no_grad()
@no_denormals()
def _in_blocks(
    function: Callable[[Weights, torch.Tensor], torch.Tensor], weights: Weights, z: torch.Tensor
) -> torch.Tensor:
    """Return the values of a function of each network at the same points, (n, d) to (K, n, ...), block by block."""
    return torch.cat([function(weights, block.expand(len(weights["v"]), -1, -1)) for block in z.split(BLOCK)], dim=1)


def _decaying(network: Potential, name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Return 1 where a parameter decays, else 0: not in a monotone dimension, since zero is no softplus of zero."""
    decaying = torch.full(shape, float(network.decays(name)), dtype=torch.float32, device="cpu")
    if network.monotone and name[0] in "Ww":
        is_free = torch.tensor([sign == "0" for sign in network.monotone], device="cpu")
        decaying *= is_free if name == "w" else is_free.unsqueeze(1)
    return decaying


def _batches(n_members: int, n: int, size: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """Return batches of row numbers, shape (K, size): each member passes over all rows in random orders."""
    while True:
        order = torch.rand(n_members, n, generator=generator, dtype=torch.float32, device=generator.device).argsort(1)
        # What is left over at the end of a pass is too few for a batch.
        yield from reversed(order.split(min(size, n), dim=1)[: max(n // size, 1)])
