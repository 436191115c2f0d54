"""Level scheduling: which rows of a triangle can be solved at the same time.

A row is on level 0 if it has no entries off the diagonal, and otherwise one above the highest row that it refers to
(Saad, *Iterative Methods for Sparse Linear Systems*, 2nd ed., section 11.6). The rows of a level are solved together,
in steps of equal width, with the k-th entries of all rows of a step side by side.
"""

from typing import NamedTuple

import numpy as np

from tsgu._core.pattern._symbolic import Indices
from tsgu._core.pattern._triangle import Triangle

_PADDING = 4
"""Most places per stored entry, beyond one row of places per step."""

_LANES = 1 << 14
"""Entries that an accelerator takes in about the time that it needs to begin anything at all."""

_WIDEST = 1 << 12


class Schedule(NamedTuple):
    """The steps of a substitution.

    Parameters
    ----------
    rows : ndarray, shape (steps, width)
        Rows that are solved in each step; the number of rows stands for padding.
    pointers : ndarray, shape (steps + 1,)
        Where the slots of each step begin.
    places : ndarray, shape (slots, width)
        Where the entries of a slot are among the values of the pattern; their number stands for padding.
    columns : ndarray, shape (slots, width)
        And their columns.
    """

    rows: Indices
    pointers: Indices
    places: Indices
    columns: Indices


def levels(triangle: Triangle) -> Indices:
    """The level of each row, shape (n,)."""
    n = triangle.symbolic.shape[0]
    start, stop, col = triangle.start.tolist(), triangle.stop.tolist(), triangle.symbolic.col.tolist()
    level = [0] * n
    for row in range(n - 1, -1, -1) if triangle.upper else range(n):
        level[row] = 1 + max((level[j] for j in col[start[row] : stop[row]]), default=-1)
    return np.array(level, dtype=np.int64)


def schedule(triangle: Triangle, level: Indices, place: Indices) -> Schedule:
    """The steps for rows on these levels, whose entries are values number ``place`` of the pattern."""
    start, length = triangle.start, triangle.stop - triangle.start
    n, nse = level.size, place.size
    by_level = np.lexsort((length, level))  # rows of like length side by side, so that little is padded
    sorted_level, sorted_length = level[by_level], length[by_level]
    first = np.searchsorted(sorted_level, sorted_level)
    width = _width(sorted_level, sorted_length, first)
    step, lane = _steps(sorted_level, first, width)
    count = int(step[-1]) + 1 if n else 0
    rows = np.full((count, width), n, place.dtype)
    rows[step, lane] = by_level
    slots = np.zeros(count, np.int64)
    np.maximum.at(slots, step, sorted_length)
    pointers = np.concatenate([[0], np.cumsum(slots)]).astype(place.dtype)
    places = np.full((int(pointers[-1]), width), nse, place.dtype)
    columns = np.full(places.shape, n, place.dtype)
    owner = np.repeat(np.arange(n), sorted_length)
    number = np.arange(owner.size) - np.repeat(np.cumsum(sorted_length) - sorted_length, sorted_length)
    entry = start[by_level][owner] + number
    where = pointers[step[owner]] + number, lane[owner]
    places[where], columns[where] = place[entry], triangle.symbolic.col[entry]
    return Schedule(rows, pointers, places, columns)


def _steps(level: Indices, first: Indices, width: int) -> tuple[Indices, Indices]:
    """The step and the lane of each row, rows being in the order of their levels, which begin at ``first``."""
    within = np.arange(level.size) - first
    begins = np.ones(level.size, dtype=bool)
    begins[1:] = (level[1:] != level[:-1]) | (within[1:] % width == 0)
    return np.cumsum(begins) - 1, within % width


def _width(level: Indices, length: Indices, first: Indices) -> int:
    """The power of two that is quickest by a count of what is begun and what is moved."""
    best, least = 1, np.inf
    width = 1
    while width <= min(_WIDEST, 2 * level.size):
        step, _ = _steps(level, first, width)
        count = int(step[-1]) + 1
        slots = np.zeros(count, np.int64)
        np.maximum.at(slots, step, length)
        total = int(slots.sum())
        if width > 1 and width * (total + count) > _PADDING * (int(length.sum()) + level.size):
            break
        cost = (total + count) * (1 + width / _LANES)
        if cost < least:
            best, least = width, cost
        width *= 2
    return best
