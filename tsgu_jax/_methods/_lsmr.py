"""LSMR: least squares by Golub-Kahan bidiagonalisation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.tree_util import register_dataclass

from tsgu._core.methods._least_squares import optimality_tolerance, resolve_least_squares
from tsgu._core.report import _solver_words, _wording
from tsgu._core.report._log import recording
from tsgu_jax._matrix._columns import divide, norm
from tsgu_jax._matrix._sparse_matrix import SparseMatrix
from tsgu_jax._methods._least_squares import Kernel, Limits, minimise
from tsgu_jax._methods._rectangular import Rectangular, RectangularOperator, rows
from tsgu_jax._program._outcome import Outcome
from tsgu_jax._rule._frontend import call
from tsgu_jax._rule._method import Method


class _State(NamedTuple):
    x: Array  # solution
    # bidiagonalisation: the last basis vectors of both sides, and the last diagonal entry
    u: Array
    v: Array
    alpha: Array
    # directions
    h: Array
    hbar: Array
    # the two QR factorisations of section 2.3: rotations, diagonal entries, and the rotated right-hand side
    alphabar: Array
    rho: Array
    rhobar: Array
    cbar: Array
    sbar: Array
    zeta: Array
    zetabar: Array
    # for ||r||: section 5.1
    betad: Array
    betadd: Array
    thetatilde: Array
    rhod: Array
    tautilde: Array
    # for ||A|| and its condition number: sections 5.2 and 5.4
    square: Array
    largest: Array
    smallest: Array
    # estimates
    norm_r: Array
    norm_g: Array  # ||A^H r||
    norm_a: Array
    norm_x: Array
    condition: Array


def _start(r: Array, g: Array) -> _State:
    """For A d = r from d = 0, given A^H r as well."""
    beta = norm(r)
    u, v = divide(r, beta), divide(g, beta)
    alpha = norm(v)
    v = divide(v, alpha)
    zero, one = jnp.zeros_like(beta), jnp.ones_like(beta)
    return _State(
        x=jnp.zeros_like(v), u=u, v=v, alpha=alpha, h=v, hbar=jnp.zeros_like(v),
        alphabar=alpha, rho=one, rhobar=one, cbar=one, sbar=zero, zeta=zero, zetabar=alpha * beta,
        betad=zero, betadd=beta, thetatilde=zero, rhod=one, tautilde=zero,
        square=alpha * alpha, largest=zero, smallest=one * jnp.inf,
        norm_r=beta, norm_g=alpha * beta, norm_a=alpha, norm_x=zero, condition=one,
    )  # fmt: skip


def _step(operator: Rectangular, t: _State) -> _State:
    """Fong and Saunders, section 2.8, and section 5 for the norms; a division by zero gives zero, and no step."""
    hypot = jnp.hypot

    u = operator.apply(t.v) - t.alpha * t.u  # bidiagonalisation
    beta = norm(u)
    u = divide(u, beta)
    v = operator.adjoint(u) - beta * t.v
    alpha = norm(v)
    v = divide(v, alpha)

    rho = hypot(t.alphabar, beta)  # rotation P_k
    c, s = divide(t.alphabar, rho), divide(beta, rho)
    theta, alphabar = s * alpha, c * alpha
    thetabar, diagonal = t.sbar * rho, t.cbar * rho  # rotation Pbar_k
    rhobar = hypot(diagonal, theta)
    cbar, sbar = divide(diagonal, rhobar), divide(theta, rhobar)
    zeta, zetabar = cbar * t.zetabar, -sbar * t.zetabar

    hbar = t.h - divide(thetabar * rho, t.rho * t.rhobar) * t.hbar
    x = t.x + divide(zeta, rho * rhobar) * hbar
    h = v - divide(theta, rho) * t.h

    betahat, betadd = c * t.betadd, -s * t.betadd  # rotation Ptilde_k-1
    rhotilde = hypot(t.rhod, thetabar)
    ctilde, stilde = divide(t.rhod, rhotilde), divide(thetabar, rhotilde)
    thetatilde, rhod = stilde * rhobar, ctilde * rhobar
    betad = ctilde * betahat - stilde * t.betad
    tautilde = divide(t.zeta - t.thetatilde * t.tautilde, rhotilde)
    taud = divide(zeta - thetatilde * tautilde, rhod)

    square = t.square + beta * beta
    condition = divide(jnp.maximum(t.largest, diagonal), jnp.minimum(t.smallest, diagonal))
    return _State(
        x=x, u=u, v=v, alpha=alpha, h=h, hbar=hbar,
        alphabar=alphabar, rho=rho, rhobar=rhobar, cbar=cbar, sbar=sbar, zeta=zeta, zetabar=zetabar,
        betad=betad, betadd=betadd, thetatilde=thetatilde, rhod=rhod, tautilde=tautilde,
        square=square + alpha * alpha,
        largest=jnp.maximum(t.largest, rhobar), smallest=jnp.minimum(t.smallest, rhobar),
        norm_r=hypot(betad - taud, betadd), norm_g=jnp.abs(zetabar), norm_a=jnp.sqrt(square),
        norm_x=norm(x), condition=condition,
    )  # fmt: skip


_KERNEL = Kernel(_start, _step, vectors=7)


@partial(register_dataclass, data_fields=["limits", "damp"], meta_fields=["keep"])
@dataclass(frozen=True, eq=False)
class _LSMR:
    """The arguments of the method, resolved for problems of one size and dtype."""

    keep: bool
    limits: Limits
    damp: Any
    """None where nothing is damped."""
    name = "lsmr"

    def prepare(self, matrix: Any) -> _LSMRSystem:
        if not isinstance(matrix, SparseMatrix):
            raise TypeError(_wording.not_a("A", "a BCOO, a BCSR or a SparseMatrix for lsmr", matrix))
        return _LSMRSystem(self, RectangularOperator(matrix.values, matrix.pattern.entries, self.damp))


class _LSMRSystem:
    """The method prepared for one matrix: for least squares, and for the solution of a square system."""

    refusal = atol = evidence = None

    def __init__(self, method: _LSMR, operator: RectangularOperator) -> None:
        self._method, self._operator = method, operator

    def least_squares(self, B: Array, x0: Array | None) -> tuple[Array, Array, Outcome]:
        """X that minimises ||A X - B||, and B - A X; with damping, for B of m + n rows."""
        return self._scaled(B, x0, compatible=False)

    def minimum_norm(self, C: Array) -> tuple[Array, Outcome]:
        """The smallest Y with A^H Y = C; with damping, of m + n rows."""
        y, _, outcome = self._minimise(self._operator.H, rows(self._operator.scale, C) * C, None, compatible=True)
        return y, outcome

    def solve(self, B: Array, x0: Array | None, atol: Any = None) -> tuple[Array, Outcome]:
        """X with A X = B, for square A."""
        self._check_undamped()
        x, _, outcome = self._scaled(B, x0, compatible=True)
        return x, outcome

    def solve_transpose(self, G: Array) -> tuple[Array, Outcome]:
        """Y with A^T Y = G, for square A."""
        self._check_undamped()
        y, outcome = self.minimum_norm(G.conj())
        return y.conj(), outcome

    def _check_undamped(self) -> None:
        if self._method.damp is not None:  # the rule of square systems knows nothing of it
            raise TypeError(_solver_words.damp_in_a_solve())

    def _scaled(self, B: Array, x0: Array | None, compatible: bool) -> tuple[Array, Array, Outcome]:
        """X = D X' for X' that minimises ||A D X' - B||."""
        scale = rows(self._operator.scale, B)
        x, r, outcome = self._minimise(self._operator, B, None if x0 is None else x0 / scale, compatible)
        return x * scale, r, outcome

    def _minimise(
        self, operator: Rectangular, B: Array, x0: Array | None, compatible: bool
    ) -> tuple[Array, Array, Outcome]:
        limits = self._method.limits
        result = minimise(_KERNEL, operator, B, x0, limits, compatible, self._method.keep)
        target = jnp.maximum(jnp.asarray(limits.atol), limits.btol)
        return result.x, result.r, Outcome(*result[2:], target)


def _configure(arguments: Mapping[str, Any], n: int, dtype: Any, matrix: Any) -> _LSMR:
    eps = float(jnp.finfo(dtype).eps)
    options = resolve_least_squares(arguments, n, eps)
    optimal, incompatible = (optimality_tolerance(options.atol, eps, compatible) for compatible in (False, True))
    maxiter = min(options.maxiter, 2**31 - 1)
    limits = Limits(options.atol, options.btol, options.conlim, maxiter, optimal, incompatible)
    return _LSMR(recording(), limits, options.damp or None)


def _lsmr(
    A: Any,
    B: Array,
    *,
    damp: float | None = None,
    atol: float | None = None,
    btol: float | None = None,
    conlim: float | None = None,
    maxiter: int | None = None,
    x0: Array | None = None,
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
    A : BCOO, BCSR or SparseMatrix, shape (m, n)
        float32, float64, complex64 or complex128, of full column rank, m >= n; with ``damp`` any matrix.
    B : Array, shape (m,) or (m, k)
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
    x0 : Array, shape (n,) or (n, k), optional
        Where to start; zero by default. Not differentiated, and not used in the adjoint.
    on_failure : {"warn", "nan", "ignore"}, optional
        What is done where a column misses its target: see :func:`on_failure`.
    return_info : bool
        Whether to return ``(X, info)``, with the :class:`Info` of the forward solve.

    Returns
    -------
    Array
        X, shape (n,) or (n, k), with the dtype of B; differentiable with respect to A and B, to any order, in both
        modes. The adjoint takes one solve with A^H and one with A.

    Raises
    ------
    ValueError, TypeError
        As :func:`lstsq`; and for an argument out of range or of the wrong kind.

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
    >>> import jax.numpy as jnp, tsgu_jax
    >>> from jax.experimental.sparse import BCOO
    >>> A = BCOO.fromdense(jnp.array([[1.0, 0.0], [1.0, 1.0], [1.0, 2.0]]))
    >>> tsgu_jax.lsmr(A, jnp.array([0.0, 1.0, 5.0])).round(4)
    Array([-0.5,  2.5], dtype=float32)
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


_lsmr.__name__ = _lsmr.__qualname__ = "lsmr"

lsmr = Method(_lsmr, _configure, settings=None, hermitian=False, rectangular=True)
