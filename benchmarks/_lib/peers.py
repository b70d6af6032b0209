"""Train methods of other packages by these packages, with a clock that stops during evaluation.

They need the extra 'bench': OTT-JAX (Apache-2.0) and torchcfm (MIT). One thread; for one core start Python under
``taskset``.
"""

from __future__ import annotations

import contextlib
import io
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

# Read when JAX is first imported.
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")
try:
    import jax
    import optax
    from ott.geometry.costs import SqEuclidean
    from ott.geometry.pointcloud import PointCloud
    from ott.neural.methods.expectile_neural_dual import ExpectileNeuralDual
    from ott.neural.methods.monge_gap import MongeGapEstimator, monge_gap_from_samples
    from ott.neural.methods.neuraldual import W2NeuralDual
    from ott.neural.networks.icnn import ICNN
    from ott.neural.networks.potentials import PotentialMLP
    from ott.problems.linear.linear_problem import LinearProblem
    from ott.solvers.linear.sinkhorn import Sinkhorn
    from ott.tools.sinkhorn_divergence import sinkdiv
    from torchcfm import ExactOptimalTransportConditionalFlowMatcher
    from torchcfm.models import MLP
except ImportError as error:
    raise ImportError("The peers need the extra 'bench': pip install -c constraints.txt -e '.[bench]'.") from error

Cells = NDArray[np.float32]
Transport = Callable[[Cells], Cells]
EPSILON = {"epsilon": 0.05, "relative_epsilon": "mean"}
FOR_EVER = 10**9


class Done(Exception):  # noqa: N818
    """Raised at the last mark, to leave the training loop of another package."""


@dataclass
class Clock:
    """Seconds of training: compilation is measured apart, and the clock stops while ``seen`` scores the map.

    The seconds are those of one core (CPU time), so that other programs do not count.

    Parameters
    ----------
    marks
        Seconds at which ``seen`` is called; training ends at the last one.
    seen
        A function of the seconds, the steps, and the current map.
    max_steps
        Training also ends after so many steps, with a last call of ``seen``.
    compiling_steps
        The clock starts after so many steps: one for each direction of a method that trains both.
    """

    marks: Sequence[float]
    seen: Callable[[float, int, Transport], None]
    max_steps: int | None = None
    compiling_steps: int = 2
    compiling: float = field(default=0.0, init=False)
    steps: int = field(default=-1, init=False)
    _passed: int = field(default=0, init=False)
    _origin: float = field(default_factory=time.process_time, init=False)

    def tick(self, weights: Any, transport: Transport, *, last: bool = False) -> None:
        """Call ``seen`` between two steps if a mark has passed, and leave training at the last mark."""
        jax.block_until_ready(weights)
        now = time.process_time()
        self.steps += 1
        if self.steps == self.compiling_steps:
            self.compiling, self._origin = now - self._origin, now
        seconds = now - self._origin
        last = last or self.steps == self.max_steps
        if not last and (self.steps < self.compiling_steps or seconds < self.marks[self._passed]):
            return
        self.seen(seconds, self.steps, transport)
        self._passed += sum(mark <= seconds for mark in self.marks[self._passed :])
        if last or self._passed == len(self.marks):
            raise Done
        self._origin += time.process_time() - now


@dataclass(frozen=True)
class Problem:
    """Source and target cells, the clock of their training, and the seed."""

    x: Cells
    y: Cells
    clock: Clock
    rng: int

    @property
    def n_dims(self) -> int:
        """Return the dimension d."""
        return self.x.shape[1]

    def loop(
        self, train: Callable[..., Any], weights: Callable[[], Any], transport: Callable[[], Transport], batch_size: int
    ) -> None:
        """Run the training loop of a package; the clock ticks whenever the loop draws source cells."""
        generator = np.random.default_rng(self.rng)

        def ticking() -> Iterator[Cells]:
            for batch in _batches(self.x, batch_size, generator):
                self.clock.tick(weights(), transport())
                yield batch

        validation = (_batches(cells, 1, generator) for cells in (self.x, self.y))
        # Their progress bars would overwrite ours.
        with contextlib.redirect_stderr(io.StringIO()), contextlib.suppress(Done):
            train(ticking(), _batches(self.y, batch_size, generator), *validation)


def enot(problem: Problem, *, batch_size: int = 256, lr: float = 3e-4) -> None:
    """Train ENOT (Buzun et al. 2024) with the defaults of OTT-JAX: two MLPs of 4 x 128, Adam 3e-4, expectile .99.

    The rate 1e-3 is faster at first and unstable later; 3e-3 ended worse. Batches of 256 beat 1024 in equal time.
    """
    solver = ExpectileNeuralDual(
        problem.n_dims,
        optimizer_f=optax.adam(lr, b1=0.9, b2=0.9),
        optimizer_g=optax.adam(lr, b1=0.9, b2=0.9),
        num_train_iters=FOR_EVER,
        valid_freq=FOR_EVER,
        rng=jax.random.key(problem.rng),
    )
    problem.loop(solver, lambda: solver.state_f.params, lambda: solver.to_dual_potentials().transport, batch_size)


def w2_icnn(problem: Problem, *, batch_size: int = 256, lr: float = 1e-3) -> None:
    """Train Amos 2023 with OTT-JAX's default ICNNs of 4 x 64, conjugates by L-BFGS; rate 1e-3 for its default 1e-4."""
    forth, back = (ICNN(dim_data=problem.n_dims, dim_hidden=[64] * 4, pos_weights=True) for _ in range(2))
    _w2(problem, forth, back, batch_size, lr)


def w2_mlp(problem: Problem, *, batch_size: int = 256, lr: float = 1e-3) -> None:
    """Train Amos 2023 with OTT-JAX's MLPs of 4 x 64 plus |x|^2/2, back and forth; 1e-3 was better than 1e-4."""
    forth, back = (PotentialMLP(dim_hidden=[64] * 4) for _ in range(2))
    _w2(problem, forth, back, batch_size, lr)


def _w2(problem: Problem, forth: Any, back: Any, batch_size: int, lr: float) -> None:
    solver = W2NeuralDual(
        problem.n_dims,
        forth,
        back,
        optax.adam(lr, b1=0.5, b2=0.9),
        optax.adam(lr, b1=0.5, b2=0.9),
        num_train_iters=FOR_EVER,
        valid_freq=FOR_EVER,
        rng=jax.random.key(problem.rng),
    )
    problem.loop(solver, lambda: solver.state_f.params, lambda: solver.to_dual_potentials().transport, batch_size)


def monge_gap(problem: Problem, *, batch_size: int = 256) -> None:
    """Train Uscidda & Cuturi 2023: MLP (ELU), Sinkhorn divergence + .1 Monge gap, both with .05 of the mean cost."""
    solver = MongeGapEstimator(
        problem.n_dims,
        PotentialMLP(dim_hidden=[128] * 3, is_potential=False, act_fn=jax.nn.elu),
        optax.adam(1e-3),
        fitting_loss=lambda moved, y: (sinkdiv(moved, y, cost_fn=SqEuclidean(), **EPSILON)[0], None),
        regularizer=lambda x, moved: (monge_gap_from_samples(x, moved, **EPSILON), None),
        regularizer_strength=0.1,
        num_train_iters=10**5,
        rng=jax.random.key(problem.rng),
    )

    def transport() -> Transport:
        state = solver.state_neural_net
        return lambda cells: state.apply_fn({"params": state.params}, cells)

    problem.loop(solver.train_map_estimator, lambda: solver.state_neural_net.params, transport, batch_size)


def entropic(problem: Problem, *, epsilon: float | None, n_cells: int = 5000) -> None:
    """Compute the barycentric map of entropic optimal transport, cost |x - y|^2 / 2; None takes .01 of the mean cost.

    The log-domain Sinkhorn needs a matrix of all pairs, so it gets ``n_cells`` random cells of each side.
    """
    generator = np.random.default_rng(problem.rng)
    x, y = (cells[generator.permutation(len(cells))[:n_cells]] for cells in (problem.x, problem.y))
    if epsilon is None:
        epsilon = 0.01 * float(x.var(0).sum() + y.var(0).sum() + np.square(x.mean(0) - y.mean(0)).sum()) / 2
    # OTT's cost has no 1/2.
    linear = LinearProblem(PointCloud(x, y, epsilon=2 * epsilon))
    solve = jax.jit(Sinkhorn(max_iterations=10, inner_iterations=10))
    start = (np.zeros(len(x), np.float32), np.zeros(len(y), np.float32))
    out = jax.block_until_ready(solve(linear, init=start))
    problem.clock.compiling_steps = 0
    problem.clock.tick(start, out.to_dual_potentials().transport)
    out = solve(linear, init=start)
    with contextlib.suppress(Done):
        while True:
            problem.clock.tick((out.f, out.g), out.to_dual_potentials().transport, last=bool(out.converged))
            out = solve(linear, init=(out.f, out.g))


def ot_cfm(problem: Problem, *, batch_size: int = 256, lr: float = 1e-3, n_steps: int = 100) -> None:
    """Train Tong et al. 2024 with torchcfm: MLP of 3 x 256 (SELU), exactly coupled batches, flow by the midpoint rule.

    Weights are averaged over steps, because the last ones are noisy.
    """
    # torchcfm draws from the global states.
    np.random.seed(problem.rng)  # noqa: NPY002
    torch.manual_seed(problem.rng)
    velocity = MLP(problem.n_dims, w=256, time_varying=True)
    averaged = AveragedModel(velocity, multi_avg_fn=get_ema_multi_avg_fn(0.999))
    optimizer = torch.optim.Adam(velocity.parameters(), lr=lr)
    matcher = ExactOptimalTransportConditionalFlowMatcher(sigma=0.0)

    def at(cells: torch.Tensor, time: float) -> torch.Tensor:
        return averaged(torch.cat([cells, torch.full_like(cells[:, :1], time)], dim=1))

    @torch.inference_mode()
    def transport(cells: Cells) -> Cells:
        moved = torch.as_tensor(cells, dtype=torch.float32)
        for step in range(n_steps):
            middle = moved + at(moved, step / n_steps) / (2 * n_steps)
            moved = moved + at(middle, (step + 0.5) / n_steps) / n_steps
        return moved.numpy()

    generator = np.random.default_rng(problem.rng)
    batches = (_batches(cells, batch_size, generator) for cells in (problem.x, problem.y))
    with contextlib.suppress(Done):
        for pair in zip(*batches, strict=True):
            problem.clock.tick((), transport)
            time, between, wanted = matcher.sample_location_and_conditional_flow(*map(torch.as_tensor, pair))
            loss = (velocity(torch.cat([between, time[:, None]], dim=1)) - wanted).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            averaged.update_parameters(velocity)


def _batches(cells: Cells, size: int, generator: np.random.Generator) -> Iterator[Cells]:
    while True:
        yield cells[generator.integers(len(cells), size=size)]
