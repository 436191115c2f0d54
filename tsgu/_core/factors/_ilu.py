"""Incomplete LU factors by SciPy's SuperLU, applied to arrays of any dtype."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from scipy.sparse.linalg import SuperLU, spilu

from tsgu._core.factors import _superlu
from tsgu._core.pattern._symbolic import Symbolic
from tsgu._core.report import _matrix_words

Array = npt.NDArray[Any]


class IncompleteFactors:
    """Incomplete LU factors of a square matrix.

    Parameters
    ----------
    values : ndarray, shape (nnz,)
        float32, float64, complex64 or complex128, in the pattern's order.
    symbolic : Symbolic
        Square pattern.
    drop_tol, fill_factor : float
        As :func:`check_options` returns them.

    Raises
    ------
    ValueError
        If a factor is exactly singular.
    """

    def __init__(self, values: Array, symbolic: Symbolic, drop_tol: float, fill_factor: float) -> None:
        self._made_of = np.array(values), symbolic, drop_tol, fill_factor
        self.dtype = values.dtype
        self._index = symbolic.col.itemsize
        self._lu: SuperLU | None = None
        n = symbolic.shape[0]
        if n == 0:
            return
        if symbolic.structural_rank < n:  # SuperLU would write past the end of its arrays
            reason = _matrix_words.structurally_singular(symbolic.structural_rank, n)
            raise ValueError(_matrix_words.singular_incomplete(reason))
        other = symbolic.transpose
        matrix = sp.csc_array((values[other.order], other.col, other.indptr), shape=symbolic.shape)
        try:
            self._lu = spilu(matrix, drop_tol=drop_tol, fill_factor=fill_factor)
        except RuntimeError as error:
            found = _superlu.translated(error)
            if not isinstance(found, _superlu.SingularMatrixError):
                raise found from error
            raise ValueError(_matrix_words.singular_incomplete(str(found))) from error
        probe = self._lu.solve(np.ones(n, self.dtype))
        if not np.isfinite(probe).all():
            raise ValueError(_matrix_words.singular_incomplete("factors that overflow"))

    def __reduce__(self) -> tuple[Any, ...]:
        return IncompleteFactors, self._made_of  # factored again: what SuperLU holds cannot be copied

    @property
    def nnz(self) -> int:
        """Entries of both factors."""
        return 0 if self._lu is None else int(self._lu.nnz)

    @property
    def nbytes(self) -> int:
        return self.nnz * (self.dtype.itemsize + self._index)

    def precondition(self, v: Array, transposed: bool) -> Array:
        """(L U)^-1 v, or its transpose, for v of shape (n,) or (n, k); in the dtype of v."""
        if self._lu is None or v.size == 0:
            return v
        if v.dtype.kind == "c" and self.dtype.kind != "c":
            real, imaginary = (self.precondition(part, transposed) for part in (v.real, v.imag))
            return (real + 1j * imaginary).astype(v.dtype, copy=False)
        x: Array = self._lu.solve(np.ascontiguousarray(v, self.dtype), "T" if transposed else "N")
        return x.astype(v.dtype, copy=False)


def check_options(drop_tol: Any, fill_factor: Any) -> tuple[float, float]:
    """Both as floats.

    Raises
    ------
    ValueError
        If one is out of range.
    """
    return _number("drop_tol", drop_tol, 0, "0 <= drop_tol <= 1", 1), _number(
        "fill_factor", fill_factor, 1, "fill_factor >= 1", math.inf
    )


def _number(name: str, value: Any, least: float, accepted: str, most: float) -> float:
    good = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not (good and least <= value <= most and math.isfinite(value)):
        raise ValueError(f"{name} must be a number with {accepted}; got {value!r}.")
    return float(value)
