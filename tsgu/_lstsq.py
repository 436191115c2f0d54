"""The differentiable sparse least squares."""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_variadic

from tsgu._core.methods._partial import unwrapped
from tsgu._matrix._sparse_matrix import SparseMatrix
from tsgu._methods._lsmr import lsmr
from tsgu._rule import _frontend
from tsgu._rule._method import Method


def sparse_generic_lstsq(
    A: Tensor | SparseMatrix,
    B: Tensor,
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
    solves the problem: with R = B - A X and upstream gradient G,

    .. math:: A^H Y = G, \qquad Z = \operatorname*{argmin}_Z \|A Z + Y\|, \qquad \bar B = -A Z, \qquad
              \bar A_{ij} = \sum_k \bigl((A Z)_{ik} \overline{X_{jk}} - R_{ik} \overline{Z_{jk}}\bigr)
              \text{ at the stored entries } (i, j).

    Parameters
    ----------
    A : Tensor (sparse COO or CSR) or SparseMatrix, shape (m, n), m >= n
        float32, float64, complex64 or complex128. Repeated positions are added. A SparseMatrix may hold a batch of
        values on one pattern, shape (batch, m, n).
    B : Tensor, dense, shape (m,) or (m, k); for a batch (batch, m) or (batch, m, k)
        Right-hand sides, on the same device. Where the dtypes differ, both are promoted, with a warning, and each
        gradient has the dtype of its own input.
    lstsq : callable, optional
        ``lstsq(A, B, **kwargs) -> X`` or ``(X, info)``: :data:`lsmr`, which is the default, or any other callable,
        which then receives A as given, detached, and is not differentiated through.
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
    Tensor
        X, shape (n,) or (n, k). Differentiable with respect to A and B. A SparseMatrix: to any order, in reverse and
        forward mode, under ``torch.func`` and ``vmap``. A sparse tensor: to second order in reverse mode, as for
        :func:`sparse_generic_solve`, and with gradients in its layout and index dtype, coalesced.
        With ``return_info`` the pair of X and its :class:`Info`.

    Raises
    ------
    ValueError
        If A or B is not a tensor; if A has more columns than rows, or a column without a stored entry, and ``damp`` is
        zero; if B does not match A; if they lie on different devices; if A, B or x0 has entries that are not finite; if
        an argument is out of range.
    TypeError
        If A is neither COO nor CSR, or B is not dense; if a dtype is not supported; if a solver is not callable, or for
        square systems alone, or returns something else than the solution; if LSMR does not have a keyword argument; if
        ``damp`` is given for another solver.

    Warns
    -----
    ConvergenceWarning
        If a column misses its target, in the forward or in the adjoint; if A is found to be rank deficient or
        ill-conditioned. A rank that is deficient up to rounding may show in the adjoint alone: the minimiser that LSMR
        finds is then the smallest of many, and has no derivative.
    UserWarning
        If A and B have different dtypes, or a second derivative is lost inside PyTorch.

    See Also
    --------
    lsmr : the default method, and its arguments.
    record : what each solve did.

    References
    ----------
    G. H. Golub and V. Pereyra, SIAM J. Numer. Anal. 10 (1973), 413-432; A. Bjorck, *Numerical Methods for Least Squares
    Problems*, SIAM 1996, section 1.1.4, for the augmented system.

    Examples
    --------
    >>> import torch, tsgu
    >>> A = torch.tensor([[1.0, 0.0], [1.0, 1.0], [1.0, 2.0]], dtype=torch.float64).to_sparse().requires_grad_()
    >>> b = torch.tensor([0.0, 1.0, 5.0], dtype=torch.float64, requires_grad=True)
    >>> x = tsgu.sparse_generic_lstsq(A, b)  # the line closest to three points
    >>> x.detach().round(decimals=6)
    tensor([-0.5000,  2.5000], dtype=torch.float64)
    >>> x[1].backward()  # how the slope follows the points
    >>> print(*(f"{g:.2f}" for g in b.grad[[0, 2]]))
    -0.50 0.50
    >>> A.grad.is_sparse
    True
    """
    lstsq, transpose_lstsq, kwargs = unwrapped(Method, lstsq, transpose_lstsq, kwargs)
    asked: dict[str, Any] = {"on_failure": on_failure, "return_info": return_info}
    if has_torch_function_variadic(A, B):  # as for sparse_generic_solve
        return handle_torch_function(
            sparse_generic_lstsq, (A, B), A, B, lstsq, transpose_lstsq, verify=verify, **asked, **kwargs
        )
    return _frontend.minimise(A, B, lsmr if lstsq is None else lstsq, transpose_lstsq, verify, kwargs, **asked)
