"""The differentiable sparse least squares."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jax.experimental.sparse import BCOO, BCSR

from tsgu._core.methods._partial import unwrapped
from tsgu_jax._matrix._sparse_matrix import SparseMatrix
from tsgu_jax._methods._lsmr import lsmr
from tsgu_jax._rule import _frontend
from tsgu_jax._rule._method import Method


def lstsq(
    A: BCOO | BCSR | SparseMatrix,
    B: Any,
    lstsq: Callable[..., Any] | None = None,
    transpose_lstsq: Callable[..., Any] | None = None,
    *,
    verify: float | None = 1e-3,
    on_failure: str | None = None,
    return_info: bool = False,
    **kwargs: Any,
) -> Any:
    r"""Minimise ||A X - B|| for sparse tall A and dense B, with gradients that keep A's sparsity.

    A has full column rank, so that the minimiser is unique. The gradients follow from the augmented system, whatever
    solves the problem: with R = B - A X and upstream gradient G, in JAX's convention for complex numbers,

    .. math:: A^T Y = G, \qquad Z = \operatorname*{argmin}_Z \|\overline{A} Z + Y\|, \qquad \bar B = -\overline{A} Z,
              \qquad \bar A_{ij} = \sum_k \bigl((\overline{A} Z)_{ik} X_{jk} - \overline{R_{ik} Z_{jk}}\bigr)
              \text{ at the stored entries } (i, j).

    Parameters
    ----------
    A : BCOO, BCSR or SparseMatrix, shape (m, n), m >= n
        float32, float64, complex64 or complex128. Repeated positions are added, padding entries are ignored. A
        SparseMatrix may hold a batch of values on one pattern, shape (batch, m, n).
    B : Array, shape (m,) or (m, k); for a batch (batch, m) or (batch, m, k)
        Right-hand sides. Where the dtypes differ, both are promoted, with a warning, and each gradient has the dtype of
        its own input.
    lstsq : callable, optional
        ``lstsq(A, B, **kwargs) -> X`` or ``(X, info)``: :data:`lsmr`, which is the default, or any other callable,
        which then receives A in the type given and is not differentiated through.
    transpose_lstsq : callable, optional
        ``transpose_lstsq(A, G, **kwargs) -> Y``, for the gradients: the Y of minimum norm with A^T Y = G. By default
        ``lstsq`` is applied to the transpose of A. (Another Y with A^T Y = G leads to the same gradients; the smallest
        one loses the fewest digits.)
    verify : float or None, optional
        What is reported of a callable from outside this package: for A, where both the relative residual and the
        relative optimality ``||A^H r|| / (||A|| ||r||)`` are larger, for A^T where the relative residual is; None
        leaves results unchecked. LSMR checks its own targets.
    on_failure : {"warn", "nan", "ignore"}, optional
        What is done where a solve misses its target: see :func:`on_failure`. Like ``return_info`` it is not passed on.
    return_info : bool
        Whether to return ``(X, info)``, with the :class:`Info` of the forward solve.
    **kwargs
        Passed to both solvers as they are; LSMR refuses those that it does not know. ``x0`` goes to the forward solve
        alone. ``damp`` is for LSMR in both roles, since the gradient depends on it.

    Returns
    -------
    Array
        X, shape (n,) or (n, k). Differentiable with respect to ``A.data`` (or the values of a SparseMatrix) and B, to
        any order, in both modes, under ``jit``, ``vmap``, ``checkpoint`` and ``scan``. The gradient of padding is zero,
        and repeated entries receive the gradient of their sum.
        With ``return_info`` the pair of X and its :class:`Info`.

    Raises
    ------
    ValueError
        If A is not sparse or B not an array; if A has more columns than rows, or a column without a stored entry, and
        ``damp`` is zero; if B does not match A; outside of compiled functions, if A, B or x0 has entries that are not
        finite; if an argument is out of range.
    TypeError
        If A is in another format or B is not dense; if a dtype is not supported, or NumPy arrays in double precision
        are given while 64-bit types are turned off; if a solver is not callable, or for square systems alone, or
        returns something else than the solution; if LSMR does not have a keyword argument; if ``damp`` is given for
        another solver.

    Warns
    -----
    ConvergenceWarning
        If a column misses its target, in the forward or in the adjoint; if A is found to be rank deficient or
        ill-conditioned. A rank that is deficient up to rounding may show in the adjoint alone: the minimiser that LSMR
        finds is then the smallest of many, and has no derivative.
    UserWarning
        If A and B have different dtypes.

    See Also
    --------
    lsmr : the default method, and its arguments.
    record : what each solve did. Under ``jit``, for functions that are first called inside it, and without times.

    References
    ----------
    G. H. Golub and V. Pereyra, SIAM J. Numer. Anal. 10 (1973), 413-432; A. Bjorck, *Numerical Methods for Least Squares
    Problems*, SIAM 1996, section 1.1.4, for the augmented system.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, tsgu_jax
    >>> from jax.experimental.sparse import BCOO
    >>> A = BCOO.fromdense(jnp.array([[1.0, 0.0], [1.0, 1.0], [1.0, 2.0]]))
    >>> b = jnp.array([0.0, 1.0, 5.0])
    >>> tsgu_jax.lstsq(A, b).round(4)  # the line closest to three points
    Array([-0.5,  2.5], dtype=float32)
    >>> slope = jax.grad(lambda b: tsgu_jax.lstsq(A, b)[1])(b)  # how the slope follows the points
    >>> print(*(f"{s:.2f}" for s in slope[jnp.array([0, 2])]))
    -0.50 0.50
    """
    lstsq, transpose_lstsq, kwargs = unwrapped(Method, lstsq, transpose_lstsq, kwargs)
    method = lsmr if lstsq is None else lstsq
    return _frontend.minimise(A, B, method, transpose_lstsq, verify, kwargs, on_failure, return_info)
