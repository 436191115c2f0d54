"""Generalised minimal residuals, restarted and flexible."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from tsgu._methods._columns import Arithmetic, Scalar
from tsgu._methods._krylov import krylov_method
from tsgu._methods._loop import Kernel, Problem
from tsgu._rule._frontend import call


class _State(NamedTuple):
    x: Tensor  # solution at the start of the cycle
    b: Tensor  # right-hand side of the run, from which a cycle takes its residual
    j: int  # steps of this cycle
    # Arnoldi: orthonormal basis (m + 1, ...), and the preconditioned basis (m, ...) that the solution is made of
    V: Tensor
    Z: Tensor
    # the small least-squares problem: product of all rotations, triangular factor, rotated right-hand side
    Q: Scalar
    R: Scalar
    g: Scalar
    norm: Scalar
    broken: Any


def _start(space: Arithmetic, problem: Problem, r: Tensor, attempt: int) -> _State:
    m = problem.restart
    V = _vectors(m + 1, r)
    Z = _vectors(m, r) if problem.preconditioned else V
    return _cycle(space, torch.zeros_like(r), r, r, V, Z)


def _vectors(count: int, like: Tensor) -> Tensor:
    """Room for vectors, (count, n) or (count, n, k), those of one column together in memory: it is column by column
    that they are multiplied, and with a stride a product takes a hundred times as long.
    """
    vectors = like.new_empty((*like.shape[1:], count, like.shape[0]))
    return vectors if like.dim() == 1 else vectors.movedim(0, -1)


def _cycle(space: Arithmetic, x: Tensor, b: Tensor, r: Tensor, V: Tensor, Z: Tensor) -> _State:
    """Begin a cycle with residual r at x."""
    m = V.shape[0] - 1
    norm = space.norm(r)
    V[0] = r
    space.scale(V[0], space.divide(1 + 0 * norm, norm))
    Q, R, g = (space.zeros(*shape, like=r) for shape in ((m + 1, m + 1), (m, m), (m + 1,)))
    Q[0, 0], g[0] = 1, norm
    return _State(x, b, 0, V, Z, Q, R, g, norm, norm == 0)


def _step(space: Arithmetic, problem: Problem, t: _State) -> _State:
    """Saad, *Iterative Methods for Sparse Linear Systems*, 2nd ed., Algorithm 9.6 (flexible GMRES), the basis made
    orthogonal by two passes of classical Gram-Schmidt, which two matrix products do at once.
    """
    j = t.j
    basis = t.V[: j + 1]
    z = problem.M(t.V[j].contiguous())
    if problem.preconditioned:
        t.Z[j] = z
    w = problem.A(z)
    h = space.dots(basis, w)
    space.subtract(w, basis, h)
    again = space.dots(basis, w)
    space.subtract(w, basis, again)
    length = space.norm(w)
    t.V[j + 1] = w
    space.scale(t.V[j + 1], space.divide(1 + 0 * length, length))

    column = (t.Q[: j + 1, : j + 1] * (h + again)).sum(1)
    pivot = column[j]
    rho = space.hypot(abs(pivot), length)
    c, c_conj, s = space.divide(pivot, rho), space.divide(pivot.conj(), rho), space.divide(length, rho)
    s = s + (rho == 0)  # a direction that A annihilates leaves the residual as it is
    t.R[:j, j], t.R[j, j] = column[:j], rho
    row = t.Q[j, : j + 1] * 1
    t.Q[j, : j + 1], t.Q[j, j + 1] = c_conj * row, s
    t.Q[j + 1, : j + 1], t.Q[j + 1, j + 1] = -s * row, c
    t.g[j + 1] = -s * t.g[j]
    t.g[j] = c_conj * t.g[j]

    t = t._replace(j=j + 1, norm=abs(t.g[j + 1]), broken=rho == 0)
    if t.j < problem.restart:
        return t
    x = _solution(space, problem, t)
    return _cycle(space, x, t.b, t.b - problem.A(x), t.V, t.Z)


def _solution(space: Arithmetic, problem: Problem, t: _State) -> Tensor:
    """x + Z y with R y = g; a zero on the diagonal of R belongs to a direction that A annihilates, and is left out."""
    if t.j == 0:
        return t.x
    y = space.zeros(t.j, like=t.x)
    for i in reversed(range(t.j)):
        known = (t.R[i, i + 1 : t.j] * y[i + 1 :]).sum(0)
        y[i] = space.divide(t.g[i] - known, t.R[i, i])
    x = t.x.clone()
    space.subtract(x, t.Z[: t.j], -y)
    return x


@krylov_method(
    # Twice the vectors that there are: a step reads the basis twice, and in groups that just fill the cache takes twice
    # as long as in groups of half the width.
    Kernel(_start, _step, _solution, lambda options: 4 * options.restart + 4, minimal=True),
    hermitian=False,
    settings=None,
)
def gmres(
    A: Any,
    B: Tensor,
    *,
    x0: Tensor | None = None,
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
    A : Tensor (sparse COO or CSR), SparseMatrix, or callable, shape (n, n)
        float32, float64, complex64 or complex128. A function maps X to A X, linearly in each column: it is given
        vectors (n,) if B is one, and otherwise blocks of some of its columns, (n, j).
        Its transpose is derived by autograd; an attribute ``T`` is taken instead, and checked.
    B : Tensor, shape (n,) or (n, k)
        Right-hand sides. Columns converge independently.
    x0 : Tensor, like B, optional
        Where to start; zero by default. Not differentiated, and not used in the adjoint.
    rtol, atol : float, optional
        Stop when ``||b - A x|| <= max(rtol ||b||, atol)``, in the 2-norm of the true residual; 1e-8 in double and 1e-5
        in single precision, and 0. ``atol`` is in the units of B, and not used for derivatives, which go by ``rtol``.
    maxiter : int, optional
        Largest number of inner steps, of one product each; 10 n by default.
    M : Tensor, SparseMatrix or callable, optional
        Preconditioner, an approximation of the inverse of A; it may change from step to step, as an inner iteration
        does. The adjoint takes ``M.T``, derived for a function. Not differentiated. See :mod:`tsgu.precond`.
        One of its functions will do, as ``tsgu.precond.amg``, and what ``direct.prepare`` returned.
    restart : int, optional
        Steps of a cycle, 30 by default. Memory is ``restart`` vectors, twice that with ``M``.
    on_failure : {"warn", "nan", "ignore"}, optional
        What is done where a column misses its target: see :func:`on_failure`.
    return_info : bool
        Whether to return ``(X, info)``, with the :class:`Info` of the forward solve.

    Returns
    -------
    Tensor
        X, with the shape, dtype and device of B; differentiable with respect to A and B, to any order (a sparse tensor
        A, and what a function A closes over: to second order, in reverse mode).

    Raises
    ------
    ValueError, TypeError
        As :func:`sparse_generic_solve`; and for an argument out of range or of the wrong kind, for a function
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
    >>> import torch, tsgu
    >>> A = torch.tensor([[0.0, 2.0], [1.0, 1.0]], dtype=torch.float64).to_sparse()
    >>> tsgu.gmres(A, torch.tensor([2.0, 3.0], dtype=torch.float64)).round(decimals=6)
    tensor([2., 1.], dtype=torch.float64)
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
