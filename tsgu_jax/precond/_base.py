"""What a preconditioner is to the Krylov methods: a linear operator r -> M r that is data, and has a transpose."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Self

import jax
import jax.numpy as jnp
from jax import Array
from jax.lax import stop_gradient

from tsgu._core.report import _solver_words
from tsgu_jax._matrix import _checks
from tsgu_jax._matrix._sparse_matrix import SparseMatrix
from tsgu_jax._program import _internals
from tsgu_jax._program._promotion import as_usual

Apply = Callable[[Array], Array]


class Preconditioner(ABC):
    """An approximation of the inverse of a matrix, to be given as ``M`` to a Krylov method.

    A pytree: as an argument of a compiled function its arrays are arguments too, and another preconditioner of the same
    structure compiles nothing.

    Examples
    --------
    >>> import jax.numpy as jnp, tsgu_jax
    >>> from jax.experimental.sparse import BCOO
    >>> A = BCOO.fromdense(jnp.array([[4.0, 1.0], [0.0, 2.0]]))
    >>> M = tsgu_jax.precond.ilu(A)
    >>> isinstance(M, tsgu_jax.precond.Preconditioner)
    True
    >>> M.T(jnp.array([4.0, 5.0]))  # solves with the transpose of A
    Array([1., 2.], dtype=float32)
    """

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """(n, n)."""

    @property
    @abstractmethod
    def dtype(self) -> Any:
        """That of its arrays."""

    @property
    @abstractmethod
    def apply(self) -> Apply:
        """v -> M v for v of shape (n,) or (n, k) and of the dtype of M."""

    @property
    @abstractmethod
    def T(self) -> Preconditioner:  # noqa: N802 - the name that NumPy and JAX use
        """The transpose, for the adjoint system."""

    @property
    def transpose(self) -> Preconditioner:
        """The same as ``T``."""
        return self.T

    @as_usual
    def __call__(self, v: Array) -> Array:
        """M v for v of shape (n,) or (n, k)."""
        n = self.shape[0]
        if not _checks.is_array(v) or v.ndim not in (1, 2) or v.shape[0] != n:
            got = tuple(v.shape) if _checks.is_array(v) else type(v).__name__
            raise ValueError(f"v must be an array of shape ({n},) or ({n}, k); got {got}.")
        v = _checks.as_array("v", v)
        dtype = jnp.promote_types(self.dtype, v.dtype)
        return _applied(self.astype(dtype), v.astype(dtype))

    def astype(self, dtype: Any) -> Self:
        """The same in another dtype."""
        if dtype == self.dtype:
            return self
        cast: Self = jax.tree.map(lambda a: a.astype(dtype) if jnp.issubdtype(a.dtype, jnp.inexact) else a, self)
        return cast

    def fitted(self, n: int, dtype: Any) -> Self:
        """The same for systems of this size and dtype, and not differentiated.

        Raises
        ------
        ValueError
            If the size is another.
        TypeError
            If M is complex and the system is real.
        """
        if self.shape != (n, n):
            raise ValueError(_solver_words.shape_of_m(n, self.shape))
        if jnp.issubdtype(self.dtype, jnp.complexfloating) and not jnp.issubdtype(dtype, jnp.complexfloating):
            raise TypeError(_solver_words.complex_m(self.dtype))
        held: Self = jax.tree.map(stop_gradient, self.astype(dtype))
        return held

    def __repr__(self) -> str:
        return f"<{type(self).__name__.lower()}: {self._text}>"

    @property
    def _text(self) -> str:
        """Shape and dtype, None where a function of leaves has put something else in the place of an array."""
        return f"shape={getattr(self, 'shape', None)}, dtype={getattr(self, 'dtype', None)}"


@jax.jit
def _applied(M: Preconditioner, v: Array) -> Array:
    return M.apply(v)


def matrix(A: Any) -> SparseMatrix:
    """A as a SparseMatrix whose values carry no derivative, and are finite where they are concrete."""
    A = A._settled() if isinstance(A, SparseMatrix) else SparseMatrix.from_bcoo(A)  # which checks it
    _checks.check_square(tuple(A.shape), "SparseMatrix")
    _checks.check_dtype("A", A)
    if A.values.ndim != 1:
        raise ValueError(_solver_words.one_matrix(tuple(A.values.shape), _solver_words.OF_ONE_MEMBER))
    values = stop_gradient(A.values) if _internals.is_traced(A.values) else A.values
    _checks.check_finite("A", values)
    return A.with_values(values)


def is_traced(A: SparseMatrix) -> bool:
    return _internals.is_traced(A.values, A.pattern.row, A.pattern.col)
