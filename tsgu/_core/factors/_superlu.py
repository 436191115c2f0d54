"""Sparse LU by SciPy's SuperLU: the orderings to try for one matrix, remembered for the next of the same pattern."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from scipy.sparse.linalg import SuperLU, splu

from tsgu._core.factors import _memory
from tsgu._core.pattern._symbolic import Symbolic, filled
from tsgu._core.report import _matrix_words

Array = npt.NDArray[Any]

# On a symmetric pattern an ordering of A + A^T with pivots preferred on the diagonal fills in far less than COLAMD. A
# threshold of 0 would accept any diagonal pivot and can be silently wrong; 0.01 keeps the growth of entries in bounds.
# Panels of 8 columns instead of 20 save up to a quarter of the time in two dimensions, and cost nothing elsewhere. They
# may not be wider than SuperLU's own 20: it would write past its buffers.
_SYMMETRIC = {
    "permc_spec": "MMD_AT_PLUS_A",
    "diag_pivot_thresh": 0.01,
    "panel_size": 8,
    "options": {"SymmetricMode": True},
}
_GENERAL = {"permc_spec": "COLAMD", "panel_size": 8}


class SingularMatrixError(ArithmeticError):
    """A is singular; the message says how that shows, as what was got in place of a matrix that is not."""


class Ordering:
    """The order of elimination that SuperLU found for a pattern, and the pattern in that order.

    It depends on the pattern alone, and finding it takes a fifth of a factorisation.
    """

    def __init__(self, found: Array, entries: int, symmetric: bool) -> None:
        self.entries = entries  # of the factors
        self._symmetric = symmetric
        self._arranged: sp.csc_array | None = None
        self.order = np.argsort(found)  # column ``order[j]`` is eliminated as the j-th

    def columns(self, symbolic: Symbolic, values: Array) -> sp.csc_array:
        """The matrix with these values on the pattern, in the pattern's order, arranged.

        The pattern, which keeps this, is not kept: together they would stay in memory until garbage is collected.
        """
        if self._arranged is None:
            self._arranged = self._arrange(symbolic)
        return filled(self._arranged, values[self._arranged.data])

    def _arrange(self, symbolic: Symbolic) -> sp.csc_array:
        """Columns in this order, rows too where they go along; the value of an entry is its number in the pattern."""
        other = symbolic.transpose
        numbers = sp.csc_array((other.order, other.col, other.indptr), shape=symbolic.shape)[:, self.order]
        arranged = sp.csc_array(numbers[self.order]) if self._symmetric else numbers
        arranged.sort_indices()
        return _sorted(arranged)

    def solve(self, lu: SuperLU, b: Array, transposed: bool) -> Array:
        """A X = B, or A^T X = B, by the factors of what was arranged: of P A P^T, or of A P^T."""
        if self._symmetric or transposed:
            b = b[self.order]
        y = lu.solve(b, "T" if transposed else "N")
        if transposed and not self._symmetric:
            return y
        x: Array = np.empty_like(y)
        x[self.order] = y
        return x


class SuperLUFactors:
    """LU factors of one matrix, and solves with it and its transpose."""

    library = "superlu"
    exchanges_rows = usable = True

    def __init__(self, lu: SuperLU, columns: sp.csc_array, ordering: Ordering | None) -> None:
        self._lu, self._ordering = lu, ordering
        self.nbytes = lu.nnz * (columns.dtype.itemsize + columns.indices.itemsize)

    def solve(self, b: Array, transposed: bool) -> Array:
        if self._ordering is not None:
            return self._ordering.solve(self._lu, b, transposed)
        return self._lu.solve(b, "T" if transposed else "N")


def attempts(values: Array, symbolic: Symbolic) -> Iterator[SuperLUFactors]:
    """Factors, the cheapest first; each is made when it is asked for, because those before were not accurate.

    Parameters
    ----------
    values : ndarray, shape (nnz,)
        In the pattern's order.
    symbolic : Symbolic
        The pattern, of shape (n, n), n > 0, of full structural rank: on another one SuperLU reads and writes past the
        end of its arrays, when a column is left without any place for a pivot.

    Raises
    ------
    SingularMatrixError
        If A is exactly singular.
    """
    if symbolic.is_symmetric:
        with suppress(SingularMatrixError):  # a zero pivot here may be an artefact of pivoting on the diagonal
            yield _factored(values, symbolic, _SYMMETRIC)
    yield _factored(values, symbolic, _GENERAL)


def _factored(values: Array, symbolic: Symbolic, options: Mapping[str, Any]) -> SuperLUFactors:
    rule = options["permc_spec"]
    ordering: Ordering | None = symbolic.analyses.get(rule)
    entry = values.itemsize + symbolic.col.itemsize
    if ordering is None:
        _memory.check_estimate("SuperLU", symbolic, entry)
        other = symbolic.transpose
        columns = _sorted(sp.csc_array((values[other.order], other.col, other.indptr), shape=symbolic.shape))
    else:
        _memory.check("SuperLU", ordering.entries * entry, symbolic.shape[0])
        columns, options = ordering.columns(symbolic, values), {**options, "permc_spec": "NATURAL"}
    try:
        lu = splu(columns, **options)
    except RuntimeError as error:
        raise translated(error) from error
    if ordering is None:
        symbolic.analyses[rule] = Ordering(lu.perm_c, lu.nnz, symmetric=options is _SYMMETRIC)
    return SuperLUFactors(lu, columns, ordering)


def translated(error: RuntimeError) -> Exception:
    """The same in our words. SuperLU names the line of a C file, where it was out of memory or of pivots."""
    if "alloc" in str(error).lower():
        return MemoryError("SuperLU has no memory for the factors of A.")
    return SingularMatrixError(_matrix_words.ZERO_PIVOT)


def _sorted(matrix: sp.csc_array) -> sp.csc_array:
    """The same, known to be sorted and free of repeats, which SciPy would look for."""
    matrix.has_sorted_indices = matrix.has_canonical_format = True
    return matrix
