"""Stabilised bi-conjugate gradients."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tsgu._core.methods._settings import BICGSTABSettings
from tsgu._methods._columns import Arithmetic, Scalar
from tsgu._methods._krylov import krylov_method
from tsgu._methods._loop import Kernel, Problem
from tsgu._rule._frontend import call


class _State(NamedTuple):
    x: Tensor  # solution
    r: Tensor  # residual by its recurrence
    p: Tensor  # direction
    shadow: Tensor  # the fixed vector that residuals are made orthogonal to
    rho: Scalar  # shadow^H r
    norm: Scalar
    broken: Any


def _start(space: Arithmetic, problem: Problem, r: Tensor, attempt: int) -> _State:
    shadow = r.clone()
    if attempt:  # r itself broke down at once: any vector that is not orthogonal to what follows will do
        noise = np.random.default_rng(0).standard_normal(r.shape)
        shadow += torch.from_numpy(noise).to(r)
    rho = space.dot(shadow, r)
    return _State(torch.zeros_like(r), r, r.clone(), shadow, rho, space.norm(r), rho == 0)


def _step(space: Arithmetic, problem: Problem, s: _State) -> _State:
    """Barrett et al., *Templates*, figure 2.10, with M applied from the right."""
    p_hat = problem.M(s.p)
    v = problem.A(p_hat)
    sigma = space.dot(s.shadow, v)
    alpha = space.divide(s.rho, sigma)
    space.add(s.r, -alpha, v)  # now the half-step residual
    r_hat = problem.M(s.r)
    t = problem.A(r_hat)
    omega = space.divide(space.dot(t, s.r), space.dot(t, t))
    space.add(s.x, alpha, p_hat)
    space.add(s.x, omega, r_hat)
    space.add(s.r, -omega, t)
    rho = space.dot(s.shadow, s.r)
    beta = space.divide(rho * alpha, s.rho * omega)
    space.add(s.p, -omega, v)
    space.combine(s.r, beta, s.p)
    norm = space.norm(s.r)
    # Each of these makes the next direction meaningless, while x is still sound.
    tiny = torch.finfo(s.r.dtype).eps ** 2 * space.norm(s.shadow) * norm
    return _State(s.x, s.r, s.p, s.shadow, rho, norm, (sigma == 0) | (omega == 0) | (abs(rho) <= tiny))


def _solution(space: Arithmetic, problem: Problem, s: _State) -> Tensor:
    return s.x


@krylov_method(Kernel(_start, _step, _solution, lambda options: 7), hermitian=False, settings=BICGSTABSettings)
def bicgstab(
    A: Any,
    B: Tensor,
    *,
    x0: Tensor | None = None,
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
        Largest number of steps, of two products each; 10 n by default.
    M : Tensor, SparseMatrix or callable, optional
        Preconditioner, an approximation of the inverse of A. The adjoint takes ``M.T``,
        derived for a function. Not differentiated. See :mod:`tsgu.precond`.
        One of its functions will do, as ``tsgu.precond.amg``, and what ``direct.prepare`` returned.
    settings : BICGSTABSettings, optional
        ``maxiter``, ``atol``, ``rtol`` and ``M`` in other words.
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
    H. A. van der Vorst, SIAM J. Sci. Stat. Comput. 13 (1992), 631-644; R. Barrett et al., *Templates for the Solution
    of Linear Systems*, SIAM 1994, figure 2.10.

    Examples
    --------
    >>> import torch, tsgu
    >>> A = torch.tensor([[4.0, 1.0], [0.0, 3.0]], dtype=torch.float64).to_sparse()
    >>> tsgu.bicgstab(A, torch.tensor([5.0, 3.0], dtype=torch.float64)).round(decimals=6)
    tensor([1., 1.], dtype=torch.float64)
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
