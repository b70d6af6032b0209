"""What a fit says of the choice of its map and of the cells that it transports, in plain words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from scot_hycnn._anndata._results import GroupGrowth

from ._distances import number, percent

# What maps that no groups left out have chosen are without networks.
KEPT = "Gaussian map"
MAX_NAMES = 10
# Part of a group whose loss or gain is worth a sentence.
_WORTH_SAYING = 0.1


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
