"""What the numbers that a library returned are worth, found by SciPy in the parent process."""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

TARGET = 1e-8
"""Relative residual that the solution and the adjoint solution must meet, in every column."""

GRADIENT = 1e-6
"""Largest relative error of the gradient of the values against -lambda_i x_j of the returned lambda and x.

Some libraries solve for lambda twice, once for each gradient; then the two differ by what the residual allows.
"""


@dataclass(frozen=True)
class Check:
    forward: float
    adjoint: float
    gradient: float

    @property
    def residual(self) -> float:
        """The larger of both residuals; NaN if one is."""
        return float(np.max([self.forward, self.adjoint]))

    @property
    def complaint(self) -> str:
        """What is wrong, or nothing."""
        if not self.residual <= TARGET:
            return f"did not converge: residual {self.residual:.1e}"
        if not self.gradient <= GRADIENT:
            return f"wrong gradient: error {self.gradient:.1e}"
        return ""


def check(A: sp.csr_array, b: np.ndarray, w: np.ndarray, x: np.ndarray, lam: np.ndarray, grad: np.ndarray) -> Check:
    """Judge x against A x = b, lam against A^T lam = w, and grad against -lam_i x_j at each stored entry."""
    rows = np.repeat(np.arange(A.shape[0]), np.diff(A.indptr))
    pairs = "ij,ij->i" if b.ndim == 2 else "i,i->i"
    if (x.shape, lam.shape, grad.shape) != (b.shape, w.shape, A.data.shape):
        raise ValueError(f"x, grad_b and grad_A must have shapes {b.shape}, {w.shape} and {A.data.shape}; "
                         f"got {x.shape}, {lam.shape} and {grad.shape}.")  # fmt: skip
    expected = -np.einsum(pairs, lam[rows], x[A.indices])
    error = np.linalg.norm(grad - expected) / np.linalg.norm(expected)
    return Check(_relative(b - A @ x, b), _relative(w - A.T @ lam, w), float(error))


def _relative(residual: np.ndarray, side: np.ndarray) -> float:
    return float(np.max(np.linalg.norm(residual, axis=0) / np.linalg.norm(side, axis=0)))
