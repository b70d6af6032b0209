"""Measure convex regression (arXiv:2604.26942, app. D.2): the paper's families under its protocol, ConvexRegressor.

python benchmarks/regression.py --quick
python benchmarks/regression.py --methods ConvexRegressor --seeds 5
python benchmarks/regression.py --depths 2 4 8 16 32 --seeds 10     # the paper's whole grid: some days
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from _lib.rows import run, show
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from scot_hycnn.potentials import ICNN, MLP, GroupMax, HyCNN, Potential
from scot_hycnn.regression import ConvexRegressor

N_TEST = 1000


def two_cones(x: np.ndarray) -> np.ndarray:
    """f5: max(|x - mu|^2, |x + mu|^2) with one draw of mu for each dimension."""
    mu = np.random.default_rng(1).normal(size=x.shape[1]) / math.sqrt(x.shape[1])
    return np.maximum(((x - mu) ** 2).sum(1), ((x + mu) ** 2).sum(1))


FUNCTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "f1": lambda x: (x**2).sum(1),
    "f2": lambda x: (x**4).sum(1),
    "f3": lambda x: (x**2).sum(1) + np.sin(20 * np.linalg.norm(x, axis=1)) / 4,  # not convex
    "f4": lambda x: np.abs(x).sum(1),
    "f5": two_cones,
    "f6": lambda x: np.exp(np.abs(x).sum(1) / math.sqrt(x.shape[1])),
}
# ICNN's input skips start at zero there (paper, app. D.2), as do those that GroupMax does not have.
PAPERS: dict[str, Callable[[int, int], Potential]] = {
    "MLP": lambda d, depth: MLP(d, (64,) * depth, activation="relu", strong_convexity=0.0),
    "ICNN": lambda d, depth: ICNN(d, (64,) * depth, activation="relu", strong_convexity=0.0),
    "GroupMax": lambda d, depth: GroupMax(d, (48,) * depth, gate="max", strong_convexity=0.0),
    "HyCNN": lambda d, depth: HyCNN(d, (48,) * depth, gate="max", strong_convexity=0.0, quadratic_skip=False),
}
# 'ball' is least squares on x and |x|^2: at d = 50 all functions here are nearly that, and networks must add to it.
OURS = ("ConvexRegressor", "ball", "linear", "mean")


def sample(function: str, n_dims: int, n: int, *, noise: float, seed: int) -> tuple[np.ndarray, ...]:
    """Return training points and noisy values, test points and true values."""
    rng = np.random.default_rng(seed)
    x, x_test = rng.uniform(-1, 1, (n, n_dims)), rng.uniform(-1, 1, (N_TEST, n_dims))
    return x, FUNCTIONS[function](x) + noise * rng.normal(size=n), x_test, FUNCTIONS[function](x_test)


def papers_fit(potential: Potential, x: np.ndarray, y: np.ndarray, seed: int) -> Callable[[np.ndarray], np.ndarray]:
    """Fit by the paper's protocol: standardise; Adam at 1e-2, batches of min(n, 1000), 100 epochs."""
    mean, scale, mean_y, scale_y = x.mean(0), x.std(0), y.mean(), y.std()
    generator = torch.Generator().manual_seed(seed)
    points = torch.tensor((x - mean) / scale, dtype=torch.float32)
    values = torch.tensor((y - mean_y) / scale_y, dtype=torch.float32)
    theta = potential.init(1, generator)
    if isinstance(potential, ICNN):
        start_skips_at_zero(potential, theta)
    theta.requires_grad_()
    # The paper's networks end with a bias; ours have none, since it does not change a transport map.
    bias = torch.zeros(1, requires_grad=True)
    adam = torch.optim.Adam([theta, bias], lr=1e-2)
    for _ in range(100):
        for rows in torch.randperm(len(x), generator=generator).split(min(len(x), 1000)):
            error = potential.value(potential.weights(theta), points[rows][None])[0] + bias - values[rows]
            adam.zero_grad()
            error.square().mean().backward()
            adam.step()

    def predict(x_test: np.ndarray) -> np.ndarray:
        z = torch.tensor((x_test - mean) / scale, dtype=torch.float32)[None]
        with torch.no_grad():
            return mean_y + scale_y * (potential.value(potential.weights(theta), z)[0] + bias).numpy()

    return predict


def with_square(x: np.ndarray) -> np.ndarray:
    return np.column_stack([x, (x**2).sum(1)])


def start_skips_at_zero(potential: Potential, theta: torch.Tensor) -> None:
    position = 0
    for name, shape in potential.shapes.items():
        size = math.prod(shape)
        if name == "w" or (name[0] == "W" and name != "W0"):
            theta[:, position : position + size] = 0
        position += size


def measure(*, method: str, depth: int, function: str, n_dims: int, noise: float, seed: int) -> Mapping[str, object]:
    """Return 100 x the mean squared error on noiseless test points, in the units of the function."""
    x, y, x_test, truth = sample(function, n_dims, 5000, noise=noise, seed=seed)
    if method in PAPERS:
        predict = papers_fit(PAPERS[method](n_dims, depth), x, y, seed)
    elif method == "ConvexRegressor":
        predict = ConvexRegressor(device="cpu", random_state=seed).fit(x, y).predict
    elif method == "linear":
        predict = LinearRegression().fit(x, y).predict
    elif method == "ball":
        predict = make_pipeline(FunctionTransformer(with_square), LinearRegression()).fit(x, y).predict
    else:
        predict = lambda points: np.full(len(points), y.mean())  # noqa: E731
    return {"mse_times_100": float(100 * np.mean((predict(x_test) - truth) ** 2))}


def cases(options: argparse.Namespace) -> list[dict[str, object]]:
    """Return the rows to measure; only the paper's families have a depth."""
    return [
        {"method": method, "depth": depth, "function": function, "n_dims": n_dims, "noise": noise, "seed": seed}
        for noise in options.noise
        for function in options.functions
        for n_dims in options.dims
        for seed in range(options.seeds)
        for method in options.methods
        for depth in (options.depths if method in PAPERS else [0])
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", default=[*OURS, *PAPERS], choices=[*OURS, *PAPERS])
    parser.add_argument("--functions", nargs="+", default=["f1", "f2", "f4", "f6"], choices=list(FUNCTIONS))
    parser.add_argument("--dims", nargs="+", type=int, default=[10, 20, 50])
    parser.add_argument("--depths", nargs="+", type=int, default=[4], help="of the paper's families")
    parser.add_argument("--noise", nargs="+", type=float, default=[1.0, 0.0], help="0 is interpolation")
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quick", action="store_true", help="one function and dimension, under two minutes")
    parser.add_argument("--fresh", action="store_true", help="measure again what the CSV holds")
    options = parser.parse_args()
    if options.quick:
        options.functions, options.dims, options.noise, options.seeds = ["f1"], [50], [1.0], 1
    torch.set_num_threads(options.threads)
    name = "regression_quick" if options.quick else "regression"
    table = run(name, cases(options), measure, fresh=options.fresh or options.quick)
    keys = ["noise", "function", "n_dims", "method", "depth"]
    show(table.groupby(keys, sort=False)[["mse_times_100", "seconds"]].agg(["mean", "std", "count"]).reset_index())


if __name__ == "__main__":
    main()
