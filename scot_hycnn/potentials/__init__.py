"""Potentials: value and explicit gradient, batched over K maps. All are convex but the MLP and the soft ICNN.

The names by which ``solver.fit`` knows the families stand in ``solver/_options.py``.
"""

from __future__ import annotations

from ._gaussian import Gaussian
from ._hycnn import Combination, GroupMax, HyCNN
from ._icnn import ICNN, MLP
from ._potential import Potential, Weights

__all__ = ["ICNN", "MLP", "Combination", "Gaussian", "GroupMax", "HyCNN", "Potential", "Weights"]
