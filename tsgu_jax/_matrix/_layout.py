"""How the terms of each row of a product are found: index arrays, chosen and built on the host.

- *diagonals*: a matrix whose entries lie on few diagonals, as those of a stencil on a grid, needs no column index at
  all: every diagonal is multiplied by a shifted vector.
- *rows*: for any other matrix the k-th terms of all rows, or of all rows of like length, stand in one array.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from jax.tree_util import register_dataclass

_PADDING = 1.5
"""Most places of a layout per stored entry, where bins can be merged; twice the entries is the bound in any case."""

_SMALL = 1 << 16
"""Places of a layout that are not worth saving."""

_LONG_ROW = 64
"""Rows longer than this, and than four times the mean, are cut in pieces."""


@partial(register_dataclass, data_fields=["places", "start"], meta_fields=["below", "above"])
@dataclass(frozen=True, eq=False)
class Diagonals:
    """The terms of all rows, diagonal by diagonal.

    Parameters
    ----------
    places : Array, shape (diagonals, m)
        Places of the terms, row by row; the number of terms stands for padding.
    start : Array, shape (diagonals,)
        Where the vector that belongs to a diagonal begins in x with ``below`` zeros before it.
    below, above : int
        Zeros that x needs before and after it.
    """

    places: Any
    start: Any
    below: int
    above: int


@partial(register_dataclass, data_fields=["bins", "order", "rest"], meta_fields=[])
@dataclass(frozen=True, eq=False)
class Rows:
    """The terms of the rows, their k-th ones together.

    Parameters
    ----------
    bins : tuple of Array, each (width, rows of the bin)
        Places of the terms of rows of like length, or of pieces of long rows; the number of terms stands for padding.
    order : Array or None
        Where the sum of each row stands among those of the bins, followed by those of ``rest``; past the end for an
        empty row. None where the bins are the rows.
    rest : Rows or None
        Adds up the pieces of the rows that were cut.
    """

    bins: tuple[Any, ...]
    order: Any
    rest: "Rows | None"


Layout = Diagonals | Rows


def layout_of(
    indptr: npt.NDArray[Any],
    col: npt.NDArray[Any],
    index: npt.NDArray[Any],
    n: int,
    quick_to_compile: bool = False,
) -> Layout:
    """The layout for rows with the terms ``index[indptr[i] : indptr[i + 1]]`` in columns ``col`` out of n.

    Bins cost two more passes over the rows, to join and to order them, and twice the time to compile:
    ``quick_to_compile`` pads more before it makes bins.
    """
    length = np.diff(indptr)
    diagonals = _diagonals(length, col, index, n)
    if diagonals is not None:
        return diagonals
    if quick_to_compile and length.size * length.max(initial=0) <= max(index.size + 2 * length.size, _SMALL):
        return Rows((_places(indptr[:-1], length, index, index.size),), None, None)
    return _rows(indptr[:-1], length, index)


def renumbered(layout: Layout, place: Any) -> Layout:
    """The same layout for terms that have moved: the one at i to ``place[i]``. Takes traced arrays."""
    if isinstance(layout, Diagonals):
        return Diagonals(place[layout.places], layout.start, layout.below, layout.above)
    return Rows(tuple(place[places] for places in layout.bins), layout.order, layout.rest)


def _diagonals(length: npt.NDArray[Any], col: npt.NDArray[Any], index: npt.NDArray[Any], n: int) -> Diagonals | None:
    """None where the entries lie on so many diagonals that it is mostly padding."""
    m = length.size
    row = np.repeat(np.arange(m), length)
    offset = col.astype(np.int64) - row
    stored = np.flatnonzero(np.bincount(offset + m, minlength=m + n)) - m
    if not stored.size or stored.size * m > _PADDING * index.size:
        return None
    places = np.full((stored.size, m), index.size, index.dtype)
    places[np.searchsorted(stored, offset), row] = index
    below, above = max(0, -int(stored[0])), max(0, int(stored[-1]) + m - n)
    return Diagonals(places, (stored + below).astype(index.dtype), below, above)


def _rows(start: npt.NDArray[Any], length: npt.NDArray[Any], index: npt.NDArray[Any]) -> Rows:
    """The layout for rows whose terms are ``index[start : start + length]``."""
    terms = int(length.sum())
    if length.size and length.min() > 0 and length.max() * length.size <= _PADDING * terms:
        return Rows((_places(start, length, index, index.size),), None, None)
    longest = max(_LONG_ROW, int(4 * terms / max(1, length.size)))
    pieces = -(-length // longest)
    owner = np.repeat(np.arange(length.size), pieces)
    number = np.arange(owner.size) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    start = start[owner] + number * longest
    long_rows = np.flatnonzero(pieces > 1)
    first = np.cumsum(pieces) - pieces
    size = np.minimum(longest, length[owner] - number * longest)
    by_size = np.argsort(size, kind="stable")
    bins = tuple(
        _places(start[members], size[members], index, index.size) for members in np.split(by_size, _cuts(size[by_size]))
    )
    place = np.empty(owner.size, index.dtype)
    place[by_size] = np.arange(owner.size)
    order = np.full(length.size, owner.size + long_rows.size, index.dtype)
    order[pieces == 1] = place[first[pieces == 1]]
    order[long_rows] = owner.size + np.arange(long_rows.size)
    rest = _rows(first[long_rows], pieces[long_rows], place) if long_rows.size else None
    return Rows(bins if owner.size else (), order, rest)


def _cuts(sizes: npt.NDArray[Any]) -> list[int]:
    """Where to cut rising sizes into bins: at powers of two, neighbours joined while that pads little."""
    cuts: list[int] = []
    if not sizes.size:
        return cuts
    end, top = sizes.size, int(sizes[-1])
    while top > 1:
        top = 1 << ((top - 1).bit_length() - 1)  # the largest power of two below
        cut = int(np.searchsorted(sizes, top, side="right"))
        if 0 < cut < end:
            below = int(np.searchsorted(sizes, top // 2, side="right"))
            if sizes[end - 1] * (end - below) > _PADDING * sizes[below:end].sum():
                cuts.append(cut)
                end = cut
    return cuts[::-1]


def _places(start: npt.NDArray[Any], length: npt.NDArray[Any], index: npt.NDArray[Any], none: int) -> npt.NDArray[Any]:
    step = np.arange(length.max(initial=0))[:, None]
    inside = step < length
    return np.where(inside, index[np.where(inside, start + step, 0)], none).astype(index.dtype)
