"""Scores of a fit, and of the predictions of any method, beside baselines and a replicate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from scot_hycnn._anndata._conditions import Mask, listed
from scot_hycnn._anndata._results import StoredFit, labelled_cells
from scot_hycnn._anndata._transport_input import find_centres, moved_around
from scot_hycnn._anndata.evaluation._evaluation_input import (
    EVALUATION_COLUMNS,
    MIN_CELLS,
    SAME_COMPOSITION,
    GroupLabels,
    HeldOut,
    fit_or_conditions,
    headline_of,
    held_out_cells,
    is_low,
    labels_to_score,
    read_held_out,
    read_training,
)
from scot_hycnn._anndata.evaluation._growth import transported_part
from scot_hycnn._anndata.evaluation._predictions import Predicted, Predictions, named_predictions, read_predictions
from scot_hycnn._anndata.genes._decode_input import Decoder, Genes, find_correction, find_genes, has_genes, row_blocks
from scot_hycnn._anndata.genes._group_residuals import Correction

from ._checks import Samples
from ._cloud_scores import bandwidths, cloud_scores
from ._gene_scores import IN_REPRESENTATION, TOPS, WITHIN, gene_scores
from ._kept_group import KeptGroups
from ._resampling import CEILING, REPLICATE, Codes, Resampling, Scores, Strata, Sums, interval

_MAX_COORDINATE = 1e15  # distances are squared, some of them in float32
BASELINES, OURS = ("identity", "mean_shift", "gaussian"), "hycnn_ot"
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
# The others have no scale from no change to a replicate: 1 is best for the trace ratio, no change may keep all groups,
# and of half as many cells fewer genes are found.
_UNSCALED = ("trace_ratio", "kept_group", "deg_overlap")


def evaluate(
    adata: AnnData,
    key: str = "hycnn_ot",
    *,
    predictions: Predictions | Sequence[str] | None = None,
    source: str | None = None,
    target: str | None = None,
    condition_key: str | None = None,
    use_rep: str | None = None,
    groupby: str | None = None,
    mask_obs: Mask | None = None,
    split_key: str | None = None,
    layer: str | None = None,
    decoder: Decoder | None = None,
    split_control: bool = False,
    correction: str | None = "groups",
    n_bootstrap: int = 100,
    rng: int | np.random.Generator | None = 0,
) -> pd.DataFrame:
    r"""Score a fit, or the predictions of any method, beside simple baselines and the best score that can be reached.

    ============== ===================================================================================================
    method         predicted cells
    ============== ===================================================================================================
    ``identity``   the source cells as they are
    ``mean_shift`` the source cells, moved by the difference of the means of the training cells
    ``gaussian``   the source cells, moved by the Gaussian map of the fit (blend 0), or of the training cells
    ``hycnn_ot``   the source cells, moved by the fit (with ``fallback`` if it was made with it)
    your names     ``predictions``
    ``replicate``  one half of the observed target cells, scored against the other half: mean over random splits
    ``ceiling``    what the true means, or their true change, are expected to score: of correlations only
    ============== ===================================================================================================

    Baselines are made from all training cells, and all methods are scored on the same evaluated cells and genes. Of a
    fit with ``unbalanced``, these are drawn in proportion to their weights (of cells that it was not made from, those
    of the 15 nearest cells of the fit), so that the scores are those of the transported mass, as the notes say.

    Parameters
    ----------
    adata
        Cells with a fit of :func:`scot_hycnn.tl.hycnn_ot`, or without one if ``source`` and ``target`` are passed.
    key
        Key of the fit in ``uns``.
    predictions
        Predictions of other methods for the evaluated source cells: the name of a layer (genes) or of a key of ``obsm``
        (coordinates in the representation); an AnnData; a function that takes the coordinates of source cells, (n, d),
        and returns their predicted coordinates, (n, d), or genes, (n, genes). A dict of name to one of these, or a list
        of layers and keys, scores several. An AnnData has all genes of ``adata``, in any order (in ``layer``, if it has
        that one, else in X), or the representation in ``obsm``. Its cells are found by their names, in any order; if
        none is an evaluated source cell, they are scored as an unpaired cloud, in groups if their ``obs`` has the
        column ``groupby``. Genes are placed in the representation by its loadings.
    source
        Label of the control cells, to score predictions without a fit; None reads the fit.
    target
        Label of the target condition; None takes all targets of the fit.
    condition_key
        Column of ``obs`` with the labels ``source`` and ``target``; None finds it. Without a fit only.
    use_rep
        Representation in which distances are measured; None takes ``X_pca``. Without a fit only.
    groupby
        Column of ``obs``, for instance ``'cell_type'``: each of its groups is scored, besides all cells together. None
        takes the ``group_key`` of the fit; without one, the column of labels whose proportions differ most clearly
        between the conditions, if any do, and the notes say so.
    mask_obs
        Evaluate these cells only: a boolean array, or the name of a boolean column of ``obs``.
    split_key
        Column of ``obs`` as :func:`scot_hycnn.pp.split` writes it: cells labelled ``'test'`` are evaluated, of those in
        ``mask_obs`` if it is passed. If both are None, the split of the fit is used; if there is none, all cells are
        evaluated, and the notes say so. Without a fit, baselines are made from the cells labelled ``'train'``, or from
        the cells that ``mask_obs`` leaves out.
    layer, decoder
        Way from the representation to genes, as for :func:`scot_hycnn.tl.decode`. A decoder serves all methods, also
        the identity; source and observed cells are scored as measured.
    split_control
        Compute ``pearson_delta`` from two halves of the source cells: the predicted change from the mean of one half,
        the observed change from the mean of the other (mean over 100 splits). Otherwise both changes share the noise of
        the source mean, which raises their correlation.
    correction
        Correct the means of genes that the fit predicts by the residuals of the groups that were seen, as for
        :func:`scot_hycnn.tl.decode`; evaluated cells have no part in them. Baselines are not corrected.
    n_bootstrap
        Draws of the bootstrap over cells; 0 computes no intervals but those of the replicate, which needs none.
    rng
        Seed or generator of all that is random. The scores of a method, target and group do not depend on which others
        are scored, and the replicate does not depend on ``n_bootstrap``.

    Returns
    -------
    One row for each target, group, method and metric, with the columns ``target``, ``group`` (see below), ``method``,
    ``metric``, ``value``, ``low`` and ``high`` (95 % interval), ``vs_gaussian``, ``vs_gaussian_low`` and
    ``vs_gaussian_high`` (value minus that of the Gaussian map, and its interval), ``n_source`` and ``n_target``
    (evaluated cells of the group), ``kept_group`` (that metric of the method, beside each of its scores; NaN without
    groups), and ``scaled``: 0 is no change, 1 the ceiling of a correlation and the replicate of a distance. It is NaN
    where no change is within the interval of the replicate, since no response is seen then, and for ``trace_ratio``,
    ``kept_group`` and ``deg_overlap``. A group with fewer than 10 cells in either condition is left out.

    ``'all, same composition'``
        The row to report where groups are known: all cells of the groups that are scored, the target cells weighted so
        that each group has the share that it has among the source cells. The replicate is that of halves of each group.
    ``'all'``
        All cells as they are. Where proportions of groups differ between the conditions, this row rewards a map that
        carries cells into other groups to match the proportions, so it says nothing about the response alone.
    a label of ``groupby``
        The cells of this group.

    ``attrs['notes']`` are sentences to read before the scores: whether the fit, or without one the components, have
    seen evaluated cells, which groups or metrics are left out, and whether a fit without groups carries cells into
    other groups: its ``kept_group`` is below .95 of that of the replicate, and their intervals do not meet.
    ``attrs['mmd_gamma'][target][group]`` are the bandwidths of the MMD.

    Metrics in the representation:

    ``energy_distance``
        :func:`energy_distance` of at most 2,000 random cells of both conditions.
    ``mmd``
        :func:`mmd`, unbiased, of at most 1,000 cells, with :math:`\gamma` = 4, 2, 1, ½ and ¼ over the median squared
        distance between observed cells of the group. It is NaN if all observed cells are equal.
    ``w2_squared``
        :func:`w2` of at most 500 cells and no more than half of the observed ones. Finite samples raise it, so compare
        it with the replicate only, which has as many cells. It needs POT (``scot-hycnn[ot]``).
    ``sinkhorn_divergence``
        :func:`sinkhorn_divergence` of the same cells.
    ``trace_ratio``
        :func:`trace_ratio` of all cells.
    ``kept_group``
        Share of the predicted cells that lie among target cells of their own group: of the 15 nearest target cells, of
        all groups, no other group has more than theirs. The replicate is the share of the target cells that lie among
        the other target cells in this way: a rare group has few neighbours of its own even if the map is perfect, and
        the replicate shows how few. At most 10,000 target cells are neighbours, and at most 10,000 source cells and 200
        of each group are looked at. It needs two groups of target cells or more.

    Metrics in genes, of all cells, left out if there is no way to genes:

    ``r2_mean``, ``r2_mean_top20``, ``r2_mean_top50``, ``r2_mean_top100``
        :func:`r2_mean` of all genes, and of those with the largest absolute Welch's t between observed and source cells
        of the group. Numbers of top genes that are not below the number of genes are left out.
    ``pearson_delta``
        :func:`pearson_delta`; NaN for the identity, which predicts no change.
    ``deg_overlap_top20``, ``deg_overlap_top50``, ``deg_overlap_top100``
        :func:`deg_overlap`. Half as many cells find fewer genes: here the replicate is no bound.
    ``r2_mean_in_representation``, ``pearson_delta_in_representation``, ``deg_overlap_top50_in_representation``
        The same of the genes that the representation was made from, if there are others. Those are predicted by ridge
        regression on training cells, as :func:`scot_hycnn.tl.decode` describes.

    Raises
    ------
    TypeError
        If ``decoder`` is no function, or a prediction is of another type than those above.
    ValueError
        If there is no such fit, target, column, mask or layer, measured values are not those that the PCA was run on,
        values are not finite, a decoder or a prediction has another shape, a prediction lacks evaluated cells or genes,
        ``n_bootstrap`` is 1 or negative, or no group has enough cells.

    Notes
    -----
    An interval is the value minus and plus 1.96 standard deviations over draws of source and target cells with
    replacement, within the range of the metric: it says how far the value would vary with other cells, and not with
    another fit. All methods have the same draws. What they share cancels in ``vs_gaussian``, whose interval
    distinguishes methods also where the intervals of the values overlap. For W2² and the Sinkhorn divergence the dual
    potentials are held fixed (del Barrio & Loubes 2019).

    With the same composition, all metrics but these two weight the target cells, and the means over pairs of cells
    within a group leave out pairs of a cell with itself, so that energy distance and MMD² stay unbiased; bootstrap and
    halves are drawn within groups. W2² and the Sinkhorn divergence take as many cells of each group as its share asks
    for, and fewer cells in all if a group has too few. Of clouds with more cells than a metric takes, groups with fewer
    than 10 cells in the sample have no part in it.

    The interval of the replicate is a prediction interval, from the spread over 100 splits (10 for W2² and the Sinkhorn
    divergence): 95 % of experiments with as many cells as a half has, from the distribution of the observed cells, are
    expected to score within it. Half of the observed cells cannot distinguish a method within it from a perfect one.
    For the energy distance and MMD² the value is exactly 0, the mean over all splits. For ``kept_group`` the value is
    the share of all target cells, and the interval is that of as many cells.

    Two halves that correlate r have the reliability :math:`s = 2 r / (1 + r)` together (Spearman-Brown), and the truth
    is expected to correlate :math:`\sqrt s` with them. For ``pearson_delta`` these are changes between halves of both
    conditions, and the ceiling is :math:`\sqrt s`: what the true change of the mean would score. For ``r2_mean`` they
    are halves of the observed cells, and the ceiling is s.

    50,000 cells of 2,000 genes and 50 components, in 10 groups, take 25 s on one core and 0.3 GB beyond ``adata``.

    References
    ----------
    Those of the metrics. Efron & Tibshirani (1993), An introduction to the bootstrap, ch. 13. Del Barrio & Loubes
    (2019), Ann. Probab. 47, 926-951. Spearman (1910), Brown (1910), British Journal of Psychology 3, 271-295, 296-322.

    Examples
    --------
    >>> import scot_hycnn as sh
    >>> adata = sh.datasets.pbmc_planted(n_cells=400)
    >>> sh.pp.split(adata)
    >>> sh.pp.pca(adata, n_comps=10, split_key="split", key_added="X_train")
    >>> sh.tl.hycnn_ot(adata, "control", "IFN-beta", use_rep="X_train", split_key="split", potential="gaussian")
    >>> scores = sh.metrics.evaluate(adata, predictions={"smaller": lambda x: 0.9 * x})
    >>> scores["method"].unique().tolist()
    ['identity', 'mean_shift', 'gaussian', 'hycnn_ot', 'smaller', 'replicate', 'ceiling']
    """
    if n_bootstrap < 0 or n_bootstrap == 1:
        raise ValueError(f"n_bootstrap={n_bootstrap}; it takes 2 or more draws, or 0 for no intervals.")
    taken = (*BASELINES, *([OURS] if source is None else []), REPLICATE, CEILING)
    named = {} if predictions is None else named_predictions(predictions, taken)
    options = {"condition_key": condition_key, "groupby": groupby, "use_rep": use_rep, "split_key": split_key}
    fit, groupby = fit_or_conditions(adata, key, source, target, **options)
    slugs = fit.slugs(target)
    if named and len(slugs) > 1:
        raise ValueError(f"predictions are those of one target; pass target= one of {listed(fit.targets.values())}.")
    chosen, notes = held_out_cells(adata, fit, mask_obs=mask_obs, split_key=split_key)
    labels, found = labels_to_score(adata, fit, slugs, groupby)
    notes += found
    cells: dict[str, HeldOut] = {}
    # The seed is the same for all, so that no score depends on which other targets and groups are scored.
    seed = int(np.random.default_rng(rng).integers(2**63))
    for slug in slugs:
        held_out = read_held_out(adata, fit, slug, chosen)
        cells[slug], found = transported_part(adata, fit, slug, held_out, np.random.default_rng(seed))
        notes += found
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
    others, found = read_predictions(adata, named, first, genes, layer=layer, labels=labels)
    notes += found
    with_w2 = find_spec("ot") is not None
    if not with_w2:
        notes.append("w2_squared is left out, because POT is not installed. Run: pip install 'scot-hycnn[ot]'")

    scoring: dict[str, Any] = {"n_bootstrap": n_bootstrap, "genes": genes, "with_w2": with_w2, "shifts": None}
    scoring |= {"split_control": split_control}
    rows, gammas = list[tuple[Any, ...]](), dict[str, dict[str, list[float]]]()
    for slug, held_out in cells.items():
        label = fit.targets[slug]
        methods = _methods(adata, fit, slug, held_out, chosen, labels) | others
        if genes is not None and fit.models:
            scoring["shifts"] = find_correction(adata, fit, slug, genes, correction, held_out=measured)
        of_target, gammas[label], small = _rows_of_target(held_out, methods, labels, seed=seed, **scoring)
        rows += [(label, *row) for row in of_target]
        if small:
            notes.append(
                f"Groups with fewer than {MIN_CELLS} evaluated cells of source or {label!r} are left out: "
                f"{listed(small)}."
            )
    if not rows:
        raise ValueError(f"There is nothing to score. {' '.join(notes) or 'No group has evaluated cells.'}")
    table = _table(rows)
    if labels is not None and fit.models and "group_key" not in fit.params:
        notes += _notes_of_kept_groups(table, labels.column)
    table.attrs |= {"mmd_gamma": gammas, "notes": notes}
    return table


def _rows_of_target(
    cells: HeldOut,
    methods: Mapping[str, Predicted],
    labels: GroupLabels | None,
    *,
    seed: int,
    n_bootstrap: int,
    **scoring: Any,
) -> tuple[list[tuple[Any, ...]], dict[str, list[float]], list[str]]:
    """Return the rows of one target, the bandwidths of the MMD by group, and the groups that are too small."""
    parts, small = _parts(cells, methods, labels)
    kept = None
    if labels is not None:
        of_source, of_target = (labels.codes[rows] for rows in (cells.source_rows, cells.target_rows))
        clouds = {name: (of.points, of_source if of.codes is None else of.codes) for name, of in methods.items()}
        kept = KeptGroups.find(clouds, cells.y.astype(np.float64), of_target, np.random.default_rng(seed))
    rows, gammas = [], {}
    for group, part in parts.items():
        draws = Resampling.draw(part.strata, n_bootstrap, np.random.default_rng(seed), part.others)
        scores, of_group = _scores(cells, methods, part, draws, kept=kept, **scoring)
        gammas[group] = of_group.tolist()
        sizes = int(part.source.sum()), int(part.target.sum())
        rows += [(group, *row, *sizes) for row in _rows(scores, list(methods))]
    return rows, gammas, small


class _Part(NamedTuple):
    """Some of the evaluated cells, boolean arrays, and the groups whose shares are made alike."""

    source: NDArray[np.bool_]  # (n,)
    target: NDArray[np.bool_]  # (m,)
    strata: Strata
    cells: dict[str, NDArray[np.bool_]]  # by method, (k,)
    others: dict[str, Codes]  # groups of those cells that are no source cells


def _parts(
    cells: HeldOut, methods: Mapping[str, Predicted], labels: GroupLabels | None
) -> tuple[dict[str, _Part], list[str]]:
    """Return the rows of the table with their cells, the headline first, and the groups that are too small."""
    source, target = np.zeros(len(cells.x), dtype=np.intp), np.zeros(len(cells.y), dtype=np.intp)
    unpaired = {name: of.codes for name, of in methods.items() if of.codes is not None}

    def part(codes: Sequence[int] | None) -> _Part:
        """Return the cells of some groups, which are numbered in their order; None is everyone."""
        known = np.zeros(1, dtype=np.intp) if codes is None else np.asarray(codes)
        clouds = [source, target, *unpaired.values()]
        chosen = [np.ones(len(of), dtype=bool) if codes is None else np.isin(of, known) for of in clouds]
        numbers = [
            np.zeros(len(of), dtype=np.intp) if codes is None else np.searchsorted(known, of[some])
            for of, some in zip(clouds, chosen, strict=True)
        ]
        # A method with too few cells in one of the groups has no scores of them.
        enough = [np.bincount(of, minlength=len(known)).min() >= MIN_CELLS for of in numbers[2:]]
        others = {name: of for name, of, some in zip(unpaired, numbers[2:], enough, strict=True) if some}
        of_methods = {name: chosen[0] for name in methods if name not in unpaired}
        of_methods |= {name: of for name, of in zip(unpaired, chosen[2:], strict=True) if name in others}
        return _Part(chosen[0], chosen[1], Strata(numbers[0], numbers[1]), of_methods, others)

    parts, small, large = {}, [], []
    if min(len(source), len(target)) >= MIN_CELLS:
        parts["all"] = part(None)
    elif len(source) or len(target):
        small.append(f"all ({len(source)} and {len(target)})")
    if labels is None:
        return parts, small
    source, target = labels.codes[cells.source_rows], labels.codes[cells.target_rows]
    found = np.union1d(source, target)  # categories without a cell are no groups
    for code in found[found >= 0]:
        sizes = int((source == code).sum()), int((target == code).sum())
        if min(sizes) >= MIN_CELLS:
            large.append(code)
            parts[labels.names[code]] = part([code])
        else:
            small.append(f"{labels.names[code]} ({sizes[0]} and {sizes[1]})")
    return ({SAME_COMPOSITION: part(large), **parts} if len(large) > 1 else parts), small


def _scores(
    cells: HeldOut,
    methods: Mapping[str, Predicted],
    part: _Part,
    draws: Resampling,
    *,
    genes: Genes | None,
    shifts: Correction | None,
    kept: KeptGroups | None,
    with_w2: bool,
    split_control: bool,
) -> tuple[Scores, Samples]:
    """Return the scores of some of the cells, and the bandwidths of their MMD."""
    some = cells.among(part.source, part.target)
    y = some.y.astype(np.float64)
    gammas = bandwidths(y, draws)
    # A replicate of few cells may draw one cell only, which has no variance; interval leaves it out.
    with np.errstate(divide="ignore", invalid="ignore"):
        points = {method: methods[method].points[of] for method, of in part.cells.items()}
        scores = cloud_scores(points, y, draws, gammas=gammas, with_w2=with_w2)
        if kept is not None:
            scores |= kept.scores(part.cells, part.target, draws)
        if genes is not None:
            sums = _gene_sums(genes, some, methods, part, draws, shifts=shifts, split_control=split_control)
            scores |= gene_scores(*sums, genes.in_representation)
    return scores, gammas


def _table(rows: Sequence[tuple[Any, ...]]) -> pd.DataFrame:
    """Return the rows as a table, with the share of kept cells and the scaled score beside every score."""
    table = pd.DataFrame(rows, columns=[name for name in EVALUATION_COLUMNS if name not in ("kept_group", "scaled")])

    def values(place: list[str], method: str | None = None, metric: str | None = None, name: str = "value") -> Any:
        of = table[(table["method"] == method) if metric is None else (table["metric"] == metric)]
        return of.set_index(place)[name].reindex(pd.MultiIndex.from_frame(table[place])).to_numpy(dtype=np.float64)

    table["kept_group"] = values(["target", "group", "method"], metric="kept_group")
    # 0 is no change, and 1 what can be expected at best: the ceiling, or a replicate.
    place, is_delta = ["target", "group", "metric"], table["metric"].str.startswith("pearson_delta")
    nothing = np.where(is_delta, 0.0, values(place, "identity"))  # no change has no correlation
    ceiling, replicate = values(place, CEILING), values(place, REPLICATE)
    best = np.where(np.isnan(ceiling), replicate, ceiling)
    # Where no change is as good as a replicate, or as the ceiling, no response is seen, and nothing to scale by.
    is_scaled = ~table["metric"].str.startswith(_UNSCALED).to_numpy() & (best != nothing)
    for method in (REPLICATE, CEILING):
        low, high = values(place, method, name="low"), values(place, method, name="high")
        is_scaled &= ~((nothing >= low) & (nothing <= high))
    value = np.where(is_delta & table["value"].isna(), 0.0, table["value"])
    # 0.0 is added because 0 over a negative number is -0.
    table["scaled"] = np.where(is_scaled, value - nothing, np.nan) / np.where(is_scaled, best - nothing, 1) + 0.0
    return table[list(EVALUATION_COLUMNS)]


def _notes_of_kept_groups(table: pd.DataFrame, column: str) -> list[str]:
    """Say of which targets the map carries cells into other groups, and which groups lose most."""
    notes = []
    for target, scores in table[table["metric"] == "kept_group"].groupby("target", sort=False):
        ours, replicate = (scores[scores["method"] == method].set_index("group") for method in (OURS, REPLICATE))
        headline = headline_of(ours.index)
        if not is_low(ours.loc[headline], replicate.loc[headline]):
            continue
        lost = (replicate["value"] - ours["value"]).drop([SAME_COMPOSITION, "all"], errors="ignore").dropna()
        most = str(lost.idxmax()) if len(lost) else ""
        worst = f", {ours['value'][most]:.0%} of {most!r}" if most else ""
        notes.append(
            f"The map to {target!r} carries cells into other groups of adata.obs[{column!r}]: "
            f"{ours['value'][headline]:.1%} of the predicted cells lie among treated cells of their own group{worst}; "
            f"of the treated cells themselves {replicate['value'][headline]:.1%} do. Fit with group_key={column!r}."
        )
    return notes


def _methods(  # noqa: PLR0917
    adata: AnnData, fit: StoredFit, slug: str, held_out: HeldOut, chosen: NDArray[np.bool_], labels: GroupLabels | None
) -> dict[str, Predicted]:
    """Return the predicted cells of the baselines, and of the fit if there is one."""
    from scot_hycnn.potentials._gaussian import Gaussian  # noqa: PLC0415 - metrics of arrays need no torch
    from scot_hycnn.solver.model._map import TransportMap  # noqa: PLC0415

    x, rows = held_out.x, held_out.source_rows
    points: dict[str, NDArray[np.floating[Any]]] = {"identity": x}
    if not fit.models:
        before, after, weights = read_training(adata, fit, slug, chosen, labels)
        closed_form = Gaussian.fit(before, after, weights_y=weights)
        points |= {"mean_shift": x + (closed_form.mean_y - closed_form.mean_x), "gaussian": closed_form.gradient(x)}
    else:
        fitted = TransportMap.from_dict(fit.models[slug])
        gaussian = fitted.gaussian_map()  # it is made from all training cells, and so are its means
        moved = gaussian.transport(x)
        points |= {"mean_shift": x + (gaussian.coordinates.mean_y - gaussian.coordinates.mean_x), "gaussian": moved}
        of_source, group_key = labelled_cells(adata, fit.groupby, fit.source), fit.params.get("group_key")
        centres = find_centres(adata, held_out.rep, group_key, fitted.centres, rows=rows, source_rows=of_source)
        around, fallback = None if centres is None else centres.at(rows), bool(fit.params.get("fallback", False))
        # A fit that kept the Gaussian map has exactly its scores.
        of_fit = moved if gaussian is fitted and not fallback else moved_around(fitted, x, around, fallback=fallback)
        points[OURS] = of_fit
    far = [method for method, cells in points.items() if not (np.abs(cells) < _MAX_COORDINATE).all()]
    if far:
        raise ValueError(f"Predictions of {far} are too far away to be scored. The map is damaged: fit again.")
    return {method: Predicted(cells.astype(np.float64)) for method, cells in points.items()}


def _gene_sums(
    genes: Genes,
    cells: HeldOut,
    methods: Mapping[str, Predicted],
    part: _Part,
    draws: Resampling,
    *,
    shifts: Correction | None,
    split_control: bool,
) -> tuple[Sums, dict[str, Sums], Sums, Sums]:
    """Return sums over source cells, over each method's predictions, over target cells, and over halves of those."""
    sums: dict[str, Sums] = {}

    def add(name: str, counts: Samples, expression: NDArray[np.floating[Any]]) -> None:
        # All blocks are summed around the mean of the first one.
        before = sums.get(name)
        block_sums = Sums.of(counts, expression.astype(np.float64), None if before is None else before.origin)
        sums[name] = block_sums if before is None else before + block_sums

    # Expression is read and predicted in blocks of cells, once for all replicates.
    of_source, halves = np.flatnonzero(part.source), "bootstrap" if split_control else None
    counts = draws.counts("source", halves="bootstrap" if split_control else "sample")
    of_methods = counts if split_control else counts[: len(draws.target.counts)]
    for block in row_blocks(len(cells.x)):
        measured = genes.measured(cells.source_rows[block])
        add("source", counts[:, block], measured)
        shift = None if shifts is None else shifts.at(cells.source_rows[block])
        for method in part.cells.keys() - part.others.keys():
            of, places = methods[method], of_source[block]
            if of.genes is None:
                of_fit = shift if method == OURS else None
                moved = genes.predicted(measured, cells.x[block], of.points[places], of_fit)
            else:
                moved = of.genes(places)
            add(method, of_methods[:, block], moved)
    for method in part.others:
        of, places = methods[method], np.flatnonzero(part.cells[method])
        counts = draws.counts(method, halves=halves)
        for block in row_blocks(len(places) if of.genes is not None else 0):
            add(method, counts[:, block], of.genes(places[block]))  # type: ignore[misc]
    counts = np.concatenate([draws.target.counts, draws.splits]) * draws.target.weights
    for block in row_blocks(len(cells.y)):
        add("observed", counts[:, block], genes.measured(cells.target_rows[block]))
    source, observed = sums.pop("source"), sums.pop("observed")
    n_replicates = len(draws.target.counts)
    return source, sums, observed[:n_replicates], observed[n_replicates:]


def _rows(scores: Scores, methods: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """Yield method, metric, value and difference to the Gaussian map, with intervals, in the order of the methods."""
    for method in (*methods, REPLICATE, CEILING):
        for metric, limits in _RANGES.items():
            if (method, metric) not in scores:
                continue
            values, of_gaussian = scores[method, metric], scores["gaussian", metric]
            is_of_splits = method in (REPLICATE, CEILING)
            row = interval(values, *limits, of_replicate=is_of_splits)
            if is_of_splits:
                versus = tuple(bound - of_gaussian[0] for bound in row)
            else:
                versus = interval(values - of_gaussian, -np.inf, np.inf, of_replicate=False)
            yield method, metric, *row, *versus
