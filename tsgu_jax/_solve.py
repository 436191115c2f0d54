"""The differentiable sparse solve."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jax.experimental.sparse import BCOO, BCSR

from tsgu._core.methods._partial import unwrapped
from tsgu_jax._matrix._sparse_matrix import SparseMatrix
from tsgu_jax._methods._minres import minres
from tsgu_jax._rule import _frontend
from tsgu_jax._rule._method import Method


def solve(
    A: BCOO | BCSR | SparseMatrix,
    B: Any,
    solve: Callable[..., Any] | None = None,
    transpose_solve: Callable[..., Any] | None = None,
    *,
    verify: float | None = 1e-3,
    on_failure: str | None = None,
    return_info: bool = False,
    **kwargs: Any,
) -> Any:
    r"""Solve A X = B for sparse A and dense B, with gradients that keep A's sparsity.

    The gradients follow from the implicit function theorem, whatever solves the system: with upstream gradient G, in
    JAX's convention for complex numbers,

    .. math:: A^T \Lambda = G, \qquad \bar B = \Lambda, \qquad
              \bar A_{ij} = -\sum_k \Lambda_{ik} X_{jk} \text{ at the stored entries } (i, j).

    Parameters
    ----------
    A : BCOO, BCSR, SparseMatrix, or callable, shape (n, n)
        float32, float64, complex64 or complex128. Repeated positions are added, padding entries are ignored. A
        SparseMatrix may hold a batch of values on one pattern, shape (batch, n, n). A function v -> A v is taken as it
        is by the Krylov methods, and by solvers from outside that take one; B may then be a pytree of arrays.
    B : Array, shape (n,) or (n, k); for a batch (batch, n) or (batch, n, k)
        Right-hand sides. Where the dtypes differ, both are promoted, with a warning, and each gradient has the dtype of
        its own input.
    solve : callable, optional
        ``solve(A, B, **kwargs) -> X`` or ``(X, info)``. One of this package's methods (:data:`linear_cg`,
        :data:`minres`, :data:`bicgstab`, :data:`gmres`, :data:`direct`, :data:`auto`), or any other callable, such as
        those of ``jax.scipy.sparse.linalg``, which then receives A in the type given and is not differentiated through.
        MINRES by default, for symmetric (Hermitian) A. A callable with ``prepare(A, **kwargs)`` that returns an object
        with ``solve(B)`` and ``solve_transpose(G)`` is prepared once for the forward and the adjoint solve. What
        ``method.prepare(A)`` returned serves any number of solves with that A, and is held to its own target: if it was
        another A, that is reported, unless the target is met all the same.
    transpose_solve : callable, optional
        ``transpose_solve(A, G, **kwargs) -> Y`` with A^T Y = G, for the gradients. By default ``solve`` is applied to
        the transpose of A: for a symmetric matrix that is ``solve`` itself, and for any other it is what a right
        gradient needs. A method of this package given here is applied to the transpose too.
    verify : float or None, optional
        Relative residual above which the result of a callable from outside this package is reported; None leaves it
        unchecked. The methods of this package check their own targets. With None, a function A is not tried either.
    on_failure : {"warn", "nan", "ignore"}, optional
        What is done where a solve misses its target: see :func:`on_failure`. Like ``return_info`` it is not passed on.
    return_info : bool
        Whether to return ``(X, info)``, with the :class:`Info` of the forward solve.
    **kwargs
        Passed to both solvers; a method of this package refuses those that it does not know. ``x0`` goes to the forward
        solve alone, as does ``atol`` to a method of this package, and a preconditioner ``M`` is transposed for the
        adjoint, as ``M.T``. ``functools.partial(method, **kwargs)`` is the same as ``method`` with these arguments.

    Returns
    -------
    Array
        X, with the shape of B. Differentiable with respect to ``A.data`` (or the values of a SparseMatrix, or what a
        function A closes over) and B, to any order, in both modes, under ``jit``, ``vmap``, ``checkpoint`` and
        ``scan``. The gradient of padding is zero, and repeated entries receive the gradient of their sum.
        With ``return_info`` the pair of X and its :class:`Info`.

    Raises
    ------
    ValueError
        If a function A is not linear; if A is not sparse or B not an array; if A is not square or B does not match it;
        outside of compiled functions, if A, B or x0 has entries that are not finite; if an argument is out of range.
    TypeError
        If A is in another format or B is not dense; if a dtype is not supported, or NumPy arrays in double precision
        are given while 64-bit types are turned off; if a solver is not callable or returns something else than the
        solution; if a method does not have a keyword argument; if a preconditioner that cannot be transposed would be
        needed for a derivative.
    ImportError
        If ``direct`` is asked for a library that is not installed.

    Warns
    -----
    ConvergenceWarning
        If a column misses its target, in the forward or in the adjoint solve. Turned into an error it surfaces from
        compiled functions as a ``JaxRuntimeError`` with the same text. A singular A gives NaN and this warning.
    UserWarning
        If A and B have different dtypes.

    See Also
    --------
    on_failure, Status, Info : what failed, as a value and as a choice.
    record : what each solve did. Under ``jit``, for functions that are first called inside it, and without times.

    References
    ----------
    S. G. Krantz and H. R. Parks, *The Implicit Function Theorem*, Birkhauser 2003; M. B. Giles, *Collected Matrix
    Derivative Results for Forward and Reverse Mode Algorithmic Differentiation*, 2008, section 2.3.1.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, tsgu_jax
    >>> from jax.experimental.sparse import BCOO
    >>> A = BCOO.fromdense(jnp.array([[4.0, -1.0, 0.0], [-1.0, 4.0, 0.0], [0.0, 0.0, 2.0]]))
    >>> b = jnp.array([2.0, 7.0, 3.0])
    >>> tsgu_jax.solve(A, b, solve=tsgu_jax.linear_cg).round(4)
    Array([1. , 2. , 1.5], dtype=float32)

    The gradient has one entry for each that A stores:

    >>> def loss(data):
    ...     return tsgu_jax.solve(BCOO((data, A.indices), shape=A.shape), b, solve=tsgu_jax.direct).sum()
    >>> (12 * jax.jit(jax.grad(loss))(A.data)).round()
    Array([-4., -8., -4., -8., -9.], dtype=float32)
    """
    solve, transpose_solve, kwargs = unwrapped(Method, solve, transpose_solve, kwargs)
    if solve is None and transpose_solve is None:
        solve = minres
    return _frontend.solve(A, B, solve, transpose_solve, verify, kwargs, on_failure, return_info)
