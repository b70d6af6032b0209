"""What a training method asks of a potential."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Potential(ABC):
    r"""Function :math:`R^d \to R` of many parameters, for K parameter sets at once.

    A potential describes the function and holds no weights. They are one tensor ``theta`` of shape (K, P), one row a
    map, which :meth:`init` draws: an optimiser, an average or a file then handles a single array, and K maps cost one
    batched product a layer.

    Parameters
    ----------
    n_dims
        Dimension d of the cells' representation.
    hidden
        Width of each hidden layer.

    Examples
    --------
    Three maps at once, of a family:

    >>> import torch
    >>> from scot_hycnn.potentials import ICNN, Potential
    >>> f = ICNN(n_dims=2, hidden=(8,))
    >>> isinstance(f, Potential), f.convex
    (True, True)
    >>> theta = f.init(3, torch.Generator().manual_seed(0))
    >>> theta.shape == (3, f.n_parameters), len(f.shapes) > 0
    (True, True)
    >>> weights = f.weights(theta)
    >>> x = torch.zeros(3, 100, 2)
    >>> f.value(weights, x).shape, f.gradient(weights, x).shape, f.penalty(weights).shape
    (torch.Size([3, 100]), torch.Size([3, 100, 2]), torch.Size([3]))
    >>> [name for name in f.shapes if f.decays(name)]
    ['W0', 'w']

    A training method calls this before each step:

    >>> f.at_step(theta, 0, 1000)
    """

    n_dims: int
    hidden: tuple[int, ...] = (48, 48, 48, 48)

    @property
    @abstractmethod
    def convex(self) -> bool:
        """Whether f is convex for every parameter value."""

    @property
    @abstractmethod
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of each parameter of one map, in the order in which theta holds them."""

    @property
    def n_parameters(self) -> int:
        """Number P of parameters of one map."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    def init(self, n_maps: int, generator: torch.Generator) -> Tensor:
        """Draw the parameters of K maps.

        Parameters
        ----------
        n_maps
            K.
        generator
            Source of randomness; its device is where the parameters are made.

        Returns
        -------
        theta, shape (K, P), float32.
        """
        drawn = {
            name: self._init_parameter(name, (n_maps, *shape), generator).flatten(1)
            for name, shape in self.shapes.items()
        }
        return torch.cat(list(drawn.values()), dim=1)

    @abstractmethod
    def _init_parameter(self, name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Draw one parameter of all maps."""

    @abstractmethod
    def weights(self, theta: Tensor) -> Weights:
        """Named weights of the function: those that must be positive for convexity are so here.

        Parameters
        ----------
        theta
            Free parameters, shape (K, P), as :meth:`init` draws them.

        Returns
        -------
        Tensors by name, each with leading dimension K. Autograd leads back to theta.
        """

    @abstractmethod
    def value(self, weights: Weights, x: Tensor) -> Tensor:
        """f(x).

        Parameters
        ----------
        weights
            From :meth:`weights`, for K maps.
        x
            Points, shape (K, n, d): each map has its own.

        Returns
        -------
        shape (K, n).
        """

    @abstractmethod
    def gradient(self, weights: Weights, x: Tensor) -> Tensor:
        """Gradient of f at x, written out as a forward computation.

        It is one reverse pass by hand: training through the gradient then needs a single autograd pass instead
        of two nested ones.

        Parameters
        ----------
        weights
            From :meth:`weights`, for K maps.
        x
            Points, shape (K, n, d).

        Returns
        -------
        shape (K, n, d).
        """

    @abstractmethod
    def decays(self, name: str) -> bool:
        """Whether weight decay pulls on the parameter of that name."""

    def penalty(self, weights: Weights) -> Tensor:
        """What training adds to the loss of each map to make f convex, shape (K,): 0 where it is by construction.

        Parameters
        ----------
        weights
            From :meth:`weights`, for K maps.

        Returns
        -------
        shape (K,).
        """
        return weights["v"].new_zeros(len(weights["v"]))

    def at_step(self, theta: Tensor, step: int, max_steps: int) -> None:  # noqa: B027 - most have nothing to do
        """Set, in place, what follows a schedule instead of the gradient: nothing, for most.

        Parameters
        ----------
        theta
            Free parameters, shape (K, P).
        step, max_steps
            Steps done, and all of them.
        """
