"""Conjugate gradients."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from tsgu._core.methods._settings import LinearCGSettings
from tsgu_jax._matrix._columns import divide, dot
from tsgu_jax._methods._krylov import krylov_method
from tsgu_jax._methods._loop import Kernel, Problem
from tsgu_jax._rule._frontend import call


class _State(NamedTuple):
    x: Array  # solution
    r: Array  # residual by its recurrence
    p: Array  # direction of the last step
    rho: Array  # r^H M r of the last step
    square: Array  # r^H r
    broken: Array

    @property
    def norm(self) -> Array:
        return jnp.sqrt(self.square)


def _start(problem: Problem, r: Array, attempt: Array) -> _State:
    square = dot(r, r).real
    x = jnp.zeros_like(r)
    return _State(x, r, x, jnp.full_like(square, jnp.inf), square, square == 0)


def _step(problem: Problem, s: _State) -> _State:
    """Barrett et al., *Templates*, figure 2.5.

    In this order every vector is overwritten after its last use, and the compiled loop copies none.
    """
    z = problem.M(s.r)
    rho = dot(s.r, z).real if problem.preconditioned else s.square
    p = z + divide(rho, s.rho) * s.p
    q = problem.A(p)
    curvature = dot(p, q)
    alpha = divide(rho, curvature)
    x = s.x + alpha * p
    r = s.r - alpha * q
    return _State(x, r, p, rho, dot(r, r).real, (rho == 0) | (curvature == 0))


def _solution(problem: Problem, s: _State) -> Array:
    return s.x


def _vectors(restart: int) -> int:
    return 5


@krylov_method(Kernel(_start, _step, _solution, _vectors), hermitian=True, settings=LinearCGSettings)
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
    on_failure: str | None = None,
    return_info: bool = False,
) -> Any:
    """Solve A X = B by conjugate gradients, for symmetric (Hermitian) definite A.

    Positive definite as a rule; negative definite A and M do as well.

    Parameters
    ----------
    A : BCOO, BCSR, SparseMatrix, or callable, shape (n, n)
        float32, float64, complex64 or complex128. A function maps X to A X, linearly in each column, for X like
        B, which may then be a pytree of arrays.
        It is taken to be Hermitian, which the adjoint checks with the transpose that JAX derives.
    B : Array, shape (n,) or (n, k)
        Right-hand sides. Columns converge independently.
    x0 : Array, like B, optional
        Where to start; zero by default. Not differentiated, and used neither in tangent nor in adjoint solves.
    rtol, atol : float, optional
        Stop when ``||b - A x|| <= max(rtol ||b||, atol)``, in the 2-norm of the true residual; 1e-8 in double and 1e-5
        in single precision, and 0. ``atol`` is in the units of B, and not used for derivatives, which go by ``rtol``.
    maxiter : int, optional
        Largest number of steps; 10 n by default.
    M : Array, BCOO, BCSR, SparseMatrix or callable, optional
        Preconditioner, Hermitian and definite, an approximation of the inverse of A. Not differentiated.
        See :mod:`tsgu_jax.precond`.
        What ``direct.prepare`` returned will do too.
    settings : LinearCGSettings, optional
        ``maxiter`` and ``rtol`` in other words.
    on_failure : {"warn", "nan", "ignore"}, optional
        What is done where a column misses its target: see :func:`on_failure`.
    return_info : bool
        Whether to return ``(X, info)``, with the :class:`Info` of the forward solve.

    Returns
    -------
    Array
        X, with the shape and dtype of B; differentiable with respect to A, or what it closes over, and B, to any
        order, in both modes.

    Raises
    ------
    ValueError, TypeError
        As :func:`solve`; and for an argument out of range or of the wrong kind, or a function that
        is not linear.

    Warns
    -----
    ConvergenceWarning
        If a column misses its target, here or in the adjoint.

    References
    ----------
    R. Barrett et al., *Templates for the Solution of Linear Systems*, SIAM 1994, figure 2.5.

    Examples
    --------
    >>> import jax.numpy as jnp, tsgu_jax
    >>> from jax.experimental.sparse import BCOO
    >>> A = BCOO.fromdense(jnp.array([[4.0, 1.0], [1.0, 3.0]]))
    >>> tsgu_jax.linear_cg(A, jnp.array([1.0, 2.0])).round(4)
    Array([0.0909, 0.6364], dtype=float32)
    """
    return call(
        linear_cg,
        A,
        B,
        x0=x0,
        rtol=rtol,
        atol=atol,
        maxiter=maxiter,
        M=M,
        settings=settings,
        on_failure=on_failure,
        return_info=return_info,
    )
