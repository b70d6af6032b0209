"""Genes that change: observed and predicted."""

from __future__ import annotations

import pandas as pd
from anndata import AnnData

from scot_hycnn._anndata._decode_input import Decoder
from scot_hycnn._anndata._genes import deg_table


def deg(
    adata: AnnData,
    key: str = "hycnn_ot",
    target: str | None = None,
    *,
    groupby: str | None = None,
    layer: str | None = None,
    decoder: Decoder | None = None,
    min_fraction: float = 0.1,
) -> pd.DataFrame:
    return deg_table(adata, key, target, groupby=groupby, layer=layer, decoder=decoder, min_fraction=min_fraction)
