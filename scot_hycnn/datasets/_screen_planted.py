"""Real PBMCs under a planted screen: drugs that share pathways, in several doses and times."""

from __future__ import annotations

from collections.abc import Callable
from string import ascii_uppercase

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from ._pairs import Samples
from ._pbmc_planted import RealCells, real_pbmcs, smoothed_bootstrap

_CONTROL = "control"
_DOSES, _HOURS = (0.1, 1.0, 10.0), (6, 24)  # micromolar, and hours after treatment
_N_CONTROL = 4  # control cells for each cell of a condition
# Half of the largest effect is reached at this dose, and 63 % of it after this time.
_HALF_DOSE, _TIME = 1.0, 10.0
# Pathway to the beginnings of the types that it moves, the length of the move at full strength (in units of X_pca, in
# which related types lie 4 to 10 apart), and the fraction of these cells that stay behind.
_PATHWAYS = {
    "interferon": (("CD14+", "Dendritic", "CD56+"), 14.0, 0.2),
    "T cell": (("CD4+", "CD8+"), 16.0, 0.1),
    "B cell": (("CD19+",), 16.0, 0.1),
    "stress": (("",), 7.0, 0.1),
}
# Strengths of these pathways, one row for each drug; the ninth drug has the pathways of the first, and so on. The
# fourth and the eighth drug do nothing; the third and the seventh act alike, and so do the first and the second.
_DRUGS = np.array(
    [
        [1.0, 0.0, 0.0, 0.0],
        [0.8, 0.0, 0.0, 0.3],
        [0.0, 1.0, 0.0, 0.0],
        [0.0, 0.0, 0.0, 0.0],
        [0.0, 0.5, 1.0, 0.0],
        [0.0, 0.0, 0.0, 1.0],
        [0.0, 0.7, 0.0, 0.0],
        [0.0, 0.0, 0.0, 0.0],
    ]
)
# Moving and staying cells mix over about this distance.
_WIDTH = 1.0


def screen_planted(n_conditions: int = 24, n_cells: int = 100, *, rng: int | np.random.Generator | None = 0) -> AnnData:
    r"""PBMCs under a screen of drugs, doses and times whose true responses are known cell by cell.

    The cells are drawn as in :func:`pbmc_planted` from the 700 PBMCs that scanpy ships. A condition is a drug at one of
    three doses (0.1, 1 and 10 micromolar) and two times (6 and 24 hours). Its cells are moved by the gradient of a sum
    of convex functions, one for each of four pathways p that all drugs share:

    .. math::
        T_c(x) = x + \sum_p a_p(c)\, \sigma\!\left(\frac{\langle w_p, x\rangle - b_p}{s}\right) l_p w_p,
        \qquad a_p(c) = A_p(\text{drug})\, \frac{\text{dose}}{\text{dose} + 1}\, \left(1 - e^{-\text{hours}/10}\right)

    with the logistic function :math:`\sigma`. Each pathway moves some cell types, by as much as related types lie
    apart. **The responses are made up**: no treated cell was measured. The fourth and the eighth drug do nothing. Drugs
    A and B act alike, and so do C and G.

    Parameters
    ----------
    n_conditions
        Number of conditions beside the control; each drug has six.
    n_cells
        Number of cells of each condition; there are four times as many control cells.
    rng
        Seed or generator of the cells. The responses do not depend on it.

    Returns
    -------
    Cells x 765 genes, controls first, as from :func:`pbmc_planted`, with

    ``obs['condition']``
        ``'control'``, or drug, dose and time, such as ``'drug A, 1 uM, 24 h'``; categorical.
    ``obs['drug']``, ``obs['dose']``, ``obs['hours']``, ``obs['cell_type']``
        The parts of it, with ``'control'``, 0 and 0 for controls, and the type of the real cell.
    ``obsm['X_pca']``, ``obsm['X_untreated']``
        Coordinates, and those of the same cells before the response, float32.
    ``uns['planted']``
        The pathways and what each drug does to them; :func:`screen_response` returns the response as a function.

    Raises
    ------
    ValueError
        If ``n_conditions`` is below 1 or ``n_cells`` below 20.

    References
    ----------
    Zheng et al. (2017), Massively parallel digital transcriptional profiling of single cells, Nat. Commun. 8 (cells).

    Examples
    --------
    >>> from scot_hycnn.datasets import screen_planted
    >>> adata = screen_planted(n_conditions=6, n_cells=20)
    >>> adata.obs["condition"].cat.categories.tolist()[:3]
    ['control', 'drug A, 0.1 uM, 6 h', 'drug A, 0.1 uM, 24 h']
    >>> adata.shape
    (200, 765)
    """
    if n_conditions < 1 or n_cells < 20:
        raise ValueError(
            f"n_conditions={n_conditions} and n_cells={n_cells}; at least 1 condition and 20 cells of each are needed."
        )
    real, generator = real_pbmcs(), np.random.default_rng(rng)
    planted = _plant_pathways(real, -(-n_conditions // (len(_DOSES) * len(_HOURS))))
    design = [(drug, dose, hours) for drug in planted["drugs"] for dose in _DOSES for hours in _HOURS][:n_conditions]
    labels = [_CONTROL, *(f"{drug}, {dose:g} uM, {hours} h" for drug, dose, hours in design)]
    codes = np.repeat(np.arange(n_conditions + 1), [_N_CONTROL * n_cells] + [n_cells] * n_conditions)
    parents, untreated = smoothed_bootstrap(real.scores, real.cell_type, len(codes), generator)
    x_pca = untreated.copy()
    for code, (drug, dose, hours) in enumerate(design, start=1):
        x_pca[codes == code] = _moved(planted, drug, dose, hours, untreated[codes == code])

    obs = pd.DataFrame({"condition": pd.Categorical.from_codes(codes, categories=pd.Index(labels))})
    drugs, doses, hours_of = zip((_CONTROL, 0.0, 0), *design, strict=True)
    obs["drug"] = pd.Categorical(np.array(drugs)[codes], categories=list(dict.fromkeys(drugs)))
    obs["dose"], obs["hours"] = np.array(doses)[codes], np.array(hours_of)[codes]
    obs["cell_type"] = pd.Categorical(real.cell_type[parents])
    adata = real.expressed(parents, x_pca, obs, np.array(labels)[codes])
    adata.obsm["X_untreated"] = untreated.astype(np.float32)
    adata.uns["planted"] = planted
    return adata


def screen_response(adata: AnnData, drug: str, *, dose: float, hours: float) -> Callable[[Samples], Samples]:
    """Return the true map of a drug at any dose and time, also one that no cell was given.

    Parameters
    ----------
    adata
        Cells of :func:`screen_planted`, as returned or read from a file.
    drug
        Name of a drug, such as ``'drug A'``.
    dose, hours
        Dose in micromolar and time in hours, 0 or more.

    Returns
    -------
    A function that moves points, shape (n, 30), in the coordinates of ``adata.obsm['X_pca']``.

    Raises
    ------
    ValueError
        If ``adata.uns`` has no planted screen or no such drug.

    Examples
    --------
    >>> import numpy as np
    >>> from scot_hycnn.datasets import screen_planted, screen_response
    >>> adata = screen_planted(n_conditions=6, n_cells=20)
    >>> treated = adata[adata.obs["condition"] == "drug A, 1 uM, 24 h"]
    >>> moved = screen_response(adata, "drug A", dose=1, hours=24)(treated.obsm["X_untreated"])
    >>> bool(np.allclose(moved, treated.obsm["X_pca"], atol=1e-4))
    True
    """
    planted = adata.uns.get("planted", {})
    if "drugs" not in planted:
        raise ValueError("adata.uns has no planted screen; screen_response reads what datasets.screen_planted wrote.")
    if drug not in list(planted["drugs"]):
        raise ValueError(f"drug={drug!r} is not in this screen; it has {list(planted['drugs'])}.")
    return lambda points: _moved(planted, drug, dose, hours, points)


def _plant_pathways(real: RealCells, n_drugs: int) -> dict[str, NDArray[np.generic]]:
    """Return the pathways of all drugs, as arrays that files can hold."""
    middle, directions, offsets = real.scores.mean(axis=0), [], []
    for name, (types, _, staying) in _PATHWAYS.items():
        cells = real.scores[[cell_type.startswith(types) for cell_type in real.cell_type]]
        # Cells of some types move away from all others; stress moves all cells, towards genes of early response.
        direction = cells.mean(axis=0) - middle
        if name == "stress":
            direction = real.direction_of(("JUNB", "FOS"))
        directions.append(direction / np.linalg.norm(direction))
        # The boundary between staying and moving cells lies at a quantile along the direction.
        offsets.append(np.quantile(cells @ directions[-1], staying))
    names = [f"drug {ascii_uppercase[k % 26]}{k // 26 + 1 if k >= 26 else ''}" for k in range(n_drugs)]
    return {
        "drugs": np.array(names),
        "pathways": np.array(list(_PATHWAYS)),
        "strengths": _DRUGS[np.arange(n_drugs) % len(_DRUGS)],
        "directions": np.array(directions),
        "offsets": np.array(offsets),
        "lengths": np.array([length for _, length, _ in _PATHWAYS.values()]),
    }


def _moved(planted: dict[str, NDArray[np.generic]], drug: str, dose: float, hours: float, x: Samples) -> Samples:
    """Return T(x) of the docstring of :func:`screen_planted`."""
    arrays = {name: np.asarray(planted[name]) for name in ("strengths", "directions", "offsets", "lengths")}
    strengths = arrays["strengths"][list(planted["drugs"]).index(drug)]
    strengths = strengths * dose / (dose + _HALF_DOSE) * (1 - np.exp(-hours / _TIME))
    # The logistic function in a form that does not overflow.
    moving = (1 + np.tanh((x @ arrays["directions"].T - arrays["offsets"]) / (2 * _WIDTH))) / 2
    return np.asarray(x + (moving * strengths * arrays["lengths"]) @ arrays["directions"])
