"""What a method sees of A and M: something to apply to a vector or to columns. Pytrees: their arrays are arguments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.experimental.sparse import BCOO, BCSR
from jax.lax import stop_gradient
from jax.tree_util import register_dataclass

from tsgu._core.methods._options import ASYMMETRY, ZERO_SUM
from tsgu._core.report import _wording
from tsgu_jax._matrix import _checks, _products
from tsgu_jax._matrix._sparse_matrix import SparseMatrix
from tsgu_jax.precond import _base

Apply = Callable[[Array], Array]


@partial(register_dataclass, data_fields=["values", "entries"], meta_fields=["transposed"])
@dataclass(frozen=True, eq=False)
class MatrixOperator:
    """A stored matrix, or its transpose, which has a layout of its own."""

    values: Array
    entries: _products.Entries
    transposed: bool = False

    @property
    def apply(self) -> Apply:
        return partial(_products.apply, _products.operand(self.values, self.entries, self.transposed))

    def magnitude(self, x: Array) -> Array:
        """|A| |x|, which bounds what rounding does to A x."""
        return _products.apply(_products.operand(jnp.abs(self.values), self.entries, self.transposed), jnp.abs(x))

    @property
    def transpose(self) -> MatrixOperator:
        return MatrixOperator(self.values, self.entries, not self.transposed)

    @property
    def is_hermitian(self) -> Array:
        """Whether A u = A^H u for one vector u without structure: two products, and no work on the pattern."""
        if self.entries.shape[0] != self.entries.shape[1]:
            return jnp.bool_(False)
        u = jnp.cos(1.0 + jnp.arange(self.entries.shape[0]) ** 2 % 9973).astype(self.values.dtype)
        difference = self.apply(u) - self.transpose.apply(u).conj()
        return jnp.all(jnp.abs(difference) <= ASYMMETRY * jnp.finfo(self.values.dtype).eps * self.magnitude(u))

    @property
    def loses_constants(self) -> Array:
        """Whether each row, or each column, sums to zero."""
        ones = jnp.ones(self.entries.shape[1], self.values.dtype)
        tolerance = ZERO_SUM * jnp.finfo(self.values.dtype).eps
        rows, columns = (
            jnp.all(jnp.abs(operator.apply(ones)) <= tolerance * operator.magnitude(ones))
            for operator in (self, self.transpose)
        )
        return rows | columns


@partial(register_dataclass, data_fields=["matrix"], meta_fields=[])
@dataclass(frozen=True, eq=False)
class DenseOperator:
    """A preconditioner given as a dense matrix."""

    matrix: Array

    @property
    def apply(self) -> Apply:
        return lambda v: self.matrix @ v

    @property
    def transpose(self) -> DenseOperator:
        return DenseOperator(self.matrix.T)


@dataclass(frozen=True)
class CallableOperator:
    """An operator known by its products alone."""

    function: Any
    hermitian: bool

    @property
    def apply(self) -> Apply:
        function: Apply = self.function
        return function

    def magnitude(self, x: Array) -> Array:
        """|A x|: all that can be said of |A| |x| from products, and never more than it."""
        return jnp.abs(self.apply(x))

    @property
    def transpose(self) -> CallableOperator | None:
        """None where it cannot be known."""
        function = transposed(self.function, self.hermitian)
        return None if function is None else CallableOperator(function, self.hermitian)


register_dataclass(CallableOperator, data_fields=[], meta_fields=["function", "hermitian"])

Operator = MatrixOperator | CallableOperator
Preconditioner = MatrixOperator | DenseOperator | CallableOperator | _base.Preconditioner


def transposed(function: Any, hermitian: bool) -> Any | None:
    """The transpose of an operator given as a matrix or callable; None where it cannot be known.

    The transpose of a Hermitian operator is its conjugate: A^T v = conj(A conj(v)).
    """
    if isinstance(function, BCSR):
        return SparseMatrix.from_bcoo(function).T.to_bcsr()
    if hasattr(function, "T"):
        return function.T
    return (lambda v: function(v.conj()).conj()) if hermitian else None


def preconditioner(M: Any, n: int, dtype: Any, hermitian: bool) -> Preconditioner | None:
    """M as something to apply; None for the identity.

    Raises
    ------
    TypeError
        If ``M`` is neither a matrix nor a callable.
    ValueError
        If a matrix has the wrong shape.
    """
    if M is None:
        return None
    if isinstance(M, _base.Preconditioner):
        return M.ready(n, dtype)
    if isinstance(M, BCOO | BCSR | SparseMatrix) or _checks.is_array(M):
        if tuple(M.shape) != (n, n):
            raise ValueError(_wording.shape_of_m(n, tuple(M.shape)))
        if _checks.is_array(M):
            return DenseOperator(stop_gradient(_checks.as_array("M", M).astype(dtype)))
        sparse = M if isinstance(M, SparseMatrix) else SparseMatrix.from_bcoo(M)
        return MatrixOperator(stop_gradient(sparse.values.astype(dtype)), sparse.pattern.entries)
    if callable(M):
        return CallableOperator(M, hermitian)
    raise TypeError(_wording.not_a("M", "a matrix or a callable r -> M r that approximates the inverse of A", M))
