"""Symbolic work on a sparsity pattern: canonical order, duplicates, row pointers, transpose. Indices, no values."""

from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from scipy.sparse.csgraph import reverse_cuthill_mckee, structural_rank

Indices = npt.NDArray[Any]

_LARGEST_INT32 = np.iinfo(np.int32).max


@dataclass(frozen=True, eq=False)
class Symbolic:
    """A pattern in canonical order: row-major, each position once.

    Parameters
    ----------
    indptr : ndarray, shape (m + 1,)
        Where each row begins among the stored entries.
    col : ndarray, shape (nnz,)
        Column of each stored entry; like all indices 32-bit where everything fits, which is what the products of torch
        and SciPy want.
    shape : tuple of int
        (m, n).
    order : ndarray or None
        Canonical values are ``given[order]``; None where the given order is canonical already.
    merge : ndarray or None
        Where entries repeat a position: canonical values are the sums of the given ones over equal ``merge``.
    """

    indptr: Indices
    col: Indices
    shape: tuple[int, int]
    order: Indices | None = None
    merge: Indices | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return Symbolic, (self.indptr, self.col, self.shape, self.order, self.merge)  # without what is found again

    def equals(self, other: "Symbolic") -> bool:
        """Whether the same positions are stored, in whatever order they were given."""
        if self is other:
            return True
        same = self.shape == other.shape and np.array_equal(self.indptr, other.indptr)
        return same and np.array_equal(self.col, other.col)

    @property
    def nnz(self) -> int:
        return self.col.size

    @property
    def nse(self) -> int:
        """Number of entries that it was built from."""
        return self.nnz if self.merge is None else self.merge.size

    @property
    def given(self) -> tuple[Indices, Indices]:
        """Row and column of the entries that it was built from, in their order."""
        if self.merge is not None:
            return self.row[self.merge], self.col[self.merge]
        if self.order is None:
            return self.row, self.col
        place = np.empty_like(self.order)
        place[self.order] = np.arange(self.nnz)
        return self.row[place], self.col[place]

    @cached_property
    def told(self) -> str:
        """What a reader should know of the order that it was built from; empty where that is canonical."""
        same = self.merge is None and (self.order is None or np.array_equal(self.order, np.arange(self.nnz)))
        return "" if same else f"built from {self.nse} entries in another order"

    @cached_property
    def row(self) -> Indices:
        """Row of each stored entry, shape (nnz,)."""
        return np.repeat(np.arange(self.shape[0], dtype=self.col.dtype), np.diff(self.indptr))

    @cached_property
    def transpose(self) -> "Symbolic":
        """The pattern of the transpose, whose ``order`` is the permutation from values here to values there."""
        given = sp.csr_array((np.arange(self.nnz, dtype=self.col.dtype), self.col, self.indptr), shape=self.shape)
        columns = given.tocsc()
        return Symbolic(columns.indptr, columns.indices, (self.shape[1], self.shape[0]), order=columns.data)

    @property
    def transposition(self) -> Indices:
        """Permutation such that ``values[transposition]`` are the values of the transpose in canonical order."""
        order = self.transpose.order
        assert order is not None
        return order

    @cached_property
    def is_symmetric(self) -> bool:
        """Whether (j, i) is stored wherever (i, j) is."""
        if self.shape[0] != self.shape[1]:
            return False
        other = self.transpose
        return np.array_equal(self.indptr, other.indptr) and np.array_equal(self.col, other.col)

    @cached_property
    def structural_rank(self) -> int:
        """The most entries of which no two share a row or a column: no matrix on the pattern has a larger rank.

        By a maximum matching (I. S. Duff, ACM Trans. Math. Softw. 7 (1981), 315-330), a hundredth of a factorisation.
        """
        graph = sp.csr_array((np.ones(self.nnz, dtype=np.int8), self.col, self.indptr), shape=self.shape)
        return int(structural_rank(graph)) if self.nnz else 0

    @cached_property
    def analyses(self) -> dict[str, Any]:
        """What was found out about the pattern for factorisations, such as orders of elimination, by what needs it."""
        return {}

    @cached_property
    def width(self) -> float:
        """How wide the graph of a square pattern is: the mean distance from the diagonal to the first entry of a row,
        in the order of reverse Cuthill and McKee.

        A grid of n points is about n^(1/2) wide in two dimensions and n^(2/3) in three; a chain has width 1.
        """
        n = self.shape[0]
        if self.nnz == 0:
            return 0.0
        graph = sp.csr_array((np.ones(self.nnz, dtype=np.int8), self.col, self.indptr), shape=self.shape)
        place = np.empty(n, dtype=self.col.dtype)
        place[reverse_cuthill_mckee(graph, symmetric_mode=self.is_symmetric)] = np.arange(n, dtype=self.col.dtype)
        row, col = place[self.row], place[self.col]
        first = np.arange(n, dtype=place.dtype)
        np.minimum.at(first, np.maximum(row, col), np.minimum(row, col))
        return float(np.mean(np.arange(n) - first))

    @cached_property
    def _rows(self) -> sp.csr_array:
        entries = sp.csr_array((np.zeros(self.nnz), self.col, self.indptr), shape=self.shape)
        entries.has_sorted_indices = entries.has_canonical_format = True
        return entries

    def matrix(self, values: Indices) -> sp.csr_array:
        """The matrix with these values, which are not copied; SciPy's constructor checks indices at length."""
        return filled(self._rows, values)

    @cached_property
    def _columns(self) -> sp.csc_array:
        rows = self._rows
        entries = sp.csc_array((rows.data, rows.indices, rows.indptr), shape=self.shape[::-1])
        entries.has_sorted_indices = entries.has_canonical_format = True
        return entries

    def transposed(self, values: Indices) -> sp.csc_array:
        """The transpose of that matrix, which shares the values."""
        return filled(self._columns, values)

    def blocks(self, count: int) -> "Symbolic":
        """The pattern of ``count`` matrices on this one, as diagonal blocks."""
        m, n = self.shape
        shape, nnz = (count * m, count * n), count * self.nnz
        member = np.arange(count, dtype=index_dtype(nnz, shape))[:, None]
        indptr = np.append((self.indptr[:-1] + member * self.nnz).ravel(), member.dtype.type(nnz))
        return Symbolic(indptr, (self.col + member * n).ravel(), shape)

    @cached_property
    def keys(self) -> Indices:
        """row * n + col of each stored entry, increasing: where an entry is looked up."""
        return self.row.astype(np.int64) * self.shape[1] + self.col


def from_coo(row: Indices, col: Indices, shape: tuple[int, int]) -> Symbolic:
    """Bring coordinates in any order, with or without repeats, into canonical form.

    Raises
    ------
    ValueError
        If an index lies outside ``shape``.
    """
    _check_range("row", row, shape[0])
    _check_range("col", col, shape[1])
    dtype = index_dtype(row.size, shape)
    keys = row.astype(np.int64) * shape[1] + col
    steps = np.diff(keys)
    if np.all(steps > 0):
        return Symbolic(_pointers(row, shape[0], dtype), col.astype(dtype), shape)
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    first = np.ones(keys.size, dtype=bool)
    first[1:] = keys[1:] != keys[:-1]
    if first.all():
        return Symbolic(_pointers(row, shape[0], dtype), col[order].astype(dtype), shape, order=order)
    merge = np.empty(keys.size, dtype=np.int64)
    merge[order] = np.cumsum(first) - 1
    row, col = row[order[first]], col[order[first]]
    return Symbolic(_pointers(row, shape[0], dtype), col.astype(dtype), shape, merge=merge)


def from_padded_coo(row: Indices, col: Indices, shape: tuple[int, int]) -> tuple[Indices | None, Symbolic]:
    """The same where entries past the end are padding: which entries count, None for all, and the pattern of those."""
    counts = (row < shape[0]) & (col < shape[1])
    counted = None if counts.all() else np.flatnonzero(counts)
    given = (row, col) if counted is None else (row[counted], col[counted])
    return counted, from_coo(*given, shape)


def from_csr(indptr: Indices, col: Indices, shape: tuple[int, int]) -> Symbolic:
    """The same for row pointers and column indices.

    Raises
    ------
    ValueError
        If the row pointers do not count the column indices, or an index lies outside ``shape``.
    """
    counts = np.diff(indptr)
    if indptr.size != shape[0] + 1 or indptr[0] != 0 or indptr[-1] != col.size or np.any(counts < 0):
        raise ValueError(
            f"row pointers must rise from 0 to the number of column indices, {col.size}, in {shape[0] + 1} steps; "
            f"got {indptr.size} pointers from {indptr[0]} to {indptr[-1]}."
        )
    dtype = index_dtype(col.size, shape)
    inside = np.ones(max(col.size - 1, 0), dtype=bool)  # whether an entry and the next one share a row
    ends = indptr[1:-1]
    inside[ends[(ends > 0) & (ends < col.size)] - 1] = False
    if np.all((np.diff(col) > 0) | ~inside):
        _check_range("col", col, shape[1])
        return Symbolic(indptr.astype(dtype), col.astype(dtype), shape)
    return from_coo(np.repeat(np.arange(shape[0], dtype=dtype), counts), col, shape)


def filled(matrix: Any, values: Indices) -> Any:
    """A matrix of SciPy's with the indices of another, in a tenth of the time that its constructor takes."""
    other = copy(matrix)
    other.data = values
    return other


def locate(wanted: Symbolic, among: Symbolic) -> tuple[Indices, Indices]:
    """Where each entry of one pattern is stored in another of the same shape, and whether it is."""
    place = np.searchsorted(among.keys, wanted.keys)
    place = np.minimum(place, max(among.nnz - 1, 0))
    stored = among.keys[place] == wanted.keys if among.nnz else np.zeros(wanted.nnz, dtype=bool)
    return place, stored


def index_dtype(nnz: int, shape: tuple[int, int]) -> type[np.signedinteger[Any]]:
    """32-bit where the entries and both sides can be counted in it."""
    return np.int32 if max(nnz, *shape) <= _LARGEST_INT32 else np.int64


def _pointers(row: Indices, m: int, dtype: npt.DTypeLike) -> Indices:
    pointers = np.zeros(m + 1, dtype=dtype)
    np.cumsum(np.bincount(row, minlength=m), out=pointers[1:])
    return pointers


def _check_range(name: str, index: Indices, size: int) -> None:
    if index.size and (index.min() < 0 or index.max() >= size):
        bad = int(np.count_nonzero((index < 0) | (index >= size)))
        raise ValueError(
            f"{name} indices must lie in 0..{size - 1}; got {bad} outside, from {index.min()} to {index.max()}."
        )
