"""The differentiable sparse solve."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_variadic

from tsgu._core.methods._partial import unwrapped
from tsgu._matrix import _autodiff, _checks
from tsgu._matrix._autocast import widened
from tsgu._matrix._pattern import Pattern, pattern_of
from tsgu._matrix._sparse_matrix import SparseMatrix
from tsgu._methods._minres import minres
from tsgu._rule import _implicit, _implicit_function
from tsgu._rule._dynamo import uncompiled
from tsgu._rule._function import Function
from tsgu._rule._method import Method
from tsgu._rule._system import LinearSystem, Plan


def sparse_generic_solve(
    A: Tensor | SparseMatrix,
    B: Tensor,
    solve: Callable[..., Any] | None = None,
    transpose_solve: Callable[..., Any] | None = None,
    *,
    verify: float | None = 1e-3,
    **kwargs: Any,
) -> Tensor:
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
        returned serves any number of solves with that A; ``verify`` finds out if it was another.
    transpose_solve : callable, optional
        ``transpose_solve(A, G, **kwargs) -> Y`` with A^T Y = G, for the gradients. By default ``solve`` is applied to
        the transpose of A: for a symmetric matrix that is ``solve`` itself, and for any other it is what a right
        gradient needs. A method of this package given here is applied to the transpose too.
    verify : float or None, optional
        Relative residual above which the result of a callable from outside this package is reported; None leaves it
        unchecked. The methods of this package check their own targets. With None, a function A is not tried either.
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
        If A is exactly singular, from ``direct``.
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
    if has_torch_function_variadic(A, B):  # a mode or a stand-in for tensors, such as those of torch2jax
        return handle_torch_function(
            sparse_generic_solve, (A, B), A, B, solve, transpose_solve, verify=verify, **kwargs
        )
    if solve is None and transpose_solve is None:
        solve = minres
    return differentiable(A, B, solve, transpose_solve, verify, kwargs)


@uncompiled
def differentiable(
    A: Any,
    B: Tensor,
    solve: Callable[..., Any] | None,
    transpose_solve: Callable[..., Any] | None,
    verify: float | None,
    kwargs: Mapping[str, Any],
) -> Tensor:
    """Check, bring A to values on a pattern or try the function that it is, and apply the rule."""
    A, B = widened(A), widened(B)
    matrix_free = callable(A) and not isinstance(A, Tensor)
    if not matrix_free:
        check_system(A, B)
    else:
        _checks.check_rhs(B, B.shape[0] if isinstance(B, Tensor) and B.dim() else 0, None)
    _checks.check_dtype("B", B)
    plan = Plan(solve, transpose_solve, kwargs, verify)
    function = Function(A, B) if matrix_free else None
    through = function is not None and B.numel() > 0 and function.tried(verify is not None)
    given = through or B.requires_grad or getattr(A, "requires_grad", False)
    plan.check(torch.is_grad_enabled() and bool(given), B)
    x0 = kwargs.get("x0")
    if function is not None:
        x0 = None if x0 is None else _checks.start(x0, B)
        rule = partial(_implicit_function.solve if through else partial(_implicit.solve, None), B, x0)
        return rule(LinearSystem(plan, None, function))
    values, pattern, given = decompose(A)
    values, B = _checks.promote(values, B)
    values = values.resolve_conj().contiguous()  # once, so that the adjoint finds what was prepared for this memory
    x0 = None if x0 is None else _checks.start(x0, B)
    system = LinearSystem(plan, pattern, None if given is None else given.to(values.dtype))
    if values.dim() == 1:
        return _implicit.solve(values, B, x0, system)
    batched = torch.func.vmap(
        lambda v, b, x: _implicit.solve(v, b, x, system), in_dims=(0, 0, None if x0 is None else 0)
    )
    return batched(values, B, x0)


def check_system(A: Any, B: Any, batches: bool = False) -> None:
    """Layout, shape, dtype and device, in this order; ``batches`` takes a batch of sparse tensors too."""
    if isinstance(A, SparseMatrix):
        kind, batch = "SparseMatrix", A.shape[0] if len(A.shape) == 3 else None
    else:
        _checks.check_tensor_matrix(A, batches)
        kind, batch = str(A.layout), A.shape[0] if A.dim() == 3 else None
    if isinstance(B, Tensor) and B.layout != torch.strided:
        _checks.check_rhs(B, 0, None)
    _checks.check_square(tuple(A.shape), kind)
    _checks.check_rhs(B, A.shape[-1], batch)
    _checks.check_dtype("A", A.values if isinstance(A, SparseMatrix) else A)
    _checks.check_devices(A.device, B.device)


def decompose(A: Tensor | SparseMatrix) -> tuple[Tensor, Pattern, Tensor | None]:
    """Differentiable values, the pattern, and the tensor as given."""
    if isinstance(A, SparseMatrix):
        return A.values, A.pattern, None
    pattern = pattern_of(A)
    return _autodiff.extract(A, pattern), pattern, A.detach()
