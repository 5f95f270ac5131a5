"""Conjugate gradients for parameters, of which there may be millions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softly.kernels import threads
from softly.objective import dot
from softly.solvers.preconditioners import Inverse

Array = NDArray[Any]

_PIECE = 1 << 15  # numbers of a vector that stay in the cache from one step to the next
_MOST_PRODUCTS = 250
OVERSTATED = 100.0  # times: so much too large may be what an inverse says of a residual
_NO_WAY = 0.1  # of what the inverse says: less is gained where it is wrong


def conjugate_gradients(
    product: Callable[[Array], Array],
    gradient: Array,
    image: Array,
    inverse: Inverse,
    leave: float,
    enough: float = 0.0,
    radius: float = np.inf,
) -> Found:
    """Solve H d = -g until `leave` of the residual is left.

    Or, where `enough` is given, until as many products again, lowering the quadratic as the last
    did, would by less than that (Nash and Sofer, 1990), and the inverse does not say too much else
    of what is left; or until d is `radius` long, in the metric of the inverse (Steihaug, 1983).

    Parameters
    ----------
    product : callable
        H times a vector of the gradient's shape.
    gradient : ndarray, shape (K, D)
        g, whose columns sum to 0; so do those of all that is found.
    image : ndarray, shape (K, D)
        The inverse of g.
    inverse : callable
        What is near the inverse of H.
    leave, enough, radius : float

    Returns
    -------
    Found
    """
    pieces = _pieces(gradient.shape)
    direction, residual, along = np.zeros_like(gradient), -gradient, -image
    size = first = dot(gradient, image)
    metric, promised, missed, is_cut = _Metric(size), 0.0, size, False

    def bend(curved: Array, some: slice) -> float:
        return dot(along[:, some], curved[:, some])

    def go(length: float, curved: Array, some: slice) -> None:
        direction[:, some] += length * along[:, some]
        residual[:, some] -= length * curved[:, some]

    def meet(image: Array, some: slice) -> float:
        part = image[:, some]
        if len(part) > 1:
            part -= part.mean(axis=0)
        return dot(residual[:, some], part)

    def turn(image: Array, share: float, some: slice) -> None:
        part = along[:, some]
        part *= share
        part += image[:, some]

    products = 0
    # Of a gradient that is rounding alone, an inverse may say less than nothing.
    while first > 0 and products < _MOST_PRODUCTS:
        products += 1
        curved = product(along)
        curvature = sum(threads.each(partial(bend, curved), pieces))
        if not curvature > 0:
            break
        length, is_cut = metric.within(radius, size / curvature)
        gained = length * (size - length * curvature / 2)
        promised += gained
        metric.go(length)
        threads.each(partial(go, length, curved), pieces)
        if is_cut:
            break
        image = inverse(residual)
        left = missed = sum(threads.each(partial(meet, image), pieces))
        if enough and products == 1 and gained < _NO_WAY * first / 2:
            first = left  # it went where the inverse is most wrong: that measures nothing
        elif not left > leave**2 * first:
            break
        if products * gained <= enough and left <= OVERSTATED * enough:
            break
        threads.each(partial(turn, image, left / size), pieces)
        metric.turn(left / size, left)
        size = left
    return Found(direction, products, promised, missed, metric.length, is_cut)


@dataclass(frozen=True)
class Found:
    """Where conjugate gradients ended.

    Attributes
    ----------
    direction : ndarray
    products : int
        How many it took.
    promised : float
        By how much the quadratic is lower there.
    missed : float
        What the inverse says of what is left: twice by how much it could be lower still.
    length : float
        Of the direction, in the metric of the inverse.
    is_cut : bool
        Whether it would have been longer but for the radius.
    """

    direction: Array
    products: int
    promised: float
    missed: float
    length: float
    is_cut: bool


class _Metric:
    """How long the way is so far, and what it makes with the next part, known from sizes alone."""

    def __init__(self, size: float) -> None:
        self._way, self._both, self._next = 0.0, 0.0, size  # squares, and a product

    @property
    def length(self) -> float:
        return float(np.sqrt(self._way))

    def within(self, radius: float, length: float) -> tuple[float, bool]:
        """How far the next part may go, and whether that is less than it would."""
        if self._after(length) < radius**2:
            return length, False
        room = max(radius**2 - self._way, 0.0)
        # The positive root of next t^2 + 2 both t - room.
        root = float(np.sqrt(self._both**2 + self._next * room))
        return room / (self._both + root) if room else 0.0, True

    def go(self, length: float) -> None:
        self._way, self._both = self._after(length), self._both + length * self._next

    def turn(self, share: float, size: float) -> None:
        self._both, self._next = share * self._both, size + share**2 * self._next

    def _after(self, length: float) -> float:
        return self._way + 2 * length * self._both + length**2 * self._next


def centred(x: Array) -> Array:
    """Without what is the same for all classes, which changes no probability."""
    found: Array = x - x.mean(axis=0) if len(x) > 1 else x
    return found


def _pieces(shape: tuple[int, ...]) -> list[slice]:
    """Of columns: the same ones on any number of threads, so that sums have the same bits."""
    step = max(1, _PIECE // shape[0])
    return [slice(start, start + step) for start in range(0, shape[1], step)]
