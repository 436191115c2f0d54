"""Conjugate gradients."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from tsgu._core.methods._settings import LinearCGSettings
from tsgu._methods._columns import Arithmetic, Scalar
from tsgu._methods._krylov import krylov_method
from tsgu._methods._loop import Kernel, Problem
from tsgu._rule._frontend import call


class _State(NamedTuple):
    x: Tensor  # solution
    r: Tensor  # residual by its recurrence
    p: Tensor  # direction of the last step
    q: Tensor  # memory for A p
    rho: Scalar  # r^H M r of the last step
    norm: Scalar
    broken: Any


def _start(space: Arithmetic, problem: Problem, r: Tensor, attempt: int) -> _State:
    norm = space.norm(r)
    x, p = torch.zeros_like(r), torch.zeros_like(r)
    return _State(x, r, p, torch.empty_like(r), 0 * norm, norm, norm == 0)


def _step(space: Arithmetic, problem: Problem, s: _State) -> _State:
    """Barrett et al., *Templates*, figure 2.5: M is applied to no residual that ends the run."""
    z = problem.M(s.r)
    rho = space.dot(s.r, z) if problem.preconditioned else s.norm * s.norm
    space.combine(z, space.divide(rho, s.rho), s.p)  # the direction is z in the first step, where s.rho is 0
    q = problem.A(s.p, s.q)
    curvature = space.dot(s.p, q)
    alpha = space.divide(rho, curvature)
    space.add(s.x, alpha, s.p)
    space.add(s.r, -alpha, q)
    return _State(s.x, s.r, s.p, q, rho, space.norm(s.r), (rho == 0) | (curvature == 0))


def _solution(space: Arithmetic, problem: Problem, s: _State) -> Tensor:
    return s.x


@krylov_method(Kernel(_start, _step, _solution, lambda options: 5), hermitian=True, settings=LinearCGSettings)
def linear_cg(
    A: Any,
    B: Tensor,
    *,
    x0: Tensor | None = None,
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
    A : Tensor (sparse COO or CSR), SparseMatrix, or callable, shape (n, n)
        float32, float64, complex64 or complex128. A function maps X to A X, linearly in each column: it is given
        vectors (n,) if B is one, and otherwise blocks of some of its columns, (n, j).
        It is taken to be Hermitian, which the adjoint checks with the transpose that autograd derives.
    B : Tensor, shape (n,) or (n, k)
        Right-hand sides. Columns converge independently.
    x0 : Tensor, like B, optional
        Where to start; zero by default. Not differentiated, and not used in the adjoint.
    rtol, atol : float, optional
        Stop when ``||b - A x|| <= max(rtol ||b||, atol)``, in the 2-norm of the true residual; 1e-8 in double and 1e-5
        in single precision, and 0. ``atol`` is in the units of B, and not used for derivatives, which go by ``rtol``.
    maxiter : int, optional
        Largest number of steps; 10 n by default.
    M : Tensor, SparseMatrix or callable, optional
        Preconditioner, Hermitian and definite, an approximation of the inverse of A. Not differentiated.
        See :mod:`tsgu.precond`.
        One of its functions will do, as ``tsgu.precond.amg``, and what ``direct.prepare`` returned.
    settings : LinearCGSettings, optional
        ``maxiter`` and ``rtol`` in other words.
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
        As :func:`sparse_generic_solve`; and for an argument out of range or of the wrong kind, or a function that
        is not linear.

    Warns
    -----
    ConvergenceWarning
        If a column misses its target, here or in the adjoint.

    References
    ----------
    R. Barrett et al., *Templates for the Solution of Linear Systems*, 2nd ed., SIAM 1994, figure 2.5.

    Examples
    --------
    >>> import torch, tsgu
    >>> A = torch.tensor([[4.0, 1.0], [1.0, 3.0]], dtype=torch.float64).to_sparse()
    >>> tsgu.linear_cg(A, torch.tensor([1.0, 2.0], dtype=torch.float64))
    tensor([0.0909, 0.6364], dtype=torch.float64)
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
