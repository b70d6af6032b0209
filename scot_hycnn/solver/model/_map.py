"""The fitted map: a fit returns it, a file holds it, and transport applies it."""

from __future__ import annotations

import html
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from functools import cached_property, partial
from numbers import Real
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from scot_hycnn.potentials import Potential
from scot_hycnn.solver._options import UNBALANCED_SOLVERS
from scot_hycnn.solver.data._checks import without_mask
from scot_hycnn.solver.data._coordinates import Coordinates, as_numpy, as_tensor
from scot_hycnn.solver.data._groups import Baselines, reach
from scot_hycnn.solver.runtime._device import in_threads, n_parts, resolve_device

from ._blended import Blended, Support, solve
from ._files import MAX_HEADER, REPORTS, SCHEMA_VERSION, checked, load, save

Array = NDArray[np.float32]
Doubles = NDArray[np.float64]

# The fastest of 96 to 4096, with 1536: smaller blocks cost calls, larger ones leave the cache of a core.
BLOCK_ROWS = 1024
# Cells nearer than this are one cell to a map that computes in float32: their difference is only rounding.
RESOLUTION = 1000 * float(np.finfo(np.float32).eps)
# Longer names end with '...' in a summary.
_MAX_LENGTH = 60
# The column of scores that there is where groups were left out of training.
_LEFT_OUT = "J_left_out_by_blend"


class Outcome(StrEnum):
    """What a fit has led to: the value of ``TransportMap.outcome``.

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

    #: The networks are part of the map.
    NETWORKS = "networks"
    #: The Gaussian map was asked for, by ``potential='gaussian'`` or :meth:`TransportMap.gaussian_map`.
    REQUESTED = "gaussian requested"
    #: Networks that were trained as usual were not better, because the response is close to linear or cells are few.
    GAUSSIAN = "gaussian kept"
    #: Source and target cells are as near to each other as random halves of both.
    NO_RESPONSE = "gaussian kept: no response seen"
    #: Training had too few steps to decide.
    NOT_TRAINED = "gaussian kept: few steps"
    #: A simple map such as a shift was nearest on groups left out (``leave_out='groups'``).
    SIMPLE = "simple map kept"
    #: No map was clearly nearer on groups left out than no change, so that cells stay where they are.
    NO_CHANGE = "no change kept"
    #: Training met gradients that were not finite, and skipped these updates.
    RECOVERED = "recovered"
    #: The convex conjugates of the networks could not be solved, so that the map may be off.
    UNSOLVED = "conjugates not solved"
    #: The map is not better than the Gaussian one, but ``solver='paper'`` always keeps its network.
    WORSE = "worse than gaussian"

    @property
    def is_trouble(self) -> bool:
        """Whether something went wrong that the user should see, as in the last three."""
        return self in (Outcome.RECOVERED, Outcome.UNSOLVED, Outcome.WORSE)


@dataclass(frozen=True, eq=False, repr=False)
class TransportMap:
    r"""Optimal transport map :math:`T = \nabla f` of a fitted convex potential f.

    :func:`scot_hycnn.solver.fit` makes it. It is the blend :math:`(1 - a)\,f_{Gauss} + a\,\mathrm{mean}_k f_k` of the
    Gaussian map's potential with an ensemble of K networks, hence convex.

    A fit with ``leave_out='groups'`` may return a *centred* map, :math:`T_g(x) = N c_g + T'(x - c_g)` with the mean
    :math:`c_g` of the source cells of the group g: for donors or cell lines that differ before treatment and respond
    alike (N is 1), or respond by how they differ. It is an ordinary map around each centre, which :meth:`around`
    returns; :func:`scot_hycnn.tl.transport` reads the groups, and takes the centre of a new group from its own source
    cells. Where whole units such as donors were left out, and groups are types within them, the map acts around the
    baseline of each unit, :math:`b_u + T_g(x - b_u)`.

    Parameters
    ----------
    network
        Architecture of the ensemble's members.
    theta
        Their parameters, shape (K, P), float32, on the CPU.
    coordinates
        The coordinates in which they act: balanced ones, or centred ones with ``solver='paper'``.
    blend
        a in [0, 1]; 0 is the Gaussian map, or another simple map if ``outcome`` says so.
    w2_squared
        Estimate of the squared Wasserstein-2 distance, from the dual on validation cells.
    outcome
        What the fit has led to, one of :class:`Outcome`; empty in maps of older versions.
    status
        ``'ok'``, or the outcome in sentences.
    params
        Every effective parameter of the fit, seed and device included.
    history
        Columns of equal length, one row for each check during training.
    validation
        Scores of the chosen blend, of the Gaussian map and of every blend on validation cells, and the test for a
        response (``p_no_change``) on training cells.
    certificate
        How far the map is optimal, on validation cells; see :meth:`certify`.
    gaussian
        Balanced coordinates of the Gaussian map between all cells of the fit; None where ``coordinates`` are these.
    centres
        Mean of the source cells of each group of the fit, by its name, shape (d,), if the map is a centred one; less
        the baseline of its unit if there are ``baselines``.
    baselines
        How units differ before treatment, if the map acts around their baselines: ``baselines.units`` has each by its
        name, and ``baselines.kinds`` the mean of the source cells of each kind of group less these, shape (d,) each.
    far
        Coordinates of the simple map to which ``fallback`` changes; None is the Gaussian map.
    between
        N of a centred map, and in the last column the part of its constant that does not extrapolate, shape (d, d + 1);
        None is 1.
    support
        Where its training cells were; see :meth:`out_of_support`. None in maps of older versions.
    origin
        Labels, column and representation of the cells, if these are from an AnnData:
        :func:`scot_hycnn.tl.transport` compares new cells with them.
    device
        Where the networks are evaluated.

    Examples
    --------
    >>> import numpy as np
    >>> from scot_hycnn import solver
    >>> x = np.random.default_rng(0).normal(size=(200, 2))
    >>> y = np.random.default_rng(1).normal(size=(200, 2)) + 3
    >>> transport_map = solver.fit(x, y, max_steps=10, n_ensemble=1)
    >>> transport_map.n_dims, transport_map.ok or transport_map.outcome.startswith("gaussian kept")
    (2, True)
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

    A centred map, of four donors who respond around their own baselines; a new donor is moved around the mean of its
    source cells:

    >>> donors = np.repeat([0, 5, 10, 15], 50)
    >>> treated = donors[:, None] + 2 * (y - 2)
    >>> centred = solver.fit(
    ...     x + donors[:, None], treated, groups=(donors, donors), leave_out="groups", potential="gaussian"
    ... )
    >>> sorted(centred.centres), "centred Gaussian map" in centred.validation["winner"]
    (['0', '10', '15', '5'], True)
    >>> new = x + 7
    >>> bool(np.abs(centred.around(new.mean(axis=0)).transport(new) - 7 - 2 * x - 2).max() < 1)
    True

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
    centres: dict[str, Doubles] = field(default_factory=dict)
    baselines: Baselines | None = None
    far: Coordinates | None = None
    between: Doubles | None = None

    def __repr__(self) -> str:
        """Return what was fitted, what was chosen and how good it is, in five lines."""
        title, lines = self._lines()
        width = max(map(len, lines)) + 2
        return "\n".join([title, *(f"  {name:<{width}}{line}" for name, line in lines.items())])

    def _repr_html_(self) -> str:
        title, lines = self._lines()
        left = "style='text-align: left'"
        rows = "".join(
            f"<tr><th {left}>{html.escape(name)}</th><td {left}>{html.escape(line)}</td></tr>"
            for name, line in lines.items()
        )
        head = f"<tr><th colspan='2' {left}>{html.escape(title)}</th></tr>"
        return f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>"

    def _lines(self) -> tuple[str, dict[str, str]]:
        """Return the title, and the lines about what was fitted, what was chosen and how good it is."""
        # All of it may come from a file that somebody else wrote.
        origin, params, validation = self.origin, self.params, self.validation
        rep = origin.get("rep")
        of_rep = f" of {_quoted(rep.get('name'))}" if isinstance(rep, Mapping) else ""
        labels = (
            f"{_quoted(origin.get('source'))} \N{RIGHTWARDS ARROW} {_quoted(origin.get('target'))}, " if origin else ""
        )
        dimensions = "1 dimension" if self.n_dims == 1 else f"{self.n_dims} dimensions"
        title = f"TransportMap: {labels}{dimensions}{of_rep}"

        network = self.network
        widths = ", ".join(map(str, network.hidden[:5])) + (" ..." if len(network.hidden) > 5 else "")
        family, n_steps = type(network).__name__, _text(params.get("n_steps", "unknown"))
        ensemble = f"{len(self.theta)} x {family} with layers of {widths}, {n_steps} steps"
        is_closed_form = params.get("potential") == "gaussian"
        seconds = _number(params.get("seconds"))
        took = f", {seconds:.3g} s on {_text(params.get('device'))}" if math.isfinite(seconds) else ""
        seed = f", seed {_text(params.get('rng'))}" if "rng" in params else ""

        before, after, gaussian = (
            _number(validation.get(f"energy_distance{name}")) for name in ("_no_change", "", "_gaussian")
        )
        return title, {
            "fitted": ("Gaussian map in closed form" if is_closed_form else ensemble) + took + seed,
            "chosen": f"{_text(self.outcome) or 'unknown'}, blend {self.blend:.3g} (0: Gaussian map, 1: networks)",
            "gain": _gain_in_words(self),
            "energy distance": f"{_shown(before)} before the map (training cells), {_shown(after)} after it, "
            f"{_shown(gaussian)} after the Gaussian map (validation cells)",
        }

    @property
    def ok(self) -> bool:
        """Whether nothing unusual happened in the fit."""
        return self.status == "ok"

    @property
    def n_dims(self) -> int:
        """Dimension d of the representation."""
        return self.network.n_dims

    @cached_property
    def _potential(self) -> Blended:
        with torch.inference_mode():
            return Blended(self.network, self.network.weights(self.theta.to(self.device)), self.blend)

    @overload
    def transport(
        self,
        x: ArrayLike,
        t: float = ...,
        *,
        return_std: Literal[False] = ...,
        return_out_of_support: Literal[False] = ...,
        fallback: bool = ...,
        batch_size: int = ...,
    ) -> Array: ...

    @overload
    def transport(
        self,
        x: ArrayLike,
        t: float = ...,
        *,
        return_std: bool = ...,
        return_out_of_support: bool = ...,
        fallback: bool = ...,
        batch_size: int = ...,
    ) -> Any: ...

    def transport(
        self,
        x: ArrayLike,
        t: float = 1.0,
        *,
        return_std: bool = False,
        return_out_of_support: bool = False,
        fallback: bool = False,
        batch_size: int = BLOCK_ROWS,
    ) -> Array | tuple[Array, ...]:
        r"""Move source cells along the displacement interpolation :math:`(1 - t)\,x + t\,T(x)`.

        Parameters
        ----------
        x
            Cells, shape (n, d). They are moved in blocks of rows, so memory does not grow with n beyond the result.
        t
            Time in [0, 1]: 0 leaves the cells where they are, 1 is T.
        return_std
            Also return the ensemble's standard deviation.
        return_out_of_support
            Also return what :meth:`out_of_support` does, in the same pass over the cells.
        fallback
            Change to the Gaussian map, or with ``leave_out='groups'`` to the shift that was best on groups left out,
            away from the training source cells: :math:`T_{far} + s(x)\,(T - T_{far})` with s = 1 where
            :meth:`out_of_support` is below 1, and 0 from 2 on. **This map is no longer the gradient of a convex
            function**, since s depends on x; without it T is.
        batch_size
            Rows of a block.

        Returns
        -------
        Moved cells, float32, shape (n, d). With ``return_std`` also, for each cell, the root of the members' mean
        squared distance from the ensemble's prediction, float32, shape (n,), in units of the representation. With
        ``return_out_of_support`` also the score of each cell, float32, shape (n,).

        Raises
        ------
        ValueError
            If x has another dimension or is not finite, t or batch_size is out of range, or ``fallback`` or
            ``return_out_of_support`` is asked of a map of an older version without training cells.

        References
        ----------
        McCann (1997), Adv. Math. 128, 153-179 (displacement interpolation).
        """
        if not isinstance(t, Real) or not 0 <= t <= 1:
            raise ValueError(f"t={t!r} is outside [0, 1]: 0 is the source, 1 the transported cells.")
        x = self._check(x, "x")
        # The Gaussian map is its own fallback, unless groups left out have shown a better one.
        fallback = fallback and (self.blend > 0 or self.far is not None)
        if fallback and self.far is None and self.params.get("solver") in UNBALANCED_SOLVERS:
            raise ValueError(
                "fallback=True changes to the Gaussian map, with which this map is not blended: "
                f"solver={self.params['solver']!r} trains without it. Choose another solver, or leave fallback out."
            )
        support = self._known_support() if fallback or return_out_of_support else None
        moved = np.empty(x.shape, dtype=np.float32)
        std, score = np.zeros((2, len(x)), dtype=np.float32)
        move = partial(self._map, t=float(t), support=support, with_std=return_std, fallback=fallback)
        self._by_block(move, x, (moved, std, score), batch_size)
        _check_finite(moved, std)
        wanted = [moved, *([std] if return_std else []), *([score] if return_out_of_support else [])]
        return tuple(wanted) if len(wanted) > 1 else moved

    def _map(
        self,
        x: NDArray[np.floating],
        *,
        t: float = 1.0,
        support: Support | None = None,
        with_std: bool = False,
        fallback: bool = False,
    ) -> tuple[Doubles, Doubles, Doubles]:
        """Return the moved cells of one block, the members' spread around them, and the out-of-support score."""
        points = as_tensor(self.coordinates.source(x), self.device)
        score, std = np.zeros((2, len(x)))
        if support is not None:
            score = as_numpy(support.score(points))
        mean = points
        if self.blend:
            members = self._potential.member_gradients(points)
            mean = torch.lerp(points, members.mean(0), self.blend)
        moved = self.coordinates.invert_target(as_numpy(mean))
        if with_std and self.blend:
            # In original coordinates a difference d of balanced targets is d B / c.
            apart = (members - members.mean(0)) @ as_tensor(
                self.coordinates.matrix / self.coordinates.scale, self.device
            )
            std = self.blend * as_numpy(apart.square().sum(-1).mean(0).sqrt())
        if fallback:
            trust = np.clip(2 - score, 0, 1)
            simple = self.far or self.gaussian or self.coordinates
            far = simple.invert_target(simple.source(x))
            moved, std = far + trust[:, None] * (moved - far), trust * std
        return (1 - t) * x + t * moved, t * std, score

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
        y = self._check(y, "y")
        moved = np.empty(y.shape, dtype=np.float32)
        self._by_block(
            lambda rows: (self.coordinates.invert_source(*self._maximise(rows, with_conjugate=False)),),
            y,
            (moved,),
            batch_size,
        )
        _check_finite(moved)
        return moved

    def out_of_support(self, x: ArrayLike) -> Array:
        """Return how far cells are from the source cells that the map was trained on.

        Parameters
        ----------
        x
            Cells, shape (n, d).

        Returns
        -------
        float32, shape (n,): the mean distance to the ten nearest of (at most 1,000) training source cells, in balanced
        coordinates, divided by what 95 % of unseen source cells stay below. Above 1 the map extrapolates.

        Raises
        ------
        ValueError
            If x has another dimension or is not finite, or the map is of an older version without training cells.
        """
        x, support = self._check(x, "x"), self._known_support()
        score = np.empty(len(x), dtype=np.float32)
        self._by_block(
            lambda rows: (as_numpy(support.score(as_tensor(self.coordinates.source(rows), self.device))),), x, (score,)
        )
        return score

    def _known_support(self) -> Support:
        if self.support is None:
            raise ValueError(
                "This map holds no training cells: it comes from an older file or from gaussian_map(). Fit again for "
                "out-of-support scores and fallback."
            )
        return self.support

    def gaussian_map(self) -> TransportMap:
        """Return the Gaussian map between all cells of the fit: the baseline to compare this map with.

        Returns
        -------
        This map if it is the Gaussian one. Otherwise a map with ``blend`` 0, the outcome ``REQUESTED`` and its own
        ``w2_squared`` (NaN if this map is centred, or of an older version), without history, validation, certificate
        and out-of-support scores, which are those of the networks.
        """
        if self.blend == 0 and self.gaussian is None:
            return self
        return replace(
            self,
            blend=0.0,
            coordinates=self.coordinates if self.gaussian is None else self.gaussian,
            # That of a centred fit is between centred cells.
            w2_squared=np.nan if self.centres else float(self.validation.get("w2_squared_gaussian", np.nan)),
            outcome=Outcome.REQUESTED,
            status="ok",
            gaussian=None,
            support=None,
            centres={},
            baselines=None,
            far=None,
            between=None,
            history={},
            validation={},
            certificate={},
        )

    def around(self, centre: ArrayLike, baseline: ArrayLike | None = None) -> TransportMap:
        r"""Return the ordinary map that a centred map is for one group.

        Parameters
        ----------
        centre
            Mean of the group's source cells, shape (d,): of a group of the fit an entry of ``centres``.
        baseline
            If the map has ``baselines``, that of the unit, which is subtracted from ``centre`` too, shape (d,).

        Returns
        -------
        The map :math:`x \mapsto N c + T'(x - c)`. If N is not 1, it extrapolates from the centres of the fit: of a
        group that is farther from all of them than each is from its nearest other one, that part of the move is
        smaller, by the ratio of these distances.

        Raises
        ------
        ValueError
            If this map is not centred, ``centre`` or ``baseline`` is not finite or has another shape, or the map has
            ``baselines`` and none is given, or the other way round.
        """
        if not self.centres:
            raise ValueError("This map is not centred: it moves the cells of all groups as it is, without around().")
        if (baseline is None) != (self.baselines is None):
            raise ValueError(
                "This map acts around the baseline of a unit, such as a donor: pass baseline, too."
                if baseline is None
                else "This map has no baselines of units: leave baseline out."
            )
        point = np.asarray(centre, dtype=np.float64)
        origin = np.zeros(self.n_dims) if baseline is None else np.asarray(baseline, dtype=np.float64)
        for name, given in (("centre", point), ("baseline", origin)):
            if given.shape != (self.n_dims,) or not np.isfinite(given).all():
                raise ValueError(
                    f"{name} must be {self.n_dims} finite numbers, a mean of source cells; it has shape {given.shape}."
                )
        if self.baselines is not None and self.between is None:
            point = np.zeros_like(point)  # the same map for all groups of the unit
        far = None if self.far is None else self.far.around(point)
        start, moved, support = self.coordinates.around(point), point, self.support
        if self.between is not None:
            seen = np.stack(list(self.centres.values()))
            steady = self.between[:, -1]
            way = self.between[:, :-1] @ point + self.coordinates.mean_y - start.mean_x
            way = steady + reach(seen, point) * (way - steady)
            moved = start.mean_x + way - self.coordinates.mean_y
            if support is not None:
                # Its points are around the mean of all centres, and those of the new coordinates around this one.
                to_here = as_tensor(self.coordinates.matrix @ (point - seen.mean(0)), "cpu")
                support = replace(support, points=support.points - to_here)
        coordinates = self.coordinates.around(point, moved).around(origin)
        far = None if far is None else far.around(origin)
        parts: dict[str, Any] = {"coordinates": coordinates, "support": support, "far": far}
        return replace(self, **parts, between=None, centres={}, baselines=None)

    def potential(self, x: ArrayLike) -> Doubles:
        """Return f(x); its constant is such that f(x) + f*(T(x)) = <x, T(x)>, with f* of :meth:`conjugate`.

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
        return self._centred_potential(x) + x @ self.coordinates.mean_y

    def conjugate(self, y: ArrayLike) -> Doubles:
        """Return f*(y) = max_x <x, y> - f(x).

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
        conjugate = np.empty(len(y))
        self._by_block(lambda rows: self._maximise(rows)[1:], y, (conjugate,))
        return conjugate + (y - self.coordinates.mean_y) @ self.coordinates.mean_x

    def certify(self, x: ArrayLike, y: ArrayLike, *, rng: int = 0) -> dict[str, float]:
        r"""Measure how far the map is the gradient of a convex function, and optimal, on given cells.

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
        below 0). Pairs of cells that are equal in float32 are left out; if all source cells are the same, both
        are NaN. ``fenchel_residual``: mean :math:`|y - T(T^{-1}(y))|`. ``cycle_error``: mean
        :math:`|x - T^{-1}(T(x))|`. ``w2_squared``: the dual's value :math:`E|X|^2 + E|Y|^2 - 2J(f)` on these cells. On
        cells that the fit has not seen its expectation is a lower bound of :math:`W_2^2` for every f, and equal to it
        for the optimal one; ``w2_squared_error`` is its standard error. ``transport_cost``: mean :math:`|T(x) - x|^2`,
        which is :math:`W_2^2` if T is optimal. All in the units of the representation, or their square.

        The certificate that a fit stores is measured on up to 200 of its validation cells, which have also chosen the
        blend: its ``w2_squared`` may be a little too high. For a bound give cells that the fit has not seen, such as
        those held out by :func:`scot_hycnn.pp.split`.

        Raises
        ------
        ValueError
            If the cells have another dimension, are not finite, or are fewer than two.
        """
        x, y = self._check(x, "x").astype(np.float64), self._check(y, "y").astype(np.float64)
        if len(x) < 2 or len(y) < 2:
            raise ValueError(f"certify takes at least two cells of each kind; x has {len(x)} and y has {len(y)}.")
        # T(x) and T^-1(T(x)); the balanced T^-1(y), f*(y) and T(T^-1(y)).
        mapped, returned, origins, reached = (np.empty_like(cells) for cells in (x, x, y, y))
        values, conjugate = self._centred_potential(x), np.empty(len(y))
        self._by_block(lambda rows: self._map(rows)[:1], x, (mapped,))
        self._by_block(partial(self._maximise, with_conjugate=False), mapped, (returned,))
        self._by_block(self._maximise, y, (origins, conjugate))
        self._by_block(lambda rows: self._map(rows)[:1], self.coordinates.invert_source(origins), (reached,))

        # Random pairs of cells that differ, of one cell of each place: where nearly all cells are the same, pairs of
        # any two would hardly ever differ.
        points = self.coordinates.source(x)
        resolution = RESOLUTION * max(1.0, float(np.abs(points).max()))
        _, places = np.unique(np.round(points / resolution), axis=0, return_index=True)
        first, second = places[np.random.default_rng(rng).integers(len(places), size=(2, max(len(x), 1000)))]
        differ = np.linalg.norm(points[first] - points[second], axis=1) > resolution
        first, second = first[differ], second[differ]
        gap = monotonicity = float("nan")
        if len(first):
            # The linear part <m_y, x> of f has no gap, and far from the origin its rounding would hide all others.
            middle = self._centred_potential((x[first] + x[second]) / 2)
            gap = float((middle - (values[first] + values[second]) / 2).max())
            apart, moved_apart = x[first] - x[second], mapped[first] - mapped[second]
            monotonicity = float(((moved_apart * apart).sum(1) / (apart**2).sum(1)).min())

        # The dual bound W_2^2 >= E|X|^2 + E|Y|^2 - 2 J(f), in centred coordinates, cell by cell.
        mean_x, mean_y = self.coordinates.mean_x, self.coordinates.mean_y
        xi, eta, shift = x - mean_x, y - mean_y, mean_x - mean_y
        of_x = (xi**2).sum(1) + 2 * xi @ shift - 2 * values
        of_y = (eta**2).sum(1) - 2 * eta @ shift - 2 * conjugate
        return {
            "convexity_gap": gap,
            "monotonicity": monotonicity,
            "fenchel_residual": float(np.linalg.norm(y - reached, axis=1).mean()),
            "cycle_error": float(np.linalg.norm(x - self.coordinates.invert_source(returned), axis=1).mean()),
            "w2_squared": max(float(shift @ shift + of_x.mean() + of_y.mean()), 0.0),
            "w2_squared_error": float(np.sqrt(of_x.var(ddof=1) / len(x) + of_y.var(ddof=1) / len(y))),
            "transport_cost": float(((mapped - x) ** 2).sum(1).mean()),
        }

    def _centred_potential(self, x: NDArray[np.floating]) -> Doubles:
        """Return f(x) without its linear part <m_y, x>, shape (n,)."""
        values = np.empty(len(x))
        self._by_block(
            lambda rows: (as_numpy(self._potential.value(as_tensor(self.coordinates.source(rows), self.device))),),
            x,
            (values,),
        )
        return values / self.coordinates.scale

    def _maximise(self, y: NDArray[np.floating], *, with_conjugate: bool = True) -> tuple[Doubles, ...]:
        """Return the balanced maximisers of <x, y> - f(x) for one block, and f*(y) without its linear part."""
        targets = as_tensor(self.coordinates.target(y), self.device)
        maximisers, _ = solve(self._potential.gradient, targets, targets)
        if not with_conjugate:
            return (as_numpy(maximisers),)
        conjugate = (maximisers * targets).sum(-1) - self._potential.value(maximisers)
        return as_numpy(maximisers), as_numpy(conjugate) / self.coordinates.scale

    def _by_block(
        self,
        function: Callable[[NDArray[np.floating]], tuple[Doubles, ...]],
        cells: NDArray[np.floating],
        out: tuple[NDArray[np.floating], ...],
        size: int = BLOCK_ROWS,
    ) -> None:
        """Apply a function to blocks of rows, in threads, and write what it returns into the rows of ``out``."""
        if size < 1:
            raise ValueError(f"batch_size={size} must be 1 or more.")

        # Values that are not finite are found afterwards, and get a sentence instead of NumPy's warning.
        @torch.inference_mode()
        @np.errstate(over="ignore", invalid="ignore", divide="ignore")
        def work(start: int) -> None:
            rows = slice(start, start + size)
            for array, values in zip(out, function(cells[rows]), strict=True):
                array[rows] = values

        starts = range(0, len(cells), size)
        with in_threads(n_parts(self.device, len(starts))) as run:
            run(work, starts)

    def _check(self, cells: ArrayLike, name: str) -> NDArray[np.floating]:
        """Return the cells as an array of floats, without a copy where they are one: there may be millions."""
        if self.centres:
            raise ValueError(
                f"This map is centred and needs the group of each cell: call around(centre), with the mean of the "
                f"source cells of a group, or tl.transport. It has the centres of {len(self.centres)} groups."
            )
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

    def to_dict(self) -> dict[str, Any]:
        """Return everything that the map holds.

        Returns
        -------
        Arrays, strings, numbers and bools in dictionaries with strings as keys: what ``adata.uns`` and files hold.
        """
        support, network = self.support, self.network
        version = 5 if self.between is not None else 4 if self.centres or self.far else 3
        version = version if self.baselines is None else SCHEMA_VERSION
        state = {
            # A map without training cells is one of version 2, and remains one; older versions read what they can.
            "schema_version": version if support is not None or version > 3 else 2,
            "network": {"family": type(network).__name__} | asdict(network) | {"hidden": np.asarray(network.hidden)},
            "theta": self.theta.numpy(),
            "coordinates": asdict(self.coordinates),
            "blend": self.blend,
            "w2_squared": self.w2_squared,
            "outcome": str(self.outcome),
            "status": self.status,
        }
        if self.origin:
            state["origin"] = self.origin
        if self.gaussian is not None:
            state["gaussian"] = asdict(self.gaussian)
        if self.far is not None:
            state["far"] = asdict(self.far)
        if self.centres:
            # Names of groups may have any character, so that they cannot be keys of files.
            points = np.stack(list(self.centres.values()))
            between = {} if self.between is None else {"between": self.between}
            state["centres"] = {"groups": np.array(list(self.centres)), "points": points} | between
        if self.baselines is not None:
            for name, table in asdict(self.baselines).items():
                state[name] = {"groups": np.array(list(table)), "points": np.stack(list(table.values()))}
        if support is not None:
            state["support"] = {"points": support.points.numpy(), "scale": support.scale}
        for name in REPORTS:
            report = getattr(self, name)
            state[name] = {key: np.asarray(v) if isinstance(v, (list, tuple)) else v for key, v in report.items()}
        return state

    @classmethod
    def from_dict(cls, state: dict[str, Any], *, device: str = "auto") -> TransportMap:
        """Rebuild a map from :meth:`to_dict`.

        Parameters
        ----------
        state
            The dictionary, for instance after a round trip through a file.
        device
            Device on which the networks are evaluated: 'auto', 'cpu', 'cuda' or 'mps'.

        Returns
        -------
        The map.

        Raises
        ------
        ValueError
            If anything is missing, misshapen, not finite, or of a newer schema.
        """
        return cls(**checked(state), device=str(resolve_device(device)))

    def save(self, path: str | Path) -> None:
        """Write the map to a .safetensors file, arrays as tensors and all else as JSON metadata.

        Parameters
        ----------
        path
            File to write. It appears whole or not at all.

        Raises
        ------
        ValueError
            If what is not an array takes more than a file's header may have, 128 kB.
        """
        save(self.to_dict(), Path(path), max_header=MAX_HEADER)

    @classmethod
    def load(cls, path: str | Path, *, device: str = "auto") -> TransportMap:
        """Read a map that :meth:`save` wrote.

        Parameters
        ----------
        path
            The file.
        device
            Device on which the networks are evaluated: 'auto', 'cpu', 'cuda' or 'mps'.

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
        return cls.from_dict(load(Path(path), max_header=MAX_HEADER), device=device)


def _check_finite(moved: Array, std: Array | float = 0.0) -> None:
    """Raise a ValueError if a moved cell is not finite."""
    # A sum over the coordinates is finite where all of them are.
    with np.errstate(invalid="ignore"):
        sums = moved.sum(1, dtype=np.float64) + std
    n_bad = int((~np.isfinite(sums)).sum())
    if n_bad:
        raise ValueError(
            f"The map gives NaN or infinite values for {n_bad} of {len(sums)} cells: they are too far from the cells "
            "that it was trained on, or the map is damaged. Leave them out, or fit again."
        )


def _gain_in_words(fitted: TransportMap) -> str:
    """Return how much better than the Gaussian map a map is, and on what cells."""
    gain, error = _gain_of(fitted)
    if not math.isfinite(gain):
        return "unknown"
    cells = " and ".join(f"{_text(fitted.validation.get(f'n_{side}'))} {side}" for side in ("source", "target"))
    where = "groups left out of training" if _LEFT_OUT in fitted.validation else f"{cells} cells for validation"
    how_much = f"{gain:.3g} \N{PLUS-MINUS SIGN} {error:.1g}" if fitted.blend else "none"
    return f"{how_much} over the Gaussian map, on {where}"


def _gain_of(fitted: TransportMap) -> tuple[float, float]:
    """Return J of the Gaussian map minus that of a map, on cells or groups that training has not seen, and its error.

    Both are NaN if they are not known.
    """
    name = _LEFT_OUT if _LEFT_OUT in fitted.validation else "J_by_blend"
    blends, j, errors = (
        np.atleast_1d(np.asarray(fitted.validation.get(column, ())))
        for column in ("blends", name, name.replace("_by", "_error_by"))
    )
    are_known = all(column.dtype.kind in "fiu" and column.shape == (len(blends),) for column in (blends, j, errors))
    # The Gaussian map is the first of the blends.
    places = np.flatnonzero(blends == fitted.blend).tolist() if are_known else []
    return (float(j[0] - j[places[0]]), float(errors[places[0]])) if places else (math.nan, math.nan)


def summary_of(maps: Sequence[TransportMap]) -> str:
    """Return what has come out of one fit, or of many, on one line."""
    if len(maps) == 1:
        said = f", gain {_gain_in_words(maps[0])}" if maps[0].blend else ""
        return f"{_text(maps[0].outcome)}{said}"
    outcomes = ", ".join(f"{n} {_text(outcome)}" for outcome, n in Counter(one.outcome for one in maps).most_common())
    gain = float(np.median([_gain_of(one)[0] for one in maps]))
    return f"{len(maps)} maps ({outcomes}), median gain {_shown(gain)} over the Gaussian map"


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float, np.number)) else math.nan


def _shown(number: float) -> str:
    return f"{number:.3g}" if math.isfinite(number) else "unknown"


def _quoted(value: object) -> str:
    return repr(_text(value))


def _text(value: object) -> str:
    """Return a value on one short line, without characters that control a terminal."""
    text = "".join(char if char.isprintable() else " " for char in str(value))
    return text if len(text) <= _MAX_LENGTH else f"{text[: _MAX_LENGTH - 3]}..."
