"""Factors by PARDISO: Cholesky, Bunch-Kaufman or LU, as the values of A allow.

O. Schenk and K. Gaertner, ETNA 23 (2006), 158-179; parameters as in MKL's documentation of ``pardiso``.

PARDISO looks for pivots inside a block of columns alone, replaces those that are too small by a multiple of the norm of
A, and counts on refinement to make up for it. So factors are in double precision for a matrix in single precision too:
single ones take three quarters of the time, and leave an error of 2e-5 on a 3-D Laplacian of 27 000 unknowns, where
double ones leave 3e-8.
"""

import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from tsgu._core.factors import _memory
from tsgu._core.factors._mkl import ANALYSE, FACTOR, RELEASE, SOLVE, Pardiso, PardisoError
from tsgu._core.methods._options import default_rtol
from tsgu._core.pattern._symbolic import Symbolic

Array = npt.NDArray[Any]

# Types of matrix.
SYMMETRIC_DEFINITE, SYMMETRIC, GENERAL = 2, -2, 11
HERMITIAN_DEFINITE, HERMITIAN, COMPLEX_SYMMETRIC, COMPLEX_GENERAL = 4, -4, 6, 13
_DEFINITE = (SYMMETRIC_DEFINITE, HERMITIAN_DEFINITE)

# A pivot is too small below 10^-iparm(10) times the norm of A. Scaling and matching, iparm(11) and iparm(13), bring
# large entries to the diagonal beforehand; a definite matrix needs neither.
_METIS = {2: 2}
_PARAMETERS: dict[int, dict[int, int]] = {
    **dict.fromkeys(_DEFINITE, _METIS),
    **dict.fromkeys((SYMMETRIC, HERMITIAN, COMPLEX_SYMMETRIC), _METIS | {10: 8, 11: 1, 13: 1, 21: 1}),
    **dict.fromkeys((GENERAL, COMPLEX_GENERAL), _METIS | {10: 13, 11: 1, 13: 1}),
}

_ORDER_FOUND, _ORDER_GIVEN = {5: 2}, {5: 1}
"""Of a definite matrix the order of elimination follows from the pattern, and finding it may take three times as long
as all the rest; elsewhere scaling and matching change it. With an order that is given, substitution has one thread."""

_NOT_OF_THIS_TYPE = frozenset({-3, -4, -6, -7})
"""Errors that say more of the matrix than of the call: no ordering, a zero pivot, no matching, a zero diagonal."""


class Structure:
    """What PARDISO reads of a pattern: all of it, or the upper triangle with the whole diagonal.

    Parameters
    ----------
    symbolic : Symbolic
        The pattern.
    triangle : bool
        Whether the upper triangle is enough.
    """

    def __init__(self, symbolic: Symbolic, triangle: bool) -> None:
        indptr, indices = symbolic.indptr, symbolic.col
        self._places: Array | None = None
        if triangle:
            row, col = symbolic.row, symbolic.col
            upper = np.flatnonzero(row <= col)
            missing = np.setdiff1d(np.arange(symbolic.shape[0]), row[row == col], assume_unique=True)
            places = np.concatenate([upper, np.full(missing.size, symbolic.nnz)])
            entries = tuple(np.concatenate([index[upper], missing]) for index in (row, col))
            rows = sp.csr_array((places, entries), shape=symbolic.shape)
            rows.sort_indices()
            indptr, indices, self._places = rows.indptr, rows.indices, rows.data
        self.indptr, self.indices = indptr.astype(np.int64), indices.astype(np.int64)
        self.order: Array | None = None
        """The order of elimination, once it was found."""

    def values(self, values: Array) -> Array:
        """The values here, in double precision, of those of the pattern; zero where nothing is stored."""
        wide = values.astype(np.complex128 if np.iscomplexobj(values) else np.float64)
        return wide if self._places is None else np.append(wide, 0)[self._places]


def structure(symbolic: Symbolic, triangle: bool) -> Structure:
    """The same, kept with the pattern."""
    key = f"pardiso, {'upper triangle' if triangle else 'all'}"
    if key not in symbolic.analyses:
        symbolic.analyses[key] = Structure(symbolic, triangle)
    found: Structure = symbolic.analyses[key]
    return found


class PardisoFactors:
    """Factors of one matrix as one type of matrix, in memory of MKL's that is released with this object.

    Parameters
    ----------
    values : ndarray, shape (nnz,)
        In the pattern's order.
    symbolic : Symbolic
        The pattern, of shape (n, n), n > 0, with an entry in each row and column.
    mtype : int
        Type of the matrix.

    Raises
    ------
    PardisoError, MemoryError
        If there are no factors of this type, or no memory for them.
    """

    library = "pardiso"
    exchanges_rows = usable = True  # it says what it replaced, and is looked at below

    def __init__(self, values: Array, symbolic: Symbolic, mtype: int) -> None:
        self._general = mtype in (GENERAL, COMPLEX_GENERAL)
        self._hermitian = mtype in (HERMITIAN_DEFINITE, HERMITIAN)
        stored = structure(symbolic, not self._general)
        parameters, keeps_order = _PARAMETERS[mtype], mtype in _DEFINITE
        if keeps_order:
            parameters = parameters | (_ORDER_FOUND if stored.order is None else _ORDER_GIVEN)
        order = np.zeros(symbolic.shape[0], np.int64) if stored.order is None else stored.order
        data = stored.values(values)
        self._pardiso = Pardiso(data, stored.indptr, stored.indices, order, mtype, parameters)
        weakref.finalize(self, self._pardiso.call, RELEASE).atexit = False  # memory ends with the process anyway
        self._pardiso.call(ANALYSE)
        _memory.check("PARDISO", self._pardiso.expected, symbolic.shape[0])
        self._pardiso.call(FACTOR)
        if keeps_order:
            stored.order = order
        self.mtype = mtype
        self.perturbed = self._pardiso[14]
        """How many pivots were replaced."""
        self.nbytes = self._pardiso.nbytes

    def solve(self, b: Array, transposed: bool) -> Array:
        """X with A X = B, or A^T X = B, in the dtype of B."""
        conjugated = transposed and self._hermitian  # A^T = conj(A), so that A conj(x) = conj(b)
        self._pardiso[12] = 2 if transposed and self._general else 0
        wide = np.array(b.conj() if conjugated else b, self._pardiso.data.dtype, order="F")
        x = np.empty_like(wide)
        if wide.size:
            self._pardiso.call(SOLVE, wide, x)
        with np.errstate(over="ignore"):  # infinite where too large for single precision; the residual tells
            return np.ascontiguousarray(x.conj() if conjugated else x, b.dtype)


def attempts(matrix: sp.csr_array, symbolic: Symbolic) -> Iterator[PardisoFactors]:
    """Factors that may be believed, the cheapest first; each is made when it is asked for.

    PARDISO calls no matrix singular: it replaces the pivot. Factors with replaced pivots are believed if they solve a
    random right-hand side, which no factors do for a singular matrix, whose range it lies outside of. The pattern is of
    full structural rank, which PARDISO does not check.
    """
    for mtype in types(matrix, symbolic):
        try:
            factors = PardisoFactors(matrix.data, symbolic, mtype)
        except PardisoError as error:
            if error.code not in _NOT_OF_THIS_TYPE:
                raise
            continue
        if not factors.perturbed or _solves_any(factors, matrix):
            yield factors
        del factors  # those not believed are released before the next are made


def types(matrix: sp.csr_array, symbolic: Symbolic) -> list[int]:
    """The types that the values allow, the most special first. A positive diagonal may be that of a definite matrix."""
    values, is_complex = matrix.data, np.iscomplexobj(matrix.data)
    general = [COMPLEX_GENERAL if is_complex else GENERAL]
    if not symbolic.is_symmetric:
        return general
    mirrored = values[symbolic.transposition]
    if np.array_equal(values, mirrored.conj()):
        definite, indefinite = (HERMITIAN_DEFINITE, HERMITIAN) if is_complex else (SYMMETRIC_DEFINITE, SYMMETRIC)
        return [*([definite] if np.all(matrix.diagonal().real > 0) else []), indefinite, *general]
    return [COMPLEX_SYMMETRIC, *general] if np.array_equal(values, mirrored) else general


def _solves_any(factors: PardisoFactors, matrix: sp.csr_array) -> bool:
    b = np.random.default_rng(0).standard_normal(matrix.shape[0])
    b = b.astype(np.result_type(b, matrix.dtype))
    residual = np.linalg.norm(b - matrix @ factors.solve(b, False))
    return bool(residual <= default_rtol(float(np.finfo(np.float64).eps)) * np.linalg.norm(b))
