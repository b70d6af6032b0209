"""Distributions of single dimensions and genes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from anndata import AnnData
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from scot_hycnn._anndata._fit_input import check_counts
from scot_hycnn._anndata._results import Results
from scot_hycnn._anndata.genes._genes import (
    Features,
    advice_on_genes,
    read_dimensions,
    read_evaluated,
    read_genes,
    unit_of,
)

from ._figure import PLAIN, entitle_cells, explain_panels, panels_of, show_or_return
from ._labels import OBSERVED, PREDICTED, SOURCE

# Rows of panels if the user names no features.
_ROWS = 2
# Percent of the cells on either side that are counted in the outermost bars: a few would squeeze all others.
_TAIL = 0.1
# With a bar more than this many times as high as the next, such as that of cells without a gene's transcripts, the axis
# is a square root, in which the others are seen.
_SPIKE = 3
_FAINT = 0.35

Samples = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]


def marginals(
    adata: AnnData,
    key: str = "hycnn_ot",
    target: str | None = None,
    *,
    names: Sequence[str] | str | None = None,
    layer: str | None = None,
    n_cols: int = 4,
    title: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool = False,
) -> Axes | list[Axes] | Figure | None:
    """Draw the distribution of single features in source, predicted and observed cells.

    The line of predicted cells should follow the area of observed ones; triangles mark the means. The outermost bars
    count all cells beyond them. Where one bar, such as that of the cells without a gene's transcripts, is far higher
    than all others, the axis is a square root. Cells are held-out ones if the fit was made with a split.

    Parameters
    ----------
    adata
        Cells with a fit of :func:`scot_hycnn.tl.hycnn_ot`.
    key
        Key of the fit in ``uns``.
    target
        Label of the target condition; may be left out if there is only one.
    names
        Dimensions of the representation ('PC1', or proteins), or genes, predicted as by :func:`scot_hycnn.tl.decode`.
        None takes the dimensions whose means differ most between source and observed cells, in standard deviations.
    layer
        Key of ``layers`` with measured expression, as given to :func:`scot_hycnn.tl.decode`.
    n_cols
        Panels in each row, at most.
    title, ax, show, return_fig
        First line of the title; None names the conditions. Axes to draw into (of one feature), and what to show or
        return, as in scanpy.

    Returns
    -------
    The list of axes if ``show`` is False (the axes if ``ax`` is given), the figure if ``return_fig``.

    Raises
    ------
    ValueError
        If a fit, target, feature or slot does not exist or is not unique, or if ``ax`` is passed for several features.

    Examples
    --------
    >>> import scot_hycnn as sh
    >>> adata = sh.datasets.pbmc_planted(n_cells=400)
    >>> sh.tl.hycnn_ot(adata, "control", "IFN-beta", potential="gaussian")
    >>> axes = sh.pl.marginals(adata, names=["PC1", "ISG20"], show=False)
    """
    check_counts(n_cols=n_cols)
    results, called = read_evaluated(adata, key, target)
    names = [names] if isinstance(names, str) else names
    if names is None:
        # The dimensions whose means differ most, in units of the pooled standard deviation.
        spread = np.sqrt((results.x.var(axis=0) + results.y.var(axis=0)) / 2)
        shift = np.abs(results.y.mean(axis=0) - results.x.mean(axis=0)) / np.where(spread > 0, spread, 1)
        top = np.argsort(-shift, kind="stable")[: _ROWS * n_cols].tolist()
        samples = _columns(read_dimensions(results), top)
    else:
        samples = _named(adata, results, key, layer, names)
    place, axes, n_cols = panels_of(ax, len(samples), n_cols, (2.3, 2.1), f"names={list(samples)}")
    for i, (panel, (name, values)) in enumerate(zip(axes, samples.items(), strict=True)):
        is_root = _draw(panel, values)
        panel.set_title(name, fontsize="medium", **PLAIN)
        is_gene = name not in results.names or results.rep.name == "X"
        unit = unit_of(adata, results, layer) + (f" ({layer})" if layer else "") if is_gene else "coordinate"
        panel.set_xlabel(unit, fontsize="small", **PLAIN)
        what = "fraction of cells" if i % n_cols == 0 else ""
        panel.set_ylabel(f"{what}\n(root scale)".strip() if is_root else what, fontsize="small")
    # x + V (T(x) - x) moves the zeros of a gene apart, also below 0, and keeps the scatter of the source cell.
    is_decoded = results.rep.name != "X" and any(name not in results.names for name in samples)
    note = "genes: compare means; a predicted value of a single cell may be below 0" if is_decoded else ""
    entitle_cells(place, title, results, called, note)
    handles: list[Artist] = [
        Patch(color=SOURCE, alpha=_FAINT),
        Line2D([], [], color=PREDICTED),
        Patch(color=OBSERVED, alpha=_FAINT),
        Line2D([], [], linestyle="", marker="^", color="0.4"),
    ]
    entries = [f"{results.source} (source)", "predicted", f"{results.target} (observed)", "mean"]
    if isinstance(place, Axes):
        place.set_xlabel(f"{next(iter(samples))} ({place.get_xlabel()})", **PLAIN)
    else:
        place.set_figheight(place.get_figheight() + 0.5)  # for the title
    explain_panels(place, axes, handles, entries)
    return show_or_return(axes if ax is None else ax, show=show, return_fig=return_fig)


def _named(adata: AnnData, results: Results, key: str, layer: str | None, names: Sequence[str]) -> dict[str, Samples]:
    """Return the named dimensions and genes, in the order of the names."""
    dimensions = read_dimensions(results)
    genes = [name for name in names if name not in dimensions.names]
    unknown = [name for name in genes if name not in adata.var_names]
    if unknown or not names:
        raise ValueError(
            f"names={list(names)}: {unknown} are neither dimensions of {results.rep.name!r}, {dimensions.names[:3]} "
            f"..., nor genes in adata.var_names.{advice_on_genes(adata, unknown)}"
        )
    found = _columns(dimensions, [dimensions.names.index(name) for name in names if name in dimensions.names])
    if genes:
        features = read_genes(adata, results, key, layer)
        found |= _columns(features, [features.names.index(name) for name in genes])
    return {name: found[name] for name in names}


def _columns(features: Features, which: list[int]) -> dict[str, Samples]:
    kinds = [values.columns(which).T for values in (features.source, features.predicted, features.observed)]
    return {features.names[i]: samples for i, samples in zip(which, zip(*kinds, strict=True), strict=True)}


def _draw(ax: Axes, samples: Samples) -> bool:
    """Draw histograms, source and observed as areas and predicted as a line; return if the axis is a square root."""
    pooled = np.concatenate(samples)
    low, high = np.percentile(pooled, [_TAIL, 100 - _TAIL])
    # All three histograms share the bins, so that their bars can be compared.
    n_bins = int(np.clip(np.sqrt(min(map(len, samples))), 12, 40))
    edges = np.histogram_bin_edges(pooled, n_bins, range=(low, high))
    fractions = [np.histogram(values.clip(edges[0], edges[-1]), edges)[0] / len(values) for values in samples]
    source, predicted, observed = fractions
    ax.stairs(source, edges, fill=True, color=SOURCE, alpha=_FAINT, linewidth=0)
    ax.stairs(observed, edges, fill=True, color=OBSERVED, alpha=_FAINT, linewidth=0)
    ax.stairs(predicted, edges, color=PREDICTED, linewidth=1.4)
    for values, color in zip(samples, (SOURCE, PREDICTED, OBSERVED), strict=True):
        face, zorder = ("none", 5) if color == PREDICTED else (color, 4)
        ax.plot(values.mean(), 0, "^", color=face, markeredgecolor=color, clip_on=False, zorder=zorder)
    ax.set_ylim(bottom=0)
    ax.spines[["top", "right"]].set_visible(False)
    ax.locator_params(nbins=4)
    # One bar that is far higher than all others would flatten them on a linear axis. Predicted zeros of a gene are
    # spread over several bars, which must not count as others.
    highest, second = np.max(fractions), np.sort(np.maximum(source, observed))[-2]
    if not 0 < _SPIKE * second < highest:
        return False
    ax.set_yscale("function", functions=(lambda share: np.sqrt(np.maximum(share, 0)), np.square))
    ax.set_yticks([tick for tick in (0, 0.05, 0.2, 0.5, 1) if tick < 1.1 * highest])
    ax.set_ylim(bottom=0)
    return True
