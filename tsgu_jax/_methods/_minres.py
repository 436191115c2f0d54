"""Minimal residuals."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from tsgu._core.methods._options import ROUNDED, optimal
from tsgu._core.methods._settings import MINRESSettings
from tsgu_jax._matrix._columns import divide, dot, norm, root
from tsgu_jax._methods._krylov import krylov_method
from tsgu_jax._methods._loop import Kernel, Problem
from tsgu_jax._rule._frontend import call


class _Smoothed(NamedTuple):
    """With M: the residual of x, and the iterate whose residual has the smallest 2-norm on the way there."""

    r: Array
    best_x: Array
    best_r: Array


class _State(NamedTuple):
    x: Array  # solution
    # Lanczos: the last two basis vectors, z = M v where there is an M, and what links the two
    v: Array
    v_old: Array
    z: Array | None
    gamma: Array
    sign: Array  # of M
    # the last two directions and plane rotations, and what is left of the rotated right-hand side
    w: Array
    w_old: Array
    c: Array
    c_old: Array
    s: Array
    s_old: Array
    eta: Array
    smoothed: _Smoothed | None
    size: Array  # of A, with M of A M, as far as it has shown
    least: Array  # whether the residual has been the least there is, as in a system that is not compatible
    norm: Array
    broken: Array


def _start(problem: Problem, r: Array, attempt: Array) -> _State:
    x = jnp.zeros_like(r)
    smoothed = _Smoothed(r, x, r) if problem.preconditioned else None
    v, z, gamma, sign, _ = _normalised(problem, r)
    one, zero, never = jnp.ones_like(gamma), jnp.zeros_like(gamma), jnp.zeros(gamma.shape, bool)
    size = norm(r)
    return _State(x, v, x, z, gamma, sign, x, x, one, one, zero, zero, gamma, smoothed, zero, never, size, never)


def _normalised(
    problem: Problem, v: Array, sign: Array | None = None
) -> tuple[Array, Array | None, Array, Array, Array]:
    """v and +-M v divided by gamma = sqrt(+-v^H M v); gamma, the sign, and what is under the root.

    A negative definite M serves as -M, with which the iterates are the same. So the sign is that of the first v.
    """
    z = problem.M(v)
    square = dot(v, z).real
    if sign is None:
        sign = jnp.where(square < 0, -1, 1).astype(square.dtype)
    square = sign * square
    gamma = root(square)
    inverse = divide(jnp.ones_like(gamma), gamma)
    return inverse * v, sign * inverse * z if problem.preconditioned else None, gamma, sign, square


def _step(problem: Problem, t: _State) -> _State:
    """Preconditioned MINRES as in Elman, Silvester and Wathen, *Finite Elements and Fast Iterative Solvers* (2nd ed.,
    Oxford 2014), with the Lanczos vectors kept normalised.
    """
    direction = t.v if t.z is None else t.z
    v = problem.A(direction)
    delta = dot(direction, v).real
    v, z, gamma, sign, square = _normalised(problem, v - delta * t.v - t.gamma * t.v_old, t.sign)
    size = jnp.maximum(t.size, jnp.hypot(delta, gamma))
    eps = float(jnp.finfo(v.dtype).eps)
    indefinite = square < -((ROUNDED * eps * size) ** 2)  # M has eigenvalues of both signs

    a0 = t.c * delta - t.c_old * t.s * t.gamma
    a1 = jnp.hypot(a0, gamma)
    a2 = t.s * delta + t.c_old * t.c * t.gamma
    a3 = t.s_old * t.gamma
    broken = indefinite | (a1 <= ROUNDED * eps * size)  # not below the least singular value of A
    c = jnp.where(broken, 0, divide(a0, a1))  # which leaves x and its residual as they are
    s = jnp.where(broken, 1, divide(gamma, a1))
    # ||A r|| of the last iterate by Choi, Paige and Saunders (2011), section 3; with M ||A M r||, in the norm of M.
    vanished = jnp.hypot(a0, t.c * gamma) <= optimal(eps) * size
    least = t.least | (vanished & (t.gamma > 0) & ~indefinite)

    inverse = divide(jnp.ones_like(a1), a1)
    w = inverse * (direction - a3 * t.w_old - a2 * t.w)
    x = t.x + c * t.eta * w
    eta = -s * t.eta

    left, smoothed = jnp.abs(eta), t.smoothed
    if smoothed is not None:
        smoothed = _smooth(x, smoothed, s * s, c * eta, v)
        left = norm(smoothed.best_r)
    return _State(x, v, t.v, z, gamma, sign, w, t.w, c, t.c, s, t.s, eta, smoothed, size, least, left, broken)


def _smooth(x: Array, t: _Smoothed, shrink: Array, step: Array, v: Array) -> _Smoothed:
    """Keep the iterate of smallest 2-norm on the line from the last one to the new MINRES iterate.

    With M, the short recurrence minimises the M-norm of the residual, and none can minimise the 2-norm (Faber and
    Manteuffel 1984), in which the solve is judged; minimal residual smoothing (Weiss 1994, section 2) makes it fall in
    every step. The residual of x is r = s^2 r + c eta v (Choi, Paige and Saunders 2011, equation 3.11).
    """
    r = shrink * t.r + step * v
    change = r - t.best_r
    fraction = divide(-dot(change, t.best_r).real, dot(change, change).real)
    return _Smoothed(r, t.best_x + fraction * (x - t.best_x), t.best_r + fraction * change)


def _solution(problem: Problem, t: _State) -> Array:
    return t.x if t.smoothed is None else t.smoothed.best_x


def _hold(running: Array, before: _State, after: _State) -> _State:
    return after._replace(x=jnp.where(running, after.x, before.x))


def _vectors(restart: int) -> int:
    return 7


def _least(t: _State) -> Array:
    return t.least


@krylov_method(
    Kernel(_start, _step, _solution, _vectors, minimal=True, least=_least, hold=_hold),
    hermitian=True,
    settings=MINRESSettings,
)
def minres(
    A: Any,
    B: Array,
    *,
    x0: Array | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    maxiter: int | None = None,
    M: Any = None,
    settings: MINRESSettings | None = None,
    on_failure: str | None = None,
    return_info: bool = False,
) -> Any:
    """Solve A X = B by minimal residuals, for symmetric (Hermitian) A, definite or not. The default method.

    With a preconditioner, too, the 2-norm of the residual falls in every step: the iterates are smoothed. Where A is
    singular and b not in its range, the least residual is found, and reported as ``"incompatible"``.

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
        Preconditioner, Hermitian and definite, positive or negative; an approximation of the inverse of A. Not
        differentiated.
        See :mod:`tsgu_jax.precond`.
        What ``direct.prepare`` returned will do too.
    settings : MINRESSettings, optional
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
    C. C. Paige and M. A. Saunders, SIAM J. Numer. Anal. 12 (1975), 617-629; H. Elman, D. Silvester and A. Wathen,
    *Finite Elements and Fast Iterative Solvers*, 2nd ed., Oxford 2014; R. Weiss, J. Comput. Appl. Math. 50 (1994);
    S.-C. T. Choi, C. C. Paige and M. A. Saunders, SIAM J. Sci. Comput. 33 (2011), 1810-1836, section 3.

    Examples
    --------
    >>> import jax.numpy as jnp, tsgu_jax
    >>> from jax.experimental.sparse import BCOO
    >>> A = BCOO.fromdense(jnp.array([[0.0, 1.0], [1.0, 0.0]]))
    >>> tsgu_jax.minres(A, jnp.array([1.0, 2.0])).round(4)
    Array([2., 1.], dtype=float32)
    """
    return call(
        minres,
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
