"""What a map is and how good it is, in five lines; all of it may come from a file that somebody else wrote."""

from __future__ import annotations

import html
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

# Longer names end with '...'.
_MAX_LENGTH = 60
# The column of scores that there is where groups were left out of training.
_LEFT_OUT = "J_left_out_by_blend"


def lines_of(fitted: Any) -> tuple[str, dict[str, str]]:
    """Return the title, and the lines about what was fitted, what was chosen and how good it is."""
    origin, params, validation = fitted.origin, fitted.params, fitted.validation
    rep = origin.get("rep")
    of_rep = f" of {_quoted(rep.get('name'))}" if isinstance(rep, Mapping) else ""
    labels = f"{_quoted(origin.get('source'))} \N{RIGHTWARDS ARROW} {_quoted(origin.get('target'))}, " if origin else ""
    dimensions = "1 dimension" if fitted.n_dims == 1 else f"{fitted.n_dims} dimensions"
    title = f"TransportMap: {labels}{dimensions}{of_rep}"

    network = fitted.network
    widths = ", ".join(map(str, network.hidden[:5])) + (" ..." if len(network.hidden) > 5 else "")
    family, n_steps = type(network).__name__, _text(params.get("n_steps", "unknown"))
    ensemble = f"{len(fitted.theta)} x {family} with layers of {widths}, {n_steps} steps"
    is_closed_form = params.get("potential") == "gaussian"
    seconds = _number(params.get("seconds"))
    took = f", {seconds:.3g} s on {_text(params.get('device'))}" if math.isfinite(seconds) else ""
    seed = f", seed {_text(params.get('rng'))}" if "rng" in params else ""

    before, after, gaussian = (
        _number(validation.get(f"energy_distance{name}")) for name in ("_no_change", "", "_gaussian")
    )
    return title, {
        "fitted": ("Gaussian map in closed form" if is_closed_form else ensemble) + took + seed,
        "chosen": f"{_text(fitted.outcome) or 'unknown'}, blend {fitted.blend:.3g} (0: Gaussian map, 1: networks)",
        "gain": gain_in_words(fitted),
        "energy distance": f"{_shown(before)} before the map (training cells), {_shown(after)} after it, "
        f"{_shown(gaussian)} after the Gaussian map (validation cells)",
    }


def gain_in_words(fitted: Any) -> str:
    """Return how much better than the Gaussian map a map is, and on what cells."""
    gain, error = gain_of(fitted)
    if not math.isfinite(gain):
        return "unknown"
    cells = " and ".join(f"{_text(fitted.validation.get(f'n_{side}'))} {side}" for side in ("source", "target"))
    where = "groups left out of training" if _LEFT_OUT in fitted.validation else f"{cells} cells for validation"
    how_much = f"{gain:.3g} \N{PLUS-MINUS SIGN} {error:.1g}" if fitted.blend else "none"
    return f"{how_much} over the Gaussian map, on {where}"


def gain_of(fitted: Any) -> tuple[float, float]:
    """Return J of the Gaussian map minus that of a map, on cells or groups that training has not seen, and its error.

    Both are NaN if they are not known.
    """
    name = _LEFT_OUT if _LEFT_OUT in fitted.validation else "J_by_blend"
    blends, j, errors = (
        np.atleast_1d(np.asarray(fitted.validation.get(column, ())))
        for column in ("blends", name, name.replace("_by", "_error_by"))
    )
    are_known = all(column.dtype.kind in "fiu" and column.shape == (len(blends),) for column in (blends, j, errors))
    # The Gaussian map is the first of the blends.
    places = np.flatnonzero(blends == fitted.blend).tolist() if are_known else []
    return (float(j[0] - j[places[0]]), float(errors[places[0]])) if places else (math.nan, math.nan)


def summary_of(maps: Sequence[Any]) -> str:
    """Return what has come out of one fit, or of many, on one line."""
    if len(maps) == 1:
        said = f", gain {gain_in_words(maps[0])}" if maps[0].blend else ""
        return f"{_text(maps[0].outcome)}{said}"
    outcomes = ", ".join(f"{n} {_text(outcome)}" for outcome, n in Counter(one.outcome for one in maps).most_common())
    gain = float(np.median([gain_of(one)[0] for one in maps]))
    return f"{len(maps)} maps ({outcomes}), median gain {_shown(gain)} over the Gaussian map"


def as_text(title: str, lines: Mapping[str, str]) -> str:
    """Return a title and the lines below it."""
    width = max(map(len, lines)) + 2
    return "\n".join([title, *(f"  {name:<{width}}{line}" for name, line in lines.items())])


def as_html(title: str, lines: Mapping[str, str]) -> str:
    """Return a table with the title and the lines; all text is escaped."""
    left = "style='text-align: left'"
    rows = "".join(
        f"<tr><th {left}>{html.escape(name)}</th><td {left}>{html.escape(line)}</td></tr>"
        for name, line in lines.items()
    )
    head = f"<tr><th colspan='2' {left}>{html.escape(title)}</th></tr>"
    return f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>"


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float, np.number)) else math.nan


def _shown(number: float) -> str:
    return f"{number:.3g}" if math.isfinite(number) else "unknown"


def _quoted(value: object) -> str:
    return repr(_text(value))


def _text(value: object) -> str:
    """Return a value on one short line, without characters that control a terminal."""
    text = "".join(char if char.isprintable() else " " for char in str(value))
    return text if len(text) <= _MAX_LENGTH else f"{text[: _MAX_LENGTH - 3]}..."
