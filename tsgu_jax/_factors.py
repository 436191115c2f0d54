"""The host's side of ``direct``: factors by number, and solves with them for whole batches. NumPy only."""

import itertools
from collections import OrderedDict
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from tsgu._core import _symbolic
from tsgu._core._superlu import Factorisation, SingularMatrixError
from tsgu_jax._report import CODE

Array = npt.NDArray[Any]

_MOST = 64
_MOST_BYTES = 1 << 30


@dataclass
class _Factors:
    """Factors of one matrix, None if it is singular; a solve may improve them, so one at a time."""

    lu: Factorisation | None
    lock: Lock = field(default_factory=Lock)


class _Store:
    """Factors by number, the least recently used dropped when they are many or large."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._lock = Lock()
        self._factors: OrderedDict[int, _Factors] = OrderedDict()

    def add(self, factors: _Factors) -> int:
        with self._lock:
            number = next(self._numbers) % 2**31
        self.keep(number, factors)
        return number

    def keep(self, number: int, factors: _Factors) -> None:
        with self._lock:
            self._factors[number] = factors
            while len(self._factors) > 1 and (len(self._factors) > _MOST or self._bytes() > _MOST_BYTES):
                self._factors.popitem(last=False)

    def find(self, number: int) -> _Factors | None:
        with self._lock:
            if number in self._factors:
                self._factors.move_to_end(number)
            return self._factors.get(number)

    def _bytes(self) -> int:
        return sum(factors.lu.nbytes for factors in self._factors.values() if factors.lu is not None)


_store = _Store()


def factor(shape: tuple[int, int], values: Array, row: Array, col: Array) -> Array:
    """Factor the matrices with these values; a number for each.

    The arrays may have leading dimensions, those of nested batches, of size 1 where there is none.
    """
    values, row, col = np.asarray(values), np.asarray(row), np.asarray(col)
    lead = np.broadcast_shapes(values.shape[:-1], row.shape[:-1])
    numbers = np.empty(lead, np.int32)
    for index in np.ndindex(lead):
        numbers[index] = _store.add(_factored(shape, *(_member(a, index, 1) for a in (values, row, col))))
    return numbers


def solve(
    shape: tuple[int, int], transposed: bool, ndim: int, number: Any, values: Any, row: Any, col: Any, b: Any
) -> tuple[Array, Array, Array]:
    """Solve with the factors of these numbers: the solutions, and per column status and relative residual.

    Batches of b over one matrix are laid side by side as columns.
    """
    number, values, row, col, b = (np.asarray(a) for a in (number, values, row, col, b))
    lead = np.broadcast_shapes(number.shape, b.shape[: b.ndim - ndim])
    own = b.shape[b.ndim - ndim :]
    b = np.broadcast_to(b, (*lead, *own))
    x = np.empty_like(b)
    code = np.empty((*lead, *own[1:]), np.int32)
    residual = np.empty(code.shape, b.real.dtype)
    number = number.reshape((1,) * (len(lead) - number.ndim) + number.shape)
    for index in np.ndindex(number.shape):
        place = tuple(slice(None) if size == 1 else i for i, size in zip(index, number.shape, strict=True))
        part = b[place]
        axis = part.ndim - ndim
        columns = np.moveaxis(part, axis, 0)
        stored = [_member(a, index, 1) for a in (values, row, col)]
        solved, codes, residuals = _solve(
            shape, transposed, int(number[index]), stored, columns.reshape(own[0], columns.size // own[0])
        )
        x[place] = np.moveaxis(solved.reshape(columns.shape), 0, axis)
        code[place], residual[place] = codes.reshape(code[place].shape), residuals.reshape(code[place].shape)
    return x, code, residual


def _member(a: Array, index: tuple[int, ...], ndim: int) -> Array:
    """One member of a batch, where leading dimensions of size 1 are broadcast."""
    lead = a.shape[: a.ndim - ndim]
    used = index[len(index) - len(lead) :]
    member: Array = a[tuple(0 if size == 1 else i for i, size in zip(used, lead, strict=True))]
    return member


def _solve(
    shape: tuple[int, int], transposed: bool, number: int, stored: list[Array], b: Array
) -> tuple[Array, Array, Array]:
    factors = _store.find(number)
    if factors is None:
        factors = _factored(shape, *stored)
        _store.keep(number, factors)
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


def _factored(shape: tuple[int, int], values: Array, row: Array, col: Array) -> _Factors:
    counts = (row < shape[0]) & (col < shape[1])
    if not counts.all():
        values, row, col = values[counts], row[counts], col[counts]
    if not np.isfinite(values).all():
        return _Factors(None)
    symbolic = _symbolic.from_coo(row, col, shape)
    if symbolic.merge is not None:
        merged = np.zeros(symbolic.nnz, values.dtype)
        np.add.at(merged, symbolic.merge, values)
        values = merged
    elif symbolic.order is not None:
        values = values[symbolic.order]
    try:
        return _Factors(Factorisation(symbolic, values))
    except SingularMatrixError:
        return _Factors(None)
