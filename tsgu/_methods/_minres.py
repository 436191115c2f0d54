"""Minimal residuals."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from tsgu._core.methods._options import ROUNDED, optimal
from tsgu._core.methods._settings import MINRESSettings
from tsgu._methods._columns import Arithmetic, Scalar
from tsgu._methods._krylov import krylov_method
from tsgu._methods._loop import Kernel, Problem
from tsgu._rule._frontend import call


class _Smoothed(NamedTuple):
    """With M: the residual of x, and the iterate whose residual has the smallest 2-norm on the way there."""

    r: Tensor
    best_x: Tensor
    best_r: Tensor


class _State(NamedTuple):
    x: Tensor  # solution
    # Lanczos: the last two basis vectors, z = M v, and what links the two
    v: Tensor
    v_old: Tensor
    z: Tensor
    gamma: Scalar
    sign: Scalar  # of M
    # the last two directions and plane rotations, and what is left of the rotated right-hand side
    w: Tensor
    w_old: Tensor
    c: Scalar
    c_old: Scalar
    s: Scalar
    s_old: Scalar
    eta: Scalar
    smoothed: _Smoothed | None
    size: Scalar  # of A, with M of A M, as far as it has shown
    least: Any  # whether the residual has been the least there is, as in a system that is not compatible
    norm: Scalar
    broken: Any


def _start(space: Arithmetic, problem: Problem, r: Tensor, attempt: int) -> _State:
    smoothed = _Smoothed(r.clone(), torch.zeros_like(r), r.clone()) if problem.preconditioned else None
    norm = space.norm(r)
    v, z, gamma, sign, _ = _normalised(space, problem, r)
    one, zero = 0 * gamma + 1, 0 * gamma
    x, v_old, w, w_old = (torch.zeros_like(r) for _ in range(4))
    never = norm < 0
    return _State(
        x, v, v_old, z, gamma, sign, w, w_old, one, one, zero, zero, gamma, smoothed, zero, never, norm, never
    )


def _normalised(
    space: Arithmetic, problem: Problem, v: Tensor, sign: Scalar | None = None
) -> tuple[Tensor, Tensor, Scalar, Scalar, Scalar]:
    """v and +-M v divided by gamma = sqrt(+-v^H M v), in place; gamma, the sign, and what is under the root.

    A negative definite M serves as -M, with which the iterates are the same. So the sign is that of the first v.
    """
    z = problem.M(v)
    square = space.dot(v, z).real
    one = 0 * square + 1
    if sign is None:
        sign = one - 2 * one * (square < 0)
    square = sign * square
    gamma = space.root(square)
    inverse = space.divide(one, gamma)
    if z is not v:
        z = z * 1  # a preconditioner may hand out memory of its own
        space.scale(z, sign * inverse)
    space.scale(v, inverse)
    return v, z, gamma, sign, square


def _step(space: Arithmetic, problem: Problem, t: _State) -> _State:
    """Preconditioned MINRES as in Elman, Silvester and Wathen, *Finite Elements and Fast Iterative Solvers* (2nd ed.,
    Oxford 2014), with the Lanczos vectors kept normalised.
    """
    v = problem.A(t.z)
    delta = space.dot(t.z, v).real
    space.add(v, -delta, t.v)
    space.add(v, -t.gamma, t.v_old)
    v, z, gamma, sign, square = _normalised(space, problem, v, t.sign)
    size = space.larger(t.size, space.hypot(delta, gamma))
    eps = torch.finfo(v.dtype).eps
    indefinite = square < -((ROUNDED * eps * size) ** 2)  # M has eigenvalues of both signs

    a0 = t.c * delta - t.c_old * t.s * t.gamma
    a1 = space.hypot(a0, gamma)
    a2 = t.s * delta + t.c_old * t.c * t.gamma
    a3 = t.s_old * t.gamma
    c, s = space.divide(a0, a1), space.divide(gamma, a1)
    broken = indefinite | (a1 <= ROUNDED * eps * size)  # not below the least singular value of A
    c, s = c - c * broken, s - s * broken + broken  # which leaves x and its residual as they are
    # ||A r|| of the last iterate by Choi, Paige and Saunders (2011), section 3; with M ||A M r||, in the norm of M.
    vanished = space.hypot(a0, t.c * gamma) <= optimal(eps) * size
    least = t.least | (vanished & (t.gamma > 0) & (indefinite == 0))

    w = t.w_old  # w = (z - a3 w_old - a2 w) / a1, in the memory of w_old
    inverse = space.divide(1 + 0 * a1, a1)
    space.scale(w, -a3 * inverse)
    space.add(w, -a2 * inverse, t.w)
    space.add(w, inverse, t.z)
    space.add(t.x, c * t.eta, w)
    eta = -s * t.eta

    norm = abs(eta)
    if t.smoothed is not None:
        norm = _smooth(space, t.x, t.smoothed, s * s, c * eta, v)
    return _State(t.x, v, t.v, z, gamma, sign, w, t.w, c, t.c, s, t.s, eta, t.smoothed, size, least, norm, broken)


def _smooth(space: Arithmetic, x: Tensor, t: _Smoothed, shrink: Scalar, step: Scalar, v: Tensor) -> Scalar:
    """Keep the iterate of smallest 2-norm on the line from the last one to the new MINRES iterate.

    With M, the short recurrence minimises the M-norm of the residual, and none can minimise the 2-norm (Faber and
    Manteuffel 1984), in which the solve is judged; minimal residual smoothing (Weiss 1994, section 2) makes it fall in
    every step. The residual of x is r = s^2 r + c eta v (Choi, Paige and Saunders 2011, equation 3.11).
    """
    space.scale(t.r, shrink)
    space.add(t.r, step, v)
    change = t.r - t.best_r
    fraction = space.divide(-space.dot(change, t.best_r).real, space.dot(change, change).real)
    space.add(t.best_r, fraction, change)
    space.add(t.best_x, fraction, x - t.best_x)
    return space.norm(t.best_r)


def _solution(space: Arithmetic, problem: Problem, t: _State) -> Tensor:
    return t.x if t.smoothed is None else t.smoothed.best_x


@krylov_method(
    Kernel(_start, _step, _solution, lambda options: 7, minimal=True, least=lambda t: t.least),
    hermitian=True,
    settings=MINRESSettings,
)
def minres(
    A: Any,
    B: Tensor,
    *,
    x0: Tensor | None = None,
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
        Preconditioner, Hermitian and definite, positive or negative; an approximation of the inverse of A. Not
        differentiated.
        See :mod:`tsgu.precond`.
        One of its functions will do, as ``tsgu.precond.amg``, and what ``direct.prepare`` returned.
    settings : MINRESSettings, optional
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
    C. C. Paige and M. A. Saunders, SIAM J. Numer. Anal. 12 (1975), 617-629; H. Elman, D. Silvester and A. Wathen,
    *Finite Elements and Fast Iterative Solvers*, 2nd ed., Oxford 2014; R. Weiss, J. Comput. Appl. Math. 50 (1994);
    S.-C. T. Choi, C. C. Paige and M. A. Saunders, SIAM J. Sci. Comput. 33 (2011), 1810-1836, section 3.

    Examples
    --------
    >>> import torch, tsgu
    >>> A = torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64).to_sparse()
    >>> tsgu.minres(A, torch.tensor([1.0, 2.0], dtype=torch.float64)).round(decimals=6)
    tensor([2., 1.], dtype=torch.float64)
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
