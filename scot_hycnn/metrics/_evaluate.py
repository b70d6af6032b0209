"""Scores of a fit, and of the predictions of any method, beside baselines and a replicate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from scot_hycnn._anndata._conditions import Labels, Mask, listed
from scot_hycnn._anndata._representation import row_blocks
from scot_hycnn._anndata._results import StoredFit, labelled_cells
from scot_hycnn._anndata._transport_input import find_mover
from scot_hycnn._anndata.evaluation._evaluation_input import (
    SAME_COMPOSITION,
    HeldOut,
    fit_or_conditions,
    held_out_cells,
    labels_to_score,
    read_held_out,
    read_training,
)
from scot_hycnn._anndata.evaluation._growth import transported_part
from scot_hycnn._anndata.evaluation._predictions import Predicted, Predictions, named_predictions, read_predictions
from scot_hycnn._anndata.genes._correction import Correction, find_correction
from scot_hycnn._anndata.genes._decode_input import Decoder, Genes, find_genes, has_genes
from scot_hycnn._response import MIN_CELLS

from ._cloud_scores import Kept, bandwidths, cloud_scores, find_kept, kept_scores
from ._gene_scores import gene_scores
from ._resampling import CEILING, REPLICATE, Codes, Resampling, Scores, Sums
from ._samples import Samples
from ._table import BASELINES, OURS, notes_of_kept_groups, rows_of, table_of

_MAX_COORDINATE = 1e15  # distances are squared, some of them in float32


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
        (coordinates in the representation); an AnnData; a function from the coordinates of source cells, (n, d), to
        predicted coordinates, (n, d), or genes, (n, genes); or a list of names, or a dict of name to one of these. An
        AnnData has all genes of ``adata`` (in ``layer`` or X), or the representation in ``obsm``. Its cells are found
        by their names; if none is an evaluated source cell, they are scored as an unpaired cloud, in groups if ``obs``
        has the column ``groupby``. Genes are placed in the representation by its loadings.
    source
        Label of the control cells, to score predictions without a fit; None reads the fit.
    target
        Label of the target condition; None takes all targets of the fit.
    condition_key
        Column of ``obs`` with the labels ``source`` and ``target``, without a fit; None finds it.
    use_rep
        Representation in which distances are measured, without a fit; None takes ``X_pca``.
    groupby
        Column of ``obs``, for instance ``'cell_type'``, whose groups are scored besides all cells together. None takes
        the ``group_key`` of the fit; without one, the column of labels whose proportions differ most clearly between
        the conditions, if any do, and the notes say so.
    mask_obs
        Evaluate these cells only: a boolean array, or the name of a boolean column of ``obs``.
    split_key
        Column of ``obs`` as :func:`scot_hycnn.pp.split` writes it, whose ``'test'`` cells are evaluated. If this and
        ``mask_obs`` are None, the split of the fit is used, else all cells, and the notes say so. Without a fit,
        baselines are made from the ``'train'`` cells, or from the cells that ``mask_obs`` leaves out.
    layer, decoder
        Way from the representation to genes, as for :func:`scot_hycnn.tl.decode`. A decoder serves all methods, also
        the identity; source and observed cells are scored as measured.
    split_control
        Compute ``pearson_delta`` from two halves of the source cells, one for each change (mean over 100 splits).
        Otherwise both changes share the noise of the source mean, which raises their correlation.
    correction
        Correct the means of genes that the fit predicts by the residuals of the groups that were seen, as for
        :func:`scot_hycnn.tl.decode`; evaluated cells have no part in them. Baselines are not corrected.
    n_bootstrap
        Draws of the bootstrap over cells; 0 computes no intervals but those of the replicate, which needs none.
    rng
        Seed or generator. The scores of a method, target and group do not depend on which others are scored.

    Returns
    -------
    One row for each target, group, method and metric, with the columns ``target``, ``group`` (see below), ``method``,
    ``metric``, ``value``, ``low`` and ``high`` (95 % interval), ``vs_gaussian``, ``vs_gaussian_low`` and
    ``vs_gaussian_high`` (value minus that of the Gaussian map, and its interval), ``n_source`` and ``n_target``
    (evaluated cells of the group), ``kept_group`` (that metric of the method, beside each of its scores; NaN without
    groups), and ``scaled``: 0 is no change, 1 the ceiling of a correlation and the replicate of a distance. It is NaN
    where no change is within the interval of the replicate, since no response is seen then, and for ``trace_ratio``,
    ``kept_group`` and ``deg_overlap``. A group with fewer than 10 cells in either condition is left out.

    The group to report is ``'all, same composition'`` where groups are known: all cells of the groups that are scored,
    the target cells weighted so that each group has the share that it has among the source cells. ``'all'`` are all
    cells as they are: where proportions differ between the conditions, it rewards a map that carries cells into other
    groups. The other groups are labels of ``groupby``.

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
    ``w2_squared``, ``sinkhorn_divergence``
        :func:`w2`, which needs POT (``scot-hycnn[ot]``), and :func:`sinkhorn_divergence`, of at most 500 cells and no
        more than half of the observed ones. Compare them with the replicate only, which has as many cells.
    ``trace_ratio``
        :func:`trace_ratio` of all cells.
    ``kept_group``
        Share of the predicted cells that lie among target cells of their own group: of the 15 nearest target cells, of
        all groups, no other group has more. At most 10,000 cells are looked at, and 200 of each group. The replicate is
        that share of the target cells themselves.

    Metrics in genes, of all cells, left out if there is no way to genes:

    ``r2_mean``, ``r2_mean_top20``, ``r2_mean_top50``, ``r2_mean_top100``
        :func:`r2_mean` of all genes, and of those with the largest absolute Welch's t between observed and source cells
        of the group, if there are more genes.
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
    another fit. All methods have the same draws, so that ``vs_gaussian`` distinguishes methods also where the intervals
    of the values overlap. For W2² and the Sinkhorn divergence the dual potentials are held fixed.

    The interval of the replicate is a prediction interval, from the spread over 100 splits (10 for W2² and the Sinkhorn
    divergence): half of the observed cells cannot distinguish a method within it from a perfect one. The value is the
    mean over all splits, exactly 0 for energy distance and MMD².

    With the same composition, bootstrap and halves are drawn within groups; W2² and the Sinkhorn divergence take as
    many cells of each group as its share asks for, and groups with fewer than 10 cells in a sample have no part in it.

    Two halves that correlate r have the reliability :math:`s = 2 r / (1 + r)` together (Spearman-Brown). The ceiling is
    :math:`\sqrt s` for ``pearson_delta``, of changes between halves of both conditions, and s for ``r2_mean``.

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
    genes = shifts = None
    if has_genes(adata, first.rep, layer=layer, decoder=decoder):
        measured = np.concatenate([first.source_rows, *(held_out.target_rows for held_out in cells.values())])
        genes = find_genes(adata, fit, first.rep, measured, layer=layer, decoder=decoder, held_out=measured)
        notes += filter(None, [genes.problem])
    else:
        why = f"{first.rep.name!r} has no loadings in adata.varm, or adata has no expression"
        notes.append(f"No metrics of genes are computed: {why}.")
    others, found = read_predictions(adata, named, first, genes, layer=layer, labels=labels)
    notes += found
    with_w2 = find_spec("ot") is not None
    if not with_w2:
        notes.append("w2_squared is left out, because POT is not installed. Run: pip install 'scot-hycnn[ot]'")

    scoring = {"with_w2": with_w2, "split_control": split_control}
    rows, gammas = list[tuple[Any, ...]](), dict[str, dict[str, list[float]]]()
    for slug, held_out in cells.items():
        gammas[label := fit.targets[slug]] = {}
        methods = _methods(adata, fit, slug, held_out, chosen, labels) | others
        if genes is not None and fit.models:
            shifts = find_correction(adata, fit, slug, genes, correction, held_out=measured)
        parts, small = _parts(held_out, methods, labels)
        kept = _kept(held_out, methods, labels, seed) if labels is not None and parts else None
        for group, part in parts.items():
            draws = Resampling.draw(*part.codes, n_bootstrap, np.random.default_rng(seed), part.unpaired)
            scores, of_mmd = _scores(held_out, methods, part, draws, kept=kept, genes=genes, shifts=shifts, **scoring)
            gammas[label][group] = of_mmd.tolist()
            sizes = int(part.source.sum()), int(part.target.sum())
            rows += [(label, group, *row, *sizes) for row in rows_of(scores, list(methods))]
        if small:
            too_few = f"Groups with fewer than {MIN_CELLS} evaluated cells of source or {label!r} are left out"
            notes.append(f"{too_few}: {listed(small)}.")
    if not rows:
        raise ValueError(f"There is nothing to score. {' '.join(notes) or 'No group has evaluated cells.'}")
    table = table_of(rows)
    if labels is not None and fit.models and "group_key" not in fit.params:
        notes += notes_of_kept_groups(table, labels.column)
    table.attrs |= {"mmd_gamma": gammas, "notes": notes}
    return table


def _methods(  # noqa: PLR0917
    adata: AnnData, fit: StoredFit, slug: str, held_out: HeldOut, chosen: NDArray[np.bool_], labels: Labels | None
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
        of_source = labelled_cells(adata, fit.groupby, fit.source)
        mover = find_mover(fitted, adata, held_out.rep, fit.group_columns, rows=rows, source_rows=of_source)
        fallback = bool(fit.params.get("fallback", False))
        # A fit that kept the Gaussian map has exactly its scores.
        kept = gaussian is fitted and not fallback
        points[OURS] = moved if kept else mover.apply("transport", x, rows, fallback=fallback)
    far = [method for method, cells in points.items() if not (np.abs(cells) < _MAX_COORDINATE).all()]
    if far:
        raise ValueError(f"Predictions of {far} are too far away to be scored. The map is damaged: fit again.")
    return {method: Predicted(cells.astype(np.float64)) for method, cells in points.items()}


class _Part(NamedTuple):
    """The cells of one group of the table, boolean arrays, and the groups among them whose shares are made alike."""

    source: NDArray[np.bool_]  # (n,)
    target: NDArray[np.bool_]  # (m,)
    codes: tuple[Codes, Codes]  # groups of these source and target cells
    cells: dict[str, NDArray[np.bool_]]  # by method, (k,)
    unpaired: dict[str, Codes]  # groups of those predicted cells that are no source cells


def _parts(
    cells: HeldOut, methods: Mapping[str, Predicted], labels: Labels | None
) -> tuple[dict[str, _Part], list[str]]:
    """Return the groups of the table with their cells, the headline first, and the groups that are too small."""
    unpaired = {name: of.codes for name, of in methods.items() if of.codes is not None}

    def part(known: Sequence[int], clouds: Sequence[Codes]) -> _Part:
        """Return the cells of some groups, which are numbered in their order."""
        chosen = [np.isin(codes, known) for codes in clouds]
        numbers = [np.searchsorted(known, codes[some]) for codes, some in zip(clouds, chosen, strict=True)]
        # A method with too few cells in one of the groups has no scores of them.
        others = {
            name: (some, codes)
            for name, some, codes in zip(unpaired, chosen[2:], numbers[2:], strict=True)
            if np.bincount(codes, minlength=len(known)).min() >= MIN_CELLS
        }
        of_methods = {name: chosen[0] for name in methods if name not in unpaired}
        of_methods |= {name: some for name, (some, _) in others.items()}
        of_others = {name: codes for name, (_, codes) in others.items()}
        return _Part(chosen[0], chosen[1], (numbers[0], numbers[1]), of_methods, of_others)

    everyone = [np.zeros(len(of), dtype=np.intp) for of in (cells.x, cells.y, *unpaired.values())]
    groups, grouped = {"all": 0}, list[Codes]()
    if labels is not None:
        grouped = [labels.codes[cells.source_rows], labels.codes[cells.target_rows], *unpaired.values()]
        found = np.union1d(*grouped[:2])  # categories without a cell are no groups
        groups |= {labels.names[code]: code for code in found[found >= 0]}
    parts, small = {}, []
    for name, code in groups.items():
        clouds = everyone if name == "all" else grouped
        n, m = (int((codes == code).sum()) for codes in clouds[:2])
        if min(n, m) >= MIN_CELLS:
            parts[name] = part([code], clouds)
        elif n or m:
            small.append(f"{name} ({n} and {m})")
    large = [groups[name] for name in parts if name != "all"]
    return ({SAME_COMPOSITION: part(large, grouped), **parts} if len(large) > 1 else parts), small


def _kept(cells: HeldOut, methods: Mapping[str, Predicted], labels: Labels, seed: int) -> Kept | None:
    """Return which predicted cells lie among observed cells of their group."""
    of_source, of_target = (labels.codes[rows] for rows in (cells.source_rows, cells.target_rows))
    clouds = {name: (of.points, of_source if of.codes is None else of.codes) for name, of in methods.items()}
    return find_kept(clouds, cells.y.astype(np.float64), of_target, np.random.default_rng(seed))


def _scores(
    cells: HeldOut,
    methods: Mapping[str, Predicted],
    part: _Part,
    draws: Resampling,
    *,
    kept: Kept | None,
    genes: Genes | None,
    shifts: Correction | None,
    with_w2: bool,
    split_control: bool,
) -> tuple[Scores, Samples]:
    """Return the scores of one group of the table, and the bandwidths of its MMD."""
    cells = cells.among(part.source, part.target)
    y = cells.y.astype(np.float64)
    gammas = bandwidths(y, draws)
    points = {method: methods[method].points[of] for method, of in part.cells.items()}
    # A replicate of few cells may draw one cell only, which has no variance; the intervals leave it out.
    with np.errstate(divide="ignore", invalid="ignore"):
        scores = cloud_scores(points, y, draws, gammas=gammas, with_w2=with_w2)
        if kept is not None:
            scores |= kept_scores(kept, {**part.cells, REPLICATE: part.target}, draws)
        if genes is not None:
            sums = _gene_sums(genes, cells, methods, part, draws, shifts=shifts, split_control=split_control)
            scores |= gene_scores(*sums, genes.in_representation)
    return scores, gammas


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
    of_source, n_replicates = np.flatnonzero(part.source), len(draws.target.counts)
    halves = "bootstrap" if split_control else None
    counts = draws.counts("source", halves=halves or "sample")
    of_methods = counts if split_control else counts[:n_replicates]
    for block in row_blocks(len(cells.x)):
        measured = genes.measured(cells.source_rows[block])
        add("source", counts[:, block], measured)
        shift = None if shifts is None else shifts.at(cells.source_rows[block])
        for method in part.cells.keys() - part.unpaired.keys():
            of, places = methods[method], of_source[block]
            if of.genes is None:
                of_fit = shift if method == OURS else None
                moved = genes.predicted(measured, cells.x[block], of.points[places], of_fit)
            else:
                moved = of.genes(places)
            add(method, of_methods[:, block], moved)
    for method in part.unpaired:
        of, places = methods[method], np.flatnonzero(part.cells[method])
        counts = draws.counts(method, halves=halves)
        for block in row_blocks(len(places) if of.genes is not None else 0):
            add(method, counts[:, block], of.genes(places[block]))  # type: ignore[misc]
    counts = np.concatenate([draws.target.counts, draws.splits]) * draws.target.weights
    for block in row_blocks(len(cells.y)):
        add("observed", counts[:, block], genes.measured(cells.target_rows[block]))
    source, observed = sums.pop("source"), sums.pop("observed")
    return source, sums, observed[:n_replicates], observed[n_replicates:]
