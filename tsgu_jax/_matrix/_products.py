"""The products of a sparse matrix that everything else is made of. Arrays only, no differentiation rules.

Four forms of the same product:

- *by diagonals*, where there are few: multiply-adds with shifted vectors, without any index.
- *by rows* (ELL): the k-th entry of every row in one array, so that a product is k gathers and multiply-adds over whole
  vectors. XLA compiles each to one loop at memory bandwidth, where a sum over an axis or a scatter is many times
  slower. These two need concrete indices; the solvers use them for A and for A^T.
- *segment sum*: one gather and one sorted scatter. For traced indices.
- *entry-wise*: a segment sum whose transposes are gathers. What is differentiated.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from jax import Array, lax
from jax.tree_util import register_dataclass

from tsgu_jax._matrix._layout import Diagonals, Layout, Rows, layout_of
from tsgu_jax._program import _mesh

_UNROLL = 8
"""Terms of a layout in one compiled loop body: fewer passes over the result, and still quick to compile."""

_BLOCK = 1 << 18
"""Entries of the temporary in an entry-wise product with several columns."""


@partial(register_dataclass, data_fields=["row", "col", "transposition", "rows", "columns"], meta_fields=["shape"])
@dataclass(frozen=True, eq=False)
class Entries:
    """Where the values of a matrix stand, as index arrays, concrete or traced.

    Parameters
    ----------
    row, col : Array, shape (nse,)
        Positions; a row or column past the end marks an entry that does not count.
    transposition : Array or None
        Permutation to the order of the transpose, where this order is canonical.
    rows, columns : Layout or None
        Layouts of A and of A^T, both over the values in this order; None for traced indices.
    """

    row: Any
    col: Any
    transposition: Any
    rows: Layout | None
    columns: Layout | None
    shape: tuple[int, int]


@partial(register_dataclass, data_fields=["values", "start", "places"], meta_fields=["below", "above"])
@dataclass(frozen=True, eq=False)
class _ByDiagonals:
    """The values of each diagonal, (diagonals, m) or that many vectors; see :class:`Diagonals`.

    ``places`` are those of the layout, where the values are to be replaced by others.
    """

    values: Array | tuple[Array, ...]
    start: Array
    below: int
    above: int
    places: Any = None

    def apply(self, x: Array, unroll: int, finite: bool) -> Array:
        rows = self.values[0].shape[0]
        padded = jnp.pad(x, ((self.below, self.above), *((0, 0) for _ in x.shape[1:])))

        def term(i: Any) -> Array:
            value, shifted = _like(self.values[i], x), lax.dynamic_slice_in_dim(padded, self.start[i], rows)
            # A place that is only padding touches nothing, be it infinite.
            return value * shifted if finite else jnp.where(value != 0, value * shifted, 0)

        return _add_up(self.values, term, unroll)


@partial(register_dataclass, data_fields=["values", "columns", "layout"], meta_fields=["rows"])
@dataclass(frozen=True, eq=False)
class _ByRows:
    """For each bin its values and column indices, (width, rows of the bin) or that many vectors; see :class:`Rows`."""

    values: tuple[Array | tuple[Array, ...], ...]
    columns: tuple[Array | tuple[Array, ...], ...]
    layout: Rows
    rows: int

    def apply(self, x: Array, unroll: int, finite: bool) -> Array:
        sums = [
            _add_up(columns, lambda i, v=values, c=columns: _like(v[i], x) * _take(x, c[i]), unroll)
            for values, columns in zip(self.values, self.columns, strict=True)
        ]
        return _assemble(sums, self.layout, jnp.zeros((self.rows, *x.shape[1:]), x.dtype))


@partial(register_dataclass, data_fields=["values", "columns", "row"], meta_fields=["rows"])
@dataclass(frozen=True, eq=False)
class _BySegments:
    """Values, columns and rows, (nse,), sorted by row."""

    values: Array
    columns: Array
    row: Array
    rows: int

    def apply(self, x: Array, unroll: int, finite: bool) -> Array:
        terms = _like(self.values, x) * x.at[self.columns].get(mode="fill", fill_value=0)
        return jax.ops.segment_sum(terms, self.row, self.rows, indices_are_sorted=True)


Operand = _ByDiagonals | _ByRows | _BySegments
"""A matrix prepared for many products."""


def operand(values: Array, entries: Entries, transposed: bool) -> Operand:
    """A, or A^T, prepared for products."""
    row, col, layout = entries.row, entries.col, entries.rows
    if transposed:
        row, col, layout = col, row, entries.columns
    rows = entries.shape[1 if transposed else 0]

    def value(places: Array) -> Array:
        return _take_or_zero(values, places)

    if isinstance(layout, Diagonals):
        diagonals = _each(value, layout.places)
        return _ByDiagonals(diagonals, layout.start, layout.below, layout.above)
    if layout is None:
        valid = _valid(entries)
        row = jnp.where(valid, row, rows)
        order = jnp.argsort(row)
        return _BySegments(jnp.where(valid, values, 0)[order], col[order], row[order], rows)

    def column(places: Array, first: Array) -> Array:
        # A padded place repeats the first column of its row, so that it touches nothing that the row does not.
        inside = jnp.where(places < col.shape[0], places, first)
        return _take(col, jnp.minimum(inside, col.shape[0] - 1))

    columns = tuple(_each(partial(column, first=bin[0]), bin) for bin in layout.bins)
    return _ByRows(tuple(_each(value, bin) for bin in layout.bins), columns, layout, rows)


def host_operand(A: sp.csr_array, order: npt.NDArray[Any] | None = None, keep: bool = False) -> Operand:
    """The same for a CSR matrix in NumPy, with NumPy arrays in it: nothing is compiled.

    For :func:`refilled`, ``keep`` keeps the places of the entries, among values whose order is that of A or, for the
    transpose of a matrix, given by ``order``.
    """
    values, col = A.data, A.indices
    if order is not None:
        values, col = np.empty_like(A.data), np.empty_like(A.indices)
        values[order], col[order] = A.data, A.indices
    index = np.arange(col.size, dtype=col.dtype) if order is None else order
    layout = layout_of(A.indptr, A.indices, index, A.shape[1], quick_to_compile=True)

    def at(places: Any) -> Any:
        return np.append(values, values.dtype.type(0))[places]

    if isinstance(layout, Diagonals):
        places = layout.places if keep else None
        return _ByDiagonals(at(layout.places), layout.start, layout.below, layout.above, places)
    columns: list[Any] = []
    for place in layout.bins:
        inside, place = place < col.size, np.minimum(place, col.size - 1)
        columns.append(np.where(inside, col[place], col[place[:1]]))
    kept = layout if keep else replace(layout, bins=())
    return _ByRows(tuple(map(at, layout.bins)), tuple(columns), kept, A.shape[0])


def refilled(matrix: Operand, values: Array) -> Operand:
    """A matrix of :func:`host_operand` that keeps its places, with other values."""
    if isinstance(matrix, _ByDiagonals):
        return replace(matrix, values=_take_or_zero(values, matrix.places))
    assert isinstance(matrix, _ByRows)
    return replace(matrix, values=tuple(_take_or_zero(values, bin) for bin in matrix.layout.bins))


def apply(matrix: Operand, x: Array, unroll: int = _UNROLL, finite: bool = True) -> Array:
    """The product with x of shape (n,) or (n, k).

    Where x may be infinite or NaN, ``finite=False`` keeps that to the rows that store its column; it takes a tenth more
    time.
    """
    return matrix.apply(x, unroll, finite)


def magnitude(matrix: Operand, x: Array) -> Array:
    """The product of the magnitudes, |A| |x|, quick to compile: it takes part in no step of a method."""
    return replace(matrix, values=jax.tree.map(jnp.abs, matrix.values)).apply(jnp.abs(x), 1, True)


def entrywise(values: Array, x: Array, entries: Entries) -> Array:
    """A @ x as a sum over entries: linear in ``values`` and in ``x``, and gathers when it is transposed in ``values``.

    Several columns are taken in blocks, and what a block gathers is not kept for the transpose, so that no temporary
    of shape (nse, k) exists.
    """
    if x.ndim == 1:
        return _scatter(values, x, entries)
    width = max(1, min(x.shape[1], _BLOCK // max(1, values.shape[0])))
    blocks = -(-x.shape[1] // width)
    padded = jnp.pad(x, ((0, 0), (0, blocks * width - x.shape[1])))

    @jax.checkpoint
    def block(start: Array) -> Array:
        return _scatter(values, lax.dynamic_slice_in_dim(padded, start, width, 1), entries)

    if blocks == 1:
        return block(jnp.int32(0))
    products = lax.map(block, width * jnp.arange(blocks, dtype=jnp.int32))
    return jnp.moveaxis(products, 0, 1).reshape(entries.shape[0], -1)[:, : x.shape[1]]


def _scatter(values: Array, x: Array, entries: Entries) -> Array:
    values = jnp.where(_valid(entries), values, 0) if entries.rows is None else values
    terms = _like(values, x) * x.at[entries.col].get(mode="fill", fill_value=0)
    return jax.ops.segment_sum(terms, entries.row, entries.shape[0], mode="drop")


def _valid(entries: Entries) -> Array:
    """Whether an entry counts: traced indices may hold the padding of a BCOO."""
    return (entries.row < entries.shape[0]) & (entries.col < entries.shape[1])


def _like(values: Array, x: Array) -> Array:
    return values if x.ndim == 1 else values[:, None]


def _take(x: Array, index: Array) -> Array:
    return x.at[index].get(mode="promise_in_bounds", wrap_negative_indices=False)


def _take_or_zero(x: Array, index: Array) -> Array:
    return x.at[index].get(mode="fill", fill_value=0, wrap_negative_indices=False)


def _each(take: Callable[[Array], Array], places: Array) -> Array | tuple[Array, ...]:
    """take(places), as a vector for each row of places where there are few: XLA would copy them out of one array."""
    if places.shape[0] > _UNROLL:
        return take(places)
    return tuple(take(row) for row in places)


def _add_up(parts: Array | tuple[Array, ...], term: Any, unroll: int = _UNROLL) -> Array:
    """The sum of term(i) over the parts."""
    width, total = len(parts), term(0)
    if width > unroll and not isinstance(parts, tuple):
        return _mesh.fori_loop(1, width, lambda i, y: y + term(i), total, unroll=unroll)
    for i in range(1, width):
        total += term(i)
    return total


def _assemble(sums: list[Array], layout: Rows, empty: Array) -> Array:
    """The sums of the bins, brought to the order of the rows."""
    if not sums:
        return empty
    if layout.order is None:
        return sums[0]
    pieces = jnp.concatenate(sums)
    if layout.rest is not None:
        whole = [_add_up(places, lambda i, p=places: _take_or_zero(pieces, p[i])) for places in layout.rest.bins]
        pieces = jnp.concatenate([pieces, _assemble(whole, layout.rest, empty)])
    return _take_or_zero(pieces, layout.order)
