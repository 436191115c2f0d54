"""The door of the package: A and B checked, once, and brought to values on a pattern."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from tsgu._matrix import _autodiff, _checks
from tsgu._matrix._autocast import widened
from tsgu._matrix._pattern import Pattern, pattern_of
from tsgu._matrix._sparse_matrix import SparseMatrix


class CheckedSystem(NamedTuple):
    """A system whose shapes, layouts, dtypes and devices fit. Numbers are checked where they are concrete."""

    values: Tensor  # (nnz,) or (batch, nnz), differentiable, in the dtype of B
    pattern: Pattern
    given: Tensor | None  # A in the user's own layout, detached; None for a SparseMatrix
    B: Tensor

    def start(self, x0: Any) -> Tensor | None:
        """x0, checked, as a tensor of the shape of the solution."""
        if x0 is None:
            return None
        batch, (m, n) = self.values.dim() - 1, self.pattern.shape
        shape = None if m == n else (*self.B.shape[:batch], n, *self.B.shape[batch + 1 :])
        return _checks.start(x0, self.B, shape)


def checked_system(A: Any, B: Any, *, square: bool = True, tall: bool = False, batches: bool = False) -> CheckedSystem:
    """Check layout, shape, dtype and device, in this order.

    Parameters
    ----------
    square, tall : bool
        Whether A must have as many rows as columns, or at least as many.
    batches : bool
        Whether A may be a batch of sparse tensors; its members are the diagonal blocks of the pattern.
    """
    A, B = widened(A), widened(B)
    if isinstance(A, SparseMatrix):
        kind, batch = "SparseMatrix", A.shape[0] if len(A.shape) == 3 else None
    else:
        _checks.check_tensor_matrix(A, batches)
        kind, batch = str(A.layout), A.shape[0] if A.dim() == 3 else None
    if isinstance(B, Tensor) and B.layout != torch.strided:
        _checks.check_rhs(B, 0, None)
    if square:
        _checks.check_square(tuple(A.shape), kind)
    if tall:
        _checks.check_tall(tuple(A.shape), kind)
    _checks.check_rhs(B, A.shape[-2], batch)
    _checks.check_dtype("A", A.values if isinstance(A, SparseMatrix) else A)
    _checks.check_dtype("B", B)
    _checks.check_devices(A.device, B.device)
    values, pattern, given = _decomposed(A)
    values, B = _checks.promote(values, B)
    values = values.resolve_conj().contiguous()  # once, so that the adjoint finds what was prepared for this memory
    return CheckedSystem(values, pattern, None if given is None else given.to(values.dtype), B)


def checked_side(B: Any) -> Tensor:
    """The right-hand side of a system whose A is a function."""
    B = widened(B)
    _checks.check_rhs(B, B.shape[0] if isinstance(B, Tensor) and B.dim() else 0, None)
    _checks.check_dtype("B", B)
    side: Tensor = B
    return side


def over_batch(solve: Any, values: Tensor, B: Tensor, x0: Tensor | None) -> Any:
    """``solve(values, B, x0)``; for each member where the values are a batch."""
    if values.dim() == 1:
        return solve(values, B, x0)
    return torch.func.vmap(solve, in_dims=(0, 0, None if x0 is None else 0))(values, B, x0)


def _decomposed(A: Tensor | SparseMatrix) -> tuple[Tensor, Pattern, Tensor | None]:
    """Differentiable values, the pattern, and the tensor as given."""
    if isinstance(A, SparseMatrix):
        return A.values, A.pattern, None
    pattern = pattern_of(A)
    return _autodiff.extract(A, pattern), pattern, A.detach()
