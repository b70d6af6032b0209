"""What the numbers say about a map, in plain words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

import pandas as pd

from scot_hycnn.pl._evaluation import FLOOR

_METRIC = "energy_distance"
_ALL = "all"
_OURS, _NOTHING, _GAUSSIAN = "hycnn_ot", "identity", "gaussian"
# What a prediction has to beat, the first one above all.
_SIMPLE = {_NOTHING: "no change", "mean_shift": "a shift of the mean", _GAUSSIAN: "the Gaussian map"}
# With fewer steps, networks that are no better than the Gaussian map say nothing; the default is 600 or more.
_FEW_STEPS = 300
# Above this p value the fit has seen no response.
_SIGNIFICANT = 0.05
_MOST_NAMES = 10


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

    @property
    def half(self) -> float:
        """Half of the interval's length."""
        return max(self.high - self.value, self.value - self.low, 0.0) if self.has_interval else math.inf

    @property
    def reach(self) -> float:
        """Upper end, as far as it is known."""
        return self.high if self.has_interval else self.value

    @property
    def sign(self) -> int:
        """Of a difference: -1 or 1 where the interval leaves no doubt, 0 where it does; of the value without one."""
        low, high = (self.low, self.high) if self.has_interval else (self.value, self.value)
        # The value itself belongs to the interval, whatever a file says.
        return -1 if max(high, self.value) < 0 else 1 if min(low, self.value) > 0 else 0


class Kind(Enum):
    """What the scores say: exactly one of these, on which headline, level and all conclusions depend.

    The prediction is nearer to the observed cells than no change, and ``BEST``: than every simple answer, ``TIED``:
    than no change, but not than all of them, ``BEATEN``: a simple answer is nearer still. ``FARTHER``: than no change.
    ``UNCLEAR``: not told from no change, though there is a response. ``NO_RESPONSE``: no change is not told from one
    half of the observed cells as a prediction of the other, and ``MOVED_AWAY``: there the prediction is farther. Values
    are what is said of groups.
    """

    BEST = "nearer than every simple answer in {}"
    TIED = "nearer than no change in {}"
    BEATEN = "nearer than no change, but less so than a simpler answer, in {}"
    UNCLEAR = "not told from no change in {}"
    FARTHER = "farther than no change in {}"
    NO_RESPONSE = "not told from no change in {}, where no response is seen"
    MOVED_AWAY = "farther than no change in {}, where no response is seen"


_NEARER = (Kind.BEST, Kind.TIED, Kind.BEATEN)
_LEVELS = {
    Kind.BEST: "better",
    Kind.TIED: "same",
    Kind.BEATEN: "worse",
    Kind.UNCLEAR: "open",
    Kind.FARTHER: "worse",
    Kind.NO_RESPONSE: "open",
    Kind.MOVED_AWAY: "worse",
}


@dataclass(frozen=True)
class _Rows:
    """Energy distances of one group of cells.

    Parameters
    ----------
    scores, to_gaussian
        By method: the distance, and the distance minus the Gaussian map's on the same cells.
    is_gaussian
        Whether the prediction is that of the Gaussian map.
    response_seen
        Whether the fit has seen a response on its own cells, which are usually more than the evaluated ones.
    """

    scores: Mapping[str, _Score]
    to_gaussian: Mapping[str, _Score]
    is_gaussian: bool
    response_seen: bool = False

    @classmethod
    def of(cls, rows: pd.DataFrame, *, is_gaussian: bool, response_seen: bool = False) -> _Rows:
        names = _Score._fields
        differences = _by_method(rows, ("vs_gaussian", "vs_gaussian_low", "vs_gaussian_high"))
        return cls(_by_method(rows, names), differences, is_gaussian, response_seen)

    @property
    def is_whole(self) -> bool:
        """Whether there is what the first question needs: the prediction, and no change."""
        return all(name in self.scores and math.isfinite(self.scores[name].value) for name in (_OURS, _NOTHING))

    @property
    def rivals(self) -> list[str]:
        """Simple answers besides no change, which the prediction is not itself."""
        return [name for name in _SIMPLE if name != _NOTHING and not (self.is_gaussian and name == _GAUSSIAN)]

    @property
    def floor(self) -> _Score | None:
        found = self.scores.get(FLOOR)
        return None if found is None or not math.isfinite(found.value) else found

    def difference(self, method: str, other: str) -> _Score:
        """Distance of one minus that of another; NaN if one is not there.

        The bootstrap compares methods with the Gaussian map only, on the same cells. Of other pairs the standard
        deviation is at most the sum of two, whatever their correlation: of the values', or of the differences' from
        the Gaussian map, which is smaller where the cells' share cancels.
        """
        if not {method, other} <= self.scores.keys():
            return _Score(math.nan, math.nan, math.nan)
        if other == _GAUSSIAN:
            return self.to_gaussian[method]
        halves = [self.scores[method].half + self.scores[other].half]
        if _GAUSSIAN in self.scores:
            halves.append(self.to_gaussian[method].half + self.to_gaussian[other].half)
        value, half = self.scores[method].value - self.scores[other].value, min(halves)
        return _Score(value, value - half, value + half)

    @property
    def has_intervals(self) -> bool:
        """Whether the first question can be answered beyond chance."""
        return self.difference(_OURS, _NOTHING).has_interval

    def compare(self, method: str, other: str) -> int:
        """-1 if one is nearer than the other, 1 if it is farther, 0 if that is not clear."""
        difference = self.difference(method, other)
        return difference.sign if difference.has_interval or not self.has_intervals else 0

    def kind(self) -> Kind:
        """Decide, in this order.

        Whether the prediction is nearer than no change; if so, whether it is nearer than the other simple answers, else
        whether there is a response.
        """
        to_nothing = self.compare(_OURS, _NOTHING)
        if to_nothing < 0:
            signs = [self.compare(_OURS, name) for name in self.rivals]
            if 1 in signs:
                return Kind.BEATEN
            return Kind.TIED if 0 in signs or self.is_gaussian else Kind.BEST
        if self.is_at_floor(_NOTHING) and not self.response_seen:
            return Kind.MOVED_AWAY if to_nothing > 0 else Kind.NO_RESPONSE
        return Kind.FARTHER if to_nothing > 0 else Kind.UNCLEAR

    def nearest_rival(self) -> str | None:
        """The simple answer to use in place of the prediction, if there is one that beats no change beyond doubt."""
        there = [name for name in self.rivals if math.isfinite(self.difference(name, _OURS).value)]
        if not there:
            return None
        best = min(there, key=lambda name: self.scores[name].value)
        is_nearer = self.difference(best, _OURS).value < 0 and self.compare(best, _NOTHING) < 0
        return best if is_nearer else None

    def is_at_floor(self, method: str) -> bool:
        """Whether this is as near as can be seen: by chance it would be as near as the floor."""
        score = self.scores[method]
        return self.floor is not None and (score.low if score.has_interval else score.value) <= self.floor.reach


def number(value: float) -> str:
    """Three digits, with the sign that print uses."""
    return f"{value:.3g}".replace("-", "\N{MINUS SIGN}")


def percent(part: float) -> str:
    """In percent, three digits, on one line."""
    return f"{100 * part:.3g}\N{NO-BREAK SPACE}%"


def verdict(
    validation: Mapping[str, Any],
    scores: pd.DataFrame | None,
    *,
    is_trained: bool = True,
    max_steps: int | None = None,
    n_seen: int = 0,
    how: str,
) -> dict[str, Any]:
    """Say whether the prediction is better than no change and other simple answers, and how near it comes to the best.

    Parameters
    ----------
    validation
        What the fit has measured on its validation cells.
    scores
        Of this target, as :func:`scot_hycnn.tl.evaluate` stores them; None if it was not run.
    is_trained
        Whether there are networks; the Gaussian map may be all that was asked for.
    max_steps
        Steps of training that the fit was allowed, if that is known.
    n_seen
        How many of the evaluated cells the fit has seen, at least.
    how
        How to run an evaluation.

    Returns
    -------
    A level, a headline, and sentences. Levels are 'better' (nearer than no change and every other simple answer),
    'same' (nearer than no change, but not than all of them), 'worse' (farther than one of them), and 'open' (not
    evaluated, or not to be told).
    """
    is_gaussian = float(validation["blend"]) == 0
    few_steps = is_trained and max_steps is not None and max_steps < _FEW_STEPS
    on_validation = _on_validation(validation, is_trained=is_trained)
    distances = None if scores is None else scores[scores["metric"] == _METRIC]
    everyone = None if distances is None else distances[distances["group"] == _ALL]
    p_value = float(validation.get("p_no_change", math.nan))
    seen_at_fit = p_value <= _SIGNIFICANT
    rows = None if everyone is None else _Rows.of(everyone, is_gaussian=is_gaussian, response_seen=seen_at_fit)
    if distances is None or everyone is None or rows is None or not rows.is_whole:
        missing = (
            "Held-out cells have not been evaluated."
            if scores is None
            else "The stored evaluation has no energy distance of both the prediction and no change."
        )
        seen = _seen_at_fit(validation)
        reason = [_too_few_steps(max_steps)] if is_gaussian and few_steps and max_steps is not None else []
        return {
            "level": "open",
            "headline": "Not evaluated: nothing says whether the prediction is better than no change",
            "sentences": [f"{missing} Run {how}.", on_validation, *seen, *reason],
        }
    kind = rows.kind()
    sentences = [_distances(rows, everyone), *_differences(rows), *_reach(kind, rows)]
    if is_gaussian and is_trained:
        sentences += _why_gaussian(kind, rows, max_steps if few_steps else None)
    sentences += [*_by_group(distances, is_gaussian=is_gaussian), on_validation]
    if kind in (Kind.NO_RESPONSE, Kind.MOVED_AWAY):
        sentences += _seen_at_fit(validation)
    if n_seen:
        sentences.append(
            f"At least {n_seen:,} of the evaluated are cells that the fit has seen, which flatters it: hold cells "
            "out with sh.pp.split, and fit and evaluate again."
        )
    chance = "" if rows.has_intervals else "; no intervals say whether by chance"
    return {
        "level": _LEVELS[kind] if rows.has_intervals else "open",
        "headline": _headline(kind, rows) + chance,
        "sentences": sentences,
    }


def _by_method(rows: pd.DataFrame, columns: Sequence[str]) -> dict[str, _Score]:
    numbers = (rows[name].to_numpy(dtype=float).tolist() for name in columns)
    return {str(method): _Score(*score) for method, *score in zip(rows["method"], *numbers, strict=True)}


def _headline(kind: Kind, rows: _Rows) -> str:
    ours = "The prediction, that of the Gaussian map," if rows.is_gaussian else "The prediction"
    nearer = f"{ours} is nearer to the observed cells than no change"
    if kind is Kind.BEST:
        return f"{ours} is nearer to the observed cells than {_listed(list(_SIMPLE.values()))}"
    if kind is Kind.TIED:
        unclear = [_SIMPLE[name] for name in rows.rivals if rows.compare(_OURS, name) >= 0]
        return nearer + (f", but not clearly nearer than {_listed(unclear, 'or')}" if unclear else "")
    if kind is Kind.BEATEN:
        beaten_by = [name for name in rows.rivals if rows.difference(_OURS, name).value > 0]
        best = min(beaten_by, key=lambda name: rows.scores[name].value)
        return f"{nearer}, but {_SIMPLE[best]} is nearer still: use that one"
    rival = rows.nearest_rival()
    farther = f"{ours} is farther from the observed cells than no change"
    return {
        Kind.NO_RESPONSE: "No response is seen: no change is as near to the observed cells as they are to each other",
        Kind.MOVED_AWAY: f"{farther}, and no response is seen: do not use it",
        Kind.FARTHER: f"{farther}: {'do not use it' if rival is None else f'use {_SIMPLE[rival]}, which is nearer'}",
        Kind.UNCLEAR: f"{ours} is not clearly nearer to the observed cells than no change"
        + ("" if rival is None else f", while {_SIMPLE[rival]} is"),
    }[kind]


def _distances(rows: _Rows, everyone: pd.DataFrame) -> str:
    first, ours = everyone.iloc[0], rows.scores[_OURS]
    listed = [f"{rows.scores[method]} for {name}" for method, name in _SIMPLE.items() if method in rows.scores]
    return (
        f"The energy distance from {int(first['n_source']):,} predicted to {int(first['n_target']):,} observed "
        f"cells, 0 if both clouds are alike, is {ours}{ours.interval}, against {_listed(listed)}."
    )


def _differences(rows: _Rows) -> list[str]:
    """By how much it is nearer or farther than each of the simple answers."""
    others = [name for name in (_NOTHING, *rows.rivals) if name in rows.scores]
    found = {name: rows.difference(_OURS, name) for name in others}
    listed = [f"{each} from {_SIMPLE[name]}{each.interval}" for name, each in found.items() if each.has_interval]
    return [f"On the same cells, it differs by {_listed(listed)}; less is nearer."] if listed else []


def _reach(kind: Kind, rows: _Rows) -> list[str]:
    """How much of what there is to explain is explained."""
    floor, nothing, ours = rows.floor, rows.scores[_NOTHING], rows.scores[_OURS]
    if floor is None:
        return []
    half = f"the floor, {floor}, the distance between halves of the observed cells"
    if kind in (Kind.NO_RESPONSE, Kind.MOVED_AWAY):
        few = "there is no response, or one too small for this score and so few cells"
        advice = "Evaluate more of them, or look at single groups and other scores below."
        return [f"No change cannot be told from {half}: {few}. {advice}"]
    if kind not in _NEARER and rows.is_at_floor(_NOTHING):
        few = "so few evaluated cells do not show the response, which the fit has seen among its own cells"
        return [f"No change cannot be told from {half}: {few}. Evaluate more of them."]
    if kind not in _NEARER:
        return [f"The best possible is {half}."]
    if kind is not Kind.BEATEN and rows.is_at_floor(_OURS):
        return [f"That is as near as {half}: with so many cells no map can be seen to do better."]
    # The floor of few cells may lie above no change, though that is farther than the prediction.
    share = (nothing.value - ours.value) / (nothing.value - floor.value) if nothing.value > floor.value else 1.0
    return [f"That closes {percent(share)} of the way from no change to {half}."] if share < 1 else []


def _why_gaussian(kind: Kind, rows: _Rows, few_steps: int | None) -> list[str]:
    """What it means that the Gaussian map was kept."""
    if kind in (Kind.NO_RESPONSE, Kind.MOVED_AWAY):
        return ["The Gaussian map was kept, which says nothing where there is no response that networks could learn."]
    steps = [] if few_steps is None else [_too_few_steps(few_steps)]
    if kind is Kind.TIED and rows.is_at_floor(_OURS):
        return ["As far as these cells show, the response is linear: no network could be seen to do better.", *steps]
    if steps or rows.floor is None:
        return steps
    return ["The Gaussian map does not explain all of the response, and the networks have not found the rest."]


def _too_few_steps(max_steps: int) -> str:
    return (
        f"The networks were not trained enough to be judged: max_steps={max_steps}, and {2 * _FEW_STEPS} or more are "
        "usual. Leave max_steps out."
    )


def _by_group(distances: pd.DataFrame, *, is_gaussian: bool) -> list[str]:
    """What the scores say of each group."""
    labels: dict[Kind, list[str]] = {kind: [] for kind in Kind}
    for label, rows in distances[distances["group"] != _ALL].groupby("group", sort=False):
        group = _Rows.of(rows, is_gaussian=is_gaussian)
        if group.is_whole and group.has_intervals:
            labels[group.kind()].append(str(label))
    n = sum(map(len, labels.values()))
    if not n:  # there are no intervals, or no groups
        return []
    listed = [kind.value.format(_named(found)) for kind, found in labels.items() if found]
    return [f"Of {n} groups scored alone, the prediction is {'; '.join(listed)}."]


def _named(labels: list[str]) -> str:
    rest = len(labels) - _MOST_NAMES
    more = f" and {rest} more" if rest > 0 else ""
    return f"{len(labels)} ({', '.join(labels[:_MOST_NAMES])}{more})"


def _listed(parts: list[str], last: str = "and") -> str:
    return f"{', '.join(parts[:-1])} {last} {parts[-1]}" if len(parts) > 1 else "".join(parts)


def _on_validation(validation: Mapping[str, Any], *, is_trained: bool) -> str:
    if not is_trained:
        return "No network was trained: the closed-form map is what was asked for."
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


def _seen_at_fit(validation: Mapping[str, Any]) -> list[str]:
    """Whether the fit has seen a response; older ones did not look."""
    p_value = float(validation.get("p_no_change", math.nan))
    if not p_value > _SIGNIFICANT:
        return []
    halves = f"as near to each other as random halves of both (p = {number(p_value)})"
    return [f"The fit has seen no response: its source and target cells are {halves}."]
