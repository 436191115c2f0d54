"""The levels of a hierarchy for other values of its matrix: the transfers kept, all else made anew by products.

A pattern of a coarse matrix is that of the product R A P, whatever cancels in the values: so the levels of all matrices
on one pattern are stored alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from tsgu._core.pattern import _symbolic

Array = npt.NDArray[Any]

Transfers = tuple[sp.csr_array, sp.csr_array]
"""P and R, to the next level and from it."""


_LANCZOS = 12
_SAFETY = 1.05
"""Steps of the estimate of the largest eigenvalue, which is from below, and the factor on it."""


_GROWTH = 1.1
"""Of the bound, from which on the largest eigenvalue is looked for again."""


class Spectrum(NamedTuple):
    """The largest eigenvalue of D^-1 A, or a little more, and a bound that is quick to find."""

    largest: float
    bound: float


class Anew(NamedTuple):
    """What depends on the values: those of the matrices below the finest, the scales, the coarsest inverse."""

    values: list[Array]
    scales: list[Array]
    coarse: Array


def anew(
    A: sp.csr_array,
    transfers: Sequence[Transfers],
    sizes: Sequence[int],
    spectra: Sequence[Spectrum],
    degree: int,
    hermitian: bool,
) -> Anew:
    """The levels for a matrix on the pattern that they were set up for.

    Parameters
    ----------
    A : csr_array
        In canonical order, stored zeros included.
    transfers : sequence of (P, R)
        One pair for each level above the coarsest.
    sizes : sequence of int
        Entries of the matrices on the levels of ``transfers`` below the finest.
    spectra : sequence of Spectrum
        Of the matrices that the levels were set up for.
    degree : int
        Of the smoother.
    hermitian : bool
        Whether A is, and R the adjoint of P.
    """
    values: list[Array] = []
    scales: list[Array] = []
    for depth, ((P, R), before) in enumerate(zip(transfers, spectra, strict=True)):
        scales.append(scale(A, _largest_anew(A, before, degree, hermitian)))
        A = R @ (A @ P) if depth + 1 == len(transfers) else _whole(A, P, R, sizes[depth])
        if depth + 1 < len(transfers):
            values.append(A.data)
    return Anew(values, scales, inverse(A.toarray(), hermitian))


def coarse(A: sp.csr_array, P: sp.csr_array, R: sp.csr_array, product: sp.csr_array | None = None) -> sp.csr_array:
    """R A P with every entry that it has for some values of A, zero or not; ``product`` is the same as far as known."""
    structure = _ones(R) @ (_ones(A) @ _ones(P))
    product = R @ (A @ P) if product is None else product
    product.sort_indices()
    if product.nnz == structure.nnz:
        return product
    structure.sort_indices()
    # SciPy does not store what has cancelled.
    whole, stored = (_symbolic.from_csr(m.indptr, m.indices, m.shape) for m in (structure, product))
    values = np.zeros(structure.nnz, product.dtype)
    values[_symbolic.locate(stored, whole)[0]] = product.data
    return sp.csr_array((values, structure.indices, structure.indptr), shape=structure.shape)


def _whole(A: sp.csr_array, P: sp.csr_array, R: sp.csr_array, size: int) -> sp.csr_array:
    """The same, where the number of entries is known, and tells that nothing has cancelled."""
    product = R @ (A @ P)
    if product.nnz != size:
        return coarse(A, P, R)
    product.sort_indices()
    return product


def _ones(A: sp.csr_array) -> sp.csr_array:
    return sp.csr_array((np.ones(A.nnz, np.float32), A.indices, A.indptr), shape=A.shape)


def bound(A: sp.csr_array, hermitian: bool) -> float:
    """An upper bound of the eigenvalues of D^-1 A, by Gershgorin: of rows, and of columns for the transpose."""
    inverse = reciprocal(A.diagonal())
    magnitude = sp.csr_array((abs(A.data), A.indices, A.indptr), shape=A.shape)
    ones = np.ones(A.shape[0])
    sums = [magnitude @ ones] if hermitian else [magnitude @ ones, magnitude.T @ ones]
    return float(min((abs(inverse) * each).max(initial=0) for each in sums))


def spectrum(A: sp.csr_array, hermitian: bool) -> Spectrum:
    """Of D^-1 A; where A is not Hermitian, or D not positive, the bound stands for the eigenvalue."""
    most, diagonal = bound(A, hermitian), A.diagonal()
    if most == 0 or not hermitian or not np.all(diagonal.real >= 0):
        return Spectrum(most, most)
    return Spectrum(_largest_eigenvalue(A, np.sqrt(reciprocal(diagonal).real), most), most)


def _largest_anew(A: sp.csr_array, before: Spectrum, degree: int, hermitian: bool) -> float:
    """The largest eigenvalue for other values: the same part of the bound, where that cannot be far off."""
    most = bound(A, hermitian)
    if before.largest >= _least_share(degree) * before.bound and most <= _GROWTH * before.bound:
        return most * before.largest / (before.bound or 1.0)
    return spectrum(A, hermitian).largest


def _largest_eigenvalue(A: sp.csr_array, root: Array, bound: float) -> float:
    """Of D^-1/2 A D^-1/2, or a little more; ``bound`` is an upper bound, returned as soon as no less can come out.

    By Lanczos (Golub and Van Loan, 4th ed., section 10.1) from a fixed start.
    """
    v = np.random.default_rng(0).uniform(-1, 1, A.shape[0]).astype(A.dtype)
    v /= np.linalg.norm(v)
    old, below, estimate = np.zeros_like(v), 0.0, 0.0
    diagonal: list[float] = []
    off: list[float] = []
    for _ in range(min(_LANCZOS, A.shape[0])):
        w = A @ (root * v)  # from here on in place: at this size a temporary costs as much as the arithmetic
        w *= root
        old *= below
        w -= old
        diagonal.append(np.vdot(v, w).real)
        tridiagonal = np.diag(diagonal) + np.diag(off, 1) + np.diag(off, -1)
        estimate = _SAFETY * float(np.linalg.eigvalsh(tridiagonal)[-1])
        if estimate >= bound:
            return bound
        np.multiply(v, diagonal[-1], out=old)
        w -= old
        below = float(np.linalg.norm(w))
        if below <= 1e-12 * abs(diagonal[-1]):
            break
        off.append(below)
        w /= below
        old, v = v, w
    return estimate


def scale(A: sp.csr_array, largest: float) -> Array:
    """4 / (3 lambda D), lambda the largest eigenvalue of D^-1 A or more; 0 where a coarse diagonal entry is."""
    found: Array = 4 / (3 * (largest or 1.0)) * reciprocal(A.diagonal())
    return found


def reciprocal(diagonal: Array) -> Array:
    """1 over each entry, and 0 over zero."""
    return np.divide(1, diagonal, out=np.zeros_like(diagonal), where=diagonal != 0)


def _least_share(degree: int) -> float:
    """The part of the bound that will do for the largest eigenvalue, wherever that is.

    The smoother leaves W_k(1 - 2 t / lambda) / (2 k + 1) of an eigenvector of D^-1 A of eigenvalue t, with W_k the
    Chebyshev polynomial of the fourth kind. Where lambda is this part of a bound of t, that is at most 7/9 for k = 1,
    and less for more: beyond -1 the polynomial grows like cosh((k + 1/2) s) with s < 3 / (2 k + 1). So a cycle of a
    definite matrix stays definite.
    """
    return 1 - (1.5 / (2 * degree + 1)) ** 2


def inverse(A: Array, hermitian: bool) -> Array:
    """The inverse of a dense matrix, or its pseudo-inverse where it is singular to working precision."""
    eps = len(A) * float(np.finfo(A.dtype).eps)
    found = _regular_inverse(A, eps)
    if found is None:
        return np.linalg.pinv(A, rcond=eps, hermitian=hermitian)
    return (found + found.conj().T) / 2 if hermitian else found


def _regular_inverse(A: Array, eps: float) -> Array | None:
    try:
        found: Array = np.linalg.inv(A)
    except np.linalg.LinAlgError:
        return None
    return found if abs(A).sum(axis=0).max(initial=0) * abs(found).sum(axis=0).max(initial=0) * eps < 1 else None
