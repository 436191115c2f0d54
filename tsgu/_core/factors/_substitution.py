"""Forward and back substitution on the host, with residuals checked."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from scipy.sparse.linalg import spsolve_triangular

from tsgu._core.factors import _accuracy
from tsgu._core.pattern._triangle import Triangle
from tsgu._core.report._status import ColumnInfo

Array = npt.NDArray[Any]
Kernel = Callable[[sp.csr_array, Array, bool, bool], Array]


class DiagonalError(ArithmeticError):
    """An entry that should not be on the diagonal, the first in ``row``; ``count`` in all."""

    def __init__(self, row: int, count: int) -> None:
        super().__init__(row, count)
        self.row, self.count = row, count


class ZeroDiagonalError(DiagonalError):
    """A zero."""


class NotOneError(DiagonalError):
    """Something else than the one that it is said to be."""


def scipy_kernel(matrix: sp.csr_array, b: Array, upper: bool, transposed: bool) -> Array:
    """Solve T X = B, or T^T X = B, for B of shape (n, k) and a diagonal without zeros."""
    x: Array = spsolve_triangular(matrix.T if transposed else matrix, b, lower=upper == transposed)
    return x


class Substitution:
    """A triangle with values, and solves with it and its transpose.

    Each component of the solution has a small backward error of its own (Higham, theorem 8.5), so that nothing needs
    refinement; the residual is computed all the same.

    Parameters
    ----------
    triangle : Triangle
        Pattern.
    values : ndarray, shape (nnz,)
        float32, float64, complex64 or complex128, in the pattern's order.
    kernel : callable
        ``kernel(T, B, upper, transposed) -> X``, which substitutes.
    in_batch : bool
        Whether a zero on the diagonal makes the solution of its member NaN, and is no error.

    Raises
    ------
    ZeroDiagonalError
        If an entry of the diagonal is zero, and this is no batch.
    NotOneError
        If the diagonal is stored and should consist of ones, and does not.
    """

    def __init__(
        self, triangle: Triangle, values: Array, kernel: Kernel = scipy_kernel, in_batch: bool = False
    ) -> None:
        self._kernel, self._upper, self._size = kernel, triangle.upper, triangle.size
        self._singular = np.zeros(0, int)  # members
        self.eps = float(np.finfo(values.dtype).eps)
        indptr, col, place = triangle.whole
        if place is not None:
            given, values = values, np.ones(col.size, values.dtype)
            values[place] = given
        else:
            diagonal = values[triangle.diagonal]
            wrong = np.flatnonzero(diagonal != 1 if triangle.ones else diagonal == 0)
            if wrong.size and in_batch and not triangle.ones:
                self._singular = np.unique(wrong // max(self._size, 1))
                values = values.copy()
                values[triangle.diagonal[wrong]] = 1
            elif wrong.size:
                raise (NotOneError if triangle.ones else ZeroDiagonalError)(int(wrong[0]), wrong.size)
        self._matrix = sp.csr_array((values, col, indptr), shape=triangle.symbolic.shape)

    @cached_property
    def _magnitude(self) -> sp.csr_array:
        return abs(self._matrix)

    def solve(self, b: Array, transposed: bool) -> tuple[Array, list[list[ColumnInfo]]]:
        """Solve T X = B, or T^T X = B, for B of shape (n,) or (n, k); non-finite columns give NaN.

        The columns of a batch are scaled and judged member by member: small in one may be large in another.
        """
        shape, b = b.shape, b.reshape(b.shape[0], -1)
        finite = np.asarray(np.isfinite(self._by_member(b)).all(axis=0))
        if not finite.all():
            b = np.where(self._spread(finite), b, 0)
        scale = self._spread(_accuracy.power_of_two(self._by_member(b)))
        b = b / scale
        with np.errstate(all="ignore"):  # a solution that overflows shows in its residual
            x = self._kernel(self._matrix, b, self._upper, transposed)
            residual = b - (self._matrix.T if transposed else self._matrix) @ x
            relative, status = _accuracy.judge(
                self._by_member(b),
                self._by_member(residual),
                lambda: self._by_member((self._magnitude.T if transposed else self._magnitude) @ abs(x) + abs(b)),
                self.eps,
            )
            x *= scale
        bounded = np.isfinite(self._by_member(x)).all(axis=0).ravel()
        triples = zip(status, relative.ravel().tolist(), bounded, strict=True)
        columns = [ColumnInfo(s if fits else "overflow", None, r) for s, r, fits in triples]
        if not finite.all():
            x[~np.broadcast_to(self._spread(finite), x.shape)] = np.nan
            for index in np.flatnonzero(~finite):
                columns[index] = ColumnInfo("non-finite", None, float("nan"))
        width = b.shape[1]
        for member in self._singular.tolist():
            x[member * self._size : (member + 1) * self._size] = np.nan
            columns[member * width : (member + 1) * width] = [ColumnInfo("singular", None, float("nan"))] * width
        return x.reshape(shape), [columns[i : i + width] for i in range(0, len(columns), width)]

    def _by_member(self, columns: Array) -> Array:
        """(n, k) seen as columns of each member, (size, members, k)."""
        return columns.reshape(-1, self._size, columns.shape[1]).swapaxes(0, 1)

    def _spread(self, numbers: Array) -> Array:
        """One number per member and column, (members, k), for all rows of the member."""
        return numbers if numbers.shape[0] == 1 else np.repeat(numbers, self._size, axis=0)
