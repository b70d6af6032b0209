"""From trained parameters to the map that a fit returns: blend, measure, and say what happened."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scot_hycnn.potentials import Potential
from scot_hycnn.solver._options import MIN_STEPS, RECIPES, Settings
from scot_hycnn.solver.data._cells import Cells
from scot_hycnn.solver.model._families import GAUSSIAN
from scot_hycnn.solver.model._map import TransportMap
from scot_hycnn.solver.runtime._precision import full_precision

from ._blend import (
    BLENDS,
    CONVERGED,
    Blended,
    Score,
    as_numpy,
    by_blend,
    choose,
    is_usable,
    recentred,
    score_blends,
)
from ._groups_left_out import LeftOut
from ._response import compared_rows, response

# Cells on which the certificate is measured: enough to see a fault, few enough to take well under a second.
CERTIFICATE_CELLS = 200
# Above this p value of the permutation test no response is seen.
SIGNIFICANT = 0.05
# With fewer steps than this nothing can be concluded from networks that are no better than the Gaussian map.
FEW_STEPS = MIN_STEPS // 2


class Outcome(StrEnum):
    """What a fit has led to, as ``TransportMap.outcome`` says it.

    ``NETWORKS``: the networks are part of the map. ``REQUESTED``: ``potential='gaussian'`` asked for the Gaussian map.
    The Gaussian map was kept, with ``NO_RESPONSE`` because source and target cells are as near to each other as random
    halves of both, with ``NOT_TRAINED`` because there were few steps, and with ``GAUSSIAN`` because networks that were
    trained as usual were not better: the response is close to linear, or cells are few. Something went wrong:
    ``RECOVERED`` from numbers that were not finite; ``UNSOLVED``, the convex conjugates were not solved well, so that
    the map may be off; ``WORSE``, the map is not better than the Gaussian one (``solver='paper'``, which keeps it).

    Parameters
    ----------
    value
        The outcome as files and ``adata.uns`` hold it, for instance ``'networks'``.

    Examples
    --------
    >>> from scot_hycnn.solver import Outcome
    >>> Outcome("networks").is_trouble, Outcome.RECOVERED.is_trouble
    (False, True)
    """

    NETWORKS = "networks"
    REQUESTED = "gaussian requested"
    GAUSSIAN = "gaussian kept"
    NO_RESPONSE = "gaussian kept: no response seen"
    NOT_TRAINED = "gaussian kept: few steps"
    RECOVERED = "recovered"
    UNSOLVED = "conjugates not solved"
    WORSE = "worse than gaussian"

    @property
    def is_trouble(self) -> bool:
        """Whether something went wrong that the user has to know of."""
        return self in (Outcome.RECOVERED, Outcome.UNSOLVED, Outcome.WORSE)


@dataclass(frozen=True)
class Trained:
    """What the loop hands on.

    Parameters
    ----------
    theta
        Parameters, shape (K, P).
    cells
        The cells in the coordinates of training.
    keep_gaussian
        Whether the Gaussian map was clearly better.
    left_out
        How blends did on groups that were left out, if that is what the choice is to be made on.
    n_steps, history, n_bad_gradients
        What happened on the way.
    """

    theta: Tensor
    cells: Cells
    keep_gaussian: bool
    left_out: LeftOut | None = None
    n_steps: int = 0
    history: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    n_bad_gradients: int = 0

    def state(self) -> dict[str, Any]:
        """All but the cells, as plain values; groups are left out later."""
        names = ("theta", "keep_gaussian", "n_steps", "history", "n_bad_gradients")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Choice:
    """The ensemble, the blends that were scored, the Gaussian map first, and which of them is taken."""

    ensemble: Blended
    blends: tuple[float, ...]
    scores: list[Score]
    chosen: int

    @property
    def blend(self) -> float:
        """The blend that is taken."""
        return self.blends[self.chosen]

    @property
    def score(self) -> Score:
        """Its score."""
        return self.scores[self.chosen]

    @property
    def gaussian(self) -> Score:
        """The Gaussian map's."""
        return self.scores[0]


@full_precision()
def finish(network: Potential, trained: Trained, cells: Cells, settings: Settings, seconds: float) -> TransportMap:
    """Blend, measure, and say what happened.

    Parameters
    ----------
    network
        Architecture of the members.
    trained
        From the loop.
    cells
        The cells in balanced coordinates.
    settings
        Options of the fit.
    seconds
        What this map has taken so far.

    Returns
    -------
    The map, with its certificate.
    """
    started = time.perf_counter()
    choice = _choose(network, trained, cells, settings)
    generator = np.random.default_rng(settings.rng)
    validation = _validation(trained, choice, cells, generator)
    outcome, status = _outcome(settings, trained, choice, validation)
    coordinates = trained.cells.coordinates
    if choice.blend == 0:
        # Where no network stands in its way, the Gaussian map gains from the validation cells.
        coordinates = cells.all_cells
    elif choice.ensemble.shift is not None:
        coordinates = coordinates.with_shifted_map(choice.blend * as_numpy(choice.ensemble.shift))
    seconds += time.perf_counter() - started
    fitted = TransportMap(
        network=network,
        theta=trained.theta.cpu(),
        coordinates=coordinates,
        support=trained.cells.support(coordinates, rng=settings.rng),
        gaussian=None if choice.blend == 0 else cells.all_cells,
        blend=choice.blend,
        w2_squared=cells.w2_squared(choice.score.semi_dual),
        outcome=outcome,
        status=status,
        params=settings.report() | {"n_steps": trained.n_steps, "seconds": seconds},
        history=trained.history,
        validation=validation,
        device=settings.device,
    )
    # Validation cells are in random order: the first of them are a random sample.
    sample = (own[:CERTIFICATE_CELLS] for own in (cells.x_validation_original, cells.y_validation_original))
    certificate = fitted.certify(*sample)
    return replace(fitted, certificate=certificate)


def _validation(trained: Trained, choice: Choice, cells: Cells, rng: np.random.Generator) -> dict[str, Any]:
    distance, p_value = _response(cells, rng)
    mean_error, variance_ratio = _forward_moments(choice, trained.cells)
    return {
        "blend": choice.blend,
        "J": choice.score.semi_dual,
        "J_gaussian": choice.gaussian.semi_dual,
        "energy_distance": choice.score.energy_distance,
        "energy_distance_gaussian": choice.gaussian.energy_distance,
        "residual": choice.score.residual,
        "mean_error": mean_error,
        "variance_ratio": variance_ratio,
        "energy_distance_no_change": distance,
        "p_no_change": p_value,
        "n_source": len(cells.x_validation),
        "n_target": len(cells.y_validation),
        "far_source": cells.far_x,
        "far_target": cells.far_y,
        **by_blend(choice.scores, choice.blends),
        **({} if trained.left_out is None else trained.left_out.by_blend()),
    }


def _response(cells: Cells, rng: np.random.Generator) -> tuple[float, float]:
    """Energy distance of source and target training cells as they are, and the p value of no response."""
    # Only what is compared leaves balanced coordinates: there may be 100,000 cells, for each of many maps.
    of_x, of_y = compared_rows(len(cells.x), rng), compared_rows(len(cells.y), rng)
    x = cells.coordinates.invert_source(as_numpy(cells.x[torch.as_tensor(of_x, device=cells.x.device)]))
    y = cells.coordinates.invert_target(as_numpy(cells.y[torch.as_tensor(of_y, device=cells.y.device)]))
    if cells.strata_x is None or cells.strata_y is None:
        return response(x, y, None, rng)
    return response(x, y, (cells.strata_x.codes[of_x], cells.strata_y.codes[of_y]), rng)


@torch.no_grad()
def _forward_moments(choice: Choice, cells: Cells) -> tuple[float, float]:
    """How far the mean of the moved validation cells is off, in standard deviations of the target; and their variance.

    J judges the inverse map: what the forward map does to mean and variance has to be looked at by itself.
    """
    moved = cells.coordinates.invert_target(
        as_numpy(replace(choice.ensemble, blend=choice.blend).gradient(cells.x_validation))
    )
    y = cells.y_validation_original
    variance = y.var(0).sum() or 1.0
    return float(np.linalg.norm(moved.mean(0) - y.mean(0)) / np.sqrt(variance)), float(moved.var(0).sum() / variance)


def _choose(network: Potential, trained: Trained, cells: Cells, settings: Settings) -> Choice:
    weights = network.weights(trained.theta.to(torch.device(settings.device)))
    if _falls_back(settings):
        blends = BLENDS[:1] if trained.keep_gaussian else BLENDS
        ensemble = Blended(network, weights, 1.0) if trained.keep_gaussian else recentred(network, weights, cells)
        scores = score_blends(ensemble, cells, blends)
        chosen = choose(scores)
        if trained.left_out is not None and not trained.keep_gaussian:
            # The networks that were judged on groups left out are others than this ensemble, which must be sound too.
            wanted = trained.left_out.choose()
            chosen = wanted if is_usable(scores[wanted], scores) else 0
        return Choice(ensemble, blends, scores, chosen)
    ensemble = Blended(network, weights, 1.0)
    gaussian = score_blends(ensemble, cells, (0.0,))
    alone = score_blends(ensemble, trained.cells, (1.0,))
    return Choice(ensemble, (0.0, 1.0), gaussian + alone, 1)


def _falls_back(settings: Settings) -> bool:
    """Whether the Gaussian map is kept where the network is not better."""
    return RECIPES[settings.solver].balanced or settings.potential == GAUSSIAN


def _outcome(settings: Settings, trained: Trained, choice: Choice, validation: dict[str, Any]) -> tuple[Outcome, str]:
    """What the fit has led to, and the same in sentences; of several things that went wrong the outcome is the last."""
    outcome, sentences = Outcome.NETWORKS, []
    if settings.potential == GAUSSIAN:
        outcome = Outcome.REQUESTED
    elif choice.blend == 0:
        outcome, sentence = _kept_gaussian(settings, trained, validation)
        sentences.append(sentence)
    # Not by J, which is infinite where the network's gradient does not reach every target cell.
    if not _falls_back(settings) and not choice.score.energy_distance < choice.gaussian.energy_distance:
        outcome = Outcome.WORSE
        sentences.append(
            f"The map is not better than the Gaussian map on validation cells, and solver={settings.solver!r} does not "
            "fall back on that one."
        )
    residual = float(trained.history["residual"][-1]) if trained.history else 0.0
    if _falls_back(settings) and choice.blend and not residual < CONVERGED:
        outcome = Outcome.UNSOLVED
        sentences.append(
            f"The convex conjugates were not solved well in training: their mean residual is {residual:.2g} standard "
            f"deviations of the target, and {CONVERGED:g} is the limit of a sound fit. Check the map with "
            "tl.evaluate on held-out cells; fewer components (n_pcs) may help."
        )
    if trained.n_bad_gradients:
        outcome = Outcome.RECOVERED
        sentences.append(
            f"Training met {trained.n_bad_gradients} non-finite gradients in {trained.n_steps} steps, which were "
            "skipped."
        )
    return outcome, " ".join(sentences) or "ok"


def _kept_gaussian(settings: Settings, trained: Trained, validation: dict[str, Any]) -> tuple[Outcome, str]:
    """Why the Gaussian map was kept."""
    held = "groups left out of training" if trained.left_out is not None else "validation cells"
    kept = f"The Gaussian map was kept: on {held} the networks were not better after {trained.n_steps} steps."
    if validation["p_no_change"] > SIGNIFICANT:
        return Outcome.NO_RESPONSE, (
            f"{kept} No response was seen: source and target cells are as near to each other as random halves of both "
            f"(energy distance {validation['energy_distance_no_change']:.2g}, p = {validation['p_no_change']:.2g}). "
            "More cells may show one."
        )
    if settings.max_steps < FEW_STEPS:
        return Outcome.NOT_TRAINED, (
            f"{kept} That is too few to tell whether they would be: leave max_steps out, or take more."
        )
    return Outcome.GAUSSIAN, f"{kept} The response is close to linear, or cells are too few to show more."
