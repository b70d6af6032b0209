"""The fitted map: what a fit returns, a file holds and transport applies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from numbers import Real
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from scot_hycnn.potentials import Potential
from scot_hycnn.solver._options import RECIPES
from scot_hycnn.solver.data._arrays import without_mask
from scot_hycnn.solver.data._coordinates import Coordinates
from scot_hycnn.solver.runtime._device import resolve_device
from scot_hycnn.solver.runtime._threads import in_threads, n_parts
from scot_hycnn.solver.selection._blend import Blended, as_numpy

from . import _files as _store
from ._certificate import certificate
from ._support import Support

Array = NDArray[np.float32]

# Rows whose hidden layers stay in a core's cache: the fastest of 128 to 4096.
BLOCK_ROWS = 512


@dataclass(frozen=True, eq=False)
class TransportMap:
    r"""Optimal transport map :math:`T = \nabla f` of a fitted convex potential f.

    :func:`scot_hycnn.solver.fit` makes it. It is the blend :math:`(1 - a)\,f_{Gauss} + a\,\mathrm{mean}_k f_k` of the
    Gaussian map's potential with an ensemble of K networks, hence convex.

    Parameters
    ----------
    network
        Architecture of the ensemble's members.
    theta
        Their parameters, shape (K, P), float32, on the CPU.
    coordinates
        The balanced coordinates in which they act.
    blend
        a in [0, 1]; 0 is the Gaussian map.
    w2_squared
        Estimate of the squared Wasserstein-2 distance between source and target, from the dual on validation
        cells, in units of the representation squared.
    outcome
        What the fit has led to, one of :class:`Outcome`; empty in maps of older versions.
    status
        ``'ok'``, or the outcome in sentences.
    params
        Every effective parameter of the fit, seed and device included.
    history
        Columns of equal length, one row for each check during training.
    validation
        Scores on validation cells, the Gaussian map's beside the chosen one's, and of every blend.
    certificate
        How far the map is what it claims to be; see :meth:`certify`. Measured on validation cells, which also chose
        the blend.
    gaussian
        Balanced coordinates of the Gaussian map between all cells that the fit was given, validation cells included;
        None where ``coordinates`` are these.
    support
        Where its training cells were; see :meth:`out_of_support`. None in maps of older versions.
    origin
        Where it comes from, if from an AnnData: labels, column and representation of the cells, by which
        :func:`scot_hycnn.tl.transport` recognises those that it is for.
    device
        Where the networks are evaluated.

    Examples
    --------
    >>> import numpy as np
    >>> from scot_hycnn import solver
    >>> x = np.random.default_rng(0).normal(size=(200, 2))
    >>> y = np.random.default_rng(1).normal(size=(200, 2)) + 3
    >>> transport_map = solver.fit(x, y, max_steps=10, n_ensemble=1)
    >>> transport_map.n_dims, transport_map.ok  # status says: a shift needs no network, the Gaussian map was kept
    (2, False)
    >>> moved = transport_map.transport(x)
    >>> bool(np.abs(moved.mean(axis=0) - y.mean(axis=0)).max() < 0.1)
    True
    >>> halfway, std = transport_map.transport(x, 0.5, return_std=True)
    >>> halfway.shape, std.shape
    ((200, 2), (200,))
    >>> bool(np.abs(transport_map.inverse(moved) - x).max() < 0.01)
    True

    How far to trust it:

    >>> bool(transport_map.certify(x, y)["monotonicity"] > 0)
    True
    >>> transport_map.out_of_support([[0.0, 0.0], [50.0, 0.0]]) > 1
    array([False,  True])
    >>> transport_map.gaussian_map().blend
    0.0

    f, and its convex conjugate: f(x) + f*(T(x)) = <x, T(x)> (Fenchel-Young)

    >>> both = transport_map.potential(x) + transport_map.conjugate(moved)
    >>> bool(np.allclose(both, (x * moved).sum(axis=1), atol=1e-3))
    True

    Through a file, or a dictionary:

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     transport_map.save(f"{folder}/map.safetensors")
    ...     loaded = solver.TransportMap.load(f"{folder}/map.safetensors", device="cpu")
    >>> bool((loaded.transport(x) == moved).all())
    True
    >>> state = transport_map.to_dict()
    >>> solver.TransportMap.from_dict(state).w2_squared == transport_map.w2_squared
    True

    What :meth:`certify` is worked out from, in double precision and without checks:

    >>> bool(np.allclose(transport_map.mapped(x), moved, atol=1e-5))
    True
    >>> bool(np.allclose(transport_map.inverted(moved), x, atol=0.01))
    True
    >>> transport_map.centred_potential(x).shape, transport_map.centred_conjugate(y).shape
    ((200,), (200,))
    """

    network: Potential
    theta: Tensor
    coordinates: Coordinates
    blend: float
    w2_squared: float
    outcome: str = ""
    status: str = "ok"
    params: dict[str, Any] = field(default_factory=dict)
    history: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    validation: dict[str, Any] = field(default_factory=dict)
    certificate: dict[str, float] = field(default_factory=dict)
    gaussian: Coordinates | None = None
    support: Support | None = None
    origin: dict[str, Any] = field(default_factory=dict)
    device: str = "cpu"

    @property
    def ok(self) -> bool:
        """Whether nothing unusual happened in the fit."""
        return self.status == "ok"

    @property
    def n_dims(self) -> int:
        """Dimension d of the representation."""
        return self.network.n_dims

    @cached_property
    def _f(self) -> Blended:
        with torch.inference_mode():
            return Blended(self.network, self.network.weights(self.theta.to(self.device)), self.blend)

    @overload
    def transport(
        self,
        x: ArrayLike,
        t: float = ...,
        *,
        return_std: Literal[False] = ...,
        fallback: bool = ...,
        batch_size: int = ...,
    ) -> Array: ...

    @overload
    def transport(
        self,
        x: ArrayLike,
        t: float = ...,
        *,
        return_std: Literal[True],
        fallback: bool = ...,
        batch_size: int = ...,
    ) -> tuple[Array, Array]: ...

    def transport(
        self,
        x: ArrayLike,
        t: float = 1.0,
        *,
        return_std: bool = False,
        fallback: bool = False,
        batch_size: int = BLOCK_ROWS,
    ) -> Array | tuple[Array, Array]:
        r"""Move source cells along the displacement interpolation :math:`(1 - t)\,x + t\,T(x)`.

        Parameters
        ----------
        x
            Cells, shape (n, d). Rows are worked in blocks, so memory does not grow with n beyond the result.
        t
            Time in [0, 1]: 0 leaves the cells where they are, 1 is T.
        return_std
            Also return the ensemble's standard deviation.
        fallback
            Go over to the Gaussian map away from the training source cells: :math:`T_{Gauss} + s(x)\,(T - T_{Gauss})`
            with s = 1 where :meth:`out_of_support` is below 1, and 0 from 2 on. **This map is no longer the gradient
            of a convex function**, since s depends on x; without it T is.
        batch_size
            Rows of a block.

        Returns
        -------
        Moved cells, float32, shape (n, d). With ``return_std`` also, for each cell, the root of the members' mean
        squared distance from the ensemble's prediction, float32, shape (n,), in units of the representation.

        Raises
        ------
        ValueError
            If x has another dimension, is not finite, t lies outside [0, 1], batch_size is below 1, or ``fallback``
            is asked of a map that does not know its training cells (of an older version).

        References
        ----------
        McCann (1997), Adv. Math. 128, 153-179 (displacement interpolation).
        """
        if not isinstance(t, Real) or not 0 <= t <= 1:
            raise ValueError(f"t={t!r} is outside [0, 1]: 0 is the source, 1 the transported cells.")
        x = self._check(x, "x")
        support = self._support_for_fallback() if fallback else None
        moved = np.empty(x.shape, dtype=np.float32)
        std = np.zeros(len(x), dtype=np.float32)

        @np.errstate(over="ignore", invalid="ignore", divide="ignore")  # said in a sentence
        def move(rows: slice) -> None:
            mapped, spread = self._map(x[rows], with_spread=return_std, support=support)
            moved[rows] = (1 - t) * x[rows] + t * mapped
            std[rows] = t * spread

        self._each_block(move, len(x), batch_size)
        _check_finite(moved, std)
        return (moved, std) if return_std else moved

    def inverse(self, y: ArrayLike, *, batch_size: int = BLOCK_ROWS) -> Array:
        r"""Move target cells back to the source by :math:`T^{-1} = \nabla f^*`, solved to tolerance.

        Parameters
        ----------
        y
            Cells, shape (m, d).
        batch_size
            Rows of a block.

        Returns
        -------
        float32, shape (m, d).

        Raises
        ------
        ValueError
            If y has another dimension or is not finite, or batch_size is below 1.
        """
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # said in a sentence
            moved = self.inverted(self._check(y, "y"), batch_size).astype(np.float32)
        _check_finite(moved)
        return moved

    def out_of_support(self, x: ArrayLike) -> Array:
        """How far cells are from the source cells that the map was trained on.

        Parameters
        ----------
        x
            Cells, shape (n, d).

        Returns
        -------
        float32, shape (n,): the mean distance to the ten nearest of (at most 1,000) training source cells, in balanced
        coordinates, divided by what 95 % of unseen source cells stay below. Values above 1 are unusual; what the map
        says there is extrapolation.

        Raises
        ------
        ValueError
            If x has another dimension or is not finite, or the map is of an older version that did not keep training
            cells.
        """
        x, support = self._check(x, "x"), self._known_support()
        return self._by_block(x, lambda block: support.score(self._tensor(self.coordinates.source(block)))).astype(
            np.float32
        )

    def gaussian_map(self) -> TransportMap:
        """The Gaussian map between the same cells: the baseline to compare this map with.

        It is fitted on all of them. The one that the networks are blended with knows the training cells only, since the
        blend is chosen on the others.

        Returns
        -------
        A map with ``blend`` 0.
        """
        own = self.coordinates if self.gaussian is None else self.gaussian
        return replace(self, blend=0.0, coordinates=own, gaussian=None, support=None)

    def _support_for_fallback(self) -> Support:
        recipe = RECIPES.get(self.params.get("solver", ""))
        if recipe is not None and not recipe.balanced:
            raise ValueError(
                "fallback=True goes over to the Gaussian map, which this map is not blended with: "
                f"solver={self.params.get('solver')!r} trains without it. Choose another solver, or leave fallback out."
            )
        return self._known_support()

    def _known_support(self) -> Support:
        if self.support is None:
            raise ValueError(
                "This map does not know where its training cells were: a version of scot_hycnn before 0.2 made it. Fit "
                "again for out-of-support scores and fallback."
            )
        return self.support

    def potential(self, x: ArrayLike) -> NDArray[np.float64]:
        """f(x), up to the constant that makes it comparable with :meth:`conjugate`.

        Parameters
        ----------
        x
            Cells, shape (n, d).

        Returns
        -------
        float64, shape (n,), in units of the representation squared.

        Raises
        ------
        ValueError
            If x has another dimension or is not finite.
        """
        x = self._check(x, "x")
        return self.centred_potential(x) + x @ self.coordinates.mean_y

    def conjugate(self, y: ArrayLike) -> NDArray[np.float64]:
        """f*(y) = max_x <x, y> - f(x).

        Parameters
        ----------
        y
            Cells, shape (m, d).

        Returns
        -------
        float64, shape (m,), in units of the representation squared.

        Raises
        ------
        ValueError
            If y has another dimension or is not finite.
        """
        y = self._check(y, "y")
        return self.centred_conjugate(y) + (y - self.coordinates.mean_y) @ self.coordinates.mean_x

    def certify(self, x: ArrayLike, y: ArrayLike, *, rng: int = 0) -> dict[str, float]:
        r"""Measure how far the map is what it claims to be, on given cells.

        Parameters
        ----------
        x
            Source cells, shape (n, d).
        y
            Target cells, shape (m, d).
        rng
            Seed for the random pairs of cells.

        Returns
        -------
        ``convexity_gap``: largest :math:`f(\frac{x + x'}2) - \frac{f(x) + f(x')}2` over random pairs (convex: not above
        rounding). ``monotonicity``: smallest :math:`\langle T(x) - T(x'), x - x'\rangle/|x - x'|^2` (convex: not
        below 0). Pairs of cells that float32 cannot tell apart are left out; if all source cells are the same, both
        are NaN. ``fenchel_residual``: mean :math:`|y - T(T^{-1}(y))|`. ``cycle_error``: mean
        :math:`|x - T^{-1}(T(x))|`. ``w2_squared``: the dual's value :math:`E|X|^2 + E|Y|^2 - 2J(f)` on these cells. On
        cells that the fit has not seen its expectation is a lower bound of :math:`W_2^2` for every f, and equal to it
        for the optimal one; ``w2_squared_error`` is its standard error. ``transport_cost``: mean :math:`|T(x) - x|^2`,
        which is :math:`W_2^2` if T is optimal. All in the units of the representation, or their square.

        The certificate that a fit stores is measured on up to 200 of its validation cells of each condition. They have
        also chosen the blend, so its ``w2_squared`` tends to be a little too high to be a lower bound. Give cells that
        the fit has not seen at all, such as those held out by :func:`scot_hycnn.pp.split`, for a bound.

        Raises
        ------
        ValueError
            If the cells have another dimension, are not finite, or are fewer than two.
        """
        x, y = self._check(x, "x").astype(np.float64), self._check(y, "y").astype(np.float64)
        if len(x) < 2 or len(y) < 2:
            raise ValueError(f"certify takes at least two cells of each kind; it was given {len(x)} and {len(y)}.")
        return certificate(self, x, y, rng)

    def to_dict(self) -> dict[str, Any]:
        """Everything that the map holds.

        Returns
        -------
        Arrays, strings, numbers and bools in dictionaries with strings as keys: what ``adata.uns`` and files hold.
        """
        return _store.to_dict(self)

    @classmethod
    def from_dict(cls, state: dict[str, Any], *, device: str = "auto") -> TransportMap:
        """Rebuild a map from :meth:`to_dict`.

        Parameters
        ----------
        state
            The dictionary, for instance after a round trip through a file.
        device
            Where to evaluate: 'auto', 'cpu', 'cuda', 'mps'.

        Returns
        -------
        The map.

        Raises
        ------
        ValueError
            If anything is missing, misshapen, not finite, or of a newer schema.
        """
        return cls(**_store.from_dict(state), device=str(resolve_device(device)))

    def save(self, path: str | Path) -> None:
        """Write the map to a .safetensors file, arrays as tensors and the rest as JSON metadata.

        Parameters
        ----------
        path
            File to write. It appears whole or not at all.

        Raises
        ------
        ValueError
            If what is not an array takes more than a file's header may have, 128 kB.
        """
        _store.save_map(self.to_dict(), Path(path))

    @classmethod
    def load(cls, path: str | Path, *, device: str = "auto") -> TransportMap:
        """Read a map that :meth:`save` wrote.

        Parameters
        ----------
        path
            The file.
        device
            Where to evaluate: 'auto', 'cpu', 'cuda', 'mps'.

        Returns
        -------
        The map.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the file is not a saved map, damaged, or of a newer schema.
        """
        return cls.from_dict(_store.load_map(Path(path)), device=device)

    def _check(self, cells: ArrayLike, name: str) -> NDArray[np.floating]:
        """The cells as an array of floats, not copied if they are one: there may be millions."""
        cells = np.asarray(without_mask(cells))
        if cells.ndim != 2 or cells.shape[1] != self.n_dims or cells.dtype.kind not in "fiub":
            raise ValueError(
                f"{name} has shape {cells.shape} and dtype {cells.dtype}; this map was fitted in {self.n_dims} "
                f"dimensions and takes numbers of shape (n, {self.n_dims})."
            )
        if cells.dtype.kind != "f":
            cells = cells.astype(np.float64)
        # A sum is finite where all its terms are, and needs no copy as large as the cells.
        with np.errstate(invalid="ignore", over="ignore"):
            finite = np.isfinite(cells.sum(1, dtype=np.float64))
        if not finite.all():
            raise ValueError(
                f"{name} has NaN or infinite values in {int((~finite).sum())} of {len(cells)} rows, the first in "
                f"row {int(np.argmin(finite))}; remove or impute them."
            )
        return cells

    def _tensor(self, points: NDArray[np.floating]) -> Tensor:
        return torch.as_tensor(points, dtype=torch.float32, device=self.device)

    def centred_potential(self, x: NDArray[np.floating]) -> NDArray[np.float64]:
        """f(x) without its linear part <m_y, x>, unchecked, shape (n,)."""
        return self._by_block(x, self._value) / self.coordinates.scale

    def centred_conjugate(self, y: NDArray[np.floating]) -> NDArray[np.float64]:
        """f*(y) without its linear part <y - m_y, m_x>, unchecked, shape (m,)."""
        return self._by_block(y, self._conjugate) / self.coordinates.scale

    def _by_block(
        self, points: NDArray[np.floating], function: Callable[[NDArray[np.floating]], Tensor]
    ) -> NDArray[np.float64]:
        blocks = self._each_block(lambda rows: as_numpy(function(points[rows])), len(points), BLOCK_ROWS)
        return np.concatenate(blocks) if blocks else np.empty(0)

    def _each_block(self, work: Callable[[slice], Any], n_rows: int, size: int) -> list[Any]:
        """Do this for the rows of every block, in threads."""
        blocks = _blocks(n_rows, size)
        with in_threads(n_parts(self.device, len(blocks))) as each:
            return each(work, blocks)

    def mapped(self, x: NDArray[np.floating]) -> NDArray[np.float64]:
        """T(x) in double precision, unchecked."""
        return np.concatenate(
            self._each_block(lambda rows: self._map(x[rows], with_spread=False)[0], len(x), BLOCK_ROWS)
        )

    @torch.inference_mode()
    def _map(
        self, x: NDArray[np.floating], *, with_spread: bool, support: Support | None = None
    ) -> tuple[NDArray[np.float64], Any]:
        """T(x) of one block, and the members' spread around it."""
        points = self._tensor(self.coordinates.source(x))
        if self.blend == 0:
            return self.coordinates.invert_target(as_numpy(points)), 0.0
        members = self._f.member_gradients(points)
        mean = members.mean(0)
        moved = self.coordinates.invert_target(as_numpy(torch.lerp(points, mean, self.blend)))
        trust: NDArray[np.float64] | float = 1.0
        if support is not None:
            trust = as_numpy(support.trust(points))
            gaussian = self.coordinates if self.gaussian is None else self.gaussian
            far = gaussian.invert_target(gaussian.source(x))
            moved = far + trust[:, None] * (moved - far)
        if not with_spread:
            return moved, 0.0
        # In original coordinates a difference d of balanced targets is d B / c.
        apart = (members - mean) @ self._tensor(self.coordinates.matrix / self.coordinates.scale)
        return moved, self.blend * trust * as_numpy(apart.square().sum(-1).mean(0).sqrt())

    def inverted(self, y: NDArray[np.floating], batch_size: int = BLOCK_ROWS) -> NDArray[np.float64]:
        """T^-1(y) in double precision, unchecked."""
        blocks = self._each_block(lambda rows: as_numpy(self._maximisers(y[rows])[0]), len(y), batch_size)
        return self.coordinates.invert_source(np.concatenate(blocks)) if blocks else np.empty((0, self.n_dims))

    @torch.inference_mode()
    def _value(self, x: NDArray[np.floating]) -> Tensor:
        return self._f.value(self._tensor(self.coordinates.source(x)))

    @torch.inference_mode()
    def _maximisers(self, y: NDArray[np.floating]) -> tuple[Tensor, Tensor]:
        targets = self._tensor(self.coordinates.target(y))
        return self._f.maximisers(targets)[0], targets

    @torch.inference_mode()
    def _conjugate(self, y: NDArray[np.floating]) -> Tensor:
        maximisers, targets = self._maximisers(y)
        return (maximisers * targets).sum(-1) - self._f.value(maximisers)


def _check_finite(moved: Array, std: Array | float = 0.0) -> None:
    """A sum over a cell's coordinates is finite where all of them are."""
    with np.errstate(invalid="ignore"):
        sums = moved.sum(1, dtype=np.float64) + std
    n_bad = int((~np.isfinite(sums)).sum())
    if n_bad:
        raise ValueError(
            f"The map gives NaN or infinite values for {n_bad} of {len(sums)} cells: they are too far from the cells "
            "that it was trained on, or the map is damaged. Leave them out, or fit again."
        )


def _blocks(n_rows: int, size: int) -> list[slice]:
    if size < 1:
        raise ValueError(f"batch_size={size} must be 1 or more.")
    return [slice(start, start + size) for start in range(0, n_rows, size)]
