"""What the scores say about a map, and what the fit says of its choice and its mass, in plain words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from scot_hycnn._anndata._results import GroupGrowth
from scot_hycnn._anndata.evaluation._evaluation_input import SAME_COMPOSITION, headline_of, is_low
from scot_hycnn._warn import SIGNIFICANT, joined
from scot_hycnn.pl._figure import number

from ._distances import NOTHING, OURS, REPLICATE, SIMPLE, Distances, Kind, by_method, percent

# After fewer steps it means nothing that networks are not better than the Gaussian map; the default is 250 or more.
_FEW_STEPS = 125
_MAX_IN_HEADLINE = 3
# What maps that no groups left out have chosen are without networks.
KEPT = "Gaussian map"
MAX_NAMES = 10
# Part of a group whose loss or gain is worth a sentence.
_WORTH_SAYING = 0.1


def verdict(
    validation: Mapping[str, Any],
    scores: pd.DataFrame | None,
    *,
    is_trained: bool = True,
    max_steps: int | None = None,
    n_seen: int = 0,
    evaluate: str,
    responds: Mapping[str, bool] | None = None,
    growth: Sequence[GroupGrowth] | None = None,
) -> dict[str, Any]:
    """Judge a prediction; return a level, a headline, sentences, and details of the choice of the map.

    The sentences say in this order whether there is a response, whether the prediction is as near as a replicate, where
    it is not, and whether it is better than simple answers. Details say whether networks or Gaussian map were kept.

    Levels are 'good' (as near as a replicate, in each group too), 'part' (nearer than no change, but somewhere not as
    near as a replicate), 'worse' (farther than no change or than another simple answer), and 'open' (not evaluated, or
    not clear). ``n_seen`` is how many evaluated cells the fit has seen at least, ``evaluate`` is what a reader has to
    run to evaluate it, and ``responds`` says in which groups a response is seen, if that is known.
    """
    # With leave_out="groups" a map without networks may be another one, such as a shift.
    is_gaussian = float(validation.get("blend", math.nan)) == 0 and str(validation.get("winner", KEPT)) == KEPT
    details = [on_validation(validation, is_trained=is_trained), *on_mass(validation, growth)]
    too_few = []
    if is_trained and max_steps and max_steps < _FEW_STEPS:
        usual = f"max_steps={max_steps}, and {2 * _FEW_STEPS} or more are usual. Leave max_steps out."
        too_few = [f"The networks were not trained enough to be judged: {usual}"]
    # Older fits have no p value: NaN is neither above nor below the threshold.
    p_value, unseen = float(validation.get("p_no_change", math.nan)), []
    if p_value > SIGNIFICANT:
        halves = f"as near to each other as random halves of all of them (p = {number(p_value)})"
        unseen = [f"The fit has seen no response: its source and target cells are {halves}."]

    # Without scores nothing can be said.
    missing, everyone = "Held-out cells have not been evaluated.", None
    if scores is not None:
        missing = "The stored evaluation has no energy distance of both the prediction and no change."
        distances = scores[scores["metric"] == "energy_distance"]
        everyone = distances[distances["group"] == headline_of(scores["group"])]
        rows = Distances(everyone, is_gaussian=is_gaussian, response_seen=p_value <= SIGNIFICANT or None)
    if scores is None or everyone is None or not rows.is_complete:
        headline = "Not evaluated: nothing says whether the prediction is better than no change"
        details += too_few if is_gaussian else []
        sentences = [f"{missing} Run {evaluate}.", *unseen]
        return {"level": "open", "headline": headline, "sentences": sentences, "details": details}

    # What all cells say, what each group says, and whether cells keep their group.
    kind, of_groups = rows.kind(), distances[~distances["group"].isin(["all", SAME_COMPOSITION])]
    groups = {
        str(label): Distances(of_group, is_gaussian=is_gaussian, response_seen=(responds or {}).get(str(label)))
        for label, of_group in of_groups.groupby("group", sort=False)
    }
    groups = {label: group for label, group in groups.items() if group.is_complete and group.has_intervals}
    short = [label for label, group in groups.items() if group.is_above_replicate]
    kept, is_kept_low = _kept(scores)
    sentences = [*_on_all_cells(kind, rows, everyone.iloc[0], unseen), *_where_not(groups, short)]
    sentences += [*kept, *_beside_simple_answers(rows), *_by_group(groups)]
    if n_seen:
        sentences.append(
            f"The fit has seen at least {n_seen:,} of the evaluated cells, so the scores are too good: "
            "hold cells out with sh.pp.split, and fit and evaluate again."
        )
    if is_gaussian and is_trained:
        details += _why_gaussian(kind, rows, too_few)

    # Groups can make the answer of all cells worse, and nothing is certain without intervals.
    level, headline = kind.value[0], _headline(kind, rows)
    if kind in (Kind.REPLICATE, Kind.SHORT):
        if short:
            named = f"{len(short)} of {len(groups)} groups ({joined(short, _MAX_IN_HEADLINE)})"
            headline += f", but not in {named}" if kind is Kind.REPLICATE else f"; it falls clearly short in {named}"
        if is_kept_low:
            headline += "; it carries cells into other groups"
        level = "part" if short or is_kept_low else level
    if not rows.has_intervals:
        level, headline = "open", f"{headline}; without intervals this may be chance"
    return {"level": level, "headline": headline, "sentences": sentences, "details": details}


def _headline(kind: Kind, rows: Distances) -> str:
    rival, of_cells = rows.nearest_rival(), "observed cells than no change"
    # It is advised only if it is clearly nearer than no change.
    advised = SIMPLE[rival] if rival is not None and rows.compare(rival, NOTHING) < 0 else None
    there_is = "There is a response, and the prediction"
    but = "There is a response, but the prediction" if rows.responds else "The prediction"
    match kind:
        case Kind.BEATEN:
            than = SIMPLE[rival or NOTHING]
            return f"{there_is} is nearer to the {of_cells}, but {than} is nearer still: use that one"
        case Kind.REPLICATE:
            return f"{there_is} is as near to the observed cells as these are to each other"
        case Kind.SHORT if REPLICATE in rows.scores:
            return f"{there_is} goes {rows.share()} of the way to the observed cells"
        case Kind.SHORT:
            return f"{there_is} is nearer to the {of_cells}"
        case Kind.MOVED_AWAY:
            return f"No response is seen, and the prediction is farther from the {of_cells}: do not use it"
        case Kind.NO_RESPONSE:
            return "No response is seen: no change is as near to the observed cells as they are to each other"
        case Kind.FARTHER:
            advice = f"use {advised}, which is nearer" if advised else "do not use it"
            return f"{but} is farther from the {of_cells}: {advice}"
        case Kind.UNCLEAR:
            return f"{but} is not clearly nearer to the {of_cells}" + (f", while {advised} is" if advised else "")


def _on_all_cells(kind: Kind, rows: Distances, first: Any, unseen: list[str]) -> list[str]:
    """Say which cells are compared, whether there is a response, and how near the prediction is."""
    nothing, replicate = rows.scores[NOTHING], rows.scores.get(REPLICATE)
    cells = f"{int(first['n_source']):,} source and {int(first['n_target']):,} observed cells"
    if first["group"] == SAME_COMPOSITION:
        cells += (
            ", in groups of ten or more, observed cells weighted so that each group has the share that it has among "
            "the source cells: otherwise a map that carries cells into other groups would look better than it is"
        )
    sentences = [f"All distances here are energy distances, 0 for two clouds that are alike, of {cells}."]
    distance = f"No change is at {number(nothing.value)}{nothing.interval} from the observed cells"
    reached = f"The prediction is at {number(rows.scores[OURS].value)}{rows.scores[OURS].interval}"
    if replicate is None:
        return [*sentences, f"{distance}.", f"{reached}."]
    half = "one half of the observed cells, compared with the other half"
    sentences.append(f"{distance}, and a replicate ({half}) at {number(replicate.value)}{replicate.interval}.")
    alike = "No change cannot be distinguished from a replicate"
    if kind in (Kind.NO_RESPONSE, Kind.MOVED_AWAY):
        few = "there is no response, or it is too small for this score and so few cells"
        advice = "Evaluate more cells, or look at single groups and at the other scores below."
        sentences += [f"{alike}: {few}. {advice}", *unseen]
    elif kind in (Kind.UNCLEAR, Kind.FARTHER) and rows.is_at_replicate(NOTHING):
        few = "so few evaluated cells do not show the response that the fit has seen among its training cells"
        sentences.append(f"{alike}: {few}. Evaluate more cells.")
    if kind is Kind.REPLICATE:
        reached += ", as near as a replicate: with this number of cells no map could be seen to be better"
    elif kind in (Kind.SHORT, Kind.BEATEN) and rows.is_above_replicate:
        reached += f", which is {rows.share()} of the way from no change to a replicate"
    return [*sentences, f"{reached}."]


def _where_not(groups: Mapping[str, Distances], short: Sequence[str]) -> list[str]:
    """Name the groups that are clearly farther than a replicate, with their distances."""
    n = sum(REPLICATE in group.scores for group in groups.values())
    if not short:
        return [f"In none of {n} groups is it clearly farther than a replicate."] if n else []
    ours, replicates = ({label: groups[label].scores[method] for label in short} for method in (OURS, REPLICATE))
    named = [
        f"{label} ({number(ours[label].value)}, replicates up to {number(replicates[label].high)})" for label in short
    ]
    return [f"It is clearly farther than a replicate in {len(short)} of {n} groups: {joined(named, MAX_NAMES)}."]


def _kept(scores: pd.DataFrame) -> tuple[list[str], bool]:
    """Say how many predicted cells lie among observed cells of their own group, and whether they are too few."""
    rows = scores[scores["metric"] == "kept_group"]
    pairs = {str(label): by_method(of_group) for label, of_group in rows.groupby("group")}
    pairs = {label: found for label, found in pairs.items() if {OURS, REPLICATE} <= found.keys()}
    everyone = pairs.get(headline_of(scores["group"]))
    if everyone is None:
        return [], False
    share, replicate = percent(everyone[OURS].value), percent(everyone[REPLICATE].value)
    said = f"{share} of the predicted cells lie among observed cells of their own group"
    if not is_low(everyone[OURS], everyone[REPLICATE]):
        return [f"{said}; of the observed cells themselves {replicate} do."], False
    lost = {label: found[REPLICATE].value - found[OURS].value for label, found in pairs.items()}
    most = max((label for label in lost if label not in ("all", SAME_COMPOSITION)), key=lost.__getitem__, default=None)
    worst = ""
    if most is not None:
        ours, of_replicate = (percent(pairs[most][method].value) for method in (OURS, REPLICATE))
        worst = f" The loss is largest in {most}: {ours}, for {of_replicate}."
    only = f"Only {said}, for {replicate} of the observed cells themselves: the map carries cells into other groups."
    return [f"{only}{worst} group_key in a fit avoids it."], True


def _beside_simple_answers(rows: Distances) -> list[str]:
    """Say how far simple answers are, and how much the prediction differs from them."""
    others = [f"{SIMPLE[name]} is at {number(rows.scores[name].value)}" for name in rows.rivals if name in rows.scores]
    sentences = [f"Of the simple answers, {and_joined(others)}."] if others else []
    compared: dict[int, list[str]] = {-1: [], 0: [], 1: []}
    differences = []
    for name in (NOTHING, *rows.rivals):
        difference = rows.difference(OURS, name)
        compared[rows.compare(OURS, name)].append(SIMPLE[name])
        if difference.has_interval:
            differences.append(f"{number(difference.value)} from {SIMPLE[name]}{difference.interval}")
    if differences:
        signs = {-1: "is clearly nearer than", 0: "is not clearly different from", 1: "is clearly farther than"}
        said = [f"{signs[sign]} {and_joined(names)}" for sign, names in compared.items() if names]
        on = f"on the same cells it differs by {and_joined(differences)}; negative is nearer"
        sentences.append(f"The prediction {and_joined(said)}: {on}.")
    return sentences


def _by_group(groups: Mapping[str, Distances]) -> list[str]:
    """Say in which groups the prediction is nearer than what; nothing if there are no groups or no intervals."""
    found: dict[Kind, list[str]] = {kind: [] for kind in Kind}
    for label, group in groups.items():
        found[group.kind()].append(label)
    parts = [
        kind.value[1].format(f"{len(labels)} ({joined(labels, MAX_NAMES)})") for kind, labels in found.items() if labels
    ]
    scored = "one group that was" if len(groups) == 1 else f"{len(groups)} groups that were"
    return [f"Of {scored} scored one by one, the prediction is {'; '.join(parts)}."] if parts else []


def _why_gaussian(kind: Kind, rows: Distances, too_few: list[str]) -> list[str]:
    """Say what it means that the Gaussian map was kept."""
    if kind in (Kind.NO_RESPONSE, Kind.MOVED_AWAY):
        return ["The Gaussian map was kept, which says nothing if there is no response that networks could learn."]
    if kind is Kind.REPLICATE:
        return ["As far as these cells show, the response is linear: no network could be seen to be better.", *too_few]
    if too_few or REPLICATE not in rows.scores:
        return too_few
    return ["The Gaussian map does not explain all of the response, and the networks have not learned the remainder."]


def and_joined(parts: Sequence[str]) -> str:
    """Return parts of a sentence with commas between them, and 'and' before the last one."""
    return " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))


def on_validation(validation: Mapping[str, Any], *, is_trained: bool) -> str:
    """Say what the networks achieved on validation cells, or which map was chosen on groups left out."""
    names = ("blend", "J", "J_gaussian", "energy_distance", "energy_distance_gaussian")
    blend, j, j_gaussian, after, before = (float(validation.get(name, math.nan)) for name in names)
    if "winner" in validation and blend == 0:
        return _on_groups_left_out(validation)
    if not is_trained:
        return "No network was trained: only the closed-form map was requested."
    n_source, n_target = (int(validation.get(name, 0)) for name in ("n_source", "n_target"))
    on = f"On {n_source:,} source and {n_target:,} target validation cells"
    if blend == 0:
        return f"{on}, the networks were not better than the closed-form Gaussian map, which was kept."
    # J is minimised: a positive gap means that the networks are better.
    gap = j_gaussian - j
    errors, blends = (np.ravel(validation.get(name, ())).tolist() for name in ("J_error_by_blend", "blends"))
    error = f" ± {number(errors[blends.index(blend)])} (standard error)" if blend in blends[: len(errors)] else ""
    part = "the networks" if blend == 1 else f"a blend of {percent(blend)} networks and the Gaussian map"
    objective = "the objective J of optimal transport"
    changed = "raised {} above" if gap < 0 else "lowered {} below"
    what = f"{part} {changed.format(objective)} that of the Gaussian map by {number(abs(gap))}{error}"
    if not math.isfinite(gap):
        what = f"{objective} is not finite for {part} and cannot be compared"
    was, is_ = number(before), number(after)
    distance = f"stayed at {is_}" if was == is_ else f"changed from {was} to {is_}"
    return f"{on}, {what}; the energy distance {distance}."


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


def on_mass(validation: Mapping[str, Any], growth: Sequence[GroupGrowth] | None) -> list[str]:
    """Say which part of the mass a fit with weights of cells transports, and which groups lose or gain cells."""
    penalty = float(validation.get("unbalanced", math.nan))
    if math.isnan(penalty):
        return []
    if math.isinf(penalty):
        return ["No change of proportions was found that stands out from the response: all cells are transported."]
    mass = f"The fit transports {percent(float(validation.get('transported_mass', math.nan)))} of the mass"
    sentences = [f"{mass} (unbalanced = {number(penalty)}), and the scores are those of this mass."]
    rows = growth or ()
    lost = [
        f"about {percent(round(1 - row.growth, 2))} of {row.group} have no counterpart after treatment (growth "
        f"{number(row.growth)}, 95 % interval {number(row.low)} to {number(row.high)})"
        for row in rows
        if row.high < 1 and 1 - row.growth >= _WORTH_SAYING
    ]
    gained = [
        f"{row.group} grow to {number(row.growth)} times their share ({number(row.low)} to {number(row.high)})"
        for row in reversed(rows)
        if row.low > 1 and row.growth - 1 >= _WORTH_SAYING
    ]
    joined = [and_joined(some[:MAX_NAMES]) for some in (lost, gained) if some]
    sentences += [f"{text[0].upper()}{text[1:]}." for text in joined]
    if lost or gained:
        sentences.append("Cell death and sampling in other proportions cannot be told apart.")
    return [" ".join(sentences)]
