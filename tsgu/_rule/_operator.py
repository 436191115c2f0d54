"""What a method sees of A and M: something to apply to a vector or to a group of columns."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property, partial
from typing import Any, Protocol

import torch
from torch import Tensor

from tsgu._core import _kinds
from tsgu._core.methods._options import ADJOINT, ASYMMETRY, MODERATE, ZERO_SUM
from tsgu._core.report import _function_words, _solver_words
from tsgu._core.report._status import ColumnInfo
from tsgu._matrix import _internals, _products
from tsgu._matrix._sparse_matrix import SparseMatrix
from tsgu._rule._function import Derived, Function, NotTransposableError, adjoint_deviation, vectors
from tsgu._rule._method import PreparedSolver
from tsgu.precond import _base

Apply = Callable[[Tensor], Tensor]
"""v -> M v."""


class Product(Protocol):
    """v -> A v, perhaps in the memory of ``out``."""

    def __call__(self, x: Tensor, /, out: Tensor | None = None) -> Tensor: ...


class MatrixOperator:
    """A stored matrix: converted to CSR once, its transpose when the adjoint asks for it.

    ``unit`` is what the user's matrix was divided by.
    """

    def __init__(self, matrix: SparseMatrix, unit: float = 1.0) -> None:
        self.matrix = matrix
        self.unit = unit

    @classmethod
    def scaled(cls, matrix: SparseMatrix) -> "MatrixOperator":
        """The matrix divided by a power of two, so that squares of A r neither overflow nor vanish; that is exact."""
        unit = _unit(matrix.values)
        return cls(matrix if unit == 1 else matrix.with_values(matrix.values / unit), unit)

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
        return self if same else MatrixOperator(other, self.unit)

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

    loses_constants = False  # unknown, and only used to explain a failure
    unit = 1.0  # what its products are like is not known before they are made

    def __init__(self, function: Function, method: str, hermitian: bool) -> None:
        self._function = function
        self._method = method
        self._hermitian = hermitian

    def apply(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """A x; a callable has memory of its own."""
        return self._function.apply(x)

    def magnitude(self, x: Tensor) -> Tensor:
        """|A x|: all that can be said of |A| |x| from products, and never more than it."""
        return self.apply(x).abs()

    @property
    def is_hermitian(self) -> bool:
        """Whether A v = A^H v for one vector; true where that cannot be said, as this only explains a failure."""
        image = self._function.seen
        if image is None:
            return True
        try:
            adjoint = self._derived(vectors(image)[0].conj().resolve_conj()).conj()
        except NotTransposableError:
            return True
        return bool((image - adjoint).abs().max() <= torch.finfo(image.dtype).eps ** 0.5 * image.abs().max())

    @cached_property
    def _derived(self) -> Derived:
        return Derived(self._function, partial(_function_words.transpose_of_a, self._method))

    @cached_property
    def transpose(self) -> "TransposedCallable":
        """What the user says of the function is taken, and judged by what is derived."""
        if self._function.T is not None:
            return TransposedCallable(self._function.T.apply, self._derived, self._function, "wrong transpose")
        if self._hermitian:
            return TransposedCallable(_conjugate(self._function.apply), self._derived, self._function, "not symmetric")
        return TransposedCallable(self._derived, self._derived, self._function, "")


class TransposedCallable:
    """The transpose of such a matrix; ``fault`` says what is wrong where it is not, and is empty where it is."""

    is_hermitian = True
    loses_constants = False
    unit = 1.0

    def __init__(self, function: Apply, truth: Derived, forward: Function, fault: str) -> None:
        self._function, self._truth, self._forward, self._fault = function, truth, forward, fault

    def apply(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        return self._function(x)

    def magnitude(self, x: Tensor) -> Tensor:
        return self.apply(x).abs()

    def judged(self, x: Tensor, g: Tensor, columns: list[ColumnInfo], rtol: float) -> list[ColumnInfo]:
        """What became of a solve of A^T x = g, by its true residual: a solve with another matrix would not know.

        Where the true transpose is not known, one product of two pairs of vectors tells whether this is it.
        """
        if not self._fault:
            return columns
        eps = torch.finfo(g.dtype).eps
        try:
            image = self._truth(x)
        except NotTransposableError:
            u, v = vectors(g)
            off = adjoint_deviation(self._forward.apply(v), self.apply(u), u, v)
            wrong = off > max(rtol, ADJOINT * eps)
            return [replace(column, status=self._fault) if wrong else column for column in columns]
        scale = g.abs().amax(0)
        scale = torch.where(scale > 0, scale, 1.0)
        parts = g, g - image, image.abs() + g.abs()
        sizes = [torch.linalg.vector_norm(part / scale, dim=0).reshape(-1).tolist() for part in parts]
        judged = []
        for column, size, left, terms in zip(columns, *sizes, strict=True):
            residual = left / size if size else left
            # By how much the two residuals differ is by how much the two matrices do, on x.
            allowed = (column.residual or 0.0) + max(rtol, ADJOINT * eps * (terms / size if size else 1.0))
            wrong = residual > allowed
            judged.append(replace(column, status=self._fault, residual=residual) if wrong else column)
        return judged


Operator = MatrixOperator | CallableOperator | TransposedCallable


def _unit(values: Tensor) -> float:
    """A power of two near the largest entry, whose reciprocal is normal too; 1 where the entries are moderate."""
    parts = torch.view_as_real(values) if values.is_complex() else values
    largest = parts.abs().max().item() if parts.numel() else 0.0
    if not 0 < largest < math.inf or 1 / MODERATE <= largest <= MODERATE:
        return 1.0
    tiny = torch.finfo(values.dtype).tiny
    return min(max(math.ldexp(0.5, math.frexp(largest)[1]), tiny), 1 / tiny)


def _sums_to_zero(operator: MatrixOperator, values: Tensor) -> bool:
    ones = values.new_ones(operator.matrix.shape[1])
    tolerance = ZERO_SUM * torch.finfo(values.dtype).eps
    return bool((operator.apply(ones).abs() <= tolerance * operator.magnitude(ones)).all())


def transposed(M: Any, hermitian: bool, method: str) -> Any:
    """The transpose of a preconditioner given as a matrix or callable."""
    if isinstance(M, PreparedSolver):
        return M.preconditioner().T
    if isinstance(M, Tensor) and M.layout == torch.sparse_csr:  # whose .T torch lacks
        return SparseMatrix.from_tensor(M.detach()).T.to_tensor()
    if hasattr(M, "T"):
        return M.T
    return _conjugate(M) if hermitian else Derived(M, partial(_solver_words.transpose_of_m, method))


def check_transposable(M: Any, method: str, like: Tensor) -> None:
    """Refuse a preconditioner whose transpose is not given and cannot be derived, for right-hand sides like this."""
    if M is not None and not isinstance(M, Tensor):  # asking a CSR tensor for .T raises
        transpose = transposed(M, False, method)
        if isinstance(transpose, Derived):
            with _internals.untransformed():
                transpose(vectors(like)[0])


def _conjugate(function: Apply) -> Apply:
    """The transpose of a Hermitian operator: A^T v = conj(A conj(v))."""
    return lambda v: function(v.conj().resolve_conj()).conj().resolve_conj()


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
    if isinstance(M, PreparedSolver):
        M = M.preconditioner()
    if isinstance(M, _base.Preconditioner):
        return M.fitted(n, dtype, device).apply
    if isinstance(M, SparseMatrix | Tensor):
        if tuple(M.shape) != (n, n) or M.device != device:
            raise ValueError(_solver_words.shape_of_m(n, tuple(M.shape), device, M.device))
        if isinstance(M, Tensor) and M.layout == torch.strided:
            dense = M.detach().to(dtype)
            return lambda v: dense @ v
        sparse = M if isinstance(M, SparseMatrix) else SparseMatrix.from_tensor(M.detach())
        return MatrixOperator(sparse.detach().to(dtype)).apply
    if callable(M) and not _kinds.prepares(M):
        return M
    raise TypeError(_solver_words.not_m(M))


def _identity(v: Tensor) -> Tensor:
    return v
