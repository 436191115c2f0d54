"""The line of the user's code that a warning points at.

Python shows a warning once for a place and a text, and keeps count in the module of that place. A backward pass and a
compiled program run far from the line that asked for a solve, in threads of the frameworks' own: so the line is found
when the solve is called, and travels with it.
"""

import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

_PASSED_OVER = frozenset(("tsgu", "tsgu_jax", "torch", "jax", "jaxlib", "torch2jax", "functools", "contextlib"))
"""Packages whose lines are not the user's."""


class Place(NamedTuple):
    """A line of code, and the record of its module of what has been shown there."""

    filename: str
    line: int
    module: str
    shown: dict[Any, Any]


_place: ContextVar[Place | None] = ContextVar("place", default=None)
_other: ContextVar[Place | None] = ContextVar("other", default=None)


def caller() -> Place:
    """The innermost line outside this package and the frameworks, or the outermost one where there is none.

    Inside the block :func:`on_behalf_of` it is the place of that.
    """
    other = _other.get()
    if other is not None:
        return other
    frame = sys._getframe(1)
    while _name(frame).partition(".")[0] in _PASSED_OVER and frame.f_back is not None:
        frame = frame.f_back
    shown = frame.f_globals.setdefault("__warningregistry__", {})
    return Place(frame.f_code.co_filename, frame.f_lineno, _name(frame), shown)


def _name(frame: Any) -> str:
    name: str = frame.f_globals.get("__name__") or "<unknown>"
    return name


@contextmanager
def called_from(place: Place | None) -> Iterator[None]:
    """Let what is warned of inside the block point at this place."""
    token = _place.set(place)
    try:
        yield
    finally:
        _place.reset(token)


@contextmanager
def on_behalf_of(place: Place) -> Iterator[None]:
    """Let solves that are asked for inside the block count as asked for at this place: a compiled program asks, which
    may do so in any thread, also in one that waits for it at another line.
    """
    token = _other.set(place)
    try:
        yield
    finally:
        _other.reset(token)


def warn(warning: Warning, place: Place | None = None) -> None:
    """Warn at a place: the one given, or that of the block, or the caller's line."""
    filename, line, module, shown = place or _place.get() or caller()
    warnings.warn_explicit(warning, type(warning), filename, line, module, shown)


class Places:
    """Places by number, since a compiled program carries numbers alone."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers: dict[tuple[str, int, int], int] = {}
        self._places: list[Place] = []

    def number(self, place: Place) -> int:
        """The number of a place, the same for the same line."""
        key = place.filename, place.line, id(place.shown)  # kept alive below, so that its id stays its own
        with self._lock:
            if key not in self._numbers:
                self._numbers[key] = len(self._places)
                self._places.append(place)
            return self._numbers[key]

    def __getitem__(self, number: int) -> Place:
        return self._places[number]
