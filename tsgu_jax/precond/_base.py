"""What a preconditioner is to the Krylov methods: a linear operator r -> M r that is data, and has a transpose."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.lax import stop_gradient
from jax.tree_util import register_dataclass

from tsgu._core.report import _solver_words
from tsgu_jax._matrix import _checks
from tsgu_jax._matrix._sparse_matrix import SparseMatrix
from tsgu_jax._program import _internals, _mesh
from tsgu_jax._program._promotion import as_usual

Apply = Callable[[Array], Array]


@partial(register_dataclass, data_fields=["row", "col"], meta_fields=["n", "transposed"])
@dataclass(frozen=True, eq=False)
class Origin:
    """Which matrices a preconditioner can be refreshed with: those on the pattern that it was built for, or, for the
    transpose of one, on the transposed pattern."""

    row: Any
    col: Any
    n: int
    transposed: bool = False

    @classmethod
    def of(cls, A: SparseMatrix) -> Self:
        row, col = (e if isinstance(e, Array) else _mesh.lifted(e) for e in (A.pattern.row, A.pattern.col))
        return cls(row, col, A.shape[0])

    @property
    def T(self) -> Origin:  # noqa: N802
        return replace(self, transposed=not self.transposed)

    def fitted(self, name: str, A: SparseMatrix) -> SparseMatrix:
        """A on this pattern; NaN where it is on another and only the running program can tell."""
        row, col = A.pattern.row, A.pattern.col
        if row.shape != self.row.shape:
            raise ValueError(_solver_words.refreshed_pattern(name, self.row.shape[0], row.shape[0]))
        if row is self.row and col is self.col:
            return A
        if _internals.is_traced(row, col, self.row, self.col):
            known: Any = lambda values, *_: values  # noqa: E731
            values = _mesh.cond(self._equal(row, col), known, self._sorted, A.values, row, col)
            return SparseMatrix.from_coo(self.row, self.col, values, (self.n, self.n))
        if not (np.array_equal(row, self.row) and np.array_equal(col, self.col)):
            raise ValueError(_solver_words.refreshed_pattern(name, self.row.shape[0], row.shape[0]))
        return A

    def _equal(self, row: Any, col: Any) -> Array:
        return jnp.all((row == self.row) & (col == self.col))

    def _sorted(self, values: Array, row: Array, col: Array) -> Array:
        """Values of the same entries in another order, brought into that of a pattern that is known: by rows."""
        order = jnp.lexsort((col, row))
        return jnp.where(self._equal(row[order], col[order]), values[order], jnp.nan)


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

    origin: Origin
    """Of the matrix that it was built for; one of a class of the user's need not have it, nor ``refresh``."""

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

    @as_usual
    def refresh(self, A: Any) -> Preconditioner:
        """The same preconditioner for another matrix on the same pattern: a new one, and this one stays as it is.

        It takes what was found on the pattern, or by much work on the values, from this one, and makes the rest anew:
        in a training loop, where the values drift, it is as good as one that is built, for a small part of the time.
        The structure stays that of this one, so that nothing is compiled again. Under ``jit``, ``scan`` and ``vmap``
        too, where A is traced, and this preconditioner may be.

        Parameters
        ----------
        A : BCOO, BCSR or SparseMatrix, shape (n, n)
            On the pattern of the matrix that this was built for, of the transpose's for a transpose; without repeats or
            padding where its indices are traced. No gradient flows into it.

        Returns
        -------
        Preconditioner
            Of the dtype of this one.

        Raises
        ------
        ValueError
            If A is of another shape or has another number of entries, or is a batch; where it is concrete, if it is on
            another pattern or not finite, if a diagonal entry is zero, or whatever else the preconditioner needs is
            missing. A traced matrix of which only that is true makes the solve break down, which is reported.
        TypeError
            If A is dense or of another dtype, or complex where this is real; if the preconditioner is of another class
            than those of :mod:`tsgu_jax.precond`.

        Examples
        --------
        >>> import jax, jax.numpy as jnp, tsgu_jax
        >>> from jax.experimental.sparse import BCOO
        >>> A = tsgu_jax.SparseMatrix.from_bcoo(BCOO.fromdense(jnp.array([[4.0, 1.0], [1.0, 2.0]])))
        >>> M = tsgu_jax.precond.jacobi(A)
        >>> jax.jit(lambda values: M.refresh(A.with_values(values))(jnp.ones(2)))(2 * A.values)
        Array([0.125, 0.25 ], dtype=float32)
        """
        name, origin = type(self).__name__.lower(), getattr(self, "origin", None)
        if origin is None:
            raise TypeError(_solver_words.refreshed_by(type(self).__name__))
        A = matrix(A)
        if tuple(A.shape) != self.shape:
            raise ValueError(_solver_words.refreshed_shape(name, self.shape[0], tuple(A.shape)))
        if jnp.issubdtype(A.dtype, jnp.complexfloating) and not jnp.issubdtype(self.dtype, jnp.complexfloating):
            raise TypeError(_solver_words.refreshed_complex(name, self.dtype, A.dtype))
        if origin.transposed:
            return self.T.refresh(A.T).T
        A = origin.fitted(name, A)
        return self._anew(A.with_values(A.values.astype(self.dtype)))

    def _anew(self, A: SparseMatrix) -> Preconditioner:
        """The same for a matrix that fits."""
        raise TypeError(_solver_words.refreshed_by(type(self).__name__))

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
