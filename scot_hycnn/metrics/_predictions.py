"""Errors of predicted cells: of a map that is known, of the spread of cells, and of means of genes."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ._moments import Moments, difference, moments_of, pearson, top_genes, welch_t
from ._samples import Samples, check_samples


def map_mse(predicted: ArrayLike, truth: ArrayLike) -> float:
    r"""Mean squared error of a map whose true values are known.

    .. math:: E\,|\hat T(X) - T(X)|^2

    Parameters
    ----------
    predicted, truth
        :math:`\hat T(x_i)` and :math:`T(x_i)` of the same cells in the same order, shape (n, d), n >= 2.

    Returns
    -------
    The error, summed over coordinates, in their squared units.

    Raises
    ------
    TypeError, ValueError
        If an array is sparse, not numeric or not finite, or if the shapes differ.

    References
    ----------
    Hundrieser, Kong & Schmidt-Hieber (2026), arXiv:2604.26942, app. D.3 (the score of its map tables).

    Examples
    --------
    >>> from scot_hycnn.metrics import map_mse
    >>> map_mse([[0.0, 0.0], [1.0, 1.0]], [[3.0, 4.0], [1.0, 1.0]])
    12.5
    """
    predicted_cells, true_cells = check_samples(paired=True, predicted=predicted, truth=truth)
    return float(((predicted_cells - true_cells) ** 2).sum(axis=1).mean())


def l2_uvp(predicted: ArrayLike, truth: ArrayLike) -> float:
    r"""Unexplained variance of a map in percent of the target's variance, where the true map is known.

    .. math:: 100 \cdot \frac{E\,|\hat T(X) - T(X)|^2}{\operatorname{tr}\operatorname{Cov}(T(X))}

    The covariance of the true values is that of the target distribution; it has the divisor n - 1.

    Parameters
    ----------
    predicted, truth
        :math:`\hat T(x_i)` and :math:`T(x_i)` of the same cells in the same order, shape (n, d), n >= 2.

    Returns
    -------
    Percent: 0 is the true map, 100 is as bad as mapping every cell to the target's mean.

    Raises
    ------
    TypeError, ValueError
        If an array is sparse, not numeric or not finite, if the shapes differ, or if ``truth`` varies by rounding only.

    References
    ----------
    Korotin et al. (2021), Do neural optimal transport solvers work? A continuous Wasserstein-2 benchmark, NeurIPS.

    Examples
    --------
    >>> from scot_hycnn.metrics import l2_uvp
    >>> l2_uvp([[0.0], [1.0]], [[0.0], [2.0]])
    25.0
    """
    _, true_cells = check_samples(paired=True, predicted=predicted, truth=truth)
    return 100 * map_mse(predicted, truth) / _variance("truth", true_cells)


def trace_ratio(predicted: ArrayLike, observed: ArrayLike) -> float:
    r"""Total variance of the predicted cells relative to the observed ones.

    .. math:: \operatorname{tr}\operatorname{Cov}(T(X)) \,/\, \operatorname{tr}\operatorname{Cov}(Y)

    Parameters
    ----------
    predicted, observed
        Cells T(x) and y, shape (n, d) and (m, d), at least 2 of each. Rows need not correspond.

    Returns
    -------
    The ratio, without units: 1 is right, below 1 is shrinkage, which gene means do not show.

    Raises
    ------
    TypeError, ValueError
        If an array is sparse, not numeric or not finite, if the numbers of columns differ, or if ``observed`` varies by
        rounding only (5e-7 of the size of values that are stored in float32, 1e-14 in float64).

    Examples
    --------
    >>> import numpy as np
    >>> from scot_hycnn.metrics import trace_ratio
    >>> y = np.random.default_rng(0).normal(size=(50, 3))
    >>> round(trace_ratio(0.9 * y, y), 6)
    0.81
    """
    predicted_cells, observed_cells = check_samples(predicted=predicted, observed=observed)
    return float(moments_of(predicted_cells).total_variance()) / _variance("observed", observed_cells)


def _variance(name: str, cells: Samples) -> float:
    """Return the total variance of cells, which is to be divided by."""
    variance = float(moments_of(cells).total_variance())
    if variance == 0:
        raise ValueError(f"{name} has no variance to divide by: all its rows are equal up to rounding.")
    return variance


def r2_mean(
    predicted: ArrayLike, observed: ArrayLike, control: ArrayLike | None = None, *, n_top: int | None = None
) -> float:
    """R² of gene means: squared Pearson correlation, over genes, of mean predicted and observed expression.

    It is high for almost any prediction, since genes differ more than conditions do: report it beside the value of the
    identity, on the genes that change most (``n_top``), or use :func:`pearson_delta`.

    Parameters
    ----------
    predicted, observed, control
        Expression of predicted, observed and control cells, shape (cells, genes), at least 2 cells of each.
        ``control`` is needed for ``n_top`` only.
    n_top
        Use only this number of genes, those with the largest absolute Welch's t, as in :func:`deg_overlap`.

    Returns
    -------
    R² between 0 and 1. NaN if either mean is the same for all genes up to rounding, or no gene changes. The "r2" of
    CellOT is the correlation itself, unsquared.

    Raises
    ------
    TypeError, ValueError
        If an array is sparse, not numeric or not finite, if the numbers of columns differ, or if ``n_top`` is not from
        2 to the number of columns, or is passed without ``control``.

    References
    ----------
    Lotfollahi, Wolf & Theis (2019), scGen predicts single-cell perturbation responses, Nature Methods 16.

    Examples
    --------
    >>> from scot_hycnn.metrics import r2_mean
    >>> round(r2_mean([[0, 1, 2], [0, 3, 4]], [[1, 3, 4], [1, 3, 4]]), 6)
    1.0
    """
    if control is None and n_top is not None:
        raise ValueError(f"n_top={n_top} takes the genes that change against control; pass control as well.")
    with_control = {} if control is None else {"control": control}
    a, b, *others = map(moments_of, check_samples(paired=False, predicted=predicted, observed=observed, **with_control))
    chosen = np.ones(len(b.mean), dtype=bool)
    if n_top is not None:
        _check_n_top(n_top, len(b.mean))
        chosen = top_genes(welch_t(b, b, *others), n_top)
    return float(pearson(a.mean[chosen], b.mean[chosen], a.rounding[chosen], b.rounding[chosen])) ** 2


def _check_n_top(n_top: int, n_genes: int) -> None:
    if not 2 <= n_top <= n_genes:
        raise ValueError(f"n_top={n_top}; it has to be an integer from 2 to {n_genes}, the number of columns.")


def pearson_delta(predicted: ArrayLike, observed: ArrayLike, control: ArrayLike) -> float:
    """Pearson correlation, over genes, of the predicted and the observed change of mean expression.

    The changes are mean predicted - mean control and mean observed - mean control.

    Parameters
    ----------
    predicted, observed, control
        Expression of predicted, observed and control cells, shape (cells, genes), at least 2 cells of each.

    Returns
    -------
    Correlation between -1 and 1. NaN if either change is the same for all genes, as that of the identity (``predicted``
    equal to ``control``) is. Changes that are no larger than rounding are 0, as in :func:`deg_overlap`.

    Raises
    ------
    TypeError, ValueError
        If an array is sparse, not numeric or not finite, or if the numbers of columns differ.

    References
    ----------
    Roohani, Huang & Leskovec (2024), Nature Biotechnology 42 (GEARS).

    Examples
    --------
    >>> from scot_hycnn.metrics import pearson_delta
    >>> control, observed = [[1, 1, 1], [1, 1, 1]], [[2, 1, 4], [2, 1, 4]]
    >>> round(pearson_delta([[3, 1, 7], [3, 1, 7]], observed, control), 6)
    1.0
    """
    cells = check_samples(predicted=predicted, observed=observed, control=control)
    return float(correlation_of_changes(*map(moments_of, cells)))


def correlation_of_changes(
    predicted: Moments, observed: Moments, control: Moments, of_observed: Moments | None = None
) -> Samples:
    """Return the correlation over genes of two changes of the mean, (...,); the second may have its own control."""
    other = control if of_observed is None else of_observed
    rounding, other_rounding = predicted.rounding + control.rounding, observed.rounding + other.rounding
    change = difference(predicted.mean, control.mean, rounding)
    return pearson(change, difference(observed.mean, other.mean, other_rounding), rounding, other_rounding)


def deg_overlap(predicted: ArrayLike, observed: ArrayLike, control: ArrayLike, *, n_top: int = 50) -> float:
    """Share of the top differentially expressed genes that a prediction finds.

    Observed genes are ranked by absolute Welch's t against control cells, predicted genes by the predicted change of
    means over the standard error of the observed change. The direction of change does not count. A gene whose mean
    changes by rounding only (1e-14 of its mean absolute value, 5e-7 if values are stored in float32) is in no list.

    Parameters
    ----------
    predicted, observed, control
        Expression of predicted, observed and control cells, shape (cells, genes), at least 2 cells of each.
    n_top
        Length of the lists.

    Returns
    -------
    Number of genes in both lists, divided by ``n_top``: 0 to 1, without units. By chance it is ``n_top / genes``.

    Raises
    ------
    TypeError, ValueError
        If an array is sparse, not numeric or not finite, if the numbers of columns differ, or if ``n_top`` is not from
        2 to the number of columns.

    References
    ----------
    Welch (1947), Biometrika 34, 28-35 (t). Roohani, Huang & Leskovec (2024), Nature Biotechnology 42 (overlaps).

    Examples
    --------
    >>> import numpy as np
    >>> from scot_hycnn.metrics import deg_overlap
    >>> control = np.random.default_rng(0).normal(size=(100, 6))
    >>> observed = np.random.default_rng(1).normal(size=(100, 6)) + [5, 5, 5, 0, 0, 0]
    >>> deg_overlap(control + [3, 3, 0, 0, 0, 9], observed, control, n_top=3)
    0.6666666666666666
    """
    cells = check_samples(predicted=predicted, observed=observed, control=control)
    _check_n_top(n_top, cells[0].shape[1])
    of_predicted, of_observed, of_control = map(moments_of, cells)
    found, true = (
        top_genes(welch_t(moments, of_observed, of_control), n_top) for moments in (of_predicted, of_observed)
    )
    return float((found & true).sum() / n_top)
