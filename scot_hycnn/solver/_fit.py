"""Fit a transport map between two clouds of points."""

from __future__ import annotations

from pathlib import Path

from numpy.typing import ArrayLike

from scot_hycnn.potentials import Potential

from .data._checks import check_cells
from .data._task import Task
from .model._map import TransportMap
from .runtime._batching import fit_tasks
from .runtime._device import resolve_device
from .runtime._results import Results


def fit(
    x: ArrayLike,
    y: ArrayLike,
    *,
    potential: str | Potential = "hycnn",
    solver: str = "amortized",
    hidden: tuple[int, ...] | None = None,
    max_steps: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    weight_decay: float | None = None,
    n_ensemble: int | None = None,
    validation_fraction: float = 0.1,
    groups: tuple[ArrayLike, ArrayLike] | None = None,
    group_weights: str = "sqrt",
    leave_out: str = "cells",
    conjugates: str | None = None,
    compilation: str = "auto",
    device: str = "auto",
    rng: int = 0,
    progress: bool | None = None,
    checkpoint_dir: str | Path | None = None,
    resume: bool = True,
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
        Family of convex functions: ``'hycnn'``; with another temperature ``'hycnn-max'``, ``'hycnn-fixed'``,
        ``'hycnn-cyclic'``; for comparison ``'groupmax'``, ``'icnn'`` (softplus), ``'icnn-relu'``,
        ``'icnn-leaky-relu'``, ``'icnn-soft'``, ``'icnn-quadratic'`` and ``'mlp'`` (the last and ``'icnn-soft'`` are not
        convex). ``'gaussian'`` is the closed-form Gaussian map alone. Or a potential from
        :mod:`scot_hycnn.potentials`, of the cells' dimension.
    solver
        Training method: ``'amortized'``; ``'minimax'`` (Makkuva et al. 2020), ``'w2gn'`` (Korotin et al. 2021) or
        ``'enot'`` (Buzun et al. 2024) in the same coordinates and loop; or ``'paper'``, the HyCNN paper's minimax as
        it was published, without our coordinates and our fall-back on the Gaussian map.
    hidden
        Width of each hidden layer; None takes four of 48, and three of 32 up to 1,000 cells.
    max_steps
        Training steps; None takes what suits the cells, 600 to 1,200. Training ends before only where the Gaussian
        map is clearly better.
    batch_size
        Source cells and target cells in each step, for each member; None takes what suits the cells. Cells are drawn
        with replacement, and a batch beyond the cloud would hold the same ones again and again: a number above 256 and
        above the cells of the larger cloud (rounded up to a power of two) is taken as the larger of these two, and
        ``params`` of the map say so.
    lr
        Learning rate at its top; None takes the training method's.
    weight_decay
        Pull of the network towards the Gaussian map; None takes the training method's.
    n_ensemble
        Members, trained as one batch and averaged; None takes four.
    validation_fraction
        Part of the cells held out of training for the choice of the blend.
    groups
        Group of each source and each target cell, such as its cell type, shape (n,) and (m,): arrays, or pandas'
        categories; at most 2,000 different ones, and none missing. Groups then have the
        same proportions in both clouds: where only their proportions differ, the map stays the identity. Cells of
        groups with fewer than five cells in either cloud are left out.
    group_weights
        Proportion of a group, from its share of the cells (the mean over both clouds): ``'sqrt'``, its root, so that
        large groups do not drown small ones; ``'equal'``; or ``'observed'``, the share itself.
    leave_out
        What the choice of the blend is made on: ``'cells'``, for more cells like these; or ``'groups'``, each left out
        of a fit of its own, for cells of groups that are not among these. The latter takes up to 3.5 times as long.
    conjugates
        Where the search for a target cell's conjugate starts, in ``'amortized'``: ``'predicted'`` by a second network,
        or ``'remembered'`` from when the cell was drawn last. None remembers up to 1,000 target cells, which halves the
        time and leaves the error as it is.
    compilation
        ``'auto'`` records a training step on an NVIDIA GPU and replays it as one CUDA graph: the same numbers, ten
        times as fast for few cells. ``'always'`` also has torch.compile write the innermost loop of ``'amortized'``:
        it takes up to a minute and then saves a quarter of the time, on the CPU too, at the price of other rounding.
        ``'never'`` does neither.
    device
        'auto' (cuda, mps or cpu, the first there is) or a device's name.
    rng
        Seed. The same seed gives the same bits on the CPU with the same number of threads. The global random state
        is not touched.
    progress
        Show a bar; None shows it in a terminal if the fit takes more than a second.
    checkpoint_dir
        Folder in which the state of training is kept, ten times in a fit, and then the map; see
        :func:`scot_hycnn.solver.fit_many`.
    resume
        Go on from what the same call has left there; False begins anew.

    Returns
    -------
    The fitted map. Its ``outcome`` and ``status`` say what the fit has led to, its ``validation`` how good it is, which
    groups were left out, and which cells lie so far from all others that they took no part (``far_source``,
    ``far_target``: row numbers). Nothing of this is a warning: a fit that took hours must not end in one.

    Raises
    ------
    ValueError
        If x or y is not a finite array of two dimensions, their dimensions differ, one has fewer than max(20, 2 d)
        cells, groups are too few or not one for each cell, or an option is unknown or out of range.

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
    task = Task.of(
        *check_cells(x, y),
        groups,
        potential=potential,
        solver=solver,
        hidden=hidden,
        max_steps=max_steps,
        batch_size=batch_size,
        lr=lr,
        weight_decay=weight_decay,
        n_ensemble=n_ensemble,
        validation_fraction=validation_fraction,
        group_weights=group_weights,
        leave_out=leave_out,
        conjugates=conjugates,
        compilation=compilation,
        device=str(resolve_device(device)),
        rng=rng,
    )
    kept = Results.opened(checkpoint_dir, [task], resume=resume)
    ((_, fitted),) = fit_tasks([task], progress, kept)
    return fitted
