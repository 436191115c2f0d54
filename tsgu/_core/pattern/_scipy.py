"""Matrices of SciPy, to and from entries."""

from typing import Any

import numpy.typing as npt
import scipy.sparse as sp

from tsgu._core._dtypes import DTYPES
from tsgu._core.pattern._symbolic import Indices
from tsgu._core.report import _wording


def entries(A: Any) -> tuple[Indices, Indices, npt.NDArray[Any], tuple[int, int]]:
    """Row, column and value of each stored entry, in any order, perhaps repeated, and the shape.

    The values are a copy, of a dtype that is solved in.
    """
    if not sp.issparse(A):
        raise TypeError(_wording.not_a("A", "a sparse matrix or array of SciPy", A))
    if A.ndim != 2:
        raise ValueError(_wording.not_two_dimensional(tuple(A.shape), A.format))
    dtype = "float64" if A.dtype.kind in "bui" else A.dtype.name
    if dtype not in DTYPES:
        raise TypeError(_wording.dtype_of_scipy(A.dtype))
    coo = A.tocoo()
    m, n = A.shape
    return coo.row, coo.col, coo.data.astype(dtype), (int(m), int(n))


def matrix(values: npt.NDArray[Any], row: Indices, col: Indices, shape: tuple[int, int]) -> sp.csr_array:
    """The matrix with these entries, which shares no memory with them."""
    return sp.coo_array((values, (row, col)), shape=shape).tocsr()
