"""Sparse LU by SciPy's SuperLU, factored once for A x = b and A^T y = g, with its residuals checked."""

from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from scipy.sparse.linalg import SuperLU, splu

from tsgu._core import _accuracy
from tsgu._core._status import ColumnInfo
from tsgu._core._symbolic import Symbolic

Array = npt.NDArray[Any]

# On a symmetric pattern an ordering of A + A^T with pivots preferred on the diagonal fills in far less than COLAMD. A
# threshold of 0 would accept any diagonal pivot and can be silently wrong; 0.01 keeps the growth of entries in bounds.
_SYMMETRIC = {"permc_spec": "MMD_AT_PLUS_A", "diag_pivot_thresh": 0.01, "options": {"SymmetricMode": True}}
_GENERAL = {"permc_spec": "COLAMD"}


class SingularMatrixError(ArithmeticError):
    """The factorisation met a column without a nonzero pivot."""


class Factorisation:
    """LU factors of one matrix, and solves with it and its transpose.

    Parameters
    ----------
    symbolic : Symbolic
        Square pattern.
    values : ndarray, shape (nnz,)
        float32, float64, complex64 or complex128, in the pattern's order.

    Raises
    ------
    SingularMatrixError
        If A is exactly singular.
    """

    def __init__(self, symbolic: Symbolic, values: Array) -> None:
        other = symbolic.transpose
        self.matrix = sp.csr_array((values, symbolic.col, symbolic.indptr), shape=symbolic.shape)
        self._columns = sp.csc_array((values[other.order], other.col, other.indptr), shape=symbolic.shape)
        self.eps = float(np.finfo(values.dtype).eps)
        self._magnitude: sp.csr_array | None = None
        self._symmetric = symbolic.is_symmetric
        self._lu = self._factor()

    @property
    def nbytes(self) -> int:
        """Memory of the factors, as SuperLU holds them."""
        return 0 if self._lu is None else self._lu.nnz * (self.matrix.dtype.itemsize + self.matrix.indices.itemsize)

    def _factor(self) -> SuperLU | None:
        if self.matrix.shape[0] == 0:
            return None
        if self.matrix.nnz == 0:
            raise SingularMatrixError("A has no entries")
        if self._symmetric:
            try:
                return splu(self._columns, **_SYMMETRIC)
            except RuntimeError as error:  # a zero pivot here may be an artefact of pivoting on the diagonal
                _reraise_unless_singular(error)
                self._symmetric = False
        try:
            return splu(self._columns, **_GENERAL)
        except RuntimeError as error:
            _reraise_unless_singular(error)
            raise SingularMatrixError(str(error)) from error

    def solve(self, b: Array, transposed: bool) -> tuple[Array, list[ColumnInfo]]:
        """Solve A X = B, or A^T X = B, for B of shape (n,) or (n, k); non-finite columns give NaN."""
        finite = np.isfinite(b).all(axis=0)
        if not finite.all():
            b = np.where(finite, b, 0)
        scale = _accuracy.power_of_two(b)
        b = b / scale
        x = self._raw(b, transposed)
        residual, status = self._judge(b, x, transposed)
        if "inaccurate" in status:
            x, residual, status = self._improve(b, x, transposed)
        if "inaccurate" in status and self._symmetric:
            self._symmetric = False
            self._lu = self._factor()
            x, residual, status = self._improve(b, self._raw(b, transposed), transposed)
        x *= scale
        columns = [ColumnInfo(s, None, r) for s, r in zip(status, residual.tolist(), strict=True)]
        for index in np.flatnonzero(~np.atleast_1d(finite)):
            x[..., index if x.ndim > 1 else slice(None)] = np.nan
            columns[index] = ColumnInfo("non-finite", None, float("nan"))
        return x, columns

    def _raw(self, b: Array, transposed: bool) -> Array:
        return b if self._lu is None else self._lu.solve(b, "T" if transposed else "N")

    def _improve(self, b: Array, x: Array, transposed: bool) -> tuple[Array, Array, list[str]]:
        """One step of iterative refinement (Higham, section 12.2): it restores a small backward error."""
        x = x + self._raw(self._residual(b, x, transposed), transposed)
        return x, *self._judge(b, x, transposed)

    def _residual(self, b: Array, x: Array, transposed: bool) -> Array:
        return b - (self._columns.T if transposed else self.matrix) @ x

    def _judge(self, b: Array, x: Array, transposed: bool) -> tuple[Array, list[str]]:
        """Relative residual and status of each column."""
        return _accuracy.judge(b, self._residual(b, x, transposed), lambda: self._bound(b, x, transposed), self.eps)

    def _bound(self, b: Array, x: Array, transposed: bool) -> Array:
        if self._magnitude is None:
            self._magnitude = abs(self.matrix)
        return (self._magnitude.T if transposed else self._magnitude) @ abs(x) + abs(b)


def _reraise_unless_singular(error: RuntimeError) -> None:
    if "singular" not in str(error):
        raise error
