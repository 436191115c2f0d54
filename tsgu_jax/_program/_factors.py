"""The host's side of ``direct``: factors by number, and solves with them for whole batches. NumPy only."""

import itertools
import os
import secrets
from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tsgu._core.factors._factorisation import Factorisation
from tsgu._core.factors._superlu import SingularMatrixError
from tsgu._core.pattern import _symbolic
from tsgu_jax._program._report import CODE

Array = npt.NDArray[Any]

_MOST = 64
_MOST_BYTES = 1 << 30
_LEAST = 4
"""Factors that are kept whatever their size: those that one program may use side by side."""


@dataclass
class Factors:
    """Factors of one matrix, None if it is singular; a solve may improve them, so one at a time."""

    lu: Any
    lock: Lock = field(default_factory=Lock)


WORDS = 2
"""32-bit words of a number, with 64-bit types turned off too: one drawn for the process, and one that counts."""


class _Store:
    """Factors by number, the least recently used dropped when they are many or large.

    A number may come from elsewhere, in what was pickled or what another process has sent. It must not be found then,
    so that the factors are made again from the values.
    """

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._process, self._token = 0, 0
        self._lock = Lock()
        self._factors: OrderedDict[int, Factors] = OrderedDict()

    def add(self, factors: Factors) -> int:
        with self._lock:
            if self._process != os.getpid():  # after a fork as well
                self._process, self._token = os.getpid(), 1 + secrets.randbelow(2**32 - 1)
            number = self._token << 32 | next(self._numbers) % 2**32
        self.keep(number, factors)
        return number

    def keep(self, number: int, factors: Factors) -> None:
        with self._lock:
            self._factors[number] = factors
            while len(self._factors) > _LEAST and (len(self._factors) > _MOST or self._bytes() > _MOST_BYTES):
                self._factors.popitem(last=False)

    def find(self, number: int) -> Factors | None:
        with self._lock:
            if number in self._factors:
                self._factors.move_to_end(number)
            return self._factors.get(number)

    def _bytes(self) -> int:
        return sum(factors.lu.nbytes for factors in self._factors.values() if factors.lu is not None)


store = _Store()


def words_of(numbers: Any) -> Array:
    """Numbers, (...), as they travel, (..., words)."""
    whole = np.asarray(numbers, np.uint64)
    return np.stack([whole >> np.uint64(32), whole & np.uint64(2**32 - 1)], axis=-1).astype(np.uint32)


def numbers_of(words: Array) -> Array:
    """The numbers again."""
    whole = words.astype(np.uint64)
    numbers: Array = whole[..., 0] << np.uint64(32) | whole[..., 1]
    return numbers


def factor(library: str, rtol: float | None, shape: tuple[int, int], values: Array, row: Array, col: Array) -> Array:
    """Factor the matrices with these values; a number for each, in words.

    The arrays may have leading dimensions, those of nested batches, of size 1 where there is none.
    """
    lead = np.broadcast_shapes(values.shape[:-1], row.shape[:-1])
    numbers = np.empty(lead, np.uint64)
    for index in np.ndindex(lead):
        numbers[index] = store.add(_factored(library, rtol, shape, *(member(a, index, 1) for a in (values, row, col))))
    return words_of(numbers)


def solve(
    library: str,
    rtol: float | None,
    shape: tuple[int, int],
    transposed: bool,
    ndim: int,
    number: Any,
    values: Any,
    row: Any,
    col: Any,
    b: Any,
) -> tuple[Array, Array, Array]:
    """Solve with the factors of these numbers: the solutions, and per column status and relative residual."""
    members, b = parts(numbers_of(number), b, ndim)
    x = np.empty_like(b)
    code = np.empty((*b.shape[: b.ndim - ndim], *b.shape[b.ndim - ndim + 1 :]), np.int32)
    residual = np.empty(code.shape, b.real.dtype)
    for part in members:
        stored = [member(a, part.member, 1) for a in (values, row, col)]
        solved, codes, residuals = _solve(library, rtol, shape, transposed, part.number, stored, part.columns)
        x[part.place] = part.restored(solved)
        code[part.place] = codes.reshape(code[part.place].shape)
        residual[part.place] = residuals.reshape(code[part.place].shape)
    return x, code, residual


class Part(NamedTuple):
    """The members of a batch that share a factor, laid side by side as columns, (n, ...)."""

    member: tuple[int, ...]
    number: int
    place: tuple[Any, ...]
    columns: Array
    shape: tuple[int, ...]
    axis: int

    def restored(self, columns: Array) -> Array:
        return np.moveaxis(columns.reshape(self.shape), 0, self.axis)


def parts(number: Array, b: Array, ndim: int) -> tuple[Iterator[Part], Array]:
    """The parts of b with one factor each, and b with the leading dimensions of both."""
    lead = np.broadcast_shapes(number.shape, b.shape[: b.ndim - ndim])
    b = np.broadcast_to(b, (*lead, *b.shape[b.ndim - ndim :]))
    number = number.reshape((1,) * (len(lead) - number.ndim) + number.shape)

    def each() -> Iterator[Part]:
        for index in np.ndindex(number.shape):
            place = tuple(slice(None) if size == 1 else i for i, size in zip(index, number.shape, strict=True))
            axis = b[place].ndim - ndim
            columns = np.moveaxis(b[place], axis, 0)
            flat = columns.reshape(columns.shape[0], columns.size // max(1, columns.shape[0]))
            yield Part(index, int(number[index]), place, flat, columns.shape, axis)

    return each(), b


def member(a: Array, index: tuple[int, ...], ndim: int) -> Array:
    """One member of a batch, where leading dimensions of size 1 are broadcast."""
    lead = a.shape[: a.ndim - ndim]
    used = index[len(index) - len(lead) :]
    member: Array = a[tuple(0 if size == 1 else i for i, size in zip(used, lead, strict=True))]
    return member


def _solve(
    library: str,
    rtol: float | None,
    shape: tuple[int, int],
    transposed: bool,
    number: int,
    stored: list[Array],
    b: Array,
) -> tuple[Array, Array, Array]:
    factors = store.find(number)
    if factors is None:
        factors = _factored(library, rtol, shape, *stored)
        store.keep(number, factors)
    try:
        if factors.lu is None:
            raise SingularMatrixError
        with factors.lock:
            x, columns = factors.lu.solve(b, transposed)
    except SingularMatrixError:
        nothing = np.full_like(b, np.nan)
        return nothing, np.full(b.shape[1], CODE["singular"]), nothing[0].real
    code = np.array([CODE[column.status] for column in columns], np.int32)
    residual = np.array([column.residual for column in columns], b.real.dtype)
    return x.astype(b.dtype, copy=False), code, residual


def _factored(
    library: str, rtol: float | None, shape: tuple[int, int], values: Array, row: Array, col: Array
) -> Factors:
    symbolic, values = canonical(shape, values, row, col)
    if not np.isfinite(values).all():
        return Factors(None)
    try:
        return Factors(Factorisation(symbolic, values, library, rtol))
    except SingularMatrixError:
        return Factors(None)


def canonical(shape: tuple[int, int], values: Array, row: Array, col: Array) -> tuple[_symbolic.Symbolic, Array]:
    """The pattern and the values on it, from entries in any order, with repeats and with padding."""
    counted, symbolic = _patterns.find(shape, row, col)
    values = values if counted is None else values[counted]
    if symbolic.merge is not None:
        merged = np.zeros(symbolic.nnz, values.dtype)
        np.add.at(merged, symbolic.merge, values)
        values = merged
    elif symbolic.order is not None:
        values = values[symbolic.order]
    return symbolic, values


class _Patterns:
    """The last patterns, found again by their indices: with a pattern its order of elimination is found again."""

    def __init__(self, size: int) -> None:
        self._lock = Lock()
        self._known: deque[tuple[Any, Array, Array, Array | None, _symbolic.Symbolic]] = deque(maxlen=size)

    def find(self, shape: tuple[int, int], row: Array, col: Array) -> tuple[Array | None, _symbolic.Symbolic]:
        """Which entries count, None for all, and the pattern of those."""
        with self._lock:
            known = list(self._known)
        for its_shape, its_row, its_col, counted, symbolic in known:
            if its_shape == shape and np.array_equal(its_row, row) and np.array_equal(its_col, col):
                return counted, symbolic
        counted, symbolic = _symbolic.from_padded_coo(row, col, shape)
        with self._lock:
            self._known.appendleft((shape, row.copy(), col.copy(), counted, symbolic))
        return counted, symbolic


_patterns = _Patterns(8)
