"""Genes that change: observed and predicted."""

from __future__ import annotations

import pandas as pd
from anndata import AnnData
from scanpy import logging as logg

from scot_hycnn._anndata.genes._decode_input import Decoder
from scot_hycnn._anndata.genes._genes import base_of_logarithm, deg_table, read_evaluated, read_genes


def deg(
    adata: AnnData,
    key: str = "hycnn_ot",
    target: str | None = None,
    *,
    groupby: str | None = None,
    layer: str | None = None,
    decoder: Decoder | None = None,
    correction: str | None = "groups",
    min_fraction: float = 0.1,
) -> pd.DataFrame:
    r"""Return the observed and the predicted change of every gene, with scores and adjusted p values of both.

    The change of a gene and its error are, over strata g (one, or those of ``group_key``) with n source cells and m
    observed treated cells each,

    .. math::
        \Delta     &= \sum_g w_g (\bar y_g - \bar x_g), \\
        \hat\Delta &= \sum_g w_g \, V (\overline{T(x)}_g - \bar x_g), \\
        e^2        &= \sum_g w_g^2 \left(\frac{s_{x,g}^2}{n_g} + \frac{s_{y,g}^2}{m_g}\right),

    where :math:`w_g` is the share of stratum g among the source cells. The scores are :math:`\Delta / e`, which is
    Welch's t, and :math:`\hat\Delta / e`. Both have the error of the observed cells: predicted cells are the source
    cells once more, so their own variance measures no noise, and tests on them are not valid. The p value of a
    prediction says whether a change of this size would be seen with as many cells; it says nothing about how good the
    map is, which :func:`scot_hycnn.tl.evaluate` does.

    If the fit was made with a split, only held-out cells are used, of each group that has some of both conditions. The
    log and the column ``held_out`` say so.

    Parameters
    ----------
    adata
        Cells with a fit of :func:`scot_hycnn.tl.hycnn_ot`, and the expression that its representation was made from.
    key
        Key of the fit in ``uns``.
    target
        Label of the target condition; may be None if there is one.
    groupby
        Column of ``obs`` such as cell types: rows for each of its groups. None gives rows of all cells, ``'all'``; if
        the fit was made with ``group_key``, its groups are the strata, so that a shift of their proportions is not
        taken for a change of genes.
    layer, decoder
        Way from the representation to genes, as for :func:`scot_hycnn.tl.decode`, whose layer is used if it exists.
    correction
        Correct the predicted change of each group by the residuals of the groups that were seen, as for
        :func:`scot_hycnn.tl.decode`; a layer of that function has the correction that it was decoded with.
    min_fraction
        Leave out genes that fewer source cells, and fewer observed cells, than this share express: whose value is not
        0, or of scaled values not the smallest one, which cells without transcripts have.

    Returns
    -------
    One row for each group and gene, those of the largest absolute observed score first, with the columns

    ``gene``, ``group``, ``observed_change``, ``predicted_change``
        Names, and changes of the mean, in the units of the expression.
    ``observed_logfc``, ``predicted_logfc``
        Fold change as ``sc.tl.rank_genes_groups`` computes it: log2 of the ratio of expm1 of the means (plus 1e-9) of
        log-transformed values, of natural logarithms unless ``adata.uns['log1p']`` has another base. It is extreme
        where a mean is 0. NaN, with a sentence in the log, if values are counts or some are negative (z-scores).
    ``observed_score``, ``predicted_score``, ``observed_pval_adj``, ``predicted_pval_adj``
        Scores, and p values of Student's t with Satterthwaite's degrees of freedom, adjusted within the group by
        Benjamini and Hochberg. A prediction has none of a gene that does not vary.
    ``predicted_std``
        Standard deviation of the predicted change, from the residuals of the groups that were seen: how far the
        response of such a group is expected to be from the prediction. With ``leave_out='donor'`` these are the types
        of each donor, so that it counts how donors differ. 88 to 90 % of the errors in types that were left out are
        below two of them, and 90 to 98 % in made-up donors. It grows with the distance of its control cells from those
        of the seen groups, and with fewer groups and cells, and is not part of the scores. NaN without ``correction``.
    ``source_mean``, ``fraction``, ``in_representation``, ``predicted``, ``n_source``, ``n_target``, ``held_out``
        Mean of the source cells, and the larger share of source or observed cells that express the gene; whether the
        representation was made from it, and whether its change is predicted at all; numbers of cells, and whether they
        were all held out of the fit.

    A group with fewer than two source cells is left out. In one with fewer than two observed cells, observed values are
    NaN, and :math:`s_y^2 / m` is replaced by :math:`s_x^2 / n`.

    Raises
    ------
    ValueError
        As for :func:`scot_hycnn.get.predicted`, or if ``min_fraction`` is not from 0 to 1, or no group has cells.

    References
    ----------
    Welch (1947), Biometrika 34. Satterthwaite (1946), Biometrics Bulletin 2. Benjamini & Hochberg (1995), JRSS B 57.

    Examples
    --------
    >>> import scot_hycnn as sh
    >>> adata = sh.datasets.pbmc_planted(n_cells=400)
    >>> sh.tl.hycnn_ot(adata, "control", "IFN-beta", potential="gaussian")
    >>> genes = sh.get.deg(adata, groupby="cell_type")
    >>> monocytes = genes[genes["group"] == "CD14+ Monocyte"]
    >>> "ISG20" in set(monocytes["gene"][monocytes["predicted_pval_adj"] < 0.05])
    True
    """
    if not 0 <= min_fraction <= 1:
        raise ValueError(f"min_fraction={min_fraction!r} must be a share of the cells, from 0 to 1.")
    results, called = read_evaluated(adata, key, target, groupby)
    features = read_genes(adata, results, key, layer, decoder, correction=correction)
    base, said = base_of_logarithm(adata, features)
    table = deg_table(adata, key, results, features, groupby=groupby, min_fraction=min_fraction, base=base)
    n_outside = int((~features.in_representation).sum())
    outside = f"; {n_outside} of the genes lie outside of {results.rep.name!r}" if n_outside else ""
    logg.info(f"changes in {called}: n = {len(results.source_rows)} and {len(results.target_rows)}{outside}")
    if said:
        (logg.warning if base is None else logg.info)(said)
    n_in_raw = 0 if adata.raw is None else int((~adata.raw.var_names.isin(adata.var_names)).sum())
    if n_in_raw:
        logg.warning(
            f"{n_in_raw:,} genes are in adata.raw alone and are not predicted: keep all genes in adata, where "
            "sc.pp.highly_variable_genes marks those for the PCA, and fit again"
        )
    return table
