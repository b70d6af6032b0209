"""Made-up pairs of samples in which one population grows, of kinds that differ: clusters, counts, tails, PBMCs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from sklearn.decomposition import PCA

from scot_hycnn import datasets

Pair = tuple[np.ndarray, np.ndarray]


def shares_of(k: int, growth: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, int]:
    """Return the shares of k populations before and after, and the one that has grown."""
    before = 0.9 * rng.dirichlet(3 * np.ones(k)) + 0.1 / k
    grown = int(np.argmax(before))
    after = before.copy()
    after[grown] *= growth
    return before, after / after.sum(), grown


def clusters(
    growth: float,
    seed: int,
    *,
    d: int = 10,
    k: int = 4,
    n: int = 2000,
    apart: float = 6,
    stronger: float = 0,
    n_shifted: int = 0,
) -> Pair:
    """Gaussian clusters with an affine map each; one may respond more, or all are shifted in some dimensions only."""
    rng = np.random.default_rng(seed)
    before, after, grown = shares_of(k, growth, rng)
    centres = rng.normal(size=(k, d)) * apart / np.sqrt(2 * d)
    shifts, spread = (rng.normal(size=shape) / np.sqrt(d) for shape in ((k, d), (k, d, d)))
    matrices = np.eye(d) + 0.2 * (spread + spread.transpose(0, 2, 1))
    direction = rng.normal(size=d)
    shifts[grown] += stronger * direction / np.linalg.norm(direction)
    if n_shifted:
        shifts = np.tile(np.where(np.arange(d) < n_shifted, 4 * rng.normal(size=d), 0), (k, 1))
        matrices = np.tile(np.eye(d), (k, 1, 1))
    of_x, of_y = (rng.choice(k, n, p=shares) for shares in (before, after))
    x, y = rng.normal(size=(2, n, d))
    return centres[of_x] + x, centres[of_y] + shifts[of_y] + np.einsum("nij,nj->ni", matrices[of_y], y)


def counts(growth: float, seed: int, *, depth: int = 300, n: int = 2000, stronger: float = 1) -> Pair:
    """Sparse counts of five types, log-normalised, in 50 components; one type may respond more strongly."""
    rng, k, n_genes = np.random.default_rng(seed), 5, 800
    before, after, grown = shares_of(k, growth, rng)
    markers = np.where(rng.random((k, n_genes)) < 0.15, 1.5 * rng.normal(size=(k, n_genes)), 0)
    types = rng.lognormal(0, 1.5, n_genes) * np.exp(markers)
    response = np.where(rng.random(n_genes) < 0.05, rng.normal(size=n_genes), 0)
    responses = response + np.where(rng.random((k, n_genes)) < 0.03, 0.5 * rng.normal(size=(k, n_genes)), 0)
    responses[grown] *= stronger
    cells = []
    for shares, change in ((before, np.zeros_like(types)), (after, responses)):
        of = rng.choice(k, n, p=shares)
        mean = types[of] * np.exp(change[of])
        sizes = rng.lognormal(np.log(depth), 0.4, (n, 1))
        found = rng.poisson(sizes * mean / mean.sum(1, keepdims=True))
        cells.append(np.log1p(found / np.maximum(found.sum(1, keepdims=True), 1) * 1e4))
    components = PCA(50, random_state=0, svd_solver="randomized").fit_transform(np.concatenate(cells))
    return components[:n], components[n:]


def pbmcs(growth: float, seed: int) -> Pair:
    """Planted PBMCs; monocytes die or divide: some of them are left out on one side."""
    adata = datasets.pbmc_planted(4000, rng=seed)
    treated = (adata.obs["condition"] == "IFN-beta").to_numpy()
    is_grown = (adata.obs["cell_type"] == "CD14+ Monocyte").to_numpy() & (treated == (growth < 1))
    kept = ~is_grown | (np.random.default_rng(seed).random(len(treated)) < min(growth, 1 / growth))
    return adata.obsm["X_pca"][kept & ~treated], adata.obsm["X_pca"][kept & treated]


def known_map(seed: int, *, name: str, d: int) -> Pair:
    """Cells of one population, moved by a known map."""
    pair = datasets.brenier_pair(name, d, 2000, rng=seed)
    return pair.x, pair.y


def heavy_tails(seed: int, *, d: int) -> Pair:
    """Cells of a t distribution with three degrees of freedom, wider after."""
    x, y = np.random.default_rng(seed).standard_t(3, size=(2, 2000, d))
    return x, 1.5 * y + 1


# Name of a kind to what draws it, from the growth and a seed.
KINDS: dict[str, Callable[[float, int], Pair]] = {
    "clusters, d = 10": clusters,
    "clusters, d = 50": partial(clusters, d=50),
    "clusters, one responds more": partial(clusters, apart=12, stronger=6),
    "clusters, shift in 2 of 50": partial(clusters, d=50, k=3, apart=12, n_shifted=2),
    "clusters of 300 cells": partial(clusters, d=20, k=3, n=300, apart=12),
    "counts": counts,
    "counts, few molecules": partial(counts, depth=100),
    "counts, one type responds more": partial(counts, stronger=2.5),
    "counts of 500 cells": partial(counts, n=500),
    "planted PBMCs": pbmcs,
}
# The same of a single population, in which nothing can grow more than others: from a seed.
ONE_POPULATION: dict[str, Callable[[int], Pair]] = {
    "x + sign x, d = 10": partial(known_map, name="sign", d=10),
    "log-sum-exp, d = 2": partial(known_map, name="logsumexp", d=2),
    "heavy tails, d = 10": partial(heavy_tails, d=10),
    "heavy tails, d = 50": partial(heavy_tails, d=50),
}
