"""The reference solver of the checks: SciPy's LU in double precision, refined, with its own error measured."""

from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from scipy.sparse.csgraph import structural_rank
from scipy.sparse.linalg import SuperLU, splu

Array = npt.NDArray[Any]

_REFINEMENTS = 2
"""Steps of iterative refinement; one brings a stable factorisation to rounding level, the second one a poor one."""


class Factored:
    """A in double precision, its factors, and how well they solve.

    Shares nothing with the methods that are checked: own factors, own products.

    Parameters
    ----------
    A : csr_array, shape (n, n)
        float64 or complex128.

    Attributes
    ----------
    unit : float
        Componentwise backward error of the solutions so far: each solves (A + E) x = b + e with |E| <= unit |A| and
        |e| <= unit |b|, rounding in the evaluation of the residual included.

    Raises
    ------
    numpy.linalg.LinAlgError
        If A is exactly singular.
    """

    def __init__(self, A: sp.csr_array) -> None:
        self.A = A
        self.AH = sp.csr_array(A.conj().T)
        self._magnitude, self._magnitude_h = abs(self.A), abs(self.AH)
        self._lu = _factor(A, symmetric=_same_pattern(self.A, self.AH))
        longest = max(int(np.diff(M.indptr).max()) for M in (self.A, self.AH))
        # Rounding in a residual grows with the row length (Higham, 2nd ed., section 3.1).
        self.unit = (longest + 4) * float(np.finfo(A.dtype).eps)

    def solve(self, b: Array, adjoint: bool = False) -> Array:
        """x with A x = b, or A^H x = b."""
        matrix, form = (self.AH, "H") if adjoint else (self.A, "N")
        x = self._lu.solve(b, form)
        for _ in range(_REFINEMENTS):
            x = x + self._lu.solve(b - matrix @ x, form)
        residual, size = abs(b - matrix @ x), self.size(x, b, adjoint)
        backward = np.divide(residual, size, out=np.zeros_like(size), where=size > 0).max(initial=0.0)
        self.unit = max(self.unit, float(backward))
        return x

    def size(self, x: Array, b: Array, adjoint: bool = False) -> Array:
        """|A| |x| + |b|, which times the unit roundoff is what rounding does to b - A x."""
        return (self._magnitude_h if adjoint else self._magnitude) @ abs(x) + abs(b)

    def condition(self, x: Array, b: Array, adjoint: bool = False) -> float:
        """Componentwise condition number || |A^-1| (|A| |x| + |b|) || / ||x|| in the largest norm, estimated.

        It is the relative change of x by relative changes of the entries of A and b, so it is indifferent to the
        scaling of rows (Higham, *Accuracy and Stability of Numerical Algorithms*, 2nd ed., section 7.2; the estimate is
        Algorithm 15.1 for the 1-norm of D A^-H, D = diag(|A| |x| + |b|)). 0 for x = 0; of several columns the largest.
        """
        worst = 0.0
        for column, size in zip(_columns(x), _columns(self.size(x, b, adjoint)), strict=True):
            if np.any(column):
                worst = max(worst, self._norm(size, adjoint) / float(abs(column).max()))
        return worst

    def _norm(self, d: Array, adjoint: bool) -> float:
        form, other = ("N", "H") if adjoint else ("H", "N")
        n = d.size
        v = np.full(n, 1 / n, dtype=self.A.dtype)
        estimate = 0.0
        for _ in range(5):
            y = d * self._lu.solve(v, form)
            estimate = max(estimate, float(abs(y).sum()))
            sign = np.divide(y, abs(y), out=np.ones_like(y), where=y != 0)
            z = abs(self._lu.solve(d * sign, other))
            largest = int(z.argmax())
            if z[largest] <= np.vdot(z, v).real:
                break
            v = np.zeros_like(v)
            v[largest] = 1
        return estimate


def _factor(A: sp.csr_array, symmetric: bool) -> SuperLU:
    """LU factors; by an ordering of A + A^T on a symmetric pattern, which fills in far less than COLAMD.

    That ordering wants pivots on the diagonal. They are accepted if they are not too small, which refinement makes up
    for; a solution with the vector of ones tells whether it does, and the general ordering takes over if not.
    """
    columns = A.tocsc()
    rank, n = int(structural_rank(columns)), A.shape[0]
    if rank < n:  # SuperLU would write past the end of its arrays
        raise np.linalg.LinAlgError(f"structural rank {rank} of {n}")
    if symmetric:
        with suppress(RuntimeError):  # no pivot near the diagonal
            lu = splu(columns, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.1, options={"SymmetricMode": True})
            ones = A @ np.ones(A.shape[0], dtype=A.dtype)
            x = lu.solve(ones)
            if np.linalg.norm(ones - A @ x, np.inf) <= 1e-8 * np.linalg.norm(abs(A) @ abs(x), np.inf):
                return lu
    try:
        return splu(columns)
    except RuntimeError as error:
        raise np.linalg.LinAlgError(str(error)) from error


def _same_pattern(A: sp.csr_array, B: sp.csr_array) -> bool:
    return np.array_equal(A.indptr, B.indptr) and np.array_equal(A.indices, B.indices)


def _columns(x: Array) -> Array:
    return x.reshape(x.shape[0], -1).T
