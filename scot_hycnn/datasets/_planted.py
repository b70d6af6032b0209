"""Real PBMCs with a planted response, and under a planted screen of drugs that share pathways."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from string import ascii_uppercase

import numpy as np
import pandas as pd
import scanpy as sc
from anndata import AnnData
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from ._pairs import LogSumExpPotential, Samples

_N_PCS = 30
_CONTROL, _TREATED = "control", "IFN-beta"

# How far cells of a type move (units of X_pca, in which related types lie 4 to 10 apart), and the fraction of the type
# that stays behind. All other types do not respond.
_RESPONDERS = {"CD14+ Monocyte": (11.0, 0.4), "Dendritic": (9.0, 0.6), "CD56+ NK": (7.0, 0.4)}
# Cells move away from the types whose names begin like this.
_T_CELLS = ("CD4+", "CD8+")
# Weight of the interferon genes in the direction of each type.
_PROGRAMME_WEIGHT = 0.5
# Moving and staying cells of a type mix over about a tenth of its width.
_TEMPERATURE = 3.0
# Donors differ before treatment by this part of the standard deviation of each component; the logarithms of the
# strengths of their responses have this standard deviation.
_DONOR_BASELINE, _DONOR_STRENGTH = 0.35, 0.3
# The interferon-stimulated genes among the 765.
_PROGRAMME = (
    "BST2", "GBP2", "IFI30", "IFITM1", "IFITM2", "IFITM3", "IRF1", "IRF7", "ISG20", "LY6E", "OAS1", "PLAC8",
    "PSME2", "SP100", "SP110", "SP140",
)  # fmt: skip
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


def pbmc_planted(n_cells: int = 4000, *, n_donors: int = 0, rng: int | np.random.Generator | None = 0) -> AnnData:
    r"""Control and treated PBMCs whose true response is known cell by cell.

    The 700 PBMCs of 10 types that scanpy ships (:func:`scanpy.datasets.pbmc68k_reduced`, 765 genes, log-normalised)
    become any number of cells by a smoothed bootstrap within cell type, in a space of 30 principal components. Half of
    the cells are controls. The other half are *other* draws, moved by the gradient of a convex function of the
    components, the optimal transport map. **The response is made up**: no cell ``'IFN-beta'`` was measured.

    The function is a :class:`LogSumExpPotential` with a region that stays and one for each responding type: monocytes,
    dendritic and NK cells. Those on one side of their type, which no affine map can follow, move away from the T cells
    and towards higher expression of 16 interferon-stimulated genes, by as much as related types lie apart.

    Donors are made up too: the cells of donor g lie at :math:`x + b_g` with a baseline :math:`b_g`, and respond by
    :math:`x + b_g \mapsto b_g + x + a_g (T(x) - x)` with a strength :math:`a_g`, which is optimal within the donor.

    Parameters
    ----------
    n_cells
        Number of cells in all, at least 20; the odd one is treated.
    n_donors
        Number of donors, who give cells at random; 0 for cells without donors.
    rng
        Seed or generator of the bootstrap. The response, and what donors are like, does not depend on it.

    Returns
    -------
    Cells x 765 genes, controls first:

    ``X``
        Expression, float32, sparse: ``X_pca @ PCs.T`` + the mean of the gene + the residual of a real cell, rounded to
        1/64. Values below the smallest one of the real cells (0.72) are zeros.
    ``obs['condition']``, ``obs['cell_type']``
        ``'control'`` or ``'IFN-beta'``, and the type of the real cell; categorical.
    ``obs['donor']``
        ``'donor 1'`` ..., if there are donors; categorical.
    ``var['mean']``, ``varm['PCs']``, ``uns['pca']``, ``obsm['X_pca']``
        The PCA of the 700 real cells, under the keys of scanpy; ``mean`` is subtracted before. The coordinates are
        float32, and the response is exact in them.
    ``obsm['X_planted']``, ``uns['planted']``
        T(x) of the control cells in the same space, NaN for treated cells; and the response, which
        :func:`planted_response` returns as a function.

    Raises
    ------
    ValueError
        If ``n_cells`` is below 20, or ``n_donors`` below 0.

    References
    ----------
    Zheng et al. (2017), Massively parallel digital transcriptional profiling of single cells, Nat. Commun. 8 (cells).

    Examples
    --------
    >>> from scot_hycnn.datasets import pbmc_planted
    >>> adata = pbmc_planted(n_cells=200)
    >>> adata.shape, adata.obsm["X_pca"].shape
    ((200, 765), (200, 30))
    >>> adata.obs["condition"].value_counts().to_dict()
    {'control': 100, 'IFN-beta': 100}
    """
    if n_cells < 20:
        raise ValueError(f"n_cells={n_cells}; at least 20 are needed, half of them controls.")
    if n_donors < 0:
        raise ValueError(f"n_donors={n_donors} must be 0 or more.")
    real, generator = real_pbmcs(), np.random.default_rng(rng)
    # New cells, of which those that are no controls are moved by the response.
    response = _plant_response(real)
    parents, cells = smoothed_bootstrap(real.scores, real.cell_type, n_cells, generator)
    moved = response.transport(cells)
    is_control = np.arange(n_cells) < n_cells // 2
    condition = np.where(is_control, _CONTROL, _TREATED)
    obs = pd.DataFrame({"condition": pd.Categorical(condition, categories=[_CONTROL, _TREATED])})
    obs["cell_type"] = pd.Categorical(real.cell_type[parents])
    if n_donors:
        donor = generator.integers(n_donors, size=n_cells)
        obs["donor"] = pd.Categorical.from_codes(donor, pd.Index([f"donor {k + 1}" for k in range(n_donors)]))
        # A row of numbers for each donor, the first of which is the strength: more donors do not change the others.
        drawn = np.random.default_rng(0).normal(size=(n_donors, 1 + _N_PCS))[donor]
        baseline = _DONOR_BASELINE * drawn[:, 1:] * real.scores.std(axis=0)
        moved = baseline + cells + np.exp(_DONOR_STRENGTH * drawn[:, :1]) * (moved - cells)
        cells = cells + baseline
    adata = real.expressed(parents, np.where(is_control[:, None], cells, moved), obs, condition)
    adata.obsm["X_planted"] = np.where(is_control[:, None], moved, np.nan).astype(np.float32)
    adata.uns["planted"] = asdict(response)
    return adata


def planted_response(adata: AnnData) -> LogSumExpPotential:
    """Return the convex potential whose gradient was planted into the cells, before donors changed it.

    Parameters
    ----------
    adata
        Cells of :func:`pbmc_planted`, as returned or read from a file.

    Returns
    -------
    The potential and its gradient, functions of the coordinates in ``adata.obsm['X_pca']``.

    Raises
    ------
    ValueError
        If ``adata.uns`` has no planted response.

    Examples
    --------
    >>> import numpy as np
    >>> from scot_hycnn.datasets import pbmc_planted, planted_response
    >>> adata = pbmc_planted(n_cells=100)
    >>> control = adata[adata.obs["condition"] == "control"]
    >>> predicted = planted_response(adata).transport(control.obsm["X_pca"])
    >>> bool(np.allclose(predicted, control.obsm["X_planted"], atol=1e-4))
    True
    """
    if "planted" not in adata.uns:
        raise ValueError("adata.uns has no 'planted'; planted_response reads what datasets.pbmc_planted wrote there.")
    stored = adata.uns["planted"]
    vectors, offsets = np.asarray(stored["vectors"]), np.asarray(stored["offsets"])
    return LogSumExpPotential(vectors, offsets, float(stored["temperature"]), float(stored["quadratic"]))


@dataclass(frozen=True)
class RealCells:
    """The 700 real cells as mean + scores @ loadings.T + residual, in the 30 first principal components."""

    genes: list[str]
    cell_type: NDArray[np.str_]  # (n,)
    mean: NDArray[np.float64]  # (genes,)
    scores: NDArray[np.float64]  # (n, 30)
    loadings: NDArray[np.float64]  # (genes, 30)
    residual: NDArray[np.float64]  # (n, genes)
    variance: NDArray[np.float64]  # squared singular values of all components
    smallest: float  # value of a gene that is expressed

    def direction_of(self, genes: Sequence[str]) -> NDArray[np.float64]:
        """Return the unit vector in the components towards higher expression of some genes, (30,)."""
        return _unit(np.isin(self.genes, genes) @ self.loadings)

    def expressed(
        self, parents: NDArray[np.intp], x_pca: NDArray[np.float64], obs: pd.DataFrame, labels: NDArray[np.str_]
    ) -> AnnData:
        """Return cells with coordinates ``x_pca`` and the residuals of their parents; names begin with the labels."""
        # Below the smallest value that was measured, expression is 0 as in real cells.
        expression = x_pca @ self.loadings.T + self.mean + self.residual[parents]
        expression[expression < self.smallest] = 0
        return AnnData(
            X=csr_matrix((np.round(expression * 64) / 64).astype(np.float32)),
            obs=obs.set_axis([f"{label}-{i}" for i, label in enumerate(labels)]),
            var=pd.DataFrame({"mean": self.mean}, index=self.genes),
            obsm={"X_pca": x_pca.astype(np.float32)},
            varm={"PCs": self.loadings.astype(np.float32)},
            uns={
                "pca": {
                    "params": {"zero_center": True, "use_highly_variable": False},
                    "variance": self.variance[:_N_PCS] / (len(self.scores) - 1),
                    "variance_ratio": self.variance[:_N_PCS] / self.variance.sum(),
                }
            },
        )


def real_pbmcs() -> RealCells:
    """Return the 700 PBMCs that scanpy ships."""
    raw = sc.datasets.pbmc68k_reduced()
    real = np.asarray(raw.raw.X.toarray(), dtype=np.float64)
    mean = real.mean(axis=0)
    left, singular, right = np.linalg.svd(real - mean, full_matrices=False)
    left, loadings = left[:, :_N_PCS], right[:_N_PCS].T
    # The sign of a component is arbitrary: its largest loading is made positive, on every machine.
    signs = np.sign(loadings[np.abs(loadings).argmax(axis=0), np.arange(_N_PCS)])
    scores, loadings = left * singular[:_N_PCS] * signs, loadings * signs
    residual = real - mean - scores @ loadings.T
    cell_type = raw.obs["bulk_labels"].to_numpy().astype(np.str_)
    smallest = float(real[real > 0].min())
    return RealCells(list(raw.raw.var_names), cell_type, mean, scores, loadings, residual, singular**2, smallest)


def _plant_response(real: RealCells) -> LogSumExpPotential:
    """Return a potential with one region that stays, and one for each responding type, which moves in its direction."""
    origin = real.scores[[name.startswith(_T_CELLS) for name in real.cell_type]].mean(axis=0)
    programme = real.direction_of(_PROGRAMME)
    # The region that stays has the vector 0.
    vectors, offsets = [np.zeros(_N_PCS)], [0.0]
    for name, (distance, staying) in _RESPONDERS.items():
        cells = real.scores[real.cell_type == name]
        direction = _unit(_unit(cells.mean(axis=0) - origin) + _PROGRAMME_WEIGHT * programme)
        # The boundary between staying and moving cells lies at a quantile of the type along its direction.
        vectors.append(distance * direction)
        offsets.append(distance * float(np.quantile(cells @ direction, staying)))
    return LogSumExpPotential(np.array(vectors), np.array(offsets), _TEMPERATURE, quadratic=1.0)


def _unit(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    return vector / np.linalg.norm(vector)


def smoothed_bootstrap(
    cells: NDArray[np.float64], labels: NDArray[np.str_], n_draws: int, generator: np.random.Generator
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Draw new cells from a kernel density estimate of each label; return the row of their parent, and coordinates."""
    n_dims = cells.shape[1]
    parents = generator.integers(len(cells), size=n_draws)
    noise = generator.normal(size=(n_draws, n_dims))
    draws = np.empty_like(noise)
    for label in np.unique(labels):
        known, new = cells[labels == label], labels[parents] == label
        centre, spread = known.mean(axis=0), known.std(axis=0)
        # A new cell is c + (x - c + h s e) / sqrt(1 + h²), contracted towards the mean c of its label so that every
        # coordinate keeps its standard deviation s. Silverman (1986), Density Estimation for
        # Statistics and Data Analysis: the bandwidth h, and the bootstrap.
        h = (4 / ((n_dims + 2) * len(known))) ** (1 / (n_dims + 4))
        offset = cells[parents[new]] - centre + h * spread * noise[new]
        draws[new] = centre + offset / np.sqrt(1 + h**2)
    return parents, draws


def screen_planted(n_conditions: int = 24, n_cells: int = 100, *, rng: int | np.random.Generator | None = 0) -> AnnData:
    r"""PBMCs under a screen of drugs, doses and times whose true responses are known cell by cell.

    The cells are drawn as in :func:`pbmc_planted` from the 700 PBMCs that scanpy ships. A condition is a drug at one of
    three doses (0.1, 1 and 10 micromolar) and two times (6 and 24 hours). Its cells are moved by the gradient of a sum
    of convex functions, one for each of four pathways p that all drugs share:

    .. math::
        T_c(x) &= x + \sum_p a_p(c)\, \sigma\!\left(\frac{\langle w_p, x\rangle - b_p}{s}\right) l_p w_p, \\
        a_p(c) &= A_p(\text{drug})\, \frac{\text{dose}}{\text{dose} + 1}\, \left(1 - e^{-\text{hours}/10}\right)

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
