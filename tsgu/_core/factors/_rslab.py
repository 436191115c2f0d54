"""Factors by rslab: by columns where these are short, else L D L^T of a symmetric matrix, else LU.

T. A. Davis and E. Palamadai Natarajan, ACM Trans. Math. Softw. 37 (2010), article 36, for the first; J. R. Bunch and
L. Kaufman, Math. Comp. 31 (1977), 163-179, for the second.

The first looks for a pivot in the whole column. The others look inside a block of columns alone, replace nothing and
report nothing: on values that their analysis does not suit they end in a residual of 1e50, or refuse. So no factors are
believed here before they have solved a random right-hand side; see :class:`Factorisation`.

rslab releases the lock of the interpreter, and its threads do not survive a fork.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from scipy.sparse.csgraph import structural_rank

from tsgu._core.factors import _memory
from tsgu._core.pattern._symbolic import Symbolic

Array = npt.NDArray[Any]

_LIGHT = 1300
"""Operations for a column of the factors up to which the work goes column by column, without dense blocks. On a grid of
60 by 60 unknowns there are as many, and both ways take the same time."""

_SPARE_BYTES = 1 << 28
"""Memory of factors that are kept to be filled with other values."""


@cache
def installed() -> bool:
    """Whether rslab can be imported; looked up once, without importing it."""
    return find_spec("rslab") is not None


_first_user: list[int] = []


def usable() -> bool:
    """Whether rslab answers in this process: after a fork it would wait for threads that are not there any more."""
    if not _first_user:
        _first_user.append(os.getpid())
    return _first_user[0] == os.getpid()


class Analysis:
    """What rslab found out about a pattern, and factors by columns that are free for other values.

    Parameters
    ----------
    symbolic : Symbolic
        The pattern, which is not kept: together they would stay in memory until garbage is collected.
    values : ndarray, shape (nnz,)
        The first on it.
    is_symmetric : bool
        Whether these make A its own transpose.
    """

    def __init__(self, symbolic: Symbolic, values: Array, is_symmetric: bool) -> None:
        self.to_columns = symbolic.transposition
        self.prefers_symmetric = True
        self._lock = Lock()
        self._symmetric: tuple[Any, Array] | None = None
        self._general: Any = None
        self._spare: dict[np.dtype[Any], list[Any]] = {}
        self.by_columns: Any = None
        blocks = self.symmetric(symbolic, values)[0] if is_symmetric else self.general(symbolic, values, True)
        self.entries: int = blocks.factor_nnz
        if blocks.estimate_memory(values.dtype.name)["factor_flops"] <= _LIGHT * symbolic.shape[0]:
            self.by_columns = _analysed("klu", columns(symbolic, values))
            self._symmetric = self._general = None

    def symmetric(self, symbolic: Symbolic, values: Array) -> tuple[Any, Array]:
        """The analysis for L D L^T, and which entries it takes: the upper triangle by rows is the lower by columns."""
        with self._lock:
            if self._symmetric is None:
                lower = sp.tril(columns(symbolic, values), format="csc")
                self._symmetric = _analysed("ldlt", lower), np.flatnonzero(symbolic.row <= symbolic.col)
            return self._symmetric

    def general(self, symbolic: Symbolic, values: Array, anew: bool) -> Any:
        """The analysis for LU, whose rows are matched to columns by the values that it is made with."""
        with self._lock:
            if self._general is None or anew:
                self._general = _analysed("lu", columns(symbolic, values))
            return self._general

    @property
    def matched(self) -> bool:
        """Whether an analysis for LU is there, made with some other values."""
        return self._general is not None

    def take(self, dtype: np.dtype[Any]) -> Any:
        """Factors by columns that nobody uses any more; None where there are none of this dtype."""
        with self._lock:
            spare = self._spare.get(dtype)
            return spare.pop() if spare else None

    def give(self, handle: Any, dtype: np.dtype[Any], nbytes: int) -> None:
        """Keep factors for other values, if there is room."""
        with self._lock:
            if sum(map(len, self._spare.values())) * nbytes < _SPARE_BYTES:
                self._spare.setdefault(dtype, []).append(handle)


class RslabFactors:
    """Factors of one matrix, in memory of rslab's.

    Parameters
    ----------
    handle : object
        As rslab returns it.
    dtype : dtype
        Of the matrix.
    symmetric : bool
        Whether A is its own transpose.
    lender : Analysis, optional
        To whom the factors go back.
    """

    library = "rslab"
    exchanges_rows = False

    def __init__(self, handle: Any, dtype: np.dtype[Any], symmetric: bool, lender: Analysis | None = None) -> None:
        self._handle, self._dtype, self._symmetric, self._lender = handle, dtype, symmetric, lender
        self.nbytes: int = handle.heap_bytes

    def __del__(self) -> None:
        if self._lender is not None:
            self._lender.give(self._handle, self._dtype, self.nbytes)

    def retire(self) -> None:
        """Not to be filled again: these pivots do not suit every matrix on the pattern."""
        self._lender = None

    @property
    def usable(self) -> bool:
        return usable()

    def solve(self, b: Array, transposed: bool) -> Array:
        """X with A X = B, or A^T X = B, in the dtype of B."""
        if b.size == 0:
            return b.copy()
        given = np.ascontiguousarray(b, self._dtype)
        if b.ndim == 1:
            x = self._handle.solve_transpose(given) if transposed else self._handle.solve(given)
        elif not transposed or self._symmetric:
            x = self._handle.solve_many(given)
        else:
            x = np.empty_like(given)
            for place, column in enumerate(np.ascontiguousarray(given.T)):
                x[:, place] = self._handle.solve_transpose(column)
        found: Array = x.astype(b.dtype, copy=False)
        return found


def attempts(values: Array, symbolic: Symbolic, threads: int) -> Iterator[RslabFactors]:
    """Factors, the cheapest first; each is made when it is asked for, because those before were not accurate.

    What rslab refuses is left to whoever is asked next. The pattern is of full structural rank.

    Parameters
    ----------
    values : ndarray, shape (nnz,)
        In the pattern's order.
    symbolic : Symbolic
        The pattern, of shape (n, n), n > 0.
    threads : int
        How many may work on one matrix.

    Raises
    ------
    MemoryError
        If there would be too little of it.
    """
    if not usable() or not _matches(symbolic, values):  # of which rslab would tell the terminal
        return
    analysis = symbolic.analyses.get("rslab")
    if analysis is None:
        analysis = Analysis(symbolic, values, _is_symmetric(symbolic, values))
        analysis = symbolic.analyses.setdefault("rslab", analysis)
    if analysis.by_columns is not None:
        yield from _by_columns(analysis, values)
        return
    if analysis.prefers_symmetric and _is_symmetric(symbolic, values):
        with suppress(RuntimeError):
            found, upper = analysis.symmetric(symbolic, values)
            yield RslabFactors(_made(found, values[upper], threads), values.dtype, True)
        analysis.prefers_symmetric = False  # these values are not the last of their kind
    anew = not analysis.matched
    for again in (anew, True)[anew:]:
        with suppress(RuntimeError):
            found = analysis.general(symbolic, values, again)
            yield RslabFactors(_made(found, values[analysis.to_columns], threads), values.dtype, False)


def _by_columns(analysis: Analysis, values: Array) -> Iterator[RslabFactors]:
    """With the pivots of factors that are free, then with a search for them; by one thread."""
    given = values[analysis.to_columns]
    _memory.check("rslab", analysis.entries * (given.itemsize + 8), analysis.by_columns.n)
    handle = analysis.take(values.dtype)
    if handle is not None:
        with suppress(RuntimeError):
            handle.refactor(given)
            factors = RslabFactors(handle, values.dtype, False, analysis)
            yield factors
            factors.retire()
            del factors, handle
    with suppress(RuntimeError):
        _check_process()
        yield RslabFactors(analysis.by_columns.factor(given, parallel=False), values.dtype, False, analysis)


def _check_process() -> None:
    if not usable():
        raise RuntimeError("rslab does not survive a fork")  # a refusal like any other, for whoever is asked next


def _made(found: Any, given: Array, threads: int) -> Any:
    _check_process()
    most = 1 if threads == 1 else ("auto", threads)
    _memory.check("rslab", found.memory_plan(given.dtype.name, threads=most)["factor_peak_bytes"], found.n)
    return found.factor(given, threads=most)


def _analysed(path: str, matrix: sp.csc_array) -> Any:
    import rslab  # where used

    _check_process()
    return rslab.analyze(matrix, path=path, **({} if path == "klu" else {"threads": 1}))


def columns(symbolic: Symbolic, values: Array) -> sp.csc_array:
    """The matrix by columns, its rows in order."""
    other = symbolic.transpose
    matrix = sp.csc_array((values[other.order], other.col, other.indptr), shape=symbolic.shape)
    matrix.has_sorted_indices = matrix.has_canonical_format = True
    return matrix


def _matches(symbolic: Symbolic, values: Array) -> bool:
    """Whether rows can be matched to columns by entries that are not zero; the pattern alone is known to allow it."""
    if values.all():
        return True
    kept = np.flatnonzero(values)
    graph = sp.csr_array((np.ones(kept.size, np.int8), (symbolic.row[kept], symbolic.col[kept])), shape=symbolic.shape)
    return bool(structural_rank(graph) == symbolic.shape[0])


def _is_symmetric(symbolic: Symbolic, values: Array) -> bool:
    return symbolic.is_symmetric and np.array_equal(values, values[symbolic.transposition])
