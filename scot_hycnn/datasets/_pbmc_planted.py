"""Real PBMCs with a planted response."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
import scanpy as sc
from anndata import AnnData
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from ._pairs import LogSumExpPotential

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
    response = _plant_response(real.scores, real.cell_type, real.direction_of(_PROGRAMME))
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


def _plant_response(
    scores: NDArray[np.float64], cell_type: NDArray[np.str_], programme: NDArray[np.float64]
) -> LogSumExpPotential:
    """Return a potential with one region that stays, and one for each responding type, which moves in its direction."""
    is_t_cell = [name.startswith(_T_CELLS) for name in cell_type]
    origin = scores[is_t_cell].mean(axis=0)
    # The region that stays has the vector 0.
    vectors, offsets = [np.zeros(_N_PCS)], [0.0]
    for name, (distance, staying) in _RESPONDERS.items():
        cells = scores[cell_type == name]
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
