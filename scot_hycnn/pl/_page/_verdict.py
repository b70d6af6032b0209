"""What the numbers say about a map, in plain words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from scot_hycnn.pl._evaluation import FLOOR

_METRIC = "energy_distance"
_ALL = "all"
_NOT_TRAINED = "No network was trained: the closed-form map is what was asked for."


class _Score(NamedTuple):
    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return number(self.value)

    @property
    def has_interval(self) -> bool:
        return math.isfinite(self.low) and math.isfinite(self.high)

    @property
    def interval(self) -> str:
        return f" ({percent(0.95)} interval {number(self.low)} to {number(self.high)})" if self.has_interval else ""


_Found = Mapping[str, _Score]  # by method


def number(value: float) -> str:
    """Three digits, with the sign that print uses."""
    return f"{value:.3g}".replace("-", "\N{MINUS SIGN}")


def percent(part: float) -> str:
    """In percent, three digits, on one line."""
    return f"{100 * part:.3g}\N{NO-BREAK SPACE}%"


def verdict(
    validation: Mapping[str, Any], scores: pd.DataFrame | None, *, is_trained: bool = True, n_seen: int = 0, how: str
) -> dict[str, Any]:
    """Say whether the map is better than the simple answers, and how near it comes to the best one possible.

    Parameters
    ----------
    validation
        What the fit has measured on its validation cells.
    scores
        Of this target, as :func:`scot_hycnn.tl.evaluate` stores them; None if it was not run.
    is_trained
        Whether there are networks; the Gaussian map may be all that was asked for.
    n_seen
        How many of the evaluated cells the fit has seen, at least.
    how
        How to run an evaluation.

    Returns
    -------
    A level, 'better', 'same', 'worse' or 'open', a headline, and sentences.
    """
    on_validation = _on_validation(validation) if is_trained else _NOT_TRAINED
    distances = None if scores is None else scores[scores["metric"] == _METRIC]
    found = {} if distances is None else _by_method(distances[distances["group"] == _ALL])
    if distances is None or not {"hycnn_ot", "gaussian"} <= found.keys():
        level, headline = _without_evaluation(validation, is_trained=is_trained)
        missing = (
            "Held-out cells have not been evaluated, so there is no floor and no interval."
            if scores is None
            else "The stored evaluation has no energy distance of both this map and the Gaussian one."
        )
        return {"level": level, "headline": headline, "sentences": [on_validation, f"{missing} Run {how}."]}
    is_gaussian = validation["blend"] == 0
    difference = _difference(distances[distances["group"] == _ALL])
    level, headline = (
        _without_evaluation(validation, is_trained=is_trained) if is_gaussian else _against_gaussian(difference)
    )
    compared, groups = ([], []) if is_gaussian else (_compared(difference), _by_group(distances))
    sentences = [_distances(found, distances), *compared, *_reach(found), *groups, on_validation]
    if n_seen:
        sentences.append(
            f"At least {n_seen:,} of the evaluated are cells that the fit has seen, which flatters it: hold cells "
            "out with sh.pp.split, and fit and evaluate again."
        )
    return {"level": level, "headline": headline, "sentences": sentences}


def _by_method(rows: pd.DataFrame, columns: Sequence[str] = _Score._fields) -> dict[str, _Score]:
    numbers = (rows[name].to_numpy(dtype=float).tolist() for name in columns)
    return {str(method): _Score(*score) for method, *score in zip(rows["method"], *numbers, strict=True)}


def _difference(rows: pd.DataFrame) -> _Score:
    """The map's score minus the Gaussian map's, on the same cells."""
    return _by_method(rows, ("vs_gaussian", "vs_gaussian_low", "vs_gaussian_high"))["hycnn_ot"]


def _on_validation(validation: Mapping[str, Any]) -> str:
    blend = float(validation["blend"])
    on = f"On {int(validation['n_source']):,} source and {int(validation['n_target']):,} target validation cells"
    if blend == 0:
        return f"{on} the networks were not better than the closed-form Gaussian map, which was kept."
    gap = float(validation["J_gaussian"]) - float(validation["J"])
    errors, blends = (list(validation.get(name, [])) for name in ("J_error_by_blend", "blends"))
    error = f" ± {number(float(errors[blends.index(blend)]))} (standard error)" if blend in blends and errors else ""
    part = "the networks" if blend == 1 else f"a blend of {percent(blend)} networks and the Gaussian map"
    if not math.isfinite(gap):
        what = f"the objective J of optimal transport is not finite for {part}, and compares with nothing"
    elif gap < 0:
        what = f"{part} raised the objective J of optimal transport above the Gaussian map's by {number(-gap)}{error}"
    else:
        what = f"{part} lowered the objective J of optimal transport below the Gaussian map's by {number(gap)}{error}"
    before, after = (number(float(validation[name])) for name in ("energy_distance_gaussian", "energy_distance"))
    return f"{on}, {what}; the energy distance went from {before} to {after}."


def _without_evaluation(validation: Mapping[str, Any], *, is_trained: bool) -> tuple[str, str]:
    if validation["blend"] == 0:
        return "same", "This is the Gaussian map" + (": the networks were not better" if is_trained else "")
    better = "Better" if validation["J"] < validation["J_gaussian"] else "Not better"
    return "open", f"{better} than the Gaussian map on validation cells; not evaluated on held-out cells"


def _against_gaussian(difference: _Score) -> tuple[str, str]:
    if not difference.has_interval:
        nearer = "Nearer to" if difference.value < 0 else "Farther from"
        return "open", f"{nearer} the observed cells than the Gaussian map; no intervals say whether by chance"
    if difference.high < 0:
        return "better", "Nearer to the observed cells than the Gaussian map"
    if difference.low > 0:
        return "worse", "Farther from the observed cells than the Gaussian map: use that one"
    return "same", "No clear difference from the Gaussian map on the evaluated cells"


def _compared(difference: _Score) -> list[str]:
    said = f"The difference from the Gaussian map, on the same cells, is {difference}{difference.interval}."
    return [said] if difference.has_interval else []


def _distances(found: _Found, distances: pd.DataFrame) -> str:
    everyone = distances[distances["group"] == _ALL].iloc[0]
    others = {"gaussian": "the Gaussian map", "mean_shift": "a shift of the mean", "identity": "no change at all"}
    listed = [f"{found[method]} for {name}" for method, name in others.items() if method in found]
    ours = found["hycnn_ot"]
    last = f"{', '.join(listed[:-1])} and {listed[-1]}" if len(listed) > 1 else listed[0]
    return (
        f"The energy distance from {int(everyone['n_source']):,} predicted to {int(everyone['n_target']):,} observed "
        f"cells, 0 if both clouds are alike, is {ours}{ours.interval}, against {last}."
    )


def _reach(found: _Found) -> list[str]:
    """How much of what there is to explain is explained."""
    if FLOOR not in found or "identity" not in found:
        return []
    floor, nothing, ours = found[FLOOR], found["identity"], found["hycnn_ot"]
    half = f"the floor, {floor}, the distance between two halves of the observed cells"
    if nothing.value <= (floor.high if floor.has_interval else floor.value):
        few = f"No change at all is within the interval of {half}: so few cells do not show the response by this score."
        return [f"{few} Evaluate more of them, or look at single groups and other scores below."]
    share = min(1.0, (nothing.value - ours.value) / (nothing.value - floor.value))
    if share <= 0:
        return [f"That is no nearer than no change at all; the best possible is {half}."]
    if ours.low <= floor.high:
        return [f"That is as near as {half}: with so many cells no map can be seen to do better."]
    return [f"That closes {percent(share)} of the way from no change to {half}."]


def _by_group(distances: pd.DataFrame) -> list[str]:
    """In which groups the map is told from the Gaussian one."""
    levels: dict[str, list[str]] = {"better": [], "worse": [], "same": []}
    for label, rows in distances[distances["group"] != _ALL].groupby("group", sort=False):
        found = _by_method(rows)
        if {"hycnn_ot", "gaussian"} <= found.keys():
            level, _ = _against_gaussian(_difference(rows))
            levels.setdefault(level, []).append(str(label))
    if "open" in levels or not any(levels.values()):  # there are no intervals, or no groups
        return []
    better, worse, same = (f"{len(group)} ({', '.join(group)})" if group else "none" for group in levels.values())
    n = sum(map(len, levels.values()))
    if not levels["better"] and not levels["worse"]:
        return [f"In none of {n} groups scored alone do these cells tell it from the Gaussian map."]
    told = f"nearer than the Gaussian map in {better}, farther in {worse}, not told from it in {same}"
    return [f"Of {n} groups scored alone, it is {told}."]
