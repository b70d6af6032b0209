"""What the scores say about a map, in plain words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from scot_hycnn._anndata._results import GroupGrowth
from scot_hycnn._anndata.evaluation._evaluation_input import REPLICATE, SAME_COMPOSITION, headline_of, is_low
from scot_hycnn._warn import SIGNIFICANT, joined

_OURS, _NOTHING, _GAUSSIAN = "hycnn_ot", "identity", "gaussian"
# The simple answers that a prediction has to beat, the first one above all.
_SIMPLE = {_NOTHING: "no change", "mean_shift": "a shift of the mean", _GAUSSIAN: "the Gaussian map"}
# After fewer steps it means nothing that networks are not better than the Gaussian map; the default is 250 or more.
_FEW_STEPS = 125
_MAX_NAMES, _MAX_IN_HEADLINE = 10, 3
# Part of a group whose loss or gain is worth a sentence.
_WORTH_SAYING = 0.1
# What a replicate is, where it is named first.
_REPLICATE = "a replicate (one half of the observed cells, compared with the other half)"
# What maps that no groups left out have chosen are without networks.
KEPT = "Gaussian map"


class _Kind(Enum):
    """What the scores of some cells say, and the words for groups of cells of which they say it."""

    # Headline, level and sentences depend on the kind alone, so that no two of them contradict each other.
    # The prediction is nearer to the observed cells than no change, and as near as a replicate; or it is not; or a
    # simple answer is nearer still.
    REPLICATE = "as near as a replicate in {}"
    SHORT = "nearer than no change, but not as near as a replicate, in {}"
    BEATEN = "nearer than no change, but less near than a simpler answer, in {}"
    # There is a response, and the prediction is not clearly nearer than no change, or is farther.
    UNCLEAR = "not clearly different from no change in {}"
    FARTHER = "farther than no change in {}"
    # No change is as near to the observed cells as one half of them is to the other.
    NO_RESPONSE = "not clearly different from no change in {}, where no response is seen"
    MOVED_AWAY = "farther than no change in {}, where no response is seen"


# Levels of the verdict; what is not named here is 'worse'.
_LEVELS = {_Kind.REPLICATE: "good", _Kind.SHORT: "part", _Kind.UNCLEAR: "open", _Kind.NO_RESPONSE: "open"}


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

    def is_at_replicate(self, method: str) -> bool:
        """Return whether a method may be as near as one half of the observed cells is to the other."""
        if REPLICATE not in self.scores:
            return False
        score, replicate = self.scores[method], self.scores[REPLICATE]
        low = score.low if score.has_interval else score.value
        return low <= (replicate.high if replicate.has_interval else replicate.value)

    def kind(self) -> _Kind:
        """Decide whether the prediction is nearer than no change, then as near as a replicate, else what is seen."""
        to_nothing = self.compare(_OURS, _NOTHING)
        if to_nothing < 0:
            if 1 in [self.compare(_OURS, name) for name in self.rivals]:
                return _Kind.BEATEN
            return _Kind.REPLICATE if self.is_at_replicate(_OURS) else _Kind.SHORT
        if self.is_at_replicate(_NOTHING) and not self.response_seen:
            return _Kind.MOVED_AWAY if to_nothing > 0 else _Kind.NO_RESPONSE
        return _Kind.FARTHER if to_nothing > 0 else _Kind.UNCLEAR

    @property
    def responds(self) -> bool:
        """Whether the cells respond, as far as the scores can show it."""
        is_clear = REPLICATE in self.scores and not self.is_at_replicate(_NOTHING)
        return is_clear or self.response_seen or self.compare(_OURS, _NOTHING) < 0

    @property
    def is_above_replicate(self) -> bool:
        """Whether the prediction is clearly farther than a replicate."""
        return REPLICATE in self.scores and not self.is_at_replicate(_OURS)

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
    growth: Sequence[GroupGrowth] | None = None,
) -> dict[str, Any]:
    """Judge a prediction; return a level, a headline, sentences, and details of the choice of the map.

    The sentences say in this order whether there is a response, whether the prediction is as near as a replicate, where
    it is not, and whether it is better than simple answers. Details say whether networks or Gaussian map were kept.

    Levels are 'good' (as near as a replicate, in each group too), 'part' (nearer than no change, but somewhere not as
    near as a replicate), 'worse' (farther than no change or than another simple answer), and 'open' (not evaluated, or
    not clear). ``n_seen`` is how many evaluated cells the fit has seen at least, and ``evaluate`` is what a reader has
    to run to evaluate it.
    """
    # With leave_out="groups" a map without networks may be another one, such as a shift.
    is_gaussian = float(validation.get("blend", math.nan)) == 0 and str(validation.get("winner", KEPT)) == KEPT
    few_steps = max_steps if is_trained and max_steps and max_steps < _FEW_STEPS else None
    # Older fits have no p value: NaN is neither above nor below the threshold.
    p_value = float(validation.get("p_no_change", math.nan))
    details = [_on_validation(validation, is_trained=is_trained), *_mass(validation, growth)]
    if scores is not None:
        headline_group = headline_of(scores["group"])
        distances = scores[scores["metric"] == "energy_distance"]
        everyone = distances[distances["group"] == headline_group]
        rows = _Distances(everyone, is_gaussian=is_gaussian, response_seen=p_value <= SIGNIFICANT)
    if scores is None or not rows.is_complete:
        missing = (
            "Held-out cells have not been evaluated."
            if scores is None
            else "The stored evaluation has no energy distance of both the prediction and no change."
        )
        headline = "Not evaluated: nothing says whether the prediction is better than no change"
        sentences = [f"{missing} Run {evaluate}.", *_seen_at_fit(p_value)]
        details += _too_few_steps(few_steps) if is_gaussian else []
        return {"level": "open", "headline": headline, "sentences": sentences, "details": details}

    kind = rows.kind()
    groups = {
        str(label): _Distances(of_group, is_gaussian=is_gaussian)
        for label, of_group in distances[~distances["group"].isin(["all", SAME_COMPOSITION])].groupby(
            "group", sort=False
        )
    }
    groups = {label: group for label, group in groups.items() if group.is_complete and group.has_intervals}
    short = [label for label, group in groups.items() if group.is_above_replicate]
    kept, is_kept_low = _kept(scores, headline_group)
    sentences = [*_response(kind, rows, everyone, p_value), *_reach(kind, rows), *_where_not(groups, short)]
    sentences += [*filter(None, [kept]), *_simple(rows), *_by_group(groups)]
    if is_gaussian and is_trained:
        details += _why_gaussian(kind, rows, few_steps)
    if n_seen:
        sentences.append(
            f"The fit has seen at least {n_seen:,} of the evaluated cells, so the scores are too good: "
            "hold cells out with sh.pp.split, and fit and evaluate again."
        )
    level, headline = _LEVELS.get(kind, "worse"), _headline(kind, rows)
    if kind in (_Kind.REPLICATE, _Kind.SHORT) and short:
        named = f"{len(short)} of {len(groups)} groups ({joined(short, _MAX_IN_HEADLINE)})"
        headline += f", but not in {named}" if kind is _Kind.REPLICATE else f"; clearly farther in {named}"
    if kind in (_Kind.REPLICATE, _Kind.SHORT) and is_kept_low:
        headline += "; it carries cells into other groups"
    level = "part" if level == "good" and (short or is_kept_low) else level
    if not rows.has_intervals:
        level, headline = "open", f"{headline}; without intervals this may be chance"
    return {"level": level, "headline": headline, "sentences": sentences, "details": details}


def _by_method(rows: pd.DataFrame, columns: Sequence[str]) -> dict[str, _Score]:
    """Return the scores of the methods whose energy distance is finite."""
    rows = rows[rows["value"].abs() < math.inf]
    numbers = rows[list(columns)].to_numpy(dtype=float).tolist()
    return {str(method): _Score(*score) for method, score in zip(rows["method"], numbers, strict=True)}


def _headline(kind: _Kind, rows: _Distances) -> str:
    response = "There is a response, " if rows.responds else ""
    ours, cells = "the prediction" if rows.responds else "The prediction", "to the observed cells"
    rival = rows.better_rival()
    if kind is _Kind.REPLICATE:
        return f"{response}and {ours} is as near {cells} as a replicate"
    if kind is _Kind.SHORT:
        if REPLICATE not in rows.scores:
            return f"{response}and {ours} is nearer {cells} than no change"
        return f"{response}and {ours} goes {_share(rows)} of the way from no change to a replicate"
    if kind is _Kind.BEATEN:
        beaten_by = [name for name in rows.rivals if rows.difference(_OURS, name).value > 0]
        best = min(beaten_by, key=lambda name: rows.scores[name].value)
        nearer = f"{response}and {ours} is nearer {cells} than no change"
        return f"{nearer}, but {_SIMPLE[best]} is nearer still: use that one"
    if kind is _Kind.NO_RESPONSE:
        return "No response is seen: no change is as near to the observed cells as they are to each other"
    but = f"{response}but {ours}" if rows.responds else ours
    if kind is _Kind.UNCLEAR:
        return f"{but} is not clearly nearer {cells} than no change" + (
            "" if rival is None else f", while {_SIMPLE[rival]} is"
        )
    if kind is _Kind.MOVED_AWAY:
        return f"No response is seen, and the prediction is farther from {cells[3:]} than no change: do not use it"
    advice = "do not use it" if rival is None else f"use {_SIMPLE[rival]}, which is nearer"
    return f"{but} is farther from {cells[3:]} than no change: {advice}"


def _share(rows: _Distances) -> str:
    """Return which part of the way from no change to the replicate the prediction goes, less than all of it."""
    replicate, nothing, ours = (rows.scores[name].value for name in (REPLICATE, _NOTHING, _OURS))
    share = (nothing - ours) / (nothing - replicate) if nothing > replicate else 1.0
    return percent(share) if share < 0.9995 else f"more than {percent(0.999)}"


def _response(kind: _Kind, rows: _Distances, everyone: pd.DataFrame, p_value: float) -> list[str]:
    """Say which cells are compared, and whether there is a response."""
    first, nothing = everyone.iloc[0], rows.scores[_NOTHING]
    cells = f"{int(first['n_source']):,} source and {int(first['n_target']):,} observed cells"
    weighted = ""
    if first["group"] == SAME_COMPOSITION:
        weighted = (
            ", with observed cells weighted so that each group has the share that it has among the source cells: "
            "otherwise a map that carries cells into other groups would look better than it is"
        )
    sentences = [f"All distances here are energy distances, 0 for two clouds that are alike, of {cells}{weighted}."]
    distance = f"No change is at {number(nothing.value)}{nothing.interval}"
    if REPLICATE not in rows.scores:
        return [*sentences, f"{distance} from the observed cells."]
    replicate = rows.scores[REPLICATE]
    sentences.append(
        f"{distance} from the observed cells, and {_REPLICATE} at {number(replicate.value)}{replicate.interval}."
    )
    if kind in (_Kind.NO_RESPONSE, _Kind.MOVED_AWAY):
        few = "there is no response, or it is too small for this score and so few cells"
        advice = "Evaluate more cells, or look at single groups and at the other scores below."
        sentences += [f"No change cannot be distinguished from a replicate: {few}. {advice}", *_seen_at_fit(p_value)]
    elif kind in (_Kind.UNCLEAR, _Kind.FARTHER) and rows.is_at_replicate(_NOTHING):
        few = "so few evaluated cells do not show the response that the fit has seen among its training cells"
        sentences.append(f"No change cannot be distinguished from a replicate: {few}. Evaluate more cells.")
    return sentences


def _reach(kind: _Kind, rows: _Distances) -> list[str]:
    """Say how near the prediction is, and whether a replicate is nearer."""
    ours = rows.scores[_OURS]
    distance = f"The prediction is at {number(ours.value)}{ours.interval}"
    if kind is _Kind.REPLICATE:
        return [f"{distance}, as near as a replicate: with this number of cells no map could be seen to be better."]
    if kind in (_Kind.SHORT, _Kind.BEATEN) and rows.is_above_replicate:
        return [f"{distance}, which is {_share(rows)} of the way from no change to a replicate."]
    return [f"{distance}."]


def _where_not(groups: Mapping[str, _Distances], short: Sequence[str]) -> list[str]:
    """Name the groups that are clearly farther than a replicate, with their distances."""
    with_replicate = [label for label, group in groups.items() if REPLICATE in group.scores]
    if not with_replicate:
        return []
    if not short:
        return [f"In none of {len(with_replicate)} groups is it clearly farther than a replicate."]
    named = [
        f"{label} ({number(groups[label].scores[_OURS].value)}, replicates up to "
        f"{number(groups[label].scores[REPLICATE].high)})"
        for label in short
    ]
    where = f"{len(short)} of {len(with_replicate)} groups: {joined(named, _MAX_NAMES)}"
    return [f"It is clearly farther than a replicate in {where}."]


def _kept(scores: pd.DataFrame, headline_group: str) -> tuple[str, bool]:
    """Say how many predicted cells lie among observed cells of their own group, and whether they are too few."""
    rows = scores[scores["metric"] == "kept_group"]
    by_group = {str(label): _by_method(of_group, ["value", "low", "high"]) for label, of_group in rows.groupby("group")}
    by_group = {label: found for label, found in by_group.items() if {_OURS, REPLICATE} <= found.keys()}
    if headline_group not in by_group:
        return "", False
    ours, replicate = by_group[headline_group][_OURS], by_group[headline_group][REPLICATE]
    said = f"{percent(ours.value)} of the predicted cells lie among observed cells of their own group"
    if not is_low(ours, replicate):
        return f"{said}; of the observed cells themselves {percent(replicate.value)} do.", False
    lost = {
        label: found[REPLICATE].value - found[_OURS].value
        for label, found in by_group.items()
        if label not in ("all", SAME_COMPOSITION)
    }
    worst = ""
    if lost:
        most = max(lost, key=lambda label: lost[label])
        shares = (percent(by_group[most][method].value) for method in (_OURS, REPLICATE))
        worst = f" The loss is largest in {most}: {', for '.join(shares)}."
    others = f"for {percent(replicate.value)} of the observed cells themselves"
    return f"Only {said}, {others}: the map carries cells into other groups.{worst} group_key in a fit avoids it.", True


def _simple(rows: _Distances) -> list[str]:
    """Say how far simple answers are, and how much the prediction differs from them."""
    there = [name for name in rows.rivals if name in rows.scores]
    sentences = []
    if there:
        others = [f"{_SIMPLE[method]} is at {number(rows.scores[method].value)}" for method in there]
        sentences.append(f"Of the simple answers, {_listed(others)}.")
    found = {name: rows.difference(_OURS, name) for name in (_NOTHING, *rows.rivals)}
    differences = [
        f"{number(difference.value)} from {_SIMPLE[name]}{difference.interval}"
        for name, difference in found.items()
        if difference.has_interval
    ]
    if differences:
        signs = {-1: "is clearly nearer than", 0: "is not clearly different from", 1: "is clearly farther than"}
        said = [
            f"{words} {_listed([_SIMPLE[name] for name in found if rows.compare(_OURS, name) == sign])}"
            for sign, words in signs.items()
            if any(rows.compare(_OURS, name) == sign for name in found)
        ]
        on = f"on the same cells it differs by {_listed(differences)}; negative is nearer"
        sentences.append(f"The prediction {_listed(said)}: {on}.")
    return sentences


def _why_gaussian(kind: _Kind, rows: _Distances, few_steps: int | None) -> list[str]:
    """Say what it means that the Gaussian map was kept."""
    if kind in (_Kind.NO_RESPONSE, _Kind.MOVED_AWAY):
        return ["The Gaussian map was kept, which says nothing if there is no response that networks could learn."]
    if kind is _Kind.REPLICATE:
        linear = "As far as these cells show, the response is linear: no network could be seen to be better."
        return [linear, *_too_few_steps(few_steps)]
    if few_steps is not None or REPLICATE not in rows.scores:
        return _too_few_steps(few_steps)
    return ["The Gaussian map does not explain all of the response, and the networks have not learned the remainder."]


def _too_few_steps(few_steps: int | None) -> list[str]:
    if few_steps is None:
        return []
    usual = f"max_steps={few_steps}, and {2 * _FEW_STEPS} or more are usual. Leave max_steps out."
    return [f"The networks were not trained enough to be judged: {usual}"]


def _by_group(groups: Mapping[str, _Distances]) -> list[str]:
    """Say in which groups the prediction is nearer than what; nothing if there are no groups or no intervals."""
    found: dict[_Kind, list[str]] = {kind: [] for kind in _Kind}
    for label, group in groups.items():
        found[group.kind()].append(label)
    parts = [
        kind.value.format(f"{len(labels)} ({joined(labels, _MAX_NAMES)})") for kind, labels in found.items() if labels
    ]
    scored = "one group that was" if len(groups) == 1 else f"{len(groups)} groups that were"
    return [f"Of {scored} scored one by one, the prediction is {'; '.join(parts)}."] if parts else []


def _listed(parts: list[str]) -> str:
    return f"{', '.join(parts[:-1])} and {parts[-1]}" if len(parts) > 1 else "".join(parts)


def _on_validation(validation: Mapping[str, Any], *, is_trained: bool) -> str:
    """Say what the networks achieved on validation cells."""
    if "winner" in validation and float(validation.get("blend", math.nan)) == 0:
        return _on_groups_left_out(validation)
    if not is_trained:
        return "No network was trained: only the closed-form map was requested."
    blend, j, j_gaussian, after, before = (
        float(validation.get(name, math.nan))
        for name in ("blend", "J", "J_gaussian", "energy_distance", "energy_distance_gaussian")
    )
    counts = [int(validation.get(name, 0)) for name in ("n_source", "n_target")]
    on = f"On {counts[0]:,} source and {counts[1]:,} target validation cells"
    if blend == 0:
        return f"{on}, the networks were not better than the closed-form Gaussian map, which was kept."
    # J is minimised: a positive gap means that the networks are better.
    gap = j_gaussian - j
    errors, blends = (np.ravel(validation.get(name, ())).tolist() for name in ("J_error_by_blend", "blends"))
    error = f" ± {number(errors[blends.index(blend)])} (standard error)" if blend in blends[: len(errors)] else ""
    part = "the networks" if blend == 1 else f"a blend of {percent(blend)} networks and the Gaussian map"
    objective = "the objective J of optimal transport"
    if not math.isfinite(gap):
        what = f"{objective} is not finite for {part} and cannot be compared"
    elif gap < 0:
        what = f"{part} raised {objective} above that of the Gaussian map by {number(-gap)}{error}"
    else:
        what = f"{part} lowered {objective} below that of the Gaussian map by {number(gap)}{error}"
    in_print = number(before), number(after)
    distance = f"stayed at {in_print[1]}" if in_print[0] == in_print[1] else "changed from {} to {}".format(*in_print)
    return f"{on}, {what}; the energy distance {distance}."


def _mass(validation: Mapping[str, Any], growth: Sequence[GroupGrowth] | None) -> list[str]:
    """Say which part of the mass a fit with weights of cells transports, and which groups lose or gain cells."""
    penalty = float(validation.get("unbalanced", math.nan))
    if math.isnan(penalty):
        return []
    if math.isinf(penalty):
        return ["No change of proportions was found that stands out from the response: all cells are transported."]
    mass = f"The fit transports {percent(float(validation.get('transported_mass', math.nan)))} of the mass"
    sentences = [f"{mass} (unbalanced = {number(penalty)}), and the scores are those of this mass."]
    if growth is None:
        return sentences
    parts = [
        f"about {percent(round(1 - row.growth, 2))} of {row.group} have no counterpart after treatment (growth "
        f"{number(row.growth)}, 95 % interval {number(row.low)} to {number(row.high)})"
        for row in growth
        if row.high < 1 and 1 - row.growth >= _WORTH_SAYING
    ]
    more = [
        f"{row.group} grow to {number(row.growth)} times their share ({number(row.low)} to {number(row.high)})"
        for row in reversed(growth)
        if row.low > 1 and row.growth - 1 >= _WORTH_SAYING
    ]
    for some in (parts, more):
        if some:
            text = _listed(some[:_MAX_NAMES])
            sentences.append(f"{text[0].upper()}{text[1:]}.")
    if parts or more:
        sentences.append("Cell death and sampling in other proportions cannot be told apart.")
    return [" ".join(sentences)]


def _on_groups_left_out(validation: Mapping[str, Any]) -> str:
    """Say which map was chosen on groups left out, and how near each was there, the nearest first."""
    chosen = f"Of the maps that were compared on groups left out, this one was chosen: {validation['winner']}."
    names, mean, error = (np.ravel(validation.get(f"ladder{column}", ())) for column in ("", "_mean", "_error"))
    if not (len(names) == len(mean) == len(error) > 0 and mean.dtype.kind == error.dtype.kind == "f"):
        return chosen
    rows = sorted(zip(mean.tolist(), error.tolist(), map(str, names), strict=True))
    listed = ", ".join(f"{name} {number(value)} ± {number(more)}" for value, more, name in rows)
    return (
        f"{chosen} Each was fitted without a group and compared with its treated cells; the mean energy distance over "
        f"groups, ± its standard error, was: {listed}."
    )


def _seen_at_fit(p_value: float) -> list[str]:
    """Say that the fit has seen no response, if so."""
    if not p_value > SIGNIFICANT:
        return []
    halves = f"as near to each other as random halves of all of them (p = {number(p_value)})"
    return [f"The fit has seen no response: its source and target cells are {halves}."]
