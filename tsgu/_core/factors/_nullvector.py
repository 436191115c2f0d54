"""Whether a matrix that was factored is singular to working precision: a vector that it maps to zero, within rounding.

An exactly singular matrix rarely shows a pivot of exactly zero: rounding leaves 1e-16 in its place, and a right-hand
side in the range is solved to rounding level, plus any multiple of the null vector. What tells is another right-hand
side, fixed and random, which is not in the range: its solution x is a huge multiple of the null vector. Where |A| |x|
has grown so much, two more solves, with A^T and with A, make a null vector z of x (inverse iteration with A^T A; Golub
and Van Loan, *Matrix Computations*, 4th ed., section 7.6.1), and z is judged, whatever it comes from.

The proof is a componentwise backward error. There is a matrix E with |E| <= w |A| and (A + E) z = 0 if and only if

    |A z| <= w |A| |z|      in each row

(Oettli and Prager; Higham, *Accuracy and Stability of Numerical Algorithms*, 2nd ed., theorem 7.3, for b = 0).
Evaluating A z in a row with k entries rounds by up to k u |A| |z| (section 3.1). So A is singular to working precision
where no row of A z is larger than that. Scaling rows or columns changes neither side of the comparison: a penalty of
1e12, or a diagonal from 1e-200 to 1e200, is not singular, although its condition number in a norm, or LAPACK's
``rcond``, would say so.
"""

from collections.abc import Callable, Iterator
from functools import cache, cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

Array = npt.NDArray[Any]

SUSPICIOUS = 100.0
"""A solution that grows by 1 / (SUSPICIOUS sqrt(n) eps) is looked at: the share of a null vector in a random
right-hand side is about 1 / sqrt(n), and a hundred times less once in a hundred."""

_SINGULAR = 1.0
"""Multiple of the bound for rounding in A z up to which A z is zero; 0.1 to 0.6 for most matrices that are singular."""

_UNSURE = 10.0
"""The same up to which rounding may leave less than two digits of a solution."""

_OUTSIDE = 1e3
"""The same above which a row does not belong to a null vector that lives in a part of the matrix."""

BELIEVED = 10.0
"""Backward error of that solution, in units of rounding, up to which factors are believed. A singular matrix makes it
grow by the inverse of the backward error of the factors: were that larger, it would not be suspicious."""

_REFINEMENTS = 2

_PEELED = 8
"""How often what does not belong is left away."""


class Verdict(NamedTuple):
    """Of a matrix that is singular, or nearly so: which of both, and the vector that shows it."""

    singular: bool
    vector: Array  # z, shape (n,)
    of_transpose: bool  # whether it is A^T that maps z to zero

    @property
    def words(self) -> str:
        """What z looks like."""
        size = abs(self.vector)
        inside = size > 1e-3 * size.max()
        entries, count, n = self.vector[inside], int(inside.sum()), size.size
        if np.ptp(entries.real) + np.ptp(entries.imag) <= 1e-3 * size.max():
            place = "all unknowns" if count == n else f"{count} of the {n} unknowns, and zero in the others"
            return f"one number in {place}"
        return f"largest in unknown {int(size.argmax())}, and not small in {count} of the {n} unknowns"


class Probe:
    """A right-hand side to be solved once beside those of the user, and what its solution says of the matrix.

    Parameters
    ----------
    matrix : csr_array, shape (n, n)
        A, with an entry in each row and column.
    """

    def __init__(self, matrix: sp.csr_array) -> None:
        self._matrix = matrix
        self._eps, largest = limits(matrix.dtype)
        self._starts = matrix.indptr[:-1]
        self._sizes = abs(matrix.data)
        self._exponents = np.frexp(np.maximum.reduceat(self._sizes, self._starts))[1]  # of each row
        # A solution may be 1 / eps as large, times a large entry of A: that must not overflow either.
        self._shift = max(0, int(self._exponents.max()) - largest // 2)
        self._unit = random_signs(matrix.shape[0])
        self._known: tuple[Array, Array] | None = None  # a solution, and what it reaches

    @cached_property
    def _scaled(self) -> sp.csr_array:
        """A with its rows brought near 1, by powers of two: nothing overflows, and scaling is exact."""
        A = self._matrix
        values = ldexp(A.data, np.repeat(-self._exponents, np.diff(A.indptr)))
        return sp.csr_array((values, A.indices, A.indptr), shape=A.shape)

    @cached_property
    def _magnitude(self) -> sp.csr_array:
        return abs(self._scaled)

    @property
    def side(self) -> Array:
        """The right-hand side, shape (n,): random signs, each entry of the size of its row."""
        side: Array = ldexp(self._unit, self._exponents - self._shift).astype(self._matrix.dtype)
        return side

    def solved(self, x: Array, solve: Callable[[Array, bool], Array]) -> Array | None:
        """x with A x = side to a backward error at rounding level: as given, else improved by a step of refinement.

        None where that does not help: so it is with poor pivots on a singular matrix.
        """
        with np.errstate(all="ignore"):
            left = self.side - self._matrix @ x
            if self._error(x, left) <= BELIEVED:
                return x
            x = x + solve(left, False)
            return x if self._error(x, self.side - self._matrix @ x) <= BELIEVED else None  # None for NaN

    def _error(self, x: Array, left: Array) -> float:
        """Backward error of x, whose residual is ``left``, in units of rounding; with rows of one size."""
        size = self._reached(x).max() + 1
        return float(np.max(ldexp(abs(left), self._shift - self._exponents)) / (self._eps * size))

    def _reached(self, x: Array) -> Array:
        """|A| |x| in rows of one size."""
        if self._known is None or self._known[0] is not x:
            reached = np.add.reduceat(self._sizes * abs(x)[self._matrix.indices], self._starts)
            self._known = x, ldexp(reached, self._shift - self._exponents)
        return self._known[1]

    def verdict(self, x: Array, solve: Callable[[Array, bool], Array]) -> Verdict | None:
        """What the solution of A x = side says; None where A is as good as most.

        Parameters
        ----------
        x : ndarray, shape (n,)
        solve : callable
            ``solve(b, transposed)``, by the same factors.
        """
        with np.errstate(all="ignore"):  # what is not finite proves nothing
            growth = float(np.max(self._reached(x) / abs(self._unit)))
            if not 1 / (SUSPICIOUS * np.sqrt(x.size) * self._eps) < growth < np.inf:
                return None
            x = ldexp(x, self._shift)
            best: tuple[float, Verdict] | None = None
            for backward, z, of_transpose in self._candidates(x, solve):
                if best is None or backward < best[0]:
                    best = backward, Verdict(backward <= _SINGULAR, z, of_transpose)
                if backward <= _SINGULAR:
                    break
        return best[1] if best is not None and best[0] <= _UNSURE else None

    def _candidates(self, x: Array, solve: Callable[[Array, bool], Array]) -> Iterator[tuple[float, Array, bool]]:
        """Vectors that A or A^T may map to zero, and by how much they miss it."""
        columns = self._magnitude.max(axis=0).toarray().ravel()  # which do for columns what scaling did for rows
        share = columns * x / np.max(columns * abs(x))
        w = ldexp(solve((columns * share.conj()).astype(x.dtype), True), self._exponents)
        w = w / np.max(abs(w))
        x = self._solved(w.conj(), solve)
        for _ in range(1 + _REFINEMENTS):
            x = x / np.max(columns * abs(x))
            yield *self._judged(x, False), False
            change = self._solved(self._scaled @ x, solve)  # but for the share of the null vector in it
            share = columns * x
            x = x - change + x * (np.vdot(share, columns * change) / np.vdot(share, share))
        yield *self._judged(w, True), True

    def _judged(self, z: Array, transposed: bool) -> tuple[float, Array]:
        """The backward error of z, in units of the rounding error of A z, and z.

        A null vector of a part of the matrix comes with a rest elsewhere that is tiny, but is no null vector: it is
        left away with the columns of all rows that clearly do not belong, and so on with those that are left.
        """
        A, magnitude = (self._scaled.T, self._magnitude.T) if transposed else (self._scaled, self._magnitude)
        for _ in range(_PEELED):
            error = self._errors(A, magnitude, z)
            outside = ~(error <= _OUTSIDE)  # true for NaN
            if not outside.any():
                break
            z = np.where(magnitude.T @ outside.astype(magnitude.dtype) > 0, 0, z)
        return (float(error.max()) if z.any() else np.inf), z

    def _errors(self, A: Any, magnitude: Any, z: Array) -> Array:
        """Of each row; infinite where z itself is not finite."""
        if not np.isfinite(z).all():
            return np.full(z.size, np.inf)
        unit = (magnitude.astype(bool).sum(axis=1) + 1) * self._eps * (magnitude @ abs(z))
        return np.divide(abs(A @ z), unit, out=np.zeros(z.size), where=unit > 0)

    def _solved(self, b: Array, solve: Callable[[Array, bool], Array]) -> Array:
        """The solution of the scaled A x = b."""
        side = ldexp(b, self._exponents - self._shift).astype(self._matrix.dtype)
        return ldexp(solve(side, False), self._shift)


@cache
def limits(dtype: np.dtype[Any]) -> tuple[float, int]:
    """The rounding of a dtype, and the exponent at which it overflows; NumPy takes microseconds to say so."""
    found = np.finfo(dtype)
    return float(found.eps), int(found.maxexp)


@lru_cache(maxsize=4)
def random_signs(n: int) -> Array:
    rng = np.random.default_rng(0)
    return rng.uniform(0.5, 1.0, n) * rng.choice([-1.0, 1.0], n)


def ldexp(x: Array, exponents: Any) -> Array:
    """x times powers of two, exactly where nothing overflows or vanishes."""
    if x.dtype.kind != "c":
        return np.ldexp(x, exponents)
    scaled = np.empty_like(x)
    scaled.real, scaled.imag = np.ldexp(x.real, exponents), np.ldexp(x.imag, exponents)
    return scaled
