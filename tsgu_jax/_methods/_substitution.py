"""Forward and back substitution, and the product with a triangle, as compiled loops over rows.

XLA turns a loop on the CPU into native code where one turn of it touches less than a kilobyte, and otherwise calls a
kernel per operation and turn, a hundred times slower. So on the CPU a loop over rows, with a loop over the entries of
the row inside, is as quick as substitution written by hand, given few columns at a time. Wider blocks are therefore cut
into groups, one after the other in the same loop, and under ``vmap`` right-hand sides become columns, and matrices
diagonal blocks. The transpose runs through the same entries the other way, so that no second order of them is needed.

Rows are read and written by slices: as gathers and scatters they would be guarded, and XLA would copy all of x in every
turn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_batching import custom_vmap
from jax.tree_util import register_dataclass

from tsgu._core.pattern._triangle import Triangle
from tsgu_jax._matrix._pattern import Pattern
from tsgu_jax._matrix._products import Entries
from tsgu_jax._methods import _levels
from tsgu_jax._methods._levels import Levels, Values
from tsgu_jax._program import _internals, _mesh
from tsgu_jax._program._promotion import as_usual

_BYTES = 64
"""Bytes of a row of right-hand sides that are solved together."""


@partial(
    register_dataclass,
    data_fields=["row", "col", "start", "stop", "diagonal", "order", "counts", "misplaced", "levels"],
    meta_fields=["upper", "ones"],
)
@dataclass(frozen=True, eq=False)
class Rows:
    """The rows of a triangle: index arrays, concrete or traced.

    Parameters
    ----------
    row, col : Array, shape (nse,)
        Positions; ``row`` past the end for an entry that does not count.
    start, stop : Array, shape (n,)
        Where the entries of each row begin and end, in row order.
    diagonal : Array or None, shape (n,)
        Where the diagonal is among the values, and apart from ``start`` to ``stop``; None if it is not known.
    order : Array or None, shape (nse,)
        Permutation to row order; None where the entries are in it.
    counts : Array or None, shape (nse,)
        Which entries in row order are off the diagonal; None where ``start`` to ``stop`` holds no others.
    misplaced : Array or None, shape ()
        Whether an entry stands where none should; None for concrete indices, which have been checked.
    levels : pair of Levels, or None
        The rows that can be solved at once, for A and for A^T; on the CPU they are taken one by one.
    upper : bool
        As for :class:`tsgu._core.pattern._triangle.Triangle`.
    ones : bool
        Whether the diagonal consists of ones, stored or not.
    """

    row: Any
    col: Any
    start: Any
    stop: Any
    diagonal: Any
    order: Any
    counts: Any
    misplaced: Any
    levels: tuple[Levels, Levels] | None
    upper: bool
    ones: bool

    @property
    def n(self) -> int:
        n: int = self.start.shape[0]
        return n

    def entries(self, transposed: bool) -> Entries:
        """What the entry-wise product needs."""
        row, col = (self.col, self.row) if transposed else (self.row, self.col)
        return Entries(row, col, None, None, None, (self.n, self.n))


def rows_of(pattern: Pattern, upper: bool, unit: bool, members: int) -> tuple[Triangle | None, Rows]:
    """The rows of a pattern, made once; checked where its indices are concrete.

    Raises
    ------
    ValueError
        As :class:`tsgu._core.pattern._triangle.Triangle`.
    """
    if _internals.is_traced(pattern.row, pattern.col):
        return None, _traced_rows(pattern.entries, upper, unit)
    known = pattern.__dict__.setdefault("triangles", {})
    if (upper, unit, members) not in known:
        triangle = Triangle(pattern.symbolic, upper, unit, members)
        known[upper, unit, members] = triangle, _concrete_rows(triangle)
    found: tuple[Triangle, Rows] = known[upper, unit, members]
    return found


def _concrete_rows(triangle: Triangle) -> Rows:
    s = triangle.symbolic
    levels, ones = None, triangle.unit or triangle.ones
    if jax.default_backend() != "cpu":
        levels = _levels.schedules(triangle)
    diagonal = None if triangle.unit else triangle.diagonal
    rows = Rows(s.row, s.col, triangle.start, triangle.stop, diagonal, None, None, None, levels, triangle.upper, ones)
    lifted: Rows = _mesh.lifted(rows)
    return lifted


def _traced_rows(entries: Entries, upper: bool, ones: bool) -> Rows:
    n = entries.shape[0]
    row, col = entries.row, entries.col
    row = jnp.where((row < n) & (col < n), row, n)
    order = None if entries.transposition is not None else jnp.argsort(row)  # canonical entries are in row order
    there, across = (row, col) if order is None else (row[order], col[order])
    start, stop = (jnp.searchsorted(there, jnp.arange(n, dtype=row.dtype), side=side) for side in ("left", "right"))
    wrong = (col < row) if upper else (col > row)
    misplaced = jnp.any((row < n) & wrong)
    return Rows(row, col, start, stop, None, order, (there < n) & (there != across), misplaced, None, upper, ones)


def prepared(rows: Rows, values: Array) -> Values:
    """The values of a triangle laid out for the loops."""
    if rows.diagonal is not None:
        diagonal = values[rows.diagonal]
    elif rows.ones and rows.misplaced is None:  # checked: none of it is stored
        diagonal = jnp.ones(rows.n, values.dtype)
    else:
        place = jnp.where(rows.row == rows.col, rows.row, rows.n)
        stored = jnp.zeros(rows.n, values.dtype).at[place].add(values, mode="drop")
        missing = jnp.ones(rows.n, bool).at[place].set(False, mode="drop")
        diagonal = jnp.where(missing, 1, stored) if rows.ones else stored
    col = rows.col
    if rows.order is not None:
        values, col = values[rows.order], col[rows.order]
    if rows.counts is not None:
        values, col = jnp.where(rows.counts, values, 0), jnp.where(rows.counts, col, 0)
    return Values(values, col, rows.start, rows.stop, diagonal)


def substitute(rows: Rows, matrix: Values, b: Array, transposed: bool) -> Array:
    """x with T x = b, or T^T x = b, for b of shape (n, k)."""
    if rows.levels is not None:
        return _levels.substitute(rows.levels[transposed], matrix, b)
    backwards = rows.upper != transposed
    return _over_columns("scatter" if transposed else "gather", backwards)(*matrix, b)


def product(matrix: Values, x: Array, transposed: bool) -> Array:
    """T x, or T^T x, for x of shape (n, k)."""
    return _over_columns("spread" if transposed else "collect", False)(*matrix, x)


@lru_cache
def _over_columns(name: str, backwards: bool) -> Callable[..., Array]:
    """A loop for few columns, for any number of them and for batches.

    What there is more of makes the loop longer, not wider, and not another loop around it.
    """
    loop = partial(_LOOPS[name], backwards)

    @custom_vmap
    def run(*args: Array) -> Array:
        *matrix, b = args
        n, k = b.shape
        if k == 0:
            return b
        groups = -(-k * b.dtype.itemsize // _BYTES)
        width = -(-k // groups)
        if groups > 1:
            padded = jnp.pad(b, ((0, 0), (0, groups * width - k)))
            b = padded.reshape(n, groups, width).swapaxes(0, 1).reshape(groups * n, width)
        x = loop(Values(*matrix), b)
        if groups > 1:
            x = x.reshape(groups, n, width).swapaxes(0, 1).reshape(n, groups * width)[:, :k]
        return x

    @run.def_vmap
    @as_usual
    def _(size: int, batched: list[bool], *args: Array) -> tuple[Array, bool]:
        *matrix, b = args
        if size == 0:
            return jnp.zeros((0, *b.shape[1 if batched[-1] else 0 :]), b.dtype), True
        if not any(batched[:-1]):  # one matrix: the batch becomes columns
            _, n, k = b.shape
            folded = jnp.moveaxis(b, 0, 1).reshape(n, size * k)
            return jnp.moveaxis(run(*matrix, folded).reshape(n, size, k), 1, 0), True
        every = [
            a if varies else jnp.broadcast_to(a, (size, *a.shape)) for a, varies in zip(args, batched, strict=True)
        ]
        *matrix, b = every
        T, n = Values(*matrix), b.shape[1]
        member = jnp.arange(size, dtype=T.col.dtype)[:, None]
        nse = T.values.shape[1]
        blocks = Values(T.values, T.col + n * member, T.start + nse * member, T.stop + nse * member, T.diagonal)
        x = run(*(a.reshape(-1) for a in blocks), b.reshape(size * n, b.shape[2]))
        return x.reshape(b.shape), True

    return run


def _gather(backwards: bool, T: Values, b: Array) -> Array:
    """x_i = (b_i - sum_j T_ij x_j) / T_ii, row by row."""

    def row(i: Array, offset: Any, x: Array) -> Array:
        left = _over_entries(
            T, i, lambda e, r: r - _at(T.values, e) * _row(x, offset + _at(T.col, e)), _row(b, offset + i)
        )
        return _put(x, offset + i, left / _at(T.diagonal, i))

    return _over_rows(T, backwards, row, jnp.zeros_like(b))


def _scatter(backwards: bool, T: Values, b: Array) -> Array:
    """The same with the transpose: x_i = b_i / T_ii is final, and b_j less T_ij x_i for the entries of row i."""

    def row(i: Array, offset: Any, x: Array) -> Array:
        def entry(e: Array, x: Array) -> Array:
            j = offset + _at(T.col, e)
            return _put(x, j, _row(x, j) - _at(T.values, e) * _row(x, offset + i))

        # x_i is read anew for each entry: kept, XLA would copy the whole of x to keep it.
        return _over_entries(T, i, entry, _put(x, offset + i, _row(x, offset + i) / _at(T.diagonal, i)))

    return _over_rows(T, backwards, row, b)


def _collect(_: bool, T: Values, x: Array) -> Array:
    """y_i = T_ii x_i + sum_j T_ij x_j."""

    def row(i: Array, offset: Any, y: Array) -> Array:
        first = _at(T.diagonal, i) * _row(x, offset + i)
        total = _over_entries(T, i, lambda e, s: s + _at(T.values, e) * _row(x, offset + _at(T.col, e)), first)
        return _put(y, offset + i, total)

    return _over_rows(T, False, row, jnp.zeros_like(x))


def _spread(_: bool, T: Values, x: Array) -> Array:
    """y_j = T_jj x_j + sum_i T_ij x_i."""

    def row(i: Array, offset: Any, y: Array) -> Array:
        def entry(e: Array, y: Array) -> Array:
            j = offset + _at(T.col, e)
            return _put(y, j, _row(y, j) + _at(T.values, e) * _row(x, offset + i))

        return _over_entries(T, i, entry, y)

    scaled = T.diagonal[:, None] * x.reshape(-1, T.start.shape[0], x.shape[1])
    return _over_rows(T, False, row, scaled.reshape(x.shape))


_LOOPS = {"gather": _gather, "scatter": _scatter, "collect": _collect, "spread": _spread}


def _over_rows(T: Values, backwards: bool, row: Callable[..., Array], x: Array) -> Array:
    """``row(i, offset, x)`` for the rows i in order, for each group of columns, which begins at ``offset``."""
    n, total = T.start.shape[0], x.shape[0]

    def step(s: Array, x: Array) -> Array:
        offset = 0 if total == n else s // n * n
        i = s - offset
        return row(n - 1 - i if backwards else i, offset, x)

    first = jnp.zeros((), T.start.dtype)
    return _mesh.fori_loop(first, first + total, step, x)


def _over_entries(T: Values, i: Array, entry: Callable[..., Array], first: Array) -> Array:
    return _mesh.fori_loop(_at(T.start, i), _at(T.stop, i), entry, first)


def _at(x: Array, i: Array) -> Array:
    return lax.dynamic_index_in_dim(x, i, keepdims=False)


def _row(x: Array, i: Array) -> Array:
    return lax.dynamic_slice_in_dim(x, i, 1)


def _put(x: Array, i: Array, row: Array) -> Array:
    return lax.dynamic_update_slice_in_dim(x, row, i, 0)
