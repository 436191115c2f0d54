"""What a method sees of A and M: something to apply to a vector or to a group of columns."""

from collections.abc import Callable
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor

from tsgu._core.methods._options import ASYMMETRY, ZERO_SUM
from tsgu._core.report import _wording
from tsgu._matrix import _products
from tsgu._matrix._sparse_matrix import SparseMatrix
from tsgu.precond import _base

Apply = Callable[[Tensor], Tensor]
"""v -> M v."""


class Product(Protocol):
    """v -> A v, perhaps in the memory of ``out``."""

    def __call__(self, x: Tensor, /, out: Tensor | None = None) -> Tensor: ...


class MatrixOperator:
    """A stored matrix: converted to CSR once, its transpose when the adjoint asks for it."""

    def __init__(self, matrix: SparseMatrix) -> None:
        self.matrix = matrix

    @cached_property
    def _csr(self) -> Tensor:
        return _products.csr(self.matrix.values, self.matrix.pattern)

    @cached_property
    def _magnitude(self) -> Tensor:
        return _products.csr(self.matrix.values.abs(), self.matrix.pattern)

    def apply(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """A x; in the memory of ``out`` where that is given, which saves a step an allocation."""
        return _products.csr_product(self._csr, x, out)

    def magnitude(self, x: Tensor) -> Tensor:
        """|A| |x|, which bounds what rounding does to A x."""
        return _products.csr_product(self._magnitude, x.abs())

    @cached_property
    def transpose(self) -> "MatrixOperator":
        """A^T; the same object where the matrix equals its transpose, which saves the copy."""
        other = self.matrix.T
        same = self.matrix.pattern.is_symmetric and torch.equal(self.matrix.values, other.values)
        return self if same else MatrixOperator(other)

    @property
    def is_hermitian(self) -> bool:
        if not self.matrix.pattern.is_symmetric:
            return False
        if self.matrix.nnz == 0:
            return True
        values, other = self.matrix.values, self.matrix.mH.values
        eps = torch.finfo(values.dtype).eps
        return bool(((values - other).abs() <= ASYMMETRY * eps * values.abs().max()).all())

    @property
    def loses_constants(self) -> bool:
        return _sums_to_zero(self, self.matrix.values) or _sums_to_zero(self.transpose, self.matrix.values)


class CallableOperator:
    """A matrix known by its products alone."""

    # Unknown, and only used to explain a failure, so that the callable gets the benefit of the doubt.
    is_hermitian = True
    loses_constants = False

    def __init__(self, function: Apply, method: str, hermitian: bool) -> None:
        self._function = function
        self._method = method
        self._hermitian = hermitian

    def apply(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """A x; a callable has memory of its own."""
        return self._function(x)

    def magnitude(self, x: Tensor) -> Tensor:
        """|A x|: all that can be said of |A| |x| from products, and never more than it."""
        return self.apply(x).abs()

    @property
    def transpose(self) -> "CallableOperator":
        function = transposed(self._function, self._hermitian)
        if function is None:
            raise TypeError(_wording.transpose_of_a(self._method))
        return CallableOperator(function, self._method, self._hermitian)


Operator = MatrixOperator | CallableOperator


def _sums_to_zero(operator: MatrixOperator, values: Tensor) -> bool:
    ones = values.new_ones(operator.matrix.shape[1])
    tolerance = ZERO_SUM * torch.finfo(values.dtype).eps
    return bool((operator.apply(ones).abs() <= tolerance * operator.magnitude(ones)).all())


def transposed(function: Any, hermitian: bool) -> Any | None:
    """The transpose of an operator given as a matrix or callable; None where it cannot be known.

    The transpose of a Hermitian operator is its conjugate: A^T v = conj(A conj(v)).
    """
    if isinstance(function, Tensor) and function.layout == torch.sparse_csr:  # whose .T torch lacks
        return SparseMatrix.from_tensor(function.detach()).T.to_tensor()
    if hasattr(function, "T"):
        return function.T
    return (lambda v: function(v.conj().resolve_conj()).conj().resolve_conj()) if hermitian else None


def preconditioner(M: Any, n: int, dtype: torch.dtype, device: torch.device) -> Apply:
    """M as something to apply; the identity for None.

    Raises
    ------
    TypeError
        If ``M`` is neither a matrix nor a callable.
    ValueError
        If a matrix has the wrong shape or lies on another device.
    """
    if M is None:
        return _identity
    if isinstance(M, _base.Preconditioner):
        return M.ready(n, dtype, device).apply
    if isinstance(M, SparseMatrix | Tensor):
        if tuple(M.shape) != (n, n) or M.device != device:
            raise ValueError(_wording.shape_of_m(n, tuple(M.shape), device, M.device))
        if isinstance(M, Tensor) and M.layout == torch.strided:
            dense = M.detach().to(dtype)
            return lambda v: dense @ v
        sparse = M if isinstance(M, SparseMatrix) else SparseMatrix.from_tensor(M.detach())
        return MatrixOperator(sparse.detach().to(dtype)).apply
    if callable(M):
        return M
    raise TypeError(_wording.not_a("M", "a matrix or a callable r -> M r that approximates the inverse of A", M))


def _identity(v: Tensor) -> Tensor:
    return v
