"""The door of the package: A and B checked, once, and brought to values on a pattern."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
from jax import Array
from jax.experimental.sparse import BCOO, BCSR

from tsgu_jax._matrix import _checks
from tsgu_jax._matrix._pattern import Pattern, data_of, pattern_of
from tsgu_jax._matrix._sparse_matrix import SparseMatrix


class CheckedSystem(NamedTuple):
    """A system whose shapes, types and dtypes fit, and whose numbers are finite where they are concrete."""

    values: Array  # (nnz,) or (batch, nnz), differentiable, in the dtype of B
    pattern: Pattern
    given: Any  # A in the user's own type, in the same dtype
    B: Array

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the solution."""
        batch = self.values.ndim - 1
        return (*self.B.shape[:batch], self.pattern.shape[1], *self.B.shape[batch + 1 :])

    def start(self, x0: Any) -> Array | None:
        """x0, checked, as an array of the shape of the solution."""
        if x0 is None:
            return None
        start = _checks.start(x0, self.B, None if self.pattern.shape[0] == self.pattern.shape[1] else self.shape)
        _checks.check_finite("x0", start)
        return start


def checked_system(A: Any, B: Any, *, square: bool = True, tall: bool = False, batches: bool = False) -> CheckedSystem:
    """Check type, shape and dtype, in this order, and then numbers.

    Parameters
    ----------
    square, tall : bool
        Whether A must have as many rows as columns, or at least as many.
    batches : bool
        Whether A may be a batch of BCOO or BCSR; its members are the diagonal blocks of the pattern.
    """
    if isinstance(A, SparseMatrix):
        kind, batch = "SparseMatrix", A.shape[0] if len(A.shape) == 3 else None
    else:
        _checks.check_sparse_matrix(A, batches)
        kind, batch = type(A).__name__, A.shape[0] if A.ndim == 3 else None
    _checks.check_rhs_kind(B)
    if square:
        _checks.check_square(tuple(A.shape), kind)
    if tall:
        _checks.check_tall(tuple(A.shape), kind)
    _checks.check_rhs(B, A.shape[-2], batch)
    _checks.check_dtype("A", A)
    _checks.check_dtype("B", B)
    B = _checks.as_array("B", B)
    values, pattern, given = _decomposed(A)
    _checks.check_finite("A", values)
    dtype = values.dtype
    values, B = _checks.promote(values, B)
    if not isinstance(given, SparseMatrix) and values.dtype != dtype:
        given = _converted(given, values.dtype)
    _checks.check_finite("B", B)
    return CheckedSystem(values, pattern, given, B)


def checked_side(B: Any) -> Array:
    """The right-hand side of a system whose A is a function."""
    _checks.check_rhs(B, B.shape[0] if _checks.is_array(B) and B.ndim else 0, None)
    _checks.check_dtype("B", B)
    B = _checks.as_array("B", B)
    _checks.check_finite("B", B)
    side: Array = B
    return side


def _decomposed(A: BCOO | BCSR | SparseMatrix) -> tuple[Array, Pattern, Any]:
    """Differentiable values, the pattern, and the matrix as given."""
    if isinstance(A, SparseMatrix):
        A = A._settled()
        return A.values, A.pattern, A
    pattern = pattern_of(A)
    return pattern.gather(data_of(A)), pattern, A


def _converted(A: BCOO | BCSR, dtype: Any) -> BCOO | BCSR:
    leaves, structure = jax.tree.flatten(A)
    return jax.tree.unflatten(structure, [leaves[0].astype(dtype), *leaves[1:]])
