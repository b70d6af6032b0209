"""What the numbers say about a map, in plain words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas as pd

from scot_hycnn.pl._evaluation import FLOOR

_METRIC = "energy_distance"


class _Score(NamedTuple):
    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return number(self.value)

    @property
    def has_interval(self) -> bool:
        return self.low == self.low and self.high == self.high  # NaN is not itself


def number(value: float) -> str:
    """Three digits, with the sign that print uses."""
    return f"{value:.3g}".replace("-", "\N{MINUS SIGN}")


def percent(part: float) -> str:
    """In percent, to one digit, on one line."""
    return f"{100 * part:.3g}\N{NO-BREAK SPACE}%"


def verdict(validation: Mapping[str, Any], scores: pd.DataFrame | None, *, n_seen: int, how: str) -> dict[str, Any]:
    """Say whether the map is better than the simple answers, and how near it comes to the best one possible.

    Parameters
    ----------
    validation
        What the fit has measured on its validation cells.
    scores
        Of this target and all cells together, as :func:`scot_hycnn.tl.evaluate` stores them; None if it was not run.
    n_seen
        How many of the evaluated cells the fit has seen, at least.
    how
        How to run an evaluation.

    Returns
    -------
    A level, 'better', 'same', 'worse' or 'open', a headline, and sentences.
    """
    trained = _on_validation(validation)
    if scores is None:
        level, headline = _without_evaluation(validation)
        missing = f"Held-out cells have not been evaluated, so there is no floor and no interval. Run {how}."
        return {"level": level, "headline": headline, "sentences": [trained, missing]}
    rows = scores[scores["metric"] == _METRIC]
    numbers = (rows[name].to_numpy(dtype=float).tolist() for name in _Score._fields)
    found = {str(method): _Score(*score) for method, *score in zip(rows["method"], *numbers, strict=True)}
    if not {"hycnn_ot", "gaussian"} <= found.keys():
        missing = f"The stored evaluation has no energy distance of both the map and the Gaussian map. Run {how}."
        return {"level": "open", "headline": "Not evaluated", "sentences": [trained, missing]}
    level, headline = _against_gaussian(found["hycnn_ot"], found["gaussian"], kept=validation.get("blend") == 0)
    n_source, n_target = (int(rows[name].iloc[0]) for name in ("n_source", "n_target"))
    sentences = [_distances(found, n_source, n_target), *_reach(found), trained]
    if n_seen:
        sentences.append(
            f"At least {n_seen:,} of the evaluated are cells that the fit has seen, which flatters it: hold cells "
            "out with sh.pp.split, and fit and evaluate again."
        )
    return {"level": level, "headline": headline, "sentences": sentences}


def _on_validation(validation: Mapping[str, Any]) -> str:
    blend = float(validation["blend"])
    on = f"On {int(validation['n_source']):,} source and {int(validation['n_target']):,} target validation cells"
    if blend == 0:
        return f"{on} the networks were not better than the closed-form Gaussian map, which was kept."
    gap = float(validation["J_gaussian"]) - float(validation["J"])
    errors, blends = (list(validation.get(name, [])) for name in ("J_error_by_blend", "blends"))
    error = f" ± {number(float(errors[blends.index(blend)]))}" if blend in blends and errors else ""
    part = "the networks" if blend == 1 else f"a blend of {percent(blend)} networks and the Gaussian map"
    return (
        f"{on}, {part} lowered the objective J of optimal transport below the Gaussian map's by {number(gap)}{error} "
        f"(standard error); the energy distance went from {number(float(validation['energy_distance_gaussian']))} to "
        f"{number(float(validation['energy_distance']))}."
    )


def _without_evaluation(validation: Mapping[str, Any]) -> tuple[str, str]:
    if validation["blend"] == 0:
        return "same", "The Gaussian map was kept"
    return "open", "Better than the Gaussian map on validation cells; not evaluated on held-out cells"


def _against_gaussian(ours: _Score, gaussian: _Score, *, kept: bool) -> tuple[str, str]:
    if kept:
        return "same", "This is the Gaussian map: the networks were not better"
    if not (ours.has_interval and gaussian.has_interval):
        nearer = "Nearer to" if ours.value < gaussian.value else "Farther from"
        return (
            "open",
            f"{nearer} the observed cells than the Gaussian map, by chance or not: no intervals were computed",
        )
    if ours.high < gaussian.low:
        return "better", "Nearer to the observed cells than the Gaussian map"
    if ours.low > gaussian.high:
        return "worse", "Farther from the observed cells than the Gaussian map: use that one"
    return "same", "As near to the observed cells as the Gaussian map: these cells do not tell them apart"


def _distances(found: Mapping[str, _Score], n_source: int, n_target: int) -> str:
    others = {"gaussian": "the Gaussian map", "mean_shift": "a shift of the mean", "identity": "no change at all"}
    listed = [f"{found[method]} for {name}" for method, name in others.items() if method in found]
    ours = found["hycnn_ot"]
    interval = (
        f" (95\N{NO-BREAK SPACE}% interval {number(ours.low)} to {number(ours.high)})" if ours.has_interval else ""
    )
    last = f"{', '.join(listed[:-1])} and {listed[-1]}" if len(listed) > 1 else listed[0]
    return (
        f"The energy distance from {n_source:,} predicted to {n_target:,} observed cells, 0 if both clouds are alike, "
        f"is {ours}{interval}, against {last}."
    )


def _reach(found: Mapping[str, _Score]) -> list[str]:
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
