"""Results of a fit in forms that other tools take."""

from __future__ import annotations

from ._deg import deg
from ._evaluation import evaluation
from ._history import history
from ._model import model
from ._predicted import predicted
from ._similarity import similarity
from ._summary import summary
from ._transported import transported

__all__ = ["deg", "evaluation", "history", "model", "predicted", "similarity", "summary", "transported"]
