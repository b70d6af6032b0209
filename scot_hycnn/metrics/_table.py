"""The table that evaluate returns: intervals, the scaled score, and what it says about groups that are kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from scot_hycnn._anndata.evaluation._evaluation_input import EVALUATION_COLUMNS, SAME_COMPOSITION, headline_of, is_low

from ._gene_scores import IN_REPRESENTATION, TOPS, WITHIN
from ._resampling import CEILING, REPLICATE, Scores, interval

BASELINES, OURS = ("identity", "mean_shift", "gaussian"), "hycnn_ot"
# Metrics in the order of rows, with the range of their values.
_RANGES = {
    "energy_distance": (-np.inf, np.inf),
    "mmd": (-np.inf, 2.0),
    "w2_squared": (0.0, np.inf),
    "sinkhorn_divergence": (-np.inf, np.inf),
    "trace_ratio": (0.0, np.inf),
    "kept_group": (0.0, 1.0),
    "r2_mean": (0.0, 1.0),
    **{f"r2_mean_top{n}": (0.0, 1.0) for n in TOPS},
    "pearson_delta": (-1.0, 1.0),
    **{f"deg_overlap_top{n}": (0.0, 1.0) for n in TOPS},
    **{f"{metric}{IN_REPRESENTATION}": (lowest, 1.0) for metric, lowest in WITHIN.items()},
}
# The others have no scale from no change to a replicate: 1 is best for the trace ratio, no change may keep all groups,
# and of half as many cells fewer genes are found.
_UNSCALED = ("trace_ratio", "kept_group", "deg_overlap")


def rows_of(scores: Scores, methods: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """Yield method, metric, value and difference to the Gaussian map, with intervals, in the order of the methods."""
    for method in (*methods, REPLICATE, CEILING):
        for metric, limits in _RANGES.items():
            if (method, metric) not in scores:
                continue
            values, of_gaussian = scores[method, metric], scores["gaussian", metric]
            is_of_splits = method in (REPLICATE, CEILING)
            row = interval(values, *limits, of_replicate=is_of_splits)
            if is_of_splits:
                versus = tuple(bound - of_gaussian[0] for bound in row)
            else:
                versus = interval(values - of_gaussian, -np.inf, np.inf, of_replicate=False)
            yield method, metric, *row, *versus


def table_of(rows: Sequence[tuple[Any, ...]]) -> pd.DataFrame:
    """Return the rows as a table, with the share of kept cells and the scaled score beside every score."""
    table = pd.DataFrame(rows, columns=[name for name in EVALUATION_COLUMNS if name not in ("kept_group", "scaled")])

    def values(place: list[str], method: str | None = None, metric: str | None = None, name: str = "value") -> Any:
        of = table[(table["method"] == method) if metric is None else (table["metric"] == metric)]
        return of.set_index(place)[name].reindex(pd.MultiIndex.from_frame(table[place])).to_numpy(dtype=np.float64)

    table["kept_group"] = values(["target", "group", "method"], metric="kept_group")
    # 0 is no change, and 1 what can be expected at best: the ceiling, or a replicate.
    place, is_delta = ["target", "group", "metric"], table["metric"].str.startswith("pearson_delta")
    nothing = np.where(is_delta, 0.0, values(place, "identity"))  # no change has no correlation
    ceiling, replicate = values(place, CEILING), values(place, REPLICATE)
    best = np.where(np.isnan(ceiling), replicate, ceiling)
    # Where no change is as good as a replicate, or as the ceiling, no response is seen, and nothing to scale by.
    is_scaled = ~table["metric"].str.startswith(_UNSCALED).to_numpy() & (best != nothing)
    for method in (REPLICATE, CEILING):
        low, high = values(place, method, name="low"), values(place, method, name="high")
        is_scaled &= ~((nothing >= low) & (nothing <= high))
    value = np.where(is_delta & table["value"].isna(), 0.0, table["value"])
    # 0.0 is added because 0 over a negative number is -0.
    table["scaled"] = np.where(is_scaled, value - nothing, np.nan) / np.where(is_scaled, best - nothing, 1) + 0.0
    return table[list(EVALUATION_COLUMNS)]


def notes_of_kept_groups(table: pd.DataFrame, column: str) -> list[str]:
    """Say of which targets the map carries cells into other groups, and which groups lose most."""
    notes = []
    for target, scores in table[table["metric"] == "kept_group"].groupby("target", sort=False):
        ours, replicate = (scores[scores["method"] == method].set_index("group") for method in (OURS, REPLICATE))
        headline = headline_of(ours.index)
        if not is_low(ours.loc[headline], replicate.loc[headline]):
            continue
        lost = (replicate["value"] - ours["value"]).drop([SAME_COMPOSITION, "all"], errors="ignore").dropna()
        most = str(lost.idxmax()) if len(lost) else ""
        worst = f", {ours['value'][most]:.0%} of {most!r}" if most else ""
        notes.append(
            f"The map to {target!r} carries cells into other groups of adata.obs[{column!r}]: "
            f"{ours['value'][headline]:.1%} of the predicted cells lie among treated cells of their own group{worst}; "
            f"of the treated cells themselves {replicate['value'][headline]:.1%} do. Fit with group_key={column!r}."
        )
    return notes
