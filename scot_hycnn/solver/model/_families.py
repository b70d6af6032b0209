"""Families of potentials by the names that a user can give, and how their networks start."""

from __future__ import annotations

from typing import Any

from scot_hycnn.potentials._hycnn import Combination, GroupMax, HyCNN
from scot_hycnn.potentials._icnn import ICNN, MLP
from scot_hycnn.potentials._potential import Potential

# The closed-form map between two Gaussians: nothing is trained.
GAUSSIAN = "gaussian"

# Of the paper's temperatures .1, 1 and 10 the sharpest: in balanced coordinates smoother ones stay near the Gaussian
# map (ICNN on T = x + sign x, d = 10).
SHARP = {"temperature": 0.1}
# Name to class and options. Those beside 'hycnn' are the systems of arXiv:2604.26942, in our solver.
FAMILIES: dict[str, tuple[type[Potential], dict[str, Any]]] = {
    "hycnn": (HyCNN, {}),
    "hycnn-max": (HyCNN, {"gate": "max"}),
    "hycnn-fixed": (HyCNN, {"annealing": "fixed", **SHARP}),
    "hycnn-cyclic": (HyCNN, {"annealing": "cyclic"}),
    "groupmax": (GroupMax, {}),
    "icnn": (ICNN, SHARP),
    "icnn-relu": (ICNN, {"activation": "relu"}),
    "icnn-leaky-relu": (ICNN, {"activation": "leaky_relu"}),
    "icnn-soft": (ICNN, {"constraint": "soft", **SHARP}),
    # Its squares are large at first: a sixth of the others' output starts as near to the Gaussian map.
    "icnn-quadratic": (ICNN, {"quadratic_skip": True, "output_scale": 0.05, **SHARP}),
    "mlp": (MLP, SHARP),
}
POTENTIALS = (*FAMILIES, GAUSSIAN)
# Classes that a saved map can have, by name. A combination is made by `fit_screen` and not by a name of the user.
STORED: dict[str, type[Potential]] = {cls.__name__: cls for cls, _ in FAMILIES.values()}
STORED[Combination.__name__] = Combination
# The other solvers train in balanced coordinates, start at the Gaussian map and are blended with it at the end. These
# train in centred coordinates, and keep their network even if the Gaussian map is better.
UNBALANCED_SOLVERS = ("paper",)

# In balanced coordinates |x|^2/2 is the Gaussian map: training starts close to it.
NEAR_GAUSSIAN = {"strong_convexity": 0.9, "output_scale": 0.3}
AS_PUBLISHED = {"strong_convexity": 0.0, "output_scale": 1.0}
HYCNN_OF_THE_PAPER = {"annealing": "fixed", "quadratic_skip": False}


def make_potential(name: str, n_dims: int, hidden: tuple[int, ...], *, balanced: bool) -> Potential:
    """Make the potential of that name, near the Gaussian map in balanced coordinates and else as it was published."""
    # The Gaussian map needs no network; its potential is one that can be stored.
    family, options = FAMILIES["hycnn" if name == GAUSSIAN else name]
    if balanced or name == GAUSSIAN:
        return family(n_dims, hidden, **(NEAR_GAUSSIAN | options))
    return family(n_dims, hidden, **((HYCNN_OF_THE_PAPER if name == "hycnn" else options) | AS_PUBLISHED))
