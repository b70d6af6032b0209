"""Evaluation of a fit beside baselines and floor."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from scot_hycnn._anndata import (
    EVALUATION_COLUMNS,
    Decoder,
    Genes,
    HeldOut,
    Mask,
    find_genes,
    groups_of_cells,
    has_genes,
    held_out_cells,
    read_fit,
    read_held_out,
    row_blocks,
)

from ._bootstrap import Sums, interval
from ._checks import Samples
from ._halves import split_interval
from ._scores import FLOOR, TOPS, Resampling, Scores, cloud_scores, gene_scores, observed_gammas

_Points: TypeAlias = NDArray[np.floating[Any]]
_Members: TypeAlias = NDArray[np.bool_]

# Fewer have no distribution to compare, and halves of them no floor.
LEAST_CELLS = 10
_FARTHEST = 1e15
METHODS = ("identity", "mean_shift", "gaussian", "hycnn_ot", FLOOR)
# Metrics in the order of rows, and the range of each.
_RANGES = {
    "energy_distance": (-np.inf, np.inf),
    "mmd": (-np.inf, 2.0),
    "w2_squared": (0.0, np.inf),
    "sinkhorn_divergence": (-np.inf, np.inf),
    "trace_ratio": (0.0, np.inf),
    "r2_mean": (0.0, 1.0),
    **{f"r2_mean_top{n}": (0.0, 1.0) for n in TOPS},
    "pearson_delta": (-1.0, 1.0),
    **{f"deg_overlap_top{n}": (0.0, 1.0) for n in TOPS},
}


def evaluate(
    adata: AnnData,
    key: str = "hycnn_ot",
    *,
    target: str | None = None,
    groupby: str | None = None,
    mask_obs: Mask | None = None,
    split_key: str | None = None,
    layer: str | None = None,
    decoder: Decoder | None = None,
    n_bootstrap: int = 100,
    rng: int | np.random.Generator | None = 0,
) -> pd.DataFrame:
    r"""Score a fit on held-out cells, beside the answers that it has to beat and the best that any could reach.

    ============== ===================================================================================================
    method         predicted cells
    ============== ===================================================================================================
    ``identity``   the source cells as they are
    ``mean_shift`` moved by the difference of the means that the fit has estimated
    ``gaussian``   moved by the fit's own Gaussian map (blend 0)
    ``hycnn_ot``   moved by the fit (with ``fallback`` if it was made with it)
    ``floor``      one half of the observed target cells, scored against the other half: mean over random splits
    ============== ===================================================================================================

    All baselines are the fit's: nothing is estimated from evaluated cells, and the mean shift and the Gaussian map are
    those of all cells that the fit was made from. Cells are the same for all methods.

    Parameters
    ----------
    adata
        Cells with a fit of :func:`scot_hycnn.tl.hycnn_ot`.
    key
        Where it lies in ``uns``.
    target
        Label of the target condition; None takes all targets of the fit.
    groupby
        Column of ``obs``, for instance ``'cell_type'``: each of its groups is scored, besides all cells together.
    mask_obs
        Evaluate these cells only: a boolean array, or the name of a boolean column of ``obs``.
    split_key
        Column of ``obs`` as :func:`scot_hycnn.pp.split` writes it: cells labelled ``'test'`` are evaluated (with
        ``mask_obs`` too, those in both). If neither is given, it is the one that the fit was made with; if the fit was
        made without, all cells are evaluated, with a warning.
    layer, decoder
        Way from the representation to genes, as for :func:`scot_hycnn.tl.decode`. A decoder serves all methods, the
        identity too; observed and source cells are as measured.
    n_bootstrap
        Replicates of the bootstrap over cells; 0 for no intervals but those of the floor, which needs none.
    rng
        Seed or generator of the bootstrap, the halves, and the draws of cells below. Each target and group starts from
        the same seed: its scores do not depend on which others are scored, nor the floor on ``n_bootstrap``.

    Returns
    -------
    One row a target, group, method and metric, with the columns ``target``, ``group`` (``'all'`` or a label of
    ``groupby``), ``method``, ``metric``, ``value``, ``low`` and ``high`` (95 % interval), ``vs_gaussian``,
    ``vs_gaussian_low`` and ``vs_gaussian_high`` (value minus that of the Gaussian map, and its interval), ``n_source``
    and ``n_target`` (evaluated cells of the group). A group with fewer than 10 cells in either condition is left out.
    ``attrs['mmd_gamma'][target][group]`` of the table are the bandwidths of the MMD.

    In the representation (:math:`\hat y` predicted, y observed):

    ``energy_distance``
        :func:`energy_distance`, of at most 2,000 cells of each kind, drawn at random.
    ``mmd``
        :func:`mmd`: MMD², unbiased, of at most 1,000 cells; mean over :math:`\gamma` = 4, 2, 1, ½ and ¼ over the median
        squared distance between the group's observed cells (equal ones left out), whatever their units. Values of
        groups with other bandwidths do not compare. NaN if all observed cells are equal.
    ``w2_squared``
        :func:`w2`, exact; at most 500 cells, and no more than half of the observed ones, so that the floor has as
        many. Finite samples raise it: compare it with the floor only. Left out without POT (``scot-hycnn[ot]``).
    ``sinkhorn_divergence``
        :func:`sinkhorn_divergence` of the same cells, with :math:`\varepsilon` = 0.1 times the total variance of the
        group's observed cells.
    ``trace_ratio``
        :func:`trace_ratio`, of all cells.

    In genes, of all cells, left out with a message in the log if there is no way to genes:

    ``r2_mean``, ``r2_mean_top20``, ``r2_mean_top50``, ``r2_mean_top100``
        :func:`r2_mean` of all genes, and of those with the largest absolute Welch's t between observed and source cells
        of the group.
    ``pearson_delta``
        :func:`pearson_delta`; NaN for the identity, which predicts no change.
    ``deg_overlap_top20``, ``deg_overlap_top50``, ``deg_overlap_top100``
        :func:`deg_overlap`. Half as many cells find fewer genes: here the floor is no bound.

    Numbers of top genes that are not below the number of genes are left out. Changes of means that are no larger than
    rounding of float32 values, 5e-7 of their size, are no changes (:func:`deg_overlap`).

    Raises
    ------
    TypeError
        If ``decoder`` is no function.
    ValueError
        If there is no such fit, target, column, mask or layer, labels are gone, measured values are not those that the
        PCA was run on (see :func:`scot_hycnn.tl.decode`), values are not finite, a decoder
        returns another shape, ``n_bootstrap`` is 1 or negative, or no group has enough cells.

    Warns
    -----
    UserWarning
        If evaluated cells are cells that the fit has seen, or groups are left out.

    Notes
    -----
    An interval is the value minus and plus 1.96 standard deviations of the replicates, which draw source and target
    cells with replacement, within the metric's range. Means over pairs leave out pairs of a cell with itself. For W2²
    and the Sinkhorn divergence the dual potentials are held fixed (del Barrio & Loubes 2019, Ann. Probab. 47, 926-951).
    The interval says how far the value would vary with other cells, given the fit; not how far with another fit.
    Replicates are the same cells for all methods. What they share cancels in ``vs_gaussian``, whose interval tells
    methods apart where those of the values overlap.

    The interval of the floor is another: 95 % of experiments that compare as many cells as one half has with as many
    others, all from the distribution of the observed cells, are expected to score within it (prediction interval, from
    the spread over 100 splits; 10 for W2² and the Sinkhorn divergence, with the variance that the splits share from the
    dual potentials). A method whose value is within it cannot be told from a perfect one by half the observed cells.
    The value is the mean over splits; for the energy distance and MMD² it is exactly 0, which the mean over all splits
    is. Halves have at most 2,000 cells for the energy distance, 1,000 for the MMD, and 500 for W2² and the Sinkhorn
    divergence. ``vs_gaussian`` of the floor, and its interval, are those of the floor less the Gaussian map's value.

    50,000 cells of 2,000 genes and 50 components, in 10 groups, take 25 s on one core and 0.3 GB beyond ``adata``.

    References
    ----------
    Of each metric, see there. Efron & Tibshirani (1993), An introduction to the bootstrap, ch. 13.

    Examples
    --------
    >>> import scot_hycnn as sh
    >>> adata = sh.datasets.pbmc_planted(n_cells=400)
    >>> sh.pp.split(adata)
    >>> sh.pp.pca(adata, n_comps=10, split_key="split", key_added="X_train")
    >>> sh.tl.hycnn_ot(adata, "control", "IFN-beta", use_rep="X_train", split_key="split", potential="gaussian")
    >>> scores = sh.metrics.evaluate(adata)
    >>> scores.pivot(index="metric", columns="method", values="value").columns.tolist()
    ['floor', 'gaussian', 'hycnn_ot', 'identity', 'mean_shift']

    So few test cells tell no method from another, and the intervals say so:

    >>> distances = scores[scores["metric"] == "energy_distance"]
    >>> bool(distances["low"].max() < distances["high"].min())
    True
    """
    from scanpy import logging as logg  # noqa: PLC0415 - metrics of arrays need no scanpy

    if n_bootstrap < 0 or n_bootstrap == 1:
        raise ValueError(f"n_bootstrap={n_bootstrap}; it takes 2 or more replicates, or 0 for no intervals.")
    fit = read_fit(adata, key)
    slugs = fit.slugs(target)
    chosen, notes = held_out_cells(adata, fit, mask_obs=mask_obs, split_key=split_key)
    groups = groups_of_cells(adata.obs, groupby)
    cells = {slug: read_held_out(adata, fit, slug, chosen) for slug in slugs}
    rep = cells[slugs[0]].rep
    genes = None
    if has_genes(adata, rep, layer=layer, decoder=decoder):
        measured = [cells[slugs[0]].source_rows, *(each.target_rows for each in cells.values())]
        genes = find_genes(adata, rep, np.concatenate(measured), layer=layer, decoder=decoder)
    else:
        logg.warning(f"no metrics of genes: {rep.name!r} has no loadings in adata.varm, or there is no expression")
    if find_spec("ot") is None:
        logg.warning("no w2_squared: POT is not installed; pip install 'scot-hycnn[ot]'")
    seed = int(np.random.default_rng(rng).integers(2**63))
    rows = []
    gammas: dict[str, dict[str, list[float]]] = {}
    for slug, held_out in cells.items():
        points = _predictions(fit.models[slug], held_out.x, fallback=bool(fit.params.get("fallback", False)))
        for label, (source, observed) in _large_groups(held_out, groups, fit.targets[slug]):
            members = {method: moved[source] for method, moved in points.items()}
            # The same seed for all, so that no score depends on which other targets and groups are scored.
            draws = np.random.default_rng(seed)
            scores, bandwidths = _score(held_out.among(source, observed), members, genes, n_bootstrap, draws)
            gammas.setdefault(fit.targets[slug], {})[label] = bandwidths.tolist()
            sizes = int(source.sum()), int(observed.sum())
            rows += [(fit.targets[slug], label, *row, *sizes) for row in _rows(scores)]
    if not rows:
        raise ValueError(f"Fewer than {LEAST_CELLS} evaluated cells in a condition: there is nothing to score.")
    table = pd.DataFrame(rows, columns=list(EVALUATION_COLUMNS))
    table.attrs |= {"mmd_gamma": gammas, "notes": notes}
    return table


def _predictions(model: dict[str, Any], x: _Points, *, fallback: bool) -> dict[str, Samples]:
    """Method to predicted cells, shape (n, d)."""
    from scot_hycnn.solver import TransportMap  # noqa: PLC0415 - metrics of arrays need no torch

    fitted = TransportMap.from_dict(model)
    gaussian = fitted.gaussian_map()  # of all training cells, and so are its means
    points: dict[str, _Points] = {
        "identity": x,
        "mean_shift": x + (gaussian.coordinates.mean_y - gaussian.coordinates.mean_x),
        "gaussian": gaussian.transport(x),
        "hycnn_ot": fitted.transport(x, fallback=fallback),
    }
    moved = {method: cells.astype(np.float64) for method, cells in points.items()}
    # Distances are squared, some in float32.
    odd = [method for method, cells in moved.items() if not (np.abs(cells) < _FARTHEST).all()]
    if odd:
        raise ValueError(f"Predictions of {odd} lie farther out than can be scored. The map is damaged: fit again.")
    return moved


def _large_groups(
    held_out: HeldOut, groups: Mapping[str, _Members], target: str
) -> Iterator[tuple[str, tuple[_Members, _Members]]]:
    """Label, and which source and target cells of the held-out ones, of every group with enough of both."""
    small = []
    for label, members in groups.items():
        sides = members[held_out.source_rows], members[held_out.target_rows]
        if min(side.sum() for side in sides) >= LEAST_CELLS:
            yield label, sides
        elif any(side.any() for side in sides):
            small.append(f"{label!r} ({sides[0].sum()} and {sides[1].sum()})")
    if small:
        warnings.warn(
            f"Left out, with fewer than {LEAST_CELLS} evaluated cells of source or {target!r}: {_first(small)}.",
            UserWarning,
            stacklevel=3,
        )


def _first(names: list[str]) -> str:
    shown = ", ".join(names[:20])
    return f"{shown} and {len(names) - 20} more" if len(names) > 20 else shown


def _score(
    cells: HeldOut, points: Mapping[str, Samples], genes: Genes | None, n_bootstrap: int, rng: np.random.Generator
) -> tuple[Scores, Samples]:
    """Scores, and the bandwidths of the MMD."""
    draws = Resampling.draw(len(cells.x), len(cells.y), n_bootstrap, rng)
    observed = cells.y.astype(np.float64)
    gammas = observed_gammas(observed, draws)
    # A replicate of few cells may draw one only, and has no variance; interval leaves it out.
    with np.errstate(divide="ignore", invalid="ignore"):
        scores = cloud_scores(points, observed, draws, gammas=gammas, with_w2=find_spec("ot") is not None)
        if genes is not None:
            source, predicted = _source_sums(genes, cells, points, draws)
            scores |= gene_scores(source, predicted, *_target_sums(genes, cells.target_rows, draws))
    return scores, gammas


def _source_sums(
    genes: Genes, cells: HeldOut, points: Mapping[str, Samples], draws: Resampling
) -> tuple[Sums, dict[str, Sums]]:
    """Sums of measured expression of source cells, and of predicted expression by method, in one pass."""
    sums: dict[str, Sums] = {}
    for block in row_blocks(len(cells.x)):
        measured = genes.measured(cells.source_rows[block])
        expression = {"source": measured} | {
            method: genes.predicted(measured, cells.x[block], moved[block]) for method, moved in points.items()
        }
        for name, values in expression.items():
            sums[name] = _add(sums.get(name), draws.source[:, block], values.astype(np.float64))
    return sums.pop("source"), sums


def _target_sums(genes: Genes, rows: NDArray[np.intp], draws: Resampling) -> tuple[Sums, Sums]:
    """Sums of measured expression of target cells, and of the first half of each split."""
    counts = np.concatenate([draws.target, draws.splits])
    sums: Sums | None = None
    for block in row_blocks(len(rows)):
        sums = _add(sums, counts[:, block], genes.measured(rows[block]).astype(np.float64))
    assert sums is not None  # groups have cells
    n_replicates = len(draws.target)
    return sums[:n_replicates], sums[n_replicates:]


def _add(sums: Sums | None, counts: Samples, values: Samples) -> Sums:
    """Sums with those of another block, around the mean of the first block."""
    return Sums.of(counts, values) if sums is None else sums + Sums.of(counts, values, sums.origin)


def _rows(scores: Scores) -> Iterator[tuple[Any, ...]]:
    """Method, metric, value and how far it is above the Gaussian map's, with intervals, in the order of METHODS."""
    for method in METHODS:
        for metric, limits in _RANGES.items():
            if (method, metric) not in scores:
                continue
            values, of_gaussian = scores[method, metric], scores["gaussian", metric]
            if method == FLOOR:
                row = split_interval(values, *limits)
                yield method, metric, *row, *(bound - of_gaussian[0] for bound in row)
            else:
                yield method, metric, *interval(values, *limits), *interval(values - of_gaussian)
