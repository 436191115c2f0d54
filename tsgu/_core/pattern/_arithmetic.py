"""Sums and products of patterns: where their entries stand, and what each is made of. Indices, no values."""

from collections.abc import Callable
from threading import Lock
from typing import Any, Generic, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import numpy as np

from tsgu._core.pattern._symbolic import Indices, Symbolic, from_coo, index_dtype, locate

Plan = TypeVar("Plan")


class Sum(NamedTuple):
    """The pattern of A + B: every position that A or B stores.

    Parameters
    ----------
    symbolic : Symbolic
        That of A, or else of B, itself where it stores all that the other does.
    left, right : ndarray or None
        Where the entries of A and of B stand in it; None where they are its entries, in its order.
    """

    symbolic: Symbolic
    left: Indices | None
    right: Indices | None


class Product(NamedTuple):
    """The pattern of A @ B, and the terms a[i, k] b[k, j] that its values are sums of.

    Parameters
    ----------
    symbolic : Symbolic
        Every position with a term.
    left, right : ndarray, shape (terms,)
        Which entry of A and which of B are the factors of a term.
    into : ndarray, shape (terms,), or None
        Which entry of the product a term belongs to, not decreasing; None where each has one term.
    """

    symbolic: Symbolic
    left: Indices
    right: Indices
    into: Indices | None


def sum_of(a: Symbolic, b: Symbolic) -> Sum:
    """The pattern of A + B, for two of one shape."""
    place, stored = locate(b, a)
    if stored.all():
        return Sum(a, None, None if a.nnz == b.nnz else place)
    place, stored = locate(a, b)
    if stored.all():
        return Sum(b, place, None)
    keys = np.union1d(a.keys, b.keys)
    symbolic = from_coo(*np.divmod(keys, a.shape[1]), a.shape)
    return Sum(symbolic, np.searchsorted(keys, a.keys), np.searchsorted(keys, b.keys))


def product_of(a: Symbolic, b: Symbolic) -> Product:
    """The pattern of A @ B, for A of shape (m, l) and B of shape (l, n).

    Row k of B, as a whole, meets every entry of A in column k (Gustavson 1978).
    """
    counts = np.diff(b.indptr)[a.col].astype(np.int64)
    left = np.repeat(np.arange(a.nnz), counts)
    first = np.cumsum(counts) - counts  # term of each entry of A
    right = np.arange(left.size) + np.repeat(b.indptr[a.col] - first, counts)
    shape = (a.shape[0], b.shape[1])
    terms = from_coo(a.row[left], b.col[right], shape)
    order = terms.order if terms.merge is None else np.argsort(terms.merge, kind="stable")
    into = None if terms.merge is None else terms.merge[order]
    if order is not None:
        left, right = left[order], right[order]
    dtype = index_dtype(max(a.nnz, b.nnz, terms.nnz), shape)
    symbolic = Symbolic(terms.indptr, terms.col, shape)
    return Product(symbolic, left.astype(dtype), right.astype(dtype), None if into is None else into.astype(dtype))


def diagonal_of(a: Symbolic) -> tuple[Indices, Indices]:
    """Where each entry of the diagonal is stored, shape (min(m, n),), and whether it is."""
    size = min(a.shape)
    pointers = np.minimum(np.arange(a.shape[0] + 1), size)
    return locate(Symbolic(pointers, np.arange(size), a.shape), a)


class Pairs(Generic[Plan]):
    """What was found out about pairs of patterns, kept for as long as both of them are.

    What is kept must not refer to either of the two, or it would keep them.
    """

    def __init__(self, make: Callable[[Any, Any], Plan]) -> None:
        self._make = make
        self._lock = Lock()
        self._found: WeakKeyDictionary[Any, WeakKeyDictionary[Any, Plan]] = WeakKeyDictionary()

    def find(self, a: Any, b: Any) -> Plan:
        with self._lock:
            plan = self._found.setdefault(a, WeakKeyDictionary()).get(b)
        if plan is None:
            plan = self._make(a, b)
            with self._lock:
                self._found.setdefault(a, WeakKeyDictionary())[b] = plan
        return plan
