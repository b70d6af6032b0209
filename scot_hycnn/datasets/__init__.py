"""Cells whose true transport map is known: closed forms, and real PBMCs with a planted response."""

from __future__ import annotations

from ._brenier_pair import brenier_pair
from ._gaussian_pair import gaussian_pair
from ._log_sum_exp import LogSumExpPotential
from ._pair import Pair
from ._pbmc_planted import pbmc_planted
from ._planted_response import planted_response

__all__ = [
    "LogSumExpPotential",
    "Pair",
    "brenier_pair",
    "gaussian_pair",
    "pbmc_planted",
    "planted_response",
]
