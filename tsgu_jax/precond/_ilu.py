"""Incomplete LU factors, on the host."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.tree_util import register_dataclass

from tsgu._core.factors import _ilu
from tsgu_jax._matrix._sparse_matrix import SparseMatrix
from tsgu_jax._program import _host, _mesh
from tsgu_jax._program._promotion import as_usual
from tsgu_jax.precond import _incomplete
from tsgu_jax.precond._base import Apply, Origin, Preconditioner, is_traced, matrix


@partial(
    register_dataclass,
    data_fields=["values", "origin"],
    meta_fields=["drop_tol", "fill_factor"],
)
@dataclass(frozen=True, eq=False, repr=False)
class ILU(Preconditioner):
    """Incomplete factors, which the host finds by the entries of the matrix, and makes where they are not there."""

    values: Array
    origin: Origin
    drop_tol: float
    fill_factor: float

    @property
    def shape(self) -> tuple[int, int]:
        return self.origin.n, self.origin.n

    @property
    def dtype(self) -> Any:
        return self.values.dtype

    @property
    def apply(self) -> Apply:
        def apply(v: Array) -> Array:
            options = self.drop_tol, self.fill_factor, self.shape, self.origin.transposed, v.ndim
            solve = partial(_incomplete.solve, *options)
            like = jax.ShapeDtypeStruct(v.shape, v.dtype)
            x: Array = _host.call("ilu", solve, like, self.values, self.origin.row, self.origin.col, v)
            return x

        return apply

    @property
    def T(self) -> ILU:  # noqa: N802
        return replace(self, origin=self.origin.T)

    def _anew(self, A: SparseMatrix) -> ILU:
        return ilu(A, drop_tol=self.drop_tol, fill_factor=self.fill_factor)

    def astype(self, dtype: Any) -> ILU:
        return self  # the factors take any vector


@as_usual
def ilu(A: Any, *, drop_tol: float = 1e-4, fill_factor: float = 10.0) -> ILU:
    """Precondition by incomplete LU factors of A (SuperLU), made and applied on the host, also under ``jit``.

    For general matrices, with :data:`bicgstab` and :data:`gmres`: the rows are exchanged and entries dropped, so that M
    is not symmetric where A is.

    Parameters
    ----------
    A : BCOO, BCSR or SparseMatrix, shape (n, n)
        float32, float64, complex64 or complex128. No gradient flows into it, as for :func:`jacobi`. It may be traced:
        then it is factored when the compiled function runs.
    drop_tol : float, optional
        Entries smaller than this, relative to their column, are dropped; 0 to 1. 0 keeps all that ``fill_factor`` has
        room for.
    fill_factor : float, optional
        Largest ratio of entries in the factors to entries in A, at least 1.

    Returns
    -------
    Preconditioner
        To be given as ``M``; a pytree, callable on arrays (n,) and (n, k), with ``.T``, which shares the factors.

    Raises
    ------
    ValueError
        If A is not a sparse matrix, not square, a batch, or not finite; if an argument is out of range; if a factor is
        exactly singular. A traced matrix whose factor is singular makes the solve break down, which is reported.
    TypeError
        If A is dense or of another dtype.

    References
    ----------
    X. S. Li and M. Shao, ACM Trans. Math. Softw. 37 (2011), article 43.

    Examples
    --------
    >>> import jax.numpy as jnp, tsgu_jax
    >>> from jax.experimental.sparse import BCOO
    >>> A = BCOO.fromdense(jnp.array([[4.0, 1.0], [0.0, 2.0]]))
    >>> tsgu_jax.precond.ilu(A)(jnp.array([6.0, 4.0]))
    Array([1., 2.], dtype=float32)
    """
    drop_tol, fill_factor = _ilu.check_options(drop_tol, fill_factor)
    A = matrix(A)
    if not is_traced(A):
        entries = map(np.asarray, (A.values, A.pattern.row, A.pattern.col))
        _incomplete.factor(drop_tol, fill_factor, A.shape, *entries)
    values = A.values if isinstance(A.values, Array) else _mesh.lifted(A.values)
    return ILU(values, Origin.of(A), drop_tol, fill_factor)
