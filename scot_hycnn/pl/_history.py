"""The course of training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scot_hycnn._anndata._results import read_fit

from ._figure import axes_or_new, check_number, entitle, legend, show_or_return


def history(
    adata: AnnData,
    key: str = "hycnn_ot",
    *,
    target: str | None = None,
    title: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool = False,
) -> Axes | Figure | None:
    """Draw the loss of the networks on validation cells against training steps, and the Gaussian map as a dashed line.

    The loss is the semi-dual value J of the averaged networks minus the Gaussian map's, with its standard error over
    the validation cells as a band. Below the line the networks are better than every Gaussian map.

    Parameters
    ----------
    adata
        Cells with a fit of :func:`scot_hycnn.tl.hycnn_ot`.
    key
        Key of the fit in ``uns``.
    target
        Label of the target condition; None draws one curve for each target.
    title, ax, show, return_fig
        First line of the title; None names the conditions. Axes to draw into, and what to show or return, as in scanpy.

    Returns
    -------
    The axes if ``show`` is False, the figure if ``return_fig``.

    Raises
    ------
    ValueError
        If there is no such fit or target, or nothing was trained.

    Examples
    --------
    >>> import scot_hycnn as sh
    >>> adata = sh.datasets.pbmc_planted(n_cells=400)
    >>> sh.tl.hycnn_ot(adata, "control", "IFN-beta", n_pcs=3, max_steps=20, hidden=(8, 8), n_ensemble=2)
    >>> ax = sh.pl.history(adata, show=False)
    """
    fit = read_fit(adata, key)
    # Conditions of a screen have one training, which is drawn once; the Gaussian map is not trained.
    alike: dict[bytes, list[str]] = {}
    for slug in fit.slugs(target):
        if len(gaps := fit.models[slug]["history"].get("J_minus_gaussian", ())):
            alike.setdefault(gaps.tobytes(), []).append(slug)
    curves = {}
    for slugs in alike.values():
        label = fit.targets[slugs[0]] if len(slugs) == 1 else f"{len(slugs)} conditions together"
        curves[label] = fit.models[slugs[0]]["history"]
    check_number(len(curves), f"target={target!r}")
    if not curves:
        raise ValueError("There is no history: the Gaussian map is not trained. Draw the fit of another potential.")
    ax = axes_or_new(ax, 5, 3.4)
    lines = []
    for columns in curves.values():
        step, gap, error = columns["step"], columns["J_minus_gaussian"], columns["J_error"]
        # Bands become fainter the more there are, so that curves remain visible.
        (line,) = ax.plot(step, gap, marker="o", markersize=3)
        ax.fill_between(step, gap - error, gap + error, color=line.get_color(), alpha=0.25 / len(curves), linewidth=0)
        lines.append(line)
    lines.append(ax.axhline(0, color="black", linestyle="--", linewidth=1))
    ax.set(xlabel="training step\nbands: standard error", ylabel="validation loss\nrelative to the Gaussian map")
    several = f"{len(curves)} conditions" if len(curves) > 1 else next(iter(curves))
    validations = [fit.models[slug]["validation"] for slugs in alike.values() for slug in slugs]
    entitle(ax, title or f"{fit.source} → {several}", validation_cells(validations))
    # The first steps can lie far above everything that follows.
    gaps = np.concatenate([columns["J_minus_gaussian"] for columns in curves.values()])
    if gaps.max() > 20 * max(abs(gaps.min()), np.finfo(float).tiny):
        ax.set_yscale("symlog", linthresh=max(abs(gaps.min()), 1e-3))
    ax.spines[["top", "right"]].set_visible(False)
    names = [f"networks, {label}" if len(curves) > 1 else "networks (lower is better)" for label in curves]
    legend(ax, lines, [*names, "Gaussian map"], framealpha=0.8, edgecolor="none", fontsize="small")
    return show_or_return(ax, show=show, return_fig=return_fig)


def validation_cells(validations: Sequence[Mapping[str, Any]]) -> str:
    """Return in print how many validation cells there are; of several targets the smallest and the largest number."""
    # A file of another version may lack the numbers.
    sizes = [sorted({int(each.get(name, 0)) for each in validations}) for name in ("n_source", "n_target")]
    n = " and ".join(" to ".join(f"{size:,}" for size in found[:1] + found[1:][-1:]) for found in sizes)
    return f"validation cells, n = {n}" if all(found[0] for found in sizes) else "validation cells"
