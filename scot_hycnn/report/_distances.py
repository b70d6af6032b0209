"""Energy distances of one group of cells: how the methods compare, and what that says of the prediction."""

from __future__ import annotations

import math
from enum import Enum
from typing import NamedTuple

import pandas as pd

from scot_hycnn.pl._figure import number

# Methods as the table of scores names them.
OURS, NOTHING, GAUSSIAN, REPLICATE = "hycnn_ot", "identity", "gaussian", "replicate"
# The simple answers that a prediction has to beat, the first one above all.
SIMPLE = {NOTHING: "no change", "mean_shift": "a shift of the mean", GAUSSIAN: "the Gaussian map"}


class Kind(Enum):
    """What the scores of some cells say: the level of the verdict, and the words for groups of which they say it."""

    # The prediction is nearer to the observed cells than no change, and as near as a replicate; or it is not; or a
    # simple answer is nearer still.
    REPLICATE = "good", "as near as a replicate in {}"
    SHORT = "part", "nearer than no change, but not as near as a replicate, in {}"
    BEATEN = "worse", "nearer than no change, but less near than a simpler answer, in {}"
    # There is a response, and the prediction is not clearly nearer than no change, or is farther.
    UNCLEAR = "open", "not clearly different from no change in {}"
    FARTHER = "worse", "farther than no change in {}"
    # A test sees no response; or, if there was none, no change is as near to the observed cells as their halves are.
    NO_RESPONSE = "open", "not judged in {}, where no response is seen"
    MOVED_AWAY = "worse", "farther than no change in {}, where no response is seen"


class Score(NamedTuple):
    """An energy distance, or a difference of two, with its interval (NaN if there is none)."""

    value: float
    low: float
    high: float

    @property
    def has_interval(self) -> bool:
        """Whether both ends are known."""
        return math.isfinite(self.high - self.low)

    @property
    def ends(self) -> tuple[float, float]:
        """The ends of the interval; the value, if there is none."""
        return (self.low, self.high) if self.has_interval else (self.value, self.value)

    @property
    def half(self) -> float:
        """Half of the interval's length."""
        return max(self.high - self.value, self.value - self.low, 0.0) if self.has_interval else math.inf

    @property
    def sign(self) -> int:
        """Of a difference: -1 or 1, and 0 if the interval includes 0."""
        # The value belongs to its interval, whatever a file says.
        low, high = self.ends
        return -1 if max(high, self.value) < 0 else int(min(low, self.value) > 0)

    @property
    def interval(self) -> str:
        """The interval in print, after the value."""
        return f" ({percent(0.95)} interval {number(self.low)} to {number(self.high)})" if self.has_interval else ""


def percent(part: float) -> str:
    """Print three digits in percent, without a line break before the sign."""
    return f"{100 * part:.3g}\N{NO-BREAK SPACE}%"


def by_method(rows: pd.DataFrame, prefix: str = "") -> dict[str, Score]:
    """Return the scores of the methods with a finite value, or the differences in columns with a prefix."""
    rows = rows[rows["value"].abs() < math.inf]
    columns = [prefix or "value", *(f"{prefix}_{end}".lstrip("_") for end in ("low", "high"))]
    numbers = rows[columns].to_numpy(dtype=float).tolist()
    return {str(method): Score(*score) for method, score in zip(rows["method"], numbers, strict=True)}


class Distances:
    """Energy distances of one group of cells, by method, and how methods compare on them."""

    def __init__(self, rows: pd.DataFrame, *, is_gaussian: bool, response_seen: bool | None = None) -> None:
        self.scores, self.to_gaussian = by_method(rows), by_method(rows, "vs_gaussian")
        self.is_complete = {OURS, NOTHING} <= self.scores.keys()
        # The Gaussian map is no rival if the prediction is its own.
        self.rivals = [name for name in SIMPLE if name != NOTHING and not (is_gaussian and name == GAUSSIAN)]
        self.response_seen = response_seen
        self.has_intervals = self.difference(OURS, NOTHING).has_interval

    def kind(self) -> Kind:
        """Return what the scores say: the first of these decisions that holds."""
        to_nothing = self.compare(OURS, NOTHING)
        is_nearer, is_farther = to_nothing < 0, to_nothing > 0
        is_quiet = self.is_at_replicate(NOTHING) if self.response_seen is None else not self.response_seen
        decisions = [
            (is_farther and is_quiet, Kind.MOVED_AWAY),
            (self.response_seen is False, Kind.NO_RESPONSE),
            (is_nearer and 1 in [self.compare(OURS, name) for name in self.rivals], Kind.BEATEN),
            (is_nearer and self.is_at_replicate(OURS), Kind.REPLICATE),
            (is_nearer, Kind.SHORT),
            (is_quiet, Kind.NO_RESPONSE),
            (is_farther, Kind.FARTHER),
        ]
        return next((kind for holds, kind in decisions if holds), Kind.UNCLEAR)

    def difference(self, method: str, other: str) -> Score:
        """Return the distance of one method less that of another; NaN if one of both is missing."""
        if not {method, other} <= self.scores.keys():
            return Score(math.nan, math.nan, math.nan)
        if other == GAUSSIAN:
            return self.to_gaussian[method]
        # The bootstrap compares methods with the Gaussian map only, on the same cells. For two other methods the
        # standard deviation of the difference is at most the sum of two, whatever their correlation: of the values',
        # or of the differences' from the Gaussian map, which is smaller if the part that the cells share cancels.
        known = [self.scores, *([self.to_gaussian] if GAUSSIAN in self.scores else [])]
        half = min(scores[method].half + scores[other].half for scores in known)
        value = self.scores[method].value - self.scores[other].value
        return Score(value, value - half, value + half)

    def compare(self, method: str, other: str) -> int:
        """Return -1 if a method is nearer than another, 1 if it is farther, and 0 if that is not clear."""
        difference = self.difference(method, other)
        return difference.sign if difference.has_interval or not self.has_intervals else 0

    def is_at_replicate(self, method: str) -> bool:
        """Return whether a method may be as near as one half of the observed cells is to the other."""
        return REPLICATE in self.scores and self.scores[method].ends[0] <= self.scores[REPLICATE].ends[1]

    @property
    def is_above_replicate(self) -> bool:
        """Whether the prediction is clearly farther than a replicate."""
        return REPLICATE in self.scores and not self.is_at_replicate(OURS)

    @property
    def responds(self) -> bool:
        """Whether the cells respond, as far as the scores can show it."""
        is_clear = REPLICATE in self.scores and not self.is_at_replicate(NOTHING)
        return is_clear or bool(self.response_seen) or self.compare(OURS, NOTHING) < 0

    def nearest_rival(self) -> str | None:
        """Return the nearest of the simple answers that are nearer than the prediction."""
        nearer = [name for name in self.rivals if self.difference(OURS, name).value > 0]
        return min(nearer, key=lambda name: self.scores[name].value, default=None)

    def share(self) -> str:
        """Return which part of the way from no change to the replicate the prediction goes, less than all of it."""
        replicate, nothing, ours = (self.scores[name].value for name in (REPLICATE, NOTHING, OURS))
        share = (nothing - ours) / (nothing - replicate) if nothing > replicate else 1.0
        return percent(share) if share < 0.9995 else f"more than {percent(0.999)}"
