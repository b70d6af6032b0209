"""The progress bar: steps of one map, or maps of many, with the gain on the Gaussian map and the time that is left."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tqdm.auto import tqdm

# Adds steps of all maps together, and at checks shows the mean J minus that of the Gaussian map: below 0 the networks
# are better.
Update = Callable[..., None]
# Several maps train together, so that fractions of maps are done at a time.
_MANY = "{l_bar}{bar}| {n:.1f}/{total:.0f} maps [{elapsed}<{remaining}{postfix}]"


@contextmanager
def progress_bar(steps: Sequence[int], *, show: bool | None) -> Iterator[Update]:
    """Show a bar over the steps of a single map, or over many maps with these steps, and give what moves it.

    None shows it in a terminal after a second, but not where tests run.
    """
    options: dict[str, Any] = {"unit": "step"}
    if len(steps) > 1:
        options = {"unit": "map", "bar_format": _MANY, "unit_scale": len(steps) / sum(steps)}
    options |= {"disable": "CI" in os.environ or None, "delay": 1} if show is None else {"disable": not show}
    with tqdm(desc="HyCNN-OT", total=sum(steps), **options) as bar:

        def update(n_steps: int, gain: float | None = None) -> None:
            if gain is not None:
                bar.set_postfix_str(f"J - J_Gauss {gain:.3g}", refresh=False)
            bar.update(n_steps)

        yield update
