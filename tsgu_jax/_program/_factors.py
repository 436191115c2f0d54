"""The host's side of ``direct``: factors, found again by the matrix that they are of, and solves for whole batches.

NumPy only.
"""

import zlib
from collections import OrderedDict
from collections.abc import Iterator
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tsgu._core.factors._factorisation import Factorisation
from tsgu._core.factors._superlu import SingularMatrixError
from tsgu._core.pattern import _symbolic
from tsgu._core.report._status import CODE
from tsgu_jax._program._store import store

Array = npt.NDArray[Any]


def solve(
    library: str,
    rtol: float | None,
    shape: tuple[int, int],
    transposed: bool,
    ndim: int,
    values: Array,
    row: Array,
    col: Array,
    b: Array,
) -> tuple[Array, Array, Array]:
    """Solve with the matrices of these values: the solutions, and per column status and relative residual.

    The arrays may have leading dimensions, those of nested batches, of size 1 where there is none. The factors of each
    matrix are made where they are not there, in this call or in an earlier one.
    """
    members, b = parts((values, row, col), b, ndim)
    x = np.empty_like(b)
    code = np.empty((*b.shape[: b.ndim - ndim], *b.shape[b.ndim - ndim + 1 :]), np.int32)
    residual = np.empty(code.shape, b.real.dtype)
    for part in members:
        solved, codes, residuals = _solve(factors(library, rtol, shape, *part.entries), transposed, part.columns)
        x[part.place] = part.restored(solved)
        code[part.place] = codes.reshape(code[part.place].shape)
        residual[part.place] = residuals.reshape(code[part.place].shape)
    return x, code, residual


class Part(NamedTuple):
    """The members of a batch that share a matrix, laid side by side as columns, (n, ...)."""

    entries: tuple[Array, ...]
    place: tuple[Any, ...]
    columns: Array
    shape: tuple[int, ...]
    axis: int

    def restored(self, columns: Array) -> Array:
        return np.moveaxis(columns.reshape(self.shape), 0, self.axis)


def parts(entries: tuple[Array, ...], b: Array, ndim: int) -> tuple[Iterator[Part], Array]:
    """The parts of b with one matrix each, for values, rows and columns that may be batches, and b with the leading
    dimensions of all.
    """
    matrices = np.broadcast_shapes(*(a.shape[:-1] for a in entries))
    lead = np.broadcast_shapes(matrices, b.shape[: b.ndim - ndim])
    b = np.broadcast_to(b, (*lead, *b.shape[b.ndim - ndim :]))
    sizes = (1,) * (len(lead) - len(matrices)) + matrices

    def each() -> Iterator[Part]:
        for index in np.ndindex(sizes):
            place = tuple(slice(None) if size == 1 else i for i, size in zip(index, sizes, strict=True))
            axis = b[place].ndim - ndim
            columns = np.moveaxis(b[place], axis, 0)
            flat = columns.reshape(columns.shape[0], columns.size // max(1, columns.shape[0]))
            yield Part(tuple(member(a, index, 1) for a in entries), place, flat, columns.shape, axis)

    return each(), b


def member(a: Array, index: tuple[int, ...], ndim: int) -> Array:
    """One member of a batch, where leading dimensions of size 1 are broadcast."""
    lead = a.shape[: a.ndim - ndim]
    used = index[len(index) - len(lead) :]
    member: Array = a[tuple(0 if size == 1 else i for i, size in zip(used, lead, strict=True))]
    return member


def _solve(factors: Factorisation | None, transposed: bool, b: Array) -> tuple[Array, Array, Array]:
    try:
        if factors is None:
            raise SingularMatrixError
        x, columns = factors.solve(b, transposed)
    except SingularMatrixError:
        nothing = np.full_like(b, np.nan)
        return nothing, np.full(b.shape[1], CODE["singular"]), nothing[0].real
    code = np.array([CODE[column.status] for column in columns], np.int32)
    residual = np.array([column.residual for column in columns], b.real.dtype)
    return x.astype(b.dtype, copy=False), code, residual


def counted(shape: tuple[int, int], values: Array, row: Array, col: Array) -> tuple[_symbolic.Symbolic, Array]:
    """The pattern, and the values of the entries that count, in the order given."""
    counted, symbolic = _patterns.find(shape, row, col)
    return symbolic, values if counted is None else values[counted]


def factors(
    library: str, rtol: float | None, shape: tuple[int, int], values: Array, row: Array, col: Array
) -> Factorisation | None:
    """The factors of one matrix, made where they are not there; None where it is singular."""
    symbolic, values = counted(shape, values, row, col)
    kept = store.of(
        (library, rtol, symbolic), values, lambda values: _factored(library, rtol, symbolic, merged(symbolic, values))
    )
    found: Any = kept.lu
    return found


def _factored(library: str, rtol: float | None, symbolic: _symbolic.Symbolic, values: Array) -> Factorisation | None:
    """None where the matrix is singular."""
    if not np.isfinite(values).all():
        return None
    try:
        return Factorisation(symbolic, values, library, rtol)
    except SingularMatrixError:
        return None


def canonical(shape: tuple[int, int], values: Array, row: Array, col: Array) -> tuple[_symbolic.Symbolic, Array]:
    """The pattern and the values on it, from entries in any order, with repeats and with padding."""
    symbolic, values = counted(shape, values, row, col)
    return symbolic, merged(symbolic, values)


def merged(symbolic: _symbolic.Symbolic, values: Array) -> Array:
    """The values in the order of the pattern, repeats added."""
    if symbolic.merge is not None:
        added = np.zeros(symbolic.nnz, values.dtype)
        np.add.at(added, symbolic.merge, values)
        return added
    return values if symbolic.order is None else values[symbolic.order]


class _Patterns:
    """The last patterns, found again by their indices: with a pattern its order of elimination is found again."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._lock = Lock()
        self._known: OrderedDict[Any, tuple[Array, Array, tuple[Array | None, _symbolic.Symbolic]]] = OrderedDict()

    def find(self, shape: tuple[int, int], row: Array, col: Array) -> tuple[Array | None, _symbolic.Symbolic]:
        """Which entries count, None for all, and the pattern of those."""
        with self._lock:
            last = next(reversed(self._known), None)
            if last is not None and last[0] == shape and self._is(last, row, col):  # quicker than a hash
                return self._known[last][2]
            key = shape, zlib.crc32(np.ascontiguousarray(row).data), zlib.crc32(np.ascontiguousarray(col).data)
            if key in self._known and self._is(key, row, col):
                self._known.move_to_end(key)
                return self._known[key][2]
        row, col = row.copy(), col.copy()  # what a program hands over is gone after the call
        found = _symbolic.from_padded_coo(row, col, shape)
        with self._lock:
            self._known[key] = row, col, found
            while len(self._known) > self._size:
                self._known.popitem(last=False)
        return found

    def _is(self, key: Any, row: Array, col: Array) -> bool:
        its_row, its_col, _ = self._known[key]
        return np.array_equal(its_row, row) and np.array_equal(its_col, col)


_patterns = _Patterns(64)
