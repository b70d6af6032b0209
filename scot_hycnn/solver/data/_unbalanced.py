r"""Weights of cells where mass changes: cells die or divide, or conditions were sampled in other proportions.

Unbalanced optimal transport with penalties :math:`\lambda\,\mathrm{KL}` on both marginals transports only mass that is
cheaper to move than to create or destroy. Its plan is the balanced optimal one between the weighted clouds that it
transports (Eyring et al. 2024, ICLR, arXiv:2311.15100, prop. 3.1): weights from a discrete plan are all that a fit
needs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from scot_hycnn._neighbours import mean_of_neighbours
from scot_hycnn.potentials._gaussian import Gaussian
from scot_hycnn.solver.runtime._device import no_denormals

from ._checks import Array, Rows, UnusableError

# Cells of each cloud in the discrete problem; the others take the mean of their nearest cells in it.
MAX_CELLS = 4000
# Penalty of the first plan, whose Gaussian map the costs are taken after.
REGISTRATION = 0.3
# Entropic regularisation, in units of the mean cost.
EPSILON = 0.01
# Largest change of a potential, in the same units, at which the iteration ends: a tenth of a per cent of a weight.
TOLERANCE = 1e-5
MAX_ITERATIONS = 2000
# From here on weights are 1 up to some per cent of the largest cost, and the iteration would take minutes.
BALANCED = 100.0
# With less mass than this nearly all cells count as dead, and the rest says little about a response.
MIN_MASS = 0.2
# Groups with fewer cells in either cloud keep equal weights: growth within them cannot be seen.
MIN_CELLS_WEIGHTED = 20
# Penalties of 'auto' where proportions changed: the first one that transports this part of the mass.
PENALTIES, MIN_MASS_OF_AUTO = (0.3, 1.0), 0.5
# A penalty that stands for none, and the cells in each of two halves that 'auto' looks at.
NEARLY_BALANCED, CELLS_OF_HALF = 30.0, 1000
# A low penalty, and the savings for each unit of it that a smooth response does not reach. With 0.3 in place of 0.1
# weights of a population that died save hardly more than those of a smooth response (3.3 and 3.1; here 6.0 and 4.3).
LOW, SMOOTH = 0.1, 5.0
# Change of shares that sampling hardly exceeds, in units of 1/n + 1/m. Four times that of g populations has a
# chi-squared distribution with g - 1 degrees of freedom: ten populations exceed it in 2 % of samples.
SAMPLING = 2.2


@dataclass(frozen=True)
class Plan:
    """A discrete unbalanced plan between uniform clouds: its marginals, and what its penalty saves."""

    # Mass of each cell, in units of its mass before: n times the row sums, (n,), and m times the column sums, (m,).
    x: Array
    y: Array
    # Mean of `y` over the target cells that the mass of a source cell goes to, (n,).
    y_of_x: Array
    # Transported mass, and its mean cost in units of the mean cost.
    mass: float
    cost: float

    @property
    def divergence(self) -> float:
        """KL divergence of both weighted clouds, of mass 1, from the equal weights."""
        shares = (self.x / self.mass, self.y / self.mass)
        return float(sum(np.mean(share * np.log(np.maximum(share, 1e-300))) for share in shares))

    @property
    def change_of_shares(self) -> float:
        """A quarter of the variance of the log growth of the mass: the divergence, where shares alone explain it."""
        # Cells that respond more strongly than others lose weight in both clouds alike, which is no growth.
        growth = np.maximum(self.x, 1e-30) / np.maximum(self.y_of_x, 1e-30)
        return float(np.cov(np.log(growth), ddof=0, aweights=np.maximum(self.x, 1e-30))) / 4


# Entries of kernels are often denormal; without them a plan takes half the time.
@no_denormals()
def unbalanced_plan(cost: Array, penalty_x: float, penalty_y: float, *, epsilon: float = EPSILON) -> Plan:
    r"""Solve discrete unbalanced transport between uniform clouds by Sinkhorn's iteration for scaled kernels.

    .. math::
        \min_\pi \langle C, \pi\rangle + \lambda_x \mathrm{KL}(\pi 1|\mu) + \lambda_y \mathrm{KL}(\pi^T 1|\nu)
        + \epsilon\,\mathrm{KL}(\pi|\mu\otimes\nu)

    ``cost`` has shape (n, m); an infinite penalty fixes a marginal.

    Source: Chizat, Peyré, Schmitzer & Vialard (2018), Math. Comp. 87, alg. 2 (kernels that absorb the potentials);
    Schmitzer (2019), SIAM J. Sci. Comput. 41, sec. 3 (regularisation that falls in steps); Thibault, Chizat, Dossal &
    Papadakis (2021), Algorithms 14, 143 (relaxation).
    """
    n, m = cost.shape
    cost = cost.astype(np.float32)
    f, g = np.zeros(n), np.zeros(m)
    step = 1.0
    while True:
        rate_x, rate_y = (1.0 if math.isinf(lam) else lam / (lam + step) for lam in (penalty_x, penalty_y))
        # An iteration shrinks the slowest mode by the product of the rates. Successive over-relaxation with the factor
        # for this mode is several times faster: three clusters of 2,000 cells, 55 for 153 iterations at a penalty of 1.
        relaxation = 2 / (1 + math.sqrt(1 - rate_x * rate_y))
        kernel, smallest = None, math.inf
        for _ in range(MAX_ITERATIONS):
            if kernel is None:
                # In the log domain, so that no row of the kernel is empty.
                scaled = (g.astype(np.float32) - cost) / np.float32(step)
                largest = scaled.max(1)
                f = -rate_x * step * (largest + np.log(np.exp(scaled - largest[:, None]).mean(1))).astype(np.float64)
                f_0, g_0 = f, g
                kernel = np.exp((f.astype(np.float32)[:, None] + g.astype(np.float32) - cost) / np.float32(step))
            change_g = rate_y * (g_0 - step * _log_mean(kernel.T, (f - f_0) / step)) - g
            g = g + relaxation * change_g
            change_f = rate_x * (f_0 - step * _log_mean(kernel, (g - g_0) / step)) - f
            f = f + relaxation * change_f
            change = max(np.abs(change_f).max(), np.abs(change_g).max())
            if change < (TOLERANCE if step <= epsilon else 30 * TOLERANCE):
                break
            # Far from the solution over-relaxation may diverge; the plain iteration never does.
            if change > 10 * (smallest := min(smallest, change)):
                relaxation = 1.0
            if max(np.abs(f - f_0).max(), np.abs(g - g_0).max()) > 20 * step:
                kernel = None
        if step <= epsilon:
            break
        step = max(step / 2, epsilon)
    plan = np.exp((f.astype(np.float32)[:, None] + g.astype(np.float32) - cost) / np.float32(step))
    x, y = plan.mean(1, dtype=np.float64), plan.mean(0, dtype=np.float64)
    mass = float(x.mean())
    y_of_x = (plan @ y.astype(np.float32)) / np.maximum(m * x, 1e-30)
    return Plan(x, y, y_of_x, mass, float((plan * cost).mean(dtype=np.float64)) / max(mass, 1e-30))


def _log_mean(kernel: NDArray[np.float32], exponent: Array) -> Array:
    """Return log of the mean over columns of kernel exp(exponent)."""
    mean: Array = (kernel @ np.exp(exponent).astype(np.float32)).astype(np.float64) / len(exponent)
    return np.log(np.maximum(mean, 1e-30))


@dataclass(frozen=True)
class CellWeights:
    """Weights of all cells of both clouds, mean 1 in each group, and how they were found."""

    # What a map tells of them.
    report: dict[str, Any]
    # None where the balanced fit was chosen, (n,) and (m,).
    x: Array | None = None
    y: Array | None = None
    # Growth of each source cell: its weight over that of the target cells that its mass goes to, (n,).
    growth: Array | None = None


def weigh_cells(
    clouds: tuple[Array, Array],
    codes: tuple[Rows, Rows],
    proportions: Array,
    name: str,
    *,
    penalty: float | str,
    side: str,
    growth: float,
    rng: int,
) -> CellWeights:
    """Weigh the cells by unbalanced transport within each group; ``name`` is that of the target in messages.

    ``clouds`` are the source and the target cells, (n, d) and (m, d), ``codes`` the numbers of their groups, (n,) and
    (m,), and ``proportions`` those of the groups.
    The other options are those of TrainingOptions. Raise an UnusableError if less than a fifth of the mass is
    transported.
    """
    report: dict[str, Any] = {}
    if penalty == "auto":
        changed, report = proportions_changed(clouds, codes, proportions, side, np.random.default_rng(rng))
        penalties = PENALTIES if changed else (math.inf,)
    else:
        penalties = (float(penalty),)
    if penalties[0] >= BALANCED:
        return CellWeights(report | {"unbalanced": math.inf, "transported_mass": 1.0})
    draw = np.random.default_rng(rng)
    source, target = (
        _Sample.of(cells, of_cells, len(proportions), _drawn(cells, MAX_CELLS, draw))
        for cells, of_cells in zip(clouds, codes, strict=True)
    )
    samples = _Clouds.of(source, target, proportions).registered(side)
    for lam in penalties:
        plans = samples.plans(lam, side)
        mass = samples.mean([plan.mass for plan in plans])
        if mass >= MIN_MASS_OF_AUTO:
            break
    if mass < MIN_MASS:
        raise UnusableError(
            f"unbalanced={lam:g} transports {100 * mass:.2g} % of the mass to {name}, and at least "
            f"{100 * MIN_MASS:.0f} % are needed: nearly all cells would count as dead or newly born. Use a larger "
            "penalty, unbalanced='auto', or leave unbalanced out.",
            kind="too little transported mass",
            found=f"{100 * mass:.2g} % of the mass",
        )
    report |= {"unbalanced": lam, "transported_mass": mass}
    return samples.extended(plans, growth, report)


@dataclass(frozen=True)
class _Sample:
    """Drawn cells of one cloud: the rows of each group, and the mean of the neighbours of each cell."""

    cells: Array
    codes: NDArray[Any]
    rows: list[Rows]
    means: list[Array]

    @classmethod
    def of(cls, cells: Array, codes: NDArray[Any], n_groups: int, drawn: Rows) -> _Sample:
        """Take the means of neighbours within each group."""
        # Means of neighbours have the populations and hardly the noise of single cells, which in 50 components is most
        # of the cost. Where one of several populations grew by 4 or by 1/4, 7 % of the weights of both clouds disagreed
        # about its share with single cells (20 % in 50 dimensions), and 1.5 % with means.
        rows = [drawn[codes[drawn] == k] for k in range(n_groups)]
        means = [mean_of_neighbours(*[cells[some]] * 3) if len(some) else cells[some] for some in rows]
        return cls(cells, codes, rows, means)


@dataclass(frozen=True)
class _Clouds:
    """Samples of both clouds, between whose means plans are computed."""

    source: _Sample
    target: _Sample
    # Proportion of each group in the fit.
    proportions: Array
    # The means of source cells where the cost is taken, and their mean cost to a target cell, whatever their groups.
    moved: list[Array]
    unit: float

    @classmethod
    def of(cls, source: _Sample, target: _Sample, proportions: Array) -> _Clouds:
        """Take the cost between the means as they are."""
        unit = _mean_cost(np.concatenate(source.means), np.concatenate(target.means))
        return cls(source, target, proportions, source.means, unit)

    def registered(self, side: str) -> _Clouds:
        """Return the same with source cells that the Gaussian map of a first plan has moved."""
        # What all cells have in common of the response costs nothing then. Otherwise cells that respond more strongly
        # lose weight: of Kang's PBMCs 40 % of the mass were transported, which are 59 % now, and with 80 % of the
        # treated monocytes left out 'auto' took the balanced fit.
        plans = self.plans(REGISTRATION, side)
        if self.unit <= 0 or min(plan.mass for plan in plans) < 1e-6:
            return self
        w_x, w_y = (
            np.concatenate([p * w / max(w.sum(), 1e-30) for p, w in zip(self.proportions, part, strict=True)])
            for part in ([plan.x for plan in plans], [plan.y for plan in plans])
        )
        means_x, means_y = np.concatenate(self.source.means), np.concatenate(self.target.means)
        gaussian = Gaussian.fit(means_x, means_y, weights_x=w_x, weights_y=w_y)
        moved = [gaussian.gradient(means) for means in self.source.means]
        return replace(self, moved=moved, unit=_mean_cost(np.concatenate(moved), means_y))

    def mean(self, values: Any) -> float:
        """Return the mean over groups, by their proportions."""
        return float(self.proportions @ np.asarray(values) / self.proportions.sum())

    def plans(self, penalty: float, side: str) -> list[Plan]:
        """Return the plan of each group."""
        penalties = (penalty if side != "target" else math.inf, penalty if side != "source" else math.inf)
        plans = []
        for moved, mean_y in zip(self.moved, self.target.means, strict=True):
            if min(len(moved), len(mean_y)) < MIN_CELLS_WEIGHTED or self.unit <= 0:
                ones = np.ones(len(moved))
                plans.append(Plan(ones, np.ones(len(mean_y)), ones, 1.0, 0.0))
                continue
            plans.append(unbalanced_plan(cdist(moved, mean_y, "sqeuclidean") / self.unit, *penalties))
        return plans

    def extended(self, plans: list[Plan], growth: float, report: dict[str, Any]) -> CellWeights:
        """Return the weights of all cells: those in no plan take the mean of their nearest neighbours in it."""
        x, y = self.source.cells, self.target.cells
        weights_x, weights_y, grown = np.ones(len(x)), np.ones(len(y)), np.ones(len(x))
        for k, (plan, drawn_x, drawn_y) in enumerate(zip(plans, self.source.rows, self.target.rows, strict=True)):
            # A small group may have no cell in the plan, or no mass.
            if not len(drawn_x) or not len(drawn_y) or plan.mass < 1e-6:
                continue
            in_x, in_y = np.flatnonzero(self.source.codes == k), np.flatnonzero(self.target.codes == k)
            # Both clouds are weighted to mass 1, so that the growth of a cell whose share stays the same is 1.
            of_group = growth * (len(in_y) / len(y)) / (len(in_x) / len(x))
            local = of_group * plan.x / np.maximum(plan.y_of_x, 1e-30)
            weights_x[in_x], grown[in_x] = _extended(x, in_x, drawn_x, np.stack([plan.x, local], 1)).T
            (weights_y[in_y],) = _extended(y, in_y, drawn_y, plan.y[:, None]).T
            weights_x[in_x] /= weights_x[in_x].mean()
            weights_y[in_y] /= weights_y[in_y].mean()
        return CellWeights(report, weights_x, weights_y, grown)


def proportions_changed(
    clouds: tuple[Array, Array], codes: tuple[Rows, Rows], proportions: Array, side: str, rng: np.random.Generator
) -> tuple[bool, dict[str, Any]]:
    r"""Return whether two halves of the cells both show populations whose shares changed, and what was compared.

    The change must exceed that between the two halves of one condition, whose shares are the same.

    A smooth response has weights, too, but less penalty saves little: the cost of the plan, as a function of their
    divergence K, has the slope :math:`-\lambda`, and :math:`K \propto 1/\lambda^2` gives savings of :math:`2\lambda K`
    whatever the response is. Where a population changes its share, balanced transport carries cells over to another
    one, and weights of a bounded K save all of that.
    """
    sizes = [min(CELLS_OF_HALF, len(cells) // 2) for cells in clouds]
    halves = []
    for cells, of_cells, size in zip(clouds, codes, sizes, strict=True):
        drawn = _drawn(cells, 2 * size, rng)
        halves += [_Sample.of(cells, of_cells, len(proportions), half) for half in (drawn[::2], drawn[1::2])]

    change, savings = [], []
    # Twice a half of the source and one of the target, then both halves of each.
    for a, b in ((0, 2), (1, 3), (0, 1), (2, 3)):
        samples = _Clouds.of(halves[a], halves[b], proportions).registered(side)
        change.append(samples.mean([plan.change_of_shares for plan in samples.plans(PENALTIES[0], side)]))
        if b - a == 2:
            plans, balanced = (samples.plans(penalty, side) for penalty in (LOW, NEARLY_BALANCED))
            saved = samples.mean([plan.cost for plan in balanced]) - samples.mean([plan.cost for plan in plans])
            savings.append(saved / max(LOW * samples.mean([plan.divergence for plan in plans]), 1e-12))
    by_sampling = SAMPLING * len(proportions) * sum(1 / size for size in sizes)
    report = {
        "unbalanced_savings": min(savings),
        "unbalanced_change": float(np.mean(change[:2])),
        "unbalanced_limit": float(np.mean(change[2:]) + by_sampling),
    }
    return min(savings) > SMOOTH and report["unbalanced_change"] > report["unbalanced_limit"], report


def _mean_cost(x: Array, y: Array) -> float:
    """Return E|X - Y|^2 by moments."""
    return float(x.var(0).sum() + y.var(0).sum() + ((x.mean(0) - y.mean(0)) ** 2).sum())


def _drawn(cells: Array, size: int, rng: np.random.Generator) -> Rows:
    """Return the rows of at most so many random cells, the same cells whatever the order of the rows."""
    order = np.argsort(cells @ rng.normal(size=cells.shape[1]), kind="stable")
    return np.asarray(order[rng.permutation(len(cells))[:size]])


def _extended(cells: Array, rows: Rows, known: Rows, values: Array) -> Array:
    """Return values, (k, v), of the ``known`` cells for all ``rows``: of other cells the mean of neighbours."""
    full = np.empty((len(cells), values.shape[1]))
    full[known] = values
    others = np.setdiff1d(rows, known)
    if len(others):
        full[others] = mean_of_neighbours(cells[others], cells[known], values)
    return full[rows]
