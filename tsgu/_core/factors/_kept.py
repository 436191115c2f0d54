"""Preconditioners that are kept with a pattern: made by a recipe, refreshed for other values, made again when worn.

A recipe is a function that makes a preconditioner, with its arguments.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from tsgu._core.pattern._symbolic import Symbolic
from tsgu._core.report import _status
from tsgu._core.report._status import SolveInfo

Array = npt.NDArray[Any]

_WORN = 1.5
"""How many times the steps that it took when it was built for each decade of the residual a preconditioner may take."""

_FEW = 2
"""Steps by which they must have risen at least: of three steps, one more is chance."""

_MOST = 3
"""Preconditioners that are kept with a pattern; the one that was used longest ago makes room."""


@dataclass(eq=False)
class Kept:
    """A preconditioner, and how well it serves.

    Parameters
    ----------
    key : object
        By which its recipe is known.
    M : object
        Built, or refreshed for ``values``.
    origin : ndarray
        Values that it was built for.
    values : ndarray
        Those that it was refreshed for last.
    rate : float or None
        Steps for a decade of the residual, when it was built.
    reach : float
        How far values may be from ``origin``, so that it is not known to be worse than it was.
    """

    key: Any
    M: Any
    origin: Array
    values: Array
    rate: float | None = None
    reach: float = math.inf


@dataclass
class Use:
    """A preconditioner for one matrix, and how it came about: "built", "rebuilt", "refreshed" or "kept"."""

    M: Any
    how: str
    kept: Kept
    distance: float = 0.0

    def judge(self, info: SolveInfo) -> None:
        """Take note of a solve of A x = b from zero. The first one after a set-up is what later ones are held to."""
        if not info.iterations:
            return
        rate = _rate(info)
        if self.kept.rate is None:
            self.kept.rate = rate
            return
        before = info.iterations * (self.kept.rate / rate)  # what it would have taken when it was built
        if info.iterations > _WORN * before and info.iterations >= before + _FEW:
            self.kept.reach = min(self.kept.reach, self.distance)


@dataclass
class Shelf:
    """What is kept with one pattern, that which was used last at the end."""

    places: list[Kept] = field(default_factory=list)
    lock: Any = field(default_factory=Lock)

    def find(self, key: Any, values: Array, build: Callable[[], Any], refresh: Callable[[Any], Any]) -> Use:
        """One for these values: of the same recipe that which was built for values nearest by, or a new one.

        ``refresh`` may raise a ValueError for values for which it cannot be done.
        """
        with self.lock:
            known = [(_distance(kept.origin, values), kept) for kept in self.places if kept.key == key]
        distance, nearest = min(known, key=lambda one: one[0], default=(0.0, None))
        if nearest is not None and distance < nearest.reach:
            if np.array_equal(nearest.values, values):
                return self._used(Use(nearest.M, "kept", nearest, distance))
            try:
                M = refresh(nearest.M)
            except ValueError:  # it is built then, or refused in the words of that
                pass
            else:
                nearest.M, nearest.values = M, values
                return self._used(Use(M, "refreshed", nearest, distance))
        M = build()
        return self._used(Use(M, "built" if nearest is None else "rebuilt", Kept(key, M, values, values)))

    def _used(self, use: Use) -> Use:
        with self.lock:
            others = [kept for kept in self.places if kept is not use.kept]
            self.places = [*others, use.kept][-_MOST:]
        return use


def shelf_of(pattern: Symbolic) -> Shelf:
    """What is kept with a pattern; not copied or pickled with it."""
    shelf: Shelf = pattern.analyses.setdefault("preconditioners", Shelf())
    return shelf


def key_of(recipe: Callable[..., Any], *more: Any) -> Any:
    """By which a recipe is known: its function and its arguments, whatever object holds them."""
    if isinstance(recipe, functools.partial):
        return recipe.func, _frozen(recipe.args), _frozen(recipe.keywords), more
    return recipe, (), _frozen({}), more


def _frozen(given: Any) -> Any:
    """Something that is equal where the arguments are, entry by entry."""
    if isinstance(given, Mapping):
        return "mapping", tuple(sorted((str(name), _frozen(value)) for name, value in given.items()))
    if isinstance(given, tuple | list):
        return tuple(map(_frozen, given))
    if hasattr(given, "__array__") and not isinstance(given, np.generic):
        array = np.asarray(given)
        return "array", array.shape, str(array.dtype), array.tobytes()
    return given


def _distance(origin: Array, values: Array) -> float:
    """How far the values have moved, relative to what they were: of all entries alike, whatever their size."""
    size = abs(origin)
    return float(np.mean(abs(values - origin) / np.where(size > 0, size, 1))) if origin.size else 0.0


def _rate(info: SolveInfo) -> float:
    """Steps for each decade of the residual; infinite where the solve failed."""
    if info.status not in _status.SOUND or info.residual is None or not info.residual < 1:
        return math.inf
    return (info.iterations or 0) / -math.log10(max(info.residual, 1e-300))
