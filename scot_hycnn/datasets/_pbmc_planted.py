"""Real PBMCs with a planted response."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import scanpy as sc
from anndata import AnnData
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from ._log_sum_exp import LogSumExpPotential
from ._planted_response import response_to_uns
from ._smoothed_bootstrap import smoothed_bootstrap

_N_PCS = 30
_MIN_CELLS = 20
_CONTROL, _TREATED = "control", "IFN-beta"

# How far cells of a type move (units of X_pca, in which related types lie 4 to 10 apart), and the fraction of
# the type that stays behind. All other types do not respond.
_RESPONDERS = {"CD14+ Monocyte": (11.0, 0.4), "Dendritic": (9.0, 0.6), "CD56+ NK": (7.0, 0.4)}
_RESTING = ("CD4+", "CD8+")  # T cells: types move away from them
_PROGRAMME_WEIGHT = 0.5  # share of the interferon genes in each type's direction
_TEMPERATURE = 3.0  # moving and staying cells of a type mix over about a tenth of its width

# The interferon-stimulated genes among the 765.
_PROGRAMME = (
    "BST2", "GBP2", "IFI30", "IFITM1", "IFITM2", "IFITM3", "IRF1", "IRF7", "ISG20", "LY6E", "OAS1", "PLAC8",
    "PSME2", "SP100", "SP110", "SP140",
)  # fmt: skip


@dataclass(frozen=True)
class _Reference:
    """The 700 real cells as mean + scores @ loadings.T + residual."""

    genes: list[str]
    cell_type: NDArray[np.str_]
    mean: NDArray[np.float64]
    loadings: NDArray[np.float64]  # (genes, components)
    scores: NDArray[np.float64]
    residual: NDArray[np.float64]
    variance: NDArray[np.float64]
    variance_ratio: NDArray[np.float64]
    detection_limit: float


def pbmc_planted(n_cells: int = 4000, *, rng: int | np.random.Generator | None = 0) -> AnnData:
    r"""Control and treated PBMCs whose true response is known cell by cell.

    The 700 PBMCs of 10 types that scanpy ships (:func:`scanpy.datasets.pbmc68k_reduced`, 765 genes,
    log-normalised) are grown to any number by a smoothed bootstrap within cell type, in a space of 30
    principal components. Half of the cells are controls. The other half are *other* draws, moved by the
    gradient of one convex function f of the components: by Brenier's theorem the optimal transport map. **The
    response is made up**: the label ``'IFN-beta'`` stands for a planted one, not for measured cells.

    f is a :class:`LogSumExpPotential` with a region that stays and one for each responding type: part of the
    monocytes, dendritic and NK cells move, all other types stay. They move away from the T cells and towards
    higher expression of 16 interferon-stimulated genes, by as much as related types lie apart. Within a type
    only the cells on one side move, which no affine map can follow.

    Parameters
    ----------
    n_cells
        Number of cells in all, at least 20; the odd one is treated.
    rng
        Seed or generator of the bootstrap. The response does not depend on it, and the global generator is
        not used.

    Returns
    -------
    Cells x 765 genes, controls first:

    ``X``
        Expression, float32, sparse: ``X_pca @ PCs.T`` + the mean of the gene + the residual of the real cell
        that the new one was drawn from. As in the real cells, values below the smallest one ever measured
        (0.72) are zeros. Rounded to 1/64.
    ``obs['condition']``, ``obs['cell_type']``
        ``'control'`` or ``'IFN-beta'``, and the real cell's type. Categorical.
    ``var['mean']``, ``varm['PCs']``, ``uns['pca']``
        The PCA of the 700 real cells, with scanpy's keys; ``mean`` is what it subtracts.
    ``obsm['X_pca']``
        Coordinates in that basis, float32, before zeros were put in: this is the space in which the response
        is exact.
    ``obsm['X_planted']``
        T(x) of the control cells in the same space, NaN for treated cells.
    ``uns['planted']``
        The response; :func:`planted_response` returns it as functions.

    Raises
    ------
    ValueError
        If ``n_cells`` is below 20.

    References
    ----------
    Zheng et al. (2017), Massively parallel digital transcriptional profiling of single cells, Nature
    Communications 8 (the cells).

    Examples
    --------
    >>> from scot_hycnn.datasets import pbmc_planted
    >>> adata = pbmc_planted(n_cells=200)
    >>> adata.shape, adata.obsm["X_pca"].shape
    ((200, 765), (200, 30))
    >>> adata.obs["condition"].value_counts().to_dict()
    {'control': 100, 'IFN-beta': 100}
    """
    if n_cells < _MIN_CELLS:
        raise ValueError(f"n_cells={n_cells}; at least {_MIN_CELLS} are needed, half of them controls.")
    reference = _read_reference()
    response = _plant_response(reference)
    parents, cells = smoothed_bootstrap(reference.scores, reference.cell_type, n_cells, np.random.default_rng(rng))
    moved = response.transport(cells)
    is_control = np.arange(n_cells) < n_cells // 2
    x_pca = np.where(is_control[:, None], cells, moved)
    adata = AnnData(
        X=_express(reference, parents, x_pca),
        obs=_annotate(is_control, reference.cell_type[parents]),
        var=pd.DataFrame({"mean": reference.mean}, index=reference.genes),
        obsm={
            "X_pca": x_pca.astype(np.float32),
            "X_planted": np.where(is_control[:, None], moved, np.nan).astype(np.float32),
        },
        varm={"PCs": reference.loadings.astype(np.float32)},
    )
    adata.uns["pca"] = {
        "params": {"zero_center": True, "use_highly_variable": False},
        "variance": reference.variance,
        "variance_ratio": reference.variance_ratio,
    }
    adata.uns["planted"] = response_to_uns(response)
    return adata


def _read_reference() -> _Reference:
    raw = sc.datasets.pbmc68k_reduced()
    expression = np.asarray(raw.raw.X.toarray(), dtype=np.float64)
    mean = expression.mean(axis=0)
    left, singular, right = np.linalg.svd(expression - mean, full_matrices=False)
    left, loadings = left[:, :_N_PCS], right[:_N_PCS].T
    # The sign of a component is arbitrary: its largest loading is made positive, on every machine.
    signs = np.sign(loadings[np.abs(loadings).argmax(axis=0), np.arange(_N_PCS)])
    scores, loadings = left * singular[:_N_PCS] * signs, loadings * signs
    return _Reference(
        genes=list(raw.raw.var_names),
        cell_type=raw.obs["bulk_labels"].to_numpy().astype(np.str_),
        mean=mean,
        loadings=loadings,
        scores=scores,
        residual=expression - mean - scores @ loadings.T,
        variance=singular[:_N_PCS] ** 2 / (len(expression) - 1),
        variance_ratio=singular[:_N_PCS] ** 2 / (singular**2).sum(),
        detection_limit=float(expression[expression > 0].min()),
    )


def _plant_response(reference: _Reference) -> LogSumExpPotential:
    """One region that stays, and one a responding type that moves along the type's direction."""
    resting = np.char.startswith(reference.cell_type, _RESTING[0])
    resting |= np.char.startswith(reference.cell_type, _RESTING[1])
    origin = reference.scores[resting].mean(axis=0)
    programme = _unit(np.isin(reference.genes, _PROGRAMME) @ reference.loadings)
    vectors, offsets = [np.zeros(_N_PCS)], [0.0]
    for cell_type, (distance, staying) in _RESPONDERS.items():
        cells = reference.scores[reference.cell_type == cell_type]
        direction = _unit(_unit(cells.mean(axis=0) - origin) + _PROGRAMME_WEIGHT * programme)
        vectors.append(distance * direction)
        offsets.append(distance * float(np.quantile(cells @ direction, staying)))
    return LogSumExpPotential(np.array(vectors), np.array(offsets), _TEMPERATURE, quadratic=1.0)


def _unit(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    return vector / np.linalg.norm(vector)


def _express(reference: _Reference, parents: NDArray[np.intp], x_pca: NDArray[np.float64]) -> csr_matrix[np.float32]:
    expression = x_pca @ reference.loadings.T + reference.mean + reference.residual[parents]
    expression[expression < reference.detection_limit] = 0
    return csr_matrix((np.round(expression * 64) / 64).astype(np.float32))


def _annotate(is_control: NDArray[np.bool_], cell_type: NDArray[np.str_]) -> pd.DataFrame:
    condition = np.where(is_control, _CONTROL, _TREATED)
    return pd.DataFrame(
        {
            "condition": pd.Categorical(condition, categories=[_CONTROL, _TREATED]),
            "cell_type": pd.Categorical(cell_type),
        },
        index=[f"{name}-{i}" for i, name in enumerate(condition)],
    )
