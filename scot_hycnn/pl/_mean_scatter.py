"""Predicted against observed means."""

from __future__ import annotations

from typing import NamedTuple, cast

import numpy as np
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scot_hycnn._anndata import (
    Features,
    Results,
    check_counts,
    has_genes_decoded,
    read_dimensions,
    read_genes,
    read_results,
)

from ._colors import PREDICTED
from ._groups import paired_members
from ._names import add_names
from ._panels import check_one_panel, grid
from ._positions import Points
from ._show import finish
from ._text import PLAIN

_SOURCE_GREY = "#8C8C8C"


class _Means(NamedTuple):
    """Of every feature, shape (features,) each."""

    source: Points
    predicted: Points
    observed: Points

    @classmethod
    def of(cls, cells: Features) -> _Means:
        return cls(*(values.moments()[0] for values in (cells.source, cells.predicted, cells.observed)))


def mean_scatter(
    adata: AnnData,
    key: str = "hycnn_ot",
    target: str | None = None,
    *,
    groupby: str | None = None,
    layer: str | None = None,
    n_labels: int = 10,
    n_cols: int = 4,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool = False,
) -> Axes | list[Axes] | Figure | None:
    r"""Draw the mean of every gene in predicted cells against that in observed ones, and that in source cells.

    The nearer the points lie to the line, the better the prediction. :math:`R^2` in the title is the squared Pearson
    correlation over genes, as of :func:`scot_hycnn.metrics.r2_mean`: it is high without any prediction, so that of the
    source cells stands beside it.

    Parameters
    ----------
    adata
        Cells with a fit of :func:`scot_hycnn.tl.hycnn_ot`. Predicted genes come from the layer that
        :func:`scot_hycnn.tl.decode` writes; without it, dimensions of the representation take the genes' place.
    key
        Where the fit lies in ``uns``.
    target
        Label of the target condition; may be None if there is one.
    groupby
        Column of ``obs`` with labels, such as cell types: one panel for each that has cells of both conditions.
    layer
        Key of ``layers`` with measured expression, as given to :func:`scot_hycnn.tl.decode`.
    n_labels
        Names are written at so many genes, those with the largest observed change of the mean.
    n_cols
        Panels in a row.
    ax
        Draw here; not with ``groupby``, unless it has one group.
    show
        Show the figure and return None; None follows ``scanpy.settings.autoshow``.
    return_fig
        Return the figure.

    Returns
    -------
    The axes if ``show`` is False, in a list if ``groupby`` is given; the figure if ``return_fig``.

    Raises
    ------
    TypeError
        If ``groupby`` is a list.
    ValueError
        If there is no such fit, target or column, several targets and none named, slots or the measured layer are gone,
        no group has cells of both conditions, ``ax`` is given for several panels, or a number is not whole.

    Examples
    --------
    >>> import scot_hycnn as sh
    >>> adata = sh.datasets.pbmc_planted(n_cells=400)
    >>> sh.tl.hycnn_ot(adata, "control", "IFN-beta", potential="gaussian")
    >>> sh.tl.decode(adata)
    >>> ax = sh.pl.mean_scatter(adata, show=False)
    >>> ax.get_xlabel()
    'observed mean expression'
    """
    check_counts(n_cols=n_cols)
    check_counts(0, n_labels=n_labels)
    results = read_results(adata, key, target)
    is_genes = has_genes_decoded(adata, results, key)
    features = read_genes(adata, results, key, layer) if is_genes else read_dimensions(results)
    panels = _panels(adata, results, features, groupby)
    check_one_panel(ax, len(panels), f"groupby={groupby!r}")
    axes = grid(len(panels), n_cols, (3.4, 3.6))[1] if ax is None else [ax]
    what = "mean expression" if is_genes else f"mean of {results.rep.name}"
    means = [_Means.of(cells) for cells in panels.values()]
    for i, (panel, title) in enumerate(zip(axes, panels, strict=True)):
        _draw(panel, means[i], title)
        # Axes of lower rows and of columns on the right mean the same.
        panel.set_xlabel(f"observed {what}" if i + n_cols >= len(axes) else "", **PLAIN)
        panel.set_ylabel(f"predicted {what}" if i % n_cols == 0 else "", **PLAIN)
    axes[0].legend(loc="lower right", frameon=False, fontsize="small", handletextpad=0.1)
    figure = axes[0].get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()  # names are placed once nothing moves any more
    for panel, drawn_means in zip(axes, means, strict=True):
        _name_genes(panel, drawn_means, features.names, n_labels)
    drawn = axes if groupby is not None and ax is None else axes[0]
    return cast("Axes | list[Axes] | Figure | None", finish(drawn, show=show, return_fig=return_fig))


def _panels(adata: AnnData, results: Results, features: Features, groupby: str | None) -> dict[str, Features]:
    if groupby is None:
        return {f"{results.source} → {results.target}": features}
    return {
        f"{label} ({len(source)}, {len(observed)} cells)": features.among(source, observed)
        for label, (source, observed) in paired_members(adata, groupby, results).items()
    }


def _draw(ax: Axes, means: _Means, title: str) -> None:
    middle = means.observed.mean()
    ax.axline((middle, middle), slope=1, color="black", linewidth=0.8, linestyle="--", zorder=1)
    for values, color, kind in ((means.source, _SOURCE_GREY, "source"), (means.predicted, PREDICTED, "predicted")):
        ax.scatter(
            means.observed, values, s=8, color=color, alpha=0.7, linewidths=0, label=kind, rasterized=True, zorder=2
        )
    scores = _r2(means.predicted, means.observed), _r2(means.source, means.observed)
    ax.set_title(f"{title}\nR² = {scores[0]:.3f} (source {scores[1]:.3f})", fontsize="medium", **PLAIN)
    ax.set_aspect("equal", adjustable="datalim")
    ax.spines[["top", "right"]].set_visible(False)


def _name_genes(ax: Axes, means: _Means, names: list[str], n_labels: int) -> None:
    top = np.argsort(-np.abs(means.observed - means.source), kind="stable")[:n_labels]
    points = np.column_stack([means.observed, means.predicted])
    line = np.linspace(means.observed.min(), means.observed.max(), 200)
    others = np.concatenate([points, np.column_stack([means.observed, means.source]), np.column_stack([line, line])])
    add_names(ax, points[top], [names[i] for i in top], others)


def _r2(predicted: Points, observed: Points) -> float:
    """NaN where there is nothing to correlate."""
    if np.ptp(predicted) == 0 or np.ptp(observed) == 0:
        return float("nan")
    return float(np.corrcoef(predicted, observed)[0, 1] ** 2)
