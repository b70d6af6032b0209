"""The progress bar: steps of one map, or maps of many, with the gain on the Gaussian map and the time that is left."""

from __future__ import annotations

import os
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from tqdm.auto import tqdm

# Several maps train together, so that fractions of maps are done at a time.
_MANY = "{l_bar}{bar}| {n:.1f}/{total:.0f} maps [{elapsed}<{remaining}{postfix}]"


class Progress:
    """A progress bar, to be used in a ``with`` statement.

    Parameters
    ----------
    steps
        Steps of each map. The bar of a single map counts its steps; that of many counts maps.
    show
        Whether to show it; None shows it in a terminal after a second, but not where tests run.
    """

    def __init__(self, steps: Sequence[int], *, show: bool | None) -> None:
        options: dict[str, Any] = {"unit": "step"}
        if len(steps) > 1:
            options = {"unit": "map", "bar_format": _MANY, "unit_scale": len(steps) / sum(steps)}
        if show is None:
            options |= {"disable": "CI" in os.environ or None, "delay": 1}
        else:
            options |= {"disable": not show}
        self._bar = tqdm(desc="HyCNN-OT", total=sum(steps), **options)

    def update(self, steps: int, gain: float | None = None) -> None:
        """Add steps, and at checks the mean J minus that of the Gaussian map: below 0 the networks are better."""
        if gain is not None:
            self._bar.set_postfix_str(f"J - J_Gauss {gain:.3g}", refresh=False)
        self._bar.update(steps)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
