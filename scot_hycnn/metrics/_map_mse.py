"""Mean squared error of a map."""

from __future__ import annotations

from numpy.typing import ArrayLike

from ._checks import check_samples


def map_mse(predicted: ArrayLike, truth: ArrayLike) -> float:
    r"""Mean squared error of a map whose true values are known.

    .. math:: E\,|\hat T(X) - T(X)|^2

    summed over coordinates, and not normalised.

    Parameters
    ----------
    predicted, truth
        :math:`\hat T(x_i)` and :math:`T(x_i)` of the same cells in the same order, shape (n, d), n >= 2.

    Returns
    -------
    The error, in squared units of the coordinates.

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
