"""Residuals of seen groups: what a map misses in the means of groups, predicted for the groups that are like them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from scot_hycnn._anndata._conditions import Rows, groups_by_columns, labelled_rows
from scot_hycnn._anndata._representation import (
    BLOCK_ROWS,
    Expression,
    dense_array,
    obs_columns,
    read_coordinates,
    read_expression,
    row_blocks,
)
from scot_hycnn._anndata._results import StoredFit, find_prediction, learned_from
from scot_hycnn._neighbours import GroupKernel, Numbers, cells_of_both

CORRECTIONS = ("groups", None)
# With fewer groups, or fewer cells of either condition in a group, residuals are not used.
MIN_GROUPS, MIN_CELLS = 4, 10
# The variance of a gene in a type is that of all types and that in the type, which count as so many donors and as its
# number of donors. Of made-up donors that were left out (seven kinds of response, one seed each) .90 to .98 of the
# errors were then below two standard deviations, and of the 40 largest predicted changes .88 to .98 (without: .90 to
# .97, and .76 to .97, since the genes that respond in one type vary only there).
DONORS_OF_ALL_TYPES = 4


class Kriging(NamedTuple):
    """How residuals of K seen groups correct n groups."""

    weights: Numbers  # (n, K)
    covariance: Numbers  # of the errors without the noise of these groups, (n, n), in units of the variance of a gene
    variance: Numbers  # of the residuals of each gene, (genes,)
    squares: Numbers  # the part of each seen group in it, (K, genes)
    reliability: float  # share of the mean response of seen groups that is not noise, from 0 to 1


def krige(
    seen: Numbers,
    residuals: Numbers,
    changes: Numbers,
    n_cells: Numbers,
    groups: Numbers,
    *,
    n_taken: int = 1,
    n_alike: float = 1,
) -> Kriging:
    r"""Return the weights of the residuals of seen groups in the correction of other groups (kriging).

    .. math:: k(q, Q)\,(K + N)^{-1} R, \qquad k(q, q') = 1 + \frac{\langle q, q' \rangle}{\overline{|q|^2}}

    Features q are control profiles less their mean over the seen groups, weighted by :math:`\sqrt{n_k}`, and N is
    diagonal, the median of n over :math:`n_k`. The weights are 0 if leaving out each seen group shows that residuals of
    the others predict its own no better than those of unrelated groups would.

    Parameters
    ----------
    seen, groups
        Mean coordinates of the control cells of the seen groups, (K, d), and of those to correct, (n, d).
    residuals, changes
        Of the seen groups, (K, genes): treated less predicted mean, and treated less control mean.
    n_cells
        Effective numbers of cells of the seen groups, (K,): the harmonic mean of both conditions.
    n_taken, n_alike
        Number of means of residuals that the map has made 0, and how many residuals count as one independent one.
    """
    importance = np.sqrt(n_cells) / np.sqrt(n_cells).sum()
    kernel, n_seen = GroupKernel.of(seen, importance, n_cells), len(seen)
    inverse = np.linalg.inv(kernel(seen, seen) + kernel.noise)
    cross, prior = kernel(groups, seen), kernel(groups, groups)

    # Errors of leaving out one group are B R (Rasmussen & Williams 2006, eq. 5.12). Their size is compared with its
    # expectation for residuals of unrelated groups, whose weighted mean is 0 because the map is fitted to all of them.
    leave_out = inverse / np.diag(inverse)[:, None]
    centred = residuals - importance @ residuals
    projection = np.eye(n_seen) - importance
    expected = ((leave_out @ projection) ** 2).sum(axis=0) @ (centred**2).sum(axis=1) * n_seen / (n_seen - 1)
    # Measured: .95 to .98 of it on Kang, .68 to .96 on Bodenmiller, and 1.05 for donors whose responses are unrelated
    # to their baselines, where the correction would raise the squared error by 29 %.
    if ((leave_out @ centred) ** 2).sum() >= expected:
        inverse, cross, prior = np.linalg.inv(kernel.noise), np.zeros_like(cross), np.zeros_like(prior)
    weights = cross @ inverse
    covariance = prior - weights @ cross.T
    # The map has taken means of the residuals. Errors over the root mean square of what is left have Student's t
    # distribution with nu degrees of freedom, whose variance is nu / (nu - 2): of synthetic groups with 4 to 10 seen
    # ones .93 to .96 of the errors are then below two standard deviations, without that factor .76 to .93.
    left = n_seen - n_taken
    freedom = max(left / n_alike, 3.0)
    squares = (inverse @ residuals) * residuals * n_seen / left
    variance = squares.mean(axis=0) * freedom / (freedom - 2)

    # Products of the changes of different groups have no noise in common: their mean is that of the squared response.
    total = changes.sum(axis=0)
    signal = ((total**2).sum() - (changes**2).sum()) / (n_seen * (n_seen - 1))
    reliability = signal / max(float((total**2).sum()) / n_seen**2, np.finfo(float).tiny)
    return Kriging(weights, covariance, variance, squares, float(np.clip(reliability, 0, 1)))


def correlation_within(residuals: Numbers, n_cells: Numbers, kinds: Rows, units: Rows) -> tuple[float, float]:
    """Return the correlation, from 0 to 1, of residuals, (K, genes), of kinds in the same unit; and 1 + (m - 1) of it.

    Means of a unit with m kinds vary as those of one independent residual for each of the latter number (the design
    effect): a donor who responds less does so in all cell types. Groups of one column are units: they give 0 and 1.
    """
    pairs = (units[:, None] == units) & ~np.eye(len(units), dtype=bool)
    alike = kinds[:, None] == kinds
    # Residuals of the same variance, less the mean of their kind.
    scaled = residuals * np.sqrt(n_cells)[:, None]
    scaled -= (alike @ scaled) / alike.sum(axis=1)[:, None]
    products = scaled @ scaled.T
    squares = float(pairs.sum(axis=1) @ np.diag(products))
    correlation = float(np.clip(products[pairs].sum() / squares, 0, 1)) if squares else 0.0
    return correlation, 1 + correlation * pairs.sum() / len(units)


def variance_of_kinds(kriging: Kriging, seen: Rows, kinds: Rows) -> Numbers:
    """Return the variance of each gene in groups of these kinds, (n, genes); ``seen`` are those of the residuals.

    A kind that is seen in one unit has that of all kinds.
    """
    variance = np.tile(kriging.variance, (len(kinds), 1))
    prior = DONORS_OF_ALL_TYPES * kriging.squares.mean(axis=0)
    for kind in np.flatnonzero(np.bincount(seen) > 1):
        squares = kriging.squares[seen == kind]
        freedom = DONORS_OF_ALL_TYPES + len(squares) - 1
        mean = (prior + np.maximum(squares.sum(axis=0), 0)) / (DONORS_OF_ALL_TYPES + len(squares))
        variance[kinds == kind] = mean * freedom / (freedom - 2)
    return variance


def shrunk(responses: Numbers, is_known: NDArray[np.bool_], reliability: float) -> tuple[Numbers, Numbers]:
    """Return the responses of groups, (n, genes), times their reliability if they were not seen, and its variance."""
    # What is taken away may be right: where few of the seen groups respond, nothing tells whether a new one does.
    # (Monocytes of planted PBMCs: predicted .17, observed 1.12; standard deviation .11 without this part. Of groups
    # that were left out .01 to .08 more of the errors are below two standard deviations with it, and none too many.)
    factor = np.where(is_known, 1.0, reliability)[:, None]
    return factor * responses, (1 - factor) * responses**2


def features_of_kinds(
    sums: Numbers, count: Numbers, seen: NDArray[np.bool_], kinds: Rows
) -> tuple[Numbers, NDArray[np.bool_]]:
    """Return the mean coordinates of the kind of each group, (n, d), over its seen groups, and whether it has any.

    A kind has the same features in all units: how their baselines differ is no part of them.
    """
    alike = (kinds[:, None] == kinds) & seen
    is_known = alike.any(axis=1)
    alike |= ~is_known[:, None] & np.eye(len(kinds), dtype=bool)
    return (alike @ sums) / np.maximum(alike @ count, 1), is_known


@dataclass(frozen=True)
class Correction:
    """What is added to the predicted expression of the cells of each group, and how uncertain their mean is then.

    The last group stands for cells without a group, and is not corrected.
    """

    codes: Rows  # group of each cell of the AnnData, (n_obs,); -1 for none
    shifts: Expression  # (groups + 1, genes)
    covariance: Numbers  # of the errors of the groups, (groups + 1, groups + 1)
    variance: Numbers  # that it is to be multiplied with, (groups + 1, genes)
    n_seen: int  # groups with residuals

    def at(self, rows: Rows) -> Expression:
        """Return what is added to each of these cells, (n, genes)."""
        return self.shifts[self.codes[rows]]

    def mean(self, rows: Rows) -> tuple[Numbers, Numbers]:
        """Return what is added to the mean of these cells, and the standard deviation of that mean, (genes,) each."""
        shares = np.bincount(self.codes[rows] % len(self.shifts), minlength=len(self.shifts)) / len(rows)
        some = np.flatnonzero(shares)
        weights = shares[some, None] * np.sqrt(self.variance[some])
        variance = (weights * (self.covariance[np.ix_(some, some)] @ weights)).sum(axis=0)
        return shares @ self.shifts.astype(np.float64), np.sqrt(np.maximum(variance, 0))

    def std(self, rows: Rows) -> NDArray[np.float32]:
        """Return the standard deviation of the mean of each cell's group, the root mean square over genes, (n,)."""
        of_groups = np.sqrt(np.maximum(np.diag(self.covariance), 0) * self.variance.mean(axis=1))
        return np.where(self.codes[rows] < 0, np.nan, of_groups[self.codes[rows]]).astype(np.float32)


def find_correction(
    adata: AnnData, fit: StoredFit, slug: str, genes: Any, correction: str | None, *, held_out: Rows | None = None
) -> Correction | None:
    """Return the correction of Genes by residuals of seen groups; None if it is not wanted, or there are too few.

    Residuals are those of training cells, without ``held_out`` ones unless all are. The response of a group that was
    not seen is then multiplied with its reliability over the seen groups.
    """
    if correction not in CORRECTIONS:
        raise ValueError(f"correction={correction!r} is unknown; choose one of {list(CORRECTIONS)}.")
    columns = fit.group_columns
    if correction is None or genes.decoder is not None or fit.slots(slug).moved not in adata.obsm:
        return None
    obs = obs_columns(adata, fit.groupby, *columns)
    if not {*columns} <= {*obs}:
        return None
    names, codes, parts = groups_by_columns(obs, columns)
    training = learned_from(adata, fit, held_out)
    training = training[codes[training] >= 0]
    # Of types within donors, each type in each donor has a residual: so they tell how donors differ.
    kinds = units = np.arange(n_groups := len(names))
    if parts is not None:
        units, kinds = (np.unique(column, return_inverse=True)[1] for column in parts.T)

    # The second half of the codes, and of the sums, is of cells that are not for training.
    halves = np.where(codes < 0, -1, codes + n_groups * ~np.isin(np.arange(adata.n_obs), training))
    sums = _sums_of_source(adata, fit, slug, genes, codes=halves, n_groups=2 * n_groups)
    labelled = labelled_rows(obs, fit.groupby, fit.targets[slug])
    labelled = np.empty(0, dtype=np.intp) if labelled is None else labelled
    treated = np.intersect1d(training, labelled)
    n_target = np.bincount(codes[treated], minlength=n_groups)
    seen = np.minimum(sums[0][:n_groups, 0], n_target) >= MIN_CELLS
    if seen.sum() < MIN_GROUPS:
        return None
    after = _sums(genes, treated, codes, n_groups)[seen] / n_target[seen, None]
    # Of seen groups, all means are those of training cells.
    is_counted = np.concatenate([np.ones(n_groups), ~seen])[:, None]
    count, *totals = ((is_counted * part).reshape(2, n_groups, -1).sum(axis=0) for part in sums)
    _, moves, before = (total / np.maximum(count, 1) for total in totals)
    features, is_known = features_of_kinds(totals[0], count, seen, kinds)
    plain = moves if genes.loadings is None else moves @ genes.loadings.T.astype(np.float64)
    # Where no measured mean is below 0, none is predicted there. (Types of Kang et al. that were left out, without and
    # with this: Pearson-delta .924 and .930, relative squared error .156 and .144.)
    lowest = np.where(min(before.min(), after.min()) < 0, -np.inf, -before)
    predicted, changes = np.maximum(plain, lowest), after - before[seen]
    residuals = changes - predicted[seen]
    n_cells = cells_of_both(count[seen, 0], n_target[seen])
    # A map may take the mean of each type: without that .88 to .94 of the errors were below two standard deviations.
    n_taken = max(1, int((np.bincount(kinds[seen]) > 1).sum()))
    correlation, n_alike = correlation_within(residuals, n_cells, kinds[seen], units[seen])
    kriging = krige(features[seen], residuals, changes, n_cells, features, n_taken=n_taken, n_alike=n_alike)
    # The mean of a group varies by noise too, with its number of cells, as in N. Of the types of Kang and Bodenmiller
    # that were left out .89 and .90 of the errors are below two standard deviations (of the noise of a group of median
    # size .87 and .85), and .98 and .93 with the sampling error of the observed means added.
    n_observed, n_source = np.bincount(codes[labelled] + 1, minlength=n_groups + 1)[1:], np.maximum(count[:, 0], 1)
    std = np.sqrt(np.median(n_cells) / cells_of_both(n_source, np.where(n_observed > 0, n_observed, n_source)))
    alike = np.where(np.eye(n_groups, dtype=bool), 1.0, correlation * (units[:, None] == units))
    covariance = kriging.covariance + np.outer(std, std) * alike
    response, by_reliability = shrunk(predicted + kriging.weights @ residuals, is_known, kriging.reliability)
    shifts = np.where(count > 0, np.maximum(response, lowest) - plain, 0)
    variance = variance_of_kinds(kriging, kinds[seen], kinds) + by_reliability / np.diag(covariance)[:, None]
    return Correction(
        codes,
        np.vstack([shifts, np.zeros(shifts.shape[1])]).astype(np.float32),
        np.pad(covariance, (0, 1)),
        np.vstack([variance, kriging.variance]),
        int(seen.sum()),
    )


def _sums_of_source(
    adata: AnnData, fit: StoredFit, slug: str, genes: Any, *, codes: Rows, n_groups: int
) -> tuple[Numbers, Numbers, Numbers, Numbers]:
    """Return sums over the source cells of each group: their number, coordinates, moves and genes, (groups, ...)."""
    x, moves = np.zeros((2, n_groups, genes.rep.n_dims))
    n_source, before = np.zeros((n_groups, 1)), np.zeros((n_groups, genes.adata.n_vars))
    for _, rows, points, moved in find_prediction(adata, fit, slug).blocks(BLOCK_ROWS):
        known = codes[rows] >= 0
        some = codes[rows[known]]
        np.add.at(x, some, points[known])
        np.add.at(moves, some, moved[known].astype(np.float64) - points[known])
        n_source[:, 0] += np.bincount(some, minlength=n_groups)
        before += _sums(genes, rows[known], codes, n_groups)
    return n_source, x, moves, before


def _sums(genes: Any, rows: Rows, codes: Rows, n_groups: int) -> Numbers:
    """Return the sum of the measured values of some cells over each group, (groups, genes); sparse values stay so."""
    total = np.zeros((n_groups, genes.adata.n_vars))
    for block in row_blocks(len(rows)):
        some = rows[block]
        values = (
            read_coordinates(genes.adata, genes.rep, some)
            if genes.loadings is None
            else read_expression(genes.adata, genes.layer, some)
        )
        member = csr_matrix((np.ones(len(some)), (codes[some], np.arange(len(some)))), shape=(n_groups, len(some)))
        total += np.asarray(dense_array(member @ values), dtype=np.float64)
    return total
