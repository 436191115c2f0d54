"""Generalised minimal residuals, restarted and flexible."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from tsgu_jax._matrix._columns import combine, divide, dots, norm
from tsgu_jax._methods._krylov import krylov_method
from tsgu_jax._methods._loop import Kernel, Problem
from tsgu_jax._program import _mesh
from tsgu_jax._rule._frontend import call


class _State(NamedTuple):
    x: Array  # solution at the start of the cycle
    b: Array  # right-hand side of the run, from which a cycle takes its residual
    j: Array  # steps of this cycle
    # Arnoldi: orthonormal basis (m + 1, ...), and the preconditioned basis (m, ...) that the solution is made of
    V: Array
    Z: Array | None
    small: "_Small"
    norm: Array
    broken: Array


class _Small(NamedTuple):
    """The small least-squares problem: product of all rotations, triangular factor, rotated right-hand side."""

    Q: Array
    R: Array
    g: Array


def _start(problem: Problem, r: Array, attempt: Array) -> _State:
    m = problem.restart
    first, small, size = _cycle(m, r)
    V = jnp.zeros((m + 1, *r.shape), r.dtype).at[0].set(first)
    Z = jnp.zeros((m, *r.shape), r.dtype) if problem.preconditioned else None
    return _State(jnp.zeros_like(r), r, jnp.int32(0), V, Z, small, size, size == 0)


def _cycle(m: int, r: Array) -> tuple[Array, _Small, Array]:
    """Begin a cycle with residual r: the first basis vector, the least-squares problem, and the norm."""
    size = norm(r)
    Q, R, g = (jnp.zeros((*shape, *size.shape), r.dtype) for shape in ((m + 1, m + 1), (m, m), (m + 1,)))
    return divide(jnp.ones_like(size), size) * r, _Small(Q.at[0, 0].set(1), R, g.at[0].set(size)), size


def _step(problem: Problem, t: _State) -> _State:
    """Saad, *Iterative Methods for Sparse Linear Systems*, 2nd ed., Algorithm 9.6 (flexible GMRES), the basis made
    orthogonal by two passes of classical Gram-Schmidt, which two matrix products do at once.
    """
    m, j = problem.restart, t.j
    z = problem.M(t.V[j])
    Z = None if t.Z is None else t.Z.at[j].set(z)
    w = problem.A(z)
    # Rows past j are left over from the last cycle.
    known = (jnp.arange(m + 1) <= j).reshape(-1, *[1] * (w.ndim - 1))
    h = jnp.where(known, dots(t.V, w), 0)
    w = w - combine(t.V, h)
    again = jnp.where(known, dots(t.V, w), 0)
    w = w - combine(t.V, again)
    length = norm(w)
    small, rho = _rotated(t.small, j, h + again, length)
    size = jnp.abs(small.g[j + 1])

    def next_cycle() -> tuple[Array, Array, _Small, Array, Array, Array]:
        x = _combined(t.x, t.V if Z is None else Z, small)
        v, fresh, left = _cycle(m, t.b - problem.A(x))
        return x, v, fresh, left, left == 0, jnp.int32(0)

    def same_cycle() -> tuple[Array, Array, _Small, Array, Array, Array]:
        return t.x, divide(jnp.ones_like(length), length) * w, small, size, rho == 0, j + 1

    x, v, small, size, broken, j = _mesh.cond(j + 1 == m, next_cycle, same_cycle)
    return _State(x, t.b, j, t.V.at[j].set(v), Z, small, size, broken)


def _rotated(t: _Small, j: Array, h: Array, length: Array) -> tuple[_Small, Array]:
    """A column of the Hessenberg matrix made triangular by the rotations so far and a new one."""
    column = jnp.sum(t.Q * h, axis=1)
    pivot = column[j]
    rho = jnp.hypot(jnp.abs(pivot), length)
    c = divide(pivot, rho)
    s = jnp.where(rho == 0, 1, divide(length, rho))  # a direction that A annihilates leaves the residual as it is
    index = jnp.arange(column.shape[0]).reshape(-1, *[1] * length.ndim)
    column = jnp.where(index < j, column, jnp.where(index == j, rho, 0))
    row = t.Q[j]
    Q = t.Q.at[j].set((c.conj() * row).at[j + 1].set(s)).at[j + 1].set((-s * row).at[j + 1].set(c))
    g = t.g.at[j + 1].set(-s * t.g[j]).at[j].set(c.conj() * t.g[j])
    return _Small(Q, t.R.at[:, j].set(column[:-1]), g), rho


def _solution(problem: Problem, t: _State) -> Array:
    return _combined(t.x, t.V if t.Z is None else t.Z, t.small)


def _combined(x: Array, Z: Array, t: _Small) -> Array:
    """x + Z y with R y = g; a zero on the diagonal of R belongs to a direction that A annihilates, and is left out.

    So are the steps that the cycle has not taken yet, whose columns of R are zero.
    """
    m = t.R.shape[0]

    def back(i: Array, y: Array) -> Array:
        row = m - 1 - i
        return y.at[row].set(divide(t.g[row] - jnp.sum(t.R[row] * y, axis=0), t.R[row, row]))

    y = _mesh.fori_loop(0, m, back, jnp.zeros_like(t.g[:m]))
    return x + combine(Z[:m], y)


def _vectors(restart: int) -> int:
    return 2 * restart + 4


@krylov_method(
    # XLA's sums over a basis of several columns take ten times as long as its products with a basis of one.
    Kernel(_start, _step, _solution, _vectors, minimal=True, alone=True),
    hermitian=False,
    settings=None,
)
def gmres(
    A: Any,
    B: Array,
    *,
    x0: Array | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    maxiter: int | None = None,
    M: Any = None,
    restart: int | None = None,
    on_failure: str | None = None,
    return_info: bool = False,
) -> Any:
    """Solve A X = B by restarted GMRES, for general A; preconditioned from the right, and flexible.

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
        Largest number of inner steps, of one product each; 10 n by default.
    M : Array, BCOO, BCSR, SparseMatrix or callable, optional
        Preconditioner, an approximation of the inverse of A; it may change from step to step, as an inner iteration
        does. The adjoint takes ``M.T``, derived for a function. Not differentiated. See :mod:`tsgu_jax.precond`.
        What ``direct.prepare`` returned will do too.
    restart : int, optional
        Steps of a cycle, 30 by default. Memory is ``restart`` vectors, twice that with ``M``.
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
    Y. Saad, *Iterative Methods for Sparse Linear Systems*, 2nd ed., SIAM 2003, Algorithm 9.6.

    Examples
    --------
    >>> import jax.numpy as jnp, tsgu_jax
    >>> from jax.experimental.sparse import BCOO
    >>> A = BCOO.fromdense(jnp.array([[0.0, 2.0], [1.0, 1.0]]))
    >>> tsgu_jax.gmres(A, jnp.array([2.0, 3.0])).round(4)
    Array([2., 1.], dtype=float32)
    """
    return call(
        gmres,
        A,
        B,
        x0=x0,
        rtol=rtol,
        atol=atol,
        maxiter=maxiter,
        M=M,
        restart=restart,
        on_failure=on_failure,
        return_info=return_info,
    )
