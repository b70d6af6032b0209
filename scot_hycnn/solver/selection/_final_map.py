"""From trained networks to the map that a fit returns: choose the blend, measure, and state the outcome."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from scot_hycnn._warn import counted
from scot_hycnn.potentials import Potential
from scot_hycnn.solver._options import GAUSSIAN, MIN_STEPS, Settings
from scot_hycnn.solver.data._coordinates import Coordinates, as_numpy, as_tensor
from scot_hycnn.solver.data._training_data import Task, Trained, TrainingData
from scot_hycnn.solver.model._blended import N_POINTS, Blended, Support
from scot_hycnn.solver.model._map import Outcome, TransportMap
from scot_hycnn.solver.runtime._device import full_precision

from ._blend import (
    BLENDS,
    CONVERGED,
    GroupScores,
    Score,
    by_blend,
    by_blend_left_out,
    choose_blend,
    is_usable,
    recentred,
    score_blends,
)
from ._ladder import GAUSSIAN_MAP, NO_CHANGE, Ladder

# Cells on which the certificate is measured: enough to see a fault, few enough to take well under a second.
CERTIFICATE_CELLS = 200
# With fewer steps than this, networks that do not beat the Gaussian map are no evidence that it is the better map.
FEW_STEPS = MIN_STEPS // 2
_OF_WINNER = {GAUSSIAN_MAP: Outcome.GAUSSIAN, NO_CHANGE: Outcome.NO_CHANGE}


@full_precision()
def final_map(
    network: Potential,
    trained: Trained,
    cells: TrainingData,
    task: Task,
    seconds: float,
    *,
    ladder: Ladder | None = None,
    judged: tuple[TrainingData, TrainingData] | None = None,
    left_out: GroupScores | None = None,
    blend: float | None = None,
    certify: bool = True,
) -> TransportMap:
    """Return the map of a task by its trained networks, with its certificate; ``cells`` are in balanced coordinates.

    The blend is chosen on validation cells, or by a ``ladder`` of maps that were compared on groups left out, which may
    also choose a simpler map; ``left_out`` are then the scores of the networks there, and ``judged`` the cells as they
    are, and so that the simpler map is the same for all groups. A ``blend`` that was chosen before is kept. ``seconds``
    is the mean time of a map of its batch. Without ``certify`` the certificate is left to the caller.
    """
    started, settings = time.perf_counter(), task.settings
    falls_back = settings.balanced or settings.potential == GAUSSIAN
    ensemble, blends, scores, chosen = _chosen(
        network, trained, cells, settings, ladder, blend=blend, falls_back=falls_back
    )
    blend, score = blends[chosen], scores[chosen]
    # If the Gaussian map is kept, it is the one of all cells, validation cells included.
    coordinates = cells.all_cells if blend == 0 else trained.cells.coordinates
    gaussian = None if blend == 0 else cells.all_cells
    if ladder is None or judged is None or blend:
        validation = _validation(task, cells, scores, blends, chosen)
    else:
        ladder = replace(ladder, blend=0.0)
        _, cells = judged
        trained, coordinates = replace(trained, cells=cells), cells.all_cells
        if ladder.winner != GAUSSIAN_MAP:
            coordinates, gaussian = ladder.best.coordinates, cells.all_cells
        validation, score = _validation_of_simple(task, ensemble, cells, coordinates)
    of_groups: dict[str, Any] = {}
    if ladder is not None and judged is not None:
        validation |= ladder.report()
        of_groups = _of_groups(ladder, judged[0], coordinates, blend, settings.rng)
    if left_out is not None:
        validation |= by_blend_left_out(left_out)
    if task.groups_left_out:
        validation["groups_left_out"] = np.array(task.groups_left_out)
    is_worse = not falls_back and not score.energy_distance < scores[0].energy_distance
    outcome, status = _outcome(settings, trained, validation, ladder, falls_back=falls_back, is_worse=is_worse)

    # A constant that is added to the map is a linear term of the potential, which is part of the target's mean.
    if blend and ensemble.shift is not None:
        shift = blend * as_numpy(ensemble.shift) @ coordinates.matrix / coordinates.scale
        coordinates = replace(coordinates, mean_y=coordinates.mean_y + shift)

    fitted = TransportMap(
        network=network,
        theta=trained.theta.cpu(),
        coordinates=coordinates,
        blend=blend,
        w2_squared=max(_dual(cells, validation["J"]), 0.0),
        outcome=outcome,
        status=status,
        params=settings.report() | {"n_steps": trained.n_steps, "seconds": seconds + time.perf_counter() - started},
        history=trained.history,
        validation=validation,
        gaussian=gaussian,
        support=_support(trained.cells, coordinates, settings.rng),
        device=settings.device,
    )
    fitted = replace(fitted, **of_groups)
    if not certify:
        return fitted
    # Validation cells are in random order: the first of them are a random sample. Cells of a centred map are centred
    # here, and its certificate is that of all groups, since these maps differ by constants only.
    sample = (part[:CERTIFICATE_CELLS] for part in (cells.x_validation_original, cells.y_validation_original))
    return replace(fitted, certificate=replace(fitted, centres={}, baselines=None, between=None).certify(*sample))


def _of_groups(
    ladder: Ladder, ordinary: TrainingData, coordinates: Coordinates, blend: float, seed: int
) -> dict[str, Any]:
    """Return the fields of a map that was chosen on groups left out: its centres, and the shift for far cells."""
    fields: dict[str, Any] = {"far": None if ladder.far is None else ladder.far.coordinates}
    # A shift is the same around all baselines.
    around_baselines = ladder.baselines is not None and (blend > 0 or not ladder.best.is_shift)
    if around_baselines or (ladder.is_centred if blend else ladder.best.is_centred):
        fields["centres"] = dict(zip(ladder.all_groups, ladder.centres, strict=True))
        # What the map is compared with is the Gaussian map of the cells as they are, which needs no groups.
        fields["gaussian"] = ladder.gaussian
    if around_baselines:
        fields["baselines"] = ladder.baselines
    if not blend and (ladder.best.is_centred if around_baselines else ladder.best.extrapolates):
        # A group moves by where its centre is, so that cells far from the others before centring are far here.
        around_all = replace(coordinates, mean_x=ladder.centres.mean(0))
        between = np.column_stack([ladder.best.between, ladder.best.steady])
        fields |= {"between": between, "support": _support(ordinary, around_all, seed)}
    return fields


def _support(cells: TrainingData, coordinates: Coordinates, seed: int) -> Support:
    """Return some training cells in the coordinates of the map, which show where it was trained."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randperm(len(cells.x), generator=generator, device="cpu")[:N_POINTS]
    points = cells.x[rows.to(cells.x.device)]
    in_map = coordinates.source(cells.coordinates.invert_source(as_numpy(points)))
    unseen = coordinates.source(cells.x_validation_original)
    return Support.of(as_tensor(in_map, "cpu"), as_tensor(unseen, "cpu"))


def _chosen(
    network: Potential,
    trained: Trained,
    cells: TrainingData,
    settings: Settings,
    ladder: Ladder | None,
    *,
    blend: float | None,
    falls_back: bool,
) -> tuple[Blended, Sequence[float], list[Score], int]:
    """Return the ensemble, the blends that were compared, their scores, and the number of the chosen one."""
    ensemble = Blended(network, network.weights(trained.theta.to(torch.device(settings.device))), 1.0)
    if not falls_back:
        # Published methods that train without balanced coordinates keep their networks.
        scores = score_blends(ensemble, cells, (0.0,)) + score_blends(ensemble, trained.cells, (1.0,))
        return ensemble, (0.0, 1.0), scores, 1
    if trained.keep_gaussian:
        return ensemble, BLENDS[:1], score_blends(ensemble, cells, BLENDS[:1]), 0
    ensemble = recentred(network, ensemble.weights, cells)
    if blend is not None:
        blends = (0.0, blend)
        return ensemble, blends, score_blends(ensemble, cells, blends), 1
    scores = score_blends(ensemble, cells, BLENDS)
    if ladder is None:
        return ensemble, BLENDS, scores, choose_blend(scores)
    # The networks that were scored on groups left out are others than this ensemble, which must be sound too.
    chosen = BLENDS.index(ladder.blend)
    return ensemble, BLENDS, scores, chosen if is_usable(scores[chosen], scores) else 0


def _validation(
    task: Task, cells: TrainingData, scores: Sequence[Score], blends: Sequence[float], chosen: int
) -> dict[str, Any]:
    """Return the validation report of a map: scores of the chosen blend, of the Gaussian map, and of all blends."""
    score = scores[chosen]
    return {
        "blend": blends[chosen],
        "J": score.semi_dual,
        "J_gaussian": scores[0].semi_dual,
        "w2_squared_gaussian": max(_dual(cells, scores[0].semi_dual), 0.0),
        "energy_distance": score.energy_distance,
        "energy_distance_gaussian": scores[0].energy_distance,
        "residual": score.residual,
        "mean_error": score.mean_error,
        "variance_ratio": score.variance_ratio,
        "energy_distance_no_change": cells.no_change.energy_distance,
        "p_no_change": cells.no_change.p_value,
        "n_source": len(cells.x_validation),
        "n_target": len(cells.y_validation),
        "far_source": task.far_x,
        "far_target": task.far_y,
        **by_blend(scores, blends),
    }


def _validation_of_simple(
    task: Task, ensemble: Blended, cells: TrainingData, coordinates: Coordinates
) -> tuple[dict[str, Any], Score]:
    """Return the validation report of the map that is the identity in these coordinates, and its score."""
    judged = replace(cells, coordinates=coordinates).validated_on(
        cells.x_validation_original, cells.y_validation_original
    )
    (gaussian,), (score,) = (score_blends(ensemble, some, BLENDS[:1]) for some in (cells, judged))
    # J is written around the means of its coordinates. Only where these are the same are two of them comparable: half
    # the difference of the duals, which both are W_2^2 - 2 J with every linear term, is that of J.
    gain = (_dual(cells, gaussian.semi_dual) - _dual(judged, score.semi_dual)) / 2
    validation = _validation(task, cells, [gaussian, score], (0.0, 0.0), 1)
    validation |= by_blend([gaussian], BLENDS[:1]) | {"J": gaussian.semi_dual + gain}
    return validation, score


def _outcome(
    settings: Settings,
    trained: Trained,
    validation: dict[str, Any],
    ladder: Ladder | None,
    *,
    falls_back: bool,
    is_worse: bool,
) -> tuple[Outcome, str]:
    """Return the outcome and the same in sentences; of several things that went wrong it is the last."""
    outcome, sentences = Outcome.NETWORKS, []
    if ladder is not None:
        is_known = ladder.winner == NO_CHANGE or ladder.baselines is None
        simple = _OF_WINNER.get(ladder.winner, Outcome.SIMPLE) if is_known else Outcome.SIMPLE
        outcome = Outcome.NETWORKS if ladder.blend else simple
        sentences = [] if ladder.blend else [ladder.sentence]
    elif settings.potential == GAUSSIAN:
        outcome = Outcome.REQUESTED
    elif validation["blend"] == 0:
        steps = counted(trained.n_steps, "step")
        kept = f"The Gaussian map was kept: on validation cells the networks were not better after {steps}."
        if not trained.cells.no_change.rejected:
            outcome = Outcome.NO_RESPONSE
            sentences.append(
                f"{kept} No response was seen: source and target cells are as near to each other as random halves of "
                f"both (energy distance {validation['energy_distance_no_change']:.2g}, p = "
                f"{validation['p_no_change']:.2g}). More cells may show one."
            )
        elif settings.max_steps < FEW_STEPS:
            outcome = Outcome.NOT_TRAINED
            sentences.append(f"{kept} With so few steps this says little: leave max_steps out, or take more.")
        else:
            outcome = Outcome.GAUSSIAN
            sentences.append(f"{kept} The response is close to linear, or cells are too few to show more.")
    # Energy distances are compared, since J is infinite where the network's gradient does not reach every target cell.
    if is_worse:
        outcome = Outcome.WORSE
        sentences.append(
            f"The map is not better than the Gaussian map on validation cells, and solver={settings.solver!r} does not "
            "fall back on that one."
        )
    # Of the networks alone (blend 1, the last), solved to the end: a check in training takes few refinements, which
    # left .14 where a sharp and sound potential (y^3, d = 20) has .0003.
    residual = float(validation["residual_by_blend"][-1])
    if falls_back and validation["blend"] and not residual < CONVERGED:
        outcome = Outcome.UNSOLVED
        sentences.append(
            f"The convex conjugates of the networks could not be solved: their mean residual is {residual:.2g} "
            f"standard deviations of the target, and {CONVERGED:g} is the limit of a sound fit. Check the map with "
            "tl.evaluate on held-out cells; fewer components (n_pcs) may help."
        )
    if trained.n_bad_gradients:
        outcome = Outcome.RECOVERED
        sentences.append(
            f"Training met {counted(trained.n_bad_gradients, 'non-finite gradient')} in "
            f"{counted(trained.n_steps, 'step')}, summed over its networks, and skipped such updates."
        )
    return outcome, " ".join(sentences) or "ok"


def _dual(cells: TrainingData, semi_dual: float) -> float:
    r"""Return the dual's value of :math:`W_2^2 = E|X|^2 + E|Y|^2 - 2J` on validation cells, from their J."""
    # In centred coordinates, with the means split off before anything is squared: clouds far from the origin would
    # cancel.
    mean_x, mean_y = cells.coordinates.mean_x, cells.coordinates.mean_y
    xi, eta, shift = cells.x_validation_original - mean_x, cells.y_validation_original - mean_y, mean_x - mean_y
    spread = (xi**2).sum(1).mean() + (eta**2).sum(1).mean()
    # Sampling noise can push an estimate near zero below it.
    return float(shift @ shift + 2 * shift @ (xi.mean(0) - eta.mean(0)) + spread - 2 * semi_dual)
