"""LSMR: least squares by Golub-Kahan bidiagonalisation."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tsgu._methods._columns import Arithmetic, Scalar
from tsgu._methods._least_squares import Kernel, least_squares_method
from tsgu._methods._rectangular import Rectangular
from tsgu._rule._frontend import call


class _State(NamedTuple):
    x: Tensor  # solution
    # bidiagonalisation: the last basis vectors of both sides, the last diagonal entry, and memory for the products
    u: Tensor
    v: Tensor
    alpha: Scalar
    Av: Tensor
    AHu: Tensor
    # directions
    h: Tensor
    hbar: Tensor
    # the two QR factorisations of section 2.3: rotations, diagonal entries, and the rotated right-hand side
    alphabar: Scalar
    rho: Scalar
    rhobar: Scalar
    cbar: Scalar
    sbar: Scalar
    zeta: Scalar
    zetabar: Scalar
    # for ||r||: section 5.1
    betad: Scalar
    betadd: Scalar
    thetatilde: Scalar
    rhod: Scalar
    tautilde: Scalar
    # for ||A|| and its condition number: sections 5.2 and 5.4
    square: Scalar
    largest: Scalar
    smallest: Scalar
    # estimates
    norm_r: Scalar
    norm_g: Scalar  # ||A^H r||
    norm_a: Scalar
    norm_x: Scalar
    condition: Scalar


def _start(space: Arithmetic, r: Tensor, g: Tensor) -> _State:
    """For A d = r from d = 0, given A^H r as well; it takes over the memory of both."""
    beta = space.norm(r)
    zero = 0 * beta
    one = zero + 1
    space.scale(r, space.divide(one, beta))
    space.scale(g, space.divide(one, beta))
    alpha = space.norm(g)
    space.scale(g, space.divide(one, alpha))
    x, hbar = torch.zeros_like(g), torch.zeros_like(g)
    return _State(
        x=x, u=r, v=g, alpha=alpha, Av=torch.empty_like(r), AHu=torch.empty_like(g), h=g.clone(), hbar=hbar,
        alphabar=alpha, rho=one, rhobar=one, cbar=one, sbar=zero, zeta=zero, zetabar=alpha * beta,
        betad=zero, betadd=beta, thetatilde=zero, rhod=one, tautilde=zero,
        square=alpha * alpha, largest=zero, smallest=one * math.inf,
        norm_r=beta, norm_g=alpha * beta, norm_a=alpha, norm_x=zero, condition=one,
    )  # fmt: skip


def _step(space: Arithmetic, operator: Rectangular, t: _State) -> _State:
    """Fong and Saunders, section 2.8, and section 5 for the norms; a division by zero gives zero, and no step."""
    hypot, divide = space.hypot, space.divide
    one = 0 * t.alpha + 1

    Av = operator.apply(t.v, t.Av)  # bidiagonalisation, in the memory of u and v
    space.combine(Av, -t.alpha, t.u)
    beta = space.norm(t.u)
    space.scale(t.u, divide(one, beta))
    AHu = operator.adjoint(t.u, t.AHu)
    space.combine(AHu, -beta, t.v)
    alpha = space.norm(t.v)
    space.scale(t.v, divide(one, alpha))

    rho = hypot(t.alphabar, beta)  # rotation P_k
    c, s = divide(t.alphabar, rho), divide(beta, rho)
    theta, alphabar = s * alpha, c * alpha
    thetabar, diagonal = t.sbar * rho, t.cbar * rho  # rotation Pbar_k
    rhobar = hypot(diagonal, theta)
    cbar, sbar = divide(diagonal, rhobar), divide(theta, rhobar)
    zeta, zetabar = cbar * t.zetabar, -sbar * t.zetabar

    space.combine(t.h, -divide(thetabar * rho, t.rho * t.rhobar), t.hbar)
    space.add(t.x, divide(zeta, rho * rhobar), t.hbar)
    space.combine(t.v, -divide(theta, rho), t.h)

    betahat, betadd = c * t.betadd, -s * t.betadd  # rotation Ptilde_k-1
    rhotilde = hypot(t.rhod, thetabar)
    ctilde, stilde = divide(t.rhod, rhotilde), divide(thetabar, rhotilde)
    thetatilde, rhod = stilde * rhobar, ctilde * rhobar
    betad = ctilde * betahat - stilde * t.betad
    tautilde = divide(t.zeta - t.thetatilde * t.tautilde, rhotilde)
    taud = divide(zeta - thetatilde * tautilde, rhod)

    square = t.square + beta * beta
    condition = divide(space.larger(t.largest, diagonal), space.smaller(t.smallest, diagonal))
    return _State(
        x=t.x, u=t.u, v=t.v, alpha=alpha, Av=Av, AHu=AHu, h=t.h, hbar=t.hbar,
        alphabar=alphabar, rho=rho, rhobar=rhobar, cbar=cbar, sbar=sbar, zeta=zeta, zetabar=zetabar,
        betad=betad, betadd=betadd, thetatilde=thetatilde, rhod=rhod, tautilde=tautilde,
        square=square + alpha * alpha,
        largest=space.larger(t.largest, rhobar), smallest=space.smaller(t.smallest, rhobar),
        norm_r=hypot(betad - taud, betadd), norm_g=abs(zetabar), norm_a=space.root(square),
        norm_x=space.norm(t.x), condition=condition,
    )  # fmt: skip


@least_squares_method(Kernel(_start, _step, vectors=7))
def lsmr(
    A: Any,
    B: Tensor,
    *,
    damp: float | None = None,
    atol: float | None = None,
    btol: float | None = None,
    conlim: float | None = None,
    maxiter: int | None = None,
    x0: Tensor | None = None,
    on_failure: str | None = None,
    return_info: bool = False,
) -> Any:
    """Minimise ``||A x - b||^2 + damp^2 ||x||^2`` for each column b of B by LSMR.

    The arguments mean what they mean in SciPy; ``atol`` and ``btol`` are tighter by default, since the error of a
    gradient grows with the square of the condition number. Each column stops by itself. Where the norms of the columns
    of A differ by more than a factor of 16, they are first scaled by powers of two to norms near one, and the norms
    below are those of the scaled matrix.

    Parameters
    ----------
    A : Tensor (sparse COO or CSR) or SparseMatrix, shape (m, n)
        float32, float64, complex64 or complex128, of full column rank, m >= n; with ``damp`` any matrix.
    B : Tensor, shape (m,) or (m, k)
        Right-hand sides.
    damp : float, optional
        Damping (Tikhonov regularisation), 0 by default. Not differentiated.
    atol, btol : float, optional
        With r = b - A x, stop when ``||A^H r|| <= atol ||A|| ||r||`` or ``||r|| <= btol ||b|| + atol ||A|| ||x||``, in
        2-norms and the Frobenius norm of A; 1e-8 in double and 1e-5 in single precision.
    conlim : float, optional
        Stop, and warn, where the estimate of the condition number of A passes this; 1e8 in double and 1e4 in single
        precision, and 0 for no such test.
    maxiter : int, optional
        Largest number of steps, each of one product with A and one with A^H; 10 n by default.
    x0 : Tensor, shape (n,) or (n, k), optional
        Where to start; zero by default. Not differentiated, and not used in the adjoint.
    on_failure : {"warn", "nan", "ignore"}, optional
        What is done where a column misses its target: see :func:`on_failure`.
    return_info : bool
        Whether to return ``(X, info)``, with the :class:`Info` of the forward solve.

    Returns
    -------
    Tensor
        X, shape (n,) or (n, k), with the dtype and device of B; differentiable with respect to A and B, to any order
        (a sparse tensor A: to second order, in reverse mode). The adjoint takes one solve with A^H and one with A.

    Raises
    ------
    ValueError, TypeError
        As :func:`sparse_generic_lstsq`; and for an argument out of range or of the wrong kind.

    Warns
    -----
    ConvergenceWarning
        If a column misses its target, here or in the adjoint; if A is rank deficient or too ill-conditioned.

    References
    ----------
    D. C.-L. Fong and M. A. Saunders, SIAM J. Sci. Comput. 33 (2011), 2950-2971; C. C. Paige and M. A. Saunders, ACM
    Trans. Math. Softw. 8 (1982), 43-71, section 6, for the stopping rule.

    Examples
    --------
    >>> import torch, tsgu
    >>> A = torch.tensor([[1.0, 0.0], [1.0, 1.0], [1.0, 2.0]], dtype=torch.float64).to_sparse()
    >>> tsgu.lsmr(A, torch.tensor([0.0, 1.0, 5.0], dtype=torch.float64)).round(decimals=6)
    tensor([-0.5000,  2.5000], dtype=torch.float64)
    """
    return call(
        lsmr,
        A,
        B,
        damp=damp,
        atol=atol,
        btol=btol,
        conlim=conlim,
        maxiter=maxiter,
        x0=x0,
        on_failure=on_failure,
        return_info=return_info,
    )
