"""What explains that a method failed, seen in the matrix."""

from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from tsgu._core.methods._options import ASYMMETRY, ZERO_SUM

Array = npt.NDArray[Any]


def stored(values: Array, row: Array, col: Array, shape: tuple[int, int]) -> sp.csr_array:
    """The matrix; an entry past the end of a row or column is padding."""
    inside = (row < shape[0]) & (col < shape[1])
    return sp.coo_array((values[inside], (row[inside], col[inside])), shape).tocsr()


def is_hermitian(matrix: sp.csr_array) -> bool:
    """Whether A = A^H to rounding."""
    if matrix.shape[0] != matrix.shape[1]:
        return False
    largest = np.abs(matrix.data).max(initial=0)
    difference = np.abs((matrix - matrix.conj().T).data).max(initial=0)
    return bool(difference <= ASYMMETRY * np.finfo(matrix.dtype).eps * largest)


def loses_constants(matrix: sp.csr_array) -> bool:
    """Whether each row, or each column, sums to zero."""
    tolerance = ZERO_SUM * np.finfo(matrix.dtype).eps
    return any(bool(np.all(np.abs(matrix.sum(axis=axis)) <= tolerance * abs(matrix).sum(axis=axis))) for axis in (1, 0))
