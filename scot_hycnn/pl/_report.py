"""The report of a fit: one interactive page."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path

from anndata import AnnData

from scot_hycnn._anndata._conditions import as_labels
from scot_hycnn._anndata._files import check_writable, written_whole
from scot_hycnn._anndata._fit_input import check_counts
from scot_hycnn._anndata._results import group_column, read_fit
from scot_hycnn._anndata.evaluation._screen_input import read_screen_cells
from scot_hycnn.get._summary import EVERYONE, table_of


def report(
    adata: AnnData,
    path: str | Path,
    key: str = "hycnn_ot",
    *,
    target: str | Sequence[str] | None = None,
    basis: str | None = None,
    groupby: str | None = None,
    layer: str | None = None,
    n_genes: int = 100,
    max_cells: int = 4000,
    title: str | None = None,
) -> Path:
    """Write one HTML page that shows what was fitted, how good it is and what it does, and needs no network.

    The page says in plain words whether the prediction is nearer to the observed cells than no change, a shift of the
    mean and the Gaussian map. It shows cells before and after, how far groups move, scores, genes, training,
    certificate, parameters and versions, or what to run if something is not stored. Of several targets, such as those
    of a screen, it begins with the table of :func:`scot_hycnn.get.summary`, in which a reader chooses.

    Parameters
    ----------
    adata
        Cells with a fit of :func:`scot_hycnn.tl.hycnn_ot`.
    path
        The page, ``.html``; an existing file is replaced.
    key
        Key of the fit in ``uns``.
    target
        Label of a target condition, or several, between which a reader can choose; None takes all targets of the fit.
    basis
        Embedding in ``obsm`` to show beside the first two dimensions of the representation; None takes ``'X_umap'``. A
        warning says if its stored projection is of another fit.
    groupby
        Column of ``obs`` with labels, such as cell types. None takes the ``group_key`` of the fit, else the first
        column of 2 to 40 labels that holds neither the conditions nor the split. Colours are those of scanpy's palette,
        if it can be used.
    layer
        Key of ``layers`` with measured expression, as given to :func:`scot_hycnn.tl.decode`.
    n_genes
        How many genes are listed: those with the largest Welch t between observed and source cells.
    max_cells
        Draw at most this many measured cells at random, half of them source; all numbers are of all cells. Several
        targets share 36,000.
    title
        Heading of the page; None names the conditions.

    Returns
    -------
    The path of the page.

    Raises
    ------
    FileNotFoundError
        If the folder of ``path`` does not exist.
    ValueError
        If a fit, target, embedding, column or layer does not exist, measured values are not those of the PCA, there are
        more than 300 targets, or ``path`` does not end in ``.html``.

    Examples
    --------
    >>> import scot_hycnn as sh
    >>> adata = sh.datasets.pbmc_planted(n_cells=400)
    >>> import tempfile
    >>> sh.tl.hycnn_ot(adata, "control", "IFN-beta", n_pcs=5, potential="gaussian")
    >>> page = sh.pl.report(adata, tempfile.gettempdir() + "/report.html")
    """
    path = Path(path)
    check_writable(path, overwrite=True, suffixes=(".html",))
    check_counts(n_genes=n_genes)
    check_counts(2, max_cells=max_cells)
    # The report uses colours and positions of this package, so it can be imported only after it.
    from scot_hycnn.report import content, html, index_of  # noqa: PLC0415

    fit = read_fit(adata, key)
    # The cells of all targets are found, and their groups tested, once for each column.
    read_cells = cache(partial(read_screen_cells, adata, fit))
    shown = content(
        adata,
        fit,
        read_cells,
        targets=None if target is None else as_labels(target),
        basis=basis,
        groupby=groupby,
        layer=layer,
        n_genes=n_genes,
        max_cells=max_cells,
        title=title,
    )
    if len(shown["targets"]) > 1:
        table = table_of(read_cells(group_column(adata, fit, groupby)))
        labels = [section["label"] for section in shown["targets"]]
        shown["index"] = index_of(table[(table["group"] == EVERYONE) & table["condition"].isin(labels)])
    page = html(shown)
    with written_whole(path, overwrite=True) as part:
        part.write_text(page, encoding="utf-8", newline="\n")
    return path
