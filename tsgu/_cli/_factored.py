"""The reference solver of the checks: SciPy's LU in double precision, refined, with its own error measured."""

from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from scipy.sparse.linalg import splu

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
        longest = max(int(np.diff(M.indptr).max()) for M in (self.A, self.AH))
        # Rounding in a residual grows with the row length (Higham, 2nd ed., section 3.1); 16 covers the sums over x.
        self.unit = (longest + 16) * float(np.finfo(A.dtype).eps)
        try:
            self._lu = splu(A.tocsc())
        except RuntimeError as error:
            raise np.linalg.LinAlgError(str(error)) from error

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

    def condition(self, x: Array, b: Array) -> float:
        """Componentwise condition number || |A^-1| (|A| |x| + |b|) || / ||x|| in the largest norm, estimated.

        It is the relative change of x by relative changes of the entries of A and b, so it is indifferent to the
        scaling of rows (Higham, *Accuracy and Stability of Numerical Algorithms*, 2nd ed., section 7.2; the estimate is
        Algorithm 15.1 for the 1-norm of D A^-H, D = diag(|A| |x| + |b|)).
        """
        worst = 0.0
        for column, size in zip(_columns(x), _columns(self.size(x, b)), strict=True):
            if np.any(column):
                worst = max(worst, self._norm(size) / float(abs(column).max()))
        return worst

    def _norm(self, d: Array) -> float:
        n = d.size
        v = np.full(n, 1 / n, dtype=self.A.dtype)
        estimate = 0.0
        for _ in range(5):
            y = d * self._lu.solve(v, "H")
            estimate = max(estimate, float(abs(y).sum()))
            sign = np.divide(y, abs(y), out=np.ones_like(y), where=y != 0)
            z = abs(self._lu.solve(d * sign, "N"))
            largest = int(z.argmax())
            if z[largest] <= np.vdot(z, v).real:
                break
            v = np.zeros_like(v)
            v[largest] = 1
        return estimate


def _columns(x: Array) -> Array:
    return x.reshape(x.shape[0], -1).T
