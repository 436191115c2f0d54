"""Incomplete LU factors by SciPy's SuperLU, applied to arrays of any dtype."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from scipy.sparse.linalg import SuperLU, spilu

Array = npt.NDArray[Any]


class IncompleteFactors:
    """Incomplete LU factors of a square matrix.

    Parameters
    ----------
    matrix : csc_array
        float32, float64, complex64 or complex128, without repeated entries, with sorted indices.

    Raises
    ------
    ValueError
        If a factor is exactly singular.
    """

    def __init__(self, matrix: sp.csc_array, drop_tol: float, fill_factor: float) -> None:
        self.dtype = matrix.dtype
        self._index = matrix.indices.itemsize
        self._lu: SuperLU | None = None
        if matrix.shape[0] == 0:
            return
        if matrix.nnz == 0:  # SuperLU would read past its end
            raise ValueError(_singular("A has no entries"))
        try:
            self._lu = spilu(matrix, drop_tol=drop_tol, fill_factor=fill_factor)
        except RuntimeError as error:
            if "singular" not in str(error):
                raise
            raise ValueError(_singular("a pivot is zero")) from error
        probe = self._lu.solve(np.ones(matrix.shape[0], self.dtype))
        if not np.isfinite(probe).all():
            raise ValueError(_singular("the factors overflow"))

    @property
    def nnz(self) -> int:
        """Entries of both factors."""
        return 0 if self._lu is None else int(self._lu.nnz)

    @property
    def nbytes(self) -> int:
        return self.nnz * (self.dtype.itemsize + self._index)

    def solve(self, v: Array, transposed: bool) -> Array:
        """(L U)^-1 v, or its transpose, for v of shape (n,) or (n, k); in the dtype of v."""
        if self._lu is None or v.size == 0:
            return v
        if v.dtype.kind == "c" and self.dtype.kind != "c":
            return (self.solve(v.real, transposed) + 1j * self.solve(v.imag, transposed)).astype(v.dtype, copy=False)
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


def _singular(reason: str) -> str:
    return (
        f"A must have nonsingular incomplete factors for ilu; SuperLU found: {reason}. "
        "Lower drop_tol, raise fill_factor, or factor A plus a small multiple of the identity."
    )
