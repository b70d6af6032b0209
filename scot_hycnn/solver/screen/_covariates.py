"""Conditions that were not seen: weights of the seen ones, as a function of covariates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scot_hycnn._warn import joined

Array = NDArray[np.float64]
Chosen = NDArray[np.bool_]

# The covariate of a query whose value is a vector, where conditions have an embedding.
EMBEDDING = "embedding"
# Numbers that are not negative and span more than this factor are taken on a log scale, as doses and times.
LOG_SPAN = 4.0
# Beyond this distance from every seen condition, in units of the usual one, a prediction is refused.
MAX_DISTANCE = 3.0
NEAREST, INTERPOLATION, KRIGING, ADDITIVE = "nearest", "interpolation", "kriging", "additive"
# Parts of the covariance that are compared by leaving conditions out, in quarters: effects of numbers that all
# categories share, constant effects of categories, effects of both together, and those of both that alike categories
# share. And the noise, in units of the mean variance.
PARTS = [parts for parts in product((0.0, 0.25, 0.5, 0.75, 1.0), repeat=4) if sum(parts) == 1]
NOISE = (1e-6, 0.003, 0.01, 0.03, 0.1, 0.3)
SMOOTH = (False, True)
# Options of a rule: the parts, the noise, and whether responses are smooth in numbers.
Options = tuple[tuple[float, ...], float, bool]
# Options whose share in the mean over options is below this part of the largest one are left out.
MIN_SHARE = 0.01


@dataclass(frozen=True)
class Covariates:
    """What is known of each condition, and the rule that makes the weights of a condition that was not seen.

    The response to a condition is a Gaussian process over its covariates whose mean is no change, so that its
    prediction is a sum of the seen responses with weights (simple kriging). The covariance is Brownian motion in each
    number that is never negative: between two doses it interpolates linearly, and at 0 nothing happens. Its parts are
    effects of numbers that all categories share, constant effects of categories, effects of both together, which are
    those of interpolation within a category, and effects that categories share as far as they respond alike at other
    numbers (the intrinsic model of coregionalisation: Goovaerts 1997, Geostatistics for Natural Resources Evaluation).
    """

    numbers: dict[str, Array] = field(default_factory=dict)
    categories: dict[str, list[str]] = field(default_factory=dict)
    # One row a condition, shape (K, p), or None.
    embedding: Array | None = None
    rule: str = NEAREST
    # Options of each rule, with their shares in the prediction.
    options: dict[str, list[tuple[Options, float]]] = field(default_factory=dict)
    # Mean squared error of each rule where conditions are left out, in units of that of no change.
    errors: dict[str, float] = field(default_factory=dict)
    # Mean inner products of the responses, shape (K, K), which show what categories respond alike.
    products: Array | None = None

    @classmethod
    def read(
        cls, covariates: Mapping[str, Sequence[Any]] | None, embedding: ArrayLike | None, n_conditions: int
    ) -> Covariates | None:
        """Check the covariates of the conditions; None if there are none."""
        numbers: dict[str, Array] = {}
        categories: dict[str, list[str]] = {}
        for name, values in (covariates or {}).items():
            column = list(values)
            if len(column) != n_conditions:
                raise ValueError(f"covariates[{name!r}] has {len(column)} values for {n_conditions} conditions.")
            if all(isinstance(value, Real) for value in column):
                numbers[name] = np.asarray(column, dtype=np.float64)
                if not np.isfinite(numbers[name]).all():
                    raise ValueError(f"covariates[{name!r}] has a value that is not finite.")
            else:
                categories[name] = [str(value) for value in column]
        table = None
        if embedding is not None:
            table = np.asarray(embedding, dtype=np.float64)
            if table.ndim != 2 or len(table) != n_conditions or not np.isfinite(table).all():
                raise ValueError(f"embedding must be finite, of shape ({n_conditions}, p); it has shape {table.shape}.")
        return cls(numbers, categories, table) if numbers or categories or table is not None else None

    def chosen(self, displacements: Array) -> Covariates:
        """Choose the rule by leaving conditions out; ``displacements`` has one row a condition, shape (K, n d)."""
        n = len(displacements)
        if n < 3:
            return self
        products = displacements @ displacements.T / displacements.shape[1]
        known, unchanged = replace(self, products=products), float(np.trace(products)) or 1.0

        def error(errors: Array) -> float:
            """Mean squared error, from the weights of conditions in the error of each one, shape (K, K)."""
            return float(((errors @ products) * errors).sum() / unchanged)

        coded = self._coded(self._queries())
        apart = self._distances(coded, coded) + np.diag(np.full(n, np.inf))
        errors = {NEAREST: error(np.eye(n) - np.eye(n)[apart.argmin(1)])}
        options: dict[str, list[tuple[Options, float]]] = {}
        _, places = np.unique(_as_table(coded, self.categories, n), axis=0, return_inverse=True)
        at = [places.ravel() == place for place in range(places.max() + 1)]
        everyone = np.ones(n, dtype=bool)
        # Where hardly any conditions have the same numbers, these do not show what categories have in common.
        has_alike = 1 < len(at) <= n // 2 and len({*self._kinds(self.categories)}) > 1
        for rule in (INTERPOLATION, ADDITIVE, KRIGING):
            grid = _grid(rule, bool(self.numbers) or self.embedding is not None, bool(self.categories), has_alike)
            scores = np.zeros(len(grid))
            # What categories have in common is taken from other numbers than those of the condition that is left out.
            for rows in (everyone, *at):
                compared = [k for k, (shares, *_) in enumerate(grid) if bool(shares[3]) == (rows is not everyone)]
                parts = {smooth: known.parts(coded, coded, rows, smooth=smooth) for smooth in SMOOTH if compared}
                for k in compared:
                    shares, noise, smooth = grid[k]
                    inverse = np.linalg.inv(_covariance(parts[smooth], shares, noise))
                    # Without condition k its prediction is V_k - (K^-1 V)_k / (K^-1)_kk.
                    scores[k] += error((inverse / np.diag(inverse)[:, None])[rows])
            errors[rule] = float(scores.min())
            # K conditions hardly tell options apart, so that predictions are averaged, with the likelihoods of normal
            # errors as weights. (48 planted conditions, three seeds, squared error of means: .63 for the best options,
            # .61 for the mean; Adnet, four cases, energy distance: .109 and .108.)
            scores = np.maximum(scores, np.finfo(float).tiny)
            likely = (scores.min() / scores) ** (n / 2)
            likely *= likely >= MIN_SHARE
            options[rule] = [(grid[k], float(likely[k] / likely.sum())) for k in np.flatnonzero(likely)]
        best = min(errors, key=lambda rule: errors[rule])
        return replace(known, rule=best, options=options, errors=errors)

    def weights(self, query: Mapping[str, Any], rule: str | None = None) -> tuple[Array, float]:
        """Return the weight of each seen condition, shape (K,), and the distance to them in units of the usual one.

        What the weights lack to 1 is the weight of no change.
        """
        asked, seen = self._coded(self._checked(query)), self._coded(self._queries())
        apart = self._distances(asked, seen)[0]
        gaps = self._distances(seen, seen) + np.diag(np.full(len(apart), np.inf))
        usual = np.median(gaps.min(1)) if len(gaps) > 1 else 1.0
        distance = float(apart.min() / usual) if usual > 0 and math.isfinite(usual) else float(apart.min())
        if distance > MAX_DISTANCE:
            k = int(apart.argmin())
            nearest: dict[str, Any] = {name: float(column[k]) for name, column in self.numbers.items()}
            nearest |= {name: column[k] for name, column in self.categories.items()}
            raise ValueError(
                f"{dict(query)} is {distance:.2g} times as far from the nearest seen condition as seen conditions are "
                f"from each other, and {MAX_DISTANCE:g} is the limit. Ask for a condition nearer to "
                f"{nearest}, or add a condition there."
            )
        rule = rule or self.rule
        if rule == NEAREST:
            return np.eye(len(apart))[apart.argmin()], distance
        numbers, of_query = (_as_table(one, self.categories, n) for one, n in ((seen, len(apart)), (asked, 1)))
        at_same = (numbers == of_query).all(1)
        parts = {smooth: [self.parts(one, seen, at_same, smooth=smooth) for one in (seen, asked)] for smooth in SMOOTH}
        weights: Array = np.zeros(len(apart))
        for (of_parts, noise, smooth), share in self.options[rule]:
            among, of_asked = parts[smooth]
            weights += share * np.linalg.solve(_covariance(among, of_parts, noise), _covariance(of_asked, of_parts)[0])
        return weights, distance

    def _queries(self) -> dict[str, Any]:
        return {**self.numbers, **self.categories} | ({} if self.embedding is None else {EMBEDDING: self.embedding})

    def _checked(self, query: Mapping[str, Any]) -> dict[str, Any]:
        """Return the covariates of one condition as columns of length 1."""
        needed = set(self._queries())
        if set(query) != needed:
            raise ValueError(f"covariates={sorted(query)} must be {sorted(needed)}, as the fit had them.")
        columns: dict[str, Any] = {}
        for name, value in query.items():
            if name in self.categories:
                known = sorted(set(self.categories[name]))
                if str(value) not in known:
                    raise ValueError(
                        f"{name}={value!r} was not seen; the fit has {joined([repr(one) for one in known])}."
                    )
                columns[name] = [str(value)]
                continue
            number: Array = np.asarray(value, dtype=np.float64)
            wanted = () if name in self.numbers else np.asarray(self.embedding).shape[1:]
            if number.shape != wanted or not np.isfinite(number).all():
                raise ValueError(f"{name}={value!r} must be finite, of shape {wanted}.")
            columns[name] = number[None]
        return columns

    def _coded(self, columns: Mapping[str, Any]) -> dict[str, Array]:
        """Return numbers on their scale, in units of the median gap of seen ones, and categories as they are."""
        coded: dict[str, Any] = {}
        for name, column in columns.items():
            if name in self.categories:
                coded[name] = np.asarray(column)
            elif name == EMBEDDING:
                table = np.asarray(self.embedding)
                coded[name] = np.asarray(column) / (np.sqrt(table.var(0).sum()) or 1.0)
            else:
                seen = self.numbers[name]
                scaled, of_seen = np.asarray(column, dtype=np.float64), np.unique(seen)
                positive = of_seen[of_seen > 0]
                if len(positive) and of_seen[0] >= 0 and of_seen[-1] > LOG_SPAN * positive[0]:
                    if (scaled < 0).any():
                        raise ValueError(f"{name}={float(scaled.min())} is negative, and no seen condition is.")
                    # The smallest positive value is the unit, so that the scale does not depend on units.
                    scaled, of_seen = np.log1p(scaled / positive[0]), np.log1p(of_seen / positive[0])
                gap = float(np.median(np.diff(of_seen))) if len(of_seen) > 1 else max(abs(float(of_seen[0])), 1.0)
                coded[name] = scaled / gap
        return coded

    def _distances(self, first: Mapping[str, Array], second: Mapping[str, Array]) -> Array:
        """Return the distances of conditions: neighbours in a number, and different categories, are 1 apart."""
        squared = []
        for name in first:
            if name in self.categories:
                squared.append((first[name][:, None] != second[name]).astype(float))
            else:
                one, other = (table[name].reshape(len(table[name]), -1) for table in (first, second))
                squared.append(((one[:, None] - other) ** 2).sum(-1))
        return np.asarray(np.sqrt(np.sum(squared, axis=0)), dtype=np.float64)

    def parts(self, first: Mapping[str, Array], second: Mapping[str, Array], without: Chosen, *, smooth: bool) -> Array:
        """Return the parts of the covariance of the responses to conditions, (4, len(first), len(second)).

        What categories respond alike is learned from all conditions but some, ``without``, shape (K,).
        """
        of_numbers, of_categories = [], []
        for name in first:
            if name in self.categories:
                of_categories.append((first[name][:, None] == second[name]).astype(float))
                continue
            one, other = (table[name].reshape(len(table[name]), -1) for table in (first, second))
            if name in self.numbers and self.numbers[name].min() >= 0:
                # Brownian motion, or smoother its integral (a cubic spline), both 0 at 0.
                smaller, larger = np.minimum(one, other.T), np.maximum(one, other.T)
                scale = float(self._coded({name: self.numbers[name]})[name].mean()) or 1.0
                cubic = smaller**2 * (3 * larger - smaller) / (2 * scale**3)
                of_numbers.append(cubic if smooth else smaller / scale)
            else:
                apart = np.sqrt(((one[:, None] - other) ** 2).sum(-1)) / (3.0 if name in self.numbers else 1.0)
                # Matern covariance of order 3/2, or of order 1/2, which interpolates linearly.
                of_numbers.append((1 + apart) * np.exp(-apart) if smooth else np.exp(-apart))
        together = np.prod([*of_numbers, *of_categories], axis=0)
        means = [np.mean(some, axis=0) if some else 0 * together for some in (of_numbers, of_categories)]
        alike = np.prod([*of_numbers, self._alike(first, second, without)], axis=0) if of_categories else 0 * together
        return np.stack([*means, together, alike])

    def _kinds(self, columns: Mapping[str, Any]) -> list[tuple[str, ...]]:
        """Return the values of all categories of each condition."""
        return list(zip(*(columns[name] for name in self.categories), strict=True))

    def _alike(self, first: Mapping[str, Array], second: Mapping[str, Array], without: Chosen) -> Array:
        """Return how alike the responses to the categories of conditions are, shape (len(first), len(second))."""
        kinds = [*dict.fromkeys(self._kinds(self.categories))]
        seen, *both = (
            np.array([[one == kind for kind in kinds] for one in self._kinds(columns)], dtype=float)
            for columns in (self.categories, first, second)
        )
        coded = _as_table(self._coded(self._queries()), self.categories, len(without))
        same = (coded[:, None] == coded).all(-1) & ~without
        # Mean inner products of responses at the same numbers; those of few pairs may have negative eigenvalues.
        table = seen.T @ (same * np.asarray(self.products)) @ seen / np.maximum(seen.T @ same @ seen, 1)
        values, vectors = np.linalg.eigh((table + table.T) / 2)
        table = (vectors * np.maximum(values, 0.0)) @ vectors.T
        return np.asarray(both[0] @ table @ both[1].T / (np.trace(table) / len(kinds) or 1.0), dtype=np.float64)


def _as_table(coded: Mapping[str, Array], categories: Mapping[str, Any], n: int) -> Array:
    """Return the numbers of conditions, shape (n, p)."""
    numbers = [table.reshape(n, -1) for name, table in coded.items() if name not in categories]
    return np.concatenate([np.zeros((n, 0)), *numbers], axis=1)


def _covariance(parts: Array, shares: Sequence[float], noise: float = 0.0) -> Array:
    """Return the covariance with these shares of its parts, and of the noise in units of the mean variance."""
    covariance = np.tensordot(np.asarray(shares), parts, 1)
    return np.asarray(covariance + noise * np.trace(covariance) / len(covariance) * np.eye(*covariance.shape))


def _grid(rule: str, has_numbers: bool, has_categories: bool, has_alike: bool) -> list[Options]:
    """Return the options of a rule that are compared."""
    if rule == INTERPOLATION:
        return [((0.0, 0.0, 1.0, 0.0), NOISE[0], False)]
    parts = [
        parts
        for parts in PARTS
        if (has_numbers or not parts[0])
        and (has_categories or not parts[1])
        and ((has_alike and rule == KRIGING) or not parts[3])
        and (rule == KRIGING or not parts[2])
    ]
    noise = NOISE if rule == ADDITIVE else NOISE[2:]
    return list(product(parts, noise, SMOOTH if has_numbers else (False,)))
