"""The products of a sparse matrix that everything else is made of. Arrays only, no differentiation rules.

Three forms of the same product:

- *ELL*: the entries of the rows laid out in columns, the k-th entry of every row in one array, so that a product is k
  gathers and multiply-adds over whole vectors. XLA compiles each to one loop at memory bandwidth, where a sum over an
  axis or a scatter is many times slower. Needs concrete indices. What the solvers use, for A and for A^T.
- *segment sum*: one gather and one sorted scatter. For traced indices.
- *entry-wise*: a segment sum whose transposes are gathers. What is differentiated.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax import Array, lax
from jax.tree_util import register_dataclass

_UNROLL = 8
"""Columns of an ELL layout in one compiled loop body: fewer passes over the result, and still quick to compile."""

_PADDING = 1.5
"""Most places of a layout per stored entry, where bins can be merged; twice the entries is the bound in any case."""

_LONG_ROW = 64
"""Rows longer than this, and than four times the mean, are cut in pieces."""

_BLOCK = 1 << 18
"""Entries of the temporary in an entry-wise product with several columns."""


@partial(register_dataclass, data_fields=["bins", "order", "rest"], meta_fields=[])
@dataclass(frozen=True, eq=False)
class Layout:
    """How the terms of each row are found and added: the index arrays of an ELL product.

    Parameters
    ----------
    bins : tuple of Array, each (width, rows of the bin)
        Places of the terms of rows of like length, or of pieces of long rows; the number of terms stands for padding.
    order : Array or None
        Where the sum of each row stands among those of the bins, followed by those of ``rest``; past the end for an
        empty row. None where the bins are the rows.
    rest : Layout or None
        Adds up the pieces of the rows that were cut.
    """

    bins: tuple[Any, ...]
    order: Any
    rest: "Layout | None"


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


@partial(register_dataclass, data_fields=["values", "columns", "layout"], meta_fields=["rows"])
@dataclass(frozen=True, eq=False)
class Operand:
    """A matrix made ready for many products.

    Parameters
    ----------
    values, columns : tuple of Array
        For each bin of the layout its values and column indices; for a segment sum one array each, sorted by row.
    layout : Layout or Array
        How the rows come together; the sorted row indices for a segment sum.
    rows : int
        Number of rows.
    """

    values: tuple[Array, ...]
    columns: tuple[Array, ...]
    layout: Any
    rows: int


def operand(values: Array, entries: Entries, transposed: bool) -> Operand:
    """A, or A^T, made ready for products."""
    row, col, layout = entries.row, entries.col, entries.rows
    if transposed:
        row, col, layout = col, row, entries.columns
    rows = entries.shape[1 if transposed else 0]
    if layout is None:
        valid = _valid(entries)
        row = jnp.where(valid, row, rows)
        order = jnp.argsort(row)
        return Operand((jnp.where(valid, values, 0)[order],), (col[order],), row[order], rows)
    columns = tuple(_take(col, jnp.minimum(place, col.shape[0] - 1)) for place in layout.bins)
    # A padded place repeats the first column of its row, so that it touches nothing that the row does not.
    columns = tuple(
        jnp.where(place < col.shape[0], column, column[:1]) for place, column in zip(layout.bins, columns, strict=True)
    )
    return Operand(tuple(_take_or_zero(values, place) for place in layout.bins), columns, layout, rows)


def apply(matrix: Operand, x: Array) -> Array:
    """The product with x of shape (n,) or (n, k)."""
    if not isinstance(matrix.layout, Layout):
        (values,), (columns,) = matrix.values, matrix.columns
        terms = _like(values, x) * x.at[columns].get(mode="fill", fill_value=0)
        return jax.ops.segment_sum(terms, matrix.layout, matrix.rows, indices_are_sorted=True)
    sums = [
        _add_up(columns.shape[0], lambda i, v=values, c=columns: _like(v[i], x) * _take(x, c[i]))
        for values, columns in zip(matrix.values, matrix.columns, strict=True)
    ]
    return _assemble(sums, matrix.layout, jnp.zeros((matrix.rows, *x.shape[1:]), x.dtype))


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


def _add_up(width: int, term: Any) -> Array:
    """The sum of term(i) for i < width."""
    first = term(0)
    return first if width == 1 else lax.fori_loop(1, width, lambda i, y: y + term(i), first, unroll=min(width, _UNROLL))


def _assemble(sums: list[Array], layout: Layout, empty: Array) -> Array:
    """The sums of the bins, brought to the order of the rows."""
    if not sums:
        return empty
    if layout.order is None:
        return sums[0]
    pieces = jnp.concatenate(sums)
    if layout.rest is not None:
        whole = [
            _add_up(places.shape[0], lambda i, p=places: _take_or_zero(pieces, p[i])) for places in layout.rest.bins
        ]
        pieces = jnp.concatenate([pieces, _assemble(whole, layout.rest, empty)])
    return _take_or_zero(pieces, layout.order)


def layout_of(start: npt.NDArray[Any], length: npt.NDArray[Any], index: npt.NDArray[Any]) -> Layout:
    """The layout for rows whose terms are ``index[start : start + length]``; index arrays still in NumPy."""
    terms = int(length.sum())
    if length.size and length.min() > 0 and length.max() * length.size <= _PADDING * terms:
        return Layout((_places(start, length, index, index.size),), None, None)
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
    rest = layout_of(first[long_rows], pieces[long_rows], place) if long_rows.size else None
    return Layout(bins if owner.size else (), order, rest)


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
