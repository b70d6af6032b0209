"""Scores of a fit beside baselines and floor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from scot_hycnn._anndata._conditions import Mask, listed
from scot_hycnn._anndata._decode_input import Decoder, Genes, find_correction, find_genes, has_genes, row_blocks
from scot_hycnn._anndata._evaluation_input import (
    EVALUATION_COLUMNS,
    SAME_COMPOSITION,
    HeldOut,
    headline_of,
    held_out_cells,
    is_low,
    labels_to_score,
    read_held_out,
)
from scot_hycnn._anndata._group_residuals import Correction
from scot_hycnn._anndata._results import StoredFit, labelled_cells, read_fit
from scot_hycnn._anndata._transport_input import find_centres, moved_around

from ._checks import Samples
from ._cloud_scores import bandwidths, cloud_scores
from ._gene_scores import IN_REPRESENTATION, TOPS, WITHIN, gene_scores
from ._kept_group import KeptGroups
from ._resampling import FLOOR, Codes, Resampling, Scores, Strata, Sums, interval

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
    "kept_group": (0.0, 1.0),
    "r2_mean": (0.0, 1.0),
    **{f"r2_mean_top{n}": (0.0, 1.0) for n in TOPS},
    "pearson_delta": (-1.0, 1.0),
    **{f"deg_overlap_top{n}": (0.0, 1.0) for n in TOPS},
    **{f"{metric}{IN_REPRESENTATION}": (lowest, 1.0) for metric, lowest in WITHIN.items()},
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
    correction: str | None = "groups",
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
        Column of ``obs``, for instance ``'cell_type'``: each of its groups is scored, besides all cells together. None
        takes the ``group_key`` of the fit; without one, the column of labels whose proportions differ most clearly
        between the conditions, if any do, and the notes say so.
    mask_obs
        Evaluate these cells only: a boolean array, or the name of a boolean column of ``obs``.
    split_key
        Column of ``obs`` as :func:`scot_hycnn.pp.split` writes it: cells labelled ``'test'`` are evaluated, of those in
        ``mask_obs`` if it is passed. If both are None, the split of the fit is used; if the fit was made without a
        split, all cells are evaluated, and the notes say so.
    layer, decoder
        Way from the representation to genes, as for :func:`scot_hycnn.tl.decode`. A decoder serves all methods, also
        the identity; source and observed cells are scored as measured.
    correction
        Correct the means of genes that the fit predicts by the residuals of the groups that were seen, as for
        :func:`scot_hycnn.tl.decode`; evaluated cells have no part in them. Baselines are not corrected.
    n_bootstrap
        Replicates of the bootstrap over cells; 0 computes no intervals but those of the floor, which needs none.
    rng
        Seed or generator of all that is random. The scores of a target and group do not depend on which others are
        scored, and the floor does not depend on ``n_bootstrap``.

    Returns
    -------
    One row for each target, group, method and metric, with the columns ``target``, ``group`` (see below), ``method``,
    ``metric``, ``value``, ``low`` and ``high`` (95 % interval), ``vs_gaussian``, ``vs_gaussian_low`` and
    ``vs_gaussian_high`` (value minus that of the Gaussian map, and its interval), ``n_source`` and ``n_target``
    (evaluated cells of the group), and ``kept_group`` (that metric of the method, beside each of its scores; NaN
    without groups). A group with fewer than 10 cells in either condition is left out.

    ``'all, same composition'``
        The row to report where groups are known: all cells of the groups that are scored, the target cells weighted so
        that each group has the share that it has among the source cells. The floor is that of halves of each group.
    ``'all'``
        All cells as they are. Where proportions of groups differ between the conditions, this row rewards a map that
        carries cells into other groups to match the proportions, so it says nothing about the response alone.
    a label of ``groupby``
        The cells of this group.

    ``attrs['notes']`` are sentences to read before the scores: whether the fit has seen evaluated cells, which groups
    or metrics are left out, and whether a fit without groups carries cells into other groups: its ``kept_group`` is
    below .95 of the floor's, and their intervals do not meet. ``attrs['mmd_gamma'][target][group]`` are the bandwidths
    of the MMD.

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
    ``kept_group``
        Share of the predicted cells that lie among target cells of their own group: of the 15 nearest target cells, of
        all groups, no other group has more than theirs. The floor is the share of the target cells that lie among the
        other target cells in this way: a rare group has few neighbours of its own even if the map is perfect, and the
        floor shows how few. At most 10,000 target cells are neighbours, and at most 10,000 source cells and 200 of each
        group are looked at. It needs two groups of target cells or more.

    Metrics in genes, of all cells, left out if there is no way to genes:

    ``r2_mean``, ``r2_mean_top20``, ``r2_mean_top50``, ``r2_mean_top100``
        :func:`r2_mean` of all genes, and of those with the largest absolute Welch's t between observed and source cells
        of the group. Numbers of top genes that are not below the number of genes are left out.
    ``pearson_delta``
        :func:`pearson_delta`; NaN for the identity, which predicts no change.
    ``deg_overlap_top20``, ``deg_overlap_top50``, ``deg_overlap_top100``
        :func:`deg_overlap`. Half as many cells find fewer genes: here the floor is no bound.
    ``r2_mean_in_representation``, ``pearson_delta_in_representation``, ``deg_overlap_top50_in_representation``
        The same of the genes that the representation was made from, if there are others. Those are predicted by ridge
        regression on training cells, as :func:`scot_hycnn.tl.decode` describes.

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

    With the same composition, all metrics but these two weight the target cells, and the means over pairs of cells
    within a group leave out pairs of a cell with itself, so that energy distance and MMD² stay unbiased; bootstrap and
    halves are drawn within groups. W2² and the Sinkhorn divergence take as many cells of each group as its share asks
    for, and fewer cells in all if a group has too few. Of clouds with more cells than a metric takes, groups with fewer
    than 10 cells in the sample have no part in it.

    The interval of the floor is a prediction interval, from the spread over 100 splits (10 for W2² and the Sinkhorn
    divergence): 95 % of experiments with as many cells as a half has, from the distribution of the observed cells, are
    expected to score within it. Half of the observed cells cannot distinguish a method within it from a perfect one.
    For the energy distance and MMD² the value is exactly 0, the mean over all splits. For ``kept_group`` the value is
    the share of all target cells, and the interval is that of as many cells.

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
    labels, found = labels_to_score(adata, fit, slugs, groupby)
    notes += found
    cells = {slug: read_held_out(adata, fit, slug, chosen) for slug in slugs}
    first = cells[slugs[0]]

    # Metrics of genes need measured expression and a way to predict it; W2² needs POT.
    genes = None
    if has_genes(adata, first.rep, layer=layer, decoder=decoder):
        measured = np.concatenate([first.source_rows, *(held_out.target_rows for held_out in cells.values())])
        genes = find_genes(adata, fit, first.rep, measured, layer=layer, decoder=decoder, held_out=measured)
        notes += filter(None, [genes.problem])
    else:
        notes.append(
            f"No metrics of genes are computed: {first.rep.name!r} has no loadings in adata.varm, or adata has no "
            "expression."
        )
    with_w2 = find_spec("ot") is not None
    if not with_w2:
        notes.append("w2_squared is left out, because POT is not installed. Run: pip install 'scot-hycnn[ot]'")

    # The seed is the same for all, so that no score depends on which other targets and groups are scored.
    seed = int(np.random.default_rng(rng).integers(2**63))
    rows: list[tuple[Any, ...]] = []
    gammas: dict[str, dict[str, list[float]]] = {}
    for slug, held_out in cells.items():
        label = fit.targets[slug]
        points = _predictions(adata, fit, slug, held_out)
        shifts = None if genes is None else find_correction(adata, fit, slug, genes, correction, held_out=measured)
        codes = None if labels is None else (labels.codes[held_out.source_rows], labels.codes[held_out.target_rows])
        parts, small = _parts(held_out, codes, () if labels is None else labels.names)
        kept = None
        if codes is not None:
            kept = KeptGroups.find(points, held_out.y.astype(np.float64), *codes, np.random.default_rng(seed))
        for group, part in parts.items():
            draws = Resampling.draw(part.strata, n_bootstrap, np.random.default_rng(seed))
            scores, of_group = _scores(
                held_out, points, part, draws, genes=genes, shifts=shifts, kept=kept, with_w2=with_w2
            )
            gammas.setdefault(label, {})[group] = of_group.tolist()
            sizes = int(part.source.sum()), int(part.target.sum())
            rows += [(label, group, *row, *sizes) for row in _rows(scores)]
        if small:
            notes.append(
                f"Groups with fewer than {MIN_CELLS} evaluated cells of source or {label!r} are left out: "
                f"{listed(small)}."
            )
    if not rows:
        raise ValueError(f"There is nothing to score. {' '.join(notes) or 'No group has evaluated cells.'}")
    table = _table(rows)
    if labels is not None and "group_key" not in fit.params:
        notes += _notes_of_kept_groups(table, labels.column)
    table.attrs |= {"mmd_gamma": gammas, "notes": notes}
    return table


class _Part(NamedTuple):
    """Some of the evaluated cells, boolean arrays (n,) and (m,), and the groups whose shares are made alike."""

    source: NDArray[np.bool_]
    target: NDArray[np.bool_]
    strata: Strata


def _parts(
    cells: HeldOut, codes: tuple[Codes, Codes] | None, names: Sequence[str]
) -> tuple[dict[str, _Part], list[str]]:
    """Return the rows of the table with their cells, the headline first, and the groups that are too small."""
    everyone = np.ones(len(cells.x), dtype=bool), np.ones(len(cells.y), dtype=bool)
    members = {"all": everyone}
    if codes is not None:
        # Categories without a cell are no groups.
        found = np.union1d(*codes)
        members |= {names[code]: (codes[0] == code, codes[1] == code) for code in found[found >= 0]}
    parts: dict[str, _Part] = {}
    small = []
    for name, (source, target) in members.items():
        sizes = int(source.sum()), int(target.sum())
        if min(sizes) >= MIN_CELLS:
            parts[name] = _Part(source, target, Strata.one(*sizes))
        elif max(sizes):
            small.append(f"{name} ({sizes[0]} and {sizes[1]})")
    large = [name for name in parts if name != "all"]
    if len(large) < 2:
        return parts, small
    # The groups are numbered in their order, so that each cell of them has the number of its group.
    of_source, of_target = (np.stack([members[name][side] for name in large]) for side in (0, 1))
    source, target = np.asarray(of_source.any(axis=0)), np.asarray(of_target.any(axis=0))
    strata = Strata(of_source[:, source].argmax(axis=0), of_target[:, target].argmax(axis=0))
    return {SAME_COMPOSITION: _Part(source, target, strata), **parts}, small


def _scores(
    cells: HeldOut,
    points: Mapping[str, Samples],
    part: _Part,
    draws: Resampling,
    *,
    genes: Genes | None,
    shifts: Correction | None,
    kept: KeptGroups | None,
    with_w2: bool,
) -> tuple[Scores, Samples]:
    """Return the scores of some of the cells, and the bandwidths of their MMD."""
    some = cells.among(part.source, part.target)
    moved = {method: predicted[part.source] for method, predicted in points.items()}
    y = some.y.astype(np.float64)
    gammas = bandwidths(y, draws)
    # A replicate of few cells may draw one cell only, which has no variance; interval leaves it out.
    with np.errstate(divide="ignore", invalid="ignore"):
        scores = cloud_scores(moved, y, draws, gammas=gammas, with_w2=with_w2)
        if kept is not None:
            scores |= kept.scores(part.source, part.target, draws)
        if genes is not None:
            scores |= gene_scores(*_gene_sums(genes, some, moved, draws, shifts), genes.in_representation)
    return scores, gammas


def _table(rows: Sequence[tuple[Any, ...]]) -> pd.DataFrame:
    """Return the rows as a table, with the share of kept cells beside every score."""
    table = pd.DataFrame(rows, columns=[name for name in EVALUATION_COLUMNS if name != "kept_group"])
    place = ["target", "group", "method"]
    kept = table.loc[table["metric"] == "kept_group"].set_index(place)["value"]
    table["kept_group"] = kept.reindex(pd.MultiIndex.from_frame(table[place])).to_numpy(dtype=np.float64)
    return table[list(EVALUATION_COLUMNS)]


def _notes_of_kept_groups(table: pd.DataFrame, column: str) -> list[str]:
    """Say of which targets the map carries cells into other groups, and which groups lose most."""
    notes = []
    for target, scores in table[table["metric"] == "kept_group"].groupby("target", sort=False):
        ours, floor = (scores[scores["method"] == method].set_index("group") for method in ("hycnn_ot", FLOOR))
        headline = headline_of(ours.index)
        if not is_low(ours.loc[headline], floor.loc[headline]):
            continue
        lost = (floor["value"] - ours["value"]).drop([SAME_COMPOSITION, "all"], errors="ignore").dropna()
        most = str(lost.idxmax()) if len(lost) else ""
        worst = f", {ours['value'][most]:.0%} of {most!r}" if most else ""
        notes.append(
            f"The map to {target!r} carries cells into other groups of adata.obs[{column!r}]: "
            f"{ours['value'][headline]:.1%} of the predicted cells lie among treated cells of their own group{worst}; "
            f"of the treated cells themselves {floor['value'][headline]:.1%} do. Fit with group_key={column!r}."
        )
    return notes


def _predictions(adata: AnnData, fit: StoredFit, slug: str, held_out: HeldOut) -> dict[str, Samples]:
    """Return the predicted cells of each method, shape (n, d)."""
    from scot_hycnn.solver.model._map import TransportMap  # noqa: PLC0415 - metrics of arrays need no torch

    x, fitted, fallback = held_out.x, TransportMap.from_dict(fit.models[slug]), bool(fit.params.get("fallback", False))
    rows = {"rows": held_out.source_rows, "source_rows": labelled_cells(adata, fit.groupby, fit.source)}
    centres = find_centres(adata, held_out.rep, fit.params.get("group_key"), fitted.centres, **rows)
    around = None if centres is None else centres.at(held_out.source_rows)
    gaussian = fitted.gaussian_map()  # it is made from all training cells, and so are its means
    moved = gaussian.transport(x)
    points: dict[str, _Points] = {
        "identity": x,
        "mean_shift": x + (gaussian.coordinates.mean_y - gaussian.coordinates.mean_x),
        "gaussian": moved,
        # A fit that kept the Gaussian map has exactly its scores.
        "hycnn_ot": moved if gaussian is fitted else moved_around(fitted, x, around, fallback=fallback),
    }
    far = [method for method, cells in points.items() if not (np.abs(cells) < _MAX_COORDINATE).all()]
    if far:
        raise ValueError(f"Predictions of {far} are too far away to be scored. The map is damaged: fit again.")
    return {method: cells.astype(np.float64) for method, cells in points.items()}


def _gene_sums(
    genes: Genes, cells: HeldOut, points: Mapping[str, Samples], draws: Resampling, shifts: Correction | None
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
            shift = shifts.at(cells.source_rows[block]) if shifts is not None and method == "hycnn_ot" else None
            add(method, draws.source[:, block], genes.predicted(measured, cells.x[block], moved[block], shift))
    counts = np.concatenate([draws.target, draws.splits]) * draws.strata.weights
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
