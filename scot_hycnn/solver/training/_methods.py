"""What a user can name: families of potentials and training methods."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from scot_hycnn.potentials import Potential
from scot_hycnn.solver.baselines._enot import ENOT
from scot_hycnn.solver.baselines._minimax import Minimax
from scot_hycnn.solver.baselines._w2gn import W2GN
from scot_hycnn.solver.model._families import make_potential

from ._amortized import Amortized
from ._cached import Remembered
from ._method import Method

# Where the search for a target cell's conjugate starts: where a second network says, or where it ended the last time.
CONJUGATES = ("predicted", "remembered")


@dataclass(frozen=True)
class Recipe:
    """A training method, and what goes with it.

    Parameters
    ----------
    method
        How to train.
    balanced
        Whether to train in balanced coordinates, starting at the Gaussian map, and to blend with it in the end.
        Otherwise in the data's own coordinates, starting as the potentials' sources say, and the network alone is
        the map: it may be worse than the Gaussian one.
    options
        Defaults of the fit that differ from the usual ones.
    remembering
        The method where target cells are so few that their conjugates can be remembered, if there is one.
    """

    method: Method
    balanced: bool
    options: dict[str, Any]
    remembering: Method | None = None


# A step of these costs a third to twice of the default's; see benchmarks/speed.py.
RECIPES: dict[str, Recipe] = {
    "amortized": Recipe(Amortized(), balanced=True, options={}, remembering=Remembered()),
    "minimax": Recipe(Minimax(), balanced=True, options={}),
    "w2gn": Recipe(W2GN(), balanced=True, options={}),
    "enot": Recipe(ENOT(), balanced=True, options={}),
    # arXiv:2604.26942, app. D.3, d >= 10: T = 1000, S = 5, batch 256, cosine 1e-2 to 1e-4, fixed temperature 1.
    "paper": Recipe(
        Minimax(lr=1e-2, weight_decay=0.0, max_norm=float("inf"), averaging=0.0, warm_up=1, double_backward=True),
        balanced=False,
        options={"max_steps": 1000, "n_ensemble": 1, "batch_size": 256, "hidden": (48, 48, 48, 48)},
    ),
}


def make_network(potential: str | Potential, solver: str, n_dims: int, hidden: tuple[int, ...]) -> Potential:
    """Potential of that name as the training method starts it; one that the user made as it is.

    Parameters
    ----------
    potential
        One of POTENTIALS, or the potential itself.
    solver
        One of RECIPES.
    n_dims
        Dimension d.
    hidden
        Width of each hidden layer.

    Returns
    -------
    The potential. For the Gaussian map one that will not be used.
    """
    if isinstance(potential, Potential):
        return potential
    return make_potential(potential, n_dims, hidden, balanced=RECIPES[solver].balanced)


def make_method(
    solver: str, lr: float | None, weight_decay: float | None, *, conjugates: str = CONJUGATES[0]
) -> Method:
    """Training method of that name, with what the user set."""
    recipe = RECIPES[solver]
    method = recipe.remembering if conjugates == "remembered" and recipe.remembering else recipe.method
    return replace(
        method,
        lr=method.lr if lr is None else lr,
        weight_decay=method.weight_decay if weight_decay is None else weight_decay,
    )
