"""Factors that compiled programs have left on the host, for the adjoint and the next call, within a bound on memory.

A program cannot hold on to an object of Python, nor say when it is through with one. So factors are found by the matrix
that they are of: its pattern and its values, compared entry by entry. A matrix that is solved with in every step of a
loop, in a forward and an adjoint solve, or in another program is factored once, as long as its factors are kept; the
least recently used go first, and come back by a factorisation.
"""

from __future__ import annotations

import os
import zlib
from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_LEAST = 4
"""Factors that are kept whatever their size: those that one solve may use side by side."""


class Factors:
    """Factors of one matrix, None if it is singular, and its values; made when they are first asked for."""

    def __init__(self, values: Array) -> None:
        self.values = values
        self.lu: Any = None
        self.made = False
        self.lock = Lock()

    @property
    def nbytes(self) -> int:
        return self.values.nbytes + (0 if self.lu is None else int(self.lu.nbytes))


class FactorStore:
    """Factors kept between solves by compiled programs: :data:`tsgu_jax.factor_store`.

    Attributes
    ----------
    limit : int
        Bytes that the factors may take together, by default a quarter of the memory of the machine; those of the last
        four matrices are kept in any case. May be set.

    Examples
    --------
    >>> import jax.numpy as jnp, tsgu_jax
    >>> from jax.experimental.sparse import BCOO
    >>> tsgu_jax.factor_store.clear()
    >>> x = tsgu_jax.direct(BCOO.fromdense(jnp.array([[2.0, 1.0], [1.0, 3.0]])), jnp.ones(2))
    >>> len(tsgu_jax.factor_store)
    1
    >>> tsgu_jax.factor_store.limit = 2**30
    """

    def __init__(self, limit: int | None = None) -> None:
        self._lock = Lock()
        self._factors: OrderedDict[Hashable, Factors] = OrderedDict()
        self._sizes: dict[Hashable, int] = {}
        self._last: tuple[Hashable, ...] = ()
        self._limit = _memory() // 4 if limit is None else limit

    @property
    def limit(self) -> int:
        return self._limit

    @limit.setter
    def limit(self, limit: int) -> None:
        with self._lock:
            self._limit = int(limit)
            self._drop()

    @property
    def nbytes(self) -> int:
        """Bytes that the factors take, as their libraries count them."""
        return sum(self._sizes.values())

    def __len__(self) -> int:
        """Of how many matrices factors are kept."""
        return len(self._factors)

    def clear(self) -> None:
        """Forget all factors; what is still solved with is factored again."""
        with self._lock:
            self._factors.clear()
            self._sizes.clear()

    def __repr__(self) -> str:
        return f"<factors of {len(self)} matrices, {self.nbytes / 2**20:.1f} of {self.limit / 2**20:.0f} MiB>"

    def of(self, kind: tuple[Hashable, ...], values: Array, make: Callable[[Array], Any]) -> Factors:
        """The factors of this kind of the matrix with these values, made where they are not there.

        Of several threads that ask for the same one makes them.
        """
        kind = *kind, values.dtype.char
        with self._lock:
            key = self._last if self._is_last(kind, values) else (*kind, zlib.crc32(_bytes(values).data))
            factors = self._factors.get(key)
            if factors is None or not _same(factors.values, values):
                factors = self._factors[key] = Factors(values.copy())
            self._factors.move_to_end(key)
            self._last = key
        with factors.lock:
            if not factors.made:
                factors.lu = make(factors.values)
                factors.made = True
                self._grown(key, factors)
        return factors

    def _is_last(self, kind: tuple[Hashable, ...], values: Array) -> bool:
        """Whether the last one is wanted again, as in an adjoint: a comparison takes less than a hash."""
        last = self._factors.get(self._last)
        return last is not None and self._last[:-1] == kind and _same(last.values, values)

    def _grown(self, key: Hashable, factors: Factors) -> None:
        with self._lock:
            if self._factors.get(key) is factors:
                self._sizes[key] = factors.nbytes
                self._drop()

    def _drop(self) -> None:
        total = sum(self._sizes.values())
        while len(self._factors) > _LEAST and total > self._limit:
            key, _ = self._factors.popitem(last=False)
            total -= self._sizes.pop(key, 0)


def _same(one: Array, other: Array) -> bool:
    """Bit by bit, so that NaN is the same as itself."""
    return np.array_equal(_bytes(one), _bytes(other))


def _bytes(values: Array) -> Array:
    return np.ascontiguousarray(values).view(np.uint8)


def _memory() -> int:
    """Bytes of memory that the machine has."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not on Windows
        return 8 << 30


store = FactorStore()
