"""What the scores say about a map, in plain words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, NamedTuple

import pandas as pd

from scot_hycnn.pl._evaluation import FLOOR

_OURS, _NOTHING, _GAUSSIAN = "hycnn_ot", "identity", "gaussian"
# The simple answers that a prediction has to beat, the first one above all.
_SIMPLE = {_NOTHING: "no change", "mean_shift": "a shift of the mean", _GAUSSIAN: "the Gaussian map"}
# After fewer steps it means nothing that networks are not better than the Gaussian map; the default is 600 or more.
_FEW_STEPS = 300
# A fit whose p value of no change is larger has seen no response.
_SIGNIFICANT = 0.05
_MAX_NAMES = 10
# What maps that no groups left out have chosen are without networks.
_KEPT = "Gaussian map"


class _Kind(Enum):
    """What the scores say, with the level of the verdict and the words for groups of cells."""

    # Headline, level and conclusions depend on the kind alone, so that no two sentences contradict each other.
    # The prediction is nearer to the observed cells than no change, and than all simple answers, than not clearly all
    # of them, or a simple answer is nearer still.
    BEST = ("better", "nearer than every simple answer in {}")
    TIED = ("same", "nearer than no change in {}")
    BEATEN = ("worse", "nearer than no change, but less near than a simpler answer, in {}")
    # There is a response, and the prediction is not clearly nearer than no change, or is farther.
    UNCLEAR = ("open", "not clearly different from no change in {}")
    FARTHER = ("worse", "farther than no change in {}")
    # No change is as near to the observed cells as one half of them is to the other.
    NO_RESPONSE = ("open", "not clearly different from no change in {}, where no response is seen")
    MOVED_AWAY = ("worse", "farther than no change in {}, where no response is seen")


class _Score(NamedTuple):
    """An energy distance, or a difference of two, with its interval (NaN if there is none)."""

    value: float
    low: float
    high: float

    @property
    def has_interval(self) -> bool:
        return math.isfinite(self.low) and math.isfinite(self.high)

    @property
    def half(self) -> float:
        """Half of the interval's length."""
        return max(self.high - self.value, self.value - self.low, 0.0) if self.has_interval else math.inf

    @property
    def sign(self) -> int:
        """Of a difference: -1 or 1, and 0 if the interval includes 0."""
        # The value belongs to its interval, whatever a file says.
        low, high = (self.low, self.high) if self.has_interval else (self.value, self.value)
        return -1 if max(high, self.value) < 0 else 1 if min(low, self.value) > 0 else 0

    @property
    def interval(self) -> str:
        return f" ({percent(0.95)} interval {number(self.low)} to {number(self.high)})" if self.has_interval else ""


class _Distances:
    """Energy distances of one group of cells, by method, and how methods compare on them."""

    def __init__(self, rows: pd.DataFrame, *, is_gaussian: bool, response_seen: bool = False) -> None:
        self.scores = _by_method(rows, ["value", "low", "high"])
        self.to_gaussian = _by_method(rows, ["vs_gaussian", "vs_gaussian_low", "vs_gaussian_high"])
        self.is_complete = {_OURS, _NOTHING} <= self.scores.keys()
        # The Gaussian map is no rival if the prediction is its own.
        self.rivals = [name for name in _SIMPLE if name != _NOTHING and not (is_gaussian and name == _GAUSSIAN)]
        self.is_gaussian, self.response_seen = is_gaussian, response_seen
        self.has_intervals = self.difference(_OURS, _NOTHING).has_interval

    def difference(self, method: str, other: str) -> _Score:
        """Return the distance of one method less that of another; NaN if one of both is missing."""
        if not {method, other} <= self.scores.keys():
            return _Score(math.nan, math.nan, math.nan)
        if other == _GAUSSIAN:
            return self.to_gaussian[method]
        # The bootstrap compares methods with the Gaussian map only, on the same cells. For two other methods the
        # standard deviation of the difference is at most the sum of two, whatever their correlation: of the values',
        # or of the differences' from the Gaussian map, which is smaller if the part that the cells share cancels.
        halves = [self.scores[method].half + self.scores[other].half]
        if _GAUSSIAN in self.scores:
            halves.append(self.to_gaussian[method].half + self.to_gaussian[other].half)
        value = self.scores[method].value - self.scores[other].value
        return _Score(value, value - min(halves), value + min(halves))

    def compare(self, method: str, other: str) -> int:
        """Return -1 if a method is nearer than another, 1 if it is farther, and 0 if that is not clear."""
        difference = self.difference(method, other)
        return difference.sign if difference.has_interval or not self.has_intervals else 0

    def is_at_floor(self, method: str) -> bool:
        """Return whether a method may be as near as one half of the observed cells is to the other."""
        if FLOOR not in self.scores:
            return False
        score, floor = self.scores[method], self.scores[FLOOR]
        low = score.low if score.has_interval else score.value
        return low <= (floor.high if floor.has_interval else floor.value)

    def kind(self) -> _Kind:
        """Decide whether the prediction is nearer than no change, then than the rivals, else if there is a response."""
        to_nothing = self.compare(_OURS, _NOTHING)
        if to_nothing < 0:
            signs = [self.compare(_OURS, name) for name in self.rivals]
            if 1 in signs:
                return _Kind.BEATEN
            return _Kind.TIED if 0 in signs or self.is_gaussian else _Kind.BEST
        if self.is_at_floor(_NOTHING) and not self.response_seen:
            return _Kind.MOVED_AWAY if to_nothing > 0 else _Kind.NO_RESPONSE
        return _Kind.FARTHER if to_nothing > 0 else _Kind.UNCLEAR

    def better_rival(self) -> str | None:
        """Return the nearest simple answer if it is nearer than the prediction and clearly nearer than no change."""
        there = [name for name in self.rivals if {name, _OURS} <= self.scores.keys()]
        best = min(there, key=lambda name: self.scores[name].value, default=None)
        if best is None or not self.difference(best, _OURS).value < 0 or self.compare(best, _NOTHING) >= 0:
            return None
        return best


def number(value: float) -> str:
    """Print three digits, with a real minus sign."""
    return f"{value:.3g}".replace("-", "\N{MINUS SIGN}")


def percent(part: float) -> str:
    """Print three digits in percent, without a line break before the sign."""
    return f"{100 * part:.3g}\N{NO-BREAK SPACE}%"


def verdict(
    validation: Mapping[str, Any],
    scores: pd.DataFrame | None,
    *,
    is_trained: bool = True,
    max_steps: int | None = None,
    n_seen: int = 0,
    evaluate: str,
) -> dict[str, Any]:
    """Judge whether the prediction is better than simple answers; return a level, a headline and sentences.

    Levels are 'better' (nearer than every simple answer), 'same' (nearer than no change, but not clearly than all of
    them), 'worse' (farther than one of them), and 'open' (not evaluated, or not clear). ``n_seen`` is how many
    evaluated cells the fit has seen at least, and ``evaluate`` is what a reader has to run to evaluate it.
    """
    # With leave_out="groups" a map without networks may be another one, such as a shift.
    is_gaussian = float(validation["blend"]) == 0 and str(validation.get("winner", _KEPT)) == _KEPT
    few_steps = max_steps if is_trained and max_steps and max_steps < _FEW_STEPS else None
    # Older fits have no p value: NaN is neither above nor below the threshold.
    p_value = float(validation.get("p_no_change", math.nan))
    distances = None if scores is None else scores[scores["metric"] == "energy_distance"]
    everyone = None if distances is None else distances[distances["group"] == "all"]
    if everyone is not None:
        rows = _Distances(everyone, is_gaussian=is_gaussian, response_seen=p_value <= _SIGNIFICANT)
    if distances is None or everyone is None or not rows.is_complete:
        missing = (
            "Held-out cells have not been evaluated."
            if scores is None
            else "The stored evaluation has no energy distance of both the prediction and no change."
        )
        sentences = [f"{missing} Run {evaluate}.", _on_validation(validation, is_trained=is_trained)]
        sentences += _seen_at_fit(p_value)
        sentences += _too_few_steps(few_steps) if is_gaussian else []
        headline = "Not evaluated: nothing says whether the prediction is better than no change"
        return {"level": "open", "headline": headline, "sentences": sentences}

    kind = rows.kind()
    sentences = [*_compared(rows, everyone), *_reach(kind, rows)]
    if is_gaussian and is_trained:
        sentences += _why_gaussian(kind, rows, few_steps)
    sentences += [*_by_group(distances, is_gaussian=is_gaussian), _on_validation(validation, is_trained=is_trained)]
    if kind in (_Kind.NO_RESPONSE, _Kind.MOVED_AWAY):
        sentences += _seen_at_fit(p_value)
    if n_seen:
        sentences.append(
            f"The fit has seen at least {n_seen:,} of the evaluated cells, so the scores are too good: "
            "hold cells out with sh.pp.split, and fit and evaluate again."
        )
    level, headline = kind.value[0], _headline(kind, rows)
    if not rows.has_intervals:
        level, headline = "open", f"{headline}; without intervals this may be chance"
    return {"level": level, "headline": headline, "sentences": sentences}


def _by_method(rows: pd.DataFrame, columns: Sequence[str]) -> dict[str, _Score]:
    """Return the scores of the methods whose energy distance is finite."""
    rows = rows[rows["value"].abs() < math.inf]
    numbers = rows[list(columns)].to_numpy(dtype=float).tolist()
    return {str(method): _Score(*score) for method, score in zip(rows["method"], numbers, strict=True)}


def _headline(kind: _Kind, rows: _Distances) -> str:
    ours = "The prediction, which is that of the Gaussian map," if rows.is_gaussian else "The prediction"
    nearer = f"{ours} is nearer to the observed cells than no change"
    farther = f"{ours} is farther from the observed cells than no change"
    rival = rows.better_rival()
    if kind is _Kind.BEST:
        headline = f"{ours} is nearer to the observed cells than {_listed(list(_SIMPLE.values()))}"
    elif kind is _Kind.TIED:
        unclear = [_SIMPLE[name] for name in rows.rivals if rows.compare(_OURS, name) >= 0]
        headline = nearer + (f", but not clearly nearer than {_listed(unclear, 'or')}" if unclear else "")
    elif kind is _Kind.BEATEN:
        beaten_by = [name for name in rows.rivals if rows.difference(_OURS, name).value > 0]
        best = min(beaten_by, key=lambda name: rows.scores[name].value)
        headline = f"{nearer}, but {_SIMPLE[best]} is nearer still: use that one"
    elif kind is _Kind.UNCLEAR:
        headline = f"{ours} is not clearly nearer to the observed cells than no change"
        headline += "" if rival is None else f", while {_SIMPLE[rival]} is"
    elif kind is _Kind.FARTHER:
        headline = f"{farther}: {'do not use it' if rival is None else f'use {_SIMPLE[rival]}, which is nearer'}"
    elif kind is _Kind.MOVED_AWAY:
        headline = f"{farther}, and no response is seen: do not use it"
    else:
        headline = "No response is seen: no change is as near to the observed cells as they are to each other"
    return headline


def _compared(rows: _Distances, everyone: pd.DataFrame) -> list[str]:
    """Say how far the prediction and the simple answers are from the observed cells, and how much they differ."""
    first, ours = everyone.iloc[0], rows.scores[_OURS]
    there = [method for method in _SIMPLE if method in rows.scores]
    others = [f"{number(rows.scores[method].value)} for {_SIMPLE[method]}" for method in there]
    cells = f"{int(first['n_source']):,} predicted to {int(first['n_target']):,} observed cells"
    distance = f"{number(ours.value)}{ours.interval}, compared with {_listed(others)}"
    sentences = [f"The energy distance from {cells}, which is 0 if both clouds are alike, is {distance}."]
    found = {name: rows.difference(_OURS, name) for name in (_NOTHING, *rows.rivals)}
    differences = [
        f"{number(difference.value)} from {_SIMPLE[name]}{difference.interval}"
        for name, difference in found.items()
        if difference.has_interval
    ]
    if differences:
        sentences.append(f"On the same cells it differs by {_listed(differences)}; negative is nearer.")
    return sentences


def _reach(kind: _Kind, rows: _Distances) -> list[str]:
    """Say how much of what there is to explain is explained."""
    if FLOOR not in rows.scores:
        return []
    floor, nothing, ours = (rows.scores[name].value for name in (FLOOR, _NOTHING, _OURS))
    half = f"the floor, {number(floor)}, which is the distance between two halves of the observed cells"
    if kind in (_Kind.NO_RESPONSE, _Kind.MOVED_AWAY):
        few = "there is no response, or it is too small for this score and so few cells"
        advice = "Evaluate more cells, or look at single groups and at the other scores below."
        return [f"No change cannot be distinguished from {half}: {few}. {advice}"]
    if kind in (_Kind.UNCLEAR, _Kind.FARTHER) and not rows.is_at_floor(_NOTHING):
        return [f"The best possible distance is {half}."]
    if kind in (_Kind.UNCLEAR, _Kind.FARTHER):
        few = "so few evaluated cells do not show the response that the fit has seen among its training cells"
        return [f"No change cannot be distinguished from {half}: {few}. Evaluate more cells."]
    if kind is not _Kind.BEATEN and rows.is_at_floor(_OURS):
        return [f"The prediction is as near as {half}: with this number of cells no map could be seen to be better."]
    # The floor of few cells may lie above no change, although that is farther than the prediction.
    share = (nothing - ours) / (nothing - floor) if nothing > floor else 1.0
    return [f"The prediction closes {percent(share)} of the way from no change to {half}."] if share < 1 else []


def _why_gaussian(kind: _Kind, rows: _Distances, few_steps: int | None) -> list[str]:
    """Say what it means that the Gaussian map was kept."""
    if kind in (_Kind.NO_RESPONSE, _Kind.MOVED_AWAY):
        return ["The Gaussian map was kept, which says nothing if there is no response that networks could learn."]
    if kind is _Kind.TIED and rows.is_at_floor(_OURS):
        linear = "As far as these cells show, the response is linear: no network could be seen to be better."
        return [linear, *_too_few_steps(few_steps)]
    if few_steps is not None or FLOOR not in rows.scores:
        return _too_few_steps(few_steps)
    return ["The Gaussian map does not explain all of the response, and the networks have not learned the remainder."]


def _too_few_steps(few_steps: int | None) -> list[str]:
    if few_steps is None:
        return []
    usual = f"max_steps={few_steps}, and {2 * _FEW_STEPS} or more are usual. Leave max_steps out."
    return [f"The networks were not trained enough to be judged: {usual}"]


def _by_group(distances: pd.DataFrame, *, is_gaussian: bool) -> list[str]:
    """Say in which groups the prediction is nearer; nothing if there are no groups or no intervals."""
    found: dict[_Kind, list[str]] = {kind: [] for kind in _Kind}
    for label, rows in distances[distances["group"] != "all"].groupby("group", sort=False):
        group = _Distances(rows, is_gaussian=is_gaussian)
        if group.is_complete and group.has_intervals:
            found[group.kind()].append(str(label))
    parts = []
    for kind, labels in found.items():
        more = f" and {len(labels) - _MAX_NAMES} more" if len(labels) > _MAX_NAMES else ""
        if labels:
            parts.append(kind.value[1].format(f"{len(labels)} ({', '.join(labels[:_MAX_NAMES])}{more})"))
    n_groups = sum(map(len, found.values()))
    groups = "one group that was" if n_groups == 1 else f"{n_groups} groups that were"
    return [f"Of {groups} scored one by one, the prediction is {'; '.join(parts)}."] if parts else []


def _listed(parts: list[str], last: str = "and") -> str:
    return f"{', '.join(parts[:-1])} {last} {parts[-1]}" if len(parts) > 1 else "".join(parts)


def _on_validation(validation: Mapping[str, Any], *, is_trained: bool) -> str:
    """Say what the networks achieved on validation cells."""
    if not is_trained:
        return "No network was trained: only the closed-form map was requested."
    blend = float(validation["blend"])
    on = f"On {int(validation['n_source']):,} source and {int(validation['n_target']):,} target validation cells"
    if "winner" in validation and blend == 0:
        return f"Of the maps that were compared on groups left out, this one was chosen: {validation['winner']}."
    if blend == 0:
        return f"{on}, the networks were not better than the closed-form Gaussian map, which was kept."
    # J is minimised: a positive gap means that the networks are better.
    gap = float(validation["J_gaussian"]) - float(validation["J"])
    errors, blends = (list(validation.get(name, [])) for name in ("J_error_by_blend", "blends"))
    error = f" ± {number(float(errors[blends.index(blend)]))} (standard error)" if blend in blends and errors else ""
    part = "the networks" if blend == 1 else f"a blend of {percent(blend)} networks and the Gaussian map"
    objective = "the objective J of optimal transport"
    if not math.isfinite(gap):
        what = f"{objective} is not finite for {part} and cannot be compared"
    elif gap < 0:
        what = f"{part} raised {objective} above that of the Gaussian map by {number(-gap)}{error}"
    else:
        what = f"{part} lowered {objective} below that of the Gaussian map by {number(gap)}{error}"
    before, after = (number(float(validation[name])) for name in ("energy_distance_gaussian", "energy_distance"))
    return f"{on}, {what}; the energy distance changed from {before} to {after}."


def _seen_at_fit(p_value: float) -> list[str]:
    """Say that the fit has seen no response, if so."""
    if not p_value > _SIGNIFICANT:
        return []
    halves = f"as near to each other as random halves of all of them (p = {number(p_value)})"
    return [f"The fit has seen no response: its source and target cells are {halves}."]
