"""The progress bar: the part that is done, the time that is left, and the gain over the Gaussian map."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tqdm.auto import tqdm

# Adds steps of all maps together, and at checks shows the mean of J minus that of the Gaussian map.
Update = Callable[..., None]
# Several maps train together, so that fractions of maps are done at a time.
_ONE = "{l_bar}{bar}| [{elapsed}<{remaining}{postfix}]"
_MANY = "{l_bar}{bar}| {n:.1f}/{total:.0f} maps [{elapsed}<{remaining}{postfix}]"


@contextmanager
def progress_bar(steps: Sequence[float], *, show: bool | None) -> Iterator[Update]:
    """Show a bar over the steps of a single map, or over many maps with these steps, and give what moves it.

    None shows it after a second in a terminal or a notebook, but not where tests run.
    """
    # Checks take longer than steps: the time that is left is that of the mean rate rather than of the last steps.
    options: dict[str, Any] = {"bar_format": _ONE, "smoothing": 0.05}
    if len(steps) > 1:
        options |= {"bar_format": _MANY, "unit_scale": len(steps) / sum(steps)}
    # The output of a Jupyter kernel is no terminal, and shows bars: as a widget, or as text without ipywidgets.
    in_kernel = type(sys.stderr).__module__.startswith("ipykernel.")
    is_seen = "CI" not in os.environ and (in_kernel or (sys.stderr is not None and sys.stderr.isatty()))
    options |= {"disable": not is_seen, "delay": 1} if show is None else {"disable": not show}
    with tqdm(desc="HyCNN-OT", total=sum(steps), **options) as bar:

        def update(n_steps: float, difference: float | None = None) -> None:
            # J is smaller where a map is better.
            if difference is not None:
                bar.set_postfix_str(f"gain over the Gaussian map {-difference:.3g}", refresh=False)
            bar.update(n_steps)

        yield update
        # Sums of fractions of steps are rounded, and a notebook shows a bar that ends before its total in red.
        bar.update(bar.total - bar.n)
