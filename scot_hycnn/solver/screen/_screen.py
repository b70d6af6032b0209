"""The model of a screen: the maps of its conditions, and of conditions that it has not seen."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scot_hycnn.potentials._hycnn import Combination
from scot_hycnn.potentials._potential import inverse_softplus
from scot_hycnn.solver.data._coordinates import Coordinates
from scot_hycnn.solver.model._blended import Support
from scot_hycnn.solver.model._map import Outcome, TransportMap

from ._covariates import Covariates

Array = NDArray[np.float64]

# What a condition's map can be.
GAUSSIAN, DICTIONARY, OWN = "gaussian", "dictionary", "own networks"
# Source cells on which maps are compared, and from which out-of-support scores are taken.
N_POINTS = 200
# Smallest eigenvalue of a combination of Gaussian maps, in units of the mean one.
_FLOOR = 0.02


@dataclass(frozen=True, eq=False, repr=False)
class Screen:
    r"""The maps of all conditions of a screen, which share networks; :func:`scot_hycnn.solver.fit_screen` makes it.

    The map of a condition is the gradient of :math:`\frac{s}{2} x^\top G x + \langle a, x\rangle + \sum_r v_r f_r(x)`,
    with the condition's Gaussian map G, its weights :math:`s, v \ge 0`, and R networks :math:`f_r` that all conditions
    share: each one is a :class:`TransportMap` with a convex potential.

    Parameters
    ----------
    shared
        Map of each condition with the shared networks, or its Gaussian map, in the order of ``ys``.
    own
        Maps of the conditions whose own networks were better, by their number.
    choices
        What each condition's map is: ``'gaussian'``, ``'dictionary'`` or ``'own networks'``.
    coordinates
        The coordinates of the shared networks. Only ``mean_x``, ``matrix`` and ``scale`` are used.
    network, theta
        Architecture of a condition's potential, and the parameters of the shared networks, shape (R, P).
    weights
        s and v of each condition, shape (K, R + 1), in the coordinates of the networks; of a Gaussian map 1 and 0.
    points
        Some source cells of all conditions, shape (n, d), on which maps are compared.
    covariates
        What is known of the conditions, and the rule for those that were not seen; None if nothing is known.
    params
        Parameters of the fit.
    history
        Columns of equal length, one row for each check of the shared networks.
    device
        Where the networks are evaluated.

    Examples
    --------
    >>> import numpy as np
    >>> from scot_hycnn import solver
    >>> rng = np.random.default_rng(0)
    >>> x, doses = rng.normal(size=(300, 2)), [1.0, 3.0, 10.0]
    >>> ys = [rng.normal(size=(100, 2)) + np.log1p(dose) for dose in doses]
    >>> screen = solver.fit_screen(x, ys, covariates={"dose": doses}, potential="gaussian")
    >>> len(screen.maps), screen.choices[0]
    (3, 'gaussian')
    >>> screen.displacements().shape
    (3, 200, 2)
    >>> unseen, distance = screen.at({"dose": 5.0})
    >>> bool(np.abs(unseen.transport(x).mean(0) - np.log1p(5.0)).max() < 0.3), distance < 1
    (True, True)
    >>> again = solver.Screen.from_dict(screen.to_dict(), device="cpu")
    >>> bool((again.maps[1].transport(x) == screen.maps[1].transport(x)).all())
    True
    """

    shared: list[TransportMap]
    own: dict[int, TransportMap]
    choices: list[str]
    coordinates: Coordinates
    network: Combination
    theta: Tensor
    weights: Array
    points: Array
    covariates: Covariates | None = None
    params: dict[str, Any] = field(default_factory=dict)
    history: dict[str, Array] = field(default_factory=dict)
    device: str = "cpu"

    @property
    def maps(self) -> list[TransportMap]:
        """Map of each condition, in the order of ``ys``."""
        return [self.own.get(k, fitted) for k, fitted in enumerate(self.shared)]

    @property
    def errors(self) -> dict[str, float]:
        """Mean squared error of each rule for unseen conditions, where seen ones are left out; that of no change is 1.

        The rules are the nearest condition, interpolation, the sum of additive effects, and kriging, which also uses
        what conditions of other categories have in common.
        """
        return {} if self.covariates is None else self.covariates.errors

    def at(self, covariates: Mapping[str, Any], *, rule: str | None = None) -> tuple[TransportMap, float]:
        """Return the map of a condition that was not seen.

        Parameters
        ----------
        covariates
            Value of each covariate of the fit; ``'embedding'`` for the vector of the condition, if the fit had one.
        rule
            Rule for the weights of the seen conditions; None takes the one that was best where conditions were left
            out, see :attr:`errors`.

        Returns
        -------
        The map, convex as all others, and the distance of the condition from the nearest seen one, in units of the
        usual distance between seen conditions.

        Raises
        ------
        ValueError
            If the fit had no covariates, these are others than its own, a category was not seen, or the condition is
            more than three usual distances away from all seen ones.

        References
        ----------
        Rasmussen & Williams (2006), Gaussian Processes for Machine Learning, eq. 2.25 and 5.12; simple kriging.
        """
        if self.covariates is None:
            raise ValueError("This screen has no covariates: fit it with covariates= or embedding= first.")
        if rule is not None and rule not in self.errors:
            raise ValueError(f"rule={rule!r} is unknown; choose one of {list(self.errors)}.")
        weights, distance = self.covariates.weights(covariates, rule)
        fitted = self._combined(weights)
        return replace(fitted, params=fitted.params | {"distance": distance}), distance

    def displacements(self) -> Array:
        """Return T(x) - x of each condition at ``points``.

        Returns
        -------
        shape (K, n, d).
        """
        return np.stack([fitted.transport(self.points) - self.points for fitted in self.maps])

    @cached_property
    def _tables(self) -> tuple[Array, Array, Array]:
        """Each condition's Gaussian matrix M, (K, d, d); its linear part s M; and that of T at the centre, (K, d)."""
        own = [fitted.coordinates for fitted in self.shared]
        gaussian = np.stack([one.matrix.T @ one.matrix / one.scale for one in own])
        linear = self.weights[:, :1, None] * gaussian
        to_centre = self.coordinates.mean_x - np.stack([one.mean_x for one in own])
        return gaussian, linear, np.stack([one.mean_y for one in own]) + np.einsum("kde,ke->kd", linear, to_centre)

    def _combined(self, weights: Array) -> TransportMap:
        """Return the map x + sum_k w_k (T_k(x) - x); parts that would not be convex are set to 0."""
        gaussian, linear, at_centre = self._tables
        centre, eye = self.coordinates.mean_x, np.eye(self.network.n_dims)
        unchanged = 1 - weights.sum()
        matrix, s = _positive(np.tensordot(weights, linear, 1) + unchanged * eye), 1.0
        balanced = _positive(np.tensordot(weights, gaussian, 1) + unchanged * eye)
        v: Array = np.maximum(weights @ self.weights[:, 1:], 0.0)
        if v.any():
            s = min(float(np.trace(matrix) / np.trace(balanced)), 1.0)
        moved_centre = weights @ at_centre + unchanged * centre
        covariance = np.cov(self.points.T).reshape(eye.shape) + 1e-9 * eye
        own = Coordinates.from_affine(centre, moved_centre, matrix / s, covariance)
        theta = condition_theta(self.network, self.theta, (self.coordinates, own), s, v=v, w=np.zeros_like(centre))
        halves = (torch.tensor(own.source(half), dtype=torch.float32) for half in (self.points[::2], self.points[1::2]))
        return TransportMap(
            network=self.network,
            theta=theta,
            coordinates=own,
            blend=1.0,
            w2_squared=float("nan"),
            outcome=Outcome.NETWORKS if v.any() else Outcome.GAUSSIAN,
            gaussian=Coordinates.from_affine(centre, moved_centre, balanced, covariance),
            support=Support.of(*halves),
            params={"potential": "combination", "rule": self.covariates.rule if self.covariates else ""},
            device=self.device,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return everything that the screen holds; the shared networks are in it once.

        Returns
        -------
        Arrays, strings and numbers in a dictionary with strings as keys: what ``adata.uns`` and files hold.
        """
        n_own = self.network.n_own
        states: dict[str, Any] = {"theta": self.theta.numpy()}
        states |= {name: getattr(self, name) for name in ("weights", "points", "params", "history", "choices")}
        for name in ("coordinates", "network", "covariates"):
            # What is not known of conditions is left out.
            if (part := getattr(self, name)) is not None:
                states[name] = {entry: value for entry, value in asdict(part).items() if value is not None}
        for k, fitted in enumerate(self.shared):
            states[f"shared{k}"] = fitted.to_dict()
            if fitted.blend:
                states[f"shared{k}"] |= {"theta": fitted.theta[:, :n_own].numpy()}
        states |= {f"own{k}": fitted.to_dict() for k, fitted in self.own.items()}
        return pack(states)

    @classmethod
    def from_dict(cls, state: Mapping[str, Any], *, device: str = "auto") -> Screen:
        """Rebuild a screen from :meth:`to_dict`.

        Parameters
        ----------
        state
            The dictionary, for instance after a round trip through a file.
        device
            Device on which the networks are evaluated: 'auto', 'cpu', 'cuda' or 'mps'.

        Returns
        -------
        The screen.

        Raises
        ------
        ValueError
            If anything is missing or damaged.
        """
        try:
            states = unpack_states(state)
            options = states["network"]
            network = Combination(**options | {"hidden": tuple(int(width) for width in options["hidden"])})
            theta = torch.tensor(np.asarray(states["theta"]), dtype=torch.float32)
            shared = []
            for k in range(len(states["choices"])):
                one = dict(states[f"shared{k}"])
                if one["blend"]:
                    own = torch.tensor(np.asarray(one["theta"]), dtype=torch.float32)
                    one["theta"] = torch.cat([own, theta.reshape(1, -1)], 1).numpy()
                shared.append(TransportMap.from_dict(one, device=device))
            own_maps = {
                k: TransportMap.from_dict(states[f"own{k}"], device=device)
                for k in range(len(shared))
                if f"own{k}" in states
            }
            return cls(
                shared,
                own_maps,
                list(states["choices"]),
                Coordinates(**states["coordinates"]),
                network,
                theta,
                np.asarray(states["weights"]),
                np.asarray(states["points"]),
                Covariates(**states["covariates"]) if "covariates" in states else None,
                dict(states["params"]),
                dict(states["history"]),
                shared[0].device if shared else "cpu",
            )
        except (LookupError, TypeError, AttributeError, RuntimeError) as error:
            raise ValueError(f"This is no saved screen, or it is damaged ({error}): fit again.") from None


def condition_theta(
    network: Combination,
    networks: Tensor,
    coordinates: tuple[Coordinates, Coordinates],
    s: float,
    *,
    v: Array,
    w: Array,
) -> Tensor:
    """Return the parameters of a condition's potential in its own coordinates, shape (1, P).

    The ``coordinates`` are those that all conditions share, in whose units ``v`` are, and those of the condition.
    """
    common, own = coordinates
    # x~ = B_k (x - m_k) leads to the common coordinates by L = B B_k^-1 and t = B (m_k - m); the inner products, and
    # potentials with them, have the factors scale_k and scale.
    to_common = np.linalg.solve(own.matrix.T, common.matrix.T).T
    parts = {
        "v": inverse_softplus(torch.from_numpy(np.maximum(v * own.scale / common.scale, 1e-12))).numpy(),
        "w": w,
        "s": inverse_softplus(torch.tensor([max(s, 1e-6)], dtype=torch.float64)).numpy(),
        "L": to_common,
        "t": common.matrix @ (own.mean_x - common.mean_x),
    }
    flat = np.concatenate([np.ravel(parts[name]) for name in network.shapes if name in parts])
    return torch.cat([torch.tensor(flat, dtype=torch.float32), networks.cpu().flatten()]).unsqueeze(0)


def _positive(matrix: Array) -> Array:
    """Return the nearest symmetric matrix whose eigenvalues are positive."""
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    floor = _FLOOR * max(float(np.abs(values).mean()), 1e-12)
    return np.asarray((vectors * np.maximum(values, floor)) @ vectors.T, dtype=np.float64)


def pack(states: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested dictionaries as one array of each type, and a text that says where each number is.

    Thousands of small arrays would take seconds in an .h5ad file.
    """
    pools: dict[str, list[NDArray[Any]]] = {}
    sizes: dict[str, int] = {}

    def described(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: described(entry) for key, entry in value.items()}
        if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
            kind = value.dtype.name
            pools.setdefault(kind, []).append(value.ravel())
            start = sizes.get(kind, 0)
            sizes[kind] = start + value.size
            return {"__array__": kind, "start": start, "shape": list(value.shape)}
        if isinstance(value, (np.ndarray, list, tuple)):
            return [described(entry) for entry in (value.tolist() if isinstance(value, np.ndarray) else value)]
        return value.item() if isinstance(value, np.generic) else value

    index = json.dumps(described(states))
    return {"index": index, **{kind: np.concatenate(arrays) for kind, arrays in pools.items()}}


def unpack_states(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the dictionaries that `pack` took."""

    def restored(value: Any) -> Any:
        if isinstance(value, dict) and "__array__" in value:
            start, shape = value["start"], tuple(value["shape"])
            flat = np.asarray(state[value["__array__"]])[start : start + int(np.prod(shape, dtype=int))]
            return flat.reshape(shape)
        return {key: restored(entry) for key, entry in value.items()} if isinstance(value, dict) else value

    states = json.loads(str(state["index"]))
    if not isinstance(states, dict):
        raise TypeError("its index is no dictionary")
    return {key: restored(entry) for key, entry in states.items()}
