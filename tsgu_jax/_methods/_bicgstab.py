"""Stabilised bi-conjugate gradients."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from tsgu._core.methods._settings import BICGSTABSettings
from tsgu_jax._matrix._columns import divide, dot, norm
from tsgu_jax._methods._krylov import krylov_method
from tsgu_jax._methods._loop import Kernel, Problem
from tsgu_jax._rule._frontend import call


class _State(NamedTuple):
    x: Array  # solution
    r: Array  # residual by its recurrence
    p: Array  # direction of the last step, v = A M p, and what scaled the two
    v: Array
    beta: Array
    omega: Array
    shadow: Array  # the fixed vector that residuals are made orthogonal to
    rho: Array  # shadow^H r
    norm: Array
    broken: Array


def _start(problem: Problem, r: Array, attempt: Array) -> _State:
    # Where r itself broke down at once, any vector will do that is not orthogonal to what follows.
    noise = np.random.default_rng(0).standard_normal(r.shape)
    shadow = r + attempt * jnp.asarray(noise, r.real.dtype)
    rho = dot(shadow, r)
    x, zero = jnp.zeros_like(r), jnp.zeros_like(rho)
    return _State(x, r, x, x, zero, zero, shadow, rho, norm(r), rho == 0)


def _step(problem: Problem, s: _State) -> _State:
    """Barrett et al., *Templates*, figure 2.10, with M applied from the right.

    In this order every vector is overwritten after its last use, and the compiled loop copies none.
    """
    p = s.r + s.beta * (s.p - s.omega * s.v)
    p_hat = problem.M(p)
    v = problem.A(p_hat)
    sigma = dot(s.shadow, v)
    alpha = divide(s.rho, sigma)
    half = s.r - alpha * v
    r_hat = problem.M(half)
    t = problem.A(r_hat)
    omega = divide(dot(t, half), dot(t, t))
    x = s.x + alpha * p_hat + omega * r_hat
    r = half - omega * t
    rho = dot(s.shadow, r)
    beta = divide(rho * alpha, s.rho * omega)
    size = norm(r)
    # Each of these makes the next direction meaningless, while x is still sound.
    tiny = jnp.finfo(r.dtype).eps ** 2 * norm(s.shadow) * size
    broken = (sigma == 0) | (omega == 0) | (jnp.abs(rho) <= tiny)
    return _State(x, r, p, v, beta, omega, s.shadow, rho, size, broken)


def _solution(problem: Problem, s: _State) -> Array:
    return s.x


def _vectors(restart: int) -> int:
    return 7


@krylov_method(Kernel(_start, _step, _solution, _vectors), hermitian=False, settings=BICGSTABSettings)
def bicgstab(
    A: Any,
    B: Array,
    *,
    x0: Array | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    maxiter: int | None = None,
    M: Any = None,
    settings: BICGSTABSettings | None = None,
    on_failure: str | None = None,
    return_info: bool = False,
) -> Any:
    """Solve A X = B by stabilised bi-conjugate gradients, for general A.

    Where the recurrence breaks down, it starts again from the true residual; what cannot be repaired so is reported,
    and the last sound iterate returned.

    Parameters
    ----------
    A : BCOO, BCSR, SparseMatrix, or callable, shape (n, n)
        float32, float64, complex64 or complex128. A function maps X to A X, linearly in each column, for X like
        B, which may then be a pytree of arrays.
        Its transpose is derived by JAX; an attribute ``T`` is taken instead, and checked.
    B : Array, shape (n,) or (n, k)
        Right-hand sides. Columns converge independently.
    x0 : Array, like B, optional
        Where to start; zero by default. Not differentiated, and used neither in tangent nor in adjoint solves.
    rtol, atol : float, optional
        Stop when ``||b - A x|| <= max(rtol ||b||, atol)``, in the 2-norm of the true residual; 1e-8 in double and 1e-5
        in single precision, and 0. ``atol`` is in the units of B, and not used for derivatives, which go by ``rtol``.
    maxiter : int, optional
        Largest number of steps, of two products each; 10 n by default.
    M : Array, BCOO, BCSR, SparseMatrix or callable, optional
        Preconditioner, an approximation of the inverse of A. The adjoint takes ``M.T``,
        derived for a function. Not differentiated. See :mod:`tsgu_jax.precond`.
        What ``direct.prepare`` returned will do too.
    settings : BICGSTABSettings, optional
        ``maxiter``, ``atol``, ``rtol`` and ``M`` in other words.
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
        As :func:`solve`; and for an argument out of range or of the wrong kind, for a function
        that is not linear, or whose transpose is needed and cannot be derived.

    Warns
    -----
    ConvergenceWarning
        If a column misses its target, here or in the adjoint.

    References
    ----------
    H. A. van der Vorst, SIAM J. Sci. Stat. Comput. 13 (1992), 631-644; R. Barrett et al., *Templates for the Solution
    of Linear Systems*, SIAM 1994, figure 2.10.

    Examples
    --------
    >>> import jax.numpy as jnp, tsgu_jax
    >>> from jax.experimental.sparse import BCOO
    >>> A = BCOO.fromdense(jnp.array([[4.0, 1.0], [0.0, 3.0]]))
    >>> tsgu_jax.bicgstab(A, jnp.array([6.0, 6.0])).round(4)
    Array([1., 2.], dtype=float32)
    """
    return call(
        bicgstab,
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
