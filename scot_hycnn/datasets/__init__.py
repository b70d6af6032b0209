"""Cells whose true transport map is known, and published perturbation experiments, which are downloaded."""

from __future__ import annotations

from ._adamson_2016 import adamson_2016
from ._brenier_pair import brenier_pair
from ._gaussian_pair import gaussian_pair
from ._kang_2018 import kang_2018
from ._log_sum_exp import LogSumExpPotential
from ._norman_2019 import norman_2019
from ._pair import Pair
from ._papalexi_2021 import papalexi_2021
from ._pbmc_planted import pbmc_planted
from ._planted_response import planted_response
from ._sciplex3 import sciplex3

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
]
