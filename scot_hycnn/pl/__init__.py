"""Figures of a fit that is stored in AnnData, drawn by matplotlib with scanpy's ``show``, ``ax`` and ``return_fig``.

To save a figure: ``sh.pl.transport(adata, return_fig=True).savefig("transport.pdf")``. There is no ``save=``, which
scanpy has deprecated.
"""

from __future__ import annotations

from ._deg import deg
from ._displacement import displacement
from ._embedding import embedding
from ._evaluation import evaluation
from ._growth import growth
from ._history import history
from ._marginals import marginals
from ._mean_scatter import mean_scatter
from ._report import report
from ._screen import screen
from ._similarity import similarity
from ._transport import transport

__all__ = [
    "deg",
    "displacement",
    "embedding",
    "evaluation",
    "growth",
    "history",
    "marginals",
    "mean_scatter",
    "report",
    "screen",
    "similarity",
    "transport",
]
