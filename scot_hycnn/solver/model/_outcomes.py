"""What a fit has led to, as a value."""

from __future__ import annotations

from enum import StrEnum


class Outcome(StrEnum):
    """What a fit has led to: the value of ``TransportMap.outcome``.

    ``NETWORKS``: the networks are part of the map. ``REQUESTED``: ``potential='gaussian'`` asked for the Gaussian map.
    The Gaussian map was kept, with ``NO_RESPONSE`` because source and target cells are as near to each other as random
    halves of both, with ``NOT_TRAINED`` because there were few steps, and with ``GAUSSIAN`` because networks that were
    trained as usual were not better: the response is close to linear, or cells are few. Something went wrong:
    ``RECOVERED`` from numbers that were not finite; ``UNSOLVED``, the convex conjugates were not solved well, so that
    the map may be off; ``WORSE``, the map is not better than the Gaussian one (``solver='paper'``, which keeps it).

    Parameters
    ----------
    value
        The outcome as files and ``adata.uns`` hold it, for instance ``'networks'``.

    Examples
    --------
    >>> from scot_hycnn.solver import Outcome
    >>> Outcome("networks").is_trouble, Outcome.RECOVERED.is_trouble
    (False, True)
    """

    NETWORKS = "networks"
    REQUESTED = "gaussian requested"
    GAUSSIAN = "gaussian kept"
    NO_RESPONSE = "gaussian kept: no response seen"
    NOT_TRAINED = "gaussian kept: few steps"
    RECOVERED = "recovered"
    UNSOLVED = "conjugates not solved"
    WORSE = "worse than gaussian"

    @property
    def is_trouble(self) -> bool:
        """Whether something went wrong that the user should see."""
        return self in (Outcome.RECOVERED, Outcome.UNSOLVED, Outcome.WORSE)
