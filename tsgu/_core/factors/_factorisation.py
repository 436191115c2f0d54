"""A matrix factored once for A x = b and A^T y = g, by SuperLU, PARDISO or rslab, with its residuals checked."""

import os
from collections.abc import Iterator
from threading import Lock
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from tsgu._core.factors import _accuracy, _mkl, _pardiso, _rslab, _superlu
from tsgu._core.factors._nullvector import Probe, Verdict, limits
from tsgu._core.factors._superlu import SingularMatrixError
from tsgu._core.methods._options import default_rtol
from tsgu._core.pattern._symbolic import Symbolic
from tsgu._core.report import _matrix_words, _solver_words
from tsgu._core.report._status import ColumnInfo

Array = npt.NDArray[Any]

LIBRARIES = ("superlu", "pardiso", "rslab")

_EXTRAS = {"pardiso": ("pypardiso", _mkl.installed), "rslab": ("rslab", _rslab.installed)}
"""Those that an extra brings, in the order of preference: its name, what it installs, and whether that is there."""


def library_for(asked: str | None) -> str:
    """The library asked for; where none is, the first of PARDISO, rslab and SuperLU that is installed.

    Raises
    ------
    ValueError
        If there is no such library.
    ImportError
        If it is not installed.
    """
    if asked is None:
        return next((library for library, (_, installed) in _EXTRAS.items() if installed()), "superlu")
    if asked not in LIBRARIES:
        raise ValueError(_solver_words.library(LIBRARIES, asked))
    if asked in _EXTRAS:
        package, installed = _EXTRAS[asked]
        if not installed():
            raise ImportError(f'library="{asked}" needs {package}: pip install "tsgu[{asked}]"')
    return asked


def cores() -> int:
    """Of the machine that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads_for(asked: int | None) -> int:
    """Threads for one factorisation: as many as asked for, else as ``OMP_NUM_THREADS`` says, and one a core at most."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    wanted = asked or (int(given) if given.isdigit() else cores())
    return max(1, min(wanted, cores()))


class Factors(Protocol):
    """Factors of one matrix, as a library made them."""

    library: str
    exchanges_rows: bool
    """Whether any rows are, wherever a pivot asks for it; if not, the factors have to show that they solve."""

    @property
    def nbytes(self) -> int:
        """Memory that they hold."""

    @property
    def usable(self) -> bool:
        """Whether they still answer; those of some libraries do not survive a fork."""

    def solve(self, b: Array, transposed: bool) -> Array:
        """X with A X = B, or A^T X = B, for B of shape (n,) or (n, k)."""


class Factorisation:
    """Factors of one matrix, and solves with it and its transpose; one at a time, from whatever thread.

    Parameters
    ----------
    symbolic : Symbolic
        Square pattern.
    values : ndarray, shape (nnz,)
        float32, float64, complex64 or complex128, in the pattern's order.
    library : str
        One of ``LIBRARIES``.
    rtol : float, optional
        The residual that calls for no refinement; by default that of every method.
    threads : int, optional
        How many rslab may use; see :func:`threads_for`.

    Raises
    ------
    SingularMatrixError
        If A is exactly singular; in the first solve where that shows there: see :mod:`tsgu._core.factors._nullvector`.
    MemoryError
        If the factors would take more memory than is free.
    """

    def __init__(
        self, symbolic: Symbolic, values: Array, library: str, rtol: float | None = None, threads: int | None = None
    ) -> None:
        values = np.array(values)  # a copy: those of the caller may be changed in place, or belong to another program
        self.matrix, self._transposed = symbolic.matrix(values), symbolic.transposed(values)
        self.eps, _ = limits(values.dtype)
        self.rtol = default_rtol(self.eps) if rtol is None else rtol
        self._magnitude: sp.csr_array | None = None
        self._probed = False
        self._refines = False  # each solution, where the pivots are poor
        self._settled = False
        self._verdict: Verdict | None = None
        self._refusal: SingularMatrixError | None = None
        self._lock = Lock()
        self._attempts = attempts(values, symbolic, library, threads_for(threads))
        self._factors = next(self._attempts, None)

    @property
    def nbytes(self) -> int:
        """Memory of the factors, as their library holds them."""
        return 0 if self._factors is None else self._factors.nbytes

    @property
    def library(self) -> str | None:
        """Which library made the factors, where there is anything to factor."""
        return None if self._factors is None else self._factors.library

    def solve(self, b: Array, transposed: bool) -> tuple[Array, list[ColumnInfo]]:
        """Solve A X = B, or A^T X = B, for B of shape (n,) or (n, k); non-finite columns give NaN.

        Raises
        ------
        SingularMatrixError
            If A is singular to working precision.
        """
        sizes = np.abs(b).max(axis=0, initial=0)
        finite = np.isfinite(sizes)  # a maximum keeps NaN
        if not finite.all():
            b, sizes = np.where(finite, b, 0), np.where(finite, sizes, 0)
        scale = _accuracy.power_of_two_near(sizes)
        with self._lock:
            x, residual, status = self._solve(b / scale, transposed)
        with np.errstate(over="ignore"):
            x *= scale
        if self._verdict is not None:
            status = ["ill-conditioned" if s in ("converged", "accuracy limit") else s for s in status]
        if not _accuracy.is_plainly_finite(x):
            for index in np.flatnonzero(~np.atleast_1d(np.isfinite(x).all(axis=0))):
                status[index] = "overflow"
        columns = [ColumnInfo(s, None, r) for s, r in zip(status, residual.tolist(), strict=True)]
        for index in np.flatnonzero(~np.atleast_1d(finite)):
            x[..., index if x.ndim > 1 else slice(None)] = np.nan
            columns[index] = ColumnInfo("non-finite", None, float("nan"))
        return x, columns

    def settle(self) -> None:
        """Find, by a solve for a random right-hand side, the factors that are accurate, and whether A is singular.

        Raises
        ------
        SingularMatrixError
            If it is.
        """
        with self._lock:
            if not self._settled and self._factors is not None:
                side = np.random.default_rng(0).uniform(-1, 1, self.matrix.shape[0])
                self._solve(side.astype(self.matrix.dtype), False)
            self._settled = True
            self._check_verdict()

    def precondition(self, v: Array, transposed: bool) -> Array:
        """A^-1 v, or its transpose, for v of shape (n,) or (n, k), as the factors are: neither refined nor judged.

        In the dtype of v. Raises as :meth:`settle`.
        """
        self.settle()
        if v.dtype.kind == "c" and self.matrix.dtype.kind != "c":
            real, imaginary = (self.precondition(part, transposed) for part in (v.real, v.imag))
            return (real + 1j * imaginary).astype(v.dtype, copy=False)
        if v.size == 0:
            return v
        with self._lock:
            x = self._raw(np.ascontiguousarray(v, self.matrix.dtype), transposed)
        return x.astype(v.dtype, copy=False)

    def _solve(self, b: Array, transposed: bool) -> tuple[Array, Array, list[str]]:
        if self._factors is not None and not self._factors.usable:
            self._try_next()
        x = self._first(b, transposed)
        residual, status = self._judge(b, x, transposed)
        if "inaccurate" in status or self._refines:
            x, residual, status = self._improve(b, x, transposed)
        while self._is_poor(status) and self._try_next():
            x, residual, status = self._improve(b, self._first(b, transposed), transposed)
        return x, residual, status

    def _is_poor(self, status: list[str]) -> bool:
        """Whether other factors may do better; what is singular is for those to say that exchange any rows."""
        final = self._factors is None or self._factors.exchanges_rows
        return "inaccurate" in status or (not final and "numerically singular" in status)

    def _try_next(self) -> bool:
        """Whether there were other factors to take."""
        try:
            better = next(self._attempts, None)
        except SingularMatrixError as error:
            self._refusal = error
            raise
        if better is not None:
            self._factors, self._probed, self._refines = better, False, False
        return better is not None

    def _first(self, b: Array, transposed: bool) -> Array:
        """X, and with factors that are used for the first time a look at whether A is singular.

        The right-hand side that tells is one more column, for which the factors are read once for both.
        """
        self._check_verdict()
        if self._probed or self._factors is None:
            return self._raw(b, transposed)
        probe = Probe(self.matrix)
        x, seen = self._probe(probe, b, transposed)
        while not self._factors.exchanges_rows:
            better = probe.solved(seen, self._raw)
            if better is not None or not self._try_next():
                self._refines, seen = better is not seen, seen if better is None else better
                break
            x, seen = self._probe(probe, b, transposed)
        self._verdict, self._probed = probe.verdict(seen, self._raw), True
        self._check_verdict()
        return x

    def _probe(self, probe: Probe, b: Array, transposed: bool) -> tuple[Array, Array]:
        if transposed:
            return self._raw(b, True), self._raw(probe.side, False)
        both = self._raw(np.column_stack([b, probe.side]), False)
        return np.ascontiguousarray(both[:, :-1]).reshape(b.shape), both[:, -1]

    def _check_verdict(self) -> None:
        if self._refusal is not None:
            raise self._refusal
        if self._verdict is not None and self._verdict.singular:
            raise SingularMatrixError(_matrix_words.null_vector(self._verdict.words, self._verdict.of_transpose))

    def _raw(self, b: Array, transposed: bool) -> Array:
        return b if self._factors is None else self._factors.solve(b, transposed)

    def _improve(self, b: Array, x: Array, transposed: bool) -> tuple[Array, Array, list[str]]:
        """One step of iterative refinement (Higham, section 12.2): it restores a small backward error."""
        x = x + self._raw(self._residual(b, x, transposed), transposed)
        return x, *self._judge(b, x, transposed)

    def _residual(self, b: Array, x: Array, transposed: bool) -> Array:
        return b - (self._transposed if transposed else self.matrix) @ x

    def _judge(self, b: Array, x: Array, transposed: bool) -> tuple[Array, list[str]]:
        """Relative residual and status of each column."""
        residual = self._residual(b, x, transposed)
        return _accuracy.judge(b, residual, lambda: self._bound(b, x, transposed), self.eps, self.rtol)

    def _bound(self, b: Array, x: Array, transposed: bool) -> Array:
        if self._magnitude is None:
            self._magnitude = abs(self.matrix)
        return (self._magnitude.T if transposed else self._magnitude) @ abs(x) + abs(b)


def attempts(values: Array, symbolic: Symbolic, library: str, threads: int) -> Iterator[Factors]:
    """Factors to try one after the other until they are accurate. Those of SuperLU, which exchanges any rows, are last.

    Not a method: a generator that knew the factorisation would keep it, and its memory, until garbage is collected.
    """
    n = symbolic.shape[0]
    if n == 0:
        return
    if symbolic.structural_rank < n:
        raise SingularMatrixError(_matrix_words.structurally_singular(symbolic.structural_rank, n))
    if library == "pardiso":
        yield from _pardiso.attempts(symbolic.matrix(values), symbolic)
    elif library == "rslab":
        yield from _rslab.attempts(values, symbolic, threads)
    yield from _superlu.attempts(values, symbolic)
