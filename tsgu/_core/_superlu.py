"""Sparse LU by SciPy's SuperLU: the orderings to try for one matrix."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import numpy.typing as npt
import scipy.sparse as sp
from scipy.sparse.linalg import SuperLU, splu

Array = npt.NDArray[Any]

# On a symmetric pattern an ordering of A + A^T with pivots preferred on the diagonal fills in far less than COLAMD. A
# threshold of 0 would accept any diagonal pivot and can be silently wrong; 0.01 keeps the growth of entries in bounds.
_SYMMETRIC = {"permc_spec": "MMD_AT_PLUS_A", "diag_pivot_thresh": 0.01, "options": {"SymmetricMode": True}}
_GENERAL = {"permc_spec": "COLAMD"}


class SingularMatrixError(ArithmeticError):
    """The factorisation met a column without a nonzero pivot."""


class SuperLUFactors:
    """LU factors of one matrix, and solves with it and its transpose."""

    library = "superlu"

    def __init__(self, lu: SuperLU, columns: sp.csc_array) -> None:
        self._lu = lu
        self.nbytes = lu.nnz * (columns.dtype.itemsize + columns.indices.itemsize)

    def solve(self, b: Array, transposed: bool) -> Array:
        return self._lu.solve(b, "T" if transposed else "N")


def attempts(columns: sp.csc_array, symmetric: bool) -> Iterator[SuperLUFactors]:
    """Factors, the cheapest first; each is made when it is asked for, because those before were not accurate.

    Parameters
    ----------
    columns : csc_array, shape (n, n)
        n > 0.
    symmetric : bool
        Whether the pattern is symmetric.

    Raises
    ------
    SingularMatrixError
        If A is exactly singular.
    """
    if columns.nnz == 0:
        raise SingularMatrixError("A has no entries")
    if symmetric:
        with suppress(SingularMatrixError):  # a zero pivot here may be an artefact of pivoting on the diagonal
            yield _factored(columns, _SYMMETRIC)
    yield _factored(columns, _GENERAL)


def _factored(columns: sp.csc_array, options: Mapping[str, Any]) -> SuperLUFactors:
    try:
        return SuperLUFactors(splu(columns, **options), columns)
    except RuntimeError as error:
        if "singular" not in str(error):
            raise
        raise SingularMatrixError(str(error)) from error
