"""Evaluation of a fit and of other predictions, stored in uns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from anndata import AnnData
from scanpy import logging as logg

from scot_hycnn import metrics
from scot_hycnn._anndata._conditions import Mask
from scot_hycnn._anndata._schema import evaluation_slot
from scot_hycnn._anndata._write import claim, commit
from scot_hycnn._anndata.evaluation._evaluation_input import check_evaluation_slot, evaluation_as_arrays
from scot_hycnn._anndata.evaluation._predictions import Predictions
from scot_hycnn._anndata.genes._decode_input import Decoder

from ._fitting import threads_of_scanpy


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
    key_added: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    """Score a fit, or any predictions, on held-out cells beside baselines and a replicate; store the scores.

    :func:`scot_hycnn.metrics.evaluate` explains the scores, :func:`scot_hycnn.get.evaluation` returns them, and
    :func:`scot_hycnn.pl.evaluation` draws them. Where groups are known, the row ``'all, same composition'`` is the one
    to report. The log says whether training cells are evaluated, what is left out, and whether a map that was fitted
    without groups carries cells into other groups.

    Parameters
    ----------
    adata
        Cells with a fit of :func:`scot_hycnn.tl.hycnn_ot`, or without one if ``source`` and ``target`` are passed.
    key
        Key of the fit in ``uns``.
    predictions
        Layers or keys of ``obsm`` with predictions of other methods; on the command line also .h5ad and .zarr files. In
        Python also an AnnData, a function of coordinates, or a dict of name to one of these, as
        :func:`scot_hycnn.metrics.evaluate` describes.
    source, target, condition_key, use_rep, groupby, mask_obs, split_key
        As for :func:`scot_hycnn.metrics.evaluate`: the cells to evaluate, and their groups.
    layer, decoder, split_control, correction, n_bootstrap, rng
        As for :func:`scot_hycnn.metrics.evaluate`: the way to genes, and the bootstrap.
    key_added
        Stem of the key; None means ``key``. Earlier scores are replaced, with a warning.
    copy
        Return a changed copy instead of changing ``adata``.

    Returns
    -------
    None, or the copy. ``adata.uns['hycnn_ot_evaluation']``: the columns of :func:`scot_hycnn.metrics.evaluate` as
    arrays of equal length.

    Raises
    ------
    ValueError
        As for :func:`scot_hycnn.metrics.evaluate`, or if ``key_added`` is no valid key or names something else than
        an evaluation. Then nothing is changed.

    Examples
    --------
    >>> import numpy as np
    >>> import scot_hycnn as sh
    >>> adata = sh.datasets.pbmc_planted(n_cells=400)
    >>> train = np.random.default_rng(0).random(400) < 0.7
    >>> sh.tl.hycnn_ot(adata, "control", "IFN-beta", mask_obs=train, n_pcs=5, potential="gaussian")
    >>> sh.tl.evaluate(adata, mask_obs=~train, n_bootstrap=20)
    >>> sorted(set(sh.get.evaluation(adata)["method"]))
    ['ceiling', 'gaussian', 'hycnn_ot', 'identity', 'mean_shift', 'replicate']
    """
    adata = claim(adata, copy=copy)
    stem = key if key_added is None else key_added
    check_evaluation_slot(adata, stem)
    start = logg.info(f"evaluating the fit {key!r}" if source is None else "evaluating predictions")
    with threads_of_scanpy():
        scores = metrics.evaluate(
            adata,
            key,
            predictions=predictions,
            source=source,
            target=target,
            condition_key=condition_key,
            use_rep=use_rep,
            groupby=groupby,
            mask_obs=mask_obs,
            split_key=split_key,
            layer=layer,
            decoder=decoder,
            split_control=split_control,
            correction=correction,
            n_bootstrap=n_bootstrap,
            rng=rng,
        )
    added = commit(adata, {"uns": {evaluation_slot(stem): evaluation_as_arrays(scores)}})
    # Notes follow the scores, which take minutes: they say which scores are flattered, and what is left out.
    for note in scores.attrs["notes"]:
        logg.warning(note)
    logg.info("    finished", time=start, deep=added)
    return adata if copy else None
