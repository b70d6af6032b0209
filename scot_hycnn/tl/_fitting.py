"""What the tools share that fit or move: threads, the log before and after a fit, its seed, and the moved cells."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any

import numpy as np
import torch
from anndata import AnnData
from numpy.typing import NDArray
from scanpy import logging as logg
from scanpy import settings as scanpy_settings

from scot_hycnn._anndata._fit_input import ConditionCells, FitInput
from scot_hycnn._anndata._transport_input import find_mover, moved_by
from scot_hycnn._anndata._write import Fitted
from scot_hycnn._warn import counted, joined, warn
from scot_hycnn.solver._options import check_options
from scot_hycnn.solver.data._checks import FEW_IN_GROUPS, UnusableError, far_cells, raise_together
from scot_hycnn.solver.data._groups import Labels, groups_left_out, usable_groups
from scot_hycnn.solver.model._map import Outcome, TransportMap
from scot_hycnn.solver.runtime._batching import place_of
from scot_hycnn.solver.runtime._device import limited_threads

# Options of the cells that are read, with their defaults.
OF_CELLS: dict[str, Any] = {"split_key": None, "max_cells": 100_000, "skip_small": False}
# A sentence of the log names so many labels.
_MAX_NAMES = 5


@contextmanager
def threads_of_scanpy() -> Iterator[None]:
    """Limit PyTorch to ``scanpy.settings.n_jobs`` threads within a block.

    1 is scanpy's default and -1 asks for all threads: with both, PyTorch keeps the number that it has, by default one
    for each core.
    """
    n_jobs = int(scanpy_settings.n_jobs)
    with limited_threads(n_jobs) if 2 <= n_jobs < torch.get_num_threads() else nullcontext():
        yield


@contextmanager
def shown_by_default() -> Iterator[None]:
    """Log at scanpy's default verbosity, which shows only warnings: a fit takes minutes, and may keep no network."""
    verbosity = scanpy_settings.verbosity
    with verbosity.override("info") if int(verbosity) == 1 else nullcontext():
        yield


def complete(options: dict[str, Any], names: Iterable[str]) -> tuple[dict[str, Any], bool]:
    """Check and complete the options of a fit, in place; return those of the cells that are read, and ``fallback``.

    ``names`` are the options that there are beside those of training. This needs no data.
    """
    folder, rng = options["checkpoint_dir"], options["rng"]
    if rng is None and folder is not None and options.get("resume", True):
        raise ValueError(
            "rng=None takes another seed in each call, so that no call continues what another one left in "
            "checkpoint_dir. Name a seed, such as rng=0, or pass resume=False."
        )
    # The fit can be repeated with one integer; a generator gives its next number, None a fresh one.
    try:
        is_drawn = rng is None or isinstance(rng, np.random.Generator)
        options["rng"] = int(np.random.default_rng(rng).integers(2**31)) if is_drawn else operator.index(rng)
    except TypeError:
        raise TypeError(
            f"rng={rng!r} is of type {type(rng).__name__}; it takes an integer, a numpy Generator or None."
        ) from None
    check_options(options, names, rng=options["rng"])
    options["device"], _ = place_of(options["device"], options["client"], folder)
    if options["progress"] is None and int(scanpy_settings.verbosity) == 0:
        options["progress"] = False
    of_cells = {name: options.pop(name, default) for name, default in OF_CELLS.items()}
    return of_cells, options.pop("fallback", False)


@shown_by_default()
def announce(cells: FitInput, options: dict[str, Any]) -> datetime:
    """Log the fit that begins, and the targets that are left out; return the time."""
    place = options["device"] if options["client"] is None else "the workers of a cluster"
    if cells.skipped:
        log_skipped(cells.skipped)
    if cells.composition is not None and options.get("unbalanced") is None:
        logg.warning(cells.composition)
    named = [f"{target.label!r} ({len(target.training)})" for target in cells.targets]
    targets = f"{len(named)} targets ({', '.join(named[:_MAX_NAMES])} ...)"
    start: datetime = logg.info(
        f"fitting transport from {cells.source.label!r} ({len(cells.source.training)} cells) to "
        f"{', '.join(named) if len(named) <= _MAX_NAMES else targets} of {cells.where}, "
        f"on {counted(cells.rep.n_dims, 'dimension')} of {cells.rep.name!r}, on {place}"
    )
    return start


def log_skipped(skipped: Sequence[tuple[str, int | str]]) -> None:
    """Log the targets that are left out, with what was found of each."""
    named = joined([f"{label!r} ({found})" for label, found in skipped])
    have, are = ("has", "is") if len(skipped) == 1 else ("have", "are")
    targets = counted(len(skipped), "target")
    logg.warning(f"{targets} {have} too few cells and {are} not fitted (skip_small=True): {named}")


def check_groups(
    cells: FitInput, leave_out: str, *, skip_small: bool, controls: Mapping[str, NDArray[np.bool_]] | None = None
) -> FitInput:
    """Check the groups of all targets; return the cells without the targets that share too few with the source.

    ``controls`` are the source cells of each target by its label, shape (n,), if they are not all of them. Groups that
    some map is not fitted on are logged, in one message for all maps.
    """
    n_targets, source = len(cells.targets), cells.source
    everywhere = np.ones(len(source.rows), dtype=bool)
    of_target = [(controls or {}).get(target.label, everywhere) for target in cells.targets]
    # Targets on one plate share their source cells, which are searched for far ones once.
    different = {id(some): some[source.is_training] for some in of_target}
    sources = {key: _near_labels(source, some) for key, some in different.items()}
    problems: dict[str, UnusableError] = {}
    lacking: Counter[str] = Counter()  # groups that are not fitted on, and in how many maps
    for target, some in zip(cells.targets, of_target, strict=True):
        pair = sources[id(some)], _near_labels(target)
        try:
            lacking.update(groups_left_out(pair, usable_groups(pair, cells.rep.n_dims, leave_out)))
        except UnusableError as problem:
            problems[target.label] = problem
    small = [label for label, problem in problems.items() if problem.kind == FEW_IN_GROUPS]
    skips = skip_small and len(small) < n_targets
    refused = [(repr(label), problem) for label, problem in problems.items() if not (skips and label in small)]
    advice = "" if len(small) in (0, n_targets) else "skip_small=True leaves such targets out."
    if refused:
        raise_together(refused, n_targets, advice=advice)

    if lacking:
        n_maps = n_targets - len(small)
        of_maps = {group: f" ({n} of {n_maps} maps)" if n_maps > 1 else "" for group, n in lacking.items()}
        named = joined([f"{group!r}{of}" for group, of in of_maps.items()])
        logg.warning(
            f"groups of adata.obs[{cells.group_columns[-1]!r}] with too few cells in source or target are left out: "
            f"{named}"
        )
    if small:
        log_skipped([(label, problems[label].found) for label in small])
    return replace(cells, targets=tuple(target for target in cells.targets if target.label not in small))


def _near_labels(cells: ConditionCells, chosen: Any = slice(None)) -> Labels:
    """Return the groups of the cells that are fitted on: all, or the chosen, but those that lie far from the others."""
    return Labels.of(cells.groups[chosen]).without(far_cells(np.asarray(cells.training)[chosen]))


def as_fitted(
    adata: AnnData,
    cells: FitInput,
    fitted: TransportMap,
    target: ConditionCells,
    *,
    predict: bool,
    inverse: bool,
    fallback: bool,
    is_control: NDArray[np.bool_] | None = None,
) -> Fitted:
    """Return a map as it is stored, with the cells that it moves.

    ``is_control`` says which source cells are those of the map, shape (n,), if they are not all of them.
    """
    source = cells.source
    chosen = slice(None) if is_control is None else is_control
    of_training = source.rows[chosen][source.is_training[chosen]], target.rows[target.is_training]
    # The solver numbers far cells among its input; in uns they are rows of the AnnData.
    validation = dict(fitted.validation)
    for name, rows in zip(("far_source", "far_target"), of_training, strict=True):
        if name in validation:
            validation[name] = rows[validation[name]]
    # Weights of cells stand in obs.
    weights = [validation.pop(name, None) for name in ("source_weight", "target_weight", "source_growth")]
    of_cells: Any = None if weights[0] is None else (*of_training, *weights)
    moved, mover = [], partial(find_mover, fitted, adata, cells.rep, cells.group_columns, source_rows=source.rows)
    if predict:
        rows, coordinates = source.rows[chosen], np.asarray(source.coordinates)[chosen]
        moved.append(moved_by(mover(rows=rows), coordinates, rows, fallback=fallback))
    if inverse:
        moved.append(moved_by(mover(rows=target.rows), target.coordinates, target.rows, "inverse"))
    return Fitted(replace(fitted, validation=validation).to_dict(), moved, of_cells)


def report_outcomes(adata: AnnData, cells: FitInput, maps: Sequence[TransportMap], fits: Sequence[Fitted]) -> None:
    """Log the far cells and the results of the fits, and warn of trouble in training."""
    reports = [fit.state["validation"] for fit in fits]
    far = {cells.source.label: reports[0].get("far_source", [])}  # these are the same for all maps
    far |= {target.label: report.get("far_target", []) for target, report in zip(cells.targets, reports, strict=True)}
    for condition, rows in far.items():
        if len(rows):
            named = joined([repr(str(name)) for name in adata.obs_names[rows]], _MAX_NAMES)
            logg.warning(
                f"cells of {condition!r} that lie far from all others took no part in the fit ({len(rows)}): {named}. "
                "Look for debris, doublets or broken values"
            )
    for target, report in zip(cells.targets, reports, strict=True):
        if "ladder" in report:
            names, mean, error = (report[name] for name in ("ladder", "ladder_mean", "ladder_error"))
            rows = [f"    {m:9.3g} ± {e:.2g}  {name}" for name, m, e in zip(names, mean, error, strict=True)]
            title = f"energy distance to {target.label!r} on groups left out, mean over {len(report['ladder_groups'])}"
            logg.hint("\n".join([f"{title} groups ± standard error:", *rows]))
    by_outcome: dict[str, list[int]] = {}
    for number, fitted in enumerate(maps):
        if not fitted.ok:
            by_outcome.setdefault(fitted.outcome, []).append(number)
    for outcome, numbers in by_outcome.items():
        labels = [repr(cells.targets[number].label) for number in numbers]
        example = f" ({outcome}), for instance to {labels[0]}" if len(numbers) > 1 else ""
        message = f"the map to {joined(labels, _MAX_NAMES)}{example}: {maps[numbers[0]].status}"
        if Outcome(outcome).is_trouble:
            warn(message)
        else:
            logg.info(message)
