"""Scores of a fit beside baselines and floor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from scot_hycnn._anndata._conditions import Mask, listed
from scot_hycnn._anndata._decode_input import Decoder, Genes, find_genes, has_genes, row_blocks
from scot_hycnn._anndata._evaluation_input import (
    EVALUATION_COLUMNS,
    HeldOut,
    groups_of_cells,
    held_out_cells,
    read_held_out,
)
from scot_hycnn._anndata._results import StoredFit, labelled_cells, read_fit
from scot_hycnn._anndata._transport_input import find_centres, moved_around

from ._checks import Samples
from ._cloud_scores import bandwidths, cloud_scores
from ._gene_scores import TOPS, gene_scores
from ._resampling import FLOOR, Resampling, Scores, Sums, interval

_Points: TypeAlias = NDArray[np.floating[Any]]

# Fewer cells have no distribution to compare, and halves of them no floor.
MIN_CELLS = 10
_MAX_COORDINATE = 1e15  # distances are squared, some of them in float32
METHODS = ("identity", "mean_shift", "gaussian", "hycnn_ot", FLOOR)
# Metrics in the order of rows, with the range of their values.
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
    r"""Score a fit on held-out cells, beside simple baselines and the best score that can be reached.

    ============== ===================================================================================================
    method         predicted cells
    ============== ===================================================================================================
    ``identity``   the source cells as they are
    ``mean_shift`` the source cells, moved by the difference of the means of the training cells
    ``gaussian``   the source cells, moved by the Gaussian map of the fit (blend 0)
    ``hycnn_ot``   the source cells, moved by the fit (with ``fallback`` if it was made with it)
    ``floor``      one half of the observed target cells, scored against the other half: mean over random splits
    ============== ===================================================================================================

    Baselines are made from all training cells of the fit, and all methods are scored on the same evaluated cells.

    Parameters
    ----------
    adata
        Cells with a fit of :func:`scot_hycnn.tl.hycnn_ot`.
    key
        Key of the fit in ``uns``.
    target
        Label of the target condition; None takes all targets of the fit.
    groupby
        Column of ``obs``, for instance ``'cell_type'``: each of its groups is scored, besides all cells together.
    mask_obs
        Evaluate these cells only: a boolean array, or the name of a boolean column of ``obs``.
    split_key
        Column of ``obs`` as :func:`scot_hycnn.pp.split` writes it: cells labelled ``'test'`` are evaluated, of those in
        ``mask_obs`` if it is passed. If both are None, the split of the fit is used; if the fit was made without a
        split, all cells are evaluated, and the notes say so.
    layer, decoder
        Way from the representation to genes, as for :func:`scot_hycnn.tl.decode`. A decoder serves all methods, also
        the identity; source and observed cells are scored as measured.
    n_bootstrap
        Replicates of the bootstrap over cells; 0 computes no intervals but those of the floor, which needs none.
    rng
        Seed or generator of all that is random. The scores of a target and group do not depend on which others are
        scored, and the floor does not depend on ``n_bootstrap``.

    Returns
    -------
    One row for each target, group, method and metric, with the columns ``target``, ``group`` (``'all'`` or a label of
    ``groupby``), ``method``, ``metric``, ``value``, ``low`` and ``high`` (95 % interval), ``vs_gaussian``,
    ``vs_gaussian_low`` and ``vs_gaussian_high`` (value minus that of the Gaussian map, and its interval), ``n_source``
    and ``n_target`` (evaluated cells of the group). A group with fewer than 10 cells in either condition is left out.

    ``attrs['notes']`` are sentences to read before the scores: whether the fit has seen evaluated cells, and which
    groups or metrics are left out. ``attrs['mmd_gamma'][target][group]`` are the bandwidths of the MMD.

    Metrics in the representation:

    ``energy_distance``
        :func:`energy_distance` of at most 2,000 random cells of both conditions.
    ``mmd``
        :func:`mmd`, unbiased, of at most 1,000 cells, with :math:`\gamma` = 4, 2, 1, ½ and ¼ over the median squared
        distance between observed cells of the group. It is NaN if all observed cells are equal.
    ``w2_squared``
        :func:`w2` of at most 500 cells and no more than half of the observed ones. Finite samples raise it, so compare
        it with the floor only, which has as many cells. It needs POT (``scot-hycnn[ot]``).
    ``sinkhorn_divergence``
        :func:`sinkhorn_divergence` of the same cells.
    ``trace_ratio``
        :func:`trace_ratio` of all cells.

    Metrics in genes, of all cells, left out if there is no way to genes:

    ``r2_mean``, ``r2_mean_top20``, ``r2_mean_top50``, ``r2_mean_top100``
        :func:`r2_mean` of all genes, and of those with the largest absolute Welch's t between observed and source cells
        of the group. Numbers of top genes that are not below the number of genes are left out.
    ``pearson_delta``
        :func:`pearson_delta`; NaN for the identity, which predicts no change.
    ``deg_overlap_top20``, ``deg_overlap_top50``, ``deg_overlap_top100``
        :func:`deg_overlap`. Half as many cells find fewer genes: here the floor is no bound.

    Raises
    ------
    TypeError
        If ``decoder`` is no function.
    ValueError
        If there is no such fit, target, column, mask or layer, measured values are not those that the PCA was run on,
        values are not finite, a decoder returns another shape, ``n_bootstrap`` is 1 or negative, or no group has enough
        cells.

    Notes
    -----
    An interval is the value minus and plus 1.96 standard deviations of replicates that draw source and target cells
    with replacement, within the range of the metric: it says how far the value would vary with other cells, and not
    with another fit. Replicates are the same cells for all methods. What they share cancels in ``vs_gaussian``, whose
    interval distinguishes methods also where the intervals of the values overlap. For W2² and the Sinkhorn divergence
    the dual potentials are held fixed (del Barrio & Loubes 2019).

    The interval of the floor is a prediction interval, from the spread over 100 splits (10 for W2² and the Sinkhorn
    divergence): 95 % of experiments with as many cells as a half has, from the distribution of the observed cells, are
    expected to score within it. Half of the observed cells cannot distinguish a method within it from a perfect one.
    For the energy distance and MMD² the value is exactly 0, the mean over all splits.

    50,000 cells of 2,000 genes and 50 components, in 10 groups, take 25 s on one core and 0.3 GB beyond ``adata``.

    References
    ----------
    Those of the metrics. Efron & Tibshirani (1993), An introduction to the bootstrap, ch. 13. Del Barrio & Loubes
    (2019), Ann. Probab. 47, 926-951.

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
    """
    if n_bootstrap < 0 or n_bootstrap == 1:
        raise ValueError(f"n_bootstrap={n_bootstrap}; it takes 2 or more replicates, or 0 for no intervals.")
    fit = read_fit(adata, key)
    slugs = fit.slugs(target)
    chosen, notes = held_out_cells(adata, fit, mask_obs=mask_obs, split_key=split_key)
    groups = groups_of_cells(adata.obs, groupby)
    cells = {slug: read_held_out(adata, fit, slug, chosen) for slug in slugs}
    first = cells[slugs[0]]

    # Metrics of genes need measured expression and a way to predict it; W2² needs POT.
    genes = None
    if has_genes(adata, first.rep, layer=layer, decoder=decoder):
        measured = np.concatenate([first.source_rows, *(held_out.target_rows for held_out in cells.values())])
        genes = find_genes(adata, first.rep, measured, layer=layer, decoder=decoder)
    else:
        notes.append(
            f"No metrics of genes are computed: {first.rep.name!r} has no loadings in adata.varm, or adata has no "
            "expression."
        )
    with_w2 = find_spec("ot") is not None
    if not with_w2:
        notes.append("w2_squared is left out, because POT is not installed. Run: pip install 'scot-hycnn[ot]'")

    seed = int(np.random.default_rng(rng).integers(2**63))
    rows: list[tuple[Any, ...]] = []
    gammas: dict[str, dict[str, list[float]]] = {}
    for slug, held_out in cells.items():
        target_label = fit.targets[slug]
        points = _predictions(adata, fit, slug, held_out)
        small = []
        for label, members in groups.items():
            source, observed = np.isin(held_out.source_rows, members), np.isin(held_out.target_rows, members)
            sizes = int(source.sum()), int(observed.sum())
            if min(sizes) < MIN_CELLS:
                small += [f"{label} ({sizes[0]} and {sizes[1]})"] if max(sizes) else []
                continue
            part = held_out.among(source, observed)
            moved = {method: predicted[source] for method, predicted in points.items()}
            y = part.y.astype(np.float64)
            # The seed is the same for all, so that no score depends on which other targets and groups are scored.
            draws = Resampling.draw(*sizes, n_bootstrap, np.random.default_rng(seed))
            of_group = bandwidths(y, draws)
            # A replicate of few cells may draw one cell only, which has no variance; interval leaves it out.
            with np.errstate(divide="ignore", invalid="ignore"):
                scores = cloud_scores(moved, y, draws, gammas=of_group, with_w2=with_w2)
                if genes is not None:
                    scores |= gene_scores(*_gene_sums(genes, part, moved, draws))
            gammas.setdefault(target_label, {})[label] = of_group.tolist()
            rows += [(target_label, label, *row, *sizes) for row in _rows(scores)]
        if small:
            notes.append(
                f"Groups with fewer than {MIN_CELLS} evaluated cells of source or {target_label!r} are left out: "
                f"{listed(small)}."
            )
    if not rows:
        raise ValueError(f"There is nothing to score. {' '.join(notes) or 'No group has evaluated cells.'}")
    table = pd.DataFrame(rows, columns=list(EVALUATION_COLUMNS))
    table.attrs |= {"mmd_gamma": gammas, "notes": notes}
    return table


def _predictions(adata: AnnData, fit: StoredFit, slug: str, held_out: HeldOut) -> dict[str, Samples]:
    """Return the predicted cells of each method, shape (n, d)."""
    from scot_hycnn.solver.model._map import TransportMap  # noqa: PLC0415 - metrics of arrays need no torch

    x, fitted, fallback = held_out.x, TransportMap.from_dict(fit.models[slug]), bool(fit.params.get("fallback", False))
    rows = {"rows": held_out.source_rows, "source_rows": labelled_cells(adata, fit.groupby, fit.source)}
    centres = find_centres(adata, held_out.rep, fit.params.get("group_key"), fitted.centres, **rows)
    around = None if centres is None else centres.at(held_out.source_rows)
    gaussian = fitted.gaussian_map()  # it is made from all training cells, and so are its means
    points: dict[str, _Points] = {
        "identity": x,
        "mean_shift": x + (gaussian.coordinates.mean_y - gaussian.coordinates.mean_x),
        "gaussian": gaussian.transport(x),
        "hycnn_ot": moved_around(fitted, x, around, fallback=fallback),
    }
    far = [method for method, cells in points.items() if not (np.abs(cells) < _MAX_COORDINATE).all()]
    if far:
        raise ValueError(f"Predictions of {far} are too far away to be scored. The map is damaged: fit again.")
    return {method: cells.astype(np.float64) for method, cells in points.items()}


def _gene_sums(
    genes: Genes, cells: HeldOut, points: Mapping[str, Samples], draws: Resampling
) -> tuple[Sums, dict[str, Sums], Sums, Sums]:
    """Return sums over source cells, over each method's predictions, over target cells, and over halves of those."""
    sums: dict[str, Sums] = {}

    def add(name: str, counts: Samples, expression: _Points) -> None:
        # All blocks are summed around the mean of the first one.
        before = sums.get(name)
        block_sums = Sums.of(counts, expression.astype(np.float64), None if before is None else before.origin)
        sums[name] = block_sums if before is None else before + block_sums

    # Expression is read and predicted in blocks of cells, once for all replicates.
    for block in row_blocks(len(cells.x)):
        measured = genes.measured(cells.source_rows[block])
        add("source", draws.source[:, block], measured)
        for method, moved in points.items():
            add(method, draws.source[:, block], genes.predicted(measured, cells.x[block], moved[block]))
    counts = np.concatenate([draws.target, draws.splits])
    for block in row_blocks(len(cells.y)):
        add("observed", counts[:, block], genes.measured(cells.target_rows[block]))
    source, observed = sums.pop("source"), sums.pop("observed")
    n_replicates = len(draws.target)
    return source, sums, observed[:n_replicates], observed[n_replicates:]


def _rows(scores: Scores) -> Iterator[tuple[Any, ...]]:
    """Yield method, metric, value and difference to the Gaussian map, with intervals, in the order of METHODS."""
    for method in METHODS:
        for metric, limits in _RANGES.items():
            if (method, metric) not in scores:
                continue
            values, of_gaussian = scores[method, metric], scores["gaussian", metric]
            row = interval(values, *limits, of_floor=method == FLOOR)
            if method == FLOOR:
                versus = tuple(bound - of_gaussian[0] for bound in row)
            else:
                versus = interval(values - of_gaussian, -np.inf, np.inf, of_floor=False)
            yield method, metric, *row, *versus
