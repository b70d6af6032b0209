"""Cells whose true transport map is known, and published perturbation experiments, which are downloaded."""

from __future__ import annotations

from ._pairs import LogSumExpPotential, Pair, brenier_pair, gaussian_pair
from ._planted import pbmc_planted, planted_response, screen_planted, screen_response
from ._published import adamson_2016, kang_2018, norman_2019, papalexi_2021, sciplex3

__all__ = [
    "LogSumExpPotential",
    "Pair",
    "adamson_2016",
    "brenier_pair",
    "gaussian_pair",
    "kang_2018",
    "norman_2019",
    "papalexi_2021",
    "pbmc_planted",
    "planted_response",
    "sciplex3",
    "screen_planted",
    "screen_response",
]
