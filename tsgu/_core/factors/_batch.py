"""Many matrices on one pattern, factored one after the other or side by side, and judged all at once.

Arithmetic in Python on a hundred unknowns takes longer than their factors. So what a
:class:`tsgu._core.factors._factorisation.Factorisation` does for one matrix is done here for the whole batch, as long
as nothing is to be said: factors, a look at whether they solve a random right-hand side, solutions, residuals. A member
of which anything else is seen gets a factorisation of its own, which has the last word.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from tsgu._core.factors import _accuracy, _memory
from tsgu._core.factors._factorisation import Factorisation, Factors, attempts, threads_for
from tsgu._core.factors._nullvector import BELIEVED, SUSPICIOUS, ldexp, random_signs
from tsgu._core.factors._superlu import SingularMatrixError
from tsgu._core.methods._options import default_rtol
from tsgu._core.pattern._symbolic import Symbolic
from tsgu._core.report._status import ColumnInfo

Array = npt.NDArray[Any]

_LONG = 4000
"""Entries of a matrix from which its factors take so long, a third of a millisecond, that members are shared out among
threads: below, these would mostly wait for the interpreter."""


class Factorisations:
    """Factors of a batch of matrices, and solves with them and their transposes.

    Parameters
    ----------
    symbolic : Symbolic
        Square pattern of a member.
    blocks : Symbolic
        That of all members, as diagonal blocks.
    values : ndarray, shape (batch, nnz)
    library : str
    rtol : float, optional
    threads : int, optional
        As for one factorisation; here each takes members.

    Raises
    ------
    MemoryError
        If the factors would take more memory than is free.
    """

    def __init__(
        self,
        symbolic: Symbolic,
        blocks: Symbolic,
        values: Array,
        library: str,
        rtol: float | None = None,
        threads: int | None = None,
    ) -> None:
        self._symbolic, self._library, self._values = symbolic, library, np.array(values)
        self._matrix = blocks.matrix(self._values.ravel())
        self._eps = float(np.finfo(values.dtype).eps)
        self._rtol = default_rtol(self._eps) if rtol is None else rtol
        self._most = threads_for(threads)
        self._threads = min(self._most, max(1, len(values))) if symbolic.nnz >= _LONG else 1
        self._alone: dict[int, Factorisation | SingularMatrixError] = {}
        self._factors: list[Factors | None] = []
        self._lock = Lock()
        self._probed = False
        self._factor()

    def solve(self, b: Array, transposed: bool) -> tuple[Array, Array, dict[int, list[ColumnInfo]]]:
        """Solve A X = B, or A^T X = B, for B of shape (batch, n, k).

        Returns
        -------
        x : ndarray, shape (batch, n, k)
        residual : ndarray, shape (batch, k)
            Relative.
        told : dict
            The columns of members that were solved alone; all others converged. NaN where a member is singular.
        """
        with self._lock:
            return self._solve(b, transposed)

    def _solve(self, b: Array, transposed: bool) -> tuple[Array, Array, dict[int, list[ColumnInfo]]]:
        with np.errstate(all="ignore"):
            scale = _scale(b)
            x, sound = self._solved(b / scale, transposed)
            residual = _relative(b / scale, self._product(x, transposed))
            x *= scale
            sound &= np.all(residual <= self._rtol, axis=1) & np.isfinite(x).all(axis=(1, 2))
        self._probed = True
        told = {}
        for index in np.flatnonzero(~sound).tolist():
            x[index], told[index] = self._solved_alone(index, b[index], transposed)
            residual[index] = [column.residual for column in told[index]]
        return x, residual, told

    def _factor(self) -> None:
        """Factors of each member; the first is made before the others, which share its analysis."""
        if not self._values.size or self._symbolic.structural_rank < self._symbolic.shape[0]:
            self._factors = [None] * len(self._values)
            return
        self._factors = [self._first(0)]
        first = self._factors[0]
        if first is not None:
            _memory.check(first.library, first.nbytes * len(self._values), self._matrix.shape[0])
        self._factors += self._over_members(self._first, range(1, len(self._values)))

    def _first(self, index: int) -> Factors | None:
        """The first factors of a member; None where it has none, of which a factorisation of its own will tell."""
        try:
            return next(attempts(self._values[index], self._symbolic, self._library, 1), None)
        except SingularMatrixError:
            return None

    def _over_members(self, task: Callable[[int], Any], members: range) -> list[Any]:
        """A task for each member, in threads where that is worth it."""
        if self._threads == 1:
            return [task(index) for index in members]
        size = -(-len(members) // self._threads)
        parts = [members[start : start + size] for start in range(0, len(members), size)]
        with ThreadPoolExecutor(self._threads) as pool:
            return [done for part in pool.map(lambda part: [task(index) for index in part], parts) for done in part]

    def _solved(self, b: Array, transposed: bool) -> tuple[Array, Array]:
        """Solutions, and which may be believed: with a look at factors that are used for the first time."""
        sound = np.array([factors is not None for factors in self._factors])
        if self._probed or not sound.any():
            return self._raw(b, transposed, sound), sound
        probe = _Probes(self._matrix, self._symbolic.shape[0], self._eps)
        if transposed:
            x, seen = self._raw(b, True, sound), self._raw(probe.sides, False, sound)
        else:
            both = self._raw(np.concatenate([b, probe.sides], axis=2), False, sound)
            x, seen = np.ascontiguousarray(both[..., :-1]), both[..., -1:]
        exchanged = np.array([factors is None or factors.exchanges_rows for factors in self._factors])
        return x, sound & probe.passed(seen, exchanged)

    def _raw(self, b: Array, transposed: bool, sound: Array) -> Array:
        x = np.full_like(b, np.nan)

        def task(index: int) -> None:
            factors = self._factors[index]
            if sound[index] and factors is not None:
                x[index] = factors.solve(b[index], transposed)

        self._over_members(task, range(len(b)))
        return x

    def _product(self, x: Array, transposed: bool) -> Array:
        matrix = self._matrix.T if transposed else self._matrix
        return (matrix @ x.reshape(-1, x.shape[2])).reshape(x.shape)

    def _solved_alone(self, index: int, b: Array, transposed: bool) -> tuple[Array, list[ColumnInfo]]:
        self._factors[index] = None
        found = self._alone.get(index)
        try:
            if found is None:
                given = self._symbolic, self._values[index], self._library, self._rtol, self._most
                found = self._alone[index] = Factorisation(*given)
            if isinstance(found, Factorisation):
                return found.solve(b, transposed)
        except SingularMatrixError as error:
            self._alone[index] = error
        return np.full_like(b, np.nan), [ColumnInfo("singular", None, float("nan"))] * b.shape[1]


class _Probes:
    """The right-hand sides of :class:`tsgu._core.factors._nullvector.Probe` for all members, and what they say."""

    def __init__(self, matrix: sp.csr_array, n: int, eps: float) -> None:
        self._matrix, self._eps = matrix, eps
        self._magnitude = abs(matrix)
        rows = np.maximum.reduceat(self._magnitude.data, matrix.indptr[:-1]).reshape(-1, n, 1)
        exponents = np.frexp(rows)[1]
        shift = np.maximum(0, exponents.max(axis=1, keepdims=True) - np.finfo(matrix.dtype).maxexp // 2)
        self._shifts = shift - exponents  # to rows of one size
        self._unit = random_signs(n)[:, None]
        self.sides: Array = ldexp(np.broadcast_to(self._unit, rows.shape), -self._shifts).astype(matrix.dtype)

    def passed(self, x: Array, exchanged: Array) -> Array:
        """Of which members the solution tells that nothing is to be feared.

        Parameters
        ----------
        x : ndarray, shape (batch, n, 1)
        exchanged : ndarray of bool, shape (batch,)
            Whether the factors exchanged rows wherever a pivot asked for it; if not, a small residual has to show.
        """
        n, column = x.shape[1], x.reshape(-1, 1)
        reached = ldexp((self._magnitude @ abs(column)).reshape(x.shape), self._shifts)
        growth = np.max(reached / abs(self._unit), axis=(1, 2))
        left = abs(self.sides - (self._matrix @ column).reshape(x.shape))
        error = np.max(ldexp(left, self._shifts), axis=(1, 2)) / (self._eps * (reached.max(axis=(1, 2)) + 1))
        passed: Array = (growth <= 1 / (SUSPICIOUS * np.sqrt(n) * self._eps)) & (exchanged | (error <= BELIEVED))
        return passed


def _scale(b: Array) -> Array:
    """A power of two near the largest entry of each column, shape (batch, 1, k)."""
    columns = np.moveaxis(b, 1, 0)
    return _accuracy.power_of_two(columns)[:, None, :]


def _relative(b: Array, product: Array) -> Array:
    """The relative residual of each column; see :func:`tsgu._core.factors._accuracy.judge`."""
    size, left = np.linalg.norm(b, axis=1), np.linalg.norm(b - product, axis=1)
    relative: Array = np.divide(left, size, out=np.where(left == 0, 0.0, np.inf), where=size > 0)
    return relative
