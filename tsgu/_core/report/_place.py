"""The line of the user's code that a warning points at.

Python shows a warning once for a place and a text, and keeps count in the module of that place. A backward pass and a
compiled program run far from the line that asked for a solve, in threads of the frameworks' own: so the line is found
when the solve is called, and travels with it.
"""

import sys
import warnings
import zlib
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
    """Places by number, since a compiled program carries numbers alone.

    The number of a line is the same in each process: a program that was kept by one and is run by another still points
    at the line, where the other one has traced it too.
    """

    def __init__(self) -> None:
        self._places: dict[int, Place] = {}

    def number(self, place: Place) -> int:
        """The number of a place, of 32 bits."""
        number = zlib.crc32(f"{place.filename}:{place.line}:{place.module}".encode())
        self._places[number] = place
        return number

    def find(self, number: int) -> Place:
        """The place with this number, or one that says that it is in a program from elsewhere."""
        return self._places.get(number) or Place("<compiled program>", 1, "<compiled program>", {})
