"""What every plot does last."""

from __future__ import annotations

from typing import TypeVar

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scanpy import settings

Drawn = TypeVar("Drawn", Axes, list[Axes])


def finish(drawn: Drawn, *, show: bool | None, return_fig: bool) -> Drawn | Figure | None:
    """Show the figure, or return it or its axes, as scanpy's plots do."""
    if return_fig:
        figure = (drawn[0] if isinstance(drawn, list) else drawn).get_figure(root=True)
        assert figure is not None
        return figure
    if settings.autoshow if show is None else show:
        plt.show()
        return None
    return drawn
