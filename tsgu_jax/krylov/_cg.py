"""Conjugate gradients."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from tsgu._core._settings import LinearCGSettings
from tsgu_jax._method import call
from tsgu_jax.krylov._columns import divide, dot, norm
from tsgu_jax.krylov._driver import Kernel, Problem
from tsgu_jax.krylov._prepared import krylov_method


class _State(NamedTuple):
    x: Array  # solution
    r: Array  # residual by its recurrence
    p: Array  # direction
    rho: Array  # r^H M r
    norm: Array
    broken: Array


def _start(problem: Problem, r: Array, attempt: Array) -> _State:
    z = problem.M(r)
    rho = dot(r, z)
    return _State(jnp.zeros_like(r), r, z, rho, norm(r), rho == 0)


def _step(problem: Problem, s: _State) -> _State:
    """Saad, *Iterative Methods for Sparse Linear Systems*, 2nd ed., Algorithm 9.1; line numbers behind the code."""
    q = problem.A(s.p)
    curvature = dot(s.p, q)
    alpha = divide(s.rho, curvature)  # 3
    x = s.x + alpha * s.p  # 4
    r = s.r - alpha * q  # 5
    z = problem.M(r)  # 6
    rho = dot(r, z)
    beta = divide(rho, s.rho)  # 7
    return _State(x, r, z + beta * s.p, rho, norm(r), curvature == 0)  # 8


def _solution(problem: Problem, s: _State) -> Array:
    return s.x


@krylov_method(Kernel(_start, _step, _solution, lambda restart: 5), hermitian=True, settings=LinearCGSettings)
def linear_cg(
    A: Any,
    B: Array,
    *,
    x0: Array | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    maxiter: int | None = None,
    M: Any = None,
    settings: LinearCGSettings | None = None,
) -> Array:
    """Solve A X = B by conjugate gradients, for symmetric (Hermitian) positive definite A.

    Parameters
    ----------
    A : BCOO, BCSR, SparseMatrix, or callable, shape (n, n)
        float32, float64, complex64 or complex128. A callable maps X to A X; it must take vectors (n,) if B is one, and
        blocks (n, k) otherwise.
    B : Array, shape (n,) or (n, k)
        Right-hand sides. Columns converge independently.
    x0 : Array, like B, optional
        Where to start; zero by default. Not differentiated, and used neither in tangent nor in adjoint solves.
    rtol, atol : float, optional
        Stop when ``||b - A x|| <= max(rtol ||b||, atol)``, in the 2-norm of the true residual; 1e-8 in double and 1e-5
        in single precision, and 0.
    maxiter : int, optional
        Largest number of steps; 10 n by default.
    M : Array, BCOO, BCSR, SparseMatrix or callable, optional
        Preconditioner, Hermitian positive definite, an approximation of the inverse of A. Not differentiated.
    settings : LinearCGSettings, optional
        ``maxiter`` and ``rtol`` in other words.

    Returns
    -------
    Array
        X, with the shape and dtype of B; differentiable with respect to A and B, to any order, in both modes.

    Raises
    ------
    ValueError, TypeError
        As :func:`solve`; and for an argument out of range or of the wrong kind.

    Warns
    -----
    ConvergenceWarning
        If a column misses its target, here or in the adjoint.

    References
    ----------
    Y. Saad, *Iterative Methods for Sparse Linear Systems*, 2nd ed., SIAM 2003, Algorithm 9.1.

    Examples
    --------
    >>> import jax.numpy as jnp, tsgu_jax
    >>> from jax.experimental.sparse import BCOO
    >>> A = BCOO.fromdense(jnp.array([[4.0, 1.0], [1.0, 3.0]]))
    >>> tsgu_jax.linear_cg(A, jnp.array([1.0, 2.0])).round(4)
    Array([0.0909, 0.6364], dtype=float32)
    """
    return call(linear_cg, A, B, x0=x0, rtol=rtol, atol=atol, maxiter=maxiter, M=M, settings=settings)
