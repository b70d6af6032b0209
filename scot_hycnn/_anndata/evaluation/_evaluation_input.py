"""Cells that a fit is evaluated on, and the scores as they are stored in uns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from scot_hycnn._anndata._conditions import (
    Labels,
    Mask,
    Rows,
    find_conditions,
    mask_rows,
    matching,
    read_groups,
    read_labels,
)
from scot_hycnn._anndata._fit_input import TEST, rows_of_split, sentence_of_leak
from scot_hycnn._anndata._input_warnings import differing_proportions
from scot_hycnn._anndata._representation import (
    Coordinates,
    Representation,
    find_representation,
    find_same_representation,
    obs_columns,
    read_finite,
)
from scot_hycnn._anndata._results import StoredFit, group_column, labelled_cells, read_fit, training_rows
from scot_hycnn._anndata._schema import check_key, evaluation_slot, is_fit, slugs
from scot_hycnn._response import MIN_CELLS

_Chosen = NDArray[np.bool_]  # (n_obs,)

_LABELS = ("target", "group", "method", "metric")
_NUMBERS = ("value", "low", "high", "vs_gaussian", "vs_gaussian_low", "vs_gaussian_high", "n_source", "n_target")
_ADDED = ("kept_group", "scaled")  # scores of older versions lack these columns
EVALUATION_COLUMNS = (*_LABELS, *_NUMBERS, *_ADDED)
# The row of all groups that are scored, the treated cells weighted to the proportions of the source.
SAME_COMPOSITION = "all, same composition"
# Rows that are no methods: halves of the observed cells, and what the true means are expected to score.
REPLICATE, CEILING = "replicate", "ceiling"
_RENAMED = {"floor": REPLICATE}  # methods of older versions
# The share of kept cells is low below this part of that of the replicate.
_MIN_KEPT = 0.95
# Bandwidths of the MMD: a table of a row for each target and group, and as many columns as any of them has bandwidths.
_GAMMA, _GAMMA_LABELS = "mmd_gamma", ("mmd_gamma_target", "mmd_gamma_group")


# ---- cells


@dataclass(frozen=True)
class HeldOut:
    """Cells of source and one target that a fit is evaluated on, with finite coordinates."""

    rep: Representation
    source_rows: Rows  # ascending, (n,)
    target_rows: Rows  # ascending, (m,)
    x: Coordinates  # (n, d)
    y: Coordinates  # (m, d)

    def among(self, source: _Chosen, target: _Chosen) -> HeldOut:
        """Return some of the cells; the arguments are boolean arrays (n,) and (m,)."""
        return HeldOut(self.rep, self.source_rows[source], self.target_rows[target], self.x[source], self.y[target])


def fit_or_conditions(
    adata: AnnData,
    key: str,
    source: str | None,
    target: str | None,
    *,
    condition_key: str | None,
    groupby: str | None,
    use_rep: str | None,
    split_key: str | None,
) -> tuple[StoredFit, str | None]:
    """Return a fit, or two conditions in the form of a fit that has no maps, and the column of groups."""
    if source is None:
        if key not in adata.uns and not any(map(is_fit, adata.uns.values())):
            raise ValueError(
                f"adata.uns has no fit {key!r}. Run sh.tl.hycnn_ot first; or pass source= and target=, the labels of "
                "the control and of the treated cells, to score predictions without a fit."
            )
        return read_fit(adata, key), groupby
    if target is None:
        raise ValueError(f"source={source!r} needs target=, the label of the treated cells.")
    obs = obs_columns(adata)
    labels = read_labels(obs[groupby], f"adata.obs[{groupby!r}]").names if groupby in obs else ()
    if condition_key is None and all(matching([source, target], labels)):
        # tl.hycnn_ot calls the column of the conditions groupby; there are no groups within one condition.
        condition_key, groupby = groupby, None
    names = ("source", "target", "condition_key")
    condition_key, (before, after) = find_conditions(obs, source, [target], condition_key, names)
    rep = find_representation(adata, use_rep, None)
    params = {} if split_key is None else {"split_key": split_key}
    fit = StoredFit("", condition_key, before, slugs([after]), rep, params, {}, {}, {})
    return fit, groupby


def held_out_cells(
    adata: AnnData, fit: StoredFit, *, mask_obs: Mask | None, split_key: str | None
) -> tuple[_Chosen, list[str]]:
    """Choose the cells to evaluate on, (n_obs,); notes say whether they include training cells of the fit."""
    recorded = fit.params.get("split_key")
    if split_key is None and mask_obs is None:
        split_key = recorded
    if split_key is None and mask_obs is None:
        note = (
            "All cells are evaluated, and baselines are made from the same cells, which flatters them and every method "
            "that has seen these cells. To hold cells out: sh.pp.split(adata), train on 'train' alone, and evaluate "
            "again with split_key='split'."
            if not fit.models
            else f"All cells are evaluated, also those that the fit {fit.key!r} was made from, which flatters it. To "
            "hold cells out: sh.pp.split(adata), sh.pp.pca(adata, split_key='split'), sh.tl.hycnn_ot(..., "
            "split_key='split'), and evaluate again."
        )
        return np.ones(adata.n_obs, dtype=bool), [note]

    chosen = np.ones(adata.n_obs, dtype=bool) if mask_obs is None else mask_rows(adata.obs, mask_obs)
    if split_key is not None:
        advice = " If the cells to evaluate on have no label, pass them as mask_obs."
        chosen = chosen & np.isin(np.arange(adata.n_obs), rows_of_split(adata.obs, split_key, TEST, advice))

    if not fit.models:
        what = "the representation in which all methods are scored, and into those that were made in it"
        leak = sentence_of_leak(adata, fit.rep.name, split_key, what)
        return chosen, [] if leak is None else [leak]
    # By the names of the cells; fits of older versions do not have them.
    n_seen = 0 if fit.training_cells is None else int(chosen[training_rows(adata, fit)].sum())
    note = (
        f"The fit {fit.key!r} was made from at least {n_seen} of the {int(chosen.sum())} evaluated cells, which "
        "flatters it; evaluate on the cells that were held out of the fit."
    )
    return chosen, [note] if n_seen else []


def read_held_out(adata: AnnData, fit: StoredFit, slug: str, chosen: _Chosen) -> HeldOut:
    """Read the chosen cells of source and one target; those without finite coordinates are left out."""
    rep = find_same_representation(adata, fit.rep, same_file=True)
    labelled = (labelled_cells(adata, fit.groupby, label) for label in (fit.source, fit.targets[slug]))
    (x_rows, x), (y_rows, y) = (read_finite(adata, rep, rows[chosen[rows]]) for rows in labelled)
    return HeldOut(rep, x_rows, y_rows, x, y)


def read_training(
    adata: AnnData, fit: StoredFit, slug: str, chosen: _Chosen, labels: Labels | None
) -> tuple[Coordinates, Coordinates, NDArray[np.float64]]:
    """Read what baselines are made from without a fit: source and target cells, (n, d) and (m, d), and weights, (m,).

    These are the training cells of the split, else the cells that are not evaluated, else all. The weights give each
    group of the target cells the share that it has among the source cells.
    """
    training = training_rows(adata, fit)
    if "split_key" not in fit.params and not chosen[training].all():
        training = training[~chosen[training]]
    clouds: list[Coordinates] = []
    groups: list[Rows] = []
    for label in (fit.source, fit.targets[slug]):
        rows = np.intersect1d(training, labelled_cells(adata, fit.groupby, label))
        rows, points = read_finite(adata, fit.rep, rows)
        if len(rows) < MIN_CELLS:
            raise ValueError(
                f"Baselines are made from training cells, of which {label!r} has {len(rows)}; {MIN_CELLS} are "
                "needed: evaluate fewer cells (mask_obs), or split the cells anew."
            )
        clouds.append(points)
        groups.append(np.full(len(rows), -1) if labels is None else labels.codes[rows])
    before, after = (np.bincount(codes + 1) for codes in groups)
    size = min(len(before), len(after))
    shares = np.divide(before[:size], after[:size], out=np.zeros(size), where=after[:size] > 0)
    weights = np.append(shares, np.zeros(len(after) - size))[groups[1] + 1]
    return clouds[0], clouds[1], weights if weights.any() else np.ones(len(weights))


def labels_to_score(
    adata: AnnData, fit: StoredFit, slugs: Sequence[str], groupby: str | None
) -> tuple[Labels | None, list[str]]:
    """Return the groups by the named column, else by the fit's, else by one in which conditions differ; with notes."""
    notes = []
    groupby = group_column(adata, fit, groupby)
    if groupby is None:
        conditions = (fit.source, *(fit.targets[slug] for slug in slugs))
        rows = {label: labelled_cells(adata, fit.groupby, label) for label in conditions}
        differing = differing_proportions(obs_columns(adata), rows, (fit.groupby, fit.params.get("split_key")))
        if differing is None:
            return None, []
        groupby, _ = differing
        notes.append(
            f"Groups of adata.obs[{groupby!r}] are scored too, since their proportions differ between the conditions; "
            "groupby= names another column."
        )
    labels = read_groups(adata.obs, groupby)
    for name in ("all", SAME_COMPOSITION):
        if name in labels.names:
            raise ValueError(f"adata.obs[{groupby!r}] has a group {name!r}, which means all cells here; rename it.")
    return labels, notes


def headline_of(groups: Iterable[str]) -> str:
    """Return the row of scores of all cells that counts: that of the same composition if groups were scored."""
    return SAME_COMPOSITION if SAME_COMPOSITION in set(groups) else "all"


def is_low(kept: Any, replicate: Any) -> bool:
    """Return whether a share of kept cells is clearly below another; both have a value, a low and a high end."""
    # Below by chance, or by less than one cell in twenty, is not worth a message.
    high = kept.high if np.isfinite(kept.high) else kept.value
    return bool(
        kept.value < _MIN_KEPT * replicate.value
        and high < (replicate.low if np.isfinite(replicate.low) else replicate.value)
    )


# ---- scores


def check_evaluation_slot(adata: AnnData, key: str) -> None:
    """Raise a ValueError if ``key`` is no valid key, or uns holds something else than scores there."""
    check_key(key)
    slot = evaluation_slot(key)
    before: Any = adata.uns.get(slot, {"metric": None})
    if not isinstance(before, Mapping) or "metric" not in before:
        raise ValueError(f"key_added={key!r} would replace adata.uns[{slot!r}], which scot_hycnn did not write.")


def evaluation_as_arrays(scores: pd.DataFrame) -> dict[str, NDArray[Any]]:
    """Return scores as plain arrays, which every file format holds."""
    arrays: dict[str, NDArray[Any]] = {name: scores[name].to_numpy(dtype=np.str_) for name in _LABELS}
    arrays |= {name: scores[name].to_numpy() for name in (*_NUMBERS, *_ADDED)}
    by_target: Mapping[str, Mapping[str, list[float]]] = scores.attrs.get(_GAMMA, {})
    gammas = {(target, group): row for target, groups in by_target.items() for group, row in groups.items()}
    if gammas:
        targets, groups = (np.array(names, dtype=np.str_) for names in zip(*gammas, strict=True))
        arrays |= dict(zip(_GAMMA_LABELS, (targets, groups), strict=True))
        arrays[_GAMMA] = pd.DataFrame(list(gammas.values()), dtype=np.float64).to_numpy()  # shorter rows end in NaN
    return arrays


def read_evaluation(adata: AnnData, key: str) -> pd.DataFrame:
    """Read the scores that :func:`scot_hycnn.tl.evaluate` has stored; see :func:`scot_hycnn.get.evaluation`."""
    slot = evaluation_slot(key)
    if slot not in adata.uns:
        found = [name.removesuffix("_evaluation") for name in map(str, adata.uns) if name.endswith("_evaluation")]
        has = f"it has those of {found}: pass key= one of them" if found else "run sh.tl.evaluate first"
        raise ValueError(f"adata.uns has no evaluation {slot!r}; {has}.")
    content: Any = adata.uns[slot]
    needed = set(EVALUATION_COLUMNS) - set(_ADDED)
    if not isinstance(content, Mapping) or not needed <= content.keys():
        what = sorted(needed - content.keys()) if isinstance(content, Mapping) else type(content).__name__
        raise _damaged(slot, f"lacks columns: {what}")
    columns = {name: _array(slot, name, content[name]) for name in EVALUATION_COLUMNS if name in content}
    # Nothing is allocated before the shapes are checked: a damaged column may claim any number of rows.
    columns = {name: np.broadcast_to(np.nan, columns["value"].shape) for name in _ADDED} | columns
    shapes = {name: column.shape for name, column in columns.items()}
    if len(set(shapes.values())) != 1 or columns["value"].ndim != 1 or not len(columns["value"]):
        raise _damaged(slot, f"has no rows, or columns of different shapes ({shapes})")
    wrong = [name for name in (*_NUMBERS, *_ADDED) if columns[name].dtype.kind not in "fiu"]
    if wrong:
        raise _damaged(slot, f"has {wrong}, which are no numbers")
    # Strings come back from files as objects, or of a dtype that casts to no other.
    labels = {name: [str(label) for label in columns[name].tolist()] for name in _LABELS}
    labels["method"] = [_RENAMED.get(method, method) for method in labels["method"]]
    table = pd.DataFrame({**columns, **labels})[list(EVALUATION_COLUMNS)]

    # Bandwidths by target and group; scores of older versions have none.
    gammas: dict[str, dict[str, list[float]]] = {}
    if all(name in content for name in (_GAMMA, *_GAMMA_LABELS)):
        targets, groups, rows = (_array(slot, name, content[name]) for name in (*_GAMMA_LABELS, _GAMMA))
        if rows.ndim != 2 or rows.dtype.kind != "f" or {targets.shape, groups.shape} != {rows.shape[:1]}:
            raise _damaged(slot, f"has {_GAMMA!r} that is no table of numbers with a label for each row")
        for target, group, row in zip(targets.tolist(), groups.tolist(), rows, strict=True):
            gammas.setdefault(str(target), {})[str(group)] = row[np.isfinite(row)].tolist()
    table.attrs[_GAMMA] = gammas
    return table


def _array(slot: str, name: str, values: Any) -> NDArray[Any]:
    try:
        return np.asarray(values)
    except ValueError:  # lists of different lengths
        raise _damaged(slot, f"has {name!r}, which is no column") from None


def _damaged(slot: str, what: str) -> ValueError:
    return ValueError(f"adata.uns[{slot!r}] {what}: it is damaged, run sh.tl.evaluate again.")
