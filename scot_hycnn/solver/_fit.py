"""Fit a transport map between two clouds of points: the one training loop."""

from __future__ import annotations

import os
import time
import warnings
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from tqdm.auto import tqdm

from scot_hycnn.potentials import HyCNN

from ._amortized import Amortized
from ._cells import Cells, check_cells
from ._device import resolve_device
from ._map import TransportMap
from ._monitor import Monitor
from ._schedule import cosine
from ._selection import BLENDS, Score, choose, score_blends
from ._settings import Settings

# Cells on which the certificate is measured: enough to see a fault, few enough to take well under a second.
CERTIFICATE_CELLS = 200


def fit(
    x: ArrayLike,
    y: ArrayLike,
    *,
    potential: str = "hycnn",
    solver: str = "amortized",
    hidden: tuple[int, ...] = (48, 48, 48, 48),
    max_steps: int | None = None,
    batch_size: int = 256,
    lr: float = 2e-2,
    weight_decay: float = 1.0,
    n_ensemble: int | None = None,
    validation_fraction: float = 0.1,
    device: str = "auto",
    rng: int = 0,
    progress: bool | None = None,
) -> TransportMap:
    r"""Learn the optimal transport map from x to y for the cost :math:`\frac12|x - y|^2`.

    The cells are unpaired. By Brenier's theorem the map is the gradient of a convex function; an ensemble of HyCNNs
    learns it in coordinates in which the Gaussian map is the identity. On held-out cells the ensemble is then blended
    with the Gaussian map, which is what remains where the network is not better.

    Parameters
    ----------
    x
        Source cells, shape (n, d).
    y
        Target cells, shape (m, d).
    potential
        ``'hycnn'``, or ``'gaussian'`` for the closed-form Gaussian map alone.
    solver
        Training method: ``'amortized'``.
    hidden
        Width of each hidden layer.
    max_steps
        Training steps; None shares 1600 among the members, at least 400 each. Training ends before only where the
        Gaussian map is clearly better.
    batch_size
        Source cells and target cells in each step, for each member.
    lr
        Learning rate at its top.
    weight_decay
        Pull of the network towards the Gaussian map.
    n_ensemble
        Members, trained as one batch and averaged. None takes two if the smaller cloud has 100 cells or more for each
        dimension, else four.
    validation_fraction
        Part of the cells held out of training for the choice of the blend.
    device
        'auto' (cuda, mps or cpu, the first there is) or a device's name.
    rng
        Seed. The same seed gives the same bits on the CPU with the same number of threads. The global random state
        is not touched.
    progress
        Show a bar; None shows it in a terminal if the fit takes more than a second.

    Returns
    -------
    The fitted map.

    Raises
    ------
    ValueError
        If x or y is not a finite array of two dimensions, their dimensions differ, one has fewer than max(20, 2 d)
        cells, or an option is unknown or out of range.

    Warns
    -----
    UserWarning
        If the map is the Gaussian map because the network was not better, or training met non-finite numbers.

    References
    ----------
    Brenier (1991), Comm. Pure Appl. Math. 44, 375-417; Hundrieser, Kong & Schmidt-Hieber (2026), arXiv:2604.26942.

    Examples
    --------
    >>> import numpy as np
    >>> from scot_hycnn import solver
    >>> x = np.random.default_rng(0).normal(size=(300, 2))
    >>> y = np.random.default_rng(1).normal(size=(300, 2)) + [3.0, 0.0]
    >>> transport_map = solver.fit(x, y, max_steps=20, n_ensemble=2)
    >>> bool(np.abs(transport_map.transport(x) - x - [3.0, 0.0]).mean() < 0.5)
    True
    """
    x, y = check_cells(x, y)
    settings = Settings.for_cells(
        min(len(x), len(y)),
        x.shape[1],
        potential=potential,
        solver=solver,
        hidden=hidden,
        max_steps=max_steps,
        batch_size=batch_size,
        lr=lr,
        weight_decay=weight_decay,
        n_ensemble=n_ensemble,
        validation_fraction=validation_fraction,
        device=str(resolve_device(device)),
        rng=rng,
    )
    started = time.perf_counter()
    cells = Cells.prepare(x, y, validation_fraction, np.random.default_rng(rng), torch.device(settings.device))
    # In balanced coordinates |x|^2/2 is the Gaussian map: training starts close to it.
    network = HyCNN(cells.coordinates.n_dims, settings.hidden, strong_convexity=0.9, output_scale=0.3)
    if settings.potential == "gaussian":
        trained = Trained(network.init(1, torch.Generator().manual_seed(rng)), keep_gaussian=True)
    else:
        trained = _train(network, settings, cells, progress)
    blends = BLENDS[:1] if trained.keep_gaussian else BLENDS
    scores = score_blends(network, network.weights(trained.theta.to(settings.device)), cells, blends)
    settings_and_cost = asdict(settings) | {"n_steps": trained.n_steps, "seconds": time.perf_counter() - started}
    return _finish(network, cells, trained, scores, settings_and_cost)


@dataclass(frozen=True)
class Trained:
    """What the loop hands on: parameters, shape (K, P), and what happened on the way."""

    theta: Tensor
    keep_gaussian: bool
    n_steps: int = 0
    history: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    n_bad_gradients: int = 0


def _train(network: HyCNN, settings: Settings, cells: Cells, progress: bool | None) -> Trained:
    """The loop: draw a batch, take a step, look at validation cells now and then."""
    method = Amortized(lr=settings.lr, weight_decay=settings.weight_decay)
    generator = torch.Generator(device=settings.device).manual_seed(settings.rng)
    state = method.init(network, settings.n_ensemble, generator)
    monitor = Monitor(network, cells)
    check_every = max(settings.max_steps // 10, 1)
    hidden_bar, delay = ("CI" in os.environ or None, 1) if progress is None else (not progress, 0)
    n_steps, hopeless = 0, False
    with tqdm(total=settings.max_steps, desc="HyCNN-OT", unit="step", delay=delay, disable=hidden_bar) as bar:
        for step in range(settings.max_steps):
            x, y = cells.batch(settings.n_ensemble, settings.batch_size, generator)
            losses = method.step(network, state, x, y, cosine(step, settings.max_steps))
            n_steps = step + 1
            bar.update()
            if n_steps % check_every == 0 or n_steps == settings.max_steps:
                monitor.check(n_steps, state, losses)
                hopeless = monitor.clearly_worse_than_gaussian and 2 * n_steps >= settings.max_steps
                if hopeless:
                    break
    return Trained(monitor.selected(), hopeless, n_steps, monitor.history, int(state.f.n_bad_gradients.sum()))


def _finish(
    network: HyCNN, cells: Cells, trained: Trained, scores: list[Score], params: dict[str, Any]
) -> TransportMap:
    """Blend, measure, and say what happened."""
    chosen = choose(scores)
    score, gaussian = scores[chosen], scores[0]
    status = _status(params, trained, chosen)
    if status != "ok":
        warnings.warn(f"solver.fit {status}", UserWarning, stacklevel=3)
    fitted = TransportMap(
        network=network,
        theta=trained.theta.cpu(),
        coordinates=cells.coordinates,
        blend=BLENDS[chosen],
        w2_squared=cells.w2_squared(score.semi_dual),
        status=status,
        params=params,
        history=trained.history,
        validation={
            "blend": BLENDS[chosen],
            "J": score.semi_dual,
            "J_gaussian": gaussian.semi_dual,
            "energy_distance": score.energy_distance,
            "energy_distance_gaussian": gaussian.energy_distance,
            "n_source": len(cells.x_validation),
            "n_target": len(cells.y_validation),
        },
        device=params["device"],
    )
    sample = slice(CERTIFICATE_CELLS)
    certificate = fitted.certify(cells.x_validation_original[sample], cells.y_validation_original[sample])
    return replace(fitted, certificate=certificate)


def _status(params: dict[str, Any], trained: Trained, chosen: int) -> str:
    sentences = []
    if trained.n_bad_gradients:
        sentences.append(
            f"met {trained.n_bad_gradients} non-finite gradients in {trained.n_steps} steps, which were skipped."
        )
    if chosen == 0 and params["potential"] != "gaussian":
        early = f" after {trained.n_steps} steps" if trained.n_steps < params["max_steps"] else ""
        sentences.append(
            f"kept the Gaussian map: on validation cells the network was not better{early}. This is the right answer "
            "where the response is close to linear, or cells are few."
        )
    return " ".join(sentences) or "ok"
