"""The host's side of ``amg``: its levels for other values, for whole batches. NumPy only."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from tsgu._core.factors import _amg, _galerkin
from tsgu._core.report import _wording
from tsgu_jax._program._factors import canonical, member

Array = npt.NDArray[Any]


class Form(NamedTuple):
    """What is known of the levels before a program runs.

    Parameters
    ----------
    rows : tuple of int
        Unknowns of all levels, those of the coarsest at the end.
    sizes : tuple of int
        Entries of the matrices between the finest and the coarsest level.
    paired : tuple of bool
        For each level above the coarsest whether R is the transpose of P, and not handed over.
    degree : int
        Of the smoother.
    hermitian : bool
        Whether one cycle is its own adjoint.
    narrow : bool
        Whether the cycles are in single precision whatever the dtype of A.
    dtype : str
        In which the levels are wanted.
    """

    rows: tuple[int, ...]
    sizes: tuple[int, ...]
    paired: tuple[bool, ...]
    degree: int
    hermitian: bool
    narrow: bool
    dtype: str

    @classmethod
    def of(cls, found: _amg.Hierarchy, degree: int, narrow: bool, dtype: str) -> "Form":
        levels = found.levels
        rows = (*(own.A.shape[0] for own in levels), len(found.coarse))
        sizes, paired = tuple(own.A.nnz for own in levels[1:]), tuple(own.paired for own in levels)
        return cls(rows, sizes, paired, degree, found.hermitian, narrow, dtype)

    @property
    def results(self) -> list[tuple[tuple[int, ...], str]]:
        """Shapes and dtypes of what :func:`made` returns."""
        n = self.rows[-1]
        parts = [(n, n), *((rows,) for rows in self.rows[:-1]), *((size,) for size in self.sizes)]
        return [(part, self.dtype) for part in parts] + ([((), "float64")] if self.narrow else [])


def flat(found: _amg.Hierarchy, dtype: Any) -> tuple[Array, ...]:
    """The transfers as they travel: for each level data, columns and row pointers of P, and of R if that is another."""
    matrices = [m for own in found.levels for m in ((own.P,) if own.paired else (own.P, own.R))]
    return tuple(array for m in matrices for array in (m.data.astype(dtype), m.indices, m.indptr))


def anew(form: Form, values: Array, row: Array, col: Array, spectra: Array, *transfers: Array) -> list[Array]:
    """What :func:`made` returns, NaN for a matrix that does not fit, and for whole batches.

    The arrays may have leading dimensions, those of nested batches, of size 1 where there is none.
    """
    form = Form(*form)  # a plain tuple where a program names it
    given = values, row, col, spectra, *transfers
    lead = np.broadcast_shapes(*(a.shape[:-1] for a in given))
    found = [np.full((*lead, *shape), np.nan, dtype) for shape, dtype in form.results]
    for index in np.ndindex(lead):
        try:
            parts = made(form, *(member(a, index, 1) for a in given))
        except _amg.UnfitError:  # its NaN are the report
            continue
        for array, part in zip(found, parts, strict=True):
            array[index] = part
    return found


def made(form: Form, values: Array, row: Array, col: Array, spectra: Array, *transfers: Array) -> list[Array]:
    """The coarsest inverse, the scales, the values of the matrices below the finest level, the unit of narrow levels.

    Raises
    ------
    UnfitError
        If the matrix is not one to refresh with.
    """
    finite = int(np.isfinite(values).sum())
    if finite < values.size:
        raise _amg.UnfitError(_wording.non_finite("A", values.size - finite, values.size))
    symbolic, values = canonical((form.rows[0],) * 2, values, row, col)
    _amg.check_refreshed(values, symbolic, form.hermitian)
    double = values.astype(np.result_type(values, np.float64), copy=False)
    A = sp.csr_array((double, symbolic.col, symbolic.indptr), shape=symbolic.shape)
    before = [_galerkin.Spectrum(*map(float, pair)) for pair in spectra.reshape(-1, 2)]
    found = _galerkin.anew(A, _read(form, transfers), form.sizes, before, form.degree, form.hermitian)
    unit = _amg.unit(A) if form.narrow else 1.0
    parts = [found.coarse * unit, *(scale * unit for scale in found.scales), *(part / unit for part in found.values)]
    if form.narrow:
        _amg.check_single(found, unit)
        parts.append(np.asarray(unit))
    return [part.astype(dtype) for part, (_, dtype) in zip(parts, form.results, strict=True)]


def _read(form: Form, transfers: tuple[Array, ...]) -> list[_galerkin.Transfers]:
    arrays = iter(transfers)

    def matrix(shape: tuple[int, int]) -> sp.csr_array:
        data, indices, indptr = next(arrays), next(arrays), next(arrays)
        return sp.csr_array((data.astype(np.result_type(data, np.float64)), indices, indptr), shape=shape)

    found = []
    for rows, columns, paired in zip(form.rows, form.rows[1:], form.paired, strict=False):
        P = matrix((rows, columns))
        found.append((P, P.T.tocsr() if paired else matrix((columns, rows))))
    return found
