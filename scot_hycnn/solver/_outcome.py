"""From trained parameters to the map that a fit returns: blend, measure, and say what happened."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scot_hycnn.potentials import Potential

from ._cells import Cells
from ._choices import GAUSSIAN, RECIPES
from ._leave_out import LeftOut
from ._map import TransportMap
from ._precision import full_precision
from ._selection import BLENDS, Score, by_blend, choose, is_usable, score_blends
from ._settings import Settings

# Cells on which the certificate is measured: enough to see a fault, few enough to take well under a second.
CERTIFICATE_CELLS = 200


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
    """The blends that were scored, the Gaussian map first, and which of them is taken."""

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
    seconds += time.perf_counter() - started
    # Where no network stands in its way, the Gaussian map gains from the validation cells.
    coordinates = cells.all_cells if choice.blend == 0 else trained.cells.coordinates
    fitted = TransportMap(
        network=network,
        theta=trained.theta.cpu(),
        coordinates=coordinates,
        support=trained.cells.support(coordinates, rng=settings.rng),
        gaussian=None if _falls_back(settings) else cells.all_cells,
        blend=choice.blend,
        w2_squared=cells.w2_squared(choice.score.semi_dual),
        status=_status(settings, trained, choice),
        params=settings.report() | {"n_steps": trained.n_steps, "seconds": seconds},
        history=trained.history,
        validation=_validation(trained, choice, cells),
        device=settings.device,
    )
    # At random: in the order of a file sorted by cell type the first ones would be of one type.
    generator = np.random.default_rng(settings.rng)
    sample = (
        generator.permutation(each)[:CERTIFICATE_CELLS]
        for each in (cells.x_validation_original, cells.y_validation_original)
    )
    certificate = fitted.certify(*sample)
    return replace(fitted, certificate=certificate)


def _validation(trained: Trained, choice: Choice, cells: Cells) -> dict[str, Any]:
    return {
        "blend": choice.blend,
        "J": choice.score.semi_dual,
        "J_gaussian": choice.gaussian.semi_dual,
        "energy_distance": choice.score.energy_distance,
        "energy_distance_gaussian": choice.gaussian.energy_distance,
        "n_source": len(cells.x_validation),
        "n_target": len(cells.y_validation),
        **by_blend(choice.scores, choice.blends),
        **({} if trained.left_out is None else trained.left_out.by_blend()),
    }


def _choose(network: Potential, trained: Trained, cells: Cells, settings: Settings) -> Choice:
    weights = network.weights(trained.theta.to(torch.device(settings.device)))
    if _falls_back(settings):
        blends = BLENDS[:1] if trained.keep_gaussian else BLENDS
        scores = score_blends(network, weights, cells, blends)
        chosen = choose(scores)
        if trained.left_out is not None and not trained.keep_gaussian:
            # The networks that were judged on groups left out are others than this ensemble, which must be sound too.
            wanted = trained.left_out.choose()
            chosen = wanted if is_usable(scores[wanted], scores[0]) else 0
        return Choice(blends, scores, chosen)
    gaussian = score_blends(network, weights, cells, (0.0,))
    alone = score_blends(network, weights, trained.cells, (1.0,))
    return Choice((0.0, 1.0), gaussian + alone, 1)


def _falls_back(settings: Settings) -> bool:
    """Whether the Gaussian map is kept where the network is not better."""
    return RECIPES[settings.solver].balanced or settings.potential == GAUSSIAN


def _status(settings: Settings, trained: Trained, choice: Choice) -> str:
    sentences = []
    if trained.n_bad_gradients:
        sentences.append(
            f"met {trained.n_bad_gradients} non-finite gradients in {trained.n_steps} steps, which were skipped."
        )
    if choice.blend == 0 and settings.potential != GAUSSIAN:
        held = "groups left out of training" if trained.left_out is not None else "validation cells"
        early = f" after {trained.n_steps} steps" if trained.n_steps < settings.max_steps else ""
        sentences.append(
            f"kept the Gaussian map: on {held} the network was not better{early}. This is the right answer "
            "where the response is close to linear, or cells are few."
        )
    # Not by J, which is infinite where the network's gradient does not reach every target cell.
    if not _falls_back(settings) and not choice.score.energy_distance < choice.gaussian.energy_distance:
        sentences.append(
            f"gave a map that is not better than the Gaussian one on validation cells; solver={settings.solver!r} does "
            "not fall back on it."
        )
    return " ".join(sentences) or "ok"
