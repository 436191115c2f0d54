"""The differentiable sparse solve."""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_variadic

from tsgu._core.methods._partial import unwrapped
from tsgu._matrix._sparse_matrix import SparseMatrix
from tsgu._methods._minres import minres
from tsgu._rule import _frontend
from tsgu._rule._method import Method


def sparse_generic_solve(
    A: Tensor | SparseMatrix,
    B: Tensor,
    solve: Callable[..., Any] | None = None,
    transpose_solve: Callable[..., Any] | None = None,
    *,
    verify: float | None = 1e-3,
    on_failure: str | None = None,
    return_info: bool = False,
    **kwargs: Any,
) -> Any:
    r"""Solve A X = B for sparse A and dense B, with gradients that keep A's sparsity.

    The gradients follow from the implicit function theorem, whatever solves the system: with upstream gradient G,

    .. math:: A^H \Lambda = G, \qquad \bar B = \Lambda, \qquad
              \bar A_{ij} = -\sum_k \Lambda_{ik} \overline{X_{jk}} \text{ at the stored entries } (i, j).

    Parameters
    ----------
    A : Tensor (sparse COO or CSR), SparseMatrix, or callable, shape (n, n)
        float32, float64, complex64 or complex128. Repeated positions are added. A SparseMatrix may hold a batch of
        values on one pattern, shape (batch, n, n). A function v -> A v is taken as it is by the Krylov methods, and by
        solvers from outside that take one; see :data:`linear_cg`.
    B : Tensor, dense, shape (n,) or (n, k); for a batch (batch, n) or (batch, n, k)
        Right-hand sides, on the same device. Where the dtypes differ, both are promoted, with a warning, and each
        gradient has the dtype of its own input.
    solve : callable, optional
        ``solve(A, B, **kwargs) -> X`` or ``(X, info)``. One of this package's methods (:data:`linear_cg`,
        :data:`minres`, :data:`bicgstab`, :data:`gmres`, :data:`direct`, :data:`auto`), or any other callable, which
        then receives A as given, detached, and is not differentiated through. MINRES by default, for symmetric
        (Hermitian) A. A callable with ``prepare(A, **kwargs)`` that returns an object with ``solve(B)`` and
        ``solve_transpose(G)`` is prepared once for the forward and the adjoint solve. What ``method.prepare(A)``
        returned serves any number of solves with that A, and is held to its own target: if it was another A, that is
        reported, unless the target is met all the same.
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
    Tensor
        X, with the shape of B. Differentiable with respect to A and B. What a function A closes over: to second order,
        in reverse mode. A SparseMatrix: to any order, in reverse and forward mode, under ``torch.func`` and ``vmap``.
        A sparse tensor: to second order in reverse mode, where it is a leaf or made from a dense tensor; PyTorch loses
        the second order of ``torch.sparse_coo_tensor(indices, values)``, and a warning says so when it is asked for.
        Gradients with respect to a sparse tensor come back in its layout and index dtype, coalesced.
        With ``return_info`` the pair of X and its :class:`Info`.

    Raises
    ------
    RuntimeError
        In the backward pass, if a function A gives another result than in the forward pass.
    ValueError
        If a function A is not linear, or writes to its argument; if A or B is not a tensor; if A is not square or B
        does not match it; if they lie on different devices; if A, B or x0 has entries that are not finite; if an
        argument is out of range.
    TypeError
        If A is neither COO nor CSR, or B is not dense; if a dtype is not supported; if a solver is not callable or
        returns something else than the solution; if a method does not have a keyword argument; if a preconditioner that
        cannot be transposed would be needed for a gradient.
    torch.linalg.LinAlgError
        If A is singular, exactly or to working precision, and factored, by ``direct`` or ``auto``. In a batch X is NaN
        for the member, and a warning names it.
    ImportError
        If ``direct`` is asked for a library that is not installed.

    Warns
    -----
    ConvergenceWarning
        If a column misses its target, in the forward or in the adjoint solve.
    UserWarning
        If A and B have different dtypes, or a second derivative is lost inside PyTorch.

    See Also
    --------
    record : what each solve did.

    References
    ----------
    S. G. Krantz and H. R. Parks, *The Implicit Function Theorem*, Birkhauser 2003; M. B. Giles, *Collected Matrix
    Derivative Results for Forward and Reverse Mode Algorithmic Differentiation*, 2008, section 2.3.1.

    Examples
    --------
    >>> import torch
    >>> from tsgu import sparse_generic_solve
    >>> from tsgu.utils import linear_cg, bicgstab, minres
    >>> # Symmetric positive definite example
    >>> indices = torch.tensor([[0, 0, 1, 1, 2],
    ...                         [0, 1, 0, 1, 2]])
    >>> values = torch.tensor([4.0, -1.0, -1.0, 4.0, 2.0])
    >>> A = torch.sparse_coo_tensor(indices, values, (3, 3))
    >>> B = torch.tensor([1.0, 2.0, 3.0])
    >>> x = sparse_generic_solve(A, B, solve=linear_cg)
    >>> x.shape
    torch.Size([3])
    >>> # Multiple RHS with BiCGSTAB
    >>> X = sparse_generic_solve(A, torch.randn(3, 5), solve=bicgstab)
    >>> X.shape
    torch.Size([3, 5])
    >>> # Default solver (MINRES)
    >>> x = sparse_generic_solve(A, B)
    >>> # With custom solver settings:
    >>> from tsgu.utils.linear_cg import LinearCGSettings
    >>> settings = LinearCGSettings(max_cg_iterations=1000, cg_tolerance=1e-8)
    >>> x = sparse_generic_solve(A, B, solve=linear_cg, settings=settings)
    >>> # With gradients (A.grad is sparse)
    >>> A.requires_grad_(True)  # doctest: +ELLIPSIS
    tensor(...)
    >>> B.requires_grad_(True)  # doctest: +ELLIPSIS
    tensor(...)
    >>> x = sparse_generic_solve(A, B)
    >>> x.sum().backward()
    >>> A.grad.is_sparse
    True
    """
    solve, transpose_solve, kwargs = unwrapped(Method, solve, transpose_solve, kwargs)
    asked: dict[str, Any] = {"on_failure": on_failure, "return_info": return_info}
    if has_torch_function_variadic(A, B):  # a mode or a stand-in for tensors, such as those of torch2jax
        return handle_torch_function(
            sparse_generic_solve, (A, B), A, B, solve, transpose_solve, verify=verify, **asked, **kwargs
        )
    if solve is None and transpose_solve is None:
        solve = minres
    return _frontend.solve(A, B, solve, transpose_solve, verify, kwargs, **asked)
