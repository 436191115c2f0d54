"""Small systems and what is true of them, by dense algebra in NumPy.

The loss is ``sum(weights * |x|^2) / 2``, whose second derivative holds the first derivative of x twice over, so that a
wrong adjoint shows in it. Complex gradients are in PyTorch's convention; JAX's are their conjugates.
"""

from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp


@dataclass(frozen=True, eq=False)
class System:
    A: sp.csr_array  # sorted, without repeated entries
    b: np.ndarray
    weights: np.ndarray

    @property
    def n(self) -> int:
        return self.A.shape[0]

    @property
    def rows(self) -> np.ndarray:
        return np.repeat(np.arange(self.n), np.diff(self.A.indptr))

    @property
    def columns(self) -> np.ndarray:
        return self.A.indices.astype(np.int64)

    @property
    def values(self) -> np.ndarray:
        return self.A.data

    def with_values(self, values: np.ndarray) -> "System":
        return replace(self, A=sp.csr_array((values, self.A.indices, self.A.indptr), shape=self.A.shape))

    def dense(self, values: np.ndarray) -> np.ndarray:
        return self.with_values(values).A.toarray()


def system(A: sp.sparray, seed: int = 1, columns: int | None = None) -> System:
    """A with a random right-hand side and random weights."""
    rng = np.random.default_rng(seed)
    A = sp.csr_array(A)
    A.sort_indices()
    shape = (A.shape[0],) if columns is None else (A.shape[0], columns)
    b = rng.standard_normal(shape).astype(A.dtype)
    if np.iscomplexobj(b):
        b = b + 1j * rng.standard_normal(shape)
    return System(A, b, rng.uniform(0.5, 1.5, (A.shape[1], *shape[1:])))


def nonsymmetric(complex_: bool = False, columns: int | None = None, n: int = 60) -> System:
    """A nonsymmetric matrix with a nonsymmetric pattern, dominated by its diagonal."""
    rng = np.random.default_rng(0)
    A = sp.random_array((n, n), density=0.06, rng=rng, data_sampler=rng.standard_normal)
    if complex_:
        A = A * np.exp(1j * np.pi / 3) + sp.diags_array(1j * rng.uniform(size=n))
    return system(A + 6 * sp.eye_array(n), columns=columns)


def convection(n: int = 200) -> System:
    """Upwind transport with little diffusion: nothing like its transpose, and of which ILU without fill is LU."""
    return system(sp.diags_array([-1.9, 2.0, -0.1], offsets=[-1, 0, 1], shape=(n, n)))


def line(n: int) -> sp.dia_array:
    return sp.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(n, n))


def poisson_1d(n: int = 2000) -> System:
    """Condition number 1.6e6."""
    return system(line(n))


def poisson_2d(side: int = 100) -> System:
    return system(sp.kronsum(line(side), line(side)))


def indefinite() -> System:
    """Conjugate gradients divide by zero in their first step."""
    return replace(system(sp.diags_array(np.tile([1.0, -1.0], 20))), b=np.ones(40))


def eigenvector(n: int = 400) -> System:
    """Conjugate gradients solve for an eigenvector in one step, and for the weighted one of the adjoint in many."""
    return replace(system(line(n)), b=np.sin(np.arange(1, n + 1) * np.pi / (n + 1)))


def singular(n: int = 30) -> System:
    """The Laplacian of a path without a fixed node, whose last pivot is exactly zero, and b outside of its range."""
    A = line(n).tolil()
    A[0, 0] = A[n - 1, n - 1] = 1.0
    return system(A)


def tall() -> System:
    """Fifty equations for twelve unknowns, with a residual that is not small."""
    rng = np.random.default_rng(0)
    return system(sp.random_array((50, 12), density=0.3, rng=rng) + sp.eye_array(50, 12))


def triangle() -> System:
    """Upper triangular."""
    return system(sp.triu(nonsymmetric().A))


def residual(system: System, x: np.ndarray) -> float:
    return float(np.linalg.norm(system.b - system.A @ x) / np.linalg.norm(system.b))


def off(found: np.ndarray, truth: np.ndarray) -> float:
    """The relative error; infinite where anything is not finite."""
    error = float(np.linalg.norm(found - truth) / np.linalg.norm(truth))
    return error if np.isfinite(error) else np.inf


def gradient(system: System) -> np.ndarray:
    """Of the loss with respect to the stored entries of A."""
    A = system.A.toarray()
    x = np.linalg.solve(A, system.b)
    adjoint = np.linalg.solve(A.conj().T, system.weights * x)
    return _sampled(system, -adjoint, x.conj())


def least_squares_gradient(system: System) -> np.ndarray:
    """Golub and Pereyra: with z the minimiser for the right-hand side A^+T g, minus A^+T g x^T, plus r z^T."""
    A = system.A.toarray()
    inverse = np.linalg.pinv(A)
    x = inverse @ system.b
    adjoint = inverse.T @ (system.weights * x)
    return _sampled(system, -adjoint, x) + _sampled(system, system.b - A @ x, inverse @ adjoint)


def tangent(system: System, direction: np.ndarray) -> np.ndarray:
    """The derivative of x where the stored entries of A move in a direction."""
    A = system.A.toarray()
    return -np.linalg.solve(A, system.dense(direction) @ np.linalg.solve(A, system.b))


def hessian_product(system: System, direction: np.ndarray) -> np.ndarray:
    """The derivative of the gradient in a direction; of real systems."""
    A, moved = system.A.toarray(), system.dense(direction)
    x, dx = np.linalg.solve(A, system.b), tangent(system, direction)
    adjoint = np.linalg.solve(A.T, system.weights * x)
    moved_adjoint = np.linalg.solve(A.T, system.weights * dx - moved.T @ adjoint)
    return _sampled(system, -moved_adjoint, x) + _sampled(system, -adjoint, dx)


def _sampled(system: System, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The stored entries of left right^T."""
    left, right = left.reshape(left.shape[0], -1), right.reshape(right.shape[0], -1)
    return (left[system.rows] * right[system.columns]).sum(1)
